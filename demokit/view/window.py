"""MuJoCo's window."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from copy import copy

import mujoco

from demokit.envs.family import Family
from demokit.envs.render import GOAL_SITE_GROUP, look_through, make_camera
from demokit.errors import DemokitError
from demokit.types import FloatArray
from demokit.view.panel import shown_pairs
from demokit.view.scene import restore

TEXT_PERIOD_S = 0.1
CLOSING_S = 2.0
_IO_ERROR_HANDLER = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_HANDLERS: list[object] = []  # Xlib does not keep them alive


class Window:
    """One simulation in MuJoCo's viewer, as `Scene`; needs a display.

    Raises:
        DemokitError: no window can open here.
    """

    def __init__(self, family: Family) -> None:
        require_display()
        from mujoco import viewer

        self._family = family
        self._model = copy(family.model)
        self._data = mujoco.MjData(self._model)
        running = set(threading.enumerate())
        try:
            self._viewer = viewer.launch_passive(
                self._model, self._data, show_left_ui=False, show_right_ui=False
            )
        except RuntimeError as error:  # macOS opens windows for its main thread only
            raise DemokitError(f"No window can open ({error}): use --view web.") from error
        with self._viewer.lock():
            look_through(self._viewer.cam, make_camera(family, "scene"))
        self._flags = self._viewer.opt.flags.copy(), self._viewer.user_scn.flags.copy()
        self._words: tuple[str, str] | None = None
        self._talker = threading.Thread(target=self._talk, daemon=True)
        self._threads = set(threading.enumerate()) - running

    def is_open(self) -> bool:
        """See `Scene`."""
        return bool(self._viewer.is_running())

    def say(self, words: Sequence[tuple[str, str]]) -> None:
        """See `Scene`."""
        shown = shown_pairs(words)
        self._words = "\n".join(name for name, _ in shown), "\n".join(value for _, value in shown)
        if self._talker.ident is None:
            self._talker.start()

    def _talk(self) -> None:
        """Write the latest words over the picture: the viewer lets its caller wait for a frame."""
        font, corner = mujoco.mjtFontScale.mjFONTSCALE_150, mujoco.mjtGridPos.mjGRID_TOPLEFT
        while self.is_open():
            self._viewer.set_texts((font, corner, *(self._words or ("", ""))))
            time.sleep(TEXT_PERIOD_S)

    def show(self, state: FloatArray, context: FloatArray) -> None:
        """See `Scene`; nothing happens once it was closed."""
        if not self.is_open():
            return
        with self._viewer.lock():
            restore(self._model, self._data, state)
            mujoco.mj_forward(self._model, self._data)
            # The viewer has letters of its own, which a person who drives the hand presses too.
            self._viewer.opt.flags[:], self._viewer.user_scn.flags[:] = self._flags
            self._viewer.opt.sitegroup[GOAL_SITE_GROUP] = 1
            for name, position_w_m in self._family.goal_marker(context).items():
                self._data.site(name).xpos[:] = position_w_m
        self._viewer.sync()

    def close(self) -> None:
        """See `Scene`: the window is gone when this returns."""
        self._viewer.close()
        # Its thread draws until it notices, and must not outlive the interpreter.
        for thread in self._threads | {self._talker}:
            if thread.ident is not None:
                thread.join(CLOSING_S)


def when_killed(act: Callable[[], None]) -> None:
    """Do something, in another thread, before X ends the program with its window.

    Xlib calls `exit` when its connection breaks, as by xkill or when the server goes down; nothing
    that Python has to say about ends of programs is heard then.
    """
    if sys.platform != "linux":
        return
    with contextlib.suppress(OSError, AttributeError):  # no X here: Wayland
        handler = _IO_ERROR_HANDLER(lambda _display: act())
        ctypes.CDLL("libX11.so.6").XSetIOErrorHandler(handler)
        _HANDLERS.append(handler)


def require_display() -> None:
    """Raise DemokitError where no window can open."""
    if sys.platform == "darwin":
        return
    if sys.platform == "linux" and not any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY"))):
        raise DemokitError("There is no display for a window: use --view web.")
    import glfw

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        if not glfw.init():
            why = f" ({said[-1].message})" if said else ""
            raise DemokitError(f"The display cannot be opened{why}: use --view web.")
