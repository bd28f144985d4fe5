"""Opening HDF5 files and writing files that survive a crash, with errors people can act on."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

import h5py

from demokit.errors import DemokitError

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
_SUPERBLOCK_VERSION_AT = 8
_OLD_FORMAT = 2
_PROBE_LIMIT_S = 60


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
    check_is_file(path)
    try:
        _probe(path)
        # A dataset is replaced by renaming, never changed in place: a lock that the file system
        # cannot give is not needed.
        return h5py.File(path, "r", locking="best-effort")
    except (OSError, RuntimeError) as error:
        raise _explain_open(path, error) from error


def _probe(path: Path) -> None:
    """Walk a file of the older format in a process of its own: damaged, it could crash this one."""
    with path.open("rb") as file:
        head = file.read(_SUPERBLOCK_VERSION_AT + 1)
    if len(head) > _SUPERBLOCK_VERSION_AT and head[_SUPERBLOCK_VERSION_AT] < _OLD_FORMAT:
        status = path.stat()
        _walk_apart(str(path.resolve()), status.st_ino, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=4096)
def _walk_apart(path: str, *_: int) -> None:
    """Raise DemokitError when reading the structures of `path` crashes or never ends."""
    command = [sys.executable, "-m", "demokit.data.probe", path]
    try:
        code = subprocess.run(command, timeout=_PROBE_LIMIT_S, capture_output=True).returncode
    except subprocess.TimeoutExpired:
        code = -1
    if code < 0:
        raise DemokitError(f"{path} is damaged (HDF5 cannot read it): take it from a backup.")


@contextmanager
def explain_damage(path: Path) -> Iterator[None]:
    """Turn what h5py and numpy raise on missing or broken content into a DemokitError."""
    try:
        yield
    except DAMAGE as error:
        raise DemokitError(
            f"{path} is damaged ({_first_line(error)}): take it from a backup or record again."
        ) from error


def check_is_file(path: Path) -> None:
    """Raise DemokitError when `path` is missing or a directory."""
    if path.is_dir():
        raise DemokitError(f"{path} is a directory, not a dataset: name the .hdf5 file in it.")
    if not path.exists():
        raise DemokitError(f"There is no dataset at {path}: check the path, or record one.")


def _explain_open(path: Path, error: Exception) -> DemokitError:
    text = str(error)
    number = getattr(error, "errno", 0) or _errno_in(text)
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


def behind_link(path: Path) -> Path:
    """What writing to `path` replaces: of a link, what it leads to."""
    return path.resolve() if path.is_symlink() else path


@contextmanager
def explain_write(path: Path, advice: str) -> Iterator[None]:
    """Turn a failed write near `path` into a DemokitError that ends with `advice`."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        number = _first_errno(error)
        if number in (errno.ENOSPC, errno.EDQUOT):
            reason = "the disk is full"
        else:
            reason = os.strerror(number).lower() if number else _first_line(error)
        raise DemokitError(f"Cannot write {path} ({reason}): {advice}") from error


def _first_errno(error: BaseException | None) -> int:
    """The number of the error, or of what it followed: HDF5 fails again when it closes a file."""
    while error is not None:
        number = getattr(error, "errno", 0) or _errno_in(str(error))
        if number:
            return int(number)
        error = error.__context__
    return 0


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


def try_lock(file: IO[bytes] | int) -> bool:
    """Whether the lock was free; the kernel frees it when the process dies."""
    if sys.platform == "win32":
        return True
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        # Some network file systems know no locks: recording there is still crash-safe.
        return True
    return True


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
    path: Path, *, extend: bool = False
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
        with h5py.File(disk, "r+" if extend else "w", libver=CHECKED_FORMAT) as file:
            yield file, check
        check()
    finally:
        os.close(handle)
