"""The mouse: dragging with the middle button moves the hand in the plane, keys do the rest."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from recorders.teleop.device import Command, Device

FULL_SPEED_PIXELS = 12  # in one step
WHEEL_STEPS = 3  # of full speed, for each notch


class Mouse:
    """Drags become motion, the wheel moves up and down; everything else comes from the keyboard.

    Args:
        keyboard: the device whose keys still work.
        listen: makes a listener, as pynput's `mouse.Listener` does.
        focused: whether the mouse is meant for us now; dragging in another window moves nothing.
    """

    name = "mouse"

    def __init__(
        self,
        keyboard: Device,
        listen: Callable[..., Any],
        focused: Callable[[], bool] = lambda: True,
    ) -> None:
        self._keyboard, self._focused = keyboard, focused
        self._lock = threading.Lock()
        self._at: tuple[float, float] | None = None
        self._dragged = [0.0, 0.0]
        self._wheel = 0.0
        self._listener = listen(on_move=self.moved, on_click=self.clicked, on_scroll=self.scrolled)
        self._listener.start()

    def read(self) -> Command:
        """See `Device`: at most full speed; what was dragged farther is carried over."""
        command = self._keyboard.read()
        with self._lock:
            if not self._focused():
                self._drop()
                self._at = None
            right, forward = (self._take(axis) for axis in range(2))
            up = max(-1.0, min(1.0, self._wheel))
            self._wheel -= up
        x, y, z = command.move
        return replace(command, move=(_bounded(x + right), _bounded(y + forward), _bounded(z + up)))

    def rest(self) -> None:
        """See `Device`."""
        with self._lock:
            self._drop()
        self._keyboard.rest()

    def close(self) -> None:
        """See `Device`."""
        self._listener.stop()
        self._keyboard.close()

    def clicked(self, x: float, y: float, button: Any, pressed: bool) -> None:
        """A button of the mouse went down or up."""
        if button.name == "middle":
            with self._lock:
                self._at = (x, y) if pressed and self._focused() else None

    def moved(self, x: float, y: float) -> None:
        """The mouse is at (x, y), in pixels from the top left."""
        with self._lock:
            if not self._focused():
                self._at = None
            if self._at is not None:
                self._dragged[0] += (x - self._at[0]) / FULL_SPEED_PIXELS
                self._dragged[1] -= (y - self._at[1]) / FULL_SPEED_PIXELS
                self._at = x, y

    def scrolled(self, _x: float, _y: float, _dx: float, dy: float) -> None:
        """The wheel turned by dy notches, away from the person."""
        with self._lock:
            self._wheel += WHEEL_STEPS * dy * self._focused()

    def _drop(self) -> None:
        self._dragged, self._wheel = [0.0, 0.0], 0.0

    def _take(self, axis: int) -> float:
        share = _bounded(self._dragged[axis])
        self._dragged[axis] -= share
        return share


def _bounded(value: float) -> float:
    return max(-1.0, min(1.0, value))
