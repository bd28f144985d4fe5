"""Imitation of all demonstrations by one policy: before meta-training, or instead of it."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Any, Protocol, Self, TypeVar

import torch
from torch import Tensor

from demokit.learning.networks import Params
from demokit.learning.optimizer import optimizer_tensors, restore_optimizer
from gmps.distributed import Part
from gmps.experience.demos import DemoBatch, Demonstrations
from gmps.experience.observation import thinned
from gmps.method import Iteration, MetaLearner
from gmps.options import SQUARED, CloningOptions, ImitationOptions
from gmps.policies.gaussian import GaussianPolicy
from gmps.policies.meta_params import MetaParams
from gmps.problem import Training
from gmps.progress import IMITATION
from gmps.steps.losses import behaviour_cloning, mean_weights

FINE_TUNING_STEPS, FINE_TUNING_LR = 300, 3e-4


class Clone(MetaLearner, Protocol):
    """A learner whose policy imitates."""

    @property
    def policy(self) -> GaussianPolicy:
        """The pure functions."""
        ...

    @property
    def meta(self) -> MetaParams:
        """Its parameters."""
        ...

    def with_meta(self, meta: MetaParams) -> Self:
        """The same with other parameters."""
        ...


AnyClone = TypeVar("AnyClone", bound=Clone)


def pretrain(
    training: Training[Any],
    policy: GaussianPolicy,
    meta: MetaParams,
    optimizer: torch.optim.Adam,
    *,
    kind: str = SQUARED,
) -> MetaParams:
    """After `pretrain_steps` of imitating everything, in place: a start for eyes above all."""
    options, part = training.options, training.part
    everything = training.demonstrations.of_tasks(part.own).all()
    for step in range(options.pretrain_steps):
        rng = training.stream("imitation first", step)
        shown = thinned(everything, options.outer_stride, rng)
        imitation_step(policy, meta, optimizer, shown, options, part, kind=kind)
        training.report(IMITATION, step + 1, options.pretrain_steps)
    return meta.frozen()


def clone(
    training: Training[CloningOptions],
    learner: AnyClone,
    state: Mapping[str, Tensor],
    first: int,
    latents: Tensor | None = None,
    *,
    kind: str = SQUARED,
) -> Generator[Iteration]:
    """Behaviour cloning with Adam: a whole training, see `Code.train`.

    Args:
        training: what, with which options.
        learner: whose policy it is, as it is before iteration `first`.
        state: the optimiser's.
        first: iteration to go on with.
        latents: (M, Z) of all training tasks, which the policy is told; None: it is told nothing.
        kind: see `behaviour_cloning`.
    """
    options, part, policy = training.options, training.part, learner.policy
    meta = learner.meta.learnable()
    optimizer = torch.optim.Adam(meta.leaves(), lr=options.outer_lr)
    restore_optimizer(optimizer, state)
    everything = training.demonstrations.of_tasks(part.own).all()
    own = None if latents is None else latents[part.own].to(training.device)
    for iteration in range(first, options.iterations):
        rng = training.stream("iteration", iteration)
        for _ in range(options.steps):
            shown = thinned(everything, options.outer_stride, rng)
            loss = imitation_step(policy, meta, optimizer, shown, options, part, own, kind=kind)
        meta.require_finite(iteration)
        learner = learner.with_meta(meta.frozen())
        yield Iteration(learner, {"loss": loss}, 0, optimizer_tensors(optimizer))


def imitation_step(
    policy: GaussianPolicy,
    meta: MetaParams,
    optimizer: torch.optim.Adam,
    demos: DemoBatch,
    options: ImitationOptions,
    part: Part,
    latents: Tensor | None = None,
    *,
    kind: str = SQUARED,
) -> float:
    """One step on L_BC of theta and, of images, on the loss of the object's position.

    Returns L_BC. The demonstrations (M, S, ...) are those of this process's tasks, the step that of
    all. With `latents` (M, Z) theta imitates every task under its own.
    """
    if latents is None:
        demos = demos.pooled()
    features = policy.encode(meta.theta, demos.observation)
    if latents is None:
        dist = policy.dist(meta.theta, features)
    else:
        dist = policy.dist_under(meta.theta, latents, features)
    loss = behaviour_cloning(dist, demos.action, demos.weight, kind=kind)
    position = policy.object_loss(features, demos.object_position, demos.weight)
    optimizer.zero_grad()
    (loss + options.object_weight * position).backward()  # type: ignore[no-untyped-call]
    (mean,) = part.averaged(meta.leaves(), loss.detach()[None])
    torch.nn.utils.clip_grad_norm_(meta.leaves(), options.max_grad_norm)
    optimizer.step()
    return float(mean)


def fine_tuned(
    policy: GaussianPolicy,
    params: Params,
    names: Sequence[str],
    shown: Demonstrations,
    lr: float = FINE_TUNING_LR,
) -> Params:
    """Parameters (M, ...) after some steps of Adam on the squared error, in each task on its own.

    Args:
        policy: the pure functions.
        params: before.
        names: those that change.
        shown: the demonstrations.
        lr: Adam's step size.
    """
    features = policy.encode(_of_first(params), shown.observation).detach().flatten(1, 2)
    action, weight = shown.action.flatten(1, 2), mean_weights(shown.alive.flatten(1))
    own = {name: params[name].detach().clone().requires_grad_() for name in names}
    optimizer = torch.optim.Adam(own.values(), lr=lr)
    mean = torch.func.vmap(lambda phi, seen: policy.dist(phi, seen).mean)
    for _ in range(FINE_TUNING_STEPS):
        with torch.enable_grad():
            error = mean({**params, **own}, features) - action
            loss = (weight * error.square().sum(-1)).mean(1).sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return {**params, **{name: value.detach() for name, value in own.items()}}


def _of_first(params: Params) -> Params:
    """Parameters of the first of M tasks: what makes features is the same for all."""
    return {name: value[0] for name, value in params.items()}
