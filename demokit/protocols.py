"""The small protocols between rooms: who may see what, and who acts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from demokit.types import Array, FloatArray


class Expert(Protocol):
    """Solves the task it is told: sees the observation and the privileged terms."""

    @property
    def name(self) -> str:
        """What datasets call it."""
        ...

    def act(self, observation: FloatArray, privileged: Mapping[str, Array]) -> FloatArray:
        """Actions (N, A) in [-1, 1]; `privileged` holds "context" (N, C) and the family's terms."""
        ...


class Decision(NamedTuple):
    """What an action source decides for N simulations.

    `action` (N, A) is executed; `label` (N, A) is what the expert would have done there, None, in
    every step, where nobody knows that; `by_expert` (N,) bool says whether the expert chose the
    action (noise added or not).
    """

    action: FloatArray
    label: FloatArray | None
    by_expert: NDArray[np.bool_]


class ActionSource(Protocol):
    """Whatever drives a recording: a device, a noisy expert, a policy."""

    name: str

    def decide(self, observation: FloatArray, privileged: Mapping[str, Array]) -> Decision:
        """The executed actions and the expert's for N simulations."""
        ...
