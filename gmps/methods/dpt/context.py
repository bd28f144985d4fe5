"""What is known of a task: transitions that were met there, as a set."""

from __future__ import annotations

from typing import Any, NamedTuple, Self, TypeVar

import torch
from torch import Tensor

from gmps.experience.rollouts import Rollouts

Batch = TypeVar("Batch", bound=tuple[Any, ...])


def joined(first: Batch, *others: Batch) -> Batch:
    """Named tuples of tensors (M, N, ...) as one, one behind the other."""
    return type(first)(*(torch.cat(parts, 1) for parts in zip(first, *others, strict=True)))


def newest(batch: Batch, num: int) -> Batch:
    """The last `num` of the second axis."""
    return type(batch)(*(values[:, max(0, values.shape[1] - num) :] for values in batch))


class Context(NamedTuple):
    """Transitions of M tasks: `before` and `after` (M, N, O), `action` (M, N, A) as executed,
    `reward` (M, N), and `met` (M, N) bool, which there are.
    """

    before: Tensor
    action: Tensor
    reward: Tensor
    after: Tensor
    met: Tensor

    @classmethod
    def empty(cls, num_tasks: int, observation_width: int, action_width: int, num: int = 0) -> Self:
        """Of tasks of which nothing is known."""
        seen = torch.zeros(num_tasks, num, observation_width)
        nothing = seen.new_zeros(num_tasks, num)
        return cls(
            seen, seen.new_zeros(num_tasks, num, action_width), nothing, seen, nothing.bool()
        )

    @classmethod
    def of(cls, rollouts: Rollouts, stride: int) -> Context:
        """Every `stride`-th transition of roll-outs (M, K, T, ...), (M, K, N, ...).

        An episode's last step is none, for where it led is not seen. What lies behind its end is 0.
        """
        assert isinstance(rollouts.observation, Tensor)
        steps = slice(0, rollouts.reward.shape[2] - 1, stride)
        met = rollouts.alive[:, :, steps]
        before, after = (seen[:, :, steps] for seen in _pairs(rollouts.observation))
        action, reward = rollouts.action[:, :, steps].clamp(-1, 1), rollouts.reward[:, :, steps]
        before, action, after = (
            torch.where(met[..., None], values, 0.0) for values in (before, action, after)
        )
        return cls(before, action, torch.where(met, reward, 0.0), after, met)

    def flat(self) -> Context:
        """(M, K, N, ...) as (M, K * N, ...)."""
        return Context(*(values.flatten(1, 2) for values in self))

    def repeated(self, num: int) -> Context:
        """For `num` episodes of every task, (M * num, ...)."""
        return Context(*(values.repeat_interleave(num, 0) for values in self))


def _pairs(observation: Tensor) -> tuple[Tensor, Tensor]:
    """States (M, K, T, O) before and after T - 1 steps."""
    return observation[:, :, :-1], observation[:, :, 1:]
