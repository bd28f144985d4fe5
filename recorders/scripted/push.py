"""The expert of Push: get behind the block, push it straight to the goal, stop there."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from demokit.envs.sawyer import STEP_M
from demokit.types import Array, FloatArray
from recorders.scripted.point import straight

PUSH_HEIGHT_W_M = 0.05
CLEAR_HEIGHT_W_M = 0.12  # the fingertips (4.5 cm below the hand) pass over the block (5 cm)
BEHIND_M = 0.045  # farther back than this, the fingers cannot touch the block
CRADLE_HALF_WIDTH_M = 0.03
CRADLE_DEPTH_M = 0.012  # nearer than this the hand is over the block, not behind it
CENTRING = 1.0  # share of the lateral offset from the block that one step takes back
STANDOFF_M = 0.052  # where the hand comes down behind the block
APART_M = 0.085  # farther away than this in the plane, rising first is not needed
ARRIVED_M = 0.004
COAST_S = 0.02  # how long the block goes on at its speed after the hand has stopped


class PushExpert:
    """Pushes along y, from whichever side the goal asks for, and goes over the block to get there.

    Three regimes, chosen by the state alone: *push* when the fingers cradle the block, *approach*
    when the hand is behind it, *around* (up, over, down) when it is beside or ahead of it.
    """

    name = "scripted"

    def act(self, observation: FloatArray, privileged: Mapping[str, Array]) -> FloatArray:  # noqa: ARG002
        """Actions (N, 3) from "hand_pos_w_m", "block_pos_w_m", "block_vel_w" and "context"."""
        hand = privileged["hand_pos_w_m"]
        block = privileged["block_pos_w_m"][:, :2]
        error = privileged["context"] - block - COAST_S * privileged["block_vel_w"][:, :2]
        offset = hand[:, :2] - block
        side = _side(error, offset)
        ahead = side * offset[:, 1]
        behind = ahead < -BEHIND_M
        low = hand[:, 2] < PUSH_HEIGHT_W_M + 0.025
        cradled = (
            ~behind & low & (ahead < -CRADLE_DEPTH_M)
            & (np.abs(offset[:, 0]) < CRADLE_HALF_WIDTH_M)
        )  # fmt: skip
        move = np.where(cradled[:, None], _push(hand, error, offset), _around(hand, offset, side))
        move = np.where((behind & ~cradled)[:, None], _approach(hand, offset, side), move)
        arrived = np.linalg.norm(error, axis=1) < ARRIVED_M
        move = np.where(arrived[:, None] & low[:, None], 0.0, move)
        return _limited(move)


def _side(error: FloatArray, offset: FloatArray) -> FloatArray:
    """+1 (N,) to push towards +y from behind, -1 to push back; near the goal, the hand's side."""
    wanted = np.where(error[:, 1] < 0, -1.0, 1.0)
    here = np.where(offset[:, 1] > 0, -1.0, 1.0)
    return np.where(np.abs(error[:, 1]) < 0.02, here, wanted)


def _push(hand: FloatArray, error: FloatArray, offset: FloatArray) -> FloatArray:
    """The block's way to the goal, at the push height, the block kept between the fingers."""
    way = straight(error, STEP_M) * STEP_M
    way[:, 0] -= CENTRING * offset[:, 0]
    return np.column_stack([way, PUSH_HEIGHT_W_M - hand[:, 2]])


def _approach(hand: FloatArray, offset: FloatArray, side: FloatArray) -> FloatArray:
    """Onto the line behind the block and forward along it; down first when still high."""
    return np.column_stack(
        [
            -offset[:, 0],
            np.where(hand[:, 2] > PUSH_HEIGHT_W_M + 0.025, 0, side * 2 * STEP_M),
            PUSH_HEIGHT_W_M - hand[:, 2],
        ]
    )


def _around(hand: FloatArray, offset: FloatArray, side: FloatArray) -> FloatArray:
    """Up until the way is clear, then to the standoff point behind the block."""
    clear = hand[:, 2] > CLEAR_HEIGHT_W_M - 0.015
    free = clear | (np.linalg.norm(offset, axis=1) > APART_M)
    planar = np.column_stack([-offset[:, 0], -offset[:, 1] - side * STANDOFF_M])
    return np.column_stack([np.where(free[:, None], planar, 0), CLEAR_HEIGHT_W_M - hand[:, 2]])


def _limited(move_m: FloatArray) -> FloatArray:
    """Actions (N, 3) float32: straight in the plane, height on its own."""
    height = np.clip(move_m[:, 2:] / STEP_M, -1, 1)
    return np.column_stack([straight(move_m[:, :2], STEP_M), height]).astype(np.float32)
