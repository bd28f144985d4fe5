"""Action distributions, as values that torch.func can differentiate and vmap."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Gaussian(NamedTuple):
    """A diagonal Gaussian over actions: `mean` and `std` broadcast to (..., A)."""

    mean: Tensor
    std: Tensor

    def log_prob(self, action: Tensor) -> Tensor:
        """Joint log-density (...,) of actions (..., A): the sum over action dimensions."""
        z = (action - self.mean) / self.std
        return (-0.5 * z.square() - self.std.log() - 0.5 * math.log(2 * math.pi)).sum(-1)

    def sample(self, noise: Tensor) -> Tensor:
        """Actions (..., A) from standard normal noise of that shape; zero noise gives the mean."""
        return torch.addcmul(self.mean, self.std.expand_as(noise), noise)
