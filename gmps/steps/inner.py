"""The inner loop: one policy-gradient step on a task's own reward."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from demokit.learning.networks import Params
from gmps.experience.observation import Observation, each, thinned
from gmps.experience.rollouts import Rollouts
from gmps.policies.gaussian import AdaptSpec, GaussianPolicy
from gmps.steps.inner_shared import surrogate_gradient
from gmps.steps.losses import inner_surrogate, mean_weights, policy_gradient


class InnerBatch(NamedTuple):
    """What an inner step sees of one task: rewards and observations only, as advantages.

    `observation` (S, ...), best encoded already, `action` (S, A), `behaviour_log_prob` (S,),
    `advantage` (S,), with S = K * T samples; a leading axis M when batched over tasks. The
    surrogate is linear in the advantages, so they carry which steps count (`mean_weights`): zero
    after an episode's end.
    """

    observation: Observation
    action: Tensor
    behaviour_log_prob: Tensor
    advantage: Tensor

    @classmethod
    def of(cls, rollouts: Rollouts, advantage: Tensor) -> InnerBatch:
        """Roll-outs with their advantages (M, K, T) as samples (M, K * T, ...)."""
        return cls(
            each(lambda values: values.flatten(1, 2), rollouts.observation),
            rollouts.action.flatten(1, 2),
            rollouts.log_prob.flatten(1, 2),
            advantage.flatten(1, 2) * mean_weights(rollouts.alive.flatten(1, 2)),
        )

    @property
    def num_samples(self) -> int:
        """Of all tasks."""
        return self.advantage.numel()

    def encoded(self, encode: Callable[[Observation], Tensor]) -> InnerBatch:
        """The same with features in place of observations."""
        return self._replace(observation=encode(self.observation))

    def thinned(self, stride: int, rng: np.random.Generator) -> InnerBatch:
        """Every `stride`-th sample, from a random first one."""
        return thinned(self, stride, rng)


@dataclass(frozen=True)
class InnerStep:
    """phi = theta - alpha * grad L_RL(theta), GMPS Eq. 3, for one task.

    It is differentiable in theta and alpha, and `torch.func.vmap` batches it over tasks. Without
    `second_order` its gradient counts as a constant (first-order MAML, Finn et al., 2017).
    """

    policy: GaussianPolicy
    spec: AdaptSpec
    ratio_clip: float = 10.0
    ratio_gradient: bool = False
    second_order: bool = True

    def loss(self, adapted: Params, frozen: Params, batch: InnerBatch) -> Tensor:
        """The surrogate L_RL as a function of the parameters that adapt."""
        return inner_surrogate(
            self.policy.dist({**frozen, **adapted}, batch.observation),
            batch.action,
            batch.behaviour_log_prob,
            batch.advantage,
            ratio_clip=self.ratio_clip,
            ratio_gradient=self.ratio_gradient,
        )

    def __call__(self, theta: Params, step_sizes: Params, batch: InnerBatch) -> Params:
        """The adapted parameters phi; `step_sizes` has an entry for each name of the spec."""
        adapted, frozen = self.spec.split(theta)
        gradient = torch.func.grad(self.loss)(adapted, frozen, batch)
        return {**frozen, **self._moved(adapted, step_sizes, gradient)}

    def for_tasks(
        self,
        theta: Params,
        step_sizes: Params,
        batches: InnerBatch,
        dtype: torch.dtype | None = None,
    ) -> Params:
        """The adapted parameters (M, ...) of M tasks, the fastest way that is right."""
        if self._is_of_layers:
            return self.from_shared(theta, step_sizes, batches, dtype)
        phi: Params = torch.func.vmap(self, in_dims=(None, None, 0))(theta, step_sizes, batches)
        return phi

    @property
    def _is_of_layers(self) -> bool:
        """Whether `from_shared` takes this very step."""
        plain = type(self) is InnerStep and not self.ratio_gradient
        return plain and self.policy.activation == "relu" and "log_std" not in self.spec.names

    def from_shared(
        self,
        theta: Params,
        step_sizes: Params,
        batches: InnerBatch,
        dtype: torch.dtype | None = None,
    ) -> Params:
        """The parameters (M, ...) that adapt, after a step of M tasks from the same theta.

        The same step as `vmap` of this object takes, faster: of this class itself, of layers of
        ReLU, the standard deviation aside, and without gradient through the ratio.

        Args:
            theta: without task axis.
            step_sizes: without task axis, too.
            batches: with a leading axis M.
            dtype: of the matrix products, see `surrogate_gradient`.
        """
        adapted, frozen = self.spec.split(theta)
        # The chain rule back from the layers: through the bias transformation.
        layers, pull_back = torch.func.vjp(  # type: ignore[misc]
            lambda some: self.policy.layers({**frozen, **some}), adapted
        )
        of_layers = surrogate_gradient(
            self.policy.standardised(self.policy.encode(theta, batches.observation)),
            layers,
            self.policy.std(theta),
            *batches[1:],
            ratio_clip=self.ratio_clip,
            dtype=dtype,
        )
        (gradient,) = torch.func.vmap(pull_back)(of_layers)
        return self._moved(adapted, step_sizes, gradient)

    def _moved(self, adapted: Params, step_sizes: Params, gradient: Params) -> Params:
        """Down the gradient, each parameter with its own step size."""
        if not self.second_order:
            gradient = {name: value.detach() for name, value in gradient.items()}
        return {name: adapted[name] - step_sizes[name] * gradient[name] for name in adapted}


class LikelihoodStep(InnerStep):
    """phi = theta + alpha * grad mean_t [log pi(a_t) A_t], MAML's: no ratio, whoever acted."""

    def loss(self, adapted: Params, frozen: Params, batch: InnerBatch) -> Tensor:
        """See `InnerStep`."""
        dist = self.policy.dist({**frozen, **adapted}, batch.observation)
        return policy_gradient(dist.log_prob(batch.action), batch.advantage)
