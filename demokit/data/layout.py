"""One episode as HDF5 groups: Minari's layout, privileged terms under infos/privileged."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from types import MappingProxyType
from typing import Any, NamedTuple

import h5py
import numpy as np
from h5py import h5a, h5d, h5l, h5s, h5z

from demokit.data.files import CHECKED_FORMAT
from demokit.errors import DemokitError
from demokit.types import Array, Episode, Task

PRIVILEGED = "infos/privileged"
_COMPRESSED_FROM_BYTES = 2**15
_CHUNK_BYTES = 2**17
_STEP_ARRAYS = ("actions", "rewards", "terminations", "truncations")
_FILTERS = {h5z.FILTER_DEFLATE, h5z.FILTER_SHUFFLE, h5z.FILTER_FLETCHER32}
# The most that deflate can expand its input.
_MOST_EXPANSION = 1032


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
            "options": dict(self.options),
        }
        text = json.dumps(fields, sort_keys=True, default=_plain)
        return sha256(text.encode()).hexdigest()


def _plain(value: Any) -> Any:
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
    if not isinstance(name, str) or not name or "/" in name or "\0" in name or name in (".", ".."):
        raise DemokitError(
            f"{name!r} cannot name an array or option: it is no text, empty, '.', or holds '/'."
        )
    return name


def digest(episode: Episode) -> str:
    """SHA-256 of names, dtypes, shapes and bytes of all arrays."""
    total = sha256()
    for name, values in sorted(episode_arrays(episode), key=lambda item: item[0]):
        total.update(f"{name} {values.dtype.str} {values.shape};".encode())
        total.update(np.ascontiguousarray(values).tobytes())
    return total.hexdigest()


def write_episode(file: h5py.Group, index: int, episode: Episode) -> None:
    """Add `episode` as group `episode_<index>`; raises DemokitError for what HDF5 cannot hold."""
    options = _flat_options(episode.options)
    group = file.require_group(episode_name(index))
    for name, values in episode_arrays(episode):
        group.create_dataset(name, data=values, **_storage(name, values))
    put_attributes(
        group,
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
            "record_sha256": record_of(index, episode).compute_digest(),
            **options,
        },
    )
    file.file.flush()


def record_of(index: int, episode: Episode) -> EpisodeRecord:
    """The record of an episode that is in memory."""
    return EpisodeRecord(
        index=index,
        length=len(episode),
        task=episode.task,
        seed=episode.seed,
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
    for name, value in options.items():
        path = f"{prefix}/{_checked(name)}"
        if isinstance(value, Mapping) and value:
            flat.update(_flat_options(value, path))
        elif _is_storable(value):
            flat[path] = value
        else:
            raise DemokitError(
                f"Episode option '{name}' is {value!r:.40}: give numbers, text without NUL, or a "
                "list of either, or leave it out."
            )
    return flat


def _is_storable(value: Any) -> bool:
    """Whether an attribute gives the value back: numbers, text or a list of either."""
    texts = value if isinstance(value, list | tuple) and value else [value]
    if all(isinstance(text, str) for text in texts):
        return not any("\0" in text for text in texts)
    try:
        return np.asarray(value).dtype.kind in "fiub"
    except ValueError:
        return False


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


def copy_episode(source: h5py.Group, target: h5py.Group, index: int) -> None:
    """Copy an episode into the group reserved for it, byte for byte."""
    found, place = source[episode_name(index)], target[episode_name(index)]
    for name in found:
        found.copy(name, place)
    put_attributes(place, read_attributes(found))
    # So that its structures stand with its data, where a truncation later on spares them.
    target.file.flush()


def episode_group(file: h5py.Group, index: int) -> h5py.Group:
    """The group of an episode; raises DemokitError or KeyError when there is none."""
    name = episode_name(index)
    _check_links(file, name)
    return h5py.Group(h5py.h5g.open(file.id, name.encode()))


def put_attributes(node: h5py.Group, attributes: Mapping[str, Any]) -> None:
    """Write attributes, or change them in place; texts get a fixed length.

    HDF5 keeps texts of variable length in the one structure without a checksum, and hangs when it
    is damaged.
    """
    for name, value in attributes.items():
        if isinstance(value, str):
            encoded = value.encode()
            value = np.array(encoded, h5py.string_dtype("utf-8", max(len(encoded), 1)))
        if name in node.attrs:
            node.attrs.modify(name, value)
        else:
            node.attrs[name] = value


def read_attributes(node: h5py.Group) -> dict[str, Any]:
    """All attributes; several times faster than going through `node.attrs`."""
    found: dict[str, Any] = {}
    for index in range(h5a.get_num_attrs(node.id)):
        attribute = h5a.open(node.id, index=index)
        dtype, shape = attribute.dtype, attribute.shape
        # Numbers and single texts; h5py knows the rest.
        if dtype.kind in "fiubS" or (dtype.kind == "O" and shape == ()):
            values = np.empty(shape, dtype)
            attribute.read(values)
            value = values if shape else values[()]
        else:
            value = node.attrs[attribute.name]
        found[attribute.name.decode()] = value.decode() if isinstance(value, bytes) else value
    return found


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
        options=MappingProxyType(_nested_options(attributes)),
        digest=str(attributes.get("sha256", "")),
        record_digest=str(attributes.get("record_sha256", "")),
    )


def read_episode(group: h5py.Group, record: EpisodeRecord) -> Episode:
    """The whole episode, checked; raises DemokitError when it is not sound."""
    steps = record.length
    return Episode(
        task=record.task,
        observations=_read_tree(group, "observations", steps + 1),
        **{name: _read_array(group, name, steps) for name in _STEP_ARRAYS},
        privileged=_read_tree(group, PRIVILEGED, steps + 1),
        seed=record.seed,
        success=record.success,
        recorder=record.recorder,
        options=dict(record.options),
    )


def _read_tree(group: h5py.Group, path: str, rows: int) -> Any:
    node = _subgroup(group, path)
    if node is None:
        return _read_array(group, path, rows)
    return {name: _read_array(node, name, rows) for name in node}


def _read_array(group: h5py.Group, path: str, rows: int) -> Array:
    """A whole array of `rows` rows; nothing is allocated before the claim is checked."""
    stored = open_array(group, path)
    if stored.shape[:1] != (rows,):
        raise DemokitError(f"Episode {path} has shape {stored.shape}, not {rows} rows.")
    values = np.empty(stored.shape, stored.dtype)
    stored.data.read(h5s.ALL, h5s.ALL, values)
    return values


def _read_rows(stored: StoredArray, start: int, stop: int) -> Array:
    """Rows start:stop, as a slice has them."""
    if not stored.shape:
        raise DemokitError("A single number was found where an array should be.")
    first, last, _ = slice(start, stop).indices(stored.shape[0])
    count = (max(last - first, 0), *stored.shape[1:])
    values = np.empty(count, stored.dtype)
    if values.size:
        place = h5s.create_simple(stored.shape)
        place.select_hyperslab((first, *[0] * (len(count) - 1)), count)
        stored.data.read(h5s.create_simple(count), place, values)
    return values


def _subgroup(group: h5py.Group, path: str) -> h5py.Group | None:
    """The group at `path`; None when an array is there."""
    _check_links(group, path)
    node = group[path]
    return node if isinstance(node, h5py.Group) else None


def _check_links(group: h5py.Group, path: str) -> None:
    """Raise DemokitError when `path` leads through a link to another place or file."""
    links, parts = group.id.links, path.encode().split(b"/")
    for depth in range(1, len(parts) + 1):
        if links.get_info(b"/".join(parts[:depth])).type != h5l.TYPE_HARD:
            raise DemokitError(f"{path} is a link to somewhere else: it is not followed.")


class StoredArray(NamedTuple):
    """An array in a file that can be read, not read yet."""

    data: h5d.DatasetID
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


def open_array(group: h5py.Group, path: str) -> StoredArray:
    """An array that can be read: of numbers, in this file, with its claimed size on disk.

    Raises:
        DemokitError: anything else; reading it could need any amount of memory, or other files.
    """
    _check_links(group, path)
    data = h5d.open(group.id, path.encode())
    stored = StoredArray(data, data.shape, data.dtype)
    if stored.dtype.kind not in "fiub":
        raise DemokitError(f"Episode {path} holds no numbers.")
    claimed = stored.dtype.itemsize * math.prod(stored.shape)
    # In one piece within the file, as most arrays are, or else chunks to be looked at.
    if data.get_offset() is None or data.get_storage_size() != claimed:
        _check_chunks(stored, path, claimed)
    return stored


def _check_chunks(stored: StoredArray, path: str, claimed: int) -> None:
    plan = stored.data.get_create_plist()
    filters = {plan.get_filter(i)[0] for i in range(plan.get_nfilters())}
    layout = plan.get_layout()
    if layout == h5d.VIRTUAL or plan.get_external_count() or filters - _FILTERS:
        raise DemokitError(f"Episode {path} is stored in a way that demokit does not read.")
    chunk = math.prod(plan.get_chunk()) if layout == h5d.CHUNKED else 0
    needed = max(claimed, stored.dtype.itemsize * chunk)
    if claimed and needed > stored.data.get_storage_size() * (_MOST_EXPANSION if filters else 1):
        raise DemokitError(f"Episode {path} claims {needed} bytes, which are not in the file.")


def read_window(
    group: h5py.Group, start: int, stop: int, names: Collection[str] | None
) -> dict[str, Array]:
    """Rows start:stop of the named arrays (None: all), reading only those rows."""
    chosen = dict(_array_paths(group)) if names is None else {n: _path_of(n) for n in names}
    found = {}
    for name, path in chosen.items():
        try:
            stored = open_array(group, path)
        except (KeyError, TypeError, RuntimeError):
            known = ", ".join(sorted(dict(_array_paths(group))))
            raise DemokitError(f"Episode has no array '{name}': it has {known}.") from None
        found[name] = _read_rows(stored, start, stop)
    return found


def array_names(group: h5py.Group) -> frozenset[str]:
    """The short names of an episode's arrays, such as privileged/state; reads no array."""
    return frozenset(name for name, _ in _array_paths(group))


def _path_of(name: str) -> str:
    """The path in the group of an array's short name."""
    return f"infos/{name}" if name.startswith("privileged/") else name


def _array_paths(group: h5py.Group) -> Iterator[tuple[str, str]]:
    """Short name, such as privileged/state -> path in the group."""
    for name in ("observations", *_STEP_ARRAYS, PRIVILEGED):
        short = name.removeprefix("infos/")
        node = _subgroup(group, name)
        if node is None:
            yield short, name
        else:
            yield from ((f"{short}/{child}", f"{name}/{child}") for child in node)
