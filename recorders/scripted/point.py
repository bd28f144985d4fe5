"""The experts of the point families: straight to the goal."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from demokit.envs import point_corner_2m
from demokit.envs.point import STEP_M, Point
from demokit.envs.point_coded import PointCoded
from demokit.envs.point_rotated import PointRotated
from demokit.envs.rotation import rotated
from demokit.types import Array, FloatArray


class PointExpert:
    """Moves straight to the goal at the greatest speed that both axes allow."""

    name = "scripted"
    family: Point = Point()
    step_m = STEP_M

    def act(self, observation: FloatArray, privileged: Mapping[str, Array]) -> FloatArray:  # noqa: ARG002
        """Actions (N, 2) from "point_pos_w_m" (N, 2) and "context" (N, C)."""
        return straight(self._offset_m(privileged), self.step_m)

    def _offset_m(self, privileged: Mapping[str, Array]) -> FloatArray:
        goal = self.family.goal_w_m(privileged, privileged["context"])
        offset: FloatArray = goal - privileged["point_pos_w_m"]
        return offset


class PointCodedExpert(PointExpert):
    """Knows the goal that the code stands for."""

    family = PointCoded()


class PointCorner2mExpert(PointExpert):
    """Takes longer steps."""

    step_m = point_corner_2m.STEP_M


class PointRotatedExpert(PointExpert):
    """Knows the angle, and turns its moves back by it."""

    family = PointRotated()

    def _offset_m(self, privileged: Mapping[str, Array]) -> FloatArray:
        return rotated(super()._offset_m(privileged), -privileged["context"][:, 0])


def straight(offset_m: FloatArray, step_m: float) -> FloatArray:
    """Actions (N, A) float32 along offsets (N, A), in units of `step_m`.

    The largest component is cut to 1 and the others in proportion, so the way is straight; an
    offset that one step covers is covered exactly.
    """
    action = offset_m / step_m
    excess = np.abs(action).max(axis=1, keepdims=True)
    straightened: FloatArray = (action / np.maximum(excess, 1)).astype(np.float32)
    return straightened
