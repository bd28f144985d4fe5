"""The examples of docs/own-environment.md run as they stand: recorded, meta-trained, evaluated."""

import json
import re
import shlex
import sys
from dataclasses import replace
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from click.testing import CliRunner
from gymnasium.spaces import Box
from short_run import DEMOS, options_of, trained_in

import demokit
import demokit.envs as envs
from demokit.cli import main
from demokit.data import from_arrays, open_dataset
from demokit.data.validation import validate
from demokit.envs import from_gymnasium, make_family
from demokit.errors import DemokitError
from gmps.agent.agent import TrainedAgent
from gmps.agent.simulated import adapt
from gmps.evaluation import evaluate
from gmps.experience.demos import load_demos
from gmps.method import find_method, method_names
from gmps.problem import Problem, Training

PAGE = (Path(__file__).parents[2] / "docs" / "own-environment.md").read_text()
MODULE, RECORD, WINDOWS, TELL, CLASS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = re.findall(r"^ {4}(demokit .*)$", PAGE, re.MULTILINE)
FEW = {
    "meta-train": "--iterations 2 --rollouts-per-task 4 --threads 1",
    "evaluate": "--num-tasks 3",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where somebody follows the page: their module, and what they recorded."""
    root = tmp_path_factory.mktemp("own")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(root)
        patched.setattr(sys, "path", [*sys.path, str(root)])
        patched.setattr(envs, "_registered", {})
        patched.setenv("DEMOKIT_IMPORT", "")
        Path("reach.py").write_text(MODULE)
        Path("reached.py").write_text(CLASS)
        names = {"__name__": "example"}
        for block in (RECORD, WINDOWS, f"{MODULE}\n{TELL}"):
            exec(compile(block, "own-environment.md", "exec"), names)
        yield names
    for name in ("reach", "reached"):
        sys.modules.pop(name, None)
    envs.make_family.cache_clear()


def test_what_the_page_records(folder):
    dataset = open_dataset("reach.hdf5")
    assert (len(dataset), len(dataset.metadata.tasks)) == (32, 8)
    assert sum(record.success for record in dataset.episodes) > 24
    assert not validate("reach.hdf5").errors
    assert {name: tuple(rows.shape) for name, rows in folder["item"].items()} == {
        "observations": (5, 2), "actions": (5, 2), "context": (2,),
        "task": (), "episode": (), "start": (),
    }  # fmt: skip


@pytest.mark.usefixtures("folder")
def test_the_commands_of_the_page():
    assert len(COMMANDS) == 5
    for command in COMMANDS:
        arguments = shlex.split(command)[1:]
        verb = next(word for word in arguments if word in (*FEW, "adapt", "record"))
        result = CliRunner().invoke(main, [*arguments, *shlex.split(FEW.get(verb, ""))])
        assert result.exit_code == 0, result.output
    found = json.loads(Path("runs/reach/evaluation/evaluation.json").read_text())
    assert found
    agent = demokit.load_policy("there.safetensors")
    assert (agent.family, agent.steps) == ("reach", 1)
    assert np.abs(agent.act(np.zeros(2))).max() <= 1
    assert open_dataset("reached.hdf5").metadata.family == "reached:Reached"


@pytest.fixture
def line(monkeypatch):
    """A family of one action, one observation and one number for a task."""
    monkeypatch.setattr(envs, "_registered", {})

    class Line(gymnasium.Env):
        observation_space = Box(-9, 9, (1,), np.float32)
        action_space = Box(-2, 2, (1,), np.float32)

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            return np.array([options["task"][0] * 0], np.float32), {}

        def step(self, action):
            return np.array([action[0]], np.float32), 0.0, False, False, {}

    yield from_gymnasium("line", Line, Box(-1, 1, (1,)), horizon=3)
    make_family.cache_clear()


DIFFERENT = {
    "observations": ({"observations": np.zeros((4, 2))}, {}, "observations of the shape"),
    "a picture": ({"observations": {"a": np.zeros((4, 1))}}, {}, "observations of the shape"),
    "actions": ({"actions": np.zeros((3, 2))}, {}, "actions of the shape"),
    "context": ({"context": [1.0, 2.0]}, {}, "context of line/00 of the shape"),
    "no context": ({"context": None}, {}, "does not say the contexts"),
    "range": (
        {},
        {"action_low": -1, "action_high": 3},
        r"\[-1.0\] to \[3.0\], and line takes",
    ),
}


@pytest.mark.usefixtures("line")
@pytest.mark.parametrize("what", DIFFERENT)
def test_a_dataset_of_another_environment_of_that_name(tmp_path, what):
    changed, options, said = DIFFERENT[what]
    episode = {"observations": np.zeros((4, 1)), "actions": np.zeros((3, 1)), "context": [0.5]}
    episode = {k: v for k, v in {**episode, **changed}.items() if v is not None}
    bounds = {"action_low": -2, "action_high": 2}
    path = tmp_path / "a.hdf5"
    from_arrays(path, [episode], family="line", **{**bounds, **options})
    with pytest.raises(DemokitError, match=said):
        load_demos(path)


def test_a_dataset_of_the_family_is_learned_from(tmp_path, line):
    episode = {"observations": np.zeros((4, 1)), "actions": np.ones((3, 1)), "context": [0.5]}
    from_arrays(tmp_path / "a.hdf5", [episode], family="line", action_low=-2, action_high=2)
    demos = load_demos(tmp_path / "a.hdf5")
    assert demos.family is line
    assert demos.action.flatten().tolist() == [0.5] * 3


class Walk(gymnasium.Env):
    """A place on a line, and how far it is from where it should be; counts itself."""

    observation_space = Box(-9, 9, (1,), np.float32)
    action_space = Box(-1, 1, (1,), np.float32)
    made, closed = 0, 0

    def __init__(self):
        Walk.made += 1

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.goal, self.place = options["task"][0], self.np_random.normal(size=1)
        return self.place.astype(np.float32), {}

    def step(self, action):
        self.place = (self.place + 0.5 * action).clip(-9, 9)
        far = abs(float(self.place[0] - self.goal))
        return self.place.astype(np.float32), -far, False, False, {}

    def close(self):
        Walk.closed += 1


@pytest.fixture(scope="module")
def walked(tmp_path_factory):
    """Demonstrations of two tasks in such environments."""
    path = tmp_path_factory.mktemp("walked") / "walk.hdf5"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(envs, "_registered", {})
        from_gymnasium("walk", Walk, Box(-1, 1, (1,)), horizon=8)
        drawn = np.random.default_rng(0)
        episodes = [
            {
                "observations": drawn.normal(size=(9, 1)),
                "actions": drawn.uniform(-1, 1, (8, 1)),
                "context": [goal],
            }
            for goal in (-0.5, 0.5)
            for _ in range(DEMOS)
        ]
        from_arrays(path, episodes, family="walk", action_low=-1, action_high=1)
        yield load_demos(path, DEMOS)
    make_family.cache_clear()


@pytest.mark.parametrize("method", method_names())
def test_every_environment_that_was_made_is_closed_once(walked, tmp_path, method):
    options = options_of(method, iterations=2)
    if method == "pearl":
        options = replace(options, meta_batch=2)
    Walk.made = Walk.closed = 0
    trained = trained_in(tmp_path / "run", walked, method, options)
    evaluate(trained.learner, trained.problem, trained.problem.tasks, num_steps=1, seed=0)
    adapt(TrainedAgent(trained), trained.problem.tasks[0], 1, 2, keep=True)
    assert Walk.made == Walk.closed > 0


@pytest.mark.parametrize("method", ["dpt", "task-inference"])
def test_episodes_of_one_step_lead_to_nothing_that_could_be_learned_from(walked, method):
    short = replace(walked.family.schema, horizon=1)
    problem = replace(Problem.of(walked), schema=short)
    training = Training(problem, options_of(method), walked)
    with pytest.raises(DemokitError, match="Episodes of walk have one step"):
        find_method(method).code.start(training)


def test_the_example_is_short():
    """A Gymnasium environment, recorded, meta-trained and evaluated in few lines."""
    lines = [line for line in RECORD.splitlines() if line.strip()]
    assert len(lines) + 2 <= 12
    assert "mujoco" not in (MODULE + RECORD).lower()
