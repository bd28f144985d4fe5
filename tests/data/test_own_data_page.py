"""The examples of docs/own-data.md run as they stand."""

import ast
import re
import shlex
from pathlib import Path

import minari
import numpy as np
import pytest
from click.testing import CliRunner
from gymnasium import spaces
from minari.data_collector import EpisodeBuffer

import demokit
from demokit.cli import main
from demokit.data import open_dataset
from demokit.data.validation import validate

PAGE = (Path(__file__).parents[2] / "docs" / "own-data.md").read_text()
*COMMANDS, TRAINING = re.findall(r"^ {4}(demokit .*)$", PAGE, re.MULTILINE)
IMPORTS, EDITS = COMMANDS[:4], COMMANDS[4:]
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "root"))
    found = {"__name__": "example"}
    run_blocks(BLOCKS[:-1], found)
    return found


def run_blocks(blocks, names):
    for block in blocks:
        exec(compile(block, "own-data.md", "exec"), names)


def test_the_examples_run(names):
    given, dataset, range_ = names["episodes"], names["dataset"], names["action_range"]
    assert f"# {sorted(dataset.metadata.provenance.missing)}\n" in PAGE
    assert len(dataset.metadata.tasks) == 3
    for before, after in zip(given, dataset, strict=True):
        np.testing.assert_allclose(range_.from_unit(after.actions), before["actions"], atol=1e-12)
    assert not validate("reach.hdf5").errors


def write_sources(given):
    import pickle

    Path("demos").mkdir()
    for index, each in enumerate(given):
        np.savez(Path("demos", f"{index}.npz"), **each)
    unit = [{"obs": e["observations"], "act": e["actions"] / 2} for e in given]
    Path("demos.pkl").write_bytes(pickle.dumps(unit))
    rows = [f"{e},{s},1,0,0.5,-1,0,reach,0.5" for e in range(2) for s in range(3)]
    head = "run,q0,q1,dq0,u0,u1,reward,task,goal"
    Path("log.csv").write_text("\n".join([head, *rows]))
    box = spaces.Box(-9, 9, (2,))
    goal = np.full((4, 2), 0.5, np.float32)
    buffer = EpisodeBuffer(
        observations={"desired_goal": goal, "observation": goal},
        actions=np.zeros((3, 2), np.float32),
        rewards=[0.0] * 3,
        terminations=[False] * 3,
        truncations=[False, False, True],
    )
    made = minari.create_dataset_from_buffers(
        "test/any-v0", [buffer], action_space=spaces.Box(-1, 1, (2,)),
        observation_space=spaces.Dict({"desired_goal": box, "observation": box}),
    )  # fmt: skip
    Path("minari-dataset").symlink_to(Path(made.spec.data_path).parent)


def test_the_commands_run(names):
    write_sources(names["episodes"])
    tasks = []
    for command in IMPORTS:
        out = Path(re.search(r"-o (\S+)", command)[1])
        out.unlink(missing_ok=True)
        result = CliRunner().invoke(main, shlex.split(command)[1:])
        assert result.exit_code == 0, result.output
        tasks.append([(task.id, task.context) for task in open_dataset(out).metadata.tasks])
    assert len(tasks) == 4
    assert [name for name, _ in tasks[0]] == [f"demos/reach {g}" for g in (-0.5, 0.0, 0.5)]
    assert tasks[1] == [("demos/00", (0.0,))]
    assert tasks[2] == [("log/reach", (0.5,))]
    assert tasks[3][0][1] == (0.5, 0.5)


@pytest.mark.usefixtures("names")
def test_episodes_are_picked_and_mended():
    for command in EDITS:
        result = CliRunner().invoke(main, shlex.split(command)[1:])
        assert result.exit_code == 0, result.output
    good, cut, named = map(open_dataset, ("good.hdf5", "cut.hdf5", "named.hdf5"))
    assert [record.success for record in good.episodes] == [False, False, True]
    assert [record.length for record in cut.episodes] == [15, 15, 9, 15, 9, 15]
    assert [record.success for record in named.episodes] == [False, True, True, True, True, False]
    assert "my-arm/corner" in [task.id for task in named.metadata.tasks]
    for dataset in (good, cut, named):
        assert not validate(dataset.path).errors


def test_what_nothing_simulates_is_learned_from(names):
    few = ["--iterations", "1", "--threads", "1"]
    result = CliRunner().invoke(main, shlex.split(TRAINING)[1:] + few)
    assert result.exit_code == 0, result.output
    assert "iterations=20" in BLOCKS[-1]
    run_blocks([BLOCKS[-1].replace("iterations=20", "iterations=1, steps=9, threads=1")], names)
    assert names["command"].shape == (2,)
    assert (np.abs(names["command"]) <= 2).all()
    found = demokit.load_policy("mine.safetensors")
    assert (found.method, found.family, found.episodes) == ("imitation", "my-arm", 20)


def test_from_arrays_to_an_adapted_policy_is_short():
    made = ast.parse(BLOCKS[0]).body[-1]
    learned = [s for s in ast.parse(BLOCKS[-1]).body if not isinstance(s, ast.FunctionDef)]
    statements = [made, *learned, *[inner for s in learned for inner in getattr(s, "body", [])]]
    assert len(statements) <= 12
