"""A page in a browser, through `mujoco.studio`: needs no display where it runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any
from unittest import mock

import mujoco
import numpy as np
from mujoco.studio import launch_web, messages, plugin, viewer_protocol, web_viewer

from demokit.envs.family import Family
from demokit.envs.render import look_through, make_camera
from demokit.errors import DemokitError
from demokit.types import FloatArray
from demokit.view.gate import Gate
from demokit.view.panel import Panel
from demokit.view.scene import Hands, restore
from demokit.view.studio import Studio

START_S = 30


class _Picture(plugin.ViewerPlugin):  # type: ignore[misc]
    """Runs in the viewer's thread, for every frame of a connected browser."""

    def __init__(self, family: Family) -> None:
        self.goals: Mapping[str, FloatArray] = {}
        self._family = family
        self._aimed_at: mujoco.MjModel | None = None

    @messages.handler()  # type: ignore[untyped-decorator]
    def on_gui(self, _: messages.BuildGuiEvent) -> None:
        """Aim the camera, once, and draw the goal."""
        if self.viewer.model is not self._aimed_at:
            self._aimed_at = self.viewer.model
            look_through(self.viewer.camera, _free_camera(self._family))
        self.viewer.extra_geoms[:] = [
            _marker(self._family, name, position) for name, position in self.goals.items()
        ]


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
        self._model = copy(family.model)
        self._data = mujoco.MjData(self._model)
        self._picture = _Picture(family)
        self._panel = Panel(buttons, keys, hands)
        gate = Gate(listen, port)
        self.address = gate.address
        self._studio = Studio(gate, self._panel)
        self._handle = _launch(self._studio, self._picture)
        self._handle.set_model(self._model, data=self._data)

    @property
    def visited(self) -> bool:
        """Whether a browser is there that can drive."""
        return self._panel.driven

    def is_open(self) -> bool:
        """See `Scene`: browsers come and go, the page stays."""
        return bool(self._handle.is_running())

    def say(self, words: Sequence[tuple[str, str]]) -> None:
        """See `Scene`."""
        self._panel.words = tuple(words)
        self._studio.tell()

    def show(self, state: FloatArray, context: FloatArray) -> None:
        """See `Scene`."""
        restore(self._model, self._data, state)
        self._picture.goals = self._family.goal_marker(context)
        self._handle.sync()

    def close(self) -> None:
        """See `Scene`."""
        self._handle.close()
        self._studio.stop()


def _launch(server: Studio, picture: _Picture) -> Any:
    """Start the viewer with that server in place of its own, and without its chat."""
    web_viewer.print = lambda *_words, **_manner: None
    with mock.patch.object(web_viewer, "web_server", server):
        config = viewer_protocol.ViewerConfig(gfx="web", title="demokit")
        handle = launch_web.launch(config, plugins=[picture])
        if not server.started.wait(START_S):
            raise DemokitError("The web view did not start: use --view png.")
    return handle


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
