"""Small episodes and metadata without a simulator."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from demokit.cli import main
from demokit.data import ArraySpec, DatasetMetadata, Provenance
from demokit.types import Episode, Task

TASKS = tuple(Task("point", f"point/test/train/{i:02d}", (0.1 * i, 0.5), "train") for i in range(3))
VECTOR = ArraySpec((4,), "float32", -np.inf, np.inf)


@pytest.fixture
def metadata() -> DatasetMetadata:
    return DatasetMetadata(
        family="point",
        reward="dense",
        horizon=20,
        task_set="test",
        tasks=TASKS,
        observation_space=VECTOR,
        action_space=ArraySpec((2,), "float32", -1.0, 1.0),
        model_hash="0" * 64,
        mujoco_version="4.0.0",
        provenance=Provenance("scripted", "scripted", 0.2, 0),
    )


@pytest.fixture
def make_episode() -> Callable[..., Episode]:
    def make(index: int, steps: int = 5, observations: object = None) -> Episode:
        rng = np.random.default_rng(index)
        truncations = np.zeros(steps, bool)
        truncations[-1] = True
        vector = rng.normal(size=(steps + 1, 4)).astype(np.float32)
        return Episode(
            task=TASKS[index % len(TASKS)],
            observations=vector if observations is None else observations,
            actions=rng.uniform(-1, 1, (steps, 2)).astype(np.float32),
            rewards=rng.normal(size=steps),
            terminations=np.zeros(steps, bool),
            truncations=truncations,
            privileged={
                "state": rng.normal(size=(steps + 1, 7)),
                "expert_action": rng.uniform(-1, 1, (steps + 1, 2)).astype(np.float32),
                "success": rng.integers(0, 2, steps + 1).astype(bool),
            },
            seed=int(rng.integers(2**32)),
            success=index % 2 == 0,
            recorder="scripted",
            options={"attempt": index // len(TASKS), "start": {"noise": 0.5}},
        )

    return make


@pytest.fixture(scope="session")
def recorded(tmp_path_factory) -> Path:
    """Eight simulated episodes of four tasks; leave it as it is."""
    path = tmp_path_factory.mktemp("recorded") / "point.hdf5"
    options = ["--tasks", "4", "--episodes-per-task", "2", "--license", "MIT"]
    done = CliRunner().invoke(main, ["record", "--env", "point", "--out", str(path), *options])
    assert done.exit_code == 0, done.output
    return path


@pytest.fixture
def dataset_path(recorded, tmp_path) -> Path:
    """A copy of `recorded` to do anything with."""
    return Path(shutil.copy(recorded, tmp_path / "copy.hdf5"))
