"""What a command has made, and of what: nobody makes it again while both are as they were."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from demokit.writing import write_whole


@dataclass(frozen=True)
class Stamp:
    """A small file that says of what something was made, and what it looked like then.

    Attributes:
        path: of the file.
        decides: all that decides what is made, as JSON holds it; raises DemokitError.
        made: the file or the folder.
    """

    path: Path
    decides: Callable[[], object]
    made: Path

    def holds(self) -> bool:
        """Whether that is there, made of the same, and nobody has touched it since."""
        try:
            found = self.path.read_text()
        except (OSError, UnicodeDecodeError):
            return False
        return found == self._said(self.digest())

    def digest(self) -> str:
        """Of what decides."""
        return sha256(json.dumps(self.decides()).encode()).hexdigest()

    def put(self, digest: str) -> None:
        """Say that it was made of what had this digest when that began."""
        write_whole(self.path, self._said(digest))

    def _said(self, digest: str) -> str:
        return json.dumps({"of": digest, "made": looks_of(self.made)}, indent=1) + "\n"


def looks_of(path: Path) -> list[tuple[str, int, int]]:
    """What changes where a file, or any in a folder, does; empty where there is none."""
    files = sorted(each for each in (path, *path.rglob("*")) if each.is_file())
    return [(str(each.relative_to(path)), *_look(each)) for each in files]


def _look(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns
