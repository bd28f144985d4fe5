"""The inner loop: one policy-gradient step on a task's own reward."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from demokit.learning.networks import Params
from gmps.losses import inner_surrogate
from gmps.policy import AdaptSpec, GaussianPolicy


class InnerBatch(NamedTuple):
    """What an inner step sees of one task: rewards and observations only, as advantages.

    `observation` (S, O), `action` (S, A), `behaviour_log_prob` (S,), `advantage` (S,), with
    S = K * T samples; a leading axis M when batched over tasks. The surrogate is linear in the
    advantages, so they carry which steps count (`mean_weights`): zero after an episode's end.
    """

    observation: Tensor
    action: Tensor
    behaviour_log_prob: Tensor
    advantage: Tensor


@dataclass(frozen=True)
class InnerStep:
    """phi = theta - alpha * grad L_RL(theta), GMPS Eq. 3, for one task.

    It is differentiable in theta and alpha, and `torch.func.vmap` batches it over tasks.
    """

    policy: GaussianPolicy
    spec: AdaptSpec
    ratio_clip: float = 10.0
    ratio_gradient: bool = False

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
        moved = {name: adapted[name] - step_sizes[name] * gradient[name] for name in adapted}
        return {**frozen, **moved}
