"""Pictures of simulations, for people: one OpenGL context, one scene, the goal drawn in.

The goal's marker stands in site group 4, which nothing shows unless it is asked for; a picture
with `context=None` never shows it.
"""

from __future__ import annotations

import os
import sys
from copy import copy
from importlib import import_module
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from demokit.envs.batch import SimBatch
from demokit.envs.family import Family
from demokit.errors import DemokitError
from demokit.types import FloatArray

GOAL_SITE_GROUP = 4
_MAX_GEOMS = 1000


class Renderer:
    """Renders simulations of one family with the camera `camera`.

    Raises:
        DemokitError: neither EGL nor OSMesa can draw here; says what to install.
    """

    def __init__(
        self, family: Family, *, width: int = 640, height: int = 480, camera: str = "scene"
    ) -> None:
        self._family = family
        self._gl = make_gl_context(width, height)
        self._gl.make_current()
        self._model = copy(family.model)
        self._model.vis.global_.offwidth = max(width, self._model.vis.global_.offwidth)
        self._model.vis.global_.offheight = max(height, self._model.vis.global_.offheight)
        self._scene = mujoco.MjvScene(self._model, _MAX_GEOMS)
        self._context = mujoco.MjrContext(self._model, mujoco.mjtFontScale.mjFONTSCALE_100.value)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self._context)
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._camera.fixedcamid = self._model.camera(camera).id
        self._viewport = mujoco.MjrRect(0, 0, width, height)

    def render(
        self, sims: SimBatch, sim: int = 0, context: FloatArray | None = None
    ) -> NDArray[np.uint8]:
        """Simulation `sim` as (height, width, 3) uint8; `context` (C,) draws that task's goal."""
        data = sims.data(sim)
        mujoco.mj_forward(self._model, data)
        options = mujoco.MjvOption()
        if context is not None:
            options.sitegroup[GOAL_SITE_GROUP] = 1
            for name, position_w_m in self._family.goal_marker(context).items():
                data.site(name).xpos[:] = position_w_m
        return self._draw(data, options)

    def close(self) -> None:
        """Free the OpenGL context; closing twice is allowed."""
        if self._gl is not None:
            self._context.free()
            self._gl.free()
            self._gl = None

    def _draw(self, data: mujoco.MjData, options: mujoco.MjvOption) -> NDArray[np.uint8]:
        self._gl.make_current()
        everything = mujoco.mjtCatBit.mjCAT_ALL.value
        mujoco.mjv_updateScene(
            self._model, data, options, None, self._camera, everything, self._scene
        )
        mujoco.mjr_render(self._viewport, self._scene, self._context)
        image = np.empty((self._viewport.height, self._viewport.width, 3), np.uint8)
        mujoco.mjr_readPixels(image, None, self._viewport, self._context)
        return np.ascontiguousarray(image[::-1])


def make_gl_context(width: int, height: int) -> Any:
    """An offscreen OpenGL context: the one that MUJOCO_GL names, else EGL, else OSMesa.

    MuJoCo itself chooses when it is imported, and a window system by default, so we choose here.
    """
    if sys.platform != "linux":
        return mujoco.GLContext(width, height)
    asked = os.environ.get("MUJOCO_GL", "").lower()
    backends = (asked,) if asked in ("egl", "osmesa", "glfw") else ("egl", "osmesa")
    problems = []
    for backend in backends:
        try:
            return import_module(f"mujoco.{backend}").GLContext(width, height)
        except Exception as error:  # what a missing driver raises differs between backends
            problems.append(f"{backend}: {error}")
            _forget_pyopengl()
    raise DemokitError(
        f"No OpenGL to draw with ({'; '.join(problems)}): apt install libegl1 libgl1-mesa-dri "
        "(EGL), or apt install libosmesa6 (OSMesa)."
    )


def _forget_pyopengl() -> None:
    """Let the next backend choose its platform: PyOpenGL fixes it at its first import."""
    os.environ.pop("PYOPENGL_PLATFORM", None)
    for name in [n for n in sys.modules if n.split(".")[0] == "OpenGL"]:
        del sys.modules[name]
