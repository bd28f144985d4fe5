"""The examples of docs/own-environment.md run as they stand: recorded, meta-trained, evaluated."""

import json
import re
import shlex
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from click.testing import CliRunner
from gymnasium.spaces import Box

import demokit
import demokit.envs as envs
from demokit.cli import main
from demokit.data import from_arrays, open_dataset
from demokit.data.validation import validate
from demokit.envs import from_gymnasium, make_family
from demokit.errors import DemokitError
from gmps.experience.demos import load_demos

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


def test_the_example_is_short():
    """A Gymnasium environment, recorded, meta-trained and evaluated in few lines."""
    lines = [line for line in RECORD.splitlines() if line.strip()]
    assert len(lines) + 2 <= 12
    assert "mujoco" not in (MODULE + RECORD).lower()
