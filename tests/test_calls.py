"""Recording, training and evaluation from Python: what the commands write, and clear errors."""

import shutil

import pytest
from click.testing import CliRunner

import demokit
from demokit.cli import main
from demokit.data import open_dataset
from demokit.envs import make_family
from demokit.errors import DemokitError

FEW = {"iterations": 1, "steps": 3, "step_size": 0.01, "rollouts_per_task": 2, "threads": 1}


@pytest.fixture(scope="module")
def walk(tmp_path_factory):
    """A folder with a recording and a run of it, and what an evaluation of this found."""
    root = tmp_path_factory.mktemp("calls")
    quiet = {"progress": False}
    demokit.record("point", root / "p.hdf5", tasks=3, episodes_per_task=2, **quiet)
    demokit.meta_train(root / "p.hdf5", root / "run-0", method="imitation", **FEW, **quiet)
    return root, demokit.evaluate(root / "run-0", episodes=4, num_tasks=2, **quiet)


def typed(*arguments):
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output


def test_they_write_what_the_commands_write(walk, tmp_path):
    root, found = walk
    out, run = tmp_path / "p.hdf5", tmp_path / "run-0"
    typed("record", "--env", "point", "--tasks", 3, "--episodes-per-task", 2, "--out", out)
    given = [f"--{name.replace('_', '-')}={value}" for name, value in FEW.items()]
    typed("meta-train", "--demos", out, "--method", "imitation", *given, "--output-dir", run)
    typed("evaluate", run, "--episodes", 4, "--num-tasks", 2)
    ours, theirs = open_dataset(root / "p.hdf5"), open_dataset(out)
    for one, other in zip(ours, theirs, strict=True):
        assert (one.actions == other.actions).all()
    names = ("checkpoint.safetensors", "evaluation/evaluation.csv")
    for name in names:
        assert (root / "run-0" / name).read_bytes() == (run / name).read_bytes()
    assert found.folder == root / "run-0" / "evaluation"


def test_figures_stand_by_method_and_episodes(walk):
    _, found = walk
    assert list(found.success) == list(found.returns) == ["run"]
    assert list(found.success["run"]) == [0, 2, 4]
    row = next(
        row
        for row in found.content["summary"]
        if (row["actor"], row["measure"], row["episodes"]) == ("mean", "episode_return", 4)
    )
    assert found.returns["run"][4] == (row["mean"], row["low"], row["high"])
    assert found.verdict == found.content["verdict"]["validation"]


def test_a_run_goes_on_and_gives_its_policy(walk, tmp_path):
    root, _ = walk
    shutil.copytree(root / "run-0", tmp_path / "run-0")
    given = {"method": "imitation", **FEW, "resume": True, "progress": False}
    agent = demokit.meta_train(root / "p.hdf5", tmp_path / "run-0", **given)
    seen = [0.1, -0.2]
    assert (agent.act(seen) == demokit.load_policy(root / "run-0").act(seen)).all()


WRONG = {
    "option": (lambda root: demokit.meta_train(root / "p.hdf5", iteratons=3), "'iterations'"),
    "kind": (lambda root: demokit.meta_train(root / "p.hdf5", iterations="3"), "type int"),
    "nothing": (lambda root: demokit.meta_train(), "name a dataset, demos"),
    "both": (lambda root: demokit.meta_train("a", env="point"), "name demos or env"),
    "of env": (lambda root: demokit.meta_train("a", tasks=3), "belong to env"),
    "needs": (lambda root: demokit.meta_train(env="point"), "learns from demonstrations"),
    "run": (
        lambda root: demokit.meta_train(root / "p.hdf5", root / "run-0", method="imitation"),
        "continue it with resume, replace it with overwrite, or name another output_dir",
    ),
    "no run": (lambda root: demokit.evaluate(root / "nothing"), "No checkpoint at"),
    "no runs": (lambda root: demokit.evaluate(), "name a run"),
    "few": (lambda root: demokit.evaluate(root / "run-0", episodes=1), "raise episodes, or lower"),
    "two": (lambda root: demokit.evaluate("a", episodes=1, adapt_steps=1), "not both"),
    "family": (lambda root: demokit.record("piont", root / "q.hdf5"), "did you mean 'point'"),
    "file": (lambda root: demokit.record("point", root / "p.hdf5"), "say resume=True"),
    "noise": (lambda root: demokit.record("point", root / "q", noise=-1), "noise must be"),
    "count": (lambda root: demokit.record("point", root / "q", tasks=0), "from 1 to"),
    "seen": (lambda root: demokit.record("point", root / "q", observation="x"), "known: state"),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_arguments_are_one_sentence_in_the_words_of_python(walk, tmp_path, monkeypatch, what):
    monkeypatch.chdir(tmp_path)
    call, said = WRONG[what]
    with pytest.raises(DemokitError, match=said) as error:
        call(walk[0])
    assert "--" not in str(error.value).replace("demokit --import", "")
    assert not list(tmp_path.iterdir())


def test_what_is_there_is_replaced_by_no_less_than_was_asked_for(tmp_path):
    few = {"tasks": 3, "only_success": True, "noise": 3, "progress": False}
    path = tmp_path / "p.hdf5"
    demokit.record("point", path, tasks=3, episodes_per_task=1, progress=False)
    before = path.read_bytes()
    with pytest.raises(DemokitError, match=r"2 of 6 episodes are saved beside .* with resume=T"):
        demokit.record("point", path, episodes_per_task=2, overwrite=True, **few)
    assert path.read_bytes() == before
    with pytest.raises(DemokitError, match="2 of 6 episodes are saved beside"):
        demokit.record("point", path, episodes_per_task=2, resume=True, **few)
    assert path.read_bytes() == before
    assert len(demokit.record("point", path, num_episodes=2, resume=True, **few)) == 2
    assert sorted(each.name for each in tmp_path.iterdir()) == ["p.hdf5", "p.md"]


def test_a_family_is_named_or_given(tmp_path):
    given = {"tasks": 1, "episodes_per_task": 1, "expert": "random", "progress": False}
    made = demokit.record(make_family("point"), tmp_path / "a.hdf5", **given)
    assert made.metadata.provenance.expert == "random"
    assert (
        made[0].actions.tolist()
        == demokit.record("point", tmp_path / "b.hdf5", **given)[0].actions.tolist()
    )
