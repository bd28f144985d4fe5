"""A policy under latents, and its training: imitation, jointly with models of the tasks."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from demokit.learning.networks import Layers, Params, init_mlp, mlp
from gmps.experience.transitions import Transitions
from gmps.methods.inference.options import InferenceOptions
from gmps.methods.inference.space import TaskSpace
from gmps.policies.gaussian import LATENT, GaussianPolicy

_RIDGE, _LEAST_RIDGE = 1.0, 1e-3  # towards the policy of all tasks; of that one
_FIRST_SPREAD = 0.5  # of latents along the direction in which tasks differ most
_FIRST_STD = 0.01  # of all latents besides
_FIRST_LOG_STD = -2.0  # of a task's own distribution
_ROWS = 1280  # demonstrated steps of a gradient step, of all tasks
_LEAST_ROWS = 16  # of a task
_MODEL_ROWS = 512
_HIDDEN = (64, 64)
_MIN_SCALE = 1e-4
LEAST_STD = 0.1  # of what somebody does from what the policy would do


class Shown(NamedTuple):
    """Demonstrated features (M, D, F), actions (M, D, A), and weights (M, D) of `mean_weights`."""

    features: Tensor
    action: Tensor
    weight: Tensor


def act(policy: GaussianPolicy, theta: Params, latent: Tensor, features: Tensor) -> Tensor:
    """Mean actions (..., A) for features (..., F) under latents (..., Z)."""
    x = policy.standardised(features)
    for i, (weight, bias) in enumerate(policy.layers({**theta, LATENT: latent})):
        x = (x.relu() if i else x) @ weight + bias
    return x


class Imitation(NamedTuple):
    """How well the policy explains, under codes, what somebody does.

    `variance` (A,) is that of what it leaves unexplained.
    """

    policy: GaussianPolicy
    theta: Params
    space: TaskSpace
    variance: Tensor

    def log_likelihood(self, shown: Shown, codes: Tensor, weight: Tensor) -> Tensor:
        """Of codes (T, C, R), given what was shown of tasks, with weights (T, D): (T, C)."""
        latent = self.space.latent(codes)[:, :, None]
        mean = act(self.policy, self.theta, latent, shown.features[:, None])
        each = -0.5 * ((mean - shown.action[:, None]).square() / self.variance).sum(-1)
        return (each * weight[:, None]).sum(-1)


@torch.no_grad()
def unexplained(policy: GaussianPolicy, theta: Params, shown: Shown, latents: Tensor) -> Tensor:
    """Mean squared errors (A,) of imitation under the tasks' latents (M, Z)."""
    error = act(policy, theta, latents[:, None], shown.features) - shown.action
    return (shown.weight[..., None] * error.square()).mean((0, 1)).clamp_min(LEAST_STD**2)


class _Head(NamedTuple):
    """A network that predicts standardised y from standardised x and a latent."""

    network: Params
    x: Tensor
    y: Tensor

    @classmethod
    def of(cls, x: Tensor, y: Tensor, latent_width: int, rng: torch.Generator) -> _Head:
        x, y = ((v - v.mean(0)) / v.std(0).clamp_min(_MIN_SCALE) for v in (x, y))
        network = init_mlp(rng, (x.shape[1] + latent_width, *_HIDDEN, y.shape[1]))
        return cls({n: value.requires_grad_() for n, value in network.items()}, x, y)

    def loss(self, latent: Tensor, rows: Tensor) -> Tensor:
        """Mean squared error of some rows under their tasks' latents."""
        count = len(_HIDDEN) + 1
        layers: Layers = tuple(
            (self.network[f"{i}.weight"], self.network[f"{i}.bias"]) for i in range(count)
        )
        found = mlp(layers, torch.cat((self.x[rows], latent), -1))
        return (found - self.y[rows]).square().mean()


class _Heads:
    """Predictions of rewards and of changes of state, for all transitions of training tasks."""

    def __init__(self, met: Transitions, width: int, rng: torch.Generator) -> None:
        alive = met.weight > 0
        self.task = torch.arange(len(alive), device=alive.device)[:, None].expand_as(alive)[alive]
        pairs = [met.paid(), met.moved()]
        self.heads = [_Head.of(x[alive], y[alive], width, rng) for x, y in pairs]

    @property
    def leaves(self) -> list[Tensor]:
        return [value for head in self.heads for value in head.network.values()]

    def loss(self, drawn: Callable[[Tensor], Tensor], rng: torch.Generator) -> Tensor:
        """Of rows drawn anew; `drawn` makes latents of tasks (N,)."""
        total = torch.zeros(())
        for head in self.heads:
            rows = torch.randint(len(self.task), (_MODEL_ROWS,), generator=rng)
            total = total + head.loss(drawn(self.task[rows]), rows)
        return total


def learn(
    policy: GaussianPolicy,
    theta: Params,
    shown: Shown,
    first: Tensor,
    met: Transitions | None,
    options: InferenceOptions,
    rng: torch.Generator,
    report: Callable[[int], None] = lambda step: None,
) -> tuple[Params, Tensor, float]:
    """Parameters, latents (M, Z) of the training tasks, and the last loss of imitation.

    A task's latent is a Gaussian of its own; behaviour cloning and, where there are roll-outs,
    predictions of rewards and changes of state have to do with draws of it. What divides it from
    N(0, 1) costs.

    Args:
        policy: the pure functions.
        theta: parameters to start from; those of the eyes stay as they are.
        shown: the demonstrations.
        first: latents (M, Z) to start about: drawn at random, they would stay folded over.
        met: transitions (M, N, ...) of roll-outs.
        options: of the training.
        rng: all randomness.
        report: told after every step.
    """
    num, width = first.shape
    center = (first + _FIRST_STD * torch.randn(num, width, generator=rng)).requires_grad_()
    log_std = torch.full((num, width), _FIRST_LOG_STD).requires_grad_()
    heads = _Heads(met, width, rng) if met is not None and options.model_weight else None
    acting = {n: v.clone().requires_grad_() for n, v in theta.items() if n[0].isdigit()}
    networks = [*acting.values(), *(heads.leaves if heads else ())]
    optimizer = torch.optim.Adam([{"params": networks}, {"params": [center, log_std]}], fused=True)

    def drawn(task: Tensor) -> Tensor:
        noise = torch.randn(*task.shape, width, generator=rng)
        return center[task] + log_std.exp()[task] * noise

    for step in range(options.steps):
        cloning = _cloning(policy, {**theta, **acting}, shown, drawn, rng)
        loss = cloning + options.kl_weight * _divergence(center, log_std)
        if heads:
            loss = loss + options.model_weight * heads.loss(drawn, rng)
        for group, rate in zip(
            optimizer.param_groups, (options.outer_lr, options.latent_lr), strict=True
        ):
            group["lr"] = rate * (1 - step / options.steps)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        report(step + 1)
    learned = {**theta, **{name: value.detach() for name, value in acting.items()}}
    return learned, center.detach(), float(cloning.detach())


def first_guess(features: Tensor, action: Tensor, weight: Tensor, width: int) -> Tensor:
    """Latents (M, Z) by which the policies that were demonstrated differ most.

    The principal components of linear policies, one of each task, each a ridge regression that
    shrinks to the one of all tasks. A linear guess is not folded over, as latents that are drawn at
    random often are, and stay.

    Args:
        features: (M, D, F), standardised.
        action: (M, D, A).
        weight: (M, D) of `mean_weights`.
        width: Z.
    """
    x = torch.cat((features, torch.ones_like(features[..., :1])), -1)
    weighted = weight[..., None] * x / x.shape[1]
    products, shown = weighted.mT @ x, weighted.mT @ action
    ridge = torch.eye(x.shape[-1], device=x.device)
    shared = torch.linalg.solve(products.mean(0) + _LEAST_RIDGE * ridge, shown.mean(0))
    own = torch.linalg.solve(products + _RIDGE * ridge, shown - products @ shared).flatten(1)
    left, size, _ = torch.linalg.svd(own - own.mean(0), full_matrices=False)
    found = (left * size)[:, :width] * len(own) ** 0.5 / size[0].clamp_min(_MIN_SCALE)
    return _FIRST_SPREAD * torch.nn.functional.pad(found, (0, width - found.shape[1]))


def _cloning(
    policy: GaussianPolicy,
    theta: Params,
    shown: Shown,
    drawn: Callable[[Tensor], Tensor],
    rng: torch.Generator,
) -> Tensor:
    """The squared error of imitation, on steps drawn anew."""
    num, steps = shown.weight.shape
    count = max(_LEAST_ROWS, _ROWS // num)
    rows = torch.randint(steps, (num, count), generator=rng)
    task = torch.arange(num)[:, None].expand(-1, count)
    mean = act(policy, theta, drawn(task), shown.features[task, rows])
    error = (mean - shown.action[task, rows]).square().sum(-1)
    return (shown.weight[task, rows] * error).mean()


def _divergence(center: Tensor, log_std: Tensor) -> Tensor:
    """KL from N(0, 1) to the tasks' latents, a mean over tasks."""
    terms = center.square() + (2 * log_std).exp() - 2 * log_std - 1
    return 0.5 * terms.sum(-1).mean()


def spread(rng: np.random.Generator, *shape: int) -> Tensor:
    """Standard normal numbers of a task's generator."""
    return torch.from_numpy(rng.standard_normal(shape, np.float32))
