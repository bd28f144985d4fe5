"""The expert of Push: get behind the block, push it straight to the goal, stop there."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from demokit.envs.rotation import rotated
from demokit.envs.sawyer import STEP_M
from demokit.types import Array, FloatArray
from recorders.scripted.point import straight

PUSH_HEIGHT_W_M = 0.05
CLEAR_HEIGHT_W_M = 0.12  # the fingertips (4.5 cm below the hand) pass over the block (5 cm)
LOW_W_M = 0.075
BEHIND_M = 0.045  # farther back than this, the fingers cannot touch the block
CRADLE_HALF_WIDTH_M = 0.03
CRADLE_DEPTH_M = 0.012  # nearer than this the hand is over the block, not behind it
STANDOFF_M = 0.052  # where the hand comes down behind the block
SIDEWAYS_EXTRA_M = 0.034  # all these distances are longer where one finger pushes, along x
APART_M = 0.085  # farther away than this in the plane, rising first is not needed
CENTRING = 1.0  # share of the lateral offset from the block that one step takes back
ARRIVED_M = 0.004
COAST_S = 0.02  # how long the block goes on at its speed after the hand has stopped


class PushExpert:
    """Pushes along y with both fingers, and goes over the block to the side that this needs.

    Three regimes, chosen by the state alone: *push* when the fingers hold the block, *approach*
    when the hand is behind it, *around* (up, over, down) when it is beside or ahead of it. A block
    that is left beside its goal is pushed along x, by one finger.
    """

    name = "scripted"

    def act(self, observation: FloatArray, privileged: Mapping[str, Array]) -> FloatArray:  # noqa: ARG002
        """Actions (N, 3) from "hand_pos_w_m", "block_pos_w_m", "block_vel_w" and "context"."""
        hand = privileged["hand_pos_w_m"]
        block = privileged["block_pos_w_m"][:, :2]
        error = privileged["context"][:, :2] - block - COAST_S * privileged["block_vel_w"][:, :2]
        offset = hand[:, :2] - block
        low = hand[:, 2] < LOW_W_M
        heading = _heading(error, offset)
        extra = SIDEWAYS_EXTRA_M * np.abs(heading[:, 0])
        ahead = np.einsum("ni,ni->n", offset, heading)
        lateral = offset - ahead[:, None] * heading
        behind = ahead < -BEHIND_M - extra
        held = low & (ahead < -CRADLE_DEPTH_M - extra) & ~behind
        held &= np.abs(lateral).max(axis=1) < CRADLE_HALF_WIDTH_M
        arrived = low & (np.linalg.norm(error, axis=1) < ARRIVED_M)
        standoff = -offset - (STANDOFF_M + extra)[:, None] * heading
        move = np.select(
            [arrived[:, None], held[:, None], behind[:, None]],
            [0 * offset, _push(error, heading, lateral), _approach(lateral, heading, low)],
            _around(standoff, offset, hand[:, 2]),
        )
        height = np.where(arrived | held | behind, PUSH_HEIGHT_W_M, CLEAR_HEIGHT_W_M)
        up = np.clip((height - hand[:, 2]) / STEP_M, -1, 1)
        return np.column_stack([straight(move, STEP_M), up]).astype(np.float32)


class PushRotatedExpert(PushExpert):
    """Knows the angle, and turns its moves back by it; what is too long is cut, not bent."""

    def act(self, observation: FloatArray, privileged: Mapping[str, Array]) -> FloatArray:
        """Actions (N, 3), as `PushExpert`; "context" holds the angle behind the goal."""
        action = super().act(observation, privileged)
        move = rotated(action[:, :2], -privileged["context"][:, 2])
        return np.column_stack([straight(move, 1.0), action[:, 2]])


def _heading(error: FloatArray, offset: FloatArray) -> FloatArray:
    """Unit vectors (N, 2) to push along: x for a block left beside its goal, else y.

    Near the goal the hand stays on the side where it is.
    """
    toward_y = np.where(error[:, 1] < 0, -1.0, 1.0)
    from_y = np.where(offset[:, 1] > 0, -1.0, 1.0)
    y = np.where(np.abs(error[:, 1]) < 0.02, from_y, toward_y)
    across, along = np.abs(offset[:, 0]), np.abs(offset[:, 1])
    beside = (along < 0.03) & (across < 0.1) & (offset[:, 0] * error[:, 0] < 0)
    behind = (across < 0.03) & (along < 0.07)
    # The longer the hand would have to travel to change sides, the worse the reason must be.
    ratio = np.select([beside & ~behind, behind], [0.25, 4.0], 2.0)
    least = np.where(beside & ~behind, 0.01, 0.03)
    sideways = (np.abs(error[:, 0]) > ratio * np.abs(error[:, 1])) & (np.abs(error[:, 0]) > least)
    along_x = np.column_stack([np.sign(error[:, 0]), np.zeros(len(error))])
    along_y = np.column_stack([np.zeros(len(error)), y])
    return np.where(sideways[:, None], along_x, along_y)


def _push(error: FloatArray, heading: FloatArray, lateral: FloatArray) -> FloatArray:
    """The block's straight way to the goal, the block kept in the fingers' middle."""
    # One finger cannot hold the block on a slanted way: along x it pushes straight ahead.
    way = np.where(heading[:, :1] != 0, error * np.abs(heading), error)
    return STEP_M * straight(way, STEP_M) - CENTRING * lateral


def _approach(lateral: FloatArray, heading: FloatArray, low: Array) -> FloatArray:
    """Onto the line behind the block, and forward along it once low."""
    return np.where(low[:, None], 2 * STEP_M * heading, 0) - lateral


def _around(standoff: FloatArray, offset: FloatArray, height_w_m: FloatArray) -> FloatArray:
    """To the standoff point, once the fingers are above the block or well apart from it."""
    clear = height_w_m > CLEAR_HEIGHT_W_M - 0.015
    free = clear | (np.linalg.norm(offset, axis=1) > APART_M)
    return np.where(free[:, None], standoff, 0.0)
