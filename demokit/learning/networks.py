"""Networks as pure functions of a dict of tensors."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear, relu

Params: TypeAlias = dict[str, Tensor]
Layers: TypeAlias = tuple[tuple[Tensor, Tensor], ...]
"""A weight (in, out) and a bias (out,) for every layer."""


def init_mlp(rng: torch.Generator, widths: Sequence[int]) -> Params:
    """Xavier-uniform weights and zero biases of an MLP with these layer widths.

    Names are "0.weight" (in, out), "0.bias" (out,), "1.weight", ...
    """
    params: Params = {}
    for i, (fan_in, fan_out) in enumerate(pairwise(widths)):
        bound = (6 / (fan_in + fan_out)) ** 0.5
        params[f"{i}.weight"] = bound * (2 * torch.rand(fan_in, fan_out, generator=rng) - 1)
        params[f"{i}.bias"] = torch.zeros(fan_out)
    return params


def mlp(layers: Layers, x: Tensor) -> Tensor:
    """Apply an MLP with ReLU between its layers to x (..., in); the last layer is linear."""
    *hidden, (weight, bias) = layers
    for w, b in hidden:
        x = relu(linear(x, w.mT, b))
    return linear(x, weight.mT, bias)


def mlps(layers: Layers, x: Tensor) -> Tensor:
    """Apply M MLPs, weights (M, in, out) and biases (M, out), each to its own x (M, S, in).

    The same as `vmap` of `mlp`, moving less memory; it is differentiable once.
    """
    *hidden, (weight, bias) = layers
    for w, b in hidden:
        x = _Hidden.apply(x, w, b)  # type: ignore[no-untyped-call]
    return torch.baddbmm(bias[:, None], x, weight)


class _Hidden(torch.autograd.Function):
    """A layer of `mlps`: sum and ReLU in the memory of the product."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        out = torch.baddbmm(bias[:, None], x, weight).relu_()
        ctx.save_for_backward(x, weight, out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        x, weight, out = ctx.saved_tensors
        delta = torch.ops.aten.threshold_backward(gradient, out, 0)
        d_x = delta @ weight.mT if ctx.needs_input_grad[0] else None
        return d_x, products(x, delta), delta.sum(1)


def products(left: Tensor, right: Tensor) -> Tensor:
    """left.mT @ right (M, ...), one by one: a batched product copies what it transposes."""
    return torch.stack([own.T @ other for own, other in zip(left, right, strict=True)])
