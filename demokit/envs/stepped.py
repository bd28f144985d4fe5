"""Families whose environments step themselves, by their own code, one after another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from demokit.envs.family import Family, Term, Terms, Views
from demokit.types import Array, FloatArray

if TYPE_CHECKING:
    import mujoco
    from mujoco.batch import Batch

SAID = tuple(
    Term(name, 1, "1", "none", "privileged") for name in ("reward", "terminated", "solved")
)
"""What an environment says of a step, as terms."""


def scaled(action: FloatArray, low: FloatArray, high: FloatArray) -> FloatArray:
    """Actions (..., A) in [-1, 1] as they are in the bounds (A,) of an environment."""
    share = (np.asarray(action, np.float32) + 1) / 2
    found: FloatArray = low + share * (high - low)
    return found


class Stepped(Family):
    """A family of one reward, whose terms are what is observed and `SAID`."""

    object_term = "observation"

    def reward_dense(self, terms: Terms, context: FloatArray, action: FloatArray) -> FloatArray:  # noqa: ARG002
        """The environment's reward for the step that led here."""
        return terms["reward"][:, 0]

    def reward_sparse(self, terms: Terms, context: FloatArray, action: FloatArray) -> FloatArray:
        """The same: Gymnasium's environments have one reward."""
        return self.reward_dense(terms, context, action)

    def success(self, terms: Terms, context: FloatArray) -> Array:  # noqa: ARG002
        """What the environment's info says under "is_success" or "success", else never."""
        return terms["solved"][:, 0] > 0

    def terminated(self, terms: Terms) -> NDArray[np.bool_]:
        """What the environment said."""
        return terms["terminated"][:, 0] > 0

    def spec(self) -> mujoco.MjSpec:
        """Never called: the environment has compiled its model."""
        raise NotImplementedError

    def views(self, sims: Batch) -> Views:
        """Never called: the environment steps itself, as for `start`, `control` and `read`."""
        raise NotImplementedError

    def start(self, noise: FloatArray) -> Views:
        """Never called."""
        raise NotImplementedError

    def control(self, views: Views, action: FloatArray) -> Views:
        """Never called."""
        raise NotImplementedError

    def read(self, views: Views) -> Terms:
        """Never called."""
        raise NotImplementedError
