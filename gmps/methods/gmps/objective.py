"""Algorithm 2: the meta-objective, and outer steps on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
import torch
from torch import Tensor

from demokit.learning.distributions import Gaussian
from demokit.learning.networks import Params, mlps
from gmps.distributed import WHOLE, Part
from gmps.experience.demos import DemoBatch
from gmps.experience.observation import Observation, each
from gmps.policies.gaussian import LATENT, GaussianPolicy
from gmps.policies.meta_params import MetaParams
from gmps.steps.losses import behaviour_cloning

# More samples are taken a part at a time, to bound the memory of their activations.
_SAMPLES_AT_ONCE = {"cpu": 20_000, "cuda": 1_000_000}


class ShownBatch(Protocol):
    """What the inner step sees of M tasks: a named tuple of tensors with a leading axis M."""

    @property
    def num_samples(self) -> int:
        """Of all tasks."""
        ...

    def encoded(self, encode: Callable[[Observation], Tensor]) -> Self:
        """The same with features in place of observations."""
        ...

    def thinned(self, stride: int, rng: np.random.Generator) -> Self:
        """Every `stride`-th sample of roll-outs, from a random first one."""
        ...


class MetaLosses(NamedTuple):
    """Behaviour-cloning losses after and before adaptation, means over tasks.

    `position` is the loss of the object's position as the features say it; 0 for states.
    """

    post: Tensor
    pre: Tensor
    position: Tensor


@dataclass(frozen=True)
class MetaObjective:
    """Eq. 2 over a batch of tasks, plus an imitation term on the policy before adaptation.

    min over theta, alpha of mean_i L_BC(phi_i, D_i) + w * L_pre + v * L_position. The last terms
    leave the paper. L_pre decides how theta explores: L_BC(theta, D), with w small, keeps it where
    reward can be found; with `latents` (M, Z) it is mean_i L_BC(theta under z_i, D_i), and theta
    can follow every training task's expert. L_position, of images, has the features say where the
    object is.

    With `bf16` matrix products take bfloat16 and sum in float32: faster where the hardware has
    them (AMX, tensor cores), gradients to about two digits.

    Attributes:
        policy: the pure functions.
        adapted: the parameters (M, ...) after every task's inner step, from theta and alpha.
        outer_loss: see `behaviour_cloning`.
        pre_weight: w.
        latents: of the tasks, (M, Z).
        post_weight: of L_BC(phi_i, D_i); 0 leaves meta-learning out.
        object_weight: v.
    """

    policy: GaussianPolicy
    adapted: Callable[[MetaParams, Any], Params]
    outer_loss: str
    pre_weight: float
    latents: Tensor | None = None
    bf16: bool = False
    post_weight: float = 1.0
    object_weight: float = 0.0

    def losses(
        self, meta: MetaParams, shown: ShownBatch, demos: DemoBatch, pre_demos: DemoBatch
    ) -> MetaLosses:
        """Losses for tasks with a leading axis M; `pre_demos` (D, ...) are for theta itself."""
        theta, encode = meta.theta, partial(self.policy.encode, meta.theta)
        features = encode(demos.observation)  # once: nothing before the features adapts
        demos = demos._replace(observation=features)
        post = self._imitation(theta, self.adapted(meta, shown.encoded(encode)), demos)
        position = self.policy.object_loss(features, demos.object_position, demos.weight)
        if self.latents is None:
            pre = self._imitation(theta, {LATENT: theta[LATENT][None]}, _rows(pre_demos, None))
        else:
            pre = self._imitation(theta, {LATENT: theta[LATENT] + self.latents}, demos)
        return MetaLosses(post, pre, position)

    def backward(
        self, meta: MetaParams, shown: ShownBatch, demos: DemoBatch, pre_demos: DemoBatch
    ) -> MetaLosses:
        """Add the gradient of the objective to the leaves of `meta`; returns the losses.

        Some tasks at a time, with their share of `pre_demos`: memory does not grow with the
        number of tasks.
        """
        num_tasks, num_pre = len(demos.action), len(pre_demos.action)
        samples = max(shown.num_samples, demos.weight.numel())
        at_once = _SAMPLES_AT_ONCE[demos.action.device.type]
        num_parts = min(-(-samples // at_once), num_tasks, num_pre)
        given = (_parts(batch, num_parts) for batch in (shown, demos, pre_demos))
        latents = (
            [None] * num_parts if self.latents is None else self.latents.tensor_split(num_parts)
        )
        device = demos.action.device
        weights = self.post_weight, self.pre_weight, self.object_weight
        total = torch.zeros(len(weights), device=device)
        for own, imitated, before, of_tasks in zip(*given, latents, strict=True):
            losses = replace(self, latents=of_tasks).losses(meta, own, imitated, before)
            share = len(imitated.action) / num_tasks
            pre_share = len(before.action) / num_pre if of_tasks is None else share
            shares = torch.tensor([share, pre_share, share], device=device)
            shared = torch.stack(losses) * shares
            (torch.tensor(weights, device=device) * shared).sum().backward()  # type: ignore[no-untyped-call]
            total += shared.detach()
        return MetaLosses(*total)

    def _imitation(self, theta: Params, own: Params, demos: DemoBatch) -> Tensor:
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
    shown: ShownBatch,
    demos: DemoBatch,
    pre_demos: DemoBatch,
    max_grad_norm: float,
    part: Part = WHOLE,
) -> MetaLosses:
    """Alg. 2, lines 6-9: one step on theta and alpha through the adaptation; returns the losses.

    Roll-outs and demonstrations are those of the process's tasks, `part`; step and losses are
    those of all tasks.
    """
    optimizer.zero_grad()
    losses = objective.backward(meta, shown, demos, pre_demos)
    losses = MetaLosses(*part.averaged(meta.leaves(), torch.stack(losses)))
    torch.nn.utils.clip_grad_norm_(meta.leaves(), max_grad_norm)
    optimizer.step()
    return losses
