"""NumPy's archives: one episode each, or several in one.

Members are read here and not by NumPy, which takes the memory that a header claims.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any, TypeVar
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo
from zlib import error as ZlibError  # noqa: N812

import numpy as np
from numpy.lib import format as npy

from demokit.data.convert import Imported
from demokit.data.convert.arrays import ACTIONS, TAKES, files_of, import_arrays
from demokit.data.convert.foreign import About, plain_name
from demokit.data.convert.inventory import Inventory, Part, at_once
from demokit.data.convert.stated import Stated
from demokit.errors import DemokitError
from demokit.reading import check_regular, is_hollow, justified_bytes, open_archive
from demokit.types import Array

__all__ = ["TAKES", "read"]

T = TypeVar("T")
_SUFFIX = ".npy"
_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
SIDE_BY_SIDE = 3  # axes of actions (N, T, A)
NAMED = "EPISODE/NAME"
# What damaged members raise: headers are parsed as Python literals.
_DAMAGE = (
    *(BadZipFile, ZlibError, NotImplementedError, OSError, EOFError),
    *(ValueError, TypeError, SyntaxError, RecursionError, MemoryError, RuntimeError),
)


def read(source: Path, env: str | None, stated: Stated) -> Imported:
    """An archive, or a folder of them, as a dataset.

    An archive is one episode; or several, where its arrays are called `EPISODE/NAME`, or where
    actions are (N, T, A): then the first axis of every array counts the episodes.

    Raises:
        DemokitError: no archives, more than the file can hold, or no sound episode.
    """
    files = files_of(source, ".npz")
    parts = partial(_parts, files, stated.action_columns or (ACTIONS,))
    inventory = Inventory(Part(source.name, {}), ())
    return import_arrays(inventory, parts, About("npz", env or plain_name(source.stem)), stated)


def _parts(files: list[Path], marks: tuple[str, ...]) -> Iterator[Part]:
    """The episodes of the files, one file in memory at a time."""
    for path in files:
        things = read_npz(path)
        mark = next((mark for mark in marks if mark in things), None)
        if mark is None:
            for group, found in _groups(things).items():
                yield Part(f"{path.name} {group}", found)
        elif (count := _side_by_side(things[mark])) is None:
            yield Part(path.name, things)
        else:
            for index in range(count):
                rows = {name: partial(_row, thing, index, count) for name, thing in things.items()}
                yield Part(f"{path.name} episode {index}", rows)


def _groups(things: dict[str, Callable[[], Array]]) -> dict[str, dict[str, Callable[[], Array]]]:
    """Episode -> its things, of names such as `EPISODE/NAME`."""
    groups: dict[str, dict[str, Callable[[], Array]]] = {}
    for name, thing in things.items():
        group, _, inside = name.partition("/")
        groups.setdefault(group, {})[inside or name] = thing
    return groups


def _side_by_side(actions: Callable[[], Array]) -> int | None:
    """How many episodes stand side by side; None where there is one, or they cannot be read."""
    try:
        found = actions()
    except DemokitError:
        return None
    return len(found) if found.ndim == SIDE_BY_SIDE else None


def _row(thing: Callable[[], Array], index: int, count: int) -> Array:
    rows = thing()
    if not rows.ndim or len(rows) != count:
        raise DemokitError(f"there are {count} episodes, and an array of shape {rows.shape}")
    return np.asarray(rows[index])


def read_npz(path: Path) -> dict[str, Callable[[], Array]]:
    """Name -> what gives the array; one that cannot be read raises DemokitError when asked for.

    Raises:
        DemokitError: no such archive, a damaged one, or more in it than the file can hold.
    """
    return _each(path, lambda archive, info: at_once(partial(_member, archive, info, _array)))


def shapes_of(path: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Name -> type and shape, by the headers alone.

    Raises:
        DemokitError: as `read_npz`, or for an array that it does not read.
    """

    def told(archive: ZipFile, info: ZipInfo) -> tuple[str, tuple[int, ...]]:
        try:
            shape, _, dtype = _member(archive, info, _header)
        except DemokitError as error:
            raise DemokitError(f"{path}: {info.filename}: {error}.") from None
        return str(dtype), shape

    return _each(path, told)


def _each(path: Path, read: Callable[[ZipFile, ZipInfo], T]) -> dict[str, T]:
    """Name -> what is read of each member; raises DemokitError."""
    try:
        check_regular(path)
        with path.open("rb") as stream, open_archive(stream) as archive:
            return {
                info.filename.removesuffix(_SUFFIX): read(archive, info)
                for info in _checked(archive, path)
            }
    except OSError as error:
        raise DemokitError(f"{path} cannot be read ({error.strerror or error}).") from error
    except (BadZipFile, NotImplementedError, ValueError) as error:
        raise DemokitError(f"{path} is no npz archive, or damaged ({error}).") from error


def _checked(archive: ZipFile, path: Path) -> list[ZipInfo]:
    """The members; raises DemokitError where they claim more than there is, or one name twice."""
    members = archive.infolist()
    stored = sum(info.compress_size for info in members)
    claimed = sum(info.file_size for info in members)
    if stored > path.stat().st_size or claimed > justified_bytes(stored):
        raise DemokitError(f"{path} claims {claimed} bytes, which are not in the file.")
    if len({info.filename.removesuffix(_SUFFIX) for info in members}) < len(members):
        raise DemokitError(f"{path} holds two arrays of one name.")
    return members


def _member(archive: ZipFile, info: ZipInfo, read: Callable[[IO[bytes], int], T]) -> T:
    """What is read of one array; raises DemokitError."""
    if info.compress_type not in (ZIP_STORED, ZIP_DEFLATED) or info.flag_bits & 1:
        raise DemokitError("it is compressed or encrypted in a way that demokit does not read")
    try:
        with archive.open(info) as stream:
            return read(stream, info.file_size)
    except _DAMAGE as error:
        raise DemokitError(f"it is damaged ({error})") from error


def _header(stream: IO[bytes], size: int) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, order and type, where the `size` bytes of the member hold what they claim."""
    version = npy.read_magic(stream)
    if version not in _HEADERS:
        raise DemokitError(f"its format {version} is none that demokit reads")
    shape, is_fortran, dtype = _HEADERS[version](stream)
    if dtype.kind not in "fiubUS" or not dtype.itemsize:  # of nothing there may be any number
        raise DemokitError(f"it holds {dtype.name}, no numbers or text; objects are never read")
    needed = dtype.itemsize * math.prod(shape)
    if min(shape, default=0) < 0 or needed != size - stream.tell() or is_hollow(shape):
        raise DemokitError(f"it claims {shape} of {dtype}, which is not what the file holds")
    return shape, is_fortran, dtype


def _array(stream: IO[bytes], size: int) -> Array:
    """An array from its bytes, once what the header claims is there."""
    shape, is_fortran, dtype = _header(stream, size)
    number = math.prod(shape)
    # Asked for all there is, zipfile unpacks more than the member claims.
    data = stream.read(number * dtype.itemsize)
    flat = np.frombuffer(data, dtype) if number else np.empty(number, dtype)
    return flat.reshape(shape, order="F" if is_fortran else "C")
