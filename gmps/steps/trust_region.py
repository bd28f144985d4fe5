"""The step of trust-region policy optimisation (TRPO; Schulman et al., 2015), on any parameters.

The natural gradient by conjugate gradients, the longest step that a quadratic model of the KL
allows, and a line search that takes no step which the loss or the KL itself speaks against.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from demokit.learning.distributions import Gaussian
from demokit.learning.networks import Params

_SMALL = 1e-8

Product = Callable[[Params], Params]
"""A symmetric matrix as what it makes of a vector."""


class Region(NamedTuple):
    """How far a step may go, and how it is looked for.

    Attributes:
        max_kl: delta, the bound on the mean KL.
        iterations: of conjugate gradients.
        damping: times the identity, added to the KL's Hessian.
        backtrack, max_backtracks: the line search shortens a step by this factor, so often.
    """

    max_kl: float
    iterations: int = 10
    damping: float = 1e-5
    backtrack: float = 0.8
    max_backtracks: int = 15


class Judged(NamedTuple):
    """What speaks for parameters: the loss and the mean KL from the old policy, scalars.

    `drift` (J,) are those of policies that sampled before it, of who asks for them.
    """

    loss: Tensor
    kl: Tensor
    drift: Tensor = torch.zeros(0)


class Taken(NamedTuple):
    """Where a step has led.

    Attributes:
        params: the old ones where no step was accepted.
        judged: at `params`.
        length: the share of the longest step that was accepted; 0 where none was.
    """

    params: Params
    judged: Judged
    length: float


def trust_region_step(
    params: Params,
    gradient: Params,
    product: Product,
    judge: Callable[[Params], Judged],
    region: Region,
) -> Taken:
    r"""$\theta - \beta^j \sqrt{2 \delta / x^T H x}\, x$, $H x = g$, with the smallest j that does.

    A step does where it lowers the loss and its KL is at most delta: what is not finite does not.

    Args:
        params: theta, where the KL is 0.
        gradient: g, of the loss there.
        product: with H, the Hessian of the KL there.
        judge: loss and KL at other parameters.
        region: delta and beta.
    """

    def damped(vector: Params) -> Params:
        return _sum(product(vector), vector, region.damping)

    direction = conjugate_gradient(damped, gradient, region.iterations)
    curvature = _dot(direction, damped(direction))
    old = judge(params)
    if not curvature > 0:  # nowhere to go, or NaN
        return Taken(params, old, 0.0)
    longest, length = (2 * region.max_kl / (curvature + _SMALL)).sqrt(), 1.0
    for _ in range(region.max_backtracks):
        tried = _sum(params, direction, float(-length * longest))
        found = judge(tried)
        if bool(found.loss < old.loss) and bool(found.kl <= region.max_kl):
            return Taken(tried, found, length)
        length *= region.backtrack
    return Taken(params, old, 0.0)


def conjugate_gradient(
    product: Product, right: Params, iterations: int, residual: float = 1e-10
) -> Params:
    """X with H x = `right`, by conjugate gradients (Hestenes and Stiefel, 1952) from x = 0.

    Args:
        product: with H, positive definite.
        right: the right-hand side.
        iterations: at most so many; as many as there are unknowns are exact.
        residual: squared norm of H x - `right` at which it is done.
    """
    x = {name: torch.zeros_like(value) for name, value in right.items()}
    rest, along = right, right
    left = _dot(rest, rest)
    for _ in range(iterations):
        if not left >= residual:  # NaN ends it, too
            break
        pushed = product(along)
        step = float(left / _dot(along, pushed))
        x, rest = _sum(x, along, step), _sum(rest, pushed, -step)
        after = _dot(rest, rest)
        along, left = _sum(rest, along, float(after / left)), after
    return x


def kl_product(dist: Callable[[Params], Gaussian], params: Params, weight: Tensor) -> Product:
    r"""Products with the Hessian of $KL(\pi_{old} \| \pi_\theta)$, a weighted mean, at old = theta.

    There the KL's own gradient is zero, and its Hessian is $J^T F J$ exactly: F is Fisher's matrix
    of the Gaussians, $1 / \sigma^2$ for a mean and $2 / \sigma^2$ for a deviation, J how they move
    with theta. That goes through whatever makes the Gaussians: an inner step, too, whose own
    gradient J is then the derivative of. Nothing is computed twice: $J^T u$ is linear in u, and its
    derivative by u, along a vector, is J times that vector.

    Args:
        dist: the policies at the states that count, of batch shape (..., S); deviations broadcast.
        params: theta.
        weight: (..., S), those of `mean_weights`.
    """
    theta = {name: value.detach().requires_grad_() for name, value in params.items()}
    at = dist(theta)
    dual = [torch.zeros_like(part, requires_grad=True) for part in at]
    pulled = _derivative(at, theta, dual, create_graph=True)
    precision = (weight / weight.numel())[..., None] / at.std.detach().square()

    def product(vector: Params) -> Params:
        along = [vector[name] for name in theta]
        mean, std = torch.autograd.grad(pulled, dual, along, retain_graph=True)
        both = precision * mean, (2 * precision * std).sum_to_size(std.shape)
        moved = _derivative(at, theta, both, retain_graph=True)
        return dict(zip(theta, moved, strict=True))

    return product


def _derivative(
    at: Gaussian, theta: Params, along: Sequence[Tensor], **how: bool
) -> tuple[Tensor, ...]:
    """J^T times what goes along mean and deviation."""
    found: tuple[Tensor, ...] = torch.autograd.grad(at, list(theta.values()), along, **how)
    return found


def mean_kl(old: Gaussian, new: Gaussian, weight: Tensor) -> Tensor:
    r"""$KL(\pi_{old} \| \pi_{new})$ of diagonal Gaussians, the mean over states (..., S)."""
    spread = (old.std.square() + (old.mean - new.mean).square()) / (2 * new.std.square())
    kl = (new.std.log() - old.std.log() + spread - 0.5).sum(-1)
    return (weight * kl).mean()


def _dot(one: Params, other: Params) -> Tensor:
    # In the order of names: that of a checkpoint is another than before it.
    return torch.stack([(one[name] * other[name]).sum() for name in sorted(one)]).sum()


def _sum(one: Params, other: Params, factor: float) -> Params:
    """One + factor * other."""
    return {name: value + factor * other[name] for name, value in one.items()}
