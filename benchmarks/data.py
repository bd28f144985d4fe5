"""Reading a dataset against plain h5py, Minari and robomimic, and what recording costs, in one run.

    python benchmarks/data.py

Plain h5py reads the same arrays of the same file and checks nothing; ours also reads the record
and checks shapes, sizes and values. Minari reads the same file, registered under a root of its
own; a window is 50 steps of observations, actions and rewards, for which Minari decodes whole
episodes with all that they hold, privileged state too. Where robomimic is installed, its
SequenceDataset reads the same windows of an export, without its cache.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import h5py
import minari
import numpy as np
from click.testing import CliRunner

from demokit.cli import main as demokit
from demokit.data import (
    ArraySpec,
    Dataset,
    DatasetMetadata,
    DatasetWriter,
    Provenance,
    open_dataset,
)
from demokit.data.convert import export_dataset
from demokit.data.minari import register
from demokit.random import stream
from demokit.types import Episode, Task

REPEATS, WINDOW, WINDOWS = 7, 50, 300
NAMES = ("observations", "actions", "rewards")
STEP_ARRAYS = ("observations", "actions", "rewards", "terminations", "truncations")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MINARI_DATASETS_PATH"] = str(Path(folder) / "root")
        push = Path(folder) / "push.hdf5"
        options = ["--env", "push", "--episodes-per-task", "5", "--license", "MIT"]
        done = CliRunner().invoke(demokit, ["record", *options, "--out", str(push)])
        assert done.exit_code == 0, done.output
        long = write_long(Path(folder) / "long.hdf5")
        reading(push)
        for path in (push, long):
            windows(path)
            if find_spec("robomimic"):
                robomimic_windows(path, Path(folder) / f"{path.stem}_robomimic.hdf5")
        recording(push, Path(folder) / "again.hdf5")


def reading(path: Path) -> None:
    with open_dataset(path) as dataset:
        count = len(dataset)
        megabytes = sum(a.nbytes for a in every_array(path)) / 1e6
    ours, plain = race(lambda: read_ours(path), lambda: sum(1 for _ in every_array(path)))
    print(f"{path.stem}: {count} episodes, {megabytes:.1f} MB of arrays, file in memory")
    for name, seconds in (("whole episodes, checked", ours), ("plain h5py", plain)):
        print(f"  {name:<28}{count / seconds:9,.0f} episodes/s {megabytes / seconds:9,.0f} MB/s")
    print(f"  ratio                       {plain / ours:9.2f}   (target >= 0.8)")


def read_ours(path: Path) -> None:
    with open_dataset(path) as dataset:
        for _ in dataset:
            pass


def every_array(path: Path):
    with h5py.File(path) as file:
        for index in range(int(file.attrs["total_episodes"])):
            group = file[f"episode_{index}"]
            for name in STEP_ARRAYS:
                yield group[name][()]
            for name in group["infos/privileged"]:
                yield group[f"infos/privileged/{name}"][()]


def windows(path: Path) -> None:
    dataset_id = f"demokit/bench/{path.stem}-v0"
    register(path, dataset_id)
    theirs = minari.load_dataset(dataset_id)
    with open_dataset(path) as dataset:
        lengths, places = draw_windows(dataset)

        def ours() -> None:
            for index, start in places:
                dataset.window(index, start, start + WINDOW, NAMES)

        def other() -> None:
            for index, start in places:
                episode = theirs[index]
                _ = [getattr(episode, name)[start : start + WINDOW] for name in NAMES]

        mine_s, other_s = race(ours, other)
    print(f"{path.stem}: windows of {WINDOW} steps from episodes of {lengths[0]}")
    print(f"  ours                        {WINDOWS / mine_s:9,.0f} windows/s")
    print(f"  Minari                      {WINDOWS / other_s:9,.0f} windows/s")
    print(f"  ratio                       {other_s / mine_s:9.1f}   (target >= 3)")


def robomimic_windows(path: Path, export: Path) -> None:
    from robomimic.utils import obs_utils
    from robomimic.utils.dataset import SequenceDataset

    export_dataset(open_dataset(path), "robomimic", export)
    obs_utils.initialize_obs_utils_with_obs_specs({"obs": {"low_dim": ["state"]}})
    theirs = SequenceDataset(
        str(export), ["state"], ["actions", "rewards"], seq_length=WINDOW, hdf5_cache_mode=None
    )
    with open_dataset(path) as dataset:
        lengths, places = draw_windows(dataset)
        first = np.cumsum([0, *lengths])

        def ours() -> None:
            for index, start in places:
                dataset.window(index, start, start + WINDOW, NAMES)

        def other() -> None:
            for index, start in places:
                _ = theirs[int(first[index]) + start]

        mine_s, other_s = race(ours, other)
    print(f"  robomimic SequenceDataset   {WINDOWS / other_s:9,.0f} windows/s")
    print(f"  ratio                       {other_s / mine_s:9.1f}")


def draw_windows(dataset: Dataset) -> tuple[list[int], list[tuple[int, int]]]:
    """The episodes' lengths, and WINDOWS random (episode, first step)."""
    rng = stream(0, "windows")
    lengths = [record.length for record in dataset.episodes]
    drawn = [int(index) for index in rng.integers(len(lengths), size=WINDOWS)]
    return lengths, [(i, int(rng.integers(lengths[i] - WINDOW + 1))) for i in drawn]


def recording(source: Path, target: Path) -> None:
    episodes = list(open_dataset(source))
    steps = sum(map(len, episodes))
    with DatasetWriter(target, open_dataset(source).metadata) as writer:
        begun = time.perf_counter()
        for episode in episodes:
            writer.add(episode)
        added = time.perf_counter() - begun
        writer.finish()
        finished = time.perf_counter() - begun - added
    print("recording, per step")
    print(f"  made durable                {added / steps * 1e6:9.1f} us")
    print(f"  assembled, and read back    {finished / steps * 1e6:9.1f} us")


def race(first: Callable[[], object], second: Callable[[], object]) -> tuple[float, float]:
    """Median seconds of each, run in turns."""
    times: tuple[list[float], list[float]] = [], []
    for _ in range(REPEATS):
        for kept, action in zip(times, (first, second), strict=True):
            begun = time.perf_counter()
            action()
            kept.append(time.perf_counter() - begun)
    return statistics.median(times[0]), statistics.median(times[1])


def write_long(path: Path, episodes: int = 20, steps: int = 1000) -> Path:
    """Episodes that are longer than a window."""
    task = Task("push", "push/bench", (0.0, 0.75), "train")
    about = DatasetMetadata(
        family="push",
        reward="dense",
        horizon=steps,
        task_set="bench",
        tasks=(task,),
        observation_space=ArraySpec((6,), "float32", -np.inf, np.inf),
        action_space=ArraySpec((3,), "float32", -1.0, 1.0),
        model_hash="",
        mujoco_version="",
        provenance=Provenance("bench", "bench", 0.0, 0),
    )
    rng = stream(0, "episodes")
    with DatasetWriter(path, about) as writer:
        for index in range(episodes):
            writer.add(
                Episode(
                    task=task,
                    observations=rng.normal(size=(steps + 1, 6)).astype(np.float32),
                    actions=rng.uniform(-1, 1, (steps, 3)).astype(np.float32),
                    rewards=rng.normal(size=steps),
                    terminations=np.zeros(steps, bool),
                    truncations=np.arange(steps) == steps - 1,
                    privileged={"state": rng.normal(size=(steps + 1, 174))},
                    seed=index,
                    success=False,
                    recorder="bench",
                )
            )
        return writer.finish()


if __name__ == "__main__":
    sys.exit(main())
