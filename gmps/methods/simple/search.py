"""Search for the context of a new task, by the returns of episodes under contexts.

The policy was told the contexts of the training tasks while it imitated. On a new task nobody tells
it: contexts are tried, and episodes say what each is worth. Source: policy transfer with strategy
optimisation, Yu et al., 2019 (arXiv 1810.05751), where CMA-ES searches for the dynamics. Candidates
stay within what the training tasks span, component by component.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gmps.experience.rollouts import Rollouts
from gmps.methods.simple.options import SearchOptions
from gmps.methods.simple.searches import SEARCH_BY_NAME, Tried
from gmps.methods.simple.told import Parts, ToldLearner, UnderContext, fresh, loaded, train
from gmps.problem import Problem, Training

__all__ = ["SearchLearner", "load", "start", "train"]


@dataclass(frozen=True, eq=False)
class SearchLearner(ToldLearner):
    """Tries contexts, and acts under the one that its search recommends; at first under the mean.

    Its belief are `context` (M, n, C), standardised, that were tried, and what they were `paid`,
    (M, n): returns.

    Attributes:
        space: contexts (N, C) of the training tasks.
        search: see `SEARCH_BY_NAME`.
    """

    space: Tensor
    search: str

    def begin(self, num_tasks: int) -> dict[str, Tensor]:
        """Nothing was tried."""
        context = self.space.new_zeros(num_tasks, 0, self.space.shape[1])
        return {"context": context, "paid": context[..., 0]}

    def explorer(
        self,
        belief: dict[str, Tensor],
        step: int,
        num: int,
        rngs: Sequence[np.random.Generator],
    ) -> UnderContext:
        """What the search proposes to try."""
        propose = SEARCH_BY_NAME[self.search].propose
        every = zip(self._by_task(belief), rngs, strict=True)
        return self.under(torch.stack([propose(tried, num, rng) for tried, rng in every]))

    def adapt(
        self, belief: dict[str, Tensor], step: int, gathered: Rollouts, memory: Tensor
    ) -> dict[str, Tensor]:
        """Remember what was tried, and what it was paid."""
        paid = gathered.reward.sum(-1).cpu()
        return {
            "context": torch.cat((belief["context"], memory.cpu()), 1),
            "paid": torch.cat((belief["paid"], paid), 1),
        }

    def exploiter(self, belief: dict[str, Tensor], num: int) -> UnderContext:
        """The policy under what the search recommends."""
        recommend, unknown = SEARCH_BY_NAME[self.search].recommend, self.space.mean(0)
        best = [recommend(tried) if len(tried.paid) else unknown for tried in self._by_task(belief)]
        return self.under(torch.stack(best)[:, None].expand(-1, num, -1))

    def _by_task(self, belief: dict[str, Tensor]) -> list[Tried]:
        tasks = zip(belief["context"], belief["paid"], strict=True)
        return [Tried(self.space, context, paid) for context, paid in tasks]


def start(training: Training[SearchOptions]) -> SearchLearner:
    """Before training."""
    return _learner(fresh(training), training.problem, training.options)


def load(
    problem: Problem, options: SearchOptions, tensors: dict[str, Tensor], _header: dict[str, Any]
) -> SearchLearner:
    """The learner of a checkpoint."""
    return _learner(loaded(problem, options, tensors), problem, options)


def _learner(parts: Parts, problem: Problem, options: SearchOptions) -> SearchLearner:
    return SearchLearner(*parts, parts.units.of(problem.tasks), options.search)
