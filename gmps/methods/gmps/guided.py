"""What Algorithm 1 needs of a learner that imitation guides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, Self

from demokit.types import Task
from gmps.distributed import Part
from gmps.experience.rollouts import Gathered
from gmps.method import MetaLearner
from gmps.methods.gmps.objective import MetaObjective, ShownBatch
from gmps.policies.gaussian import GaussianPolicy
from gmps.policies.meta_params import MetaParams


class Guided(MetaLearner, Protocol):
    """A learner whose theta and step sizes the meta-objective trains."""

    @property
    def policy(self) -> GaussianPolicy:
        """Its pure functions."""
        ...

    @property
    def meta(self) -> MetaParams:
        """Its parameters."""
        ...

    def with_meta(self, meta: MetaParams) -> Self:
        """The same with other parameters."""
        ...

    def taught(self, explored: Gathered, tasks: Sequence[Task], part: Part) -> Self:
        """After what roll-outs on the training tasks teach besides; `part` is this process's."""
        ...

    def shown(self, explored: Gathered) -> ShownBatch:
        """What the inner step sees of the roll-outs."""
        ...

    def objective(self, options: Any, tasks: Sequence[Task]) -> MetaObjective:
        """The meta-objective over these training tasks."""
        ...
