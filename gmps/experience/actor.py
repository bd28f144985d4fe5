"""Who acts in M x K simulations: a function of what can be seen, and of its own memory."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from demokit.learning.distributions import Gaussian
from gmps.experience.observation import Observation


class Seen(NamedTuple):
    """What actors see before a step of M x K simulations; there is no task in it.

    `t` counts the steps of the episode from 0; `observation` (M, K, ...); `action` (M, K, A) and
    `reward` (M, K) are those of the step before, zero before the first; `alive` (M, K) bool is
    false behind an episode's end, where nothing counts any more.
    """

    t: int
    observation: Observation
    action: Tensor
    reward: Tensor
    alive: Tensor


class ActionDistribution(Protocol):
    """What an actor might do, of batch shape (M, K); `Gaussian` is one."""

    def sample(self, noise: Tensor) -> Tensor:
        """Actions (M, K, A) from standard normal noise of that shape; zero noise: the mean."""
        ...

    def log_prob(self, action: Tensor) -> Tensor:
        """Joint log-density (M, K) of actions (M, K, A)."""
        ...


class Certain(NamedTuple):
    """The one action (M, K, A) that is taken, without chance."""

    action: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """The action, whatever the noise."""
        return self.action

    def log_prob(self, action: Tensor) -> Tensor:
        """Zero, (M, K): nothing else can happen."""
        return action.new_zeros(action.shape[:-1])


class Actor(Protocol):
    """Whoever acts in M x K simulations.

    Attributes:
        memory: what it remembers at the first step; None for most. What it remembers at the end
            reaches `MetaLearner.adapt`.
    """

    @property
    def memory(self) -> Any:
        """At the first step."""
        ...

    def __call__(self, memory: Any, seen: Seen) -> tuple[ActionDistribution, Any]:
        """What it might do now, and what it remembers afterwards."""
        ...


class Replays:
    """Acts as was done before, whatever it sees, and not at all (zero) behind its end.

    Args:
        actions: D episodes of each task, (M, D, T, A).
        chosen: which of them, (M, K): the actor's memory.
        std: of noise on them.
    """

    def __init__(self, actions: Tensor, chosen: Tensor, std: float = 0.0) -> None:
        self.memory = chosen
        self._actions, self._std = actions, std

    def __call__(self, memory: Tensor, seen: Seen) -> tuple[ActionDistribution, Tensor]:
        """See `Actor`."""
        task = torch.arange(len(memory), device=memory.device)[:, None]
        last = self._actions.shape[2]
        done = self._actions[task, memory, min(seen.t, last - 1)] * (seen.t < last)
        if self._std:
            return Gaussian(done, done.new_full((), self._std)), memory
        return Certain(done), memory
