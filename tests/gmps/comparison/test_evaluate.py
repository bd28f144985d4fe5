"""Evaluation: what adaptation sees, the choice of step size, the files that are written."""

import csv
import gzip
import json
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from functools import partial

import numpy as np
import pytest
import torch
from memory import growth
from short_run import SHORT, learner_of, options_of, trained_in

from demokit.envs.tasks import make_tasks
from demokit.errors import DemokitError
from demokit.learning.checkpoint import load_checkpoint, save_checkpoint
from demokit.random import stream
from demokit.types import Task
from gmps.comparison.evaluated_run import EvaluatedRun, Facts, evaluated_runs
from gmps.comparison.measure import Wanted, _keys, measure, num_steps, unlike
from gmps.comparison.protocol import Protocol
from gmps.comparison.references import choose_reference, demonstrated
from gmps.comparison.rows import Row, Variant, label_of, read_rows
from gmps.comparison.videos import _before_and_after
from gmps.evaluation import meta_test
from gmps.experience.demos import load_demos
from gmps.method import find_method
from gmps.runs.checkpoint import load
from gmps.runs.folder import CURVES
from gmps.tuning import choose_step_size


@pytest.fixture
def trained(point_run):
    return load(point_run)[0]


def curve_of(trained, learner=None, num_steps=2):
    problem = trained.problem
    tasks = make_tasks(problem.family, "uniform", "validation", num_tasks=4)
    sampler = problem.sampler(tasks, explore=3, mean=2)
    streams = partial(stream, 0, "test")
    return meta_test(learner or trained.learner, sampler, streams, num_steps)


def test_the_first_step_is_the_learned_one(trained):
    still = curve_of(trained, trained.learner.with_step_size(0.0))
    moved = curve_of(trained, trained.learner.with_step_size(0.5))
    assert still.mean.episode_return.shape == (3, 4)
    np.testing.assert_array_equal(still.mean.episode_return[:2], moved.mean.episode_return[:2])
    assert not np.array_equal(still.mean.episode_return[2], moved.mean.episode_return[2])


def test_every_task_starts_from_theta_and_adapts_alone(trained):
    """Other tasks beside it change nothing that a task learns or earns."""
    problem = trained.problem
    tasks = make_tasks(problem.family, "uniform", "validation", num_tasks=4)
    found = [
        meta_test(
            trained.learner, problem.sampler(some, explore=3, mean=2), partial(stream, 0, "test"), 2
        ).mean.episode_return
        for some in (tasks, tasks[:2])
    ]
    np.testing.assert_allclose(found[0][:, :2], found[1], rtol=1e-5)


def test_evaluation_leaves_the_learner_alone(trained):
    before = {name: value.clone() for name, value in trained.learner.tensors().items()}
    curve_of(trained)
    assert all(torch.equal(before[n], value) for n, value in trained.learner.tensors().items())


def test_step_size_is_the_best_tried_and_has_worse_ones_on_both_sides(trained):
    tuning = choose_step_size(trained.learner, trained.problem, 0, grid=(1e-3, 1e-2))
    assert tuning.best == max(tuning.scores, key=tuning.scores.get)
    assert min(tuning.scores) < tuning.best < max(tuning.scores)
    # What comes before the first step with the scalar is rolled out once, steps 2 and 3 for each.
    rolled_out = (2 + 2 * len(tuning.scores)) * len(trained.problem.tasks)
    assert tuning.env_steps == rolled_out * (3 + 5) * 20


def test_a_step_scale_of_zero_goes_nowhere(trained):
    """At zero every step leaves theta where it is, the learned one included."""
    still = curve_of(trained, trained.learner.scaled(0.0))
    untrained = replace(
        trained.learner, meta=trained.learner.meta._replace(step_sizes={}), step_size=0.0
    )
    stays = curve_of(trained, untrained)
    np.testing.assert_array_equal(still.mean.episode_return, stays.mean.episode_return)
    moved = curve_of(trained)
    np.testing.assert_array_equal(still.mean.episode_return[0], moved.mean.episode_return[0])
    assert not np.array_equal(still.mean.episode_return[1], moved.mean.episode_return[1])


@pytest.mark.parametrize(
    ("folder", "label"),
    [
        ("gmps-0", "gmps"),
        ("push-gmps-12", "push-gmps"),
        ("7", "7"),
        ("lr-0.1", "lr-0.1"),
        ("K20", "K20"),
    ],
)
def test_labels_drop_the_seed(tmp_path, folder, label):
    assert label_of(tmp_path / folder) == label


def test_evaluate_writes_table_picture_and_page(point_run, tmp_path, invoke):
    folder = tmp_path / "comparison"
    result = invoke(
        *("evaluate", point_run, "--num-tasks", 3, "--adapt-steps", 3, "--output-dir", folder)
    )
    assert "gmps" in result.output
    assert (folder / "evaluation.png").read_bytes().startswith(b"\x89PNG")
    table = list(csv.DictReader((folder / "evaluation.csv").open()))
    assert len(table) == 3 * 4 * 2 + 2 * 3
    assert content_of(folder)["references"]["success"]["expert"] == 1.0
    assert content_of(folder)["references"]["success"]["random actions"] < 0.5
    content = json.loads((folder / "evaluation.json").read_text())
    assert {entry["step"] for entry in content["summary"]} == {0, 1, 2, 3}
    own = [float(r["success"]) for r in table if (r["step"], r["actor"]) == ("1", "mean")]
    [entry] = [
        e
        for e in content["summary"]
        if (e["step"], e["actor"], e["measure"]) == (1, "mean", "success")
    ]
    assert entry["mean"] == pytest.approx(np.mean(own))
    assert "meta-training" in (folder / "report.md").read_text()
    assert "iterations" in (folder / "report.html").read_text()


def content_of(folder):
    return json.loads((folder / "evaluation.json").read_text())


def test_side_by_side_measures_the_same(point_run, tmp_path, invoke, monkeypatch):
    """Nor does a module of the working folder take the place of one of Python's."""
    (tmp_path / "socket.py").write_text("raise SystemExit('run')")
    monkeypatch.chdir(tmp_path)
    tables = []
    for jobs in (1, 2):
        run, folder = tmp_path / f"{jobs}" / "gmps-0", tmp_path / f"c{jobs}"
        shutil.copytree(point_run, run, ignore=shutil.ignore_patterns("curves"))
        asked = ("--num-tasks", 2, "--adapt-steps", 1, "--rollouts", 2, "--rollouts", 3)
        invoke("evaluate", run, *asked, "--jobs", jobs, "--output-dir", folder)
        tables.append((folder / "evaluation.csv").read_text())
    assert tables[0] == tables[1]


@pytest.mark.parametrize("shown", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_some_tasks_at_a_time_measure_the_same(shown, point_run, tmp_path, monkeypatch):
    protocol = Protocol(num_tasks=5, adapt_steps=1, rollouts=(2,), demonstrations=shown)
    tables = []
    for jobs, at_once in ((1, 5), (1, 2), (2, 1)):
        folder = tmp_path / f"{jobs}-{at_once}" / "gmps-0"
        shutil.copytree(point_run, folder, ignore=shutil.ignore_patterns("curves"))
        monkeypatch.setattr("gmps.comparison.measure._TASKS_AT_ONCE", at_once)
        runs, told = evaluated_runs([folder]), []
        rows, _ = measure(runs, protocol, told.append, jobs)
        tables.append(rows)
        # Told after every step of every piece, whoever takes it.
        assert told == list(range(num_steps(runs, protocol) + 1))
    assert len({row.task for row in tables[0]}) == 5
    assert tables[0] == tables[1] == tables[2]


def test_measurements_stand_for_a_run_without_checkpoint(point_run, tmp_path, invoke):
    run, folder = tmp_path / "gmps-0", tmp_path / "c"
    shutil.copytree(point_run, run, ignore=shutil.ignore_patterns("curves"))
    asked = ("evaluate", run, "--num-tasks", 2, "--output-dir", folder)
    invoke(*asked, "--adapt-steps", 1)
    before = (folder / "evaluation.json").read_text()
    (run / "checkpoint.safetensors").unlink()
    invoke(*asked, "--adapt-steps", 1)
    assert (folder / "evaluation.json").read_text() == before
    result = invoke(*asked, "--adapt-steps", 2, exit_code=1)
    assert "keeps measurements and no checkpoint" in result.output
    (run / "facts.json").write_text("{}")
    assert "cannot be read" in invoke(*asked, "--adapt-steps", 1, exit_code=1).output


def test_splits_and_sweeps_and_nothing_is_measured_twice(point_run, tmp_path, invoke):
    folder, run = tmp_path / "c", tmp_path / "gmps-0"
    shutil.copytree(point_run, run, ignore=shutil.ignore_patterns("curves"))
    common = ("evaluate", run, "--num-tasks", 2, "--adapt-steps", 1, "--output-dir", folder)
    invoke(*common)
    [first] = (run / "curves").iterdir()
    written = first.stat().st_mtime_ns
    values = ("--rollouts", 3, "--rollouts", 2, "--step-scale", 0.5, "--step-scale", 2)
    result = invoke(*common, "--split", "validation", "--split", "ood", *values)
    assert "2 ood tasks" in result.output
    assert first.stat().st_mtime_ns == written
    # K = 3, the first, is the main curve's, too: measured once.
    assert len(list((run / "curves").iterdir())) == 2 * (1 + 1 + 2)
    table = list(csv.DictReader((folder / "evaluation.csv").open()))
    assert {(r["split"], r["sweep"], r["rollouts"], r["step_scale"]) for r in table} == {
        (split, *variant)
        for split in ("validation", "ood")
        for variant in (
            *(("main", "3", "1.0"), ("main", "0", "1.0")),
            *(("rollouts", "2", "1.0"), ("rollouts", "3", "1.0")),
            *(("step scale", "3", "0.5"), ("step scale", "3", "2.0")),
        )
    }
    assert (folder / "sweep-rollouts.png").exists()
    assert (folder / "sweep-step-size.png").exists()


@pytest.fixture(scope="session")
def simple_runs(point_demos, tmp_path_factory, invoke):
    """Folders of the three simplest methods on Point, hardly trained."""
    root = tmp_path_factory.mktemp("simple")
    for name in ("replay", "context-search", "oracle"):
        short = () if name == "replay" else ("--iterations", 2, "--steps", 20)
        asked = ("meta-train", "--demos", point_demos, "--method", name, "--threads", 1)
        invoke(*asked, *short, "--output-dir", root / f"{name}-0")
    return [root / f"{name}-0" for name in ("replay", "context-search", "oracle")]


def test_episodes_are_spent_in_as_many_steps_as_they_fill(point_run, simple_runs, tmp_path, invoke):
    folder = tmp_path / "c"
    asked = ("evaluate", point_run, *simple_runs, "--num-tasks", 2, "--output-dir", folder)
    result = invoke(*asked, "--episodes", 7)
    assert "gmps takes 2 steps of 3 episodes: 6 of 7." in result.stderr
    assert "replay takes" not in result.stderr
    table = list(csv.DictReader((folder / "evaluation.csv").open()))
    last = {row["label"]: int(row["step"]) for row in table if row["actor"] == "mean"}
    oracle = "oracle (told the context)"
    assert last == {"gmps": 2, "replay": 7, "context-search": 7, oracle: 7}
    content = content_of(folder)
    assert oracle in content["verdict"]["validation"]
    assert content["told"]["replay"] == find_method("replay").told
    assert "of a new task its context" in content["told"][oracle]
    assert content["lost_while_adapting"]["replay"]["7"]["mean"] > 0
    for page in ("report.html", "report.md"):
        assert oracle in (folder / page).read_text()
        assert find_method("context-search").told in (folder / page).read_text()
    assert f"{oracle}: " in result.output
    # As many steps measure the same, whichever way they are asked for.
    measured = sorted((simple_runs[0] / CURVES).iterdir())
    invoke("evaluate", simple_runs[0], "--num-tasks", 2, "--adapt-steps", 7)
    assert sorted((simple_runs[0] / CURVES).iterdir()) == measured


def test_too_few_episodes_are_one_sentence(point_run, tmp_path, invoke):
    asked = ("evaluate", point_run, "--num-tasks", 1, "--output-dir", tmp_path / "c")
    refused = invoke(*asked, "--episodes", 2, exit_code=1).output
    assert refused == (
        "Error: 2 episodes are less than one adaptation step of gmps, which takes 3: raise "
        "--episodes, or lower --rollouts.\n"
    )
    both = invoke(*asked, "--episodes", 6, "--adapt-steps", 2, exit_code=2).output
    assert "Name --episodes or --adapt-steps, not both." in both


def test_demonstrations_are_shown_before_the_first_episode(
    point_run, simple_runs, tmp_path, invoke
):
    few = ("--num-tasks", "3", "--adapt-steps", "1", "--rollouts", "3")
    returns = []
    for num in (0, 2):
        folder = tmp_path / str(num)
        invoke("evaluate", point_run, *few, "--demonstrations", num, "--output-dir", folder)
        with (folder / "evaluation.csv").open(newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["label"] == "gmps"]
        returns.append([float(r["episode_return"]) for r in rows if r["actor"] == "mean"])
    before, after = (np.mean(each[:3]) for each in returns)
    assert after > before + 2  # a demonstration says where the goal is
    content = content_of(tmp_path / "2")
    assert content["facts"]["demonstrations of each task, shown first"] == "2"
    assert content["told"]["gmps"].endswith("; of a new task 2 demonstrations")
    assert "demonstrations of each task" not in str(content_of(tmp_path / "0")["facts"])
    args = ("--demonstrations", 1, "--output-dir", tmp_path / "no")
    said = invoke("evaluate", point_run, simple_runs[1], *args, exit_code=1).output
    assert "learns a new task from rewards alone" in said


def test_where_it_is_judged_by_another_reward_than_its_own_is_told(point_run, tmp_path, invoke):
    """As MAESN is: trained on the dense one, judged by the sparse one."""
    few = ("--num-tasks", 1, "--adapt-steps", 1)
    told = []
    for reward in ("dense", "sparse"):
        folder = tmp_path / reward
        invoke("evaluate", point_run, *few, "--reward", reward, "--output-dir", folder)
        told.append(content_of(folder)["told"]["gmps"])
    own, other = told
    assert other == f"{own}; the dense reward in training, the sparse one of a new task"


def test_measurements_of_an_oracle_remember_that_it_was_told(simple_runs, tmp_path, invoke):
    run = tmp_path / "oracle-0"
    shutil.copytree(simple_runs[2], run)
    asked = ("evaluate", run, "--num-tasks", 1, "--adapt-steps", 1)
    invoke(*asked, "--output-dir", tmp_path / "c")
    (run / "checkpoint.safetensors").unlink()
    assert "oracle (told the context)" in invoke(*asked, "--output-dir", tmp_path / "c").output


def test_without_videos_there_is_still_a_page(point_run, tmp_path, invoke, monkeypatch):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    small = ("--num-tasks", 1, "--adapt-steps", 1, "--output-dir", tmp_path / "c")
    result = invoke("evaluate", point_run, "--videos", 1, *small)
    assert "No videos: Videos need imageio-ffmpeg, which is not installed" in result.output
    assert (tmp_path / "c" / "report.html").exists()


def test_one_value_is_no_sweep(point_run, tmp_path, invoke):
    folder = tmp_path / "c"
    small = ("--num-tasks", 1, "--adapt-steps", 1, "--output-dir", folder)
    invoke("evaluate", point_run, "--rollouts", 5, *small)
    table = list(csv.DictReader((folder / "evaluation.csv").open()))
    assert {(r["sweep"], r["rollouts"]) for r in table} == {("main", "5"), ("main", "0")}


def test_an_expert_that_is_named_must_exist(point_run, tmp_path, invoke):
    small = ("--num-tasks", 1, "--adapt-steps", 1, "--output-dir", tmp_path)
    found = invoke("evaluate", point_run, "--expert", "scirpted", *small, exit_code=1)
    assert "did you mean 'scripted'" in found.output


def test_json_output_is_json_alone(point_run, tmp_path, invoke):
    result = invoke(
        *("evaluate", point_run, "--num-tasks", 1, "--adapt-steps", 3, "--json"),
        *("--output-dir", tmp_path / "c"),
    )
    assert json.loads(result.stdout)["runs"][0]["run"] == "gmps-0"


def test_wrong_runs_are_one_sentence(tmp_path, invoke):
    (tmp_path / "empty").mkdir()
    assert "No checkpoint" in invoke("evaluate", tmp_path / "empty", exit_code=1).output
    broken = tmp_path / "checkpoint.safetensors"
    broken.write_bytes(b"\x80\x04\x95 not a checkpoint")
    assert "no demokit checkpoint" in invoke("evaluate", broken, exit_code=1).output
    assert invoke("evaluate", tmp_path / "absent", exit_code=2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"options": {"optoin": 1}}, "another version"),
        ({"tasks": None}, "another version"),
        ({"kind": "sac"}, "of 'sac'"),
        ({"method": "gpms"}, "of a method that is not installed here"),
        ({"schema": {"model_hash": "0"}}, "another model"),
        ({"schema": {"name": "pusj"}}, "did you mean 'push'"),
    ],
)
def test_checkpoints_that_do_not_fit_are_one_sentence(point_run, tmp_path, invoke, change, message):
    tensors, header = load_checkpoint(point_run / "checkpoint.safetensors")
    schema = {**header["schema"], **change.get("schema", {})}
    changed = {**header, **change, "schema": schema}
    save_checkpoint(tmp_path / "checkpoint.safetensors", tensors, changed)
    assert message in invoke("evaluate", tmp_path, exit_code=1).output


def test_an_exploring_run_is_filmed_and_the_scale_counts(point_demos):
    learner, problem = learner_of(load_demos(point_demos), "gmps-latent")
    given = problem, problem.tasks, 4, 0
    one, two, none = (
        [*_before_and_after(learner.scaled(scale), *given)] for scale in (1.0, 1.0, 0.0)
    )
    np.testing.assert_array_equal(one[1].states, two[1].states)
    assert not np.array_equal(one[1].states, none[1].states)
    np.testing.assert_array_equal(none[1].states, none[0].states)


def test_a_film_shows_what_was_shown_the_task(point_demos):
    learner, problem = learner_of(load_demos(point_demos))
    expert = choose_reference("point", None, ()).expert

    def show(tasks):
        return demonstrated(problem, expert, tasks, 1, stream(0, "test"))

    given = problem, problem.tasks, 4, 0
    (alone, _), (shown, after) = ([*_before_and_after(learner, *given, s)] for s in (None, show))
    assert (alone.title, shown.title) == ("before adaptation", "shown the task")
    assert after.title == "after 4 episodes"
    assert not np.array_equal(alone.states, shown.states)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"adapt_steps": 0}, "adapt_steps is at least 1, not 0"),
        ({"episodes": 0}, "episodes is at least 1"),
        ({"rollouts": (3, 1)}, "rollouts: every value is at least 2"),
        ({"step_scale": (0.0,)}, "step_scale: every value is above 0"),
        ({"seed": -1}, "seed is at least 0"),
        ({"seed": "x"}, "seed cannot be 'x'"),
        ({"num_tasks": "3"}, "num_tasks cannot be '3'"),
        ({"adapt_steps": 2.5}, "adapt_steps cannot be 2.5"),
        ({"episodes": True}, "episodes cannot be True"),
        ({"rollouts": ("20",)}, "rollouts cannot be"),
        ({"rollouts": (2.5,)}, "rollouts cannot be"),
        ({"step_scale": (float("nan"),)}, "above 0, and finite"),
        ({"step_scale": (float("inf"),)}, "above 0, and finite"),
        ({"split": (3,)}, "split cannot be"),
        ({"split": ("validatoin",)}, "did you mean 'validation'"),
    ],
)
def test_limits_of_the_command_line_are_those_of_python(wrong, message):
    with pytest.raises(DemokitError, match=message):
        Protocol(**wrong)


def test_runs_that_cannot_be_compared_are_one_sentence(point_run, point_demos, tmp_path, invoke):
    def refused(*runs):
        return invoke("evaluate", *runs, "--output-dir", tmp_path / "c", exit_code=1).output

    assert "Seed 0 of gmps is there twice" in refused(point_run, point_run)
    sparse = ("meta-train", "--demos", point_demos, *SHORT, "--reward", "sparse")
    invoke(*sparse, "--output-dir", tmp_path / "gmps-1")
    assert "both called gmps" in refused(point_run, tmp_path / "gmps-1")
    (tmp_path / "gmps-1").rename(tmp_path / "sparse-0")
    assert "say with --reward" in refused(point_run, tmp_path / "sparse-0")


def test_runs_of_other_tasks_are_no_seeds(point_run, tmp_path, invoke):
    other = tmp_path / "other.hdf5"
    invoke(*("record", "--env", "point", "--tasks", 2, "--num-episodes", 4, "--out", other))
    few = ("meta-train", "--demos", other, *SHORT, "--seed", 1)
    invoke(*few, "--output-dir", tmp_path / "gmps-1")
    refused = invoke("evaluate", point_run, tmp_path / "gmps-1", exit_code=1).output
    assert "their training tasks differ" in refused
    (tmp_path / "gmps-1").rename(tmp_path / "few-1")
    folder, small = tmp_path / "c", ("--num-tasks", 1, "--adapt-steps", 1)
    both = ("evaluate", point_run, tmp_path / "few-1", *small, "--output-dir", folder)
    said = "The runs were not all trained on the same demonstrations and tasks."
    assert said in invoke(*both).stderr
    assert content_of(folder)["verdict"]["validation"].endswith(said)
    assert [run["training tasks"] for run in content_of(folder)["runs"]] == [3, 2]
    for page in ("report.md", "report.html"):
        assert said in (folder / page).read_text()


def kept(folder, facts):
    """The path of a run of which only the facts are left."""
    folder.mkdir()
    (folder / "facts.json").write_text(json.dumps(facts))
    return folder


def test_runs_of_other_demonstrations_are_no_seeds(point_run, tmp_path):
    """As of a dataset that more was recorded to between them."""
    facts = asdict(Facts.of(point_run))
    options = {**facts["options"], "seed": 1}
    first = kept(tmp_path / "gmps-0", facts)
    older = kept(tmp_path / "gmps-1", {**facts, "options": options, "demos": ""})
    assert len(evaluated_runs([first, older])) == 2
    other = kept(tmp_path / "gmps-2", {**facts, "options": options, "demos": "0" * 64})
    with pytest.raises(DemokitError, match="their demonstrations differ"):
        evaluated_runs([first, other])


def test_trainings_are_unlike_where_they_are_known_to_be(point_run):
    run = EvaluatedRun(point_run, Facts.of(point_run))
    said = [
        unlike([run, replace(run, facts=replace(run.facts, **other))])
        for other in ({}, {"demos": ""}, {"demos": "0"}, {"demos": "", "tasks": "0"})
    ]
    same = "The runs were not all trained on the same"
    assert said == ["", "", f"{same} demonstrations.", f"{same} tasks."]


@pytest.mark.parametrize(
    "wrong",
    [
        *({"options": {}}, {"options": {"seed": "x"}}, {"options": {"seed": -1}}, {"options": 3}),
        *({"options": {"seed": float("inf")}}, {"episodes_per_step": "20"}),
        *({"episodes_per_step": 0}, {"step_size": "x"}, {"ready_steps": 0.5}, {"task_seed": -1}),
        *({"num_tasks": -1}, {"num_tasks": "20"}),
        *({"demos": 3}, {"family_name": 5}, {"method": []}, {"finished": "no"}, {"spent": []}),
        *({"versions": 3}, {"versions": {"torch": 2}}, {"something": 1}),
    ],
    ids=str,
)
def test_facts_that_are_none_are_one_sentence(wrong, point_run, tmp_path):
    path = kept(tmp_path / "gmps-0", {**asdict(Facts.of(point_run)), **wrong})
    with pytest.raises(DemokitError, match=r"facts\.json cannot be read \(.*\): remove it\.$"):
        Facts.of(path)


TASKS = [Task("point", f"validation/{name}", (0.0,), "validation") for name in "ab"]
ROWS = [
    Row("gmps", 0, "validation", task.id, "main", 3, 1.0, step, actor, 0.5, 1.0)
    for actor in ("mean", "stochastic")
    for step in (0, 1)
    for task in TASKS
]
NAMES = ",".join(asdict(ROWS[0])).encode()


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: b'# {"versions": 3}\n' + whole,
        lambda whole: whole.replace(b"validation", b"v" * 140_000),
        lambda whole: NAMES + b"\n",
        lambda whole: whole.replace(b"0.5", b"nan"),
        lambda whole: whole.replace(b"0.5", b"inf"),
        lambda whole: whole.replace(b"mean", b"\xff"),
        lambda whole: b"".join(whole.splitlines(keepends=True)[:-1]),
        lambda whole: whole + whole.splitlines(keepends=True)[-1],
        lambda whole: whole.replace(b",1.0\r\n", b",7.0\r\n"),
        lambda whole: whole.replace(b",1.0\r\n", b",-3.0\r\n"),
        lambda whole: whole.replace(b"mean", b"maen"),
        lambda whole: whole.replace(b"mean", b"reference"),
        lambda whole: whole.replace(b",validation,", b",ood,"),
        lambda whole: whole.replace(b"validation/a", b"validation/c"),
        lambda whole: whole.replace(b",main,3,", b",main,0,"),
        lambda whole: whole.replace(b",main,3,1.0,", b",main,3,2.0,"),
        lambda whole: whole.replace(b",1,mean", b",-3,mean"),
        lambda whole: whole.replace(b"gmps,0", b"gmps,77"),
    ],
    ids=[
        *("versions", "a long field", "no rows", "nan", "inf", "no text", "a row missing"),
        *(
            "a row twice",
            "success above 1",
            "success below 0",
            "an actor",
            "a reference",
            "a split",
        ),
        *("a task", "rollouts", "a scale", "a step", "a seed"),
    ],
)
def test_a_curve_that_is_not_the_one_that_is_asked_for_was_not_measured(
    damage, point_run, tmp_path
):
    run = EvaluatedRun(kept(tmp_path / "gmps-0", asdict(Facts.of(point_run))), Facts.of(point_run))
    asked = (["a"], Variant("main", 3), TASKS, 1)
    run.keep_curve("a", ROWS)
    assert run.read_curve(*asked).rows == ROWS
    [curve] = (run.path / CURVES).iterdir()
    whole = gzip.decompress(curve.read_bytes())
    assert damage(whole) != whole
    curve.write_bytes(gzip.compress(damage(whole)))
    assert run.read_curve(*asked) is None


def test_tampered_measurements_do_not_stand_for_a_run(point_run, tmp_path, invoke):
    run = tmp_path / "gmps-0"
    shutil.copytree(point_run, run, ignore=shutil.ignore_patterns(CURVES))
    asked = ("evaluate", run, "--num-tasks", 2, "--adapt-steps", 1, "--rollouts", 2)
    invoke(*asked)
    [curve] = (run / CURVES).iterdir()
    lines = gzip.decompress(curve.read_bytes()).splitlines(keepends=True)
    curve.write_bytes(gzip.compress(b"".join(lines[:-1])))
    (run / "checkpoint.safetensors").unlink()
    assert "keeps measurements and no checkpoint" in invoke(*asked, exit_code=1).output


@pytest.mark.parametrize("part", [b"a" * 2**20, b"# a comment\n" * 2**16], ids=["line", "lines"])
def test_a_small_file_takes_little_memory(part, tmp_path):
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(part) * 200)
    with growth() as grown, pytest.raises(ValueError, match="too long"):
        read_rows(path)
    assert grown.kb < 20_000


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: whole[:30],
        lambda whole: whole[:20] + b"\xff" * 40 + whole[60:],
        lambda whole: gzip.compress(gzip.decompress(whole).replace(b"mean", b"maen")),
    ],
)
def test_a_damaged_curve_is_measured_again(damage, point_run, tmp_path, invoke):
    run = tmp_path / "gmps-0"
    shutil.copytree(point_run, run)
    asked = ("evaluate", run, "--num-tasks", 2, "--adapt-steps", 1, "--rollouts", 2)
    first = invoke(*asked).stdout
    for curve in (run / CURVES).iterdir():
        curve.write_bytes(damage(curve.read_bytes()))
    assert invoke(*asked).stdout == first


def test_an_unfinished_run_is_named(point_demos, tmp_path, invoke, monkeypatch):
    monkeypatch.setattr("gmps.loop._settled", lambda run, trained, *_: trained)
    folder, options = tmp_path / "gmps-0", options_of(iterations=1, outer_steps=1)
    trained_in(folder, load_demos(point_demos), options=options)
    said = invoke("evaluate", folder, "--num-tasks", 1, "--adapt-steps", 1).stderr
    assert "gmps-0 is not finished" in said
    more = invoke("evaluate", folder, "--num-tasks", 1, "--adapt-steps", 2, exit_code=1).output
    assert "or evaluate it as it is, with --adapt-steps 1." in more
    assert more.count("\n") == 1


KEEPING = """
import sys
from pathlib import Path
from gmps.comparison.evaluated_run import EvaluatedRun, Facts

path = Path(sys.argv[1])
run = EvaluatedRun(path, Facts.of(path))
for i in range(200):
    run.keep_curve(f"curve{i}", [])
"""


def test_two_that_measure_one_run_do_not_take_each_other_s_files_away(point_run, tmp_path):
    run = shutil.copytree(point_run, tmp_path / "gmps-0")
    command = [sys.executable, "-c", KEEPING, str(run)]
    both = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    assert [(each.communicate()[1], each.returncode) for each in both] == [("", 0)] * 2
    assert len(list((run / "curves").glob("curve*.csv.gz"))) == 200
    assert not list(run.rglob("*.lock"))


def test_a_run_that_is_trained_further_meanwhile_is_not_measured(point_run, tmp_path):
    """Else the curves of one checkpoint would be kept as those of another."""
    run = tmp_path / "gmps-0"
    shutil.copytree(point_run, run, ignore=shutil.ignore_patterns(CURVES))
    begun = EvaluatedRun(run, Facts.of(run))
    tensors, header = load_checkpoint(run / "checkpoint.safetensors")
    further = {**header, "iteration": header["iteration"] + 1}
    save_checkpoint(run / "checkpoint.safetensors", tensors, further)
    with pytest.raises(DemokitError, match="gmps-0 has been trained further meanwhile: evaluate"):
        measure([begun], Protocol(num_tasks=1, adapt_steps=1))
    assert not (run / CURVES).exists()
    assert EvaluatedRun(run, Facts.of(run)).trained.iteration == further["iteration"]


def test_what_nobody_says_the_making_of_is_measured_again_where_it_can_be(point_run, tmp_path):
    """Curves under demokit 0.1's key, and those that name no versions."""
    folder, protocol = tmp_path / "gmps-0", Protocol(num_tasks=1, adapt_steps=1)
    shutil.copytree(point_run, folder, ignore=shutil.ignore_patterns(CURVES))
    run = EvaluatedRun(folder, Facts.of(folder))
    measure([run], protocol)
    [tasks], [curve] = protocol.tasks([run]).values(), (folder / CURVES).iterdir()
    wanted = Wanted(run, tasks, Variant("main", 3), protocol)
    now, older = (f"{key}.csv.gz" for key in _keys(*wanted))
    rows, text = wanted.read().rows, gzip.decompress(curve.read_bytes())
    told, _, unsaid = text.partition(b"\n")
    assert curve.name == now
    assert told.startswith(b"# ")
    for name, content in ((older, text), (older, unsaid), (now, unsaid)):
        shutil.rmtree(folder / CURVES)
        (folder / CURVES).mkdir()
        (folder / CURVES / name).write_bytes(gzip.compress(content))
        assert wanted.read() is None
        (folder / "checkpoint.safetensors").rename(tmp_path / "away")
        assert wanted.read().rows == rows
        (tmp_path / "away").rename(folder / "checkpoint.safetensors")


def test_curves_belong_to_what_decides_them(point_run):
    run = EvaluatedRun(point_run, Facts.of(point_run))
    another = replace(run, facts=replace(run.facts, checkpoint="0" * 64))
    changes = ({"seed": 1}, {"reward": "sparse"}, {"adapt_steps": 2}, {"demonstrations": 1})
    more = ({"task_seed": 1}, {"task_set": "ood", "split": ("ood",)}, {"num_tasks": 3})

    def key(of, **change):
        protocol = Protocol(**change)
        [tasks] = protocol.tasks([of]).values()
        return _keys(of, tasks, Variant("main", 3, 1.0), protocol)[0]

    keys = [key(run), key(another), *(key(run, **change) for change in (*changes, *more))]
    assert len({*keys}) == len(keys)
    assert key(run) == keys[0]


def test_tasks_are_drawn_by_the_seed_that_is_asked_for(point_run):
    run = EvaluatedRun(point_run, Facts.of(point_run))
    [drawn] = Protocol(task_seed=1).tasks([run]).values()
    assert drawn == make_tasks(run.family, "uniform", "validation", seed=1)
    assert drawn != make_tasks(run.family, "uniform", "validation", seed=0)


def test_a_task_that_is_drawn_again_counts_once(point_run):
    """Twenty draws of two directions are two tasks: ten copies of each would pass for evidence."""
    run = EvaluatedRun(point_run, replace(Facts.of(point_run), family_name="cheetah-dir"))
    [drawn] = Protocol(task_set="uniform").tasks([run]).values()
    assert sorted(task.context for task in drawn) == [(-1.0,), (1.0,)]


def test_what_cannot_be_judged_on_the_same_tasks_is_refused(point_run):
    run = EvaluatedRun(point_run, Facts.of(point_run))
    other = replace(run, facts=replace(run.facts, task_set="paper"))
    with pytest.raises(DemokitError, match=r"several task sets \(.*paper.*\): say with --task-set"):
        Protocol().tasks([run, other])
    assert Protocol(task_set="uniform").tasks([run, other]) == Protocol().tasks([run])
