"""The expert of Sliders: each block to its place."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from demokit.envs.sliders import STEP_M
from demokit.types import Array, FloatArray


class SlidersExpert:
    """Moves each block towards its place as far as one step allows."""

    name = "scripted"

    def act(self, observation: FloatArray, privileged: Mapping[str, Array]) -> FloatArray:  # noqa: ARG002
        """Actions (N, 6) from "slider_pos_m" (N, 6) and "context" (N, 6)."""
        offset_m = privileged["context"] - privileged["slider_pos_m"]
        return np.clip(offset_m / STEP_M, -1, 1).astype(np.float32)
