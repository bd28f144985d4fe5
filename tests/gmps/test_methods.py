"""Every method of the registry keeps the protocol; and one that comes from another package."""

import os
import re
import subprocess
import sys
import tomllib
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from short_run import (
    DEMOS,
    NUM_TASKS,
    SHORT,
    Stops,
    halted_and_resumed,
    learner_of,
    options_of,
    roll_outs,
    trained_in,
)

from demokit.envs.point import Point
from demokit.errors import DemokitError
from demokit.learning.checkpoint import load_checkpoint, save_checkpoint
from demokit.options import IMAGES, SIMULATION, require_effect
from demokit.types import Task
from gmps import method as registry
from gmps.experience.demos import load_demos
from gmps.experience.rollouts import Rollouts
from gmps.method import HasStepSize, IsTold, find_method, method_names
from gmps.problem import Problem, Training
from gmps.runs.checkpoint import Trained, load, save
from gmps.shipped import PRESETS, shipped
from gmps.training import options_of as options_from

ROOT = Path(__file__).parents[2]
METHODS = (
    *("context-search", "dpt", "e-maml", "gmps", "gmps-latent", "imitation", "maesn", "maml"),
    *("meta-exploration", "model-based", "multitask", "oracle", "pearl", "promp", "replay"),
    *("rl2", "snail"),
    "task-inference",
)
TOLD = {"oracle"}
"""Who is told the context of a new task."""
STATELESS = {"replay", "maml", "e-maml", "maesn", "multitask"}
"""Whose training keeps nothing beside the learner."""
K = 4


@pytest.fixture
def demos(point_demos):
    return load_demos(point_demos, DEMOS)


def ready(demos, name):
    """A learner that can adapt, to the training tasks if it must be told some, and its problem."""
    learner, problem = learner_of(demos, name)
    if isinstance(learner, HasStepSize):
        learner = learner.with_step_size(0.01)
    return told(learner, problem.tasks), problem


def told(learner, tasks):
    """The learner, told these tasks if it is one that is told."""
    if not isinstance(learner, IsTold):
        return learner
    return learner.told(torch.tensor([task.context for task in tasks]))


def named(belief):
    """A belief's tensors by name, whether it is a mapping or named tuples, perhaps in another."""
    found = {}
    for name, value in (belief._asdict() if hasattr(belief, "_asdict") else belief).items():
        inner = {"": value} if isinstance(value, torch.Tensor) else named(value)
        found |= {f"{name}.{n}".rstrip("."): own for n, own in inner.items()}
    return found


def copies(belief):
    return {name: value.clone() for name, value in named(belief).items()}


def test_the_registry_has_these_methods():
    assert method_names() == METHODS


@pytest.mark.parametrize("name", METHODS)
def test_shapes_of_beliefs_and_of_what_actors_do(demos, name):
    learner, problem = ready(demos, name)
    sampler = problem.sampler(problem.tasks, explore=K, mean=2)
    for step in range(2):
        explored, judged = roll_outs(sampler, learner, step=step)
        assert explored.rollouts.action.shape == (NUM_TASKS, K, 20, 2)
        assert explored.success.shape == (NUM_TASKS, K)
        assert judged.success.shape == (NUM_TASKS, 2)
        belief = learner.begin(NUM_TASKS)
        after = learner.adapt(belief, step, explored.rollouts, explored.memory)
        believed, kinds = named(after), {n: (v.dtype, v.ndim) for n, v in named(belief).items()}
        assert {n: (v.dtype, v.ndim) for n, v in believed.items()} == kinds
        assert all(len(value) == NUM_TASKS for value in believed.values())


@pytest.mark.parametrize("name", METHODS)
def test_adapting_changes_nothing_in_place(demos, name):
    learner, problem = ready(demos, name)
    before, belief = copies(learner.tensors()), learner.begin(NUM_TASKS)
    believed = copies(belief)
    explored = roll_outs(problem.sampler(problem.tasks, explore=K), learner).explored
    seen = explored.rollouts.reward.clone()
    after = named(learner.adapt(belief, 0, explored.rollouts, explored.memory))
    assert any(not torch.equal(after[n], believed[n]) for n in after) == (name not in TOLD)
    assert all(torch.equal(named(belief)[n], value) for n, value in believed.items())
    assert all(torch.equal(learner.tensors()[n], value) for n, value in before.items())
    assert torch.equal(explored.rollouts.reward, seen)


@pytest.mark.parametrize("name", METHODS)
def test_no_context_reaches_an_actor_or_an_adaptation(demos, name, monkeypatch):
    """Tasks that differ, and are paid alike, are acted and adapted to bit for bit alike.

    Of a learner that is told contexts: when it is told the same, and not when it is told theirs.
    """
    learner, problem = ready(demos, name)
    monkeypatch.setattr(
        Point, "reward", lambda _, kind, terms, *others: -terms["point_pos_w_m"][:, 0]
    )
    tasks = [(Task("point", "t/0", at, "validation"),) for at in ((0.2, 0.2), (0.9, -0.4))]
    one, other = (acted_and_adapted(told(learner, tasks[0]), problem, each) for each in tasks)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[n], value) for n, value in other.items())
    held = {each.name for each in fields(Rollouts)}
    assert held == {"observation", "action", "log_prob", "reward", "alive", "terminated"}
    assert isinstance(learner, IsTold) == (name in TOLD)
    if name in TOLD:
        theirs = acted_and_adapted(told(learner, tasks[1]), problem, tasks[1])
        assert not torch.equal(theirs["action"], one["action"])


def acted_and_adapted(learner, problem, tasks):
    """What a learner does in a task, and believes then."""
    explored, judged = roll_outs(problem.sampler(tasks, explore=K, mean=1), learner)
    rollouts, memory, _ = explored
    after = named(learner.adapt(learner.begin(1), 0, rollouts, memory))
    return {**after, "action": rollouts.action, "judged": judged.rollouts.action}


@pytest.mark.parametrize("name", METHODS)
def test_a_checkpoint_brings_back_the_learner(demos, name, tmp_path):
    learner, problem = ready(demos, name)
    options, path = options_of(name), tmp_path / "checkpoint.safetensors"
    save(path, Trained(name, options, problem, learner, finished=True), {"a": torch.ones(2)})
    found, state = load(path)
    assert (found.method, found.options, found.problem) == (name, options, problem)
    assert torch.equal(state["a"], torch.ones(2))
    assert found.learner.header() == learner.header()
    wanted = learner.tensors()
    assert found.learner.tensors().keys() == wanted.keys()
    assert all(torch.equal(found.learner.tensors()[n], value) for n, value in wanted.items())


OF_PRESETS = {
    "ant": ("gmps", "gmps-latent", "imitation"),
    "context_told": ("context-search", "oracle", "task-inference"),
    "maesn": ("maesn",),
    "maesn_sparse": ("maesn",),
    "maml": ("maml", "e-maml", "promp"),
    "meta_exploration": ("meta-exploration",),
    "pearl": ("pearl",),
    "rl2": ("rl2",),
    "vision": ("gmps", "gmps-latent", "imitation"),
    "vision_small": ("gmps", "gmps-latent", "imitation", "task-inference", "oracle"),
}


def test_every_preset_says_what_its_methods_know(tmp_path, invoke):
    assert sorted(OF_PRESETS) == sorted(shipped(PRESETS))
    demos = ("--demos", tmp_path / "none.hdf5", "--output-dir", tmp_path / "run")
    for name, methods in OF_PRESETS.items():
        for method in methods:
            asked = ("meta-train", "--config", name, "--method", method, *demos)
            assert "no dataset at" in invoke(*asked, exit_code=1).output, (name, method)


@pytest.mark.parametrize("name", OF_PRESETS)
def test_every_table_of_a_preset_has_an_effect_in_its_method(name):
    content = tomllib.loads(shipped(PRESETS)[name].read_text())
    shared = {key: value for key, value in content.items() if not isinstance(value, dict)}
    given = {IMAGES: "vision" in name, SIMULATION: True}
    for method in content.keys() - shared.keys():
        named = {key.replace("-", "_"): v for key, v in {**shared, **content[method]}.items()}
        require_effect(options_from(method, named), given)


@pytest.mark.parametrize("name", METHODS)
def test_options_of_other_methods_are_refused(point_demos, tmp_path, invoke, name):
    own = {each.name for each in fields(find_method(name).options)}
    for other in METHODS:
        foreign = {each.name: each for each in fields(find_method(other).options)}
        for option in sorted(foreign.keys() - own)[:2]:
            typed = f"--{option.replace('_', '-')}"
            given = (typed,) if isinstance(foreign[option].default, bool) else (typed, "1")
            args = ("meta-train", "--method", name, "--demos", point_demos, *given)
            refused = invoke(*args, "--output-dir", tmp_path / "run", exit_code=2).output
            assert f"{typed} is an option of" in refused
            assert f"not of {name}: leave it out." in refused


@pytest.mark.parametrize("name", METHODS)
def test_a_training_resumes_to_the_bit(demos, name, tmp_path):
    """From its checkpoint after the second of four iterations."""
    trained_in(tmp_path / "whole", demos, name)
    halted = tmp_path / "halted"
    assert halted_and_resumed(halted, demos, name).finished
    (one, its), (other, others) = (
        load_checkpoint(folder / "checkpoint.safetensors")
        for folder in (tmp_path / "whole", halted)
    )
    assert its == others
    assert one.keys() == other.keys()
    assert all(torch.equal(one[n], value) for n, value in other.items())
    assert (halted / "metrics.csv").read_text() == (tmp_path / "whole/metrics.csv").read_text()


@pytest.mark.parametrize("name", [n for n in METHODS if n not in STATELESS])
def test_a_damaged_state_of_a_training_is_one_sentence(demos, name, tmp_path):
    folder = tmp_path / "halted"
    with pytest.raises(KeyboardInterrupt):
        trained_in(folder, demos, name, report=Stops(2))
    path = folder / "checkpoint.safetensors"
    tensors, header = load_checkpoint(path)
    shaped = [n for n, value in tensors.items() if n.startswith("state.") and value.ndim]
    save_checkpoint(path, {**tensors, shaped[-1]: torch.zeros(3, 1, 2)}, header)
    with pytest.raises(DemokitError, match=r"keeps to go on from is damaged .*: train again"):
        trained_in(folder, demos, name, resume=True)
    assert torch.equal(load_checkpoint(path)[0][shaped[-1]], torch.zeros(3, 1, 2))


def test_every_method_says_what_it_is_told(invoke):
    assert all(find_method(name).told for name in METHODS)
    assert all(("of a new task" in find_method(name).told) == (name in TOLD) for name in METHODS)
    assert "told" in invoke("methods").output


def test_what_an_option_tells_is_told():
    guided = find_method("gmps")
    asking, plain = (guided.options(dagger=on) for on in (True, False))
    own = guided.told_with(plain, images=False)
    assert own == "demonstrations by task, rewards of roll-outs"
    asked = f"{own}; an expert's answers about its own roll-outs"
    assert guided.told_with(asking, images=False) == asked
    eyes = "; where the object is, in training, beside images"
    assert guided.told_with(plain, images=True) == own + eyes
    blind = guided.options(object_weight=0.0)
    assert guided.told_with(blind, images=True) == own
    stopping = guided.told_with(guided.options(patience=2), images=False)
    assert (
        stopping == f"{own}; returns on monitor tasks, held out where more can be drawn, to stop by"
    )


def test_help_shows_the_options_of_one_method(invoke):
    shown = invoke("meta-train", "--method", "imitation", "--help").output
    assert "--steps" in shown
    assert "--outer-steps" not in shown
    assert "--outer-steps" in invoke("meta-train", "--help").output
    assert "gmps-latent" in invoke("methods").output


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--dagger-every", 3), "Option --dagger-every has no effect without --dagger"),
        (("--encode-every", 3), "Option --encode-every has no effect without images"),
    ],
)
def test_options_without_effect_are_refused(point_demos, tmp_path, invoke, given, said):
    args = ("meta-train", "--demos", point_demos, *SHORT, "--output-dir", tmp_path / "run")
    assert said in invoke(*args, *given, exit_code=1).output


def test_what_is_learned_from_is_one_thing(point_demos, invoke):
    both = invoke("meta-train", "--demos", point_demos, "--env", "point", exit_code=2).output
    assert "Name --demos or --env, not both" in both
    needed = invoke("meta-train", "--env", "point", exit_code=2).output
    assert "gmps learns from demonstrations" in needed


RUNS_METHODS = ("loop", "evaluation", "tuning", "runs", "comparison", "cli")
"""What trains and judges methods, whichever they are: modules and rooms."""


def imported_of_gmps(path):
    """What a file names of gmps where it imports."""
    return set(re.findall(r"^ *(?:from|import) gmps\.(\S+)", path.read_text(), re.MULTILINE))


def test_no_room_imports_a_method_and_no_method_what_runs_it_or_another():
    """The table of rooms in docs/methods.md."""
    root = Path(registry.__file__).parent
    for path in root.rglob("*.py"):
        room, *inner = path.relative_to(root).with_suffix("").parts
        names = imported_of_gmps(path)
        own = f"methods.{inner[0]}" if room == "methods" else ""
        methods = {name for name in names if name.split(".")[0] == "methods"}
        assert all(own and name.startswith(own) for name in methods), path
        if room in ("methods", "policies", "steps", "experience", "gradient"):
            assert not {name.split(".")[0] for name in names} & {*RUNS_METHODS}, path


def test_the_page_on_methods_shows_the_whole_of_one():
    shown = (ROOT / "tests" / "packages" / "random_search.py").read_text()
    assert f"```python\n{shown}```" in (ROOT / "docs" / "methods.md").read_text()


OTHER = ("--iterations", 3, "--rollouts-per-task", 5, "--checkpoint-every", 1, "--threads", 1)


def test_a_method_of_another_package_needs_no_demonstrations(other_package, tmp_path, invoke):
    asked = ("meta-train", "--method", other_package, "--env", "point", "--tasks", 4, *OTHER)
    invoke(*asked, "--reward", "sparse", "--output-dir", tmp_path / "sparse-0")
    trained, _ = load(tmp_path / "sparse-0")
    assert (trained.problem.reward, len(trained.problem.tasks)) == ("sparse", 4)
    assert (trained.spent.demonstrations, trained.spent.meta_training) == (0, 3 * 4 * 5 * 20)
    shown = invoke("runs", tmp_path).output
    assert other_package in shown
    assert "spread" in invoke("meta-train", "--method", other_package, "--help").output


def test_it_takes_tasks_and_reward_of_demonstrations(other_package, point_demos, tmp_path, invoke):
    asked = ("meta-train", "--method", other_package, "--demos", point_demos, *OTHER)
    invoke(*asked, "--output-dir", tmp_path / "search-0")
    trained, _ = load(tmp_path / "search-0")
    assert trained.problem == Problem.of(load_demos(point_demos, DEMOS))


def test_it_resumes_to_the_bit(other_package, demos, tmp_path):
    options = find_method(other_package).options(iterations=3, rollouts_per_task=5, threads=1)
    whole = trained_in(tmp_path / "whole", demos, other_package, options)
    training = Training(whole.problem, options)
    code = find_method(other_package).code
    first = next(code.train(training, code.start(training), {}, 0))
    rest = list(code.train(training, first.learner, first.state, 1))
    assert torch.equal(rest[-1].learner.center, whole.learner.center)
    found, _ = load_checkpoint(tmp_path / "whole" / "checkpoint.safetensors")
    assert torch.equal(found["learner.center"], whole.learner.center)


def test_it_is_evaluated_and_compared(other_package, point_run, tmp_path, invoke):
    asked = ("meta-train", "--method", other_package, "--env", "point", *OTHER)
    invoke(*asked, "--output-dir", tmp_path / "search-0")
    small = ("--num-tasks", 3, "--adapt-steps", 1, "--output-dir", tmp_path / "c")
    shown = invoke("evaluate", point_run, tmp_path / "search-0", *small).output
    assert "search" in shown
    assert "gmps" in shown
    refused = ("--step-scale", 0.5, "--output-dir", tmp_path / "d", "--num-tasks", 1)
    said = invoke("evaluate", tmp_path / "search-0", *refused, exit_code=1).output
    assert "adapts without step sizes (random-search)" in said


def test_a_run_of_a_method_that_is_gone_is_one_sentence(other_package, tmp_path, invoke):
    asked = ("meta-train", "--method", other_package, "--env", "point", *OTHER)
    invoke(*asked, "--output-dir", tmp_path / "search-0")
    command = [sys.executable, "-m", "demokit.cli.program", "evaluate", tmp_path / "search-0"]
    command = [sys.executable, "-c", "from demokit.cli import main; main()", *command[3:]]
    without = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    ended = subprocess.run(command, env=without, capture_output=True, text=True)
    assert ended.returncode == 1
    assert "of a method that is not installed here" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_episodes_of_several_trials_are_averaged(other_package, demos):
    """One episode a step: five trials of every task, each with random numbers of its own."""
    from gmps.evaluation import evaluate

    options = find_method(other_package).options(rollouts_per_task=1)
    problem = Problem.of(demos)
    learner = find_method(other_package).code.start(Training(problem, options))
    curve = evaluate(learner, problem, problem.tasks, num_steps=1, seed=0)
    assert curve.mean.success.shape == (2, NUM_TASKS)
    fifths = np.round(curve.stochastic.success * 5)
    np.testing.assert_allclose(curve.stochastic.success * 5, fifths, atol=1e-6)
