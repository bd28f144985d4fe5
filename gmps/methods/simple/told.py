"""A policy that is told the task's context: what the search and the oracle share."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from demokit.random import torch_stream
from gmps.experience.actor import Certain, Seen
from gmps.experience.contexts import ContextUnits
from gmps.method import Iteration
from gmps.options import CloningOptions
from gmps.policies.gaussian import (
    LATENT,
    AdaptSpec,
    GaussianActor,
    GaussianPolicy,
    replicate,
)
from gmps.policies.meta_params import MetaParams
from gmps.policies.standard import (
    demo_statistics,
    make_policy,
    policy_tensors,
    require_params,
    statistics_of,
)
from gmps.problem import Problem, Training
from gmps.steps.imitation import clone


class UnderContext(GaussianActor):
    """Acts by the policy's mean under contexts (M, K, C), its memory; without noise.

    What is tried is the context.
    """

    def __init__(self, policy: GaussianPolicy, theta: dict[str, Tensor], context: Tensor) -> None:
        super().__init__(policy, replicate(theta, len(context)), context[:, :, None])
        self.memory = context

    def __call__(self, memory: Any, seen: Seen) -> tuple[Certain, Any]:  # type: ignore[override]
        """See `Actor`."""
        dist, memory = super().__call__(memory, seen)
        return Certain(dist.mean), memory


@dataclass(frozen=True, eq=False)
class ToldLearner:
    """What acts by one policy under contexts, whoever says which.

    Attributes:
        policy: the pure functions; contexts stand for its bias transformation.
        meta: its parameters.
        units: in which it is told contexts.
        episodes_per_step: K.
    """

    policy: GaussianPolicy
    meta: MetaParams
    units: ContextUnits
    episodes_per_step: int

    def with_meta(self, meta: MetaParams) -> Self:
        """The same with other parameters."""
        return replace(self, meta=meta)

    def under(self, context: Tensor) -> UnderContext:
        """The policy under standardised contexts (M, K, C)."""
        theta = self.meta.theta
        return UnderContext(self.policy, theta, context.to(theta[LATENT].device))

    def tensors(self) -> dict[str, Tensor]:
        """See `MetaLearner`."""
        return {**self.meta.tensors(), **policy_tensors(self.policy)}

    def header(self) -> dict[str, Any]:
        """See `MetaLearner`."""
        return {}

    def to(self, device: torch.device) -> Self:
        """See `MetaLearner`; contexts stay on the CPU."""
        return replace(self, policy=self.policy.to(device), meta=self.meta.to(device))


class Parts(NamedTuple):
    """What makes a `ToldLearner`."""

    policy: GaussianPolicy
    meta: MetaParams
    units: ContextUnits
    episodes_per_step: int


def fresh(training: Training[CloningOptions]) -> Parts:
    """Fresh parameters, and constants taken from the demonstrations."""
    options, problem = training.options, training.problem
    statistics = demo_statistics(training.demonstrations, options.object_weight)
    units = ContextUnits.over(problem.tasks)
    policy = make_policy(options, problem.schema, problem.sees, statistics, len(units.mean))
    theta = policy.init(torch_stream(options.seed, "theta"))
    theta[LATENT] = torch.zeros_like(theta[LATENT])
    return Parts(policy, MetaParams(theta, {}), units, options.rollouts_per_task)


def loaded(problem: Problem, options: CloningOptions, tensors: dict[str, Tensor]) -> Parts:
    """Those of a checkpoint."""
    units = ContextUnits.over(problem.tasks)
    statistics = statistics_of(tensors)
    policy = make_policy(options, problem.schema, problem.sees, statistics, len(units.mean))
    meta = MetaParams.of_tensors(tensors)
    require_params(policy, meta, AdaptSpec.of_policy(meta.theta), step_sizes=False)
    return Parts(policy, meta, units, options.rollouts_per_task)


def train(
    training: Training[CloningOptions],
    learner: Any,
    state: Mapping[str, Tensor],
    first: int,
) -> Generator[Iteration]:
    """Behaviour cloning of one policy that is told every training task's context."""
    contexts = learner.units.of(training.problem.tasks)
    yield from clone(training, learner, state, first, contexts)
