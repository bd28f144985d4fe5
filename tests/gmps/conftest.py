"""A small real dataset and short runs on it, shared by the tests of gmps."""

import pytest
import torch
from short_run import DEMOS, NUM_TASKS, SHORT, cut

from demokit.data import DatasetWriter, open_dataset
from demokit.envs import ant, make_family
from demokit.learning.expert import ExpertInputs, TrainedExpert

# Threads of many small runs, and of the tests beside them, only wait for each other.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def point_demos(tmp_path_factory, invoke):
    path = tmp_path_factory.mktemp("demos") / "point.hdf5"
    invoke(
        *("record", "--env", "point", "--tasks", NUM_TASKS, "--episodes-per-task", DEMOS),
        *("--noise", "0.2", "--out", path),
    )
    return path


@pytest.fixture(scope="session")
def uneven_demos(tmp_path_factory, point_demos):
    """Demonstrations of 5, 10, 15, 20, 5 and 10 steps; the tasks take turns."""
    path = tmp_path_factory.mktemp("demos") / "uneven.hdf5"
    with open_dataset(point_demos) as dataset, DatasetWriter(path, dataset.metadata) as writer:
        for i, episode in enumerate(dataset):
            writer.add(cut(episode, 5 * (1 + i % 4)))
        writer.finish()
    return path


@pytest.fixture
def frail_ants(monkeypatch):
    """Ants end their episodes sooner than the paper's, which seldom fall in 200 steps."""
    monkeypatch.setattr(ant.AntFamily, "healthy_z_m", (0.65, 1.0))


@pytest.fixture(scope="session")
def ant_demos(tmp_path_factory, invoke):
    path = tmp_path_factory.mktemp("demos") / "ant.hdf5"
    invoke(
        *("record", "--env", "ant", "--tasks", NUM_TASKS, "--episodes-per-task", DEMOS),
        *("--expert", "random", "--out", path),
    )
    return path


@pytest.fixture
def still_ant(tmp_path):
    """The file of an expert that holds the ant still."""
    family = make_family("ant")
    inputs = ExpertInputs.of(family, family.context.width)
    zeros = torch.zeros(inputs.width, len(family.actions), dtype=torch.float64)
    layers = ((zeros, zeros[0]),)
    header = {"model_hash": family.model_hash, "task_set": "paper", "env_steps": 1}
    header |= {"returns": {}, "success": {}}
    path, ones = tmp_path / "still.safetensors", torch.ones(inputs.width)
    TrainedExpert("ant", inputs, 0 * ones, ones, layers, header).save(path)
    return path


@pytest.fixture(scope="session")
def point_run(tmp_path_factory, invoke, point_demos):
    """A finished short GMPS run on Point."""
    folder = tmp_path_factory.mktemp("runs") / "gmps-0"
    invoke("meta-train", "--demos", point_demos, "--output-dir", folder, *SHORT)
    return folder
