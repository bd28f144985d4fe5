"""Contexts of tasks as numbers of one size: in units of how the training tasks differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from demokit.errors import DemokitError
from demokit.types import Task
from gmps.experience.units import own_where_alike

_SMALLEST = 1e-6  # spread of contexts, of their size: less is rounding


@dataclass(frozen=True, eq=False)
class ContextUnits:
    """What makes the contexts of the training tasks zero on average, with a deviation of one.

    Attributes:
        mean, scale: (C,); a component in which the training tasks agree keeps its own unit.
    """

    mean: Tensor
    scale: Tensor

    @classmethod
    def over(cls, tasks: Sequence[Task]) -> ContextUnits:
        """Those of these training tasks."""
        contexts = _contexts(tasks)
        mean, spread = contexts.mean(0), contexts.std(0).nan_to_num()
        return cls(mean, own_where_alike(spread, _SMALLEST * contexts.abs().amax(0)))

    def of(self, tasks: Sequence[Task]) -> Tensor:
        """Standardised contexts (N, C) of tasks."""
        return self.standard(_contexts(tasks))

    def standard(self, contexts: Tensor) -> Tensor:
        """Standardised contexts (..., C).

        Raises:
            DemokitError: they say other things than those of the training tasks.
        """
        told, known = contexts.shape[-1], len(self.mean)
        if told != known:
            raise DemokitError(
                f"The contexts of these tasks have {told} components, those of the training tasks "
                f"{known}: name a --task-set like that of the training."
            )
        return (contexts - self.mean) / self.scale


def _contexts(tasks: Sequence[Task]) -> Tensor:
    return torch.tensor(np.array([task.context for task in tasks]), dtype=torch.float32)
