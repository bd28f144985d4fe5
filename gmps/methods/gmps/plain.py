"""GMPS as the paper has it: roll-outs sample from the policy, a policy-gradient step adapts it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor

from demokit.learning.networks import Params
from demokit.random import torch_stream
from demokit.types import Task
from gmps.distributed import Part
from gmps.experience.rollouts import Gathered
from gmps.gradient import (
    GradientLearner,
    loaded_advantage,
    loaded_meta,
    loaded_step_size,
    make_advantage,
)
from gmps.methods.gmps.algorithm import train
from gmps.methods.gmps.objective import MetaObjective
from gmps.methods.gmps.options import GMPSOptions
from gmps.policies.gaussian import AdaptSpec, GaussianPolicy
from gmps.policies.meta_params import MetaParams
from gmps.policies.standard import demo_statistics, make_policy, statistics_of
from gmps.problem import Problem, Training
from gmps.steps.advantage import Advantage
from gmps.steps.inner import InnerBatch

__all__ = ["GMPS", "load", "start", "train"]


class GMPS(GradientLearner):
    """The learner of the paper; see `Guided`."""

    def taught(self, explored: Gathered, tasks: Sequence[Task], part: Part) -> Self:
        """Nothing: theta learns by the meta-objective alone."""
        return self

    @torch.no_grad()
    def shown(self, explored: Gathered) -> InnerBatch:
        """The roll-outs' own observations: what encodes them learns in the outer steps."""
        features = self.policy.encode(self.meta.theta, explored.rollouts.observation)
        return self.seen_batch(explored.rollouts, features)

    def objective(self, options: GMPSOptions, tasks: Sequence[Task]) -> MetaObjective:
        """See `Guided`."""
        dtype = torch.bfloat16 if options.precision == "bf16" else None

        def adapted(meta: MetaParams, batch: InnerBatch) -> Params:
            return self.inner.for_tasks(*meta, batch, dtype)

        return MetaObjective(
            self.policy,
            adapted,
            options.outer_loss,
            options.pre_update_weight,
            bf16=dtype is not None,
            post_weight=options.post_weight,
            object_weight=options.object_weight,
        )


def start(training: Training[GMPSOptions]) -> GMPS:
    """Fresh parameters, and constants taken from the demonstrations."""
    options, demos = training.options, training.demonstrations
    policy = _policy(options, training.problem, demo_statistics(demos, options.object_weight))
    theta = policy.init(torch_stream(options.seed, "theta"))
    alpha = AdaptSpec.of_policy(theta).init_step_sizes(theta, options.inner_lr)
    advantage = make_advantage(options, demos, policy)
    return _learner(options, policy, MetaParams(theta, alpha), advantage)


def load(
    problem: Problem, options: GMPSOptions, tensors: dict[str, Tensor], header: dict[str, Any]
) -> GMPS:
    """The learner of a checkpoint."""
    policy = _policy(options, problem, statistics_of(tensors))
    meta = loaded_meta(policy, tensors, step_sizes=True)
    advantage = loaded_advantage(options, tensors, header)
    return _learner(options, policy, meta, advantage, loaded_step_size(header))


def _policy(
    options: GMPSOptions, problem: Problem, statistics: tuple[Tensor, Tensor]
) -> GaussianPolicy:
    width = options.bias_transform_width
    return make_policy(options, problem.schema, problem.sees, statistics, width)


def _learner(
    options: GMPSOptions,
    policy: GaussianPolicy,
    meta: MetaParams,
    advantage: Advantage,
    step_size: float | None = None,
) -> GMPS:
    return GMPS.of(
        options,
        policy,
        meta,
        advantage,
        options.rollouts_per_task,
        step_size,
        ratio_clip=options.ratio_clip,
        ratio_gradient=options.ratio_gradient,
        second_order=options.second_order,
    )
