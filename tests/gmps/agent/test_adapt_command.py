"""`demokit adapt` and `rollout`: policies, datasets and videos of what they did."""

import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from by_hand import METHODS

import demokit
from demokit.data import from_arrays, open_dataset
from demokit.data.labels import count_labels
from demokit.envs import make_family
from demokit.envs.tasks import find_task, make_tasks
from demokit.errors import DemokitError
from demokit.lock import Lock
from demokit.policies import CHECKPOINT
from demokit.random import stream
from gmps.agent import simulated
from gmps.beliefs import tensors_of
from gmps.evaluation import stages

TASK = "point/uniform-0/validation/02"
POINT = make_family("point")


def words(result):
    return " ".join(result.output.split())


@pytest.mark.parametrize("name", METHODS)
def test_adapt_keeps_the_policy_and_the_episodes_that_taught_it(runs, name, invoke, tmp_path):
    out, data = tmp_path / "new" / "point.safetensors", tmp_path / "episodes.hdf5"
    told = ("--task", TASK, "--rollouts", "3", "--episodes", "6", "--seed", "4")
    said = words(invoke("adapt", runs / name, *told, "--out", out, "--roll-outs", data))
    agent = demokit.load_policy(out)
    assert (agent.method, agent.steps, agent.episodes) == (name, 2, 6)
    assert f"{name} on {TASK}" in said
    assert [str(n) in said for n in (0, 3, 6)] == [True] * 3
    run = demokit.load_policy(runs / name)
    task = find_task(POINT, TASK)
    sampler = run.trained.problem.sampler((task,), explore=3, mean=5)
    streams = partial(stream, 4, "trial", run.trained.options.seed)
    *before, last = stages(run.trained.learner, sampler, streams, 2)
    for key, value in tensors_of(agent.belief).items():
        assert value.equal(tensors_of(last.belief)[key]), key
    invoke("validate", data, "--replay")
    with open_dataset(data) as dataset:
        episodes = list(dataset)
        assert count_labels(dataset).executed == 6 * POINT.horizon
        assert dataset.metadata.task_set == "uniform-0"
        assert dataset.metadata.provenance.noise_std is None
    assert [each.options["adaptation_step"] for each in episodes] == [0, 0, 0, 1, 1, 1]
    for stage, own in zip(before, (episodes[:3], episodes[3:]), strict=True):
        taught = stage.sampled.explored.rollouts
        for k, episode in enumerate(own):
            assert episode.task == task
            assert np.array_equal(episode.actions, taught.action[0, k].clamp(-1, 1).numpy())
            assert np.array_equal(episode.rewards.astype(np.float32), taught.reward[0, k].numpy())
            seen = taught.observation[0, k].numpy()
            assert np.array_equal(episode.observations[:-1], seen)


@pytest.mark.parametrize("name", METHODS)
def test_rollout_records_what_the_policy_does(runs, name, invoke, tmp_path):
    policy, data = tmp_path / "policy.safetensors", tmp_path / "done.hdf5"
    invoke("adapt", runs / name, "--context", "0.3,-0.2", "--out", policy)
    said = words(invoke("rollout", policy, "--context=0.3,-0.2", "--episodes", "70", "--out", data))
    agent = demokit.load_policy(policy)
    invoke("validate", data, "--replay")
    with open_dataset(data) as dataset:
        episodes = list(dataset)
        assert "executed action in 1,400 steps" in count_labels(dataset).words()
        assert dataset.metadata.provenance.noise_std == 0
    assert f"70 episodes, mean return {np.mean([e.episode_return for e in episodes]):.2f}" in said
    assert len({each.seed for each in episodes}) == 70
    for episode in (episodes[0], episodes[-1]):
        agent.reset()
        told = zip(episode.observations, [None, *episode.rewards[:-1]], strict=False)
        acted = [agent.act(seen, reward=paid) for seen, paid in told]
        assert np.allclose(acted, episode.actions, atol=1e-5)


def test_a_reward_that_is_not_told_is_none(runs):
    """Of the last action, not of the one before."""
    agent = demokit.load_policy(runs / "rl2")
    seen = np.zeros(2, np.float32)

    def acted(*told):
        agent.reset()
        return [agent.act(seen, reward=paid) for paid in told]

    assert np.array_equal(acted(None, 3.0, None, None), acted(None, 3.0, 0.0, 0.0))
    assert not np.array_equal(acted(None, 3.0, None, None), acted(None, 3.0, 3.0, 3.0))


def test_a_run_before_adaptation_is_recorded_in_several_tasks(runs, invoke, tmp_path):
    data = tmp_path / "before.hdf5"
    tasks = [f"point/uniform-0/validation/0{i}" for i in range(2)]
    chosen = [part for task in tasks for part in ("--task", task)]
    for name in ("gmps", "oracle"):
        invoke("rollout", runs / name, *chosen, "--episodes", "2", "--out", data, "--overwrite")
        with open_dataset(data) as dataset:
            assert [each.task.id for each in dataset] == [t for t in tasks for _ in range(2)]
            assert {e.options["adaptation_steps"] for e in dataset} == {0}


def test_an_adapted_policy_goes_on(runs, invoke, tmp_path):
    first, second, whole = (tmp_path / f"{n}.safetensors" for n in ("first", "second", "whole"))
    told = ("--context", "0.3,-0.2")
    invoke("adapt", runs / "gmps", *told, "--out", first)
    said = words(invoke("adapt", first, *told, "--out", second))
    invoke("adapt", runs / "gmps", *told, "--adapt-steps", "2", "--out", whole)
    assert "episodes" in said
    one, other = (tensors_of(demokit.load_policy(p).belief) for p in (second, whole))
    assert all(value.equal(other[key]) for key, value in one.items())


@pytest.fixture(scope="module")
def shown(tmp_path_factory, invoke):
    """A demonstration of a task."""
    path = tmp_path_factory.mktemp("shown") / "one.hdf5"
    only = ("--split", "validation", "--tasks", 1, "--episodes-per-task", 1)
    invoke("record", "--env", "point", *only, "--out", path)
    return path


@pytest.mark.parametrize("name", ["gmps", "imitation", "task-inference"])
def test_a_demonstration_is_shown_before_any_reward(runs, name, shown, invoke, tmp_path):
    out = tmp_path / "p.safetensors"
    said = words(invoke("adapt", runs / name, "--demos", shown, "--seed", 3, "--out", out))
    assert f"{name} on point/uniform-0/validation/00" in said
    agent = demokit.load_policy(out)
    assert (agent.steps, agent.episodes) == (0, 0)
    run = demokit.load_policy(runs / name)
    by_hand = run.shown(shown, seed=3)
    found, before = (tensors_of(each.belief) for each in (by_hand, run))
    assert all(v.equal(found[key]) for key, v in tensors_of(agent.belief).items())
    assert not all(v.equal(found[key]) for key, v in before.items())
    # It goes on from there.
    more = tmp_path / "more.safetensors"
    told = ("--demos", shown, "--seed", 3, "--episodes", 3, "--rollouts", 3, "--out", more)
    invoke("adapt", runs / name, *told)
    agent = demokit.load_policy(more)
    assert (agent.steps, agent.episodes) == (1, 3)


def test_imitation_of_a_demonstration_comes_near_its_actions(runs, shown):
    run = demokit.load_policy(runs / "imitation")
    with open_dataset(shown) as dataset:
        episode = dataset[0]
    seen, wanted = episode.observations[:-1], episode.actions
    errors = [
        float(np.square(agent.act(seen) - wanted).mean()) for agent in (run, run.shown(shown))
    ]
    assert errors[1] < 0.5 * errors[0]


def test_what_cannot_be_shown_is_refused(runs, shown, point_demos, invoke, tmp_path):
    out = ("--out", tmp_path / "p.safetensors")
    several = words(invoke("adapt", runs / "gmps", "--demos", point_demos, *out, exit_code=1))
    assert "shows 3 tasks, and what is adapted to is one" in several
    one = tmp_path / "push.hdf5"
    invoke("record", "--env", "push", "--tasks", 1, "--episodes-per-task", 1, "--out", one)
    said = words(invoke("adapt", runs / "gmps", "--demos", one, *out, exit_code=1))
    assert "shows push, the policy is one of point" in said
    said = words(invoke("adapt", runs / "context-search", "--demos", shown, *out, exit_code=1))
    assert "learns a new task from rewards alone" in said
    said = words(
        invoke("adapt", runs / "gmps", "--context=0,0", "--episodes", 0, *out, exit_code=2)
    )
    assert "nothing to learn from" in said
    assert not (tmp_path / "p.safetensors").exists()


@pytest.mark.parametrize(("what", "seen", "done"), [("observations", 3, 2), ("actions", 2, 3)])
def test_a_dataset_of_other_shapes_is_one_sentence(runs, what, seen, done, invoke, tmp_path):
    """A file may call itself what it likes."""
    path, steps = tmp_path / "other.hdf5", np.zeros((21, seen))
    one = {"observations": steps, "actions": np.zeros((20, done)), "task": "x", "context": (0, 0)}
    from_arrays(path, [one], family="point")
    adapt = ("adapt", runs / "gmps", "--demos", path, "--out", tmp_path / "p")
    train = ("meta-train", "--demos", path, "--method", "imitation", "--output-dir", tmp_path / "r")
    for words_of in (adapt, train):
        said = words(invoke(*words_of, exit_code=1))
        assert f"holds {what} of the shape (3,), and point has (2,)" in said
    assert not (tmp_path / "r").exists()


def test_a_video_shows_before_and_after(runs, invoke, tmp_path):
    video, out = tmp_path / "v.mp4", tmp_path / "p.safetensors"
    invoke("adapt", runs / "gmps", "--context", "0.3,-0.2", "--out", out, "--video", video)
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
    frames, _ = imageio_ffmpeg.count_frames_and_secs(str(video))
    assert frames > 10


REFUSED = {
    "no task": ((), "Name the task"),
    "two tasks": (("--task", TASK, "--context", "0,0"), "Name the task"),
    "no such task": (("--task", "point/uniform-0/validation/9999999"), "no task"),
    "no such split": (("--task", "point/uniform-0/test/01"), "split"),
    "another family's": (("--task", "push/paper/validation/01"), "no task"),
    "a short context": (("--context", "1"), "2 numbers, goal_x, goal_y"),
    "no numbers": (("--context", "a,b"), "2 numbers"),
    "NaN": (("--context", "nan,0"), "not finite"),
    "another family": (("--context", "0,0", "--env", "push"), "cannot act in push"),
    "half a step": (("--context", "0,0", "--episodes", "4"), "multiple of 3"),
    "two amounts": (("--context", "0,0", "--episodes", "3", "--adapt-steps", "1"), "not both"),
    "one roll-out": (("--context", "0,0", "--rollouts", "1"), "2 episodes or more"),
    "a bad dataset": (("--context", "0,0", "--roll-outs", "name.txt"), "NAME.hdf5"),
    "no video": (("--context", "0,0", "--video", "v.txt"), "NAME.mp4"),
    "the checkpoint": (("--context", "0,0", "--out", "checkpoint.safetensors"), "a training's"),
    "one name twice": (("--context", "0,0", "--video", "policy"), "same name"),
}


@pytest.mark.parametrize(("options", "said"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_done_is_refused_before_anything_is(
    runs, options, said, invoke, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    usage = said in ("Name the task", "NAME.mp4")
    given = ("adapt", runs / "gmps", "--out", "policy", *options)
    assert said in words(invoke(*given, exit_code=2 if usage else 1))
    assert not list(tmp_path.iterdir())


def test_files_that_are_there_stay(runs, invoke, tmp_path):
    out, data = tmp_path / "p.safetensors", tmp_path / "d.hdf5"
    told = ("adapt", runs / "gmps", "--context", "0.3,-0.2", "--out", out, "--roll-outs", data)
    invoke(*told)
    before = out.read_bytes(), data.read_bytes()
    assert "exists" in words(invoke(*told, exit_code=1))
    assert "exists" in words(invoke("rollout", out, "--context", "0,0", "--out", data, exit_code=1))
    assert before == (out.read_bytes(), data.read_bytes())
    invoke(*told, "--overwrite")
    assert out.read_bytes() == before[0]


def test_nothing_that_is_read_is_replaced(runs, shown, invoke, tmp_path):
    run = Path(shutil.copytree(runs / "gmps", tmp_path / "run"))
    demos = Path(shutil.copy(shown, tmp_path / "one.hdf5"))
    policy = Path(shutil.copy(run / CHECKPOINT, tmp_path / "p.safetensors"))
    read = [run / CHECKPOINT, demos, policy]
    before = [each.read_bytes() for each in read]
    (tmp_path / "link.safetensors").symlink_to(run / CHECKPOINT)
    told = ("--demos", demos, "--overwrite")
    for given in (
        ("adapt", run, *told, "--out", run / CHECKPOINT),
        ("adapt", run, *told, "--out", tmp_path / "link.safetensors"),
        ("adapt", policy, *told, "--out", run / CHECKPOINT),
        ("adapt", policy, *told, "--out", policy),
        ("adapt", policy, *told, "--out", tmp_path / "o", "--roll-outs", demos),
    ):
        assert "name another file" in words(invoke(*given, exit_code=1))
    for path in (run / CHECKPOINT, tmp_path / "link.safetensors"):
        with pytest.raises(DemokitError, match="a training's checkpoint"):
            demokit.load_policy(policy).save(path, overwrite=True)
    assert before == [each.read_bytes() for each in read]


def test_the_place_of_the_policy_is_taken_before_anything_is_simulated(
    runs, invoke, tmp_path, monkeypatch
):
    monkeypatch.setattr(simulated, "adapt", None)
    told = ("adapt", runs / "gmps", "--context=0,0", "--out")
    (tmp_path / "file").touch()
    said = words(invoke(*told, tmp_path / "file" / "p.safetensors", exit_code=1))
    assert "Cannot write" in said
    out = tmp_path / "p.safetensors"
    with Lock(out, "wait."):
        assert "is being written" in words(invoke(*told, out, exit_code=1))


def test_a_policy_that_was_told_a_task_is_told_no_other(runs, invoke, tmp_path):
    out, again = tmp_path / "a.safetensors", ("--out", tmp_path / "b.safetensors")
    invoke("adapt", runs / "oracle", "--context=0.3,-0.2", "--out", out)
    for command in ("adapt", "rollout"):
        data = ("--out", tmp_path / "d.hdf5") if command == "rollout" else again
        said = words(invoke(command, out, "--context=0.3,0.2", *data, exit_code=1))
        assert "was told the task 0.3,-0.2, and this is 0.3,0.2" in said
    assert not list(tmp_path.glob("[bd].*"))
    invoke("adapt", out, "--context=0.3,-0.2", *again)


def test_demonstrations_are_of_the_task_that_is_named(runs, shown, invoke, tmp_path):
    told = ("adapt", runs / "gmps", "--demos", shown, "--out", tmp_path / "p.safetensors")
    said = words(invoke(*told, "--task", "point/uniform-0/validation/01", exit_code=1))
    assert "--demos shows point/uniform-0/validation/00, which is not" in said
    invoke(*told, "--task", "point/uniform-0/validation/00")
    oracle = ("adapt", runs / "oracle", "--demos", shown, "--out", tmp_path / "o.safetensors")
    assert "show it none" in words(invoke(*oracle, exit_code=1))


def test_contexts_that_differ_are_tasks_of_two_names(runs, invoke, tmp_path):
    data = tmp_path / "d.hdf5"
    several = ("--context=0.12345678,0.2", "--context=0.12345679,0.2", "--episodes=1")
    invoke("rollout", runs / "gmps", *several, "--out", data)
    with open_dataset(data) as dataset:
        assert [each.task.id for each in dataset] == [
            "point/typed/0.12345678,0.2",
            "point/typed/0.12345679,0.2",
        ]


def test_an_interrupt_leaves_nothing(runs, invoke, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(simulated, "curve_of", stop)
    out, data = tmp_path / "p.safetensors", tmp_path / "d.hdf5"
    told = ("--context", "0.3,-0.2", "--out", out, "--roll-outs", data)
    assert "Interrupted" in invoke("adapt", runs / "gmps", *told, exit_code=130).output
    assert not list(tmp_path.iterdir())


def test_a_dataset_is_no_run(point_demos, invoke, tmp_path):
    told = ("--context", "0,0", "--out", tmp_path / "p")
    assert "no demokit checkpoint" in words(invoke("adapt", point_demos, *told, exit_code=1))


@pytest.mark.parametrize("name", ["point", "push"])
def test_tasks_are_found_by_their_ids(name):
    family = make_family(name)
    for task_set, split in (("uniform", "train"), ("uniform", "validation"), ("ood", "ood")):
        for task in make_tasks(family, task_set, split, num_tasks=25, seed=3)[::6]:
            assert find_task(family, task.id) == task
    if name == "push":
        task = make_tasks(family, "paper", "validation")[3]
        assert find_task(family, "push/paper/validation/03") == task
    for wrong in (
        "",
        "push",
        "a/b/c/d/e",
        f"{name}/uniform-x/train/01",
        f"{name}/uniform-0/train/1",
    ):
        with pytest.raises(DemokitError, match="no task"):
            find_task(family, wrong)
