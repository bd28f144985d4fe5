"""HDF5 files as data: the one walker, and the only ways to reach a group, an array, an attribute.

A file may lead to other files, hold itself, or claim more than is in it. Everything that reads
HDF5 reads through here: no link is followed, no object is met twice, and nothing is allocated
before its claim is compared with what the file holds.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from h5py import h5a, h5d, h5f, h5g, h5i, h5l, h5o, h5s, h5z

from demokit.data.files import RefusedError, probe
from demokit.reading import is_hollow, justified_bytes
from demokit.types import Array

MOST_DEPTH = 32
MOST_NODES = 10_000  # below one episode
MOST_ATTRIBUTES = 1_000  # of one group
MOST_ATTRIBUTE_BYTES = 2**24  # of one group together
# The most that deflate can expand its input.
_MOST_EXPANSION = 1032
_FILTERS = {h5z.FILTER_DEFLATE, h5z.FILTER_SHUFFLE, h5z.FILTER_FLETCHER32}
_NUMBERS, _TEXT = "fiub", "S"


class StoredArray(NamedTuple):
    """An array in a file, not read yet; `path` is said in errors."""

    path: str
    data: h5d.DatasetID
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def is_numeric(self) -> bool:
        """Whether it holds plain numbers or booleans; nothing else is read as an array."""
        return self.dtype.kind in _NUMBERS

    @property
    def claimed_bytes(self) -> int:
        """The memory that reading it would take."""
        return self.dtype.itemsize * math.prod(self.shape)

    def check(self) -> None:
        """Raise DemokitError unless it holds numbers that are in this file, all of them."""
        if not self.is_numeric:
            raise RefusedError(f"Array {self.path} holds no numbers.")
        check_claims([self])

    def read(self) -> Array:
        """The whole array; raises DemokitError as `check`."""
        self.check()
        return self._values()

    def read_rows(self, start: int, stop: int) -> Array:
        """Rows start:stop, as a slice has them; raises DemokitError as `check`."""
        self.check()
        if not self.shape:
            raise RefusedError("A single number was found where an array should be.")
        first, last, _ = slice(start, stop).indices(self.shape[0])
        count = (max(last - first, 0), *self.shape[1:])
        values = np.empty(count, self.dtype)
        if values.size:
            place = h5s.create_simple(self.shape)
            place.select_hyperslab((first, *[0] * (len(count) - 1)), count)
            self.data.read(h5s.create_simple(count), place, values)
        return values

    def read_texts(self) -> list[str]:
        """The texts of a row of fixed-length ones; raises DemokitError for anything else."""
        if self.dtype.kind != _TEXT or len(self.shape) != 1:
            raise RefusedError(f"Array {self.path} is no row of texts.")
        check_claims([self])
        return [text.decode() for text in self._values().tolist()]

    def _values(self) -> Array:
        values = np.empty(self.shape, self.dtype)
        if values.size:
            self.data.read(h5s.ALL, h5s.ALL, values)
        return values


class Claims:
    """What is read together: no more memory than the file justifies."""

    def __init__(self) -> None:
        self._claimed = self._stored = self._size = 0

    def add(self, array: StoredArray) -> None:
        """Count an array in; raises DemokitError when that is too much."""
        self._size = self._size or h5i.get_file_id(array.data).get_filesize()
        self._claimed += array.claimed_bytes
        self._stored += _stored_bytes(array)
        if is_hollow(array.shape):
            raise RefusedError(f"Array {array.path} claims {array.shape}, and holds nothing.")
        if self._stored > self._size or self._claimed > justified_bytes(self._stored):
            raise RefusedError(
                f"Array {array.path}, with what is read beside it, claims {self._claimed} bytes, "
                "which are not in the file."
            )


def check_claims(arrays: Iterable[StoredArray]) -> None:
    """Raise DemokitError unless the arrays, read together, take memory that the file justifies."""
    together = Claims()
    for array in arrays:
        together.add(array)


def _stored_bytes(array: StoredArray) -> int:
    """The array's size on disk; raises DemokitError unless its claimed size can be in it."""
    stored = int(array.data.get_storage_size())
    # In one piece within the file, as most arrays are, or else chunks to be looked at.
    if array.data.get_offset() is None or stored != array.claimed_bytes:
        _check_chunks(array, stored)
    return stored


def _check_chunks(array: StoredArray, stored: int) -> None:
    plan = array.data.get_create_plist()
    filters = {plan.get_filter(i)[0] for i in range(plan.get_nfilters())}
    layout = plan.get_layout()
    if layout == h5d.VIRTUAL or plan.get_external_count() or filters - _FILTERS:
        raise RefusedError(f"Array {array.path} is stored in a way that demokit does not read.")
    chunk = math.prod(plan.get_chunk()) if layout == h5d.CHUNKED else 0
    needed = max(array.claimed_bytes, array.dtype.itemsize * chunk)
    if array.claimed_bytes and needed > stored * (_MOST_EXPANSION if filters else 1):
        raise RefusedError(f"Array {array.path} claims {needed} bytes, which are not in the file.")


def names(group: h5py.Group) -> list[str]:
    """The names in a group, sorted, links among them; raises DemokitError for one that is no text.

    What a name leads to is not looked at.
    """
    return [name for name, _ in _links(group)]


def _links(group: h5py.Group) -> list[tuple[str, int]]:
    """The names in a group, sorted, and what kind of link each is."""
    found: list[tuple[bytes, int]] = []
    group.id.links.iterate(lambda name, info: found.append((name, info.type)), info=True)
    try:
        return [(name.decode(), kind) for name, kind in found]
    except UnicodeDecodeError as error:
        raise RefusedError(f"A name in {group.name} is no UTF-8 text.") from error


def _check_hard(kind: int, path: str) -> None:
    if kind != h5l.TYPE_HARD:
        raise RefusedError(f"{path} is a link to somewhere else: it is not followed.")


def walk(top: h5py.Group) -> Iterator[tuple[str, h5py.Group | StoredArray]]:
    """Path and content of every group and array below `top`, each once, a group before its own.

    Raises:
        DemokitError: a link, an object with two names (a group that holds itself is one), or
            more than MOST_DEPTH levels or MOST_NODES objects.
    """
    return _Walk().below(top, "", 0)


def check_below(top: h5py.Group) -> None:
    """Raise DemokitError when another program could not read all groups, attributes and numbers."""
    for _, node in walk(top):
        if isinstance(node, h5py.Group):
            read_attributes(node)
        elif node.is_numeric:
            node.check()


class _Walk:
    def __init__(self) -> None:
        self._count = 0

    def below(
        self, group: h5py.Group, prefix: str, depth: int
    ) -> Iterator[tuple[str, h5py.Group | StoredArray]]:
        self._count += group.id.get_num_objs()
        if depth == MOST_DEPTH or self._count > MOST_NODES:
            raise RefusedError(
                f"{prefix.rstrip('/') or group.name} holds more than {MOST_DEPTH} levels of groups "
                f"or {MOST_NODES} groups and arrays: it is not read."
            )
        for name, kind in _links(group):
            path = prefix + name
            _check_hard(kind, path)
            if h5o.get_info(group.id, name.encode()).rc > 1:
                raise RefusedError(f"{path} stands in the file under two names: it is not read.")
            node = _opened(group, name.encode(), path)
            if node is not None:
                yield path, node
            if isinstance(node, h5py.Group):
                yield from self.below(node, f"{path}/", depth + 1)


def _opened(group: h5py.Group, place: bytes, path: str) -> h5py.Group | StoredArray | None:
    """What is at a place whose links were checked; None for what holds no data."""
    found = h5o.open(group.id, place)
    if isinstance(found, h5g.GroupID):
        return h5py.Group(found)
    shape = found.shape if isinstance(found, h5d.DatasetID) else None
    return None if shape is None else StoredArray(path, found, shape, found.dtype)


def lookup(group: h5py.Group, path: str) -> h5py.Group | StoredArray:
    """The group or array at `path` below a group.

    Raises:
        KeyError: nothing is there.
        DemokitError: a link is on the way.
    """
    links, parts = group.id.links, path.encode().split(b"/")
    for depth in range(1, len(parts) + 1):
        _check_hard(links.get_info(b"/".join(parts[:depth])).type, path)
    node = _opened(group, path.encode(), path)
    if node is None:
        raise KeyError(path)
    return node


def open_group(group: h5py.Group, path: str) -> h5py.Group:
    """The group at `path`; raises as `lookup`, and DemokitError where an array is."""
    node = lookup(group, path)
    if not isinstance(node, h5py.Group):
        raise RefusedError(f"{path} is an array, where a group should be.")
    return node


def open_array(group: h5py.Group, path: str) -> StoredArray:
    """The array at `path`, which can be read; raises as `lookup` and `StoredArray.check`."""
    node = lookup(group, path)
    if not isinstance(node, StoredArray):
        raise RefusedError(f"{path} is a group, where an array should be.")
    node.check()
    return node


def read_arrays(group: h5py.Group) -> dict[str, Array]:
    """Every array of numbers below a group by its path, together in memory.

    Raises:
        DemokitError: as `walk`, and as `check_claims` for all of them.
    """
    return read_all(
        {
            path: node
            for path, node in walk(group)
            if isinstance(node, StoredArray) and node.is_numeric
        }
    )


def read_all(arrays: Mapping[str, StoredArray]) -> dict[str, Array]:
    """The arrays, whole; raises DemokitError unless all of them fit together into memory."""
    check_claims(arrays.values())
    return {name: stored._values() for name, stored in arrays.items()}


def read_attributes(node: h5py.Group, *, probed: bool = False) -> dict[str, Any]:
    """All attributes that are numbers or text; others, and those that hold nothing, are ignored.

    Texts of variable length stand in the one structure of HDF5 that never has a checksum: they
    are read in a process of their own first, unless that was done.

    Raises:
        DemokitError: more than MOST_ATTRIBUTES, or larger than MOST_ATTRIBUTE_BYTES together.
    """
    count, left = h5a.get_num_attrs(node.id), MOST_ATTRIBUTE_BYTES
    found: dict[str, Any] = {}
    for index in range(min(count, MOST_ATTRIBUTES + 1)):
        attribute = h5a.open(node.id, index=index)
        dtype, shape = _numpy_type(attribute), attribute.shape
        if dtype is None or shape is None:
            continue
        left -= dtype.itemsize * math.prod(shape)
        if left < 0 or count > MOST_ATTRIBUTES:
            raise RefusedError(
                f"{node.name} has {count} attributes, too many or too large: at most "
                f"{MOST_ATTRIBUTES} of {MOST_ATTRIBUTE_BYTES >> 20} MiB together are read."
            )
        name = attribute.name
        if dtype.kind == "O" and not probed:
            _probe_file_of(node)
        if dtype.kind == "O" and shape:
            value = node.attrs[name]
        else:  # several times faster than going through `node.attrs`
            values = np.empty(shape, dtype)
            attribute.read(values)
            value = values if shape else values[()]
        found[name.decode()] = value.decode() if isinstance(value, bytes) else value
    return found


def _numpy_type(attribute: h5a.AttrID) -> np.dtype[Any] | None:
    """The type of numbers or text; None for any other."""
    try:
        dtype = attribute.dtype
    except TypeError:  # numpy has no such type
        return None
    is_read = dtype.kind in _NUMBERS + _TEXT or h5py.check_string_dtype(dtype)
    return dtype if is_read else None


def _probe_file_of(node: h5py.Group) -> None:
    path = Path(os.fsdecode(h5f.get_name(node.id)))
    # A file that we write ourselves has no name here.
    if path.exists():
        probe(path)
