"""Trials: episodes of one task, one after the other, as one sequence of steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from gmps.experience.rollouts import Rollouts


@dataclass(frozen=True, eq=False)
class Trials:
    """B trials of up to L steps: an episode's first step follows the last of the one before.

    Steps behind the end of an episode are left out: those that count come first, and `alive` says
    which they are. `observation` (B, L, O), `action` (B, L, A), `log_prob` and `reward` (B, L),
    `alive` and `first` (B, L) bool, the latter at the first step of each episode; `ended` (B,) bool
    where the last episode ended by itself: a time limit does not.
    """

    observation: Tensor
    action: Tensor
    log_prob: Tensor
    reward: Tensor
    alive: Tensor
    first: Tensor
    ended: Tensor

    @classmethod
    def of(cls, gathered: Sequence[Rollouts]) -> Trials:
        """Of the episodes of B tasks in their order, one roll-out of each task at a time."""
        first = [torch.zeros_like(each.alive[:, 0]) for each in gathered]
        for starts in first:
            starts[:, 0] = True
        names = [each.name for each in fields(Rollouts) if each.name != "terminated"]
        whole = {n: torch.cat([getattr(each, n)[:, 0] for each in gathered], 1) for n in names}
        whole["first"] = torch.cat(first, 1)
        order = (~whole["alive"]).to(torch.uint8).argsort(stable=True)
        packed = {n: _ordered(values, order) for n, values in whole.items()}
        return cls(**packed, ended=gathered[-1].terminated[:, 0].any(1))

    def rows(self, chosen: Tensor) -> Trials:
        """Some of the trials."""
        return Trials(*(getattr(self, each.name)[chosen] for each in fields(self)))


def _ordered(values: Tensor, order: Tensor) -> Tensor:
    """Values (B, L, ...) in an order (B, L) of the steps."""
    index = order.view(*order.shape, *(values.ndim - 2) * (1,)).expand_as(values)
    return values.gather(1, index)
