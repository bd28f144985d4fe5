"""Actions turned by a hidden angle: what the families with such tasks share.

The angle is a number of the model, and every simulation has its own.
"""

from __future__ import annotations

import mujoco
import numpy as np
from mujoco.batch import Batch

from demokit.types import FloatArray


def add_rotation(spec: mujoco.MjSpec) -> None:
    """Give a model the angle, and a blue mark that shows people where it points."""
    spec.add_numeric(name="rotation_rad", data=[0.0], size=1)
    spec.worldbody.add_site(name="heading", group=4, size=[0.025, 0, 0], rgba=[0.1, 0.3, 0.8, 1])


def rotation_rad(sims: Batch) -> FloatArray:
    """The live angles (N,) of simulations of a model that has no other numbers of its own."""
    angles: FloatArray = sims.expand("numeric_data")[:, 0]
    return angles


def turned(action: FloatArray, angle_rad: FloatArray) -> FloatArray:
    """Actions (N, A), the first two components turned by angles (N,)."""
    return np.column_stack([rotated(action[:, :2], angle_rad), action[:, 2:]])


def rotated(vectors: FloatArray, angle_rad: FloatArray) -> FloatArray:
    """Vectors (N, 2) of the plane turned counter-clockwise by angles (N,)."""
    cos, sin = np.cos(angle_rad), np.sin(angle_rad)
    x, y = vectors[:, 0], vectors[:, 1]
    return np.column_stack([cos * x - sin * y, sin * x + cos * y])
