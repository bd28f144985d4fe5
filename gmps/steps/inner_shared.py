"""The first inner step of many tasks at once, and its derivative, by hand.

All tasks take it from the same theta. What is shared is therefore one large matrix product and not
one per task, the meta-gradient needs only the sum over tasks of Hessian-vector products, and each
of these is a forward pass of tangents and a backward pass (forward over reverse; Pearlmutter,
1994) over activations that the step has anyway. `torch.func` on `InnerStep` gives the same numbers;
it moves about twice as much memory.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from demokit.learning.distributions import Gaussian
from demokit.learning.networks import Layers, gated, product, products

# Activations of so many samples stay in a CPU's cache; a GPU wants more of them.
_SAMPLES_AT_ONCE = {"cpu": 4_000, "cuda": 1_000_000}


def surrogate_gradient(
    x: Tensor,
    layers: Layers,
    std: Tensor,
    action: Tensor,
    behaviour_log_prob: Tensor,
    advantage: Tensor,
    *,
    ratio_clip: float,
    dtype: torch.dtype | None = None,
) -> Layers:
    """Gradient of `inner_surrogate` in the layers of a Gaussian MLP policy, for M tasks.

    The gradient is stopped through the importance ratio. It is differentiable once, in x, the
    layers and std.

    Args:
        x: inputs of the first layer (M, S, F).
        layers: weights (in, out) and biases (out,), shared by all tasks; ReLU between them.
        std: (A,).
        action: (M, S, A).
        behaviour_log_prob: (M, S).
        advantage: (M, S).
        ratio_clip: see `inner_surrogate`.
        dtype: of the matrix products; None leaves that of x. Sums and results keep that of x.

    Returns:
        A gradient (M, ...) for every weight and bias.
    """
    constants = action, behaviour_log_prob, advantage, ratio_clip, dtype or x.dtype
    flat = [tensor for layer in layers for tensor in layer]
    gradient = _SurrogateGradient.apply(x, std, *constants, *flat)  # type: ignore[no-untyped-call]
    return tuple(zip(gradient[::2], gradient[1::2], strict=True))


class _SurrogateGradient(torch.autograd.Function):
    """A few tasks at a time, so that their activations stay in a CPU's cache."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        std: Tensor,
        action: Tensor,
        behaviour_log_prob: Tensor,
        advantage: Tensor,
        ratio_clip: float,
        dtype: torch.dtype,
        *flat: Tensor,
    ) -> tuple[Tensor, ...]:
        layers = [tensor.to(dtype) for tensor in flat]
        tasks_at_once = max(1, _SAMPLES_AT_ONCE[x.device.type] // x.shape[1])
        given = x, action, behaviour_log_prob, advantage
        batches = zip(*(torch.split(t, tasks_at_once) for t in given), strict=True)
        ctx.passes = [_Pass.forward(layers, std, ratio_clip, *batch) for batch in batches]
        ctx.layers, ctx.std = layers, std
        gradients = zip(*(each.gradient() for each in ctx.passes), strict=True)
        return tuple(torch.cat(parts).to(x.dtype) for parts in gradients)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *directions: Tensor) -> tuple[Tensor | None, ...]:
        first, need_x = 0, ctx.needs_input_grad[0]
        d_x, sums = [], []
        for each in ctx.passes:
            last = first + len(each.curvature)
            along = [direction[first:last].to(each.hidden[0].dtype) for direction in directions]
            d_input, *rest = each.derivative(ctx.layers, ctx.std, along, need_x)
            d_x.append(d_input)
            sums.append(rest)
            first = last
        d_std, *d_layers = (torch.stack(parts).sum(0) for parts in zip(*sums, strict=True))
        return (torch.cat(d_x) if need_x else None, d_std, *[None] * 5, *d_layers)


class _Pass(NamedTuple):
    """What a forward and a backward pass of the loss leave: all that its derivative needs.

    `hidden` are the layers' inputs (m, S, in), `deltas` the derivatives of the loss by their
    outputs (m, S, out), `curvature` (m, S, A) the second derivative by the means: the loss is
    quadratic in them.
    """

    hidden: list[Tensor]
    deltas: list[Tensor]
    curvature: Tensor

    @classmethod
    def forward(
        cls,
        layers: list[Tensor],
        std: Tensor,
        ratio_clip: float,
        x: Tensor,
        action: Tensor,
        behaviour_log_prob: Tensor,
        advantage: Tensor,
    ) -> _Pass:
        """Forward and back through the layers: weight, bias, weight, bias, ..."""
        weights, biases = layers[::2], layers[1::2]
        hidden = [x.to(weights[0].dtype)]
        for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
            hidden.append(_affine(hidden[-1], weight, bias).relu_())
        mean = _affine(hidden[-1], weights[-1], biases[-1]).to(x.dtype)
        ratio = (Gaussian(mean, std).log_prob(action) - behaviour_log_prob).exp_()
        paid = ratio.clamp_max_(ratio_clip) * advantage / x.shape[1]
        curvature = paid[..., None] / std.square()
        deltas = [(curvature * (mean - action)).to(hidden[0].dtype)]
        for weight, h in zip(weights[:0:-1], hidden[:0:-1], strict=True):
            deltas.append(gated(deltas[-1] @ weight.T, h))
        return cls(hidden, deltas[::-1], curvature)

    def gradient(self) -> list[Tensor]:
        """By every weight and bias, (m, ...)."""
        return [
            part
            for h, delta in zip(self.hidden, self.deltas, strict=True)
            for part in (products(h, delta), delta.sum(1))
        ]

    def derivative(
        self, layers: list[Tensor], std: Tensor, along: list[Tensor], need_x: bool
    ) -> list[Tensor]:
        """Of the gradient, times `along` (m, ...): by x, by std, and by every weight and bias."""
        weights, num = layers[::2], len(self.hidden)
        tangents = self._tangents(weights, along)
        mean = tangents.pop().to(std.dtype)
        d_std = -2 * (self.deltas[-1] * mean).sum((0, 1)) / std
        delta = (self.curvature * mean).to(weights[0].dtype)
        parts: list[Tensor] = []
        for i in reversed(range(num)):
            d_weight = product(_flat(self.hidden[i]), _flat(delta))
            if i > 0:
                d_weight += product(_flat(tangents[i - 1]), _flat(self.deltas[i]))
            parts += [_flat(delta).sum(0).to(std.dtype), d_weight.to(std.dtype)]
            if i > 0 or need_x:
                before = self.deltas[i] @ along[2 * i].mT
                _flat(before).addmm_(_flat(delta), weights[i].T)
                delta = gated(before, self.hidden[i]) if i > 0 else before
        return [delta.to(std.dtype), d_std, *reversed(parts)]

    def _tangents(self, weights: list[Tensor], along: list[Tensor]) -> list[Tensor]:
        """How the layers' outputs move along the directions."""
        tangents: list[Tensor] = []
        for i, weight in enumerate(weights):
            moved = torch.baddbmm(along[2 * i + 1][:, None], self.hidden[i], along[2 * i])
            if tangents:
                _flat(moved).addmm_(_flat(tangents[-1]), weight)
            last = i + 1 == len(weights)
            tangents.append(moved if last else gated(moved, self.hidden[i + 1]))
        return tangents


def _flat(values: Tensor) -> Tensor:
    """Rows (M * S, ...) of the samples of all tasks."""
    return values.flatten(0, 1)


def _affine(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return torch.addmm(bias, _flat(x), weight).view(*x.shape[:-1], -1)
