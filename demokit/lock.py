"""One process writes a place at a time: a lock, which says who holds it."""

from __future__ import annotations

import json
import os
import shlex
import sys
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from time import sleep
from typing import Any, Self

from demokit.errors import DemokitError
from demokit.writing import behind_link, explain_write

ENDING = ".lock"
# Whatever somebody else puts there is neither followed nor waited for.
_PLAIN = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
_MOST_SAID = 4096  # bytes
_MOST_SHOWN = 200  # characters
_TURN_S = 0.2
_PAUSES_S = (0.05, 0.1, 0.15)  # whoever looks at a lock is gone by then


class HeldError(DemokitError):
    """Another process, or this one, has what was asked for; the message says who."""


class Lock:
    """The right to write a place, until `release` is called or this process ends, however.

    It is a file, PLACE.lock or PLACE/.lock, held by the kernel, which says who has it: the
    process, its command, and since when. File systems that know no locks give it to everybody.

    Args:
        place: a file or folder, which need not be there.
        advice: what to do where it cannot be had, such as "choose another --out.".
        inside: the place is a folder, made here, and the lock lies in it.

    Raises:
        HeldError: by another process, or this one.
        DemokitError: it cannot be written.
    """

    def __init__(self, place: Path, advice: str, *, inside: bool = False) -> None:
        with explain_write(place, advice):
            path = place / ENDING if inside else lock_file(place)
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = _taken(path, place, f", or {advice}")
        self.release = weakref.finalize(self, _let_go, path, handle, os.getpid())
        """Lets others write; may be called twice."""
        self._handle, self._who = handle, _myself()
        self.say({})

    def say(self, facts: Mapping[str, str | int | float]) -> None:
        """Say in the lock, beside who holds it, what is going on; see `said_in`."""
        if not self.release.alive:
            return
        with suppress(OSError):  # the lock holds without words, too
            said = json.dumps({**self._who, **facts}).encode()
            os.pwrite(self._handle, said, 0)
            os.ftruncate(self._handle, len(said))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def _let_go(path: Path, handle: int, process: int) -> None:
    if process != os.getpid():  # a copy of the process that holds it
        return
    with suppress(OSError):
        if _is_at(handle, path):
            # Removed while it is held: whoever gets the removed file looks for another.
            path.unlink()
    os.close(handle)


def lock_file(place: Path) -> Path:
    """Where the lock of a place is."""
    place = behind_link(place)
    return place.parent / f"{place.name}{ENDING}"


@contextmanager
def lock_of_turns(place: Path) -> Iterator[None]:
    """The right to write a place that several processes write in turns: waits until it is had."""
    while True:
        try:
            lock = Lock(place, "choose another place.")
        except HeldError:
            sleep(_TURN_S)
        else:
            break
    with lock:
        yield


def is_locked(place: Path) -> bool:
    """Whether a process writes `place`."""
    try:
        require_unlocked(place)
    except HeldError:
        return True
    return False


def require_unlocked(place: Path) -> None:
    """Raise HeldError, which says who, when another process writes `place`."""
    try:
        handle = os.open(lock_file(place), os.O_RDONLY | _PLAIN)
    except OSError:
        return  # there is none, or nobody may write here
    try:
        if not _try(handle, shared=True):
            raise _held(handle, place, ".")
    finally:
        os.close(handle)


def said_in(folder: Path) -> dict[str, Any] | None:
    """What the process that writes a folder says in its lock, unchecked; None where none does."""
    try:
        handle = os.open(folder / ENDING, os.O_RDONLY | _PLAIN)
    except OSError:
        return None
    try:
        return None if _try(handle, shared=True) else _said(handle)
    finally:
        os.close(handle)


def _taken(path: Path, place: Path, otherwise: str) -> int:
    """An open and locked file at `path`; raises HeldError where another process keeps it."""
    for pause in _PAUSES_S:
        with suppress(HeldError):
            return _taken_at_once(path, place, otherwise)
        sleep(pause)
    return _taken_at_once(path, place, otherwise)


def _taken_at_once(path: Path, place: Path, otherwise: str) -> int:
    """The same, which also fails while somebody just looks at it."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | _PLAIN, 0o666)
        try:
            if not _try(handle, shared=False):
                raise _held(handle, place, otherwise)
            if _is_at(handle, path):
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _is_at(handle: int, path: Path) -> bool:
    """Whether the open file is still the one at `path`: somebody may have removed it."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _try(handle: int, *, shared: bool) -> bool:
    """Whether the lock was free; the kernel frees it when the process ends.

    Whoever only looks shares it with others who do; on NFS that is all that a file which is open
    for reading gives.
    """
    if sys.platform == "win32":
        return True
    import fcntl

    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        # Some network file systems know no locks: writing there is still safe against a crash.
        return True
    return True


def _myself() -> dict[str, str | int]:
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    since = datetime.now().astimezone().isoformat(timespec="seconds")
    return {"process": os.getpid(), "command": command[:_MOST_SHOWN], "since": since}


def _held(handle: int, place: Path, otherwise: str) -> HeldError:
    who = _holder(handle)
    return HeldError(f"{place} is being written by {who}: wait until it ends{otherwise}")


def _holder(handle: int) -> str:
    """Who holds a lock, in words; it is only a file, so anything may stand in it."""
    try:
        said = _said(handle)
        process, command, since = (str(said[key]) for key in ("process", "command", "since"))
    except LookupError:
        return "another process"
    shown = f"process {process} (`{command}`, since {since})"[: 2 * _MOST_SHOWN]
    return "".join(c if c.isprintable() else "?" for c in shown)


def _said(handle: int) -> dict[str, Any]:
    """What stands in a lock; nothing where that is no object of JSON."""
    try:
        said = json.loads(os.pread(handle, _MOST_SAID, 0))
    except (OSError, ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}
