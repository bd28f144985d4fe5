"""Training runs end to end on a small real dataset: resume, step sizes, wrong input."""

import csv
import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from short_run import (
    DEMOS,
    NUM_TASKS,
    SHORT,
    SHORT_IMITATION,
    Stops,
    learner_of,
    options_of,
    trained_in,
)

from demokit.data import DatasetWriter, open_dataset
from demokit.envs.tasks import make_tasks
from demokit.errors import DemokitError
from demokit.learning.checkpoint import load_checkpoint, save_checkpoint
from demokit.options import LABELS
from gmps.distributed import ALONE
from gmps.experience.demos import load_demos
from gmps.experience.observation import thinned
from gmps.loop import Monitor
from gmps.methods.gmps import algorithm
from gmps.policies.meta_params import MetaParams
from gmps.problem import Problem, Training
from gmps.progress import ITERATIONS, STEP_SIZES, unheard
from gmps.runs.checkpoint import load
from gmps.runs.folder import CURVES, FACTS, Run
from gmps.runs.underway import Telling, Underway
from gmps.steps.inner import InnerBatch
from gmps.tuning import choose_step_size

NUM_MONITOR = 20
DATASETS = Path(__file__).parents[2] / "datasets"


@pytest.fixture
def unsettled(monkeypatch):
    """Leave out the search for the later step size, which takes most of a short run."""
    monkeypatch.setattr("gmps.loop._settled", lambda run, trained, *_: trained)


def test_a_run_writes_what_it_says(point_run):
    settings = json.loads((point_run / "config.json").read_text())
    assert settings["method"] == "gmps"
    assert settings["options"]["iterations"] == 4
    rows = list(csv.DictReader((point_run / "metrics.csv").open()))
    assert [int(row["iteration"]) for row in rows] == [0, 1, 2, 3]
    steps = [float(row["env_steps"]) for row in rows]
    # Demonstrations, then K roll-outs of 20 steps per task and iteration.
    demonstrations, rollouts = NUM_TASKS * DEMOS * 20, NUM_TASKS * 3 * 20
    assert steps == [demonstrations + (i + 1) * rollouts for i in range(4)]
    trained, _ = load(point_run)
    assert (trained.iteration, trained.finished) == (4, True)
    spent = trained.spent
    assert (spent.demonstrations, spent.meta_training) == (demonstrations, 4 * rollouts)
    # Twice, before and after a step, in the first iteration and the last.
    assert spent.monitoring == 2 * 2 * NUM_MONITOR * (3 + 5) * 20
    tried = len(list(csv.DictReader((point_run / "step_sizes.csv").open())))
    assert spent.tuning == (2 + 2 * tried) * NUM_TASKS * (3 + 5) * 20
    assert trained.learner.step_size in [
        float(row["step_size"]) for row in csv.DictReader((point_run / "step_sizes.csv").open())
    ]
    assert list((point_run / "tensorboard").iterdir())


class KilledError(Exception):
    """Stands for whatever ends a process between two iterations."""


@pytest.mark.parametrize(
    ("stop_after", "changes"),
    [
        *((after, {}) for after in (-1, 0, 2)),
        (1, {"learn_step_sizes": False}),
        (1, {"outer_schedule": "linear"}),
    ],
)
def test_resuming_gives_the_same_bits(point_demos, tmp_path, stop_after, changes):
    demos = load_demos(point_demos, DEMOS)
    options = options_of(**changes)
    whole, folder = tmp_path / "whole", tmp_path / "cut"
    trained_in(whole, demos, options=options)

    def die(stage, done, *_, **__):  # after the row is logged, before the checkpoint
        if (stage, done) == (ITERATIONS, stop_after + 2):
            raise KilledError

    with pytest.raises(KilledError):
        trained_in(folder, demos, options=options, report=die)
    trained_in(folder, demos, options=options, resume=True)
    expected, wanted_header = load_checkpoint(whole / "checkpoint.safetensors")
    found, header = load_checkpoint(folder / "checkpoint.safetensors")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert header == wanted_header
    assert (folder / "metrics.csv").read_text() == (whole / "metrics.csv").read_text()


def cut(folder, demos, stage, done):
    """A run of 4 iterations that is killed there."""

    def die(*now, **_):
        if now[:2] == (stage, done):
            raise KilledError

    with pytest.raises(KilledError):
        trained_in(folder, demos, "gmps", options_of(), die)


def test_a_run_that_was_stopped_may_end_sooner(point_demos, tmp_path):
    demos, shorter = load_demos(point_demos, DEMOS), options_of(iterations=2)
    cut(tmp_path / "cut", demos, ITERATIONS, 2)
    trained_in(tmp_path / "whole", demos, "gmps", shorter)
    trained_in(tmp_path / "cut", demos, "gmps", shorter, resume=True)
    ours, whole = load(tmp_path / "cut")[0], load(tmp_path / "whole")[0]
    assert (ours.iteration, ours.finished, ours.options) == (2, True, shorter)
    for name, value in whole.learner.tensors().items():
        if name.startswith("theta"):
            assert torch.equal(ours.learner.tensors()[name], value)
    kept = json.loads((tmp_path / "cut" / "config.json").read_text())
    assert kept["options"]["iterations"] == 2
    with pytest.raises(DemokitError, match="is finished, with 2 iterations"):
        trained_in(tmp_path / "cut", demos, "gmps", options_of(), resume=True)


def test_a_run_does_not_end_before_what_is_done(point_demos, tmp_path):
    demos = load_demos(point_demos, DEMOS)
    cut(tmp_path, demos, ITERATIONS, 3)
    sooner = "has done 2 iterations: name at least 2 with --iterations"
    with pytest.raises(DemokitError, match=sooner):
        trained_in(tmp_path, demos, "gmps", options_of(iterations=1), resume=True)
    assert trained_in(tmp_path, demos, options=options_of(iterations=2), resume=True).finished


def test_the_search_of_a_step_size_may_be_shortened(point_demos, tmp_path):
    demos = load_demos(point_demos, DEMOS)
    cut(tmp_path, demos, STEP_SIZES, 2)
    trained_in(tmp_path, demos, "gmps", options_of(tuning_tasks=1), resume=True)
    trained, _ = load(tmp_path)
    tried = len(list(csv.DictReader((tmp_path / "step_sizes.csv").open())))
    assert trained.spent.tuning == (2 + 2 * tried) * 1 * (3 + 5) * 20
    assert (trained.iteration, trained.learner.tuning_tasks) == (4, 1)


@pytest.fixture
def met(monkeypatch):
    """The tasks of every sampler that is asked for, in turn."""
    asked, sampler = [], Problem.sampler

    def watched(problem, tasks, **how):
        asked.append(tasks)
        return sampler(problem, tasks, **how)

    monkeypatch.setattr(Problem, "sampler", watched)
    return asked


@pytest.mark.parametrize("num", [0, 2])
def test_the_step_size_is_chosen_on_training_tasks_alone(point_demos, met, num):
    demos = load_demos(point_demos, DEMOS)
    learner, problem = learner_of(demos, options=options_of(tuning_tasks=num))
    choose_step_size(learner, problem, seed=0, grid=(0.01,))
    assert met == [problem.tasks[: num or None]]
    assert {task.split for task in problem.tasks} == {"train"}


def test_the_monitor_watches_tasks_that_are_in_no_other_split(point_demos, met):
    demos = load_demos(point_demos, DEMOS)
    learner, problem = learner_of(demos)
    Monitor.of(Training(problem, options_of(), demos), ALONE).curve(learner, 0)
    [tasks] = met
    assert {task.split for task in tasks} == {"monitor"}
    held_out = make_tasks(problem.family, *problem.task_set[:1], "validation")
    others = {task.context for task in (*problem.tasks, *held_out)}
    assert len(tasks) == NUM_MONITOR
    assert others.isdisjoint(task.context for task in tasks)


@pytest.mark.parametrize("method", ["gmps", "imitation"])
def test_a_training_meets_no_validation_task(point_demos, tmp_path, met, method):
    """From its first iteration to its step size, where it may stop early, too."""
    options = options_of(method, iterations=2, eval_every=1, patience=1)
    trained_in(tmp_path / "run", load_demos(point_demos, DEMOS), method, options)
    assert {task.split for tasks in met for task in tasks} == {"train", "monitor"}


def test_the_same_seed_gives_the_same_run_and_another_does_not(point_demos, tmp_path):
    demos = load_demos(point_demos, DEMOS)
    thetas = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        options = options_of(iterations=1, seed=seed)
        found = trained_in(tmp_path / name, demos, options=options)
        thetas.append(found.learner.meta.theta["0.weight"])
    assert torch.equal(thetas[0], thetas[1])
    assert not torch.equal(thetas[0], thetas[2])


def test_training_lowers_the_loss_after_adaptation(point_demos, tmp_path):
    options = options_of(iterations=10, outer_steps=20, rollouts_per_task=10)
    trained_in(tmp_path / "run", load_demos(point_demos, DEMOS), options=options)
    first, *_, last = csv.DictReader((tmp_path / "run" / "metrics.csv").open())
    assert float(last["loss_post"]) < float(first["loss_post"])
    assert float(last["loss_post"]) < float(last["loss_pre"])


def test_demonstrations_are_the_recorded_labels(point_demos):
    demos = load_demos(point_demos, DEMOS)
    assert demos.observation.shape == (NUM_TASKS, DEMOS, 20, 2)
    with open_dataset(point_demos) as dataset:
        for i, record in enumerate(dataset.episodes):
            episode = dataset[i]
            m = [task.id for task in demos.tasks].index(record.task.id)
            matches = [
                np.array_equal(demos.observation[m, e], episode.observations[:-1])
                and np.array_equal(demos.action[m, e], episode.privileged["expert_action"][:-1])
                for e in range(DEMOS)
            ]
            assert any(matches)


@pytest.fixture(scope="module")
def hand_demos(tmp_path_factory, point_demos):
    """As a person records: the expert's advice in every state, and an action of another's."""
    path = tmp_path_factory.mktemp("demos") / "hand.hdf5"
    with open_dataset(point_demos) as dataset, DatasetWriter(path, dataset.metadata) as writer:
        for episode in dataset:
            privileged = {**episode.privileged, "by_expert": np.zeros(len(episode) + 1, np.bool_)}
            writer.add(replace(episode, recorder="teleop", privileged=privileged))
        writer.finish()
    return path


def test_the_persons_actions_are_learned_and_the_experts_on_demand(hand_demos, point_demos):
    advice = load_demos(point_demos).action
    executed = load_demos(point_demos, labels="executed").action
    assert (executed - advice).abs().max() > 0.1
    by_hand = {kind: load_demos(hand_demos, labels=kind).action for kind in LABELS}
    assert torch.equal(by_hand["auto"], executed)
    assert torch.equal(by_hand["executed"], executed)
    assert torch.equal(by_hand["expert"], advice)


def test_labels_are_chosen_on_the_command_line(hand_demos, tmp_path, invoke):
    """The same demonstrations, other labels: other demonstrations to what was trained."""
    args = ("meta-train", "--demos", hand_demos, *SHORT_IMITATION)
    for kind in ("auto", "expert"):
        invoke(*args, "--labels", kind, "--output-dir", tmp_path / kind)
    auto, expert = (load(tmp_path / kind)[0] for kind in ("auto", "expert"))
    assert auto.demos == load_demos(hand_demos).digest() != expert.demos
    again = (*args, "--output-dir", tmp_path / "auto", "--resume", "--labels", "expert")
    assert "another labels" in invoke(*again, exit_code=1).output


def test_advice_that_is_not_there_is_one_sentence(ant_demos, tmp_path, invoke):
    args = ("meta-train", "--demos", ant_demos, "--labels", "expert")
    output = invoke(*args, "--output-dir", tmp_path / "run", exit_code=1).output
    steps = sum(record.length for record in open_dataset(ant_demos).episodes)
    assert f"Error: {ant_demos}: {steps} of {steps} steps hold no expert's advice" in output
    assert len(output.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_a_reward_of_another_family_is_one_sentence(point_demos, tmp_path, invoke):
    args = ("meta-train", "--demos", point_demos, "--reward", "sparse-paper")
    refused = invoke(*args, "--output-dir", tmp_path / "run", exit_code=1).output
    assert refused == "Error: Unknown reward of point 'sparse-paper': did you mean 'sparse'?\n"
    assert not (tmp_path / "run").exists()


def test_shorter_demonstrations_are_filled_up_with_steps_that_do_not_count(uneven_demos):
    demos = load_demos(uneven_demos, DEMOS)
    assert demos.observation.shape == (NUM_TASKS, DEMOS, 20, 2)
    with open_dataset(uneven_demos) as dataset:
        seen = np.concatenate([dataset[i].observations[:-1] for i in (0, 3, 1, 4, 2, 5)])
    assert demos.alive.sum(2).tolist() == [[5, 20], [10, 5], [15, 10]]
    np.testing.assert_array_equal(demos.observation[demos.alive], seen)
    weight = demos.all().weight
    torch.testing.assert_close(weight.mean(1), torch.ones(NUM_TASKS))
    assert weight[0].tolist() == pytest.approx([1.6] * 5 + [0] * 15 + [1.6] * 20)
    mean, scale = demos.statistics(demos.observation)
    np.testing.assert_allclose(mean, seen.mean(0), rtol=1e-5)
    np.testing.assert_allclose(scale, seen.std(0, ddof=1), rtol=1e-5)


@pytest.mark.usefixtures("unsettled")
def test_what_follows_a_demonstrations_end_has_no_influence(uneven_demos, tmp_path):
    demos = load_demos(uneven_demos, DEMOS)
    elsewhere = replace(
        demos,
        observation=torch.where(demos.alive[..., None], demos.observation, 50.0),
        action=torch.where(demos.alive[..., None], demos.action, -50.0),
    )
    options = options_of(iterations=1, baseline="radial")
    first, second = (
        trained_in(tmp_path / name, given, options=options).learner.meta.theta
        for name, given in (("a", demos), ("b", elsewhere))
    )
    for name, value in first.items():
        torch.testing.assert_close(second[name], value)


def test_the_inner_loop_can_be_paid_another_reward_than_was_recorded(point_demos, tmp_path, invoke):
    folder = tmp_path / "sparse-0"
    args = ("meta-train", "--demos", point_demos, "--output-dir", folder, "--reward", "sparse")
    invoke(*args, *SHORT)
    assert load(folder)[0].problem.reward == "sparse"
    assert load_demos(point_demos, DEMOS).reward == "dense"


@pytest.mark.usefixtures("frail_ants", "unsettled")
def test_ants_that_fall_are_trained_on(ant_demos, still_ant, tmp_path):
    """Roll-outs and expert queries end early; the reward is not the one that was recorded."""
    options = options_of(
        iterations=2, initial_std=1.0, dagger=True, dagger_every=1, expert=str(still_ant)
    )
    demos = load_demos(ant_demos, DEMOS, "sparse")
    trained = trained_in(tmp_path / "ant-0", demos, options=options)
    assert all(value.isfinite().all() for value in trained.learner.meta.theta.values())
    with open_dataset(tmp_path / "ant-0" / "aggregated.hdf5") as dataset:
        assert min(record.length for record in dataset.episodes) < 200
        assert dataset.metadata.reward == "sparse"


@pytest.mark.usefixtures("unsettled")
@pytest.mark.parametrize(("method", "first"), [("gmps", 0.1), ("gmps-latent", 1.0)])
def test_step_sizes_stay_where_they_are_not_to_be_learned(point_demos, tmp_path, method, first):
    options = options_of(method, learn_step_sizes=False)
    trained = trained_in(tmp_path / "run", load_demos(point_demos, DEMOS), method, options)
    assert all((size == first).all() for size in trained.learner.meta.step_sizes.values())


@pytest.mark.usefixtures("unsettled")
def test_without_the_meta_objective_only_imitation_is_left(point_demos, tmp_path):
    """Then the policy does not depend on what the roll-outs were paid; the critic does."""
    options = options_of("gmps-latent", post_weight=0.0, learn_step_sizes=False)
    one, other = (
        trained_in(
            tmp_path / reward, load_demos(point_demos, DEMOS, reward), "gmps-latent", options
        ).learner.tensors()
        for reward in ("dense", "sparse")
    )
    differ = {name for name, value in one.items() if not torch.equal(other[name], value)}
    assert differ
    assert all(name.startswith("critic.") for name in differ)


@pytest.mark.usefixtures("unsettled")
def test_the_linear_schedule_takes_smaller_and_smaller_steps(point_demos, tmp_path, monkeypatch):
    linear = options_of(outer_schedule="linear", outer_lr=0.1)
    assert [linear.outer_lr_in(i) for i in range(4)] == pytest.approx([0.1, 0.075, 0.05, 0.025])
    assert options_of(outer_lr=0.1).outer_lr_in(3) == 0.1
    used, step = [], algorithm.outer_step

    def watched(objective, meta, optimizer, *others):
        used.append(optimizer.param_groups[0]["lr"])
        return step(objective, meta, optimizer, *others)

    monkeypatch.setattr(algorithm, "outer_step", watched)
    trained_in(tmp_path / "run", load_demos(point_demos, DEMOS), options=linear)
    assert used == pytest.approx([lr for lr in (0.1, 0.075, 0.05, 0.025) for _ in range(2)])


def test_imitation_has_no_learned_step_sizes(point_demos, tmp_path, invoke):
    folder = tmp_path / "imitation-0"
    invoke("meta-train", "--demos", point_demos, "--output-dir", folder, *SHORT_IMITATION)
    learner = load(folder)[0].learner
    assert learner.meta.step_sizes == {}
    first = learner.step_sizes(0)["0.weight"]
    torch.testing.assert_close(first, torch.full_like(first, learner.step_size))


def test_learned_step_sizes_serve_the_first_step_only(point_run):
    learner = load(point_run)[0].learner
    assert torch.equal(learner.step_sizes(0)["0.bias"], learner.meta.step_sizes["0.bias"])
    later = learner.step_sizes(1)["0.bias"]
    torch.testing.assert_close(later, torch.full_like(later, learner.step_size))


def test_later_step_sizes_decay(point_run):
    """Theta's own come first; the scalar is whole in step 1, halved in step 2, and again."""
    learner = load(point_run)[0].learner
    halved = replace(learner, later_decay=0.5, step_size=0.8)
    found = [float(halved.step_sizes(step)["0.bias"][0]) for step in (1, 2, 3)]
    assert found == pytest.approx([0.8, 0.4, 0.2])
    imitation = replace(halved, meta=learner.meta._replace(step_sizes={}))
    assert float(imitation.step_sizes(0)["0.bias"][0]) == pytest.approx(0.8)


def test_starting_point_standardises_observations(point_demos):
    demos = load_demos(point_demos, DEMOS)
    learner, _ = learner_of(demos)
    flat = demos.observation.flatten(0, 2)
    standard = (flat - learner.policy.feature_mean) / learner.policy.feature_scale
    torch.testing.assert_close(standard.mean(0), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(standard.std(0), torch.ones(2))


def test_runs_are_listed(point_run, invoke):
    output = invoke("runs", point_run.parent).output
    assert "gmps-0" in output
    assert "rollouts_per_task=3" in output
    assert "unfinished" not in output


def test_runs_under_way_are_listed(tmp_path, invoke):
    run = Run(tmp_path / "new", "imitation", options_of("imitation", seed=7), "demos")
    invoke("runs", tmp_path, exit_code=0)
    report = run.telling(unheard)
    report("iterations", 2, 30)
    report("imitation first", 5, 5)
    [row] = [line for line in invoke("runs", tmp_path).stdout.splitlines() if " new " in line]
    assert [cell.strip() for cell in row.split("\u2502")][1:5] == ["new", "-", "imitation", "7"]
    assert "imitation first 5 of 5" in row
    (tmp_path / "new" / ".lock").write_text('{"stage": 3, "done": [], "total": 1e999}')
    assert "running" in invoke("runs", tmp_path).stdout
    run.close()
    assert "No run below" in invoke("runs", tmp_path, exit_code=1).output


def test_the_rate_is_that_of_the_stage(monkeypatch):
    said, clock = [], iter([100.0, 104.0, 104.5, 106.0])
    monkeypatch.setattr("gmps.runs.underway.time.time", lambda: next(clock))
    telling = Telling(said.append, unheard)
    for done in (10, 12, 13, 13):  # the first 10 were an earlier process's
        telling("iterations", done, 20)
    assert [(facts["done"], facts["rate"]) for facts in said] == [(10, 0.0), (12, 0.5), (13, 0.5)]
    assert str(Underway("iterations", 12, 20, 0.5)) == "iterations 12 of 20, 2.0 s each"


def test_what_held_out_tasks_said_is_the_last_sentence(point_demos, tmp_path, invoke):
    notes = []

    def heard(stage, *_, note=None):
        notes.append((stage, note))

    trained_in(tmp_path / "run", load_demos(point_demos, DEMOS), report=heard)
    rows = list(csv.DictReader((tmp_path / "run" / "metrics.csv").open()))
    row = [each for each in rows if each["return_after"]][-1]
    words = f"return {float(row['return_after']):.1f}, success {float(row['success_after']):.0%}"
    assert [note for _, note in notes if note][-1] == f"{words} after adaptation"
    folder = tmp_path / "typed"
    said = invoke("meta-train", "--demos", point_demos, "--output-dir", folder, *SHORT).stdout
    assert re.search(r"on monitor tasks as last measured return \S+, success \d+% after", said)


def test_no_runs_is_one_sentence(tmp_path, invoke):
    assert "No run below" in invoke("runs", tmp_path, exit_code=1).output


def test_algorithm_1_is_one_visible_function():
    lines = algorithm.train.__code__
    assert max(line for _, _, line in lines.co_lines() if line) - lines.co_firstlineno < 60


@pytest.mark.parametrize("name", ["push_state", "push_vision", "door_state"])
def test_shipped_datasets_are_used_whole(name):
    demos = load_demos(DATASETS / f"{name}.hdf5")
    assert (len(demos.tasks), demos.num_recorded) == (20, 5)


def test_all_tasks_have_as_many_demonstrations_as_the_poorest(point_demos, tmp_path):
    path = tmp_path / "poorer.hdf5"
    with open_dataset(point_demos) as dataset, DatasetWriter(path, dataset.metadata) as writer:
        for episode in list(dataset)[:-1]:
            writer.add(episode)
        writer.finish()
    poorer, whole = load_demos(path), load_demos(point_demos)
    assert (poorer.num_recorded, whole.num_recorded) == (DEMOS - 1, DEMOS)
    assert torch.equal(poorer.action, whole.action[:, : DEMOS - 1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--demos-per-task", "50"), "50 are asked for"),
        (("--inner-lr", "-1"), "inner_lr must be positive"),
        (("--rollouts-per-task", "1"), "at least 2"),
        (("--no-second-order", "--ratio-gradient"), "no effect without --second-order"),
        (
            ("--method", "imitation", "--step-size", "0.1", "--tuning-tasks", "3"),
            "--tuning-tasks has no effect with --step-size",
        ),
        (("--discount", "1.5"), "at most 1"),
        (("--dagger-share", "nan"), "dagger_share must be a finite number"),
    ],
)
def test_wrong_options_are_one_sentence(point_demos, tmp_path, invoke, options, message):
    folder = tmp_path / "run"
    result = invoke(
        *("meta-train", "--demos", point_demos, "--output-dir", folder, *options), exit_code=1
    )
    assert message in result.output
    assert not folder.exists()


def test_a_folder_with_a_run_is_not_overwritten(point_run, point_demos, invoke):
    before = (point_run / "checkpoint.safetensors").read_bytes()
    again = ("meta-train", "--demos", point_demos, "--output-dir", point_run)
    assert "--resume" in invoke(*again, *SHORT, exit_code=1).output
    changed = invoke(*again, *SHORT, "--resume", "--inner-lr", "0.3", exit_code=1)
    assert "another inner_lr" in changed.output
    assert (point_run / "checkpoint.safetensors").read_bytes() == before


def test_a_run_without_its_configuration_is_not_resumed(point_run, point_demos, tmp_path, invoke):
    shutil.copytree(point_run, tmp_path / "run")
    (tmp_path / "run" / "config.json").write_text("{")
    args = ("meta-train", "--demos", point_demos, "--output-dir", tmp_path / "run", "--resume")
    assert "--overwrite" in invoke(*args, *SHORT, exit_code=1).output


def test_config_file_sets_options_and_refuses_unknown_ones(point_demos, tmp_path, invoke):
    good, bad = tmp_path / "good.toml", tmp_path / "bad.toml"
    good.write_text("inner_lr = 0.25\niterations = 1\nouter-steps = 1\nrollouts_per_task = 2\n")
    bad.write_text("inner_lrr = 0.25\n")
    folder = tmp_path / "run"
    args = ("meta-train", "--demos", point_demos, "--demos-per-task", DEMOS)
    invoke(*args, "--output-dir", folder, "--config", good)
    assert load(folder)[0].options.inner_lr == 0.25
    refused = invoke(*args, "--config", bad, exit_code=2)
    assert "inner_lrr" in refused.output
    assert "inner-lr" in refused.output


def test_an_adapted_gymnasium_environment_can_be_trained_on(invoke, tmp_path):
    demos = tmp_path / "pusher.hdf5"
    invoke(
        *("record", "--env", "gym:Pusher-v5", "--expert", "random", "--num-episodes", DEMOS),
        *("--out", demos),
    )
    options = ("--iterations", 1, "--steps", 1, "--rollouts-per-task", 2)
    folder = tmp_path / "imitation-0"
    refused = invoke("meta-train", "--demos", demos, "--output-dir", folder, exit_code=1)
    assert "has one training task, and gmps learns from what differs" in refused.output
    assert not folder.exists()
    invoke(
        *("meta-train", "--demos", demos, "--demos-per-task", DEMOS, "--output-dir", folder),
        *options,
        *("--method", "imitation", "--step-size", 0.01),
    )
    assert load(folder)[0].problem.family_name == "gym:Pusher-v5"


def test_an_overwritten_run_leaves_nothing_of_the_old_one(point_run, point_demos, tmp_path, invoke):
    folder = tmp_path / "gmps-0"
    shutil.copytree(point_run, folder)
    invoke("evaluate", folder, "--num-tasks", 1, "--adapt-steps", 1)
    Run(folder, "gmps", options_of(), str(point_demos), overwrite=True).close()
    for name in (FACTS, CURVES, "step_sizes.csv", "checkpoint.safetensors"):
        assert not (folder / name).exists()


def test_other_demonstrations_are_not_resumed_with(point_run, tmp_path, invoke):
    other, folder = tmp_path / "other.hdf5", tmp_path / "gmps-0"
    shutil.copytree(point_run, folder)
    invoke(
        *("record", "--env", "point", "--tasks", NUM_TASKS + 1, "--episodes-per-task", DEMOS),
        *("--out", other),
    )
    before = (folder / "config.json").read_text()
    again = ("meta-train", "--demos", other, "--output-dir", folder, *SHORT, "--resume")
    assert "started with other demonstrations" in invoke(*again, exit_code=1).output
    invoke(
        *("record", "--env", "point", "--tasks", NUM_TASKS, "--episodes-per-task", DEMOS),
        *("--noise", "0.9", "--out", other, "--overwrite"),
    )
    assert "(other episodes)" in invoke(*again, exit_code=1).output
    assert (folder / "config.json").read_text() == before


@pytest.mark.parametrize("how", ["--resume", "--overwrite"])
def test_two_processes_do_not_train_in_one_folder(how, point_run, point_demos, tmp_path, invoke):
    folder = tmp_path / "gmps-0"
    shutil.copytree(point_run, folder)
    args = ("meta-train", "--demos", point_demos, "--output-dir", folder, *SHORT)
    first = Run(folder, "gmps", load(folder)[0].options, str(point_demos), resume=True)
    before = (folder / "checkpoint.safetensors").read_bytes()
    assert "is being written by process" in invoke(*args, how, exit_code=1).output
    assert (folder / "checkpoint.safetensors").read_bytes() == before
    first.close()
    invoke(*args, how)


@pytest.mark.parametrize("method", ["gmps", "imitation"])
def test_training_that_diverges_says_so(method, point_demos, tmp_path):
    options = options_of(method, outer_lr=1e30)
    with pytest.raises(DemokitError, match=r"diverged in iteration .* smaller step sizes"):
        trained_in(tmp_path / "run", load_demos(point_demos, DEMOS), method, options)


@pytest.mark.parametrize("method", ["gmps", "imitation"])
def test_training_that_diverges_keeps_the_last_checkpoint(
    method, point_demos, tmp_path, monkeypatch
):
    checked = MetaParams.require_finite

    def diverging(params, iteration):
        if iteration == 2:
            params.theta["0.weight"].data.fill_(math.nan)
        checked(params, iteration)

    monkeypatch.setattr(MetaParams, "require_finite", diverging)
    with pytest.raises(DemokitError, match="diverged in iteration 2"):
        trained_in(tmp_path / "run", load_demos(point_demos, DEMOS), method)
    kept, _ = load(tmp_path / "run")
    assert kept.iteration == 2
    assert all(bool(value.isfinite().all()) for value in kept.learner.tensors().values())


def test_a_damaged_run_hides_no_other(point_run, tmp_path, invoke):
    for name in ("good-0", "bad-0"):
        shutil.copytree(point_run, tmp_path / name)
    checkpoint = tmp_path / "bad-0" / "checkpoint.safetensors"
    checkpoint.write_bytes(checkpoint.read_bytes()[:2000])
    shutil.copytree(point_run, tmp_path / "odd-0")
    (tmp_path / "odd-0" / "metrics.csv").write_text("iteration,return_after\n0,much\n")
    shutil.copytree(point_run, tmp_path / "expert-0")
    (tmp_path / "expert-0" / "config.json").write_text('{"family": "point", "task_set": "uniform"}')
    shown = invoke("runs", tmp_path).output
    assert "good-0" in shown
    assert "expert-0" not in shown
    assert shown.count("unreadable") == 2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda weight: weight.T, "its parameters are not those of its configuration"),
        (lambda weight: weight[:, :-1], "its configuration claims more numbers than are in"),
    ],
)
def test_a_checkpoint_of_other_parameters_is_one_sentence(
    point_run, tmp_path, invoke, change, said
):
    tensors, header = load_checkpoint(point_run / "checkpoint.safetensors")
    tensors["learner.theta.0.weight"] = change(tensors["learner.theta.0.weight"])
    save_checkpoint(tmp_path / "checkpoint.safetensors", tensors, header)
    refused = invoke("evaluate", tmp_path, exit_code=1)
    assert said in refused.output
    assert "train again" in refused.output


def test_a_stride_beyond_the_last_sample_leaves_one():
    batch = InnerBatch(torch.ones(2, 5, 3), torch.ones(2, 5, 1), torch.ones(2, 5), torch.ones(2, 5))
    thin = thinned(batch, 1000, np.random.default_rng(0))
    assert [values.shape[1] for values in thin] == [1] * 4


@pytest.mark.parametrize(
    ("method", "changes"), [("gmps", {"outer_schedule": "linear"}), ("dpt", {})]
)
def test_a_run_whose_step_sizes_fall_keeps_its_length(point_demos, tmp_path, method, changes):
    """Longer or shorter than it was meant to be it would be a run that no settings describe."""
    demos, options = load_demos(point_demos, DEMOS), options_of(method, **changes)
    with pytest.raises(KeyboardInterrupt):
        trained_in(tmp_path, demos, method, options, report=Stops(2))
    for num in (2, 6):
        other = replace(options, iterations=num)
        with pytest.raises(DemokitError, match="in 4 iterations: resume it with --iterations 4"):
            trained_in(tmp_path, demos, method, other, resume=True)
    assert trained_in(tmp_path, demos, method, options, resume=True).finished
