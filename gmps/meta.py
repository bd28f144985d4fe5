"""Algorithm 2: the meta-objective, and outer steps on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from demokit.learning.networks import Params
from gmps.adapt import InnerBatch
from gmps.exploration import LatentBatch
from gmps.losses import behaviour_cloning
from gmps.policy import LATENT, GaussianPolicy


class Demos(NamedTuple):
    """Demonstrated states and the expert's actions there.

    `observation` (D, O), `action` (D, A) and `weight` (D,) of `mean_weights` for one task, with
    a leading axis M for all.
    """

    observation: Tensor
    action: Tensor
    weight: Tensor

    def pooled(self) -> Demos:
        """The demonstrations of all tasks as those of one, (M * D, ...)."""
        return Demos(*(values.flatten(0, 1) for values in self))


class MetaParams(NamedTuple):
    """Everything the outer loop learns: theta and the inner step sizes alpha."""

    theta: Params
    step_sizes: Params

    def leaves(self) -> list[Tensor]:
        """All tensors, in the order of their names: the same before and after a checkpoint."""
        return [part[name] for part in self for name in sorted(part)]


class MetaLosses(NamedTuple):
    """Behaviour-cloning losses after and before adaptation, means over tasks."""

    post: Tensor
    pre: Tensor


@dataclass(frozen=True)
class MetaObjective:
    """Eq. 2 over a batch of tasks, plus an imitation term on the policy before adaptation.

    min over theta, alpha of mean_i L_BC(phi_i, D_i) + w * L_pre. The second term leaves the
    paper. It decides how theta explores: L_BC(theta, D), with w small, keeps it where reward can
    be found; with `places` (M, Z) it is mean_i L_BC(theta under z_i, D_i), and theta can follow
    every training task's expert.
    """

    policy: GaussianPolicy
    inner: Callable[[Params, Params, Any], Params]
    outer_loss: str
    pre_weight: float
    places: Tensor | None = None

    def task_loss(self, meta: MetaParams, batch: InnerBatch | LatentBatch, demos: Demos) -> Tensor:
        """L_BC(phi_i, D_i) of one task."""
        phi = self.inner(meta.theta, meta.step_sizes, batch)
        return self._imitation(phi, demos)

    def losses(
        self, meta: MetaParams, batches: InnerBatch | LatentBatch, demos: Demos, pre_demos: Demos
    ) -> MetaLosses:
        """Losses for tasks with a leading axis M; `pre_demos` are for theta itself."""
        post = torch.func.vmap(self.task_loss, in_dims=(None, 0, 0))(meta, batches, demos)
        if self.places is None:
            return MetaLosses(post.mean(), self._imitation(meta.theta, pre_demos))
        pre = torch.func.vmap(self._expert_loss, in_dims=(None, 0, 0))(
            meta.theta, self.places, demos
        )
        return MetaLosses(post.mean(), pre.mean())

    def __call__(
        self, meta: MetaParams, batches: InnerBatch | LatentBatch, demos: Demos, pre_demos: Demos
    ) -> tuple[Tensor, MetaLosses]:
        """The scalar to minimise, and its parts."""
        losses = self.losses(meta, batches, demos, pre_demos)
        return losses.post + self.pre_weight * losses.pre, losses

    def _expert_loss(self, theta: Params, place: Tensor, demos: Demos) -> Tensor:
        """L_BC of theta under a training task's latent."""
        return self._imitation({**theta, LATENT: theta[LATENT] + place}, demos)

    def _imitation(self, params: Params, demos: Demos) -> Tensor:
        dist = self.policy.dist(params, demos.observation)
        return behaviour_cloning(dist, demos.action, demos.weight, kind=self.outer_loss)


def outer_step(
    objective: MetaObjective,
    meta: MetaParams,
    optimizer: torch.optim.Optimizer,
    batches: InnerBatch | LatentBatch,
    demos: Demos,
    pre_demos: Demos,
    max_grad_norm: float,
) -> MetaLosses:
    """Alg. 2, lines 6-9: one step on theta and alpha through the adaptation; returns the losses."""
    loss, losses = objective(meta, batches, demos, pre_demos)
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(meta.leaves(), max_grad_norm)
    optimizer.step()
    return MetaLosses(losses.post.detach(), losses.pre.detach())
