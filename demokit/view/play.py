"""Clips in a scene, one after the other, for a person who may pause and turn back."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Protocol

from demokit.view.clips import Clip, Words
from demokit.view.scene import Scene

BUTTONS = ("pause", "back", "forward", "previous", "next", "quit")
KEYS = {
    "p": "pause",
    "space": "pause",
    "left": "back",
    "right": "forward",
    "page_up": "previous",
    "page_down": "next",
    "q": "quit",
    "esc": "quit",
}
GUIDE = (
    ("p/space", "pause, go on"),
    ("left, right", "one step back, forward"),
    ("page up, page down", "the previous, the next one"),
    ("q/esc", "quit"),
)
HOLD_S = 1.0


class Editor(Protocol):
    """What else a person can do to a clip than look at it."""

    buttons: tuple[str, ...]
    asks: Mapping[str, str]

    def push(self, button: str, clip: int, row: int, rows: int, text: str = "") -> None:
        """One of its buttons was clicked at a row, counted from 0, of a clip of so many rows.

        `text` is the answer to what the button asks, see `asks`.
        """
        ...

    def words(self, clip: int) -> Words:
        """(name, value) pairs: what was done."""
        ...


class Player:
    """Plays `count` clips round and round, at the speed of the world; told what is pressed.

    Args:
        clip: makes a clip when it is its turn.
        count: how many there are.
        rate_hz: rows per second.
        editor: takes buttons of its own.
    """

    def __init__(
        self,
        clip: Callable[[int], Clip],
        count: int,
        rate_hz: float,
        editor: Editor | None = None,
    ) -> None:
        self._make, self._count, self._rate_hz = clip, count, rate_hz
        self._editor = editor
        self._pushed: deque[tuple[str, str]] = deque()
        self._number, self._row = 0, 0
        self._clip = clip(0)
        self._paused = self._over = False

    def press(self, key: str) -> None:
        """See `Hands`."""
        self.push(KEYS[key])

    def release(self, key: str) -> None:
        """See `Hands`: nothing lasts as long as a key is held."""

    def push(self, button: str, text: str = "") -> None:
        """See `Hands`."""
        self._pushed.append((button, text))

    def run(self, scene: Scene, *, sleep: Callable[[float], None] = time.sleep) -> None:
        """Play until the scene is closed or somebody quits."""
        while scene.is_open() and not self._over:
            words = [*self._clip.words(self._shown)]
            words += self._editor.words(self._number) if self._editor else ()
            scene.say([("", "paused"), *words] if self._paused else words)
            scene.show(self._clip.states[self._shown], self._clip.context)
            sleep(1 / self._rate_hz)
            if self._pushed:
                while self._pushed:
                    self._do(*self._pushed.popleft())
            elif not self._paused:
                self._advance()

    @property
    def _shown(self) -> int:
        return min(self._row, len(self._clip.states) - 1)

    def _advance(self) -> None:
        """On to the next row; the last one stays for HOLD_S before the next clip."""
        self._row += 1
        if self._row >= len(self._clip.states) + HOLD_S * self._rate_hz:
            self._turn_to(self._number + 1)

    def _do(self, button: str, text: str) -> None:
        if self._editor is not None and button in self._editor.buttons:
            self._editor.push(button, self._number, self._shown, len(self._clip.states), text)
        elif button == "pause":
            self._paused = not self._paused
        elif button == "quit":
            self._over = True
        elif button in ("back", "forward"):
            self._paused = True
            self._row = max(0, self._shown + (1 if button == "forward" else -1))
        else:
            self._turn_to(self._number + (1 if button == "next" else -1))

    def _turn_to(self, number: int) -> None:
        if number % self._count != self._number:
            self._number = number % self._count
            self._clip = self._make(self._number)
        self._row = 0
