"""The peers' own tools on demokit's exports, each in an environment of its own (`make peers`).

LeRobot 0.6 needs Python 3.12 and conflicts with demokit's versions; robomimic pins others too.
What LeRobot's tools write comes back, with everything that they dropped said.
"""

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from demokit.data import ArraySpec, DatasetWriter, open_dataset
from demokit.data.convert import export_dataset, import_dataset
from demokit.data.validation import validate
from demokit.types import Episode

pytestmark = pytest.mark.slow
HERE = Path(__file__).parent
PEERS = Path(os.environ.get("DEMOKIT_PEERS", HERE.parents[2] / ".peers"))


def run_tool(peer, *arguments):
    """What a program of a peer's environment prints, as JSON."""
    python = PEERS / peer / "bin/python"
    if not python.exists():
        pytest.skip(f"no environment of {peer} at {python}: see `make peers`")
    quiet = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    command = [str(python), str(HERE / f"{peer}_tools.py"), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **quiet})
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def recorded(tmp_path, metadata, make_episode):
    """Two datasets with a picture, a vector, and episodes that end in either way."""
    spaces = {"cam": ArraySpec((32, 40, 3), "uint8", 0, 255), "x": metadata.observation_space}
    about = replace(metadata, observation_space=spaces)
    paths = []
    for name in ("one", "two"):
        with DatasetWriter(tmp_path / f"{name}.hdf5", about) as writer:
            for index in range(3):
                writer.add(_episode(make_episode, index + 10 * (name == "two")))
            paths.append(writer.finish())
    return [open_dataset(path) for path in paths]


def _episode(make_episode, index) -> Episode:
    steps = 5 + index % 10
    rng = np.random.default_rng(index)
    observations = {
        "cam": rng.integers(0, 256, (steps + 1, 32, 40, 3)).astype(np.uint8),
        "x": rng.normal(size=(steps + 1, 4)).astype(np.float32),
    }
    episode = make_episode(index, steps=steps, observations=observations)
    context = np.tile(episode.task.context, (steps + 1, 1))
    solved = episode.privileged["success"]
    solved[-1] = episode.success
    ended = episode.truncations if index % 2 else ~episode.truncations & False
    return replace(
        episode,
        terminations=episode.truncations & ~ended,
        truncations=ended,
        privileged={**episode.privileged, "context": context, "success": solved},
    )


def back(source, tmp_path):
    """What is said of an import of a LeRobot folder, and the dataset."""
    target = tmp_path / f"{source.name}.hdf5"
    said = dict(import_dataset(source, "lerobot", target))
    assert validate(target).ok
    return said, open_dataset(target)


def assert_same(found, wanted, *, rows):
    """The arrays of two episodes are the same, in the first `rows` rows of the longer ones."""
    for name in ("actions", "rewards", "terminations", "truncations"):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))
    for kind in ("observations", "privileged"):
        assert getattr(found, kind).keys() == getattr(wanted, kind).keys()
        for name, values in getattr(wanted, kind).items():
            np.testing.assert_array_equal(getattr(found, kind)[name][:rows], values[:rows])
    assert (found.task, found.success) == (wanted.task, wanted.success)


def test_lerobot_reads_edits_merges_and_goes_on_with_exports(recorded, tmp_path):
    first, second = recorded
    for name, dataset in zip(("one", "two"), recorded, strict=True):
        export_dataset(dataset, "lerobot", tmp_path / "exports" / name)
    out = tmp_path / "out"
    said = run_tool("lerobot", *(tmp_path / "exports" / name for name in ("one", "two")), out)
    episodes = list(first)
    assert said["frames"] == first.total_steps
    actions = np.concatenate([episode.actions for episode in episodes])
    np.testing.assert_array_equal(np.array(said["action"], np.float32), actions)
    pictures = np.concatenate([episode.observations["cam"][:-1] for episode in episodes])
    np.testing.assert_allclose(said["picture"], pictures.sum((1, 2, 3)) / 255, rtol=1e-5)
    assert said["tasks"] == [e.task.id for e in episodes for _ in range(len(e))]
    assert said["episodes"] == {"merged": 6, "deleted": 2, "modified": 3, "resumed": 4}
    for name in said["episodes"]:
        assert "observation.images.cam" in said["stats"][name]

    losses, merged = back(out / "merged", tmp_path)
    assert set(losses) == {"state", "model", "meta/info.json fps"}
    for found, wanted in zip(merged, [*first, *second], strict=True):
        assert_same(found, wanted, rows=len(wanted) + 1)
    losses, deleted = back(out / "deleted", tmp_path)
    assert set(losses) == {"state", "model", "last observation", "seed", "meta/info.json fps"}
    for found, wanted in zip(deleted, episodes[1:], strict=True):
        assert_same(found, wanted, rows=len(wanted))
    losses, modified = back(out / "modified", tmp_path)
    assert set(losses) == {"state", "model", "is_intervention", "meta/info.json fps"}
    for found, wanted in zip(modified, episodes, strict=True):
        assert_same(found, wanted, rows=len(wanted) + 1)
    losses, resumed = back(out / "resumed", tmp_path)
    assert "(in 1 of 4)" in losses["last observation"]
    np.testing.assert_array_equal(resumed[3].actions, episodes[0].actions[:3])


def test_robomimic_reads_splits_and_plays_exports(recorded, tmp_path):
    dataset = recorded[0]
    export = tmp_path / "export.hdf5"
    export_dataset(dataset, "robomimic", export)
    said = run_tool("robomimic", export, tmp_path)
    assert said["steps"] == dataset.total_steps
    for key, rows in (
        ("action", [episode.actions for episode in dataset]),
        ("x", [episode.observations["x"][:-1] for episode in dataset]),
    ):
        np.testing.assert_array_equal(np.array(said[key], np.float32), np.concatenate(rows))
    assert sum(said["parts"].values()) == dataset.total_steps
    assert (tmp_path / "playback.mp4").stat().st_size
    # The masks that robomimic wrote say otherwise than the tasks' splits.
    losses = import_dataset(export, "robomimic", tmp_path / "back.hdf5")
    assert {loss.what for loss in losses} == {"mask valid"}
    assert open_dataset(tmp_path / "back.hdf5").episodes == dataset.episodes
