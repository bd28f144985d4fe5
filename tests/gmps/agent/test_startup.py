"""A run's schema is enough to act: no simulator, no dataset, not even the family."""

import subprocess
import sys

import numpy as np
import pytest
import torch

import demokit
from demokit.errors import DemokitError
from demokit.learning.checkpoint import load_checkpoint, save_checkpoint
from gmps.runs.checkpoint import load

NEEDLESS = {"mujoco", "gymnasium", "h5py", "minari", "matplotlib", "tensorboard", "pandas", "PIL"}
METHODS = (
    *("gmps", "gmps-latent", "imitation", "task-inference", "oracle", "maml", "maesn"),
    *("meta-exploration", "pearl", "rl2", "snail", "dpt", "model-based"),
)
LOADED = f"""
import sys, numpy, demokit
for folder in sys.argv[1:]:
    agent = demokit.load_policy(folder)
    if "oracle" not in folder:
        agent.act(numpy.zeros(2))
    agent.new_task(context=(0.1, 0.1) if "oracle" in folder else None)
    print(agent.method, *sorted({NEEDLESS!r} & set(sys.modules)))
"""


def test_acting_imports_no_simulator_and_no_dataset(runs):
    args = [sys.executable, "-c", LOADED, *(str(runs / method) for method in METHODS)]
    said = subprocess.run(args, check=True, capture_output=True, text=True).stdout
    assert said.splitlines() == list(METHODS)


def renamed(run, path, **changes):
    """The checkpoint of a run with another schema."""
    tensors, header = load_checkpoint(run / "checkpoint.safetensors")
    save_checkpoint(path, tensors, {**header, "schema": {**header["schema"], **changes}})
    return path


def test_a_family_that_nothing_here_knows_is_acted_in(runs, tmp_path):
    path = renamed(runs / "gmps", tmp_path / "robot.safetensors", name="my-robot")
    ours, known = demokit.load_policy(path), demokit.load_policy(runs / "gmps")
    seen = np.array([0.1, -0.2])
    np.testing.assert_array_equal(ours.act(seen), known.act(seen))
    assert (ours.family, ours.horizon) == ("my-robot", known.horizon)
    assert ours.action_names == known.action_names
    with pytest.raises(DemokitError, match=r"robot.safetensors: Unknown environment 'my-robot'"):
        load(path)


def test_a_schema_that_is_not_the_policys(runs, tmp_path):
    wide = {"name": "place", "width": 3, "unit": "m", "frame": "world", "group": "observation"}
    for changes in ({"terms": [wide]}, {"actions": ["one"]}, {"horizon": "20"}):
        path = renamed(runs / "gmps", tmp_path / "other.safetensors", **changes)
        with pytest.raises(DemokitError, match="by another version of demokit or by hand"):
            demokit.load_policy(path)


@pytest.mark.parametrize("changes", [{"model_hash": "0"}, {"horizon": 21}])
def test_another_model_is_not_simulated(runs, tmp_path, changes):
    path = renamed(runs / "gmps", tmp_path / "old.safetensors", **changes)
    assert demokit.load_policy(path).act(np.zeros(2)).shape == (2,)
    with pytest.raises(DemokitError, match="another model of point: train again"):
        load(path)


def test_runs_of_before_say_a_name_and_a_hash(runs, tmp_path):
    tensors, header = load_checkpoint(runs / "gmps" / "checkpoint.safetensors")
    schema = header.pop("schema")
    header |= {"family": schema["name"], "model_hash": schema["model_hash"]}
    save_checkpoint(tmp_path / "old.safetensors", tensors, header)
    trained, _ = load(tmp_path / "old.safetensors")
    assert trained.problem.schema == load(runs / "gmps")[0].problem.schema
    assert torch.equal(trained.learner.meta.theta["0.weight"], tensors["learner.theta.0.weight"])
