"""How far a run is that another process trains: said in the lock of its folder, and read there."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf
from pathlib import Path

from demokit.lock import said_in
from gmps.progress import Report

Say = Callable[[Mapping[str, str | int | float]], None]
_EVERY_S = 1.0
_MOST_SHOWN = 40  # letters


@dataclass(frozen=True)
class Underway:
    """A stage of a training: what it is, how much of it is done, of how much, and how fast.

    `rate` is in units per second; 0 where it is not known yet.
    """

    stage: str
    done: int
    total: int
    rate: float

    def __str__(self) -> str:
        """In words, such as "iterations 12 of 40, 2.1 s each"."""
        if not self.stage:
            return "running"
        pace = f"{self.rate:.1f}/s" if self.rate > 1 else f"{1 / max(self.rate, 1e-9):.1f} s each"
        return f"{self.stage} {self.done} of {self.total}" + (f", {pace}" if self.rate else "")


class Telling:
    """A report that says in the lock, too, how far the run is.

    Args:
        say: writes facts into the lock.
        report: told the same.
    """

    def __init__(self, say: Say, report: Report) -> None:
        self._say, self._report = say, report
        self._stage, self._first, self._since, self._said = "", 0, 0.0, 0.0

    def __call__(self, stage: str, done: int, total: int, /, note: str | None = None) -> None:
        """See `Report`."""
        self._report(stage, done, total, note=note)
        now = time.time()
        if stage != self._stage:
            self._stage, self._first, self._since, self._said = stage, done, now, 0.0
        if now - self._said < _EVERY_S and done < total:
            return
        self._said = now
        rate = (done - self._first) / max(now - self._since, 1e-6)
        self._say({"stage": stage, "done": done, "total": total, "rate": rate})


def underway(folder: Path) -> Underway | None:
    """How far the process is that trains in a folder; None where none does."""
    said = said_in(folder)
    if said is None:
        return None
    try:
        stage, done, total = said["stage"], int(said["done"]), int(said["total"])
        rate = float(said["rate"])
    except (LookupError, TypeError, ValueError, OverflowError):
        return Underway("", 0, 0, 0.0)
    return Underway(str(stage)[:_MOST_SHOWN], done, total, rate if 0 < rate < inf else 0.0)
