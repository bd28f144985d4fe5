"""Rows of bytes of different lengths in HDF5 files, as Minari keeps its JPEG pictures.

HDF5 keeps such rows in its global heap, and its own reader trusts the lengths that a file claims:
it allocates them, and writes past them. So the heap is read here, by its published layout, and
every length is compared with what is in the file.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import h5py
import numpy as np
from h5py import h5d, h5i

from demokit.data.hdf5 import StoredArray
from demokit.errors import DemokitError

_REFERENCE = struct.Struct("<IQI")  # length, address of the collection, index in it
_COLLECTION = struct.Struct("<4sB3xQ")  # signature, version, size with this header
_OBJECT = struct.Struct("<HHxxxxQ")  # index, references, size
_SIGNATURE, _VERSION = b"GCOL", 1
_NOTHING = (0, 0, 0)


def read_blobs(stored: StoredArray) -> list[bytes]:
    """Every row of an array of bytes, or texts, of different lengths.

    Raises:
        DemokitError: an array of anything else, compressed, or not all of it in the file.
    """
    text = h5py.check_string_dtype(stored.dtype)
    is_row = h5py.check_vlen_dtype(stored.dtype) == np.uint8 or (text and text.length is None)
    if not is_row or len(stored.shape) != 1:
        raise DemokitError(f"Array {stored.path} is no row of pictures or texts.")
    file = h5i.get_file_id(stored.data)
    plan = file.get_create_plist()
    if plan.get_userblock() or plan.get_sizes() != (8, 8):
        raise DemokitError(f"Array {stored.path} is stored in a way that demokit does not read.")
    with Path(file.name.decode()).open("rb") as opened:
        references = _references(stored, file.get_filesize(), opened)
        heap = _Heap(opened, file.get_filesize())
        return [heap.read(*reference) for reference in _REFERENCE.iter_unpack(references)]


def _references(stored: StoredArray, file_size: int, file: IO[bytes]) -> bytes:
    """Where the rows are, as the file has it; raises DemokitError unless all are there."""
    needed = stored.shape[0] * _REFERENCE.size
    plan, place = stored.data.get_create_plist(), stored.data.get_offset()
    if plan.get_nfilters() or (place is None and plan.get_layout() != h5d.CHUNKED):
        raise DemokitError(f"Array {stored.path} is stored in a way that demokit does not read.")
    if needed > file_size:
        raise DemokitError(f"Array {stored.path} claims {needed} bytes, which are not in the file.")
    if place is None:
        found = _chunks(stored.data, file_size)[:needed]
    else:
        file.seek(place)
        found = file.read(needed)
    if len(found) != needed:
        raise DemokitError(f"Array {stored.path} has rows that are not in the file.")
    return found


def _chunks(data: h5d.DatasetID, file_size: int) -> bytes:
    """All chunks, one after the other; nothing where they claim more than the file."""
    infos = [data.get_chunk_info(index) for index in range(data.get_num_chunks())]
    if sum(info.size for info in infos) > file_size:
        return b""
    places = sorted(info.chunk_offset for info in infos)
    return b"".join(data.read_direct_chunk(place)[1] for place in places)


class _Heap:
    """The global heap of a file: collections of numbered objects."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file, self._size = file, size
        self._left = 2 * size  # collections that overlap end somewhere
        self._collections: dict[int, dict[int, bytes]] = {}

    def read(self, length: int, address: int, index: int) -> bytes:
        """An object; raises DemokitError unless it is there with this length."""
        if (length, address, index) == _NOTHING:
            return b""
        if address not in self._collections:
            self._collections[address] = self._collection(address)
        found = self._collections[address].get(index)
        if found is None or len(found) != length:
            raise DemokitError("A row of bytes is not in the file as it claims.")
        return found

    def _collection(self, address: int) -> dict[int, bytes]:
        self._file.seek(min(address, self._size))
        head = self._file.read(_COLLECTION.size)
        signature, version, size = (
            _COLLECTION.unpack(head) if len(head) == _COLLECTION.size else (b"", 0, 0)
        )
        self._left -= size
        if (signature, version) != (_SIGNATURE, _VERSION) or self._left < 0:
            raise DemokitError("A row of bytes leads to nothing in the file.")
        return dict(_objects(self._file.read(max(size - _COLLECTION.size, 0))))


def _objects(body: bytes) -> Iterator[tuple[int, bytes]]:
    """Number and content of the objects of a collection; free space, the last one, is number 0."""
    at = 0
    while at + _OBJECT.size <= len(body):
        index, _, size = _OBJECT.unpack_from(body, at)
        at += _OBJECT.size
        if index == 0 or at + size > len(body):
            return
        yield index, body[at : at + size]
        at += -(-size // 8) * 8
