"""MuJoCo's window as a view."""

from __future__ import annotations

from demokit.envs.batch import SimBatch
from demokit.envs.family import Family
from demokit.envs.render import Window
from demokit.types import FloatArray
from recorders.teleop.view import Status


class WindowView:
    """MuJoCo's viewer with the status as its overlay; needs a display."""

    name = "window"

    def __init__(self, family: Family) -> None:
        self._window = Window(family)
        self._closed = False

    def is_open(self) -> bool:
        """See `View`."""
        return not self._closed and self._window.is_open()

    def show(self, sims: SimBatch, context: FloatArray, status: Status) -> None:
        """See `View`."""
        if self.is_open():
            self._window.say([*status.words(), ("", status.message)])
            self._window.show(sims, 0, context)

    def close(self) -> None:
        """See `View`."""
        if not self._closed:
            self._closed = True
            self._window.close()
