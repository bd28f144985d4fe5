"""Networks as pure functions of a dict of tensors."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import relu

Params: TypeAlias = dict[str, Tensor]


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


def mlp(params: Params, x: Tensor, num_layers: int) -> Tensor:
    """Apply an MLP with ReLU between its layers to x (..., in); the last layer is linear."""
    for i in range(num_layers):
        x = x @ params[f"{i}.weight"] + params[f"{i}.bias"]
        if i < num_layers - 1:
            x = relu(x)
    return x
