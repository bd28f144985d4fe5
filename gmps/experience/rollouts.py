"""Roll-outs as tensors: all that a method may learn a new task from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gmps.experience.observation import Observation, each


@dataclass(frozen=True, eq=False)
class Rollouts:
    """Episodes of M tasks, K each, of T steps: no task, no success.

    `observation` (M, K, T, ...), `action` (M, K, T, A) before clipping, `log_prob` and `reward`
    (M, K, T), `alive` and `terminated` (M, K, T) bool. Episodes that end before T keep stepping,
    unpaid: they are alive up to and with the step that ends them, and their later rewards are 0.
    That step is `terminated` where the episode ended by itself: a time limit, be it the
    environment's own, does not.
    """

    observation: Observation
    action: Tensor
    log_prob: Tensor
    reward: Tensor
    alive: Tensor
    terminated: Tensor

    @classmethod
    def empty(
        cls, shape: tuple[int, int, int], observation: Observation, action: Tensor
    ) -> Rollouts:
        """Room for roll-outs of `shape` (M, K, T), of such observations and actions (N, ...)."""
        return cls(
            each(lambda seen: seen.new_empty(*shape, *seen.shape[1:]), observation),
            action.new_empty(*shape, action.shape[-1]),
            action.new_empty(shape),
            action.new_empty(shape),
            action.new_empty(shape, dtype=torch.bool),
            action.new_empty(shape, dtype=torch.bool),
        )

    def keep(self, t: int, observation: Observation, *values: Tensor) -> None:
        """Write what happened at step t (M, K, ...), in the order of the attributes."""
        each(lambda kept, seen: kept[:, :, t].copy_(seen), self.observation, observation)
        rooms = self.action, self.log_prob, self.reward, self.alive, self.terminated
        for kept, value in zip(rooms, values, strict=True):
            kept[:, :, t] = value

    def episodes(self, chosen: slice) -> Rollouts:
        """The roll-outs of these episodes of every task."""
        return Rollouts(
            each(lambda values: values[:, chosen], self.observation),
            self.action[:, chosen],
            self.log_prob[:, chosen],
            self.reward[:, chosen],
            self.alive[:, chosen],
            self.terminated[:, chosen],
        )


class Gathered(NamedTuple):
    """What one actor did: its roll-outs, what it remembers, and success (M, K) at their ends.

    Methods are given the first two; success judges them.
    """

    rollouts: Rollouts
    memory: Any
    success: Tensor


class Sampled(NamedTuple):
    """Of the same simulations: what explored, and what acted by its mean (perhaps no episode)."""

    explored: Gathered
    judged: Gathered
