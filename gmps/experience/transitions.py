"""Transitions of tasks: what models of them learn from, and what a policy may read of a task."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from gmps.experience.actor import Seen
from gmps.experience.rollouts import Rollouts

Batch = TypeVar("Batch", bound=tuple[Any, ...])


class Transitions(NamedTuple):
    """Transitions (..., N, ...) of tasks.

    `before` and `after` (..., F) are what models see of the states, `action` (..., A) as executed,
    `reward` (...,), and `weight` (...,), zero where an episode had ended.
    """

    before: Tensor
    action: Tensor
    after: Tensor
    reward: Tensor
    weight: Tensor

    @property
    def counts(self) -> Tensor:
        """Which have a weight, (...,) bool."""
        return self.weight > 0

    def paid(self) -> tuple[Tensor, Tensor]:
        """What a reward depends on, and rewards (..., 1)."""
        return torch.cat((self.after, self.action), -1), self.reward[..., None]

    def moved(self) -> tuple[Tensor, Tensor]:
        """What a change of state depends on, and changes (..., F)."""
        return torch.cat((self.before, self.action), -1), self.after - self.before


def between(
    states: Tensor, action: Tensor, reward: Tensor, alive: Tensor, stride: int = 1
) -> Transitions:
    """Of episodes (M, K, T, ...), every `stride`-th of T - 1: (M, K, N, ...).

    An episode's last step is none, for where it led is not seen. What lies behind its end is 0.
    """
    steps = slice(0, states.shape[2] - 1, stride)
    met = alive[:, :, steps]
    parts = states[:, :, steps], action[:, :, steps].clamp(-1, 1), states[:, :, 1:][:, :, steps]
    before, done, after = (torch.where(met[..., None], part, 0.0) for part in parts)
    paid = torch.where(met, reward[:, :, steps], 0.0)
    return Transitions(before, done, after, paid, met.to(states.dtype))


def met_in(rollouts: Rollouts, stride: int = 1) -> Transitions:
    """`between` the states that roll-outs (M, K, T, ...) saw."""
    assert isinstance(rollouts.observation, Tensor)
    parts = rollouts.observation, rollouts.action, rollouts.reward, rollouts.alive
    return between(*parts, stride)


def newly_met(before: Tensor, alive: Tensor, seen: Seen) -> Transitions:
    """What led from observations (B, O) of who was alive (B,) to what is seen, (B, 1, ...)."""
    assert isinstance(seen.observation, Tensor)
    now = seen.observation.flatten(0, 1)
    action, reward = seen.action.flatten(0, 1).clamp(-1, 1), seen.reward.flatten()
    parts = before, action, now, reward, alive.to(now.dtype)
    return Transitions(*(values[:, None] for values in parts))


def none_met(
    shape: tuple[int, ...], state: int, action: int, device: torch.device | None = None
) -> Transitions:
    """Places, such as (M, N), for transitions of tasks, none of which was met."""
    shapes = (state,), (action,), (state,), (), ()
    return Transitions(*(torch.zeros(*shape, *own, device=device) for own in shapes))


def flat(met: Transitions) -> Transitions:
    """Of episodes (M, K, N, ...), as the tasks' (M, K * N, ...)."""
    return Transitions(*(values.flatten(1, 2) for values in met))


def repeated(met: Transitions, num: int) -> Transitions:
    """Of tasks (M, ...), for `num` episodes of each, (M * num, ...)."""
    return Transitions(*(values.repeat_interleave(num, 0) for values in met))


def joined(first: Batch, *others: Batch) -> Batch:
    """Named tuples (M, N, ...) of the same tasks, one behind the other."""
    return type(first)(*(torch.cat(parts, 1) for parts in zip(first, *others, strict=True)))


def newest(batch: Batch, num: int) -> Batch:
    """The last `num` of N, or all, of a named tuple (M, N, ...)."""
    return type(batch)(*(values[:, max(0, values.shape[1] - num) :] for values in batch))


def latest(met: Transitions, num: int) -> Transitions:
    """The last `num` of each task (M, N, ...) that count, N >= num; behind what does not."""
    order = met.counts.to(torch.uint8).argsort(dim=1, stable=True)[:, -num:]
    rows = torch.arange(len(order), device=order.device)[:, None]
    return Transitions(*(values[rows, order] for values in met))
