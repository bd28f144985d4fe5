"""Acting by an actor, step by step, wherever the observations come from."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from demokit.errors import DemokitError
from demokit.types import FloatArray
from gmps.experience.actor import Actor, Seen
from gmps.experience.observation import Observation, each


class Acting:
    """An actor by its mean in N episodes of one task, from their first step on.

    Args:
        actor: made for one task and N episodes.
        num: N.
        action_width: A.
    """

    def __init__(self, actor: Actor, num: int, action_width: int) -> None:
        self.num = num
        self._actor, self._memory, self._t = actor, actor.memory, 0
        self._zeros = torch.zeros(1, num, action_width)
        self._action, self._reward = self._zeros, self._zeros[..., 0]
        self._alive = torch.ones(1, num, dtype=torch.bool)

    @torch.no_grad()
    def __call__(self, observation: Observation) -> FloatArray:
        """What it does now, (N, A); the observation is (N, ...)."""
        own = each(lambda values: values[None], observation)
        seen = Seen(self._t, own, self._action, self._reward, self._alive)
        dist, self._memory = self._actor(self._memory, seen)
        self._action, self._reward = dist.sample(self._zeros), self._zeros[..., 0]
        self._t += 1
        return executed(self._action[0])

    def paid(self, reward: Any) -> None:
        """What the last action was paid, a number or (N,); nothing, where it is not told."""
        self._reward = rewards(reward, self.num)


def rewards(given: Any, num: int) -> Tensor:
    """Rewards (1, N); raises DemokitError unless float32 holds them."""
    values = np.asarray(given)
    if values.dtype.kind not in "fiub" or values.shape not in ((), (num,)):
        raise DemokitError(f"A reward is a number, not {given!r:.80}.")
    with np.errstate(over="ignore"):
        paid = np.array(values, np.float32)
    if not np.isfinite(paid).all():
        raise DemokitError(
            f"The reward is {values!s:.80}, which float32 does not hold: nothing is learned from "
            "it, give a finite one below 3e38."
        )
    return torch.from_numpy(paid).expand(num).clone()[None]


def executed(action: Tensor) -> FloatArray:
    """Actions (N, A) as they are executed: float32, clipped to [-1, 1].

    Raises:
        DemokitError: one is not finite.
    """
    values = action.numpy()
    if not np.isfinite(values).all():
        raise DemokitError("The policy's action is not finite: it is damaged, or has diverged.")
    clipped: FloatArray = values.clip(-1, 1)
    return clipped
