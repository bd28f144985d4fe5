"""Minari datasets: ours are ones already, those of others are read from their HDF5 file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from demokit.data.convert import Imported, Loss
from demokit.data.convert.foreign import Trajectory, import_foreign, plain_name
from demokit.data.files import open_hdf5
from demokit.data.hdf5 import names, open_group, read_arrays, read_attributes
from demokit.data.metadata import default_dataset_id
from demokit.data.minari import describe_namespaces, write_copy
from demokit.data.store import Dataset, FinishedFile
from demokit.errors import DemokitError
from demokit.reading import parse_json, parse_object, read_bytes
from demokit.types import Array

_FILE = "main_data.hdf5"
_METADATA = "metadata.json"


def place(dataset: Dataset, target: Path) -> Path:
    """The dataset's folder under the root folder `target`."""
    return target / _id(dataset)


def is_export(place: Path) -> bool:
    """Whether a Minari dataset is at `place`."""
    return (place / "data" / _FILE).is_file()


def losses(dataset: Dataset) -> tuple[Loss, ...]:  # noqa: ARG001
    """What Minari does not read."""
    why = "kept in attributes of the file, which Minari does not read"
    return (
        Loss("tasks, contexts and splits", why),
        Loss("licence, provenance and checksums", why),
        Loss("privileged terms", "kept in infos/privileged: nothing hides them from a learner"),
    )


def export(dataset: Dataset, target: Path) -> None:
    """Make the folder `target` a Minari dataset with a copy of the file.

    `target` lies one folder below the namespace that it will be in.
    """
    write_copy(dataset.path, target, _id(dataset))
    describe_namespaces(target.parent, _id(dataset))


def read(source: Path, env: str | None) -> Imported:
    """A Minari dataset (its folder, its `data` folder or its file) as a dataset of ours.

    Raises:
        DemokitError: not Minari's layout, or spaces that demokit cannot hold.
    """
    file = _file(source)
    with open_hdf5(file) as opened:
        own = "demokit_schema_version" in opened.attrs
        episodes = sorted((n for n in names(opened) if n[8:].isdecimal()), key=lambda n: int(n[8:]))
    if own:
        found = FinishedFile(file)
        return Imported(found.metadata, Dataset(found).verified(), (), own=True)
    about = _metadata(file.with_name(_METADATA))
    name = str(about.get("dataset_id") or file.parent.parent.name)
    family = env or plain_name(_env_id(about) or name)
    task = f"minari/{plain_name(name)}"

    def trajectories() -> Iterator[Trajectory]:
        for episode in episodes:
            with open_hdf5(file) as opened:
                yield _trajectory(open_group(opened, episode), task)

    return import_foreign(
        trajectories, origin="minari", family=family, losses=_left_out(file, episodes)
    )


def _id(dataset: Dataset) -> str:
    return default_dataset_id(dataset.metadata.family, dataset.path.stem)


def _file(source: Path) -> Path:
    for file in (source, source / _FILE, source / "data" / _FILE):
        if file.is_file():
            return file
    raise DemokitError(f"{source} is no Minari dataset: it holds no data/{_FILE}.")


def _metadata(path: Path) -> dict[str, Any]:
    try:
        return parse_object(read_bytes(path))
    except (OSError, ValueError) as error:
        raise DemokitError(f"{path} cannot be read ({error}): Minari needs it too.") from error


def _env_id(about: Mapping[str, Any]) -> str | None:
    try:
        return str(parse_json(about["env_spec"])["id"])
    except (KeyError, TypeError, ValueError):
        return None


def _trajectory(episode: h5py.Group, task: str) -> Trajectory:
    arrays = read_arrays(episode)
    if not {"actions", "rewards", "terminations"} <= set(arrays):
        raise DemokitError(
            "The Minari dataset has spaces that demokit cannot hold: actions must be one vector."
        )
    seed = read_attributes(episode).get("seed")
    return Trajectory(
        task=task,
        observations=_observations(arrays),
        actions=arrays["actions"],
        rewards=arrays["rewards"],
        terminated=bool(arrays["terminations"][-1:].any()),
        success=_success(arrays),
        seed=int(seed) if isinstance(seed, int | np.integer) and seed >= 0 else None,
    )


def _observations(arrays: Mapping[str, Array]) -> Array | Mapping[str, Array]:
    """The observation, or its parts with `.` between the names of nested ones."""
    if "observations" in arrays:
        return arrays["observations"]
    start = "observations/"
    return {
        name.removeprefix(start).replace("/", "."): rows
        for name, rows in arrays.items()
        if name.startswith(start)
    }


def _success(arrays: Mapping[str, Array]) -> bool | None:
    rows = arrays.get("infos/success", arrays.get("infos/is_success"))
    return None if rows is None or not len(rows) else bool(rows[-1])


def _left_out(file: Path, episodes: list[str]) -> tuple[Loss, ...]:
    if not episodes:
        return ()
    with open_hdf5(file) as opened:
        infos = [n.removeprefix("infos/") for n in read_arrays(open_group(opened, episodes[0]))
                 if n.startswith("infos/")]  # fmt: skip
    return (Loss("infos", f"left out: {', '.join(infos)}"),) if infos else ()
