"""Transitions of tasks: what models of rewards and of changes of state learn from."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Transitions(NamedTuple):
    """Transitions (..., N, ...) of tasks.

    `before` and `after` (..., F) are what models see of the states, `action` (..., A), `reward`
    (...,), and `weight` (...,), zero where an episode had ended.
    """

    before: Tensor
    action: Tensor
    after: Tensor
    reward: Tensor
    weight: Tensor

    def paid(self) -> tuple[Tensor, Tensor]:
        """What a reward depends on, and rewards (..., 1)."""
        return torch.cat((self.after, self.action), -1), self.reward[..., None]

    def moved(self) -> tuple[Tensor, Tensor]:
        """What a change of state depends on, and changes (..., F)."""
        return torch.cat((self.before, self.action), -1), self.after - self.before


def flat(met: Transitions) -> Transitions:
    """Of episodes (M, K, N, ...), as the tasks' (M, K * N, ...)."""
    return Transitions(*(values.flatten(1, 2) for values in met))


def none_met(num_tasks: int, state: int, action: int, num: int = 0) -> Transitions:
    """No transitions, of M tasks; or `num` places for them."""
    shapes = (state,), (action,), (state,), (), ()
    return Transitions(*(torch.zeros(num_tasks, num, *shape) for shape in shapes))


def joined(before: Transitions, after: Transitions) -> Transitions:
    """Those of the same tasks, one behind the other."""
    return Transitions(*(torch.cat(both, 1) for both in zip(before, after, strict=True)))


def latest(met: Transitions, num: int) -> Transitions:
    """The last `num` of each task (M, N, ...) that count, N >= num; behind what does not."""
    order = (met.weight > 0).to(torch.uint8).argsort(dim=1, stable=True)[:, -num:]
    rows = torch.arange(len(order), device=order.device)[:, None]
    return Transitions(*(values[rows, order] for values in met))
