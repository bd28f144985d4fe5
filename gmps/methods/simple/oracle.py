"""The oracle: imitation that is told the context of the new task, and needs no episode of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from torch import Tensor

from demokit.errors import DemokitError
from gmps.experience.rollouts import Rollouts
from gmps.methods.simple.options import OracleOptions
from gmps.methods.simple.told import ToldLearner, UnderContext, fresh, loaded, train
from gmps.problem import Problem, Training

__all__ = ["OracleLearner", "load", "start", "train"]


@dataclass(frozen=True, eq=False)
class OracleLearner(ToldLearner):
    """Acts by the policy under the new tasks' own contexts; see `IsTold`.

    Its belief are these contexts (M, C), standardised.
    """

    contexts: Tensor | None = None

    def told(self, contexts: Tensor) -> Self:
        """See `IsTold`."""
        return replace(self, contexts=self.units.standard(contexts))

    def begin(self, num_tasks: int) -> dict[str, Tensor]:
        """What it was told; raises DemokitError where it was told nothing, or of other tasks."""
        if self.contexts is None or len(self.contexts) != num_tasks:
            raise DemokitError("An oracle acts in the tasks whose contexts it is told, no others.")
        return {"context": self.contexts}

    def explorer(
        self,
        belief: dict[str, Tensor],
        step: int,
        num: int,
        rngs: Sequence[np.random.Generator],
    ) -> UnderContext:
        """There is nothing to explore."""
        return self.exploiter(belief, num)

    def adapt(
        self, belief: dict[str, Tensor], step: int, gathered: Rollouts, memory: Any
    ) -> dict[str, Tensor]:
        """There is nothing to learn."""
        return belief

    def exploiter(self, belief: dict[str, Tensor], num: int) -> UnderContext:
        """The policy under each task's context."""
        return self.under(belief["context"][:, None].expand(-1, num, -1))


def start(training: Training[OracleOptions]) -> OracleLearner:
    """Before training."""
    return OracleLearner(*fresh(training))


def load(
    problem: Problem, options: OracleOptions, tensors: dict[str, Tensor], _header: dict[str, Any]
) -> OracleLearner:
    """The learner of a checkpoint."""
    return OracleLearner(*loaded(problem, options, tensors))
