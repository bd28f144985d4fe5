"""The learner of MAML's family: everything adapts, the standard deviation among it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from demokit.errors import DemokitError
from demokit.learning.networks import Params
from demokit.random import torch_stream
from gmps.experience.contexts import ContextUnits
from gmps.gradient import GradientLearner, loaded_meta, loaded_step_size
from gmps.methods.maml.options import (
    InnerOptions,
    MultiTaskOptions,
    OnPolicyOptions,
    RewardOptions,
)
from gmps.policies.gaussian import LATENT, AdaptSpec, GaussianPolicy
from gmps.policies.meta_params import MetaParams
from gmps.policies.standard import statistics_of
from gmps.problem import Problem, Training
from gmps.steps.advantage import Advantage
from gmps.steps.inner import InnerStep, LikelihoodStep


@dataclass(frozen=True, eq=False)
class RewardLearner(GradientLearner):
    """phi <- phi - alpha * grad, with the alpha of training; another in steps beyond those.

    Attributes:
        trained_steps: inner steps in training.
    """

    trained_steps: int = 1

    def step_sizes(self, step: int) -> Params:
        """Of adaptation step 0, 1, ..."""
        factor = 1.0 if step < self.trained_steps else self.later_decay
        assert self.step_size is not None
        alpha = self.scale * self.step_size * factor
        return self.inner.spec.init_step_sizes(self.meta.theta, alpha)


@dataclass(frozen=True, eq=False)
class RewardOracle(GradientLearner):
    """The fine-tuned policy of MultiTask, told the tasks it is in; see `IsTold`.

    Contexts are added to its bias transformation, as wide as they are.

    Attributes:
        units: in which it is told contexts.
        contexts: of the tasks it is in, (M, C), standardised.
    """

    units: ContextUnits | None = None
    contexts: Tensor | None = None

    def told(self, contexts: Tensor) -> Self:
        """See `IsTold`."""
        assert self.units is not None
        return replace(self, contexts=self.units.standard(contexts))

    def begin(self, num_tasks: int) -> Params:
        """Theta under what it was told; raises DemokitError where that is of other tasks."""
        if self.contexts is None or len(self.contexts) != num_tasks:
            raise DemokitError("An oracle acts in the tasks whose contexts it is told, no others.")
        theta = super().begin(num_tasks)
        return {**theta, LATENT: theta[LATENT] + self.contexts.to(theta[LATENT].device)}


def start(training: Training[RewardOptions]) -> GradientLearner:
    """Fresh parameters; raises DemokitError where images are seen."""
    options, problem = training.options, training.problem
    problem.require_states()
    training.require_batch(options.meta_batch)
    zeros = torch.zeros(problem.schema.width)
    units = _told_in(options, problem)
    policy = policy_of(options, problem, (zeros, zeros + 1), len(units.mean) if units else 0)
    theta = policy.init(torch_stream(options.seed, "theta"))
    theta[LATENT] = torch.zeros_like(theta[LATENT])
    return _learner(options, policy, MetaParams(theta, {}), units)


def load(
    problem: Problem, options: RewardOptions, tensors: dict[str, Tensor], header: dict[str, Any]
) -> GradientLearner:
    """The learner of a checkpoint."""
    units = _told_in(options, problem)
    policy = policy_of(options, problem, statistics_of(tensors), len(units.mean) if units else 0)
    meta = loaded_meta(policy, tensors, step_sizes=False)
    learner, step_size = _learner(options, policy, meta, units), loaded_step_size(header)
    return learner if step_size is None else learner.with_step_size(step_size)


def policy_of(
    options: OnPolicyOptions,
    problem: Problem,
    statistics: tuple[Tensor, Tensor],
    latent_width: int = 0,
) -> GaussianPolicy:
    """Of states as they are: nothing has been seen by which to standardise them."""
    return GaussianPolicy(
        *statistics,
        len(problem.schema.actions),
        options.hidden_width,
        latent_width,
        options.initial_std,
        options.min_std,
        hidden_layers=options.hidden_layers,
        activation=options.activation,
        action_scale=options.action_scale,
    )


def _told_in(options: RewardOptions, problem: Problem) -> ContextUnits | None:
    """The units of contexts, of a policy that is told them."""
    oracle = isinstance(options, MultiTaskOptions) and options.oracle
    return ContextUnits.over(problem.tasks) if oracle else None


def _learner(
    options: RewardOptions, policy: GaussianPolicy, meta: MetaParams, units: ContextUnits | None
) -> GradientLearner:
    advantage = Advantage(options.discount, options.gae_lambda, options.baseline)
    num, spec = options.rollouts_per_task, AdaptSpec.all_but(meta.theta)
    if isinstance(options, InnerOptions):
        inner = _inner_step(options, policy, spec)
        parts = policy, meta, inner, advantage, num, options.inner_lr, options.later_decay
        return RewardLearner(*parts, trained_steps=options.inner_steps)
    assert isinstance(options, MultiTaskOptions)
    fine_tuned = options.step_size or None, options.later_decay, options.tuning_tasks
    step = LikelihoodStep(policy, spec)
    if units is None:
        return GradientLearner(policy, meta, step, advantage, num, *fine_tuned)
    return RewardOracle(policy, meta, step, advantage, num, *fine_tuned, units=units)


def _inner_step(options: InnerOptions, policy: GaussianPolicy, spec: AdaptSpec) -> InnerStep:
    second_order = options.second_order
    if options.form.inner_ratio:
        return InnerStep(policy, spec, math.inf, ratio_gradient=True, second_order=second_order)
    return LikelihoodStep(policy, spec, second_order=second_order)
