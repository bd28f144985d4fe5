"""robomimic's HDF5: `data/demo_<i>` with T rows of everything, `mask/<split>`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from demokit.data.convert import Imported, Loss
from demokit.data.convert.foreign import Trajectory, import_foreign, plain_name
from demokit.data.convert.own import (
    KEY,
    Arrays,
    episode_from_json,
    metadata_from_json,
    metadata_json,
    named_observations,
    record_json,
)
from demokit.data.files import open_hdf5, written_hdf5
from demokit.data.hdf5 import StoredArray, names, open_group, read_arrays, read_attributes, walk
from demokit.data.layout import EpisodeRecord
from demokit.data.metadata import DatasetMetadata
from demokit.data.minari import gym_spec
from demokit.data.store import Dataset
from demokit.errors import DemokitError
from demokit.reading import parse_json
from demokit.types import Array, Episode

_MASKS = {"train": "train", "validation": "valid", "ood": "ood", "monitor": "monitor"}
_SPLITS = {mask: split for split, mask in _MASKS.items()}
_GYM_TYPE = 2  # robomimic's number for Gym environments


def place(dataset: Dataset, target: Path) -> Path:  # noqa: ARG001
    """The file itself."""
    return target


def is_export(place: Path) -> bool:
    """Whether a robomimic file is at `place`."""
    try:
        with open_hdf5(place) as file:
            own = "demokit_schema_version" in file.attrs
            return not own and bool(open_group(file, "data"))
    except DemokitError:
        return False


def losses(dataset: Dataset) -> tuple[Loss, ...]:
    """What robomimic does not read."""
    found = [
        Loss(
            "tasks and contexts",
            "robomimic has one task per file: masks hold the splits, and demokit's records "
            "stay in attributes that robomimic does not read",
        ),
        Loss(
            "privileged terms",
            "kept in demo_<i>/privileged, which robomimic does not read; it sees the states "
            "before each action",
        ),
        Loss("simulator model", "only robosuite's XML has a place: states cannot be played back"),
    ]
    if not dataset.metadata.provenance.restorable:
        found.append(Loss("states", "the dataset holds none"))
    return tuple(found)


def export(dataset: Dataset, target: Path) -> None:
    """Write `dataset` as a robomimic file.

    Actions are within robomimic's bounds [-1, 1]: no dataset holds others.
    """
    metadata = dataset.metadata
    with written_hdf5(target, libver=None) as (file, _):
        data = file.create_group("data")
        for record, episode in zip(dataset.episodes, dataset.verified(), strict=True):
            _write_demo(data.create_group(f"demo_{record.index}"), record, episode)
        data.attrs["total"] = dataset.total_steps
        data.attrs["env_args"] = json.dumps(_env_args(metadata))
        data.attrs[KEY] = metadata_json(metadata)
        for split in {record.task.split for record in dataset.episodes}:
            names = [f"demo_{r.index}" for r in dataset.episodes if r.task.split == split]
            file[f"mask/{_MASKS[split]}"] = np.array(names, dtype="S")


def _env_args(metadata: DatasetMetadata) -> dict[str, Any]:
    return {
        "env_name": _gym_id(metadata.family),
        "type": _GYM_TYPE,
        "env_version": metadata.provenance.versions.get("demokit", "unknown"),
        "env_kwargs": {"reward": metadata.reward},
    }


def _gym_id(family: str) -> str:
    """What `gymnasium.make` takes; the family's name where demokit does not have it."""
    spec = gym_spec(family)
    return f"demokit.envs.gym:{spec.id}" if spec else family


def _write_demo(demo: h5py.Group, record: EpisodeRecord, episode: Episode) -> None:
    demo.attrs["num_samples"] = len(episode)
    demo.attrs[KEY] = record_json(record)
    demo["actions"] = np.clip(episode.actions, -1, 1)
    demo["rewards"] = episode.rewards
    demo["dones"] = (episode.terminations | episode.truncations).astype(np.int64)
    demo["terminations"], demo["truncations"] = episode.terminations, episode.truncations
    if "state" in episode.privileged:
        demo["states"] = episode.privileged["state"][:-1]
    for name, rows in named_observations(episode).items():
        demo[f"obs/{name}"], demo[f"next_obs/{name}"] = rows[:-1], rows[1:]
    for name, rows in episode.privileged.items():
        demo[f"privileged/{name}"] = rows


def read(source: Path, env: str | None) -> Imported:
    """A robomimic file as a dataset; one that demokit exported comes back whole.

    Raises:
        DemokitError: not robomimic's layout, or damaged.
    """
    with open_hdf5(source) as file:
        if "data" not in names(file):
            raise DemokitError(f"{source} is no robomimic file: it has no group 'data'.")
        data = open_group(file, "data")
        demos = sorted((n for n in names(data) if n[5:].isdecimal()), key=lambda n: int(n[5:]))
        about, masks = read_attributes(data), _masks(file)
    if KEY in about:
        metadata = metadata_from_json(str(about[KEY]), str(source))
        return Imported(metadata, _Own(source, demos, metadata), (), own=True)
    family = env or plain_name(_env_name(str(about.get("env_args", "")), source))
    splits = {n: _SPLITS[k] for k in _SPLITS for n in masks.get(k, ())}

    def trajectories() -> Iterator[Trajectory]:
        for name in demos:
            yield _trajectory(_read_demo(source, name)[1], splits.get(name, "train"))

    return import_foreign(
        trajectories, origin="robomimic", family=family, losses=_left_out(source, demos)
    )


def _masks(file: h5py.File) -> dict[str, set[str]]:
    """Name of a mask -> the demos in it."""
    if "mask" not in names(file):
        return {}
    found = walk(open_group(file, "mask"))
    return {k: set(rows.read_texts()) for k, rows in found if isinstance(rows, StoredArray)}


class _Own:
    """Episodes that demokit exported."""

    def __init__(self, source: Path, names: list[str], metadata: DatasetMetadata) -> None:
        self._source, self._names, self._metadata = source, names, metadata

    def __iter__(self) -> Iterator[Episode]:
        for name in self._names:
            record, demo = _read_demo(self._source, name)
            now, after = _under(demo, "obs"), _under(demo, "next_obs")
            arrays = Arrays(
                {k: np.concatenate([now[k], after[k][-1:]]) for k in now},
                demo["actions"],
                demo["rewards"],
                demo["terminations"],
                demo["truncations"],
                _under(demo, "privileged"),
            )
            where = f"{self._source} ({name})"
            yield episode_from_json(record, arrays, self._metadata, where)


def _read_demo(source: Path, name: str) -> tuple[str, dict[str, Array]]:
    """Our record of a demo ("" in files of others), and its arrays by path."""
    with open_hdf5(source) as file:
        demo = open_group(file, f"data/{name}")
        return str(read_attributes(demo).get(KEY, "")), read_arrays(demo)


def _under(arrays: dict[str, Array], group: str) -> dict[str, Array]:
    start = f"{group}/"
    return {name.removeprefix(start): rows for name, rows in arrays.items() if
            name.startswith(start)}  # fmt: skip


def _env_name(text: str, source: Path) -> str:
    try:
        return str(parse_json(text)["env_name"])
    except (ValueError, KeyError, TypeError) as error:
        raise DemokitError(
            f"{source} does not say its environment (data.attrs['env_args']): name it with --env."
        ) from error


def _trajectory(demo: dict[str, Array], split: str) -> Trajectory:
    """A demo of others; `next_obs`, where it is stored, has the last observation."""
    now, after = _under(demo, "obs"), _under(demo, "next_obs")
    if set(now) <= set(after):
        now = {name: np.concatenate([rows, after[name][-1:]]) for name, rows in now.items()}
    rewards = demo.get("rewards")
    return Trajectory(
        task=f"robomimic/{split}/00",
        observations=now,
        actions=demo["actions"],
        rewards=rewards,
        terminated=bool(demo["dones"][-1]) if "dones" in demo else False,
        # robomimic's environments pay a reward for success and nothing else.
        success=None if rewards is None else bool(rewards[-1] > 0),
        split=split,
    )


def _left_out(source: Path, demos: list[str]) -> tuple[Loss, ...]:
    found = [Loss("success", "read from the reward of the last step: above 0 is a success")]
    if demos and "states" in _read_demo(source, demos[0])[1]:
        found.append(
            Loss("states", "left out: they are of a simulation that demokit cannot restore")
        )
    return tuple(found)
