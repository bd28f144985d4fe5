"""Algorithm 2: the meta-objective, and outer steps on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from demokit.errors import DemokitError
from demokit.learning.distributions import Gaussian
from demokit.learning.networks import Params, mlps
from gmps.distributed import WHOLE, Part
from gmps.experience.observation import Observation, each
from gmps.methods.gmps.latents import LatentBatch
from gmps.policies.gaussian import LATENT, GaussianPolicy
from gmps.steps.inner import InnerBatch, InnerStep
from gmps.steps.losses import behaviour_cloning

# More samples are taken a part at a time, to bound the memory of their activations.
_SAMPLES_AT_ONCE = {"cpu": 20_000, "cuda": 1_000_000}


class Demos(NamedTuple):
    """Demonstrated states and the expert's actions there.

    `observation` (D, ...), `action` (D, A), `place` (D, P) of the object and `weight` (D,) of
    `mean_weights` for one task, with a leading axis M for all.
    """

    observation: Observation
    action: Tensor
    place: Tensor
    weight: Tensor

    def pooled(self) -> Demos:
        """The demonstrations of all tasks as those of one, (M * D, ...)."""
        observation, *others = self
        return Demos(
            each(lambda values: values.flatten(0, 1), observation),
            *(values.flatten(0, 1) for values in others),
        )


class MetaParams(NamedTuple):
    """Everything the outer loop learns: theta and the inner step sizes alpha."""

    theta: Params
    step_sizes: Params

    def leaves(self) -> list[Tensor]:
        """All tensors, in the order of their names: the same before and after a checkpoint."""
        return [part[name] for part in self for name in sorted(part)]

    def copied(self, device: torch.device | None = None) -> MetaParams:
        """Fresh leaves with the same values, on a device or where they are."""

        def copy(value: Tensor) -> Tensor:
            fresh = value.detach().to(device=device, copy=True)
            return fresh.requires_grad_(value.requires_grad)

        return MetaParams(*({name: copy(value) for name, value in part.items()} for part in self))

    def require_finite(self, iteration: int) -> None:
        """Raise DemokitError when an outer step has made a parameter NaN or infinite."""
        if not all(bool(value.isfinite().all()) for value in self.leaves()):
            raise DemokitError(
                f"Training diverged in iteration {iteration}: parameters are NaN or infinite, and "
                "are not saved. Start another run with a smaller --outer-lr or --inner-lr."
            )


class MetaLosses(NamedTuple):
    """Behaviour-cloning losses after and before adaptation, means over tasks.

    `place` is the loss of the object's position as the features say it; 0 for states.
    """

    post: Tensor
    pre: Tensor
    place: Tensor


@dataclass(frozen=True)
class MetaObjective:
    """Eq. 2 over a batch of tasks, plus an imitation term on the policy before adaptation.

    min over theta, alpha of mean_i L_BC(phi_i, D_i) + w * L_pre + v * L_place. The last terms
    leave the paper. L_pre decides how theta explores: L_BC(theta, D), with w small, keeps it where
    reward can be found; with `places` (M, Z) it is mean_i L_BC(theta under z_i, D_i), and theta can
    follow every training task's expert. L_place, of images, has the features say where the object
    is.

    With `bf16` matrix products take bfloat16 and sum in float32: faster where the hardware has
    them (AMX, tensor cores), gradients to about two digits.
    """

    policy: GaussianPolicy
    inner: Callable[[Params, Params, Any], Params]
    outer_loss: str
    pre_weight: float
    places: Tensor | None = None
    bf16: bool = False
    post_weight: float = 1.0
    place_weight: float = 0.0

    def task_loss(self, meta: MetaParams, batch: InnerBatch | LatentBatch, demos: Demos) -> Tensor:
        """L_BC(phi_i, D_i) of one task: the equation, which `losses` computes for many, faster."""
        phi = self.inner(meta.theta, meta.step_sizes, batch)
        dist = self.policy.dist(phi, demos.observation)
        return behaviour_cloning(dist, demos.action, demos.weight, kind=self.outer_loss)

    def losses(
        self, meta: MetaParams, batches: InnerBatch | LatentBatch, demos: Demos, pre_demos: Demos
    ) -> MetaLosses:
        """Losses for tasks with a leading axis M; `pre_demos` (D, ...) are for theta itself."""
        theta, encode = meta.theta, self.policy.encode
        features = encode(theta, demos.observation)  # once: nothing before the features adapts
        demos = demos._replace(observation=features)
        if isinstance(batches, InnerBatch):
            batches = batches._replace(observation=encode(theta, batches.observation))
        post = self._imitation(theta, self._adapted(meta, batches), demos)
        place = self.policy.place_loss(features, demos.place, demos.weight)
        if self.places is None:
            pre = self._imitation(theta, {LATENT: theta[LATENT][None]}, _rows(pre_demos, None))
        else:
            pre = self._imitation(theta, {LATENT: theta[LATENT] + self.places}, demos)
        return MetaLosses(post, pre, place)

    def backward(
        self, meta: MetaParams, batches: InnerBatch | LatentBatch, demos: Demos, pre_demos: Demos
    ) -> MetaLosses:
        """Add the gradient of the objective to the leaves of `meta`; returns the losses.

        Some tasks at a time, with their share of `pre_demos`: memory does not grow with the
        number of tasks.
        """
        num_tasks, num_pre = len(demos.action), len(pre_demos.action)
        samples = max(batch[-1].numel() for batch in (batches, demos))
        at_once = _SAMPLES_AT_ONCE[demos.action.device.type]
        num_parts = min(-(-samples // at_once), num_tasks, num_pre)
        given = (_parts(batch, num_parts) for batch in (batches, demos, pre_demos))
        places = [None] * num_parts if self.places is None else self.places.tensor_split(num_parts)
        device = demos.action.device
        weights = self.post_weight, self.pre_weight, self.place_weight
        total = torch.zeros(len(weights), device=device)
        for own, shown, before, of_experts in zip(*given, places, strict=True):
            losses = replace(self, places=of_experts).losses(meta, own, shown, before)
            share = len(shown.action) / num_tasks
            pre_share = len(before.action) / num_pre if of_experts is None else share
            shares = torch.tensor([share, pre_share, share], device=device)
            shared = torch.stack(losses) * shares
            (torch.tensor(weights, device=device) * shared).sum().backward()  # type: ignore[no-untyped-call]
            total += shared.detach()
        return MetaLosses(*total)

    def _adapted(self, meta: MetaParams, batches: InnerBatch | LatentBatch) -> Params:
        """The parameters (M, ...) after every task's inner step."""
        if not isinstance(self.inner, InnerStep) or self.inner.ratio_gradient:
            return torch.func.vmap(self.inner, in_dims=(None, None, 0))(*meta, batches)
        assert isinstance(batches, InnerBatch)
        dtype = torch.bfloat16 if self.bf16 else None
        return self.inner.from_shared(meta.theta, meta.step_sizes, batches, dtype)

    def _imitation(self, theta: Params, own: Params, demos: Demos) -> Tensor:
        """L_BC, mean over tasks, each with its `own` parameters (M, ...) in place of theta's."""
        x = self.policy.standardised(self.policy.encode(theta, demos.observation))
        dtype = torch.bfloat16 if self.bf16 else x.dtype
        layers, std = torch.func.vmap(lambda some: self.policy.head({**theta, **some}))(own)
        layers = tuple((weight.to(dtype), bias.to(dtype)) for weight, bias in layers)
        dist = Gaussian(mlps(layers, x.to(dtype)).to(x.dtype), std[:, None])
        return behaviour_cloning(dist, demos.action, demos.weight, kind=self.outer_loss)


def _parts(batch: Any, num_parts: int) -> Iterator[Any]:
    """The batch, a named tuple of tensors, cut along its first axis."""
    sizes = [len(part) for part in batch[-1].tensor_split(num_parts)]
    ends = np.cumsum(sizes)
    for first, last in zip(ends - sizes, ends, strict=True):
        yield _rows(batch, slice(int(first), int(last)))


def _rows(batch: Any, chosen: slice | None) -> Any:
    return type(batch)(*(each(lambda values: values[chosen], part) for part in batch))


def outer_step(
    objective: MetaObjective,
    meta: MetaParams,
    optimizer: torch.optim.Optimizer,
    batches: InnerBatch | LatentBatch,
    demos: Demos,
    pre_demos: Demos,
    max_grad_norm: float,
    part: Part = WHOLE,
) -> MetaLosses:
    """Alg. 2, lines 6-9: one step on theta and alpha through the adaptation; returns the losses.

    Roll-outs and demonstrations are those of the process's tasks, `part`; step and losses are
    those of all tasks.
    """
    optimizer.zero_grad()
    losses = objective.backward(meta, batches, demos, pre_demos)
    losses = MetaLosses(*part.averaged(meta.leaves(), torch.stack(losses)))
    torch.nn.utils.clip_grad_norm_(meta.leaves(), max_grad_norm)
    optimizer.step()
    return losses
