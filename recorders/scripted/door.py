"""The expert of Door: over the handle's bar, down into its slot, then along the handle's arc."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from demokit.envs.door import BAR_RADIUS_M, BAR_Y_M, HANDLE_DOOR_M, IN_SLOT_M, OVER_M
from demokit.envs.sawyer import STEP_M
from demokit.types import Array, FloatArray
from recorders.scripted.point import straight

SLOT_M = 0.025  # from the middle of the slot to where the fingers touch the bar or the door
AT_TARGET_RAD = 0.02
RADIUS_M = float(np.hypot(HANDLE_DOOR_M[0], HANDLE_DOOR_M[1]))


class DoorExpert:
    """Reaches the slot at the same speed for every target; then the angle's error alone drives it.

    The offset of the hand from the handle is taken in the door's frame: `along` the bar and
    `across` it, positive towards the door's panel.
    """

    name = "scripted"

    def act(self, observation: FloatArray, privileged: Mapping[str, Array]) -> FloatArray:  # noqa: ARG002
        """Actions (N, 3) from "hand_pos_w_m", "handle_pos_w_m", "door_angle_rad" and "context"."""
        angle = privileged["door_angle_rad"][:, 0]
        offset = privileged["hand_pos_w_m"] - privileged["handle_pos_w_m"]
        along, across = _in_door_frame(offset, angle)
        inside = (np.abs(along) < 0.06) & (np.abs(across) < 0.04)
        low = offset[:, 2] < IN_SLOT_M + 0.02
        error = privileged["context"][:, 0] - angle
        move = np.where(
            (inside & low)[:, None],
            _operate(error, angle, along, across),
            -offset[:, :2] * _may_travel(offset[:, 2], along, across)[:, None],
        )
        over = (np.abs(along) < 0.04) & (np.abs(across) < 0.015)
        height = np.where(over | (inside & low), IN_SLOT_M, OVER_M) - offset[:, 2]
        up = np.clip(height / STEP_M, -1, 1)
        return np.column_stack([straight(move, STEP_M), up]).astype(np.float32)


def _in_door_frame(offset: FloatArray, angle: FloatArray) -> tuple[FloatArray, FloatArray]:
    """World offsets (N, 3) along and across the bar of a door at `angle` (N,)."""
    x, y = offset[:, 0], offset[:, 1]
    cos, sin = np.cos(angle), np.sin(angle)
    return x * cos - y * sin, x * sin + y * cos


def _in_world(along: FloatArray, across: FloatArray, angle: FloatArray) -> FloatArray:
    """The inverse of `_in_door_frame` in the plane, (N, 2)."""
    cos, sin = np.cos(angle), np.sin(angle)
    return np.column_stack([along * cos + across * sin, -along * sin + across * cos])


def _operate(
    error: FloatArray, angle: FloatArray, along: FloatArray, across: FloatArray
) -> FloatArray:
    """Moves (N, 2): touch the bar to open or the panel to close, then follow the handle's arc.

    At the target the hand rests in the middle of the slot, where it touches nothing.
    """
    arrived = np.abs(error) < AT_TARGET_RAD
    touch = np.where(arrived, 0, -np.sign(error) * SLOT_M) - across
    swing = np.where(arrived, 0, error)
    # The handle moves along its circle: mostly across the bar, a little along it.
    x, y = HANDLE_DOOR_M[0], HANDLE_DOOR_M[1]
    return _in_world(swing * y - along, touch - swing * x, angle)


def _may_travel(above: FloatArray, along: FloatArray, across: FloatArray) -> FloatArray:
    """1 (N,) where the fingers are above the bar or more than a finger away from the handle."""
    high = above > OVER_M - 0.015
    bar = BAR_Y_M - HANDLE_DOOR_M[1]
    far = (across < bar - BAR_RADIUS_M - 0.03) | (np.abs(along) > 0.13)
    return np.where(high | far, 1.0, 0.0)
