"""What policies see, as tensors: a vector, or by name images and vectors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, TypeVar

import numpy as np
import torch
from torch import Tensor

Observation: TypeAlias = Tensor | dict[str, Tensor]
"""Vectors (..., O); or name -> images (..., height, width, 3) uint8 and vectors (..., D).

All tensors share the leading axes.
"""


def each(change: Callable[..., Tensor], *observations: Observation) -> Observation:
    """`change` applied to the tensors of one or of several like observations."""
    first, *others = observations
    if isinstance(first, Tensor):
        return change(first, *others)
    rest = [other for other in others if not isinstance(other, Tensor)]
    return {name: change(values, *(r[name] for r in rest)) for name, values in first.items()}


def from_numpy(observation: Any, device: torch.device | str = "cpu") -> Observation:
    """The observation of simulations or of an episode, an array or a mapping.

    A copy: numpy does not align memory as torch does, and sums depend on it in the last bit.
    """
    if isinstance(observation, Mapping):
        return {name: _copied(rows, device) for name, rows in observation.items()}
    return _copied(observation, device)


def _copied(values: Any, device: torch.device | str) -> Tensor:
    return torch.from_numpy(values).to(device, copy=True)


Batch = TypeVar("Batch", bound=tuple[Any, ...])


def thinned(batch: Batch, stride: int, rng: np.random.Generator) -> Batch:
    """Every `stride`-th sample of a named tuple of tensors (M, S, ...), from a random first one.

    It is the same one for all tasks. At least one sample is left.
    """
    if stride == 1:
        return batch
    first = int(rng.integers(min(stride, batch[-1].shape[1])))
    chosen = slice(first, None, stride)
    return type(batch)(*(each(lambda values: values[:, chosen], part) for part in batch))
