"""Files of others, read with bounds: plain files alone, JSON, tables of archives."""

from __future__ import annotations

import csv
import errno
import json
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path
from typing import IO, Any, cast
from zipfile import ZipFile

MOST_BYTES = 2**24
MOST_DEPTH = 64
MOST_TABLE_BYTES = 2**21
# What is read at once may take this much memory, and beyond it this many times its size on disk.
FREE_BYTES = 2**28
_MOST_RATIO = 256
_MOST_EMPTY = 2**20
# What taking apart content of the wrong kind raises.
MALFORMED = (
    *(LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError),
    csv.Error,
)


def is_hollow(shape: Sequence[int]) -> bool:
    """Whether an array holds nothing, and claims more of it than any episode has steps."""
    return 0 in shape and max(shape) > _MOST_EMPTY


def justified_bytes(stored: int) -> int:
    """The memory that `stored` bytes of a file may take once they are read."""
    return max(FREE_BYTES, _MOST_RATIO * stored)


def check_regular(path: Path) -> None:
    """Raise OSError unless `path` leads to a regular file: reading a pipe would never end."""
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise OSError(f"{path} is a pipe, socket or device, no file")


def read_bytes(path: Path, most: int = MOST_BYTES) -> bytes:
    """The content of a regular file.

    Raises:
        OSError: it cannot be read, or is no regular file.
        ValueError: it has more than `most` bytes.
    """
    check_regular(path)
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise ValueError(f"more than {most / 2**20:g} MiB")
    return content


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal; raises OSError."""
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def read_json(path: Path) -> Any:
    """What a JSON file says; raises as `read_bytes` and `parse_json`."""
    return parse_json(read_bytes(path))


def parse_json(text: str | bytes) -> Any:
    """What JSON of at most MOST_BYTES letters and MOST_DEPTH levels says.

    Raises:
        ValueError: it says nothing, too much, or text that no file can hold.
    """
    if not isinstance(text, str | bytes):
        raise ValueError(f"{type(text).__name__}, where JSON should be")
    if len(text) > MOST_BYTES:
        raise ValueError(f"JSON of more than {MOST_BYTES >> 20} MiB")
    try:
        found = json.loads(text)
    except RecursionError:
        raise ValueError(f"JSON of more than {MOST_DEPTH} levels") from None
    _check(found)
    return found


def parse_object(text: str | bytes) -> dict[str, Any]:
    """A JSON object; raises as `parse_json`, and for any other value."""
    found = parse_json(text)
    if not isinstance(found, dict):
        raise ValueError("no JSON object")
    return found


def _check(found: Any) -> None:
    """Raise ValueError for too many levels, and for halves of letters, which UTF-8 cannot say."""
    level: list[Any] = [found]
    for _ in range(MOST_DEPTH + 1):
        inside: list[Any] = []
        for value in level:
            if isinstance(value, str):
                value.encode()
            elif isinstance(value, dict):
                inside.extend(value)
                inside.extend(value.values())
            elif isinstance(value, list):
                inside.extend(value)
        if not inside:
            return
        level = inside
    raise ValueError(f"JSON of more than {MOST_DEPTH} levels")


def open_archive(stream: IO[bytes]) -> ZipFile:
    """A zip archive with a table of members of at most MOST_TABLE_BYTES.

    Raises:
        BadZipFile, NotImplementedError: it is none.
        ValueError: its table is longer.
    """
    archive = ZipFile(cast("IO[bytes]", _ShortReads(stream)))
    archive.fp = stream  # the table is read: members may be longer
    return archive


@dataclass(frozen=True)
class _ShortReads:
    """A file of which nobody reads much at once: zipfile takes the whole table."""

    stream: IO[bytes]

    def read(self, size: int = -1) -> bytes:
        data = self.stream.read(MOST_TABLE_BYTES if size < 0 else min(size, MOST_TABLE_BYTES))
        if len(data) == MOST_TABLE_BYTES:
            raise ValueError(f"a table of members of {MOST_TABLE_BYTES >> 20} MiB")
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)
