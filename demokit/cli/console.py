"""What commands share when they print: tables, and progress with rate and time left."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol

from demokit.text import printable, say

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

PLAIN_INTERVAL_S = 0.5
PLAIN_SHARE = 0.1
PLAIN_WIDTH = 120


class Update(Protocol):
    """Tells a progress display the count done, and what to show beside it from now on."""

    def __call__(self, done: int, /, note: str | None = None) -> None:
        """Show it."""
        ...


def console(*, stderr: bool = False) -> Console:
    """A rich console; where it is not a terminal its lines are wide and without colour."""
    from demokit.cli.shown import ShownConsole

    plain: dict[str, Any] = {"stderr": stderr, "highlight": False, "markup": False}
    made = ShownConsole(**plain)
    return made if made.is_terminal else ShownConsole(**plain, width=PLAIN_WIDTH)


def table(title: str, *columns: str, numbers: Sequence[str] = ()) -> Table:
    """An empty table; columns in `numbers` are right-aligned, all '' means no header."""
    from demokit.cli.shown import ShownTable

    shown = any(columns)
    made = ShownTable(title, title_justify="left", header_style="bold", show_header=shown)
    for column in columns:
        made.add_column(column, justify="right" if column in numbers else "left")
    return made


def say_json(value: Any) -> None:
    """Print a value as `as_json` writes it, in which nothing unseen is left."""
    import click

    click.echo(as_json(value))


def as_json(value: Any) -> str:
    """Indented JSON; arrays are lists, and null is what is not finite, as a space's bounds."""

    def plain(part: Any) -> Any:
        if hasattr(part, "tolist"):
            part = part.tolist()
        if isinstance(part, dict):
            return {name: plain(inner) for name, inner in part.items()}
        if isinstance(part, list | tuple):
            return [plain(inner) for inner in part]
        return None if isinstance(part, float) and not math.isfinite(part) else part

    return json.dumps(plain(value), indent=2, allow_nan=False)


@contextmanager
def progress(what: str, total: int, *, start: int = 0) -> Iterator[Update]:
    """Shows how far a task is, on stderr; yields a function to call with the count done.

    A bar in a terminal; elsewhere plain lines, less often the longer it takes.

    Args:
        what: such as "saved" or "evaluated".
        total: the count at the end.
        start: the count at the beginning, left out of the rate.
    """
    if sys.stderr.isatty():
        with _bar(what, total, start) as update:
            yield update
    else:
        yield _PlainProgress(what, total, start).update


@contextmanager
def quiet(what: str, total: int, *, start: int = 0) -> Iterator[Update]:  # noqa: ARG001
    """As `progress`, where nobody wants to see it."""

    def update(done: int, /, note: str | None = None) -> None:
        del done, note

    yield update


class Stages:
    """A progress display for each stage of a task, one after the other.

    Args:
        what: the task, said before the name of every stage.
    """

    def __init__(self, what: str) -> None:
        self._what, self._stage, self._open = what, "", ExitStack()

    def __enter__(self) -> Stages:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def __call__(self, stage: str, done: int, total: int, /, note: str | None = None) -> None:
        """So much of a stage is done; the first call of each says where it starts."""
        if stage != self._stage:
            self._open.close()
            shown = progress(f"{self._what}: {stage}", total, start=done)
            self._stage, self._update = stage, self._open.enter_context(shown)
        self._update(done, note=note)


@contextmanager
def _bar(what: str, total: int, start: int) -> Iterator[Update]:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    begun = time.monotonic()
    with Progress(*columns, console=console(stderr=True)) as bar:
        task = bar.add_task(printable(what), total=total, completed=start, rate="", note="")

        def update(done: int, /, note: str | None = None) -> None:
            bar.update(task, completed=done, rate=_pace(done - start, time.monotonic() - begun))
            if note is not None:
                bar.update(task, note=printable(note))

        yield update


class _PlainProgress:
    def __init__(self, what: str, total: int, start: int) -> None:
        self._what, self._total, self._start = what, total, start
        self._begun = time.monotonic()
        self._shown_at = float("-inf")
        self._shown = -1
        self._note = ""

    def update(self, done: int, /, note: str | None = None) -> None:
        """Print `done` unless a line was printed a moment ago, or says the same."""
        self._note = self._note if note is None else f", {note}"
        now = time.monotonic()
        pause = max(PLAIN_INTERVAL_S, PLAIN_SHARE * (now - self._begun))
        if done == self._shown or (done < self._total and now - self._shown_at < pause):
            return
        self._shown_at, self._shown = now, done
        own, taken_s = done - self._start, now - self._begun
        parts = [_pace(own, taken_s)] if own > 0 else []
        if own > 0 and done < self._total:
            left = timedelta(seconds=round((self._total - done) * taken_s / own))
            parts.append(f"{left} left")
        speed = f" ({', '.join(parts)})" if parts else ""
        say(f"{self._what} {done} of {self._total}{speed}{self._note}", err=True)


def _pace(count: int, taken_s: float) -> str:
    """A rate, or what each takes where it is longer than a second; nothing of nothing."""
    if count <= 0:  # a run that is resumed falls back to its checkpoint
        return ""
    if count > taken_s:
        return f"{count / max(taken_s, 1e-6):.1f}/s"
    return f"{taken_s / count:.1f} s each"
