"""PointCoded: as Point, but what names a task says nothing about it.

The context is a code, two random numbers that stand for a goal as a serial number stands for a
thing: the same code is always the same goal, and neighbouring codes have nothing in common. A
method that learns from contexts can know the training tasks by heart and nothing of the next.

Everything but the goal is `point`'s. The goal is a hash of the code, uniform in `point`'s square:
SplitMix64 (Steele et al., 2014) of the code as float32. Codes out of distribution stand for goals
out of `point`'s distribution.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from demokit.envs.family import ContextSpace, Terms
from demokit.envs.point import Point
from demokit.types import FloatArray

GOAL_RANGE_M = 1.0
OOD_RANGE_M = 1.4
_GAMMA = np.uint64(0x9E3779B97F4A7C15)


class PointCoded(Point):
    """A point in the plane; context: a code of two numbers, which stands for the goal."""

    name = "point-coded"
    context = ContextSpace(
        names=("code_0", "code_1"),
        units=("1", "1"),
        low=(-1.0, -1.0),
        high=(1.0, 1.0),
        ood_low=(-1.4, -1.4),
        ood_high=(1.4, 1.4),
    )

    def goal_w_m(self, terms: Terms, context: FloatArray) -> FloatArray:  # noqa: ARG002
        """The goals (N, 2) that codes (N, 2) stand for."""
        inside = GOAL_RANGE_M * _hashed(context)
        # Out of distribution the square's inner and outer edge are at 1 m and at 1.4 m.
        reach = np.abs(inside).max(axis=1, keepdims=True)
        outside = inside / reach * (GOAL_RANGE_M + (OOD_RANGE_M - GOAL_RANGE_M) * reach)
        known = (np.abs(context) <= self.context.high[0]).all(axis=1, keepdims=True)
        return np.where(known, inside, outside)


def _hashed(code: FloatArray) -> FloatArray:
    """Two numbers uniform in [-1, 1) for each code, (N, 2)."""
    first, second = code.astype(np.float32).view(np.uint32).astype(np.uint64).T
    key = mixed(mixed(first) ^ second)
    bits = np.column_stack([mixed(key + _GAMMA), mixed(key + _GAMMA + _GAMMA)])
    return (bits >> np.uint64(11)) * 2.0**-52 - 1.0


def mixed(key: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The output function of SplitMix64, (N,): every bit of the key changes every bit of it."""
    key = (key ^ (key >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    key = (key ^ (key >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return key ^ (key >> np.uint64(31))
