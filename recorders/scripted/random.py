"""The random expert: uniform actions, for families that have no expert yet.

Pseudo-random numbers seeded with the simulator's state keep what every expert promises: the action
depends on the privileged state alone, whatever else is in the batch, and after resuming.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b

import numpy as np

from demokit.envs import make_family
from demokit.random import stream
from demokit.types import Array, FloatArray


class RandomExpert:
    """Actions uniform in [-1, 1]; knows nothing and solves nothing."""

    name = "random"

    def __init__(self, num_actions: int) -> None:
        self._num_actions = num_actions

    def act(self, observation: FloatArray, privileged: Mapping[str, Array]) -> FloatArray:  # noqa: ARG002
        """Actions (N, A) from "state" (N, S), or "progress" (N, 2) of what is not restorable."""
        rows = privileged["state" if "state" in privileged else "progress"]
        rngs = [stream(_seed(row), "random expert") for row in rows]
        return np.array([rng.uniform(-1, 1, self._num_actions) for rng in rngs], np.float32)


def make_random(family_name: str) -> RandomExpert:
    """The random expert of a family; raises DemokitError when there is no such family."""
    return RandomExpert(len(make_family(family_name).actions))


def _seed(state: FloatArray) -> int:
    return int.from_bytes(blake2b(state.tobytes(), digest_size=8).digest(), "little")
