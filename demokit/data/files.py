"""Opening and making HDF5 files, with errors that people can act on."""

from __future__ import annotations

import errno
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import h5py

from demokit.errors import DemokitError
from demokit.writing import errno_of, first_line, reason

# With these bounds HDF5 keeps a checksum of all its own structures: a flipped bit in them is an
# error, where the older format makes the library crash or hang.
CHECKED_FORMAT = ("v110", "v110")
# What reading broken content raises, from a missing group to text that is not UTF-8.
DAMAGE = (
    OSError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
    AttributeError,
    ArithmeticError,
    MemoryError,
)
SIGNATURE = b"\x89HDF\r\n\x1a\n"
"""What HDF5 begins with; the version of the superblock is the byte after it."""
_OLD_FORMAT = 2
_FIRST_USER_BLOCK = 512
_PROBE_LIMIT_S = 10
_PROBE_S_PER_BYTE = 4 / 2**30
GREEDY = 3
"""What `demokit.data.probe` exits with when structures take more memory than they have."""


class RefusedError(DemokitError):
    """Something in a file that is not read, whatever file it is: `explain_damage` says which."""


@contextmanager
def open_hdf5(path: Path) -> Iterator[h5py.File]:
    """A file opened for reading; what h5py raises in the block becomes a DemokitError.

    Raises:
        DemokitError: missing, a directory, not HDF5, truncated, locked, or damaged inside.
    """
    with open_file(path) as file, explain_damage(path):
        yield file


def open_file(path: Path) -> h5py.File:
    """A file opened for reading.

    Raises:
        DemokitError: missing, a directory, not HDF5, truncated, locked, or damaged.
    """
    try:
        check_is_file(path)
        _probe_old(path)
        # A dataset is replaced by renaming, never changed in place: a lock that the file system
        # cannot give is not needed.
        return h5py.File(path, "r", locking="best-effort")
    except (OSError, RuntimeError) as error:
        raise _explain_open(path, error) from error


def _probe_old(path: Path) -> None:
    """Probe a file of the older format, whose structures have no checksums.

    HDF5 looks for its signature where we do: other bytes may stand before it, a user block.
    """
    size, at = path.stat().st_size, 0
    with path.open("rb") as file:
        while at < size:
            file.seek(at)
            head = file.read(len(SIGNATURE) + 1)
            if head.startswith(SIGNATURE):
                if head[len(SIGNATURE) :] < bytes([_OLD_FORMAT]):
                    probe(path)
                return
            at = max(_FIRST_USER_BLOCK, 2 * at)


def probe(path: Path) -> None:
    """Read a file in a process of its own: damaged, it could crash this one, or fill its memory.

    Of HDF5 files the structures are read, Parquet files whole.

    Raises:
        DemokitError: reading them crashes, never ends, or takes far more memory than they have, or
            there can be no such process.
    """
    status = path.stat()
    _walk_apart(str(path.resolve()), status.st_ino, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=4096)
def _walk_apart(path: str, _inode: int, size: int, _changed: int) -> None:
    limit_s = _PROBE_LIMIT_S + size * _PROBE_S_PER_BYTE
    # -P: what lies in the working folder is data, no modules.
    command = [sys.executable, "-P", "-m", "demokit.data.probe", path, str(math.ceil(limit_s))]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True)
    if done.returncode < 0 or done.returncode == GREEDY:
        raise DemokitError(
            f"{path} is damaged (reading it crashes, never ends, or takes far more memory than it "
            "holds): take it from a backup."
        )
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        why = said[-1] if said else f"exit code {done.returncode}"
        raise DemokitError(
            f"{path} was not opened, as the program that tries it first failed ({why}): install "
            "demokit again."
        )


@contextmanager
def explain_damage(path: Path) -> Iterator[None]:
    """Turn what h5py and numpy raise on missing or broken content into a DemokitError."""
    try:
        yield
    except RefusedError as error:
        raise DemokitError(f"{path}: {error}") from error
    except DAMAGE as error:
        if errno_of(error):
            raise DemokitError(f"{path} cannot be read: {reason(error)}.") from error
        raise DemokitError(
            f"{path} is damaged ({first_line(error)}): take it from a backup or record again."
        ) from error


def check_is_file(path: Path) -> None:
    """Raise DemokitError when `path` is missing, a directory, or a pipe, socket or device."""
    if path.is_dir():
        raise DemokitError(f"{path} is a directory, not a dataset: name the .hdf5 file in it.")
    if not path.exists():
        raise DemokitError(f"There is no dataset at {path}: check the path, or record one.")
    if not path.is_file():
        raise DemokitError(f"{path} is a pipe, socket or device: a dataset is a regular file.")


def _explain_open(path: Path, error: Exception) -> DemokitError:
    text, number = str(error), errno_of(error)
    if number in (errno.EAGAIN, errno.ENOLCK):
        return DemokitError(
            f"{path} is locked (errno {number}): close the program that writes it, or, on a file "
            "system without locks, set HDF5_USE_FILE_LOCKING=FALSE."
        )
    if number:
        return DemokitError(f"{path} cannot be read: {reason(error)}.")
    if "already open for write" in text:
        return DemokitError(
            f"{path} is being written by another program, or by one that ended without closing it: "
            "wait until it is done; if none writes it, use a copy that `h5clear -s` was run on."
        )
    if "truncated" in text:
        return DemokitError(f"{path} is truncated: copy it again from its source.")
    if not h5py.is_hdf5(path):
        return DemokitError(f"{path} is not an HDF5 file: a dataset is one .hdf5 file.")
    return DemokitError(f"{path} cannot be opened ({first_line(error)}): it may be damaged.")


class _Disk:
    """A file as HDF5 wants it, which keeps the first error of writing instead of raising it.

    HDF5 cannot close a file that it failed to write: it crashes the process at its end.
    """

    def __init__(self, handle: int) -> None:
        self._handle = handle
        self._place = 0
        self.error: OSError | None = None

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_CUR:
            offset += self._place
        elif whence == os.SEEK_END:
            offset += os.fstat(self._handle).st_size
        self._place = offset
        return offset

    def tell(self) -> int:
        return self._place

    def read(self, size: int) -> bytes:
        content = bytearray(size)
        self.readinto(content)
        return bytes(content)

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        content = os.pread(self._handle, len(view), self._place)
        view[: len(content)] = content
        # Beyond the end, or where writing failed, there are zeros.
        view[len(content) :] = bytes(len(view) - len(content))
        self._place += len(view)
        return len(view)

    def write(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        self._try(self._write, view)
        self._place += len(view)
        return len(view)

    def truncate(self, size: int) -> int:
        self._try(os.truncate, self._handle, size)
        return size

    def flush(self) -> None:
        """Nothing is buffered here."""

    def _write(self, view: memoryview) -> None:
        done = 0
        while done < len(view):
            done += os.pwrite(self._handle, view[done:], self._place + done)

    def _try(self, action: Callable[..., object], *arguments: object) -> None:
        if self.error is not None:
            return
        try:
            action(*arguments)
        except OSError as error:
            self.error = error


@contextmanager
def written_hdf5(
    path: Path, *, extend: bool = False, libver: tuple[str, str] | None = CHECKED_FORMAT
) -> Iterator[tuple[h5py.File, Callable[[], None]]]:
    """A new HDF5 file at `path`, or the one to `extend`, and a check to call now and then.

    The check raises the OSError of a write that failed; so does the end of the block.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT | (0 if extend else os.O_TRUNC), 0o666)
    disk = _Disk(handle)

    def check() -> None:
        if disk.error is not None:
            raise disk.error

    try:
        with h5py.File(disk, "r+" if extend else "w", libver=libver) as file:
            yield file, check
        check()
    finally:
        os.close(handle)
