"""One episode as HDF5 groups: Minari's layout, privileged terms under infos/privileged."""

from __future__ import annotations

import io
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from types import MappingProxyType
from typing import Any

import h5py
import numpy as np

from demokit.errors import DemokitError
from demokit.types import Array, Episode, Task

PRIVILEGED = "infos/privileged"
_STEP_ARRAYS = ("actions", "rewards", "terminations", "truncations")


@dataclass(frozen=True)
class EpisodeRecord:
    """What is known of an episode without reading its arrays.

    `length` is T in steps, `episode_return` the undiscounted sum of rewards; `options` are the
    reset options, such as the number of the attempt; `digest` is the SHA-256 of the arrays.
    """

    index: int
    length: int
    task: Task
    seed: int
    success: bool
    episode_return: float
    recorder: str
    options: Mapping[str, Any] = field(default_factory=dict)
    digest: str = ""


def episode_name(index: int) -> str:
    """Name of an episode's group, as Minari has it."""
    return f"episode_{index}"


def episode_arrays(episode: Episode) -> Iterator[tuple[str, Array]]:
    """Path within the episode's group -> array.

    Raises:
        DemokitError: a name that cannot be an HDF5 name.
    """
    if isinstance(episode.observations, Mapping):
        for name, values in episode.observations.items():
            yield f"observations/{_checked(name)}", values
    else:
        yield "observations", episode.observations
    for name in _STEP_ARRAYS:
        yield name, getattr(episode, name)
    for name, values in episode.privileged.items():
        yield f"{PRIVILEGED}/{_checked(name)}", values


def _checked(name: str) -> str:
    if not name or "/" in name or "\0" in name or name in (".", ".."):
        raise DemokitError(f"'{name}' cannot name an array: it is empty, '.', or holds '/'.")
    return name


def digest(episode: Episode) -> str:
    """SHA-256 of names, dtypes, shapes and bytes of all arrays."""
    total = sha256()
    for name, values in sorted(episode_arrays(episode), key=lambda item: item[0]):
        total.update(f"{name} {values.dtype.str} {values.shape};".encode())
        total.update(np.ascontiguousarray(values).tobytes())
    return total.hexdigest()


def write_episode(file: h5py.Group, index: int, episode: Episode) -> None:
    """Add `episode` as group `episode_<index>`."""
    group = file.create_group(episode_name(index))
    for name, values in episode_arrays(episode):
        group.create_dataset(name, data=values, **_storage(values))
    group.attrs.update(
        {
            "id": index,
            "total_steps": len(episode),
            "seed": episode.seed,
            "task_id": episode.task.id,
            "context": np.array(episode.task.context),
            "split": episode.task.split,
            "success": bool(episode.success),
            "return": episode.episode_return,
            "recorder": episode.recorder,
            "sha256": digest(episode),
        }
    )
    group.attrs.update(_flat_options(episode.options))


def _storage(values: Array) -> dict[str, Any]:
    """Images are compressed frame by frame, so that one frame can be read alone."""
    if values.dtype == np.uint8 and values.ndim >= 3 and values.size:
        return {"chunks": (1, *values.shape[1:]), "compression": "gzip", "compression_opts": 4}
    return {}


def _flat_options(options: Mapping[str, Any], prefix: str = "options") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in options.items():
        path = f"{prefix}/{_checked(name)}"
        if isinstance(value, Mapping):
            flat.update(_flat_options(value, path))
        elif value is None:
            raise DemokitError(f"Episode option '{name}' is None: leave it out.")
        else:
            flat[path] = value
    return flat


def _nested_options(attributes: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for path, value in attributes.items():
        head, *names = path.split("/")
        if head != "options" or not names:
            continue
        place = nested
        for name in names[:-1]:
            place = place.setdefault(name, {})
        place[names[-1]] = value.item() if isinstance(value, np.generic) else value
    return nested


def episode_bytes(index: int, episode: Episode) -> bytes:
    """A whole HDF5 file, in memory, that holds this episode alone."""
    image = io.BytesIO()
    with h5py.File(image, "w") as file:
        write_episode(file, index, episode)
    return image.getvalue()


def read_record(group: h5py.Group, index: int, family: str) -> EpisodeRecord:
    """The attributes of an episode; reads no array."""
    attributes = dict(group.attrs)
    return EpisodeRecord(
        index=index,
        length=int(attributes["total_steps"]),
        task=Task(
            family,
            str(attributes["task_id"]),
            tuple(np.asarray(attributes["context"], float).tolist()),
            str(attributes["split"]),
        ),
        seed=int(attributes["seed"]),
        success=bool(attributes["success"]),
        episode_return=float(attributes["return"]),
        recorder=str(attributes["recorder"]),
        options=MappingProxyType(_nested_options(attributes)),
        digest=str(attributes.get("sha256", "")),
    )


def read_episode(group: h5py.Group, record: EpisodeRecord) -> Episode:
    """The whole episode, checked; raises DemokitError when it is not sound."""
    return Episode(
        task=record.task,
        observations=_read_tree(group["observations"]),
        **{name: group[name][()] for name in _STEP_ARRAYS},
        privileged=_read_tree(group[PRIVILEGED]),
        seed=record.seed,
        success=record.success,
        recorder=record.recorder,
        options=dict(record.options),
    )


def _read_tree(node: h5py.Group | h5py.Dataset) -> Any:
    if isinstance(node, h5py.Dataset):
        return node[()]
    return {name: child[()] for name, child in node.items()}


def read_window(
    group: h5py.Group, start: int, stop: int, names: Collection[str] | None
) -> dict[str, Array]:
    """Rows start:stop of the named arrays (None: all), reading only those rows."""
    found = dict(_array_paths(group))
    unknown = set(names or ()) - set(found)
    if unknown:
        raise DemokitError(
            f"Episode has no array '{sorted(unknown)[0]}': it has {', '.join(sorted(found))}."
        )
    chosen = found if names is None else names
    return {name: group[found[name]][start:stop] for name in chosen}


def _array_paths(group: h5py.Group) -> Iterator[tuple[str, str]]:
    """Short name, such as privileged/state -> path in the group."""
    for name in ("observations", *_STEP_ARRAYS, PRIVILEGED):
        node = group[name]
        short = name.removeprefix("infos/")
        if isinstance(node, h5py.Dataset):
            yield short, name
        else:
            yield from ((f"{short}/{child}", f"{name}/{child}") for child in node)
