"""Networks as pure functions of a dict of tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain, pairwise
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear, relu

Params: TypeAlias = dict[str, Tensor]
Layers: TypeAlias = tuple[tuple[Tensor, Tensor], ...]
"""A weight (in, out) and a bias (out,) for every layer."""

ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {"relu": relu, "tanh": torch.tanh}
"""What stands between layers, by name."""


def init_mlp(rng: torch.Generator | None, widths: Sequence[int], *, biased: bool = True) -> Params:
    """Xavier-uniform weights and zero biases, if any, of an MLP with these layer widths.

    Names are "0.weight" (in, out), "0.bias" (out,), "1.weight", ...
    """
    params: Params = {}
    for i, (fan_in, fan_out) in enumerate(pairwise(widths)):
        bound = (6 / (fan_in + fan_out)) ** 0.5
        params[f"{i}.weight"] = bound * (2 * torch.rand(fan_in, fan_out, generator=rng) - 1)
        if biased:
            params[f"{i}.bias"] = torch.zeros(fan_out)
    return params


def mlp(layers: Layers, x: Tensor, activation: str = "relu") -> Tensor:
    """Apply an MLP to x (..., in), one of `ACTIVATIONS` between its layers; the last is linear."""
    *hidden, (weight, bias) = layers
    for w, b in hidden:
        x = ACTIVATIONS[activation](linear(x, w.mT, b))
    return linear(x, weight.mT, bias)


def mlps(layers: Layers, x: Tensor) -> Tensor:
    """Apply M MLPs, weights (M, in, out) and biases (M, out), each to its own x (M, S, in).

    The same as `vmap` of `mlp`, moving less memory; it is differentiable once.
    """
    out: Tensor = _Mlps.apply(x, *chain.from_iterable(layers))  # type: ignore[no-untyped-call]
    return out


class _Mlps(torch.autograd.Function):
    """Sums and ReLUs in the memory of the products, forward and back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *flat: Tensor) -> Tensor:
        weights, biases, hidden = flat[::2], flat[1::2], [x]
        for weight, bias in zip(weights, biases, strict=True):
            hidden.append(torch.baddbmm(bias[:, None], hidden[-1], weight))
            if len(hidden) <= len(weights):
                hidden[-1].relu_()
        out = hidden.pop()
        ctx.save_for_backward(*weights, *hidden)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor | None, ...]:
        num = len(ctx.saved_tensors) // 2
        weights, hidden = ctx.saved_tensors[:num], ctx.saved_tensors[num:]
        parts: list[Tensor] = []
        for i in reversed(range(num)):
            parts += [delta.sum(1), products(hidden[i], delta)]
            if i > 0:
                delta = gated(delta @ weights[i].mT, hidden[i])
        d_x = delta @ weights[0].mT if ctx.needs_input_grad[0] else None
        return d_x, *reversed(parts)


def gated(values: Tensor, hidden: Tensor) -> Tensor:
    """Zero the values, in place, where a ReLU's output `hidden` is zero: its derivative."""
    gate = torch.ops.aten.threshold_backward.grad_input
    zeroed: Tensor = gate(values, hidden, 0, grad_input=values)
    return zeroed


def products(left: Tensor, right: Tensor) -> Tensor:
    """left.mT @ right (M, ...), one by one: a batched product copies what it transposes."""
    return torch.stack([product(own, other) for own, other in zip(left, right, strict=True)])


def product(left: Tensor, right: Tensor) -> Tensor:
    """left.T @ right of rows (S, ...), so that the result has no few columns: that is slow."""
    if right.shape[1] < left.shape[1]:
        return (right.T @ left).T
    return left.T @ right
