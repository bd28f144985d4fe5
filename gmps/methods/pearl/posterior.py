"""Which task is it? A product of Gaussians, a factor for every transition (Rakelly et al., 2019).

    q(z | c) is proportional to the product over n of N(z; mu(c_n), sigma^2(c_n))       section 4.1

It does not depend on the order of transitions. Without any it is the prior, N(0, I).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Evidence(NamedTuple):
    """What transitions say of a latent: all that a product of Gaussians depends on.

    `precision` (..., Z) is the sum of `1 / sigma^2` over them, `weighted` (..., Z) that of
    `mu / sigma^2`; both are zero where nothing was seen.
    """

    precision: Tensor
    weighted: Tensor

    @classmethod
    def nothing(cls, *shape: int, device: torch.device | None = None) -> Evidence:
        """For latents of a shape (..., Z)."""
        return cls(torch.zeros(shape, device=device), torch.zeros(shape, device=device))

    @classmethod
    def of(cls, mean: Tensor, variance: Tensor, counts: Tensor | None = None) -> Evidence:
        """That of N factors (..., N, Z), of those that count (..., N)."""
        precision = variance.reciprocal()
        if counts is not None:
            precision = torch.where(counts[..., None], precision, 0)
        return cls(precision.sum(-2), (mean * precision).sum(-2))

    def and_(self, other: Evidence) -> Evidence:
        """Both together."""
        return Evidence(self.precision + other.precision, self.weighted + other.weighted)

    def gaussian(self) -> tuple[Tensor, Tensor]:
        """Mean and variance (..., Z) of the posterior; those of the prior where nothing was seen.

        The prior is no factor: one transition outweighs it, as in the authors' code.
        """
        seen = self.precision != 0
        variance = torch.where(seen, self.precision, 1).reciprocal()
        return variance * self.weighted, variance


def divergence(mean: Tensor, variance: Tensor) -> Tensor:
    """`KL(N(mean, variance) || N(0, I))`, summed over dimensions, (...,)."""
    return 0.5 * (mean.square() + variance - 1 - variance.log()).sum(-1)
