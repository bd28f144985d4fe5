"""Gaussian-process regression, exact, of a few noisy values of a smooth function.

Source: Rasmussen and Williams, 2006, Algorithm 2.1 and section 5.4; expected improvement: Jones et
al., 1998.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from demokit.errors import DemokitError
from demokit.learning.distributions import Gaussian
from gmps.experience.units import own_where_alike

_LENGTHS = (1.0, 0.5, 2.0, 0.25, 4.0)  # of equals the first: a deviation of the inputs
_NOISE = 1e-3  # variance, in that of the values
_MIN_SCALE = 1e-9
_MOST_VALUES = 2048


@dataclass(frozen=True, eq=False)
class GaussianProcess:
    """The posterior after values at some inputs, under a squared-exponential kernel.

    Attributes:
        inputs: (n, C).
        length: of the kernel.
        factor: Cholesky's, of the kernel's matrix with noise, (n, n).
        weights: the inverse of that matrix times the standardised values, (n,).
        mean, scale: the units of values.
    """

    inputs: Tensor
    length: float
    factor: Tensor
    weights: Tensor
    mean: Tensor
    scale: Tensor

    @classmethod
    def fit(cls, inputs: Tensor, values: Tensor) -> GaussianProcess:
        """Of values (n,) at inputs (n, C), with the length that makes them likeliest.

        A priori its logarithm is standard normal: two values would choose an extreme.

        Raises:
            DemokitError: there are so many that the matrix would fill the memory.
        """
        if len(values) > _MOST_VALUES:
            raise DemokitError(
                f"{len(values)} values are too many for a Gaussian process: take {_MOST_VALUES}."
            )
        x, y = inputs.double(), values.double()
        mean, spread = y.mean(), y.std(correction=0)
        scale = own_where_alike(spread, _MIN_SCALE)
        standard = (y - mean) / scale
        found = []
        for length in _LENGTHS:
            kernel = _kernel(x, x, length) + _NOISE * torch.eye(len(x), dtype=x.dtype)
            factor = torch.linalg.cholesky(kernel)
            weights = torch.cholesky_solve(standard[:, None], factor)[:, 0]
            misfit = 0.5 * standard @ weights + factor.diagonal().log().sum()
            misfit = float(misfit) + 0.5 * math.log(length) ** 2
            found.append((misfit, cls(x, length, factor, weights, mean, scale)))
        return min(found, key=lambda each: each[0])[1]

    def predict(self, inputs: Tensor) -> Gaussian:
        """Mean and standard deviation (N,) of the function at inputs (N, C)."""
        across = _kernel(self.inputs, inputs.double(), self.length)
        explained = torch.linalg.solve_triangular(self.factor, across, upper=False)
        variance = (1 - explained.square().sum(0)).clamp_min(_NOISE**2)
        mean = self.mean + self.scale * (self.weights @ across)
        return Gaussian(mean.float(), (self.scale * variance.sqrt()).float())


def expected_improvement(predicted: Gaussian, best: Tensor) -> Tensor:
    r"""$E[\max(f - b, 0)] = (\mu - b) \Phi(u) + \sigma \phi(u)$, with $u = (\mu - b) / \sigma$.

    Args:
        predicted: mean and deviation of the function, (N,).
        best: b, the best value so far.
    """
    mean, std = predicted
    u = (mean - best) / std
    density = (-0.5 * u.square()).exp() / math.sqrt(2 * math.pi)
    improvement: Tensor = (mean - best) * torch.special.ndtr(u) + std * density
    return improvement


def _kernel(one: Tensor, other: Tensor, length: float) -> Tensor:
    """Kernel (N, N') of inputs (N, C) and (N', C), one where they are equal."""
    return (-0.5 * (torch.cdist(one, other) / length).square()).exp()
