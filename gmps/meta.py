"""Algorithm 2: the meta-objective, and outer steps on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from demokit.learning.networks import Params
from gmps.adapt import InnerBatch, InnerStep
from gmps.losses import behaviour_cloning


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

    min over theta, alpha of mean_i L_BC(phi_i, D_i) + w * L_BC(theta, D_pre). The second term
    leaves the paper: with w small it keeps the pre-update policy where reward can be found;
    with w large and D_pre the furthest-going demonstrations it makes it explore.
    """

    inner: InnerStep
    outer_loss: str
    pre_update_weight: float

    def task_loss(self, meta: MetaParams, batch: InnerBatch, demos: Demos) -> Tensor:
        """L_BC(phi_i, D_i) of one task."""
        phi = self.inner(meta.theta, meta.step_sizes, batch)
        return self._imitation(phi, demos)

    def losses(
        self, meta: MetaParams, batches: InnerBatch, demos: Demos, pre_demos: Demos
    ) -> MetaLosses:
        """Losses for tasks with a leading axis M; `pre_demos` are for theta itself."""
        post = torch.func.vmap(self.task_loss, in_dims=(None, 0, 0))(meta, batches, demos)
        return MetaLosses(post.mean(), self._imitation(meta.theta, pre_demos))

    def __call__(
        self, meta: MetaParams, batches: InnerBatch, demos: Demos, pre_demos: Demos
    ) -> tuple[Tensor, MetaLosses]:
        """The scalar to minimise, and its parts."""
        losses = self.losses(meta, batches, demos, pre_demos)
        return losses.post + self.pre_update_weight * losses.pre, losses

    def _imitation(self, params: Params, demos: Demos) -> Tensor:
        dist = self.inner.policy.dist(params, demos.observation)
        return behaviour_cloning(dist, demos.action, demos.weight, kind=self.outer_loss)


def outer_step(
    objective: MetaObjective,
    meta: MetaParams,
    optimizer: torch.optim.Optimizer,
    batches: InnerBatch,
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
