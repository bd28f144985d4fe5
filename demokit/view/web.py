"""A page in a browser, through `mujoco.studio`: needs no display where it runs."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any
from unittest import mock

import mujoco
import numpy as np
from mujoco.studio import launch_web, messages, plugin, viewer_protocol, web_viewer
from mujoco.studio.dear_imgui import dear_imgui as imgui

from demokit.envs.family import Family
from demokit.envs.render import look_through, make_camera
from demokit.errors import DemokitError
from demokit.types import FloatArray
from demokit.view.gate import Gate
from demokit.view.scene import Hands, restore

BUTTON_WIDTH, BUTTONS_IN_A_ROW, VALUES_AT = 64, 4, 80  # widths in pixels
KEYS = {
    "up": ("UpArrow",),
    "down": ("DownArrow",),
    "left": ("LeftArrow",),
    "right": ("RightArrow",),
    "page_up": ("PageUp",),
    "page_down": ("PageDown",),
    "space": ("Space",),
    "enter": ("Enter", "KeypadEnter"),
    "backspace": ("Backspace",),
    "delete": ("Delete",),
    "insert": ("Insert",),
    "home": ("Home",),
    "end": ("End",),
    "tab": ("Tab",),
    "esc": ("Escape",),
    "shift": ("LeftShift", "RightShift"),
    "ctrl": ("LeftCtrl", "RightCtrl"),
    "alt": ("LeftAlt", "RightAlt"),
}


class _Panel(plugin.ViewerPlugin):  # type: ignore[misc]
    """Runs in the viewer's thread, for every frame of a connected browser."""

    def __init__(
        self, family: Family, buttons: Sequence[str], keys: Sequence[str], hands: Hands | None
    ) -> None:
        self.words: Sequence[tuple[str, str]] = ()
        self.goals: Mapping[str, FloatArray] = {}
        self._family, self._buttons, self._hands = family, tuple(buttons), hands
        self._codes = {key: imgui_keys(key) for key in keys}
        self._down: set[str] = set()
        self._aimed_at: mujoco.MjModel | None = None

    @messages.handler()  # type: ignore[untyped-decorator]
    def on_gui(self, _: messages.BuildGuiEvent) -> None:
        """Read the keys, draw the buttons, the words and the goal."""
        if self._hands is not None:
            self._read_keys(self._hands)
        self._draw_panel()
        if self.viewer.model is not self._aimed_at:
            self._aimed_at = self.viewer.model
            look_through(self.viewer.camera, _free_camera(self._family))
        self.viewer.extra_geoms[:] = [
            _marker(self._family, name, position) for name, position in self.goals.items()
        ]

    def _read_keys(self, hands: Hands) -> None:
        down = {k for k, codes in self._codes.items() if any(map(imgui.IsKeyDown, codes))}
        for key in self._down - down:
            hands.release(key)
        for key in down - self._down:
            hands.press(key)
        self._down = down

    def _draw_panel(self) -> None:
        flags = imgui.WindowFlags
        # Space and enter drive the hand; they must not push the button that was clicked last.
        imgui.SetNextWindowPos(imgui.Vec2(10, 10), 1)
        imgui.Begin(
            "demokit",
            flags=sum(map(int, (flags.NoNav, flags.NoTitleBar, flags.AlwaysAutoResize))),
        )
        # Above the words, whose number changes: a button must not move away from a click.
        for number, name in enumerate(self._buttons):
            if number % BUTTONS_IN_A_ROW:
                imgui.SameLine()
            if imgui.Button(name, imgui.Vec2(BUTTON_WIDTH, 0)) and self._hands is not None:
                self._hands.push(name)
        for name, value in self.words:
            imgui.TextUnformatted(name or value)
            if name:
                imgui.SameLine(VALUES_AT)
                imgui.TextUnformatted(value)
        imgui.End()


class WebPage:
    """One simulation in browsers, as `Scene`; what is pressed in any of them reaches `hands`.

    Args:
        family: what is shown.
        listen: the address to listen on; any other than loopback asks for a token.
        port: the port; 0 takes the first free one from 8080.
        buttons: what stands on the buttons.
        keys: the keys to watch: a letter, a digit, or a name of `KEYS`.
        hands: who is told of keys and buttons; None for a page that only shows.

    Attributes:
        address: what to open in the browser.

    Raises:
        DemokitError: it cannot listen there.
    """

    def __init__(
        self,
        family: Family,
        listen: str,
        port: int,
        *,
        buttons: Sequence[str] = (),
        keys: Sequence[str] = (),
        hands: Hands | None = None,
    ) -> None:
        self._family = family
        self._panel = _Panel(family, buttons, keys, hands)
        self._model = copy(family.model)
        self._data = mujoco.MjData(self._model)
        inside = socket.create_server(("127.0.0.1", 0))
        self._gate = Gate(listen, port, inside.getsockname()[1])
        self.address = self._gate.address
        self._handle = _launch(self._panel, inside)
        self._handle.set_model(self._model, data=self._data)

    @property
    def visited(self) -> bool:
        """Whether a browser is there."""
        return self._gate.driving > 0

    def is_open(self) -> bool:
        """See `Scene`: browsers come and go, the page stays."""
        return bool(self._handle.is_running())

    def say(self, words: Sequence[tuple[str, str]]) -> None:
        """See `Scene`."""
        self._panel.words = tuple(words)

    def show(self, state: FloatArray, context: FloatArray) -> None:
        """See `Scene`."""
        restore(self._model, self._data, state)
        self._panel.goals = self._family.goal_marker(context)
        self._handle.sync()

    def close(self) -> None:
        """See `Scene`."""
        self._handle.close()
        self._gate.close()


def _launch(panel: _Panel, inside: socket.socket) -> Any:
    """Start the viewer on that socket: by itself it listens on all interfaces, and chats."""
    web_viewer.web_server.logger.setLevel(logging.WARNING)
    web_viewer.print = lambda *_words, **_manner: None
    bound = threading.Event()

    def bind(_host: str, _port: int) -> socket.socket:
        bound.set()
        return inside

    with mock.patch.object(web_viewer.web_server, "bind_public_socket", bind):
        config = viewer_protocol.ViewerConfig(gfx="web", title="demokit")
        handle = launch_web.launch(config, plugins=[panel])
        if not bound.wait(30):
            raise DemokitError("The web view did not start: use --view png.")
    return handle


def imgui_keys(key: str) -> list[Any]:
    """The keys of the browser that mean it."""
    names = KEYS.get(key, (f"N{key}" if key.isdigit() else key.upper(),))
    return [getattr(imgui.Key, name) for name in names if hasattr(imgui.Key, name)]


def _free_camera(family: Family) -> mujoco.MjvCamera:
    """The camera "scene" as one that the person can move."""
    camera = make_camera(family, "scene")
    if camera.type != mujoco.mjtCamera.mjCAMERA_FIXED:
        return camera
    data = mujoco.MjData(family.model)
    mujoco.mj_forward(family.model, data)
    position = data.cam_xpos[camera.fixedcamid]
    look = -data.cam_xmat[camera.fixedcamid].reshape(3, 3)[:, 2]
    free = mujoco.MjvCamera()
    free.type = mujoco.mjtCamera.mjCAMERA_FREE
    free.distance = float(np.linalg.norm(position - [0, 0.6, 0.1]))
    free.lookat[:] = position + free.distance * look
    free.azimuth = float(np.degrees(np.arctan2(look[1], look[0])))
    free.elevation = float(np.degrees(np.arcsin(look[2])))
    return free


def _marker(family: Family, site: str, position_w_m: FloatArray) -> mujoco.MjvGeom:
    """What marks the goal in pictures, as a geom: the page knows no sites that move."""
    geom, like = mujoco.MjvGeom(), family.model.site(site)
    mujoco.mjv_initGeom(
        geom,
        like.type[0],
        like.size,
        np.asarray(position_w_m, np.float64),
        np.eye(3).ravel(),
        like.rgba,
    )
    return geom
