"""The expert of Point: straight to the goal."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from demokit.envs.point import STEP_M
from demokit.types import Array, FloatArray


class PointExpert:
    """Moves straight to the goal at the greatest speed that both axes allow."""

    name = "scripted"

    def act(self, observation: FloatArray, privileged: Mapping[str, Array]) -> FloatArray:  # noqa: ARG002
        """Actions (N, 2) from "point_pos_w_m" (N, 2) and "context" (N, 2)."""
        return straight(privileged["context"] - privileged["point_pos_w_m"], STEP_M)


def straight(offset_m: FloatArray, step_m: float) -> FloatArray:
    """Actions (N, A) float32 along offsets (N, A), in units of `step_m`.

    The largest component is cut to 1 and the others in proportion, so the way is straight; an
    offset that one step covers is covered exactly.
    """
    action = offset_m / step_m
    excess = np.abs(action).max(axis=1, keepdims=True)
    straightened: FloatArray = (action / np.maximum(excess, 1)).astype(np.float32)
    return straightened
