"""The examples of docs/own-environment.md run as they stand: recorded, meta-trained, evaluated."""

import json
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import demokit
import demokit.envs as envs
from demokit.cli import main
from demokit.data import open_dataset
from demokit.data.validation import validate

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


def test_the_example_is_short():
    """A Gymnasium environment, recorded, meta-trained and evaluated in few lines."""
    lines = [line for line in RECORD.splitlines() if line.strip()]
    assert len(lines) + 2 <= 12
    assert "mujoco" not in (MODULE + RECORD).lower()
