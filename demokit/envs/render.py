"""Pictures of simulations: one OpenGL context, one scene, for people with the goal drawn in.

The goal's marker stands in site group 4, which nothing shows unless it is asked for; a picture
with `context=None` never shows it. What policies see is drawn by `demokit.envs.images`.
"""

from __future__ import annotations

import os
import sys
from copy import copy
from importlib import import_module
from typing import TYPE_CHECKING, Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from demokit.envs.family import Family
from demokit.errors import DemokitError, unknown_name
from demokit.types import FloatArray

if TYPE_CHECKING:
    from demokit.envs.batch import SimBatch

GOAL_SITE_GROUP = 4
QUICK_SLICES, QUICK_STACKS = 8, 4  # facets of round shapes, enough for 48x64
_MAX_GEOMS = 1000


class Canvas:
    """One OpenGL context with the scene of one model: usable in the thread that made it.

    `quick` leaves out shadows, reflections, sky and smooth edges: for pictures that only policies
    see.

    Raises:
        DemokitError: neither EGL nor OSMesa can draw here; says what to install.
    """

    def __init__(
        self, model: mujoco.MjModel, *, width: int, height: int, quick: bool = False
    ) -> None:
        self._gl = make_gl_context(width, height)
        self._gl.make_current()
        self.model = _for_drawing(model, width, height, quick=quick)
        self._scene = mujoco.MjvScene(self.model, _MAX_GEOMS)
        if quick:
            self._scene.flags[:] = 0
        self._context = mujoco.MjrContext(self.model, mujoco.mjtFontScale.mjFONTSCALE_100.value)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self._context)
        self._viewport = mujoco.MjrRect(0, 0, width, height)
        self._image = np.empty((height, width, 3), np.uint8)

    def draw(
        self, data: mujoco.MjData, camera: mujoco.MjvCamera, options: mujoco.MjvOption
    ) -> NDArray[np.uint8]:
        """A view (height, width, 3) of the picture, valid until the next one is drawn."""
        everything = mujoco.mjtCatBit.mjCAT_ALL.value
        mujoco.mjv_updateScene(self.model, data, options, None, camera, everything, self._scene)
        mujoco.mjr_render(self._viewport, self._scene, self._context)
        mujoco.mjr_readPixels(self._image, None, self._viewport, self._context)
        return self._image[::-1]

    def make_current(self) -> None:
        """Draw with this context from now on in this thread."""
        self._gl.make_current()

    def close(self) -> None:
        """Free the OpenGL context; closing twice is allowed."""
        if self._gl is not None:
            self._context.free()
            self._gl.free()
            self._gl = None


class Renderer:
    """Renders simulations of one family for people, with the camera `camera`.

    Raises:
        DemokitError: nothing to draw with, see `Canvas`, or no such camera.
    """

    def __init__(
        self, family: Family, *, width: int = 640, height: int = 480, camera: str = "scene"
    ) -> None:
        self._family = family
        self._camera = make_camera(family, camera)
        self._canvas = Canvas(family.model, width=width, height=height)

    def render(
        self, sims: SimBatch, sim: int = 0, context: FloatArray | None = None
    ) -> NDArray[np.uint8]:
        """Simulation `sim` as (height, width, 3) uint8; `context` (C,) draws that task's goal."""
        data = sims.data(sim)
        mujoco.mj_forward(self._canvas.model, data)
        options = mujoco.MjvOption()
        if context is not None:
            options.sitegroup[GOAL_SITE_GROUP] = 1
            for name, position_w_m in self._family.goal_marker(context).items():
                data.site(name).xpos[:] = position_w_m
        self._canvas.make_current()
        return self._canvas.draw(data, self._camera, options).copy()

    def close(self) -> None:
        """Free the OpenGL context; closing twice is allowed."""
        self._canvas.close()


def make_camera(family: Family, name: str) -> mujoco.MjvCamera:
    """A camera of the model or a viewpoint of the family; raises DemokitError for another name."""
    camera = mujoco.MjvCamera()
    fixed = [family.model.camera(i).name for i in range(family.model.ncam)]
    if name in fixed:
        camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        camera.fixedcamid = fixed.index(name)
    elif name in family.viewpoints:
        point = family.viewpoints[name]
        camera.lookat[:], camera.distance = point.lookat_w_m, point.distance_m
        camera.azimuth, camera.elevation = point.azimuth_deg, point.elevation_deg
    else:
        raise unknown_name(f"camera of {family.name}", name, (*family.viewpoints, *fixed))
    return camera


def look_through(mine: mujoco.MjvCamera, other: mujoco.MjvCamera) -> None:
    """Make a camera look as another one does."""
    mine.type, mine.fixedcamid = other.type, other.fixedcamid
    mine.lookat[:], mine.distance = other.lookat, other.distance
    mine.azimuth, mine.elevation = other.azimuth, other.elevation


def _for_drawing(model: mujoco.MjModel, width: int, height: int, *, quick: bool) -> mujoco.MjModel:
    """A copy of the model with buffers of that size; `quick` with the cheapest settings."""
    model = copy(model)
    size, quality = model.vis.global_, model.vis.quality
    if quick:
        size.offwidth, size.offheight = width, height
        quality.offsamples, quality.shadowsize = 0, 0
        quality.numslices, quality.numstacks = QUICK_SLICES, QUICK_STACKS
    else:
        size.offwidth = max(width, size.offwidth)
        size.offheight = max(height, size.offheight)
    return model


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
