"""A page in a browser, MuJoCo's own: needs no display where it runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy

import mujoco
import numpy as np
from mujoco.studio import ux
from mujoco.studio.web import client_camera, state_payload

from demokit.envs.family import Family
from demokit.envs.render import make_camera
from demokit.types import FloatArray
from demokit.view.gate import Gate
from demokit.view.panel import NOTHING_ASKED, Pairs, Panel
from demokit.view.scene import STATE, Hands, physics_of
from demokit.view.studio import Studio


class WebPage:
    """One simulation in browsers, as `Scene`; what is pressed in any of them reaches `hands`.

    Args:
        family: what is shown.
        listen: the address to listen on; any other than loopback asks for a token.
        port: the port; 0 takes the first free one from 8080.
        buttons: what stands on the buttons.
        keys: the keys to watch: a letter, a digit, or a name of `KEYS`.
        hands: who is told of keys and buttons; None for a page that only shows.
        guide: (keys, what they do), which a person may look up.
        pad: (name, key) of the buttons that a touch screen has, held as the key is.
        asks: button -> the question whose answer is told with it.

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
        guide: Pairs = (),
        pad: Pairs = (),
        asks: Mapping[str, str] = NOTHING_ASKED,
    ) -> None:
        self._family = family
        self._model = copy(family.model)
        self._camera, self._turned = _free_camera(family), client_camera.ClientCameraSync()
        self._look = mujoco.MjvPerturb(), mujoco.MjvOption(), self._model
        self._flags = mujoco.MjvScene(self._model, 1).flags.tolist()
        title = f"{family.name} - demokit"
        self._panel = Panel(buttons, keys, hands, guide=guide, pad=pad, asks=asks, title=title)
        gate = Gate(listen, port)
        self.address = gate.address
        self._studio = Studio(gate, self._panel, state_payload.serialize_model_bundle(self._model))
        self._closed = False

    @property
    def visited(self) -> bool:
        """Whether a browser is there that can drive."""
        return self._panel.driven

    def is_open(self) -> bool:
        """See `Scene`: browsers come and go, the page stays."""
        return not self._closed

    def say(self, words: Sequence[tuple[str, str]]) -> None:
        """See `Scene`."""
        self._panel.words = tuple(words)
        self._studio.tell()

    def show(self, state: FloatArray, context: FloatArray) -> None:
        """See `Scene`."""
        physics = np.ascontiguousarray(physics_of(self._model, state), np.float64)
        goals = self._family.goal_marker(context).items()
        self._studio.show(
            state_payload.serialize_state_payload(
                self._studio.crc32,
                STATE,
                physics.tobytes(),
                self._camera,
                *self._look,
                self._flags,
                [_marker(self._family, name, position_w_m) for name, position_w_m in goals],
                self._input(),
            )
        )

    def _input(self) -> state_payload.ViewerInputState:
        """The person turns the picture on the page, which says so afterwards."""
        if (camera := self._studio.take_camera()) is not None:
            self._turned.apply(self._camera, camera)
        return state_payload.ViewerInputState(
            mouse_focus=True,
            keyboard_focus=True,
            camera_index=ux.TUMBLE_CAMERA_IDX,
            camera_generation=self._turned.update_generation(self._camera),
        )

    def close(self) -> None:
        """See `Scene`."""
        self._closed = True
        self._studio.close()


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
