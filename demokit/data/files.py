"""Opening HDF5 files and writing files that survive a crash, with errors people can act on."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py

from demokit.errors import DemokitError


@contextmanager
def open_hdf5(path: Path) -> Iterator[h5py.File]:
    """A file opened for reading, as briefly as the block lasts.

    Raises:
        DemokitError: missing, a directory, not HDF5, truncated, locked, or damaged inside.
    """
    check_is_file(path)
    try:
        # A dataset is replaced by renaming, never changed in place: a lock that the file system
        # cannot give is not needed.
        file = h5py.File(path, "r", locking="best-effort")
    except OSError as error:
        raise _explain_open(path, error) from error
    with file, explain_damage(path):
        yield file


@contextmanager
def explain_damage(path: Path) -> Iterator[None]:
    """Turn what h5py raises on missing or broken content into a DemokitError."""
    try:
        yield
    except (OSError, KeyError, RuntimeError) as error:
        raise DemokitError(
            f"{path} is damaged ({_first_line(error)}): take it from a backup or record again."
        ) from error


def check_is_file(path: Path) -> None:
    """Raise DemokitError when `path` is missing or a directory."""
    if path.is_dir():
        raise DemokitError(f"{path} is a directory, not a dataset: name the .hdf5 file in it.")
    if not path.exists():
        raise DemokitError(f"There is no dataset at {path}: check the path, or record one.")


def _explain_open(path: Path, error: OSError) -> DemokitError:
    text = str(error)
    number = error.errno or _errno_in(text)
    if number in (errno.EACCES, errno.EPERM):
        return DemokitError(f"{path} cannot be read: permission denied.")
    if number in (errno.EAGAIN, errno.ENOLCK):
        return DemokitError(
            f"{path} is locked (errno {number}): close the program that writes it, or, on a file "
            "system without locks, set HDF5_USE_FILE_LOCKING=FALSE."
        )
    if "truncated" in text:
        return DemokitError(f"{path} is truncated: copy it again from its source.")
    if not h5py.is_hdf5(path):
        return DemokitError(f"{path} is not an HDF5 file: a dataset is one .hdf5 file.")
    return DemokitError(f"{path} cannot be opened ({_first_line(error)}): it may be damaged.")


def _errno_in(text: str) -> int:
    found = re.search(r"errno = (\d+)", text)
    return int(found[1]) if found else 0


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0].strip("'\"") if str(error) else type(error).__name__


@contextmanager
def explain_write(path: Path, advice: str) -> Iterator[None]:
    """Turn a failed write near `path` into a DemokitError that ends with `advice`."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        number = getattr(error, "errno", 0) or _errno_in(str(error))
        if number in (errno.ENOSPC, errno.EDQUOT):
            reason = "the disk is full"
        else:
            reason = os.strerror(number).lower() if number else _first_line(error)
        raise DemokitError(f"Cannot write {path} ({reason}): {advice}") from error


def write_durably(path: Path, data: bytes) -> None:
    """Put `data` at `path` so that after a crash it is there whole or not at all."""
    aside = path.with_name(path.name + ".tmp")
    with aside.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    rename_durably(aside, path)


def rename_durably(source: Path, target: Path) -> None:
    """Rename and make the new name durable; both lie in one folder."""
    os.replace(source, target)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def sync(path: Path) -> None:
    """Make the content of a closed file durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
