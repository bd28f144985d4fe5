"""The expert of PickPlace: over the block, down, close, lift, and carry it to the goal."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from demokit.envs.sawyer import FINGER_TRAVEL_M, STEP_M
from demokit.types import Array, FloatArray
from recorders.scripted.point import straight

GRASP_HEIGHT_M = 0.025  # hand above the block's middle: the pads reach 4.5 cm below the hand
CLEAR_HEIGHT_M = 0.085
OVER_M = 0.008  # this near to the block's axis the fingers may come down around it
HELD_M = 0.025  # this near to it the block is between the fingers
CLOSED_M = 0.45 * FINGER_TRAVEL_M  # finger travel at which the pads touch the block


class PickPlaceExpert:
    """Three regimes, chosen by the state alone: *reach*, *grasp*, *carry*.

    The gripper closes when the hand is around the block and stays closed while the block is there.
    """

    name = "scripted"

    def act(self, observation: FloatArray, privileged: Mapping[str, Array]) -> FloatArray:  # noqa: ARG002
        """Actions (N, 4) from "hand_pos_w_m", "finger_pos_m", "block_pos_w_m" and "context"."""
        block = privileged["block_pos_w_m"]
        offset = privileged["hand_pos_w_m"] - block
        across = np.linalg.norm(offset[:, :2], axis=1)
        around = (across < HELD_M) & (offset[:, 2] < GRASP_HEIGHT_M + 0.012)
        held = around & (np.abs(privileged["finger_pos_m"]).min(axis=1) > CLOSED_M)
        move = np.where(
            held[:, None],
            _carry(privileged["context"][:, :3] - block),
            _reach(offset, across, around),
        )
        closing = np.where(around, 1.0, -1.0)
        return np.column_stack([move, closing]).astype(np.float32)


def _reach(offset: FloatArray, across: FloatArray, around: Array) -> FloatArray:
    """Over the block, then down to where the fingers grasp; still while they close."""
    down = (across < OVER_M) | around
    height = np.where(down, GRASP_HEIGHT_M, CLEAR_HEIGHT_M) - offset[:, 2]
    # A hand that is low beside the block rises before it travels.
    free = down | (offset[:, 2] > CLEAR_HEIGHT_M - 0.015)
    level = np.where((free & ~around)[:, None], -offset[:, :2], 0)
    return np.column_stack([straight(level, STEP_M), np.clip(height / STEP_M, -1, 1)])


def _carry(error: FloatArray) -> FloatArray:
    """Straight to the goal, each axis at full speed until it is there."""
    move: FloatArray = np.clip(error / STEP_M, -1, 1)
    return move
