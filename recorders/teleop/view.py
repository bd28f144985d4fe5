"""What the person sees: the state of the session as words, and views of the simulation."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, TextIO

from demokit.envs.batch import SimBatch
from demokit.text import printable
from demokit.types import FloatArray
from demokit.view.scene import Scene

# What a line that is too narrow leaves out, the first first; never the goal.
_LEAST = ("task", "late steps", "reward", "solved", "gripper", "kept", "step")
_BESIDE_KEYS = ("", "kept", "goal")  # more than these has no room in a small window
BEGIN = "begins when you move"


class Phase(StrEnum):
    """Where an episode stands; WAITING is the first one, until the person does something."""

    WAITING = "waiting"
    COUNTDOWN = "ready"
    RECORDING = "recording"
    PAUSED = "paused"
    ENDED = "ended"


@dataclass(frozen=True)
class Status:
    """The state of the session.

    `reward` and `success` are those of the last step, `countdown_s` what is left before the
    person may move, `late` the steps of this episode that came late.
    """

    phase: Phase
    task: str
    goal: str
    step: int
    horizon: int
    reward: float
    success: bool
    kept: int
    target: int
    countdown_s: float = 0.0
    by_expert: bool = False
    closed: bool | None = None
    late: int = 0
    message: str = ""

    def words(self) -> list[tuple[str, str]]:
        """(name, value) pairs for an overlay, the most important first."""
        state = BEGIN if self.phase is Phase.WAITING else self.phase.value
        if self.phase is Phase.COUNTDOWN:
            state = f"ready in {self.countdown_s:.1f} s"
        rows = [
            ("", state),
            ("kept", f"{self.kept}/{self.target}"),
            ("step", f"{self.step}/{self.horizon}"),
            ("reward", f"{self.reward:.2f}"),
            ("solved", "yes" if self.success else "no"),
        ]
        if self.by_expert:
            rows.append(("acts", "expert"))
        if self.closed is not None:
            rows.append(("gripper", "closed" if self.closed else "open"))
        if self.late:
            rows.append(("late steps", str(self.late)))
        return [*rows, ("task", self.task), ("goal", self.goal)]

    def line(self, width: int | None = None) -> str:
        """All of it on one line; what matters least is left out where it is wider than that."""
        rows = [*([("", self.message)] if self.message else []), *self.words()]
        least = iter(_LEAST)
        while width is not None and len(_joined(rows)) > width and (name := next(least, "")):
            rows = [row for row in rows if row[0] != name]
        if width is not None and self.message and len(_joined(rows)) > width:
            rows = [("", self.message), ("", self.goal)]  # it says more than the phase
        return _joined(rows)


def _joined(rows: Sequence[tuple[str, str]]) -> str:
    return "  ".join(f"{name} {value}".strip() for name, value in rows)


class View(Protocol):
    """Something that shows the simulation and the status."""

    name: str

    def is_open(self) -> bool:
        """Whether the person has left it open; a closed view ends the session."""
        ...

    def show(self, sims: SimBatch, context: FloatArray, status: Status) -> None:
        """Show simulation 0, the goal of context (C,) and the status; never waits for long."""
        ...

    def close(self) -> None:
        """Close it; may be called twice."""
        ...


class SceneView:
    """A scene that the person may turn, with the status over it: MuJoCo's window, or a page.

    Args:
        name: what it is called.
        scene: the scene.
        keys: (keys, what they do), shown while the person has time to read.
    """

    def __init__(self, name: str, scene: Scene, keys: Sequence[tuple[str, str]] = ()) -> None:
        self.name = name
        self._scene, self._keys = scene, tuple(keys)
        self._closed = False

    def is_open(self) -> bool:
        """See `View`."""
        return not self._closed and self._scene.is_open()

    def show(self, sims: SimBatch, context: FloatArray, status: Status) -> None:
        """See `View`."""
        if self.is_open():
            words = status.words()
            if self._keys and status.phase in (Phase.WAITING, Phase.PAUSED):
                words = [*(row for row in words if row[0] in _BESIDE_KEYS), *self._keys]
            self._scene.say([*words, *([("", status.message)] if status.message else [])])
            self._scene.show(sims.get_state().physics[0], context)

    def close(self) -> None:
        """See `View`."""
        if not self._closed:
            self._closed = True
            self._scene.close()


class NoView:
    """No view of the simulation: the status alone, or a program that looks for itself."""

    name = "none"

    def is_open(self) -> bool:
        """See `View`: it cannot be closed."""
        return True

    def show(self, sims: SimBatch, context: FloatArray, status: Status) -> None:
        """See `View`."""

    def close(self) -> None:
        """See `View`."""


class StatusLine:
    """The status in the terminal: one line that is written over, or a line for each change."""

    name = "status line"

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stderr
        self._shown = ""
        self._phase: tuple[object, ...] = ()

    def is_open(self) -> bool:
        """See `View`: it cannot be closed."""
        return True

    def show(self, sims: SimBatch, context: FloatArray, status: Status) -> None:  # noqa: ARG002
        """See `View`."""
        width = shutil.get_terminal_size().columns - 1 if self._out.isatty() else None
        line = printable(status.line(width))
        if width is not None:
            line = line[:width]
            if line != self._shown:
                self._write(f"\r{line}\x1b[K")
        elif (status.phase, status.message, status.kept) != self._phase:
            self._write(line + "\n")
        self._shown, self._phase = line, (status.phase, status.message, status.kept)

    def close(self) -> None:
        """See `View`: the next words start on a line of their own."""
        if self._out.isatty() and self._shown:
            self._write("\n")
        self._shown = ""

    def _write(self, text: str) -> None:
        try:
            self._out.write(text)
            self._out.flush()
        except OSError:
            pass  # the terminal is gone: recording goes on to its safe end


class Views:
    """Several views as one, called as the first; it is open as long as all of them are."""

    def __init__(self, views: Sequence[View]) -> None:
        self._views = tuple(views)
        self.name = views[0].name

    def is_open(self) -> bool:
        """See `View`."""
        return all(view.is_open() for view in self._views)

    def show(self, sims: SimBatch, context: FloatArray, status: Status) -> None:
        """See `View`."""
        for view in self._views:
            view.show(sims, context, status)

    def close(self) -> None:
        """See `View`."""
        for view in self._views:
            view.close()
