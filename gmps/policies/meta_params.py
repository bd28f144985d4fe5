"""What an outer loop learns: parameters before adaptation, and inner step sizes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from demokit.errors import DemokitError
from demokit.learning.networks import Params

_THETA, _ALPHA = "theta.", "alpha."


class MetaParams(NamedTuple):
    """Everything the outer loop learns: theta and the inner step sizes alpha."""

    theta: Params
    step_sizes: Params

    def leaves(self) -> list[Tensor]:
        """All tensors, in the order of their names: the same before and after a checkpoint."""
        return [part[name] for part in self for name in sorted(part)]

    def learnable(self, *, step_sizes: bool = True) -> MetaParams:
        """Copies for an optimiser to change in place; alpha stays constant without `step_sizes`."""
        return MetaParams(_copied(self.theta, True), _copied(self.step_sizes, step_sizes))

    def frozen(self) -> MetaParams:
        """Copies that no optimiser changes."""
        return MetaParams(_copied(self.theta, False), _copied(self.step_sizes, False))

    def to(self, device: torch.device) -> MetaParams:
        """The same on a device."""
        return MetaParams(*({n: value.to(device) for n, value in part.items()} for part in self))

    def tensors(self) -> dict[str, Tensor]:
        """By name, for a checkpoint."""
        theta = {f"{_THETA}{name}": value for name, value in self.theta.items()}
        return theta | {f"{_ALPHA}{name}": value for name, value in self.step_sizes.items()}

    @classmethod
    def of_tensors(cls, tensors: Mapping[str, Tensor]) -> MetaParams:
        """The inverse of `tensors`; other names are left alone."""
        return cls(section(tensors, _THETA), section(tensors, _ALPHA))

    def require_finite(self, iteration: int) -> None:
        """Raise DemokitError when an outer step has made a parameter NaN or infinite."""
        if not all(bool(value.isfinite().all()) for value in self.leaves()):
            raise DemokitError(
                f"Training diverged in iteration {iteration}: parameters are NaN or infinite, and "
                "are not saved. Start another run with smaller step sizes."
            )


def section(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names have this prefix, without it."""
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }


def _copied(part: Params, learnable: bool) -> Params:
    return {name: value.detach().clone().requires_grad_(learnable) for name, value in part.items()}
