"""The meta-policy as a pair of pure functions, and the description of what adapts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from demokit.learning.distributions import Gaussian
from demokit.learning.networks import Layers, Params, init_mlp, mlp

_NUM_LAYERS = 3
LATENT = "bias_transform"
"""The parameter that stands for a task where roll-outs explore by latents."""


@dataclass(frozen=True, eq=False)
class GaussianPolicy:
    """MLP policy with a bias transformation and a state-independent standard deviation.

    Source: GMPS's published code (100-100 ReLU, Xavier; a learned constant vector concatenated
    to the input of the first fully connected layer, starting at ones). Observations are
    standardised with the statistics of the demonstrations, which that code does not do.

    Attributes:
        observation_mean, observation_scale: (O,), constants, never trained.
        action_width: A.
        hidden_width: units of both hidden layers.
        bias_transform_width: B; 0 leaves the bias transformation out.
        initial_std, min_std: standard deviation at the start, and its floor.
    """

    observation_mean: Tensor
    observation_scale: Tensor
    action_width: int
    hidden_width: int = 100
    bias_transform_width: int = 4
    initial_std: float = 0.2
    min_std: float = 0.135

    def init(self, rng: torch.Generator) -> Params:
        """Fresh parameters theta."""
        fan_in = len(self.observation_mean) + self.bias_transform_width
        theta = init_mlp(rng, (fan_in, self.hidden_width, self.hidden_width, self.action_width))
        theta["bias_transform"] = torch.ones(self.bias_transform_width)
        theta["log_std"] = torch.full((self.action_width,), self.initial_std).log()
        return theta

    def dist(self, params: Params, observation: Tensor) -> Gaussian:
        """Action distribution for observations (..., O)."""
        mean = mlp(self.layers(params), self.standardised(observation))
        return Gaussian(mean, self.std(params))

    def standardised(self, observation: Tensor) -> Tensor:
        """What the first layer sees of observations (..., O)."""
        return (observation - self.observation_mean) / self.observation_scale

    def layers(self, params: Params) -> Layers:
        """Weights and biases of the MLP; the bias transformation, constant, is a part of a bias."""
        first = params["0.weight"]
        num_seen = len(self.observation_mean)
        seen, constant = first[:num_seen], first[num_seen:]
        bias = params["0.bias"] + params["bias_transform"] @ constant
        later = ((params[f"{i}.weight"], params[f"{i}.bias"]) for i in range(1, _NUM_LAYERS))
        return ((seen, bias), *later)

    def std(self, params: Params) -> Tensor:
        """The standard deviation (A,)."""
        return params["log_std"].exp().clamp_min(self.min_std)


@dataclass(frozen=True)
class AdaptSpec:
    """What the inner loop adapts: the parameters of these names, the rest stays at theta.

    State policies adapt everything but the standard deviation: adapting it too let the
    exploration collapse in the first step.
    """

    names: tuple[str, ...]

    @classmethod
    def all_but(cls, theta: Params, *frozen: str) -> AdaptSpec:
        """Adapt every parameter of theta except the `frozen` ones."""
        return cls(tuple(name for name in theta if name not in frozen))

    def init_step_sizes(self, theta: Params, inner_lr: float) -> Params:
        """One step size per scalar parameter that adapts (alpha), all equal."""
        return {name: torch.full_like(theta[name], inner_lr) for name in self.names}

    def split(self, theta: Params) -> tuple[Params, Params]:
        """The adapted parameters and the others."""
        adapted = {name: theta[name] for name in self.names}
        return adapted, {name: value for name, value in theta.items() if name not in adapted}
