"""Adam: its state as named tensors for checkpoints, and its step written out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from demokit.learning.checkpoint import check_state
from demokit.learning.networks import Params


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Adam's state as named tensors: "<parameter index>.<step|exp_avg|exp_avg_sq>"."""
    state = optimizer.state_dict()["state"]
    return {f"{i}.{name}": value for i, entry in state.items() for name, value in entry.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """The inverse of `optimizer_tensors`; raises DemokitError for what is no state of it."""
    params = [p for group in optimizer.param_groups for p in group["params"]]
    check_state(tensors, lambda: _like(params, {key.partition(".")[0] for key in tensors}))
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def _like(params: list[Tensor], indices: set[str]) -> dict[str, Tensor]:
    """Adam's state of some of the parameters: of those that had a gradient."""
    state: dict[str, Tensor] = {}
    for i, p in enumerate(params):
        if str(i) in indices:
            state[f"{i}.step"] = torch.zeros(())
            state[f"{i}.exp_avg"] = torch.zeros(p.shape, dtype=p.dtype)
            state[f"{i}.exp_avg_sq"] = torch.zeros(p.shape, dtype=p.dtype)
    return state


class AdamState(NamedTuple):
    """Parameters and Adam's running means of their gradients and of the gradients' squares."""

    params: Params
    first: Params
    second: Params

    @classmethod
    def fresh(cls, params: Params) -> AdamState:
        """Parameters that have seen no gradient."""
        first, second = ({n: torch.zeros_like(p) for n, p in params.items()} for _ in range(2))
        return cls(params, first, second)


def adam(
    state: AdamState,
    gradient: Params,
    count: Tensor,
    learning_rate: float,
    *,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-8,
) -> None:
    """Adam's step in place (Kingma & Ba, 2015, algorithm 1), for compiled functions.

    Those of `torch.optim` cut a compiled function into pieces.

    `p -= lr m^ / (sqrt(v^) + epsilon)` with `m^ = m / (1 - beta_1^count)`, the running mean of
    gradients without the bias of its start at zero, and `v^` that of their squares.
    """
    bias_1, bias_2 = ((1 - beta**count).float() for beta in (beta_1, beta_2))
    for name, p in state.params.items():
        m, v, g = state.first[name], state.second[name], gradient[name]
        m.lerp_(g, 1 - beta_1)
        v.lerp_(g.square(), 1 - beta_2)
        p.sub_(learning_rate * (m / bias_1) / ((v / bias_2).sqrt() + epsilon))
