"""One episode as HDF5 groups: Minari's layout, privileged terms under infos/privileged."""

from __future__ import annotations

import io
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from types import MappingProxyType
from typing import Any

import h5py
import numpy as np
from h5py import h5a, h5d, h5o, h5p, h5s, h5t

from demokit.data.files import CHECKED_FORMAT
from demokit.data.hdf5 import (
    MOST_ATTRIBUTE_BYTES,
    MOST_ATTRIBUTES,
    MOST_DEPTH,
    MOST_NODES,
    StoredArray,
    check_claims,
    open_array,
    open_group,
    read_all,
    read_attributes,
    walk,
)
from demokit.errors import DemokitError
from demokit.reading import FREE_BYTES
from demokit.text import is_storable
from demokit.types import Array, Episode, Task

PRIVILEGED = "infos/privileged"
_COMPRESSED_FROM_BYTES = 2**15
_LONGEST_NAME = 1000
_CHUNK_BYTES = 2**17
# What is known of an episode besides its arrays and options.
RECORD_ATTRIBUTES = (
    *("id", "total_steps", "seed", "task_id", "context", "split", "success", "return"),
    *("recorder", "sha256", "record_sha256"),
)
_STEP_ARRAYS = ("actions", "rewards", "terminations", "truncations")
_TREES = ("observations", PRIVILEGED)  # an array, or a group of them


@dataclass(frozen=True)
class EpisodeRecord:
    """What is known of an episode without reading its arrays.

    `length` is T in steps, `episode_return` the undiscounted sum of rewards; `options` are the
    reset options, such as the number of the attempt; `digest` is the SHA-256 of the arrays and
    `record_digest` that of everything else here, both "" where none was stored.
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
    record_digest: str = ""

    def compute_digest(self) -> str:
        """SHA-256 of all fields but the digests."""
        fields = {
            "id": self.index,
            "total_steps": self.length,
            "task": [self.task.id, self.task.context, self.task.split],
            "seed": self.seed,
            "success": self.success,
            "return": self.episode_return,
            "recorder": self.recorder,
            "options": _plain(self.options),
        }
        return sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def _plain(value: Any) -> Any:
    """Options as they are once they were stored: a list has numbers of one kind."""
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    return np.asarray(value).tolist()


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
    if not is_storable(name) or not name or "/" in name or name in (".", ".."):
        raise DemokitError(
            f"{name!r} cannot name an array or option: it is no text, empty, '.', or holds '/'."
        )
    if len(name) > _LONGEST_NAME:
        raise DemokitError(f"A name of {len(name)} letters is too long for an array or option.")
    return name


def digest(episode: Episode) -> str:
    """SHA-256 of names, dtypes, shapes and bytes of all arrays."""
    total = sha256()
    for name, values in sorted(episode_arrays(episode), key=lambda item: item[0]):
        total.update(f"{name} {values.dtype.str} {values.shape};".encode())
        total.update(np.ascontiguousarray(values).tobytes())
    return total.hexdigest()


def episodes_digest(records: Iterable[EpisodeRecord]) -> str:
    """SHA-256 of the checksums of episodes, in their order; "" when one has none."""
    digests = [record.digest for record in records]
    return sha256("".join(digests).encode()).hexdigest() if all(digests) else ""


def write_episode(file: h5py.Group, index: int, episode: Episode) -> None:
    """Add `episode` as group `episode_<index>`; raises DemokitError for what no reader takes."""
    arrays, options = dict(episode_arrays(episode)), _flat_options(episode.options)
    if len(arrays) > MOST_NODES // 2:
        raise DemokitError(f"Episode has {len(arrays)} arrays, more than any reader takes.")
    attributes = {
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
        "record_sha256": record_of(index, episode).compute_digest(),
        **options,
    }
    check_size(attributes, "Episode")
    group = file.require_group(episode_name(index))
    for name, values in arrays.items():
        _put_array(group, name, values)
    put_attributes(group, attributes)
    file.file.flush()
    if sum(values.nbytes for values in arrays.values()) > FREE_BYTES:
        check_claims(_stored_arrays(group).values())


def _put_array(group: h5py.Group, name: str, values: Array) -> None:
    storage = _storage(name, values)
    if storage:
        group.create_dataset(name, data=values, **storage)
        return
    # Several times faster than going through the group.
    kind = h5t.py_create(values.dtype, logical=True)
    links = h5p.create(h5p.LINK_CREATE)
    links.set_create_intermediate_group(True)
    links.set_char_encoding(h5t.CSET_UTF8)
    values = np.ascontiguousarray(values)
    stored = h5d.create(group.id, name.encode(), kind, _space(values), lcpl=links)
    if values.size:
        stored.write(h5s.ALL, h5s.ALL, values)


def record_of(index: int, episode: Episode) -> EpisodeRecord:
    """The record of an episode that is in memory."""
    return EpisodeRecord(
        index=index,
        length=len(episode),
        task=episode.task,
        seed=int(episode.seed),
        success=bool(episode.success),
        episode_return=episode.episode_return,
        recorder=episode.recorder,
        options=dict(episode.options),
    )


def _storage(name: str, values: Array) -> dict[str, Any]:
    """How an array is stored: plain, unless it is an image or a large privileged term.

    Images are compressed frame by frame, so that one frame can be read alone. The simulator's
    state is most of a dataset and mostly constant; training does not read it.
    """
    if values.dtype == np.uint8 and values.ndim >= 3 and values.size:
        return {"chunks": (1, *values.shape[1:]), "compression": "gzip", "compression_opts": 4}
    if name.startswith(PRIVILEGED) and values.nbytes >= _COMPRESSED_FROM_BYTES:
        rows = max(1, _CHUNK_BYTES * len(values) // values.nbytes)
        chunks = (min(rows, len(values)), *values.shape[1:])
        return {"chunks": chunks, "shuffle": True, "compression": "gzip", "compression_opts": 1}
    return {}


def _flat_options(options: Mapping[str, Any], prefix: str = "options") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    if len(prefix) > _LONGEST_NAME or prefix.count("/") > MOST_DEPTH:
        raise DemokitError("Episode options hold too many levels, or names that are too long.")
    for name, value in options.items():
        path = f"{prefix}/{_checked(name)}"
        if isinstance(value, Mapping) and value:
            flat.update(_flat_options(value, path))
        elif _comes_back(value):
            flat[path] = value
        else:
            raise DemokitError(
                f"Episode option '{name}' is {value!r:.40}: give numbers, text without NUL, or a "
                "list of either, or leave it out."
            )
    return flat


def _comes_back(value: Any) -> bool:
    """Whether an attribute gives the value back: numbers, text or a list of either."""
    texts = value if isinstance(value, list | tuple) and value else [value]
    if all(isinstance(text, str) for text in texts):
        return all(map(is_storable, texts))
    try:
        stored, given = np.asarray(value), np.asarray(value, object)
    except ValueError:
        return False
    pairs = zip(stored.ravel().tolist(), given.ravel().tolist(), strict=True)
    # Whole numbers beside others become floating ones; NaN is not equal to itself.
    return stored.dtype.kind in "fiub" and all(a == b or (a != a and b != b) for a, b in pairs)


def nested_options(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The reset options among the attributes of an episode."""
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
    with h5py.File(image, "w", libver=CHECKED_FORMAT) as file:
        write_episode(file, index, episode)
    return image.getvalue()


def reserve_groups(file: h5py.Group, indices: range) -> None:
    """Make the groups of episodes that will be written.

    The table of groups then stands at the front of the file, where it survives a truncation.
    """
    for index in indices:
        file.create_group(episode_name(index))
    # HDF5 chooses places when it writes.
    file.file.flush()


def copy_episode(found: h5py.Group, target: h5py.Group, index: int) -> None:
    """Copy the group of an episode into the one reserved for it, byte for byte."""
    place = target[episode_name(index)]
    for name in found.id:  # faster than going through the group
        h5o.copy(found.id, name, place.id, name)
    put_attributes(place, read_attributes(found))
    # So that its structures stand with its data, where a truncation later on spares them.
    target.file.flush()


def episode_group(file: h5py.Group, index: int) -> h5py.Group:
    """The group of an episode; raises DemokitError or KeyError when there is none."""
    return open_group(file, episode_name(index))


def check_size(attributes: Mapping[str, Any], what: str) -> None:
    """Raise DemokitError when readers, which bound what they take, would refuse attributes."""
    size = sum(
        len(value.encode()) if isinstance(value, str) else np.asarray(value).nbytes
        for value in attributes.values()
    )
    if len(attributes) > MOST_ATTRIBUTES or size > MOST_ATTRIBUTE_BYTES:
        raise DemokitError(
            f"{what}: {len(attributes)} texts and numbers of {size >> 20} MiB are more than the "
            f"{MOST_ATTRIBUTES} of {MOST_ATTRIBUTE_BYTES >> 20} MiB that are read: leave some out."
        )


def put_attributes(node: h5py.Group, attributes: Mapping[str, Any]) -> None:
    """Write attributes, in place where one of the same kind and length is there already.

    A text gets a length of its own: HDF5 keeps texts of variable length in the one structure
    without a checksum, and hangs when it is damaged.
    """
    for name, value in attributes.items():
        if isinstance(value, str):
            encoded = value.encode()
            value = np.array(encoded, h5py.string_dtype("utf-8", max(len(encoded), 1)))
        stored, place = np.asarray(value), name.encode()
        if stored.dtype.kind == "U":  # a list of texts
            node.attrs[name] = value
        elif not h5a.exists(node.id, place):
            # Several times faster than going through `node.attrs`.
            kind, space = h5t.py_create(stored.dtype, logical=True), _space(stored)
            h5a.create(node.id, place, kind, space).write(stored)
        elif _fits(h5a.open(node.id, place), stored):
            h5a.open(node.id, place).write(stored)
        else:
            node.attrs[name] = stored


def _space(values: Array) -> h5s.SpaceID:
    return h5s.create_simple(values.shape) if values.shape else h5s.create(h5s.SCALAR)


def _fits(there: h5a.AttrID, values: Array) -> bool:
    return bool(there.dtype == values.dtype and there.shape == values.shape)


def _check_scalars(attributes: Mapping[str, Any]) -> None:
    """Raise ValueError unless the numbers of a record are single ones of their kind."""
    for name, kinds in (("total_steps", "iu"), ("seed", "iu"), ("success", "biu"), ("return", "f")):
        value = np.asarray(attributes[name])
        if value.ndim or value.dtype.kind not in kinds:
            raise ValueError(f"'{name}' is {value.dtype} {value.shape}")
    if attributes["success"] not in (0, 1):
        raise ValueError("'success' is neither true nor false")


def read_record(group: h5py.Group, index: int, family: str) -> EpisodeRecord:
    """The attributes of an episode; reads no array."""
    attributes = read_attributes(group)
    _check_scalars(attributes)
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
        options=MappingProxyType(nested_options(attributes)),
        digest=str(attributes.get("sha256", "")),
        record_digest=str(attributes.get("record_sha256", "")),
    )


def read_episode(group: h5py.Group, record: EpisodeRecord) -> Episode:
    """The whole episode, checked; raises DemokitError when it is not sound."""
    stored = _stored_arrays(group)
    for path, found in stored.items():
        rows = record.length + (path not in _STEP_ARRAYS)
        if found.shape[:1] != (rows,):
            raise DemokitError(f"Episode {path} has shape {found.shape}, not {rows} rows.")
    arrays = read_all(stored)
    return Episode(
        task=record.task,
        observations=_tree(arrays, "observations"),
        **{name: arrays[name] for name in _STEP_ARRAYS},
        privileged=_tree(arrays, PRIVILEGED),
        seed=record.seed,
        success=record.success,
        recorder=record.recorder,
        options=dict(record.options),
    )


def _stored_arrays(group: h5py.Group) -> dict[str, StoredArray]:
    """The arrays of an episode by their paths; raises DemokitError as `walk`."""
    found: dict[str, StoredArray] = {}
    for path, node in walk(group):
        parent = path.rpartition("/")[0]
        if parent in _TREES or path in _STEP_ARRAYS or path in _TREES:
            if isinstance(node, StoredArray):
                found[path] = node
            elif path not in _TREES:
                raise DemokitError(f"Episode {path} is a group, where an array should be.")
    return found


def _tree(arrays: Mapping[str, Array], path: str) -> Any:
    """The array at `path`, or those below it by name."""
    start = f"{path}/"
    below = {n.removeprefix(start): rows for n, rows in arrays.items() if n.startswith(start)}
    return arrays.get(path, below)


def read_window(
    group: h5py.Group, start: int, stop: int, names: Collection[str] | None
) -> dict[str, Array]:
    """Rows start:stop of the named arrays (None: all), reading only those rows."""
    if names is None:
        found = _stored_arrays(group).items()
        stored = {path.removeprefix("infos/"): node for path, node in found}
    else:
        stored = {name: _open_named(group, name) for name in names}
    return {name: array.read_rows(start, stop) for name, array in stored.items()}


def holds_array(group: h5py.Group, name: str) -> bool:
    """Whether an episode has the array of a short name, such as privileged/state."""
    links, parts = group.id.links, _path_of(name).encode().split(b"/")
    return all(links.exists(b"/".join(parts[:depth])) for depth in range(1, len(parts) + 1))


def _path_of(name: str) -> str:
    """The path in the group of an array's short name."""
    return f"infos/{name}" if name.startswith("privileged/") else name


def _open_named(group: h5py.Group, name: str) -> StoredArray:
    """The array of a short name, such as privileged/state."""
    try:
        return open_array(group, _path_of(name))
    except (KeyError, TypeError, RuntimeError):
        known = ", ".join(sorted(path.removeprefix("infos/") for path in _stored_arrays(group)))
        raise DemokitError(f"Episode has no array '{name}': it has {known}.") from None
