"""Writing whole files: aside, read back, then renamed, with errors that people can act on.

Whatever writes a file or folder that somebody keeps does it through here, so that after a crash,
a full disk or a mistake of ours the old one is there, or the whole new one.
"""

from __future__ import annotations

import csv
import errno
import io
import os
import platform
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from itertools import count
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

from demokit.errors import DemokitError

ASIDE = ".tmp"
"""Ends the name under which a new file is written beside the old one; see `aside_of`."""
OLD = ".old"
"""Ends the name of a folder while a new one takes its place, where they cannot be exchanged."""
AS_IT_WAS = "what was there is as it was."
_HERE = f"{crc32(platform.node().encode(errors='replace')):08x}"  # this machine
_NUMBERS = count()
_MOST_NAMED = 200  # characters of a file's name in another's
_WORKING_FOLDER, _EXCHANGE = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux
_REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk is full",
    errno.EMFILE: "too many open files, see `ulimit -n`",
}


class _Ready(NamedTuple):
    """A new file that waits for its place."""

    aside: Path
    path: Path
    advice: str


class Together:
    """New files that take their places one right after the other, when all are ready; or none does.

    `replaced` adds to it; a context manager around all of them. Where a later one cannot take its
    place, the earlier ones give theirs back. A kill in the moment between two of them leaves the
    earlier ones new and the others old, as no file system renames two files at once: the same
    command, again, writes all of them.
    """

    def __init__(self) -> None:
        self._ready: list[_Ready] = []

    def add(self, aside: Path, path: Path, advice: str) -> None:
        """A file that is whole, beside the one it replaces."""
        self._ready.append(_Ready(aside, path, advice))

    def __enter__(self) -> Together:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                self._place()
        finally:
            for each in self._ready:
                each.aside.unlink(missing_ok=True)

    def _place(self) -> None:
        olds: list[tuple[Path, Path | None]] = []
        try:
            for aside, path, advice in self._ready:
                with explain_write(path, advice):
                    if len(self._ready) > 1:
                        olds.append((path, _second_name(path)))
                    os.replace(aside, path)
        except BaseException:
            for path, old in olds:
                with suppress(OSError):
                    _give_back(path, old)
            raise
        for _, old in olds:
            if old is not None:
                old.unlink(missing_ok=True)
        for each in self._ready:
            with explain_write(each.path, each.advice):
                sync(each.path.parent)


def _second_name(path: Path) -> Path | None:
    """Another name of the file at `path`, if there is one; None where the system gives none."""
    old = aside_of(path)
    try:
        os.link(path, old)
    except FileNotFoundError:
        return old
    except OSError:
        return None
    return old


def _give_back(path: Path, old: Path | None) -> None:
    """Put back what was at `path`, or nothing, as its second name says."""
    if old is None:
        return
    if old.exists():
        os.replace(old, path)
        old.unlink(missing_ok=True)  # where both were one file already
    else:
        path.unlink(missing_ok=True)


@contextmanager
def replaced(
    path: Path,
    advice: str,
    check: Callable[[Path], object],
    *,
    parents: bool = True,
    tidy: bool = True,
    together: Together | None = None,
) -> Iterator[Path]:
    """A free path beside `path`: the file that the block writes there takes its place at the end.

    Before that it is made durable, and `check` reads it back. A link stays; what it leads to is
    replaced. Nothing is left of what failed, nor of writers that were killed. Of processes that
    write the same file at once, the last one's counts.

    Args:
        path: the file.
        advice: what to do when it cannot be written.
        check: raises DemokitError, or anything of `explain_write`, when the file is not sound.
        parents: make the folders that are missing.
        tidy: look for what killed writers left, which takes longer the more files there are.
        together: the file takes its place with others, at the end of that block.

    Raises:
        DemokitError: it cannot be written, is a device, or `check` says so; `path` is as it was.
    """
    with explain_write(path, advice):
        path = behind_link(path)
        if parents:
            path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise DemokitError(f"{path} is a device or a pipe, no file to replace: {advice}")
        if tidy:
            _remove_left_over(path)
        aside, waits = aside_of(path), False
        try:
            yield aside
            sync(aside)
            check(aside)
            if together is not None:
                together.add(aside, path, advice)
                waits = True
                return
            os.replace(aside, path)
            sync(path.parent)
        finally:
            if not waits:
                aside.unlink(missing_ok=True)


def aside_of(path: Path) -> Path:
    """A path beside `path` that no other writer has: NAME.MACHINE-PROCESS-NUMBER.tmp."""
    return path.with_name(f"{_aside_prefix(path)}{os.getpid()}-{next(_NUMBERS)}{ASIDE}")


def _aside_prefix(path: Path) -> str:
    return f"{path.name[:_MOST_NAMED]}.{_HERE}-"


def _remove_left_over(path: Path) -> None:
    """Remove what writers of `path` on this machine left when they were killed, where one may.

    What they had moved away, and put nothing in the place of, is put back.
    """
    prefix = _aside_prefix(path)
    with suppress(OSError):
        for name in os.listdir(path.parent):
            if name.startswith(prefix) and name.endswith((ASIDE, OLD)):
                process = name.removeprefix(prefix).partition("-")[0]
                if process.isdecimal() and not _runs(int(process)):
                    _remove_aside(path.with_name(name), path)


def _remove_aside(aside: Path, path: Path) -> None:
    """Remove what stands beside `path`; an old folder, with nothing in its place, goes back."""
    if aside.suffix == OLD and aside.exists() and not path.exists():
        aside.rename(path)
    elif aside.is_dir():
        shutil.rmtree(aside, ignore_errors=True)
    else:
        aside.unlink(missing_ok=True)


def _runs(process: int) -> bool:
    """Whether there is such a process on this machine, as far as one can tell."""
    if os.name != "posix":  # where signal 0 is no question
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True  # somebody else's
    return True


@contextmanager
def replaced_folder(path: Path, advice: str, check: Callable[[Path], object]) -> Iterator[Path]:
    """The same for a folder, or for what is a folder in some cases; see `replaced`.

    Where the system cannot exchange two folders, a kill in the moment between two renames leaves
    none at `path`: the old one stands beside it, and the next writer puts it back.
    """
    with explain_write(path, advice):
        path = behind_link(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_left_over(path)
        scratch = aside_of(path)
        scratch.mkdir()
        aside, old = scratch / path.name, scratch.with_suffix(OLD)
        try:
            yield aside
            _sync_all(aside)
            check(aside)
            if not (path.is_dir() and _exchange(aside, path)):
                if path.is_dir():
                    path.rename(old)
                os.replace(aside, path)
            sync(path.parent)
        finally:
            _remove_aside(old, path)
            _remove_aside(scratch, path)


def _exchange(one: Path, other: Path) -> bool:
    """Let what is at two paths change places at once, where the system can; whether it did."""
    from ctypes import CDLL

    try:
        rename = CDLL(None).renameat2
    except (AttributeError, OSError, TypeError):
        return False
    paths = (_WORKING_FOLDER, os.fsencode(one), _WORKING_FOLDER, os.fsencode(other))
    return bool(rename(*paths, _EXCHANGE) == 0)


def write_whole(
    path: Path,
    content: bytes | str,
    advice: str = AS_IT_WAS,
    *,
    parents: bool = True,
    tidy: bool = True,
    together: Together | None = None,
) -> None:
    """Put bytes or a text at `path`; after a crash the old or the new file is there, whole.

    What is no character, as in names of files that are not UTF-8, is spelled out in a text.

    Raises:
        DemokitError: see `replaced`.
    """
    data = content.encode(errors="backslashreplace") if isinstance(content, str) else content
    check = partial(_require, data=data)
    with replaced(path, advice, check, parents=parents, tidy=tidy, together=together) as aside:
        aside.write_bytes(data)


def csv_text(
    columns: Sequence[str], rows: Iterable[Mapping[str, object]], *, header: bool = True
) -> str:
    """Rows as CSV, after a line with the columns; "nan" where a row lacks one."""
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, restval="nan")
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _require(path: Path, data: bytes) -> None:
    if path.read_bytes() != data:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))


@contextmanager
def explain_write(path: Path, advice: str) -> Iterator[None]:
    """Turn a failed write near `path` into a DemokitError that ends with `advice`."""
    try:
        yield
    except (OSError, RuntimeError, UnicodeEncodeError) as error:
        raise DemokitError(f"Cannot write {path} ({reason(error)}): {advice}") from error


def reason(error: BaseException) -> str:
    """Why the system refused, in words; else the first line of the error.

    HDF5 fails again when it closes a file that it could not write: the first error counts.
    """
    first: BaseException | None = error
    while first is not None and not errno_of(first):
        first = first.__context__
    if isinstance(error, UnicodeEncodeError):
        return "its name is not UTF-8"
    if first is None:
        return first_line(error)
    return _REASONS.get(errno_of(first)) or os.strerror(errno_of(first)).lower()


def refusal(error: OSError) -> str:
    """What the system refused, and why, where nobody nearer said more."""
    place = f" {os.fsdecode(error.filename)}" if isinstance(error.filename, str | bytes) else ""
    what = f"Cannot open or write{place or ' a file'} ({reason(error)})"
    return f"{what}: mend that, then run the command again."


def errno_of(error: BaseException) -> int:
    """The number that the system gave, which HDF5 says in words; 0 where there is none."""
    found = re.search(r"errno = (\d+)", str(error))
    return int(getattr(error, "errno", 0) or (found[1] if found else 0))


def first_line(error: BaseException) -> str:
    """What an error says, in one line."""
    return str(error).strip().splitlines()[0].strip("'\"") if str(error) else type(error).__name__


def behind_link(path: Path) -> Path:
    """What writing to `path` replaces: of a link what it leads to, of `.` the folder by name."""
    return path.resolve() if path.is_symlink() or path.name in ("", "..") else path


def sync(path: Path) -> None:
    """Make the content of a closed file, or the names in a folder, durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sync_all(path: Path) -> None:
    """`sync` for a file, or for a folder with everything in it."""
    for folder, _, names in os.walk(path):
        for name in names:
            sync(Path(folder) / name)
        sync(Path(folder))
    if not path.is_dir():
        sync(path)


def require_free(paths: Sequence[Path | None], overwrite: bool) -> None:
    """Raise DemokitError for a file that is there, or is named twice."""
    named = [path for path in paths if path is not None]
    if len({path.resolve() for path in named}) < len(named):
        raise DemokitError("Two outputs have the same name: name different files.")
    for path in named:
        if path.exists() and not overwrite:
            raise DemokitError(f"{path} exists: name another file, or pass --overwrite.")
