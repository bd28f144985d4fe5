"""Networks as pure functions of a dict of tensors."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TypeAlias

import torch
from torch import Tensor
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
