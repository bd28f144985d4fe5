"""The task space: latents of training tasks, in the units of how they spread."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

_LEAST_VARIANCE = 1e-12
_LEAST_SPREAD = 0.05  # of the widest direction: what varies less tells no tasks apart


@dataclass(frozen=True, eq=False)
class TaskSpace:
    """Codes e of unit spread for latents z = mean + axes e of a policy.

    Attributes:
        mean: (Z,).
        axes: (Z, R), the directions in which training tasks differ, as long as they spread.
        codes: (M, R), of the training tasks.
    """

    mean: Tensor
    axes: Tensor
    codes: Tensor

    @classmethod
    def of(cls, latents: Tensor) -> TaskSpace:
        """The space that latents (M, Z) of training tasks span."""
        mean = latents.mean(0)
        apart = latents - mean
        variance, directions = torch.linalg.eigh(apart.mT @ apart / len(latents))
        spread = variance.clamp_min(_LEAST_VARIANCE).sqrt()
        kept = spread >= _LEAST_SPREAD * spread.max()
        spread, directions = spread[kept], directions[:, kept]
        return cls(mean, directions * spread, apart @ directions / spread)

    @property
    def width(self) -> int:
        """R."""
        return self.axes.shape[1]

    def latent(self, codes: Tensor) -> Tensor:
        """Latents (..., Z) of codes (..., R)."""
        return self.mean + codes @ self.axes.mT

    def tensors(self) -> dict[str, Tensor]:
        """By name, for a checkpoint."""
        return {"mean": self.mean, "axes": self.axes, "codes": self.codes}

    def to(self, device: torch.device) -> TaskSpace:
        """The same on a device."""
        return TaskSpace(*(value.to(device) for value in (self.mean, self.axes, self.codes)))

    @classmethod
    def of_tensors(cls, tensors: Mapping[str, Tensor]) -> TaskSpace:
        """The inverse of `tensors`; raises KeyError."""
        return cls(tensors["mean"], tensors["axes"], tensors["codes"])
