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


def from_numpy(observation: Any) -> Observation:
    """The observation of simulations or of an episode, an array or a mapping, without a copy."""
    if isinstance(observation, Mapping):
        return {name: torch.from_numpy(values) for name, values in observation.items()}
    return torch.from_numpy(observation)


Batch = TypeVar("Batch", bound=tuple[Any, ...])


def thinned(batch: Batch, stride: int, rng: np.random.Generator, axis: int = 1) -> Batch:
    """Every `stride`-th sample of a named tuple of tensors along `axis`, from a random first one.

    Axis 1 is that of the samples in (M, S, ...), axis 0 in (S, ...).
    """
    if stride == 1:
        return batch
    chosen = (*[slice(None)] * axis, slice(int(rng.integers(stride)), None, stride))
    return type(batch)(*(each(lambda values: values[chosen], part) for part in batch))
