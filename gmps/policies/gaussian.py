"""The meta-policy as a pair of pure functions, and the description of what adapts."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from demokit.learning.distributions import Gaussian
from demokit.learning.networks import Layers, Params, init_mlp, mlp
from gmps.experience.actor import Seen
from gmps.experience.observation import Observation
from gmps.policies.encoder import PREFIX, Encoder

_IN_PLACE = {"relu": torch.relu_, "tanh": torch.tanh_}
_OBJECT_WEIGHT, _OBJECT_BIAS = f"{PREFIX}place.weight", f"{PREFIX}place.bias"
LATENT = "bias_transform"
"""The parameter that stands for a task where a latent is what adapts."""


@dataclass(frozen=True, eq=False)
class GaussianPolicy:
    """MLP policy with a bias transformation and a state-independent standard deviation.

    It acts on features (F,): of states, they are the observation itself; of images, the points
    that an encoder finds in them, the vectors beside the images (the hand's position), and where
    the points say that the object is, a linear map which is trained to predict it.

    Source: GMPS's published code (100-100 ReLU, Xavier; a learned constant vector concatenated
    to the input of the first fully connected layer, starting at ones). Features are
    standardised with the statistics of the demonstrations, which that code does not do.

    Attributes:
        feature_mean, feature_scale: (F,), constants, never trained.
        action_width: A.
        hidden_width: units of every hidden layer.
        bias_transform_width: B; 0 leaves the bias transformation out.
        initial_std, min_std: standard deviation of the network's output at the start, and its
            floor.
        encoder: of images; None for states.
        object_width: P, the last features, which say where the object is; 0 for states.
        hidden_layers: how many.
        activation: between layers, see `ACTIVATIONS`.
        action_scale: which outputs of the network span the actions' range [-1, 1], from -it to it.
            At equal exploration, a gradient step moves actions by the inverse of its square.
    """

    feature_mean: Tensor
    feature_scale: Tensor
    action_width: int
    hidden_width: int = 100
    bias_transform_width: int = 4
    initial_std: float = 0.2
    min_std: float = 0.135
    encoder: Encoder | None = None
    object_width: int = 0
    hidden_layers: int = 2
    activation: str = "relu"
    action_scale: float = 1.0

    def init(self, rng: torch.Generator | None) -> Params:
        """Fresh parameters theta; those that make features have names in "encoder."."""
        fan_in = len(self.feature_mean) + self.bias_transform_width
        hidden = self.hidden_layers * (self.hidden_width,)
        theta = init_mlp(rng, (fan_in, *hidden, self.action_width))
        theta["bias_transform"] = torch.ones(self.bias_transform_width)
        theta["log_std"] = torch.full((self.action_width,), self.initial_std).log()
        if self.encoder:
            theta |= self.encoder.init(rng)
            num_seen = len(self.feature_mean) - self.object_width
            theta[_OBJECT_WEIGHT] = torch.zeros(self.object_width, num_seen)
            theta[_OBJECT_BIAS] = torch.zeros(self.object_width)
        return theta

    def encode(self, params: Params, observation: Observation) -> Tensor:
        """Features (..., F) of observations (...); what are features already, stays.

        The inner loop never changes what this depends on: a batch is encoded once, under theta.
        """
        if isinstance(observation, Tensor):
            return observation
        assert self.encoder is not None
        seen = self.encoder(params, observation)
        num_seen = seen.shape[-1]
        standard = (seen - self.feature_mean[:num_seen]) / self.feature_scale[:num_seen]
        standard = linear(standard, params[_OBJECT_WEIGHT], params[_OBJECT_BIAS])
        position = self.feature_mean[num_seen:] + self.feature_scale[num_seen:] * standard
        return torch.cat((seen, position), -1)

    def object_loss(self, features: Tensor, position: Tensor, weight: Tensor) -> Tensor:
        """Mean squared error of the features that say where the object is, in deviations.

        `position` (..., P) is privileged: it trains the eyes, no policy sees it. `weight` (...,) is
        that of `mean_weights`. States have no such features, and no loss.
        """
        if not self.object_width:
            return features.new_zeros(())
        columns = self.object_columns
        error = (features[..., columns] - position) / self.feature_scale[columns]
        return (weight * error.square().mean(-1)).mean()

    def baseline_features(self, features: Tensor) -> Tensor:
        """What the value baseline sees of features (..., F).

        Of images, the vectors and where the object seems to be, like a state; without the latter,
        all features.
        """
        if self.encoder is None or not self.object_width:
            return features
        return features[..., self.encoder.num_points :]

    @property
    def object_columns(self) -> slice:
        """The features that say where the object is."""
        return slice(len(self.feature_mean) - self.object_width, len(self.feature_mean))

    def dist(self, params: Params, observation: Observation) -> Gaussian:
        """Action distribution for observations or features (...)."""
        features = self.encode(params, observation)
        mean = mlp(self.layers(params), self.standardised(features), self.activation)
        return Gaussian(mean, self.std(params))

    def dist_under(self, params: Params, latents: Tensor, observation: Observation) -> Gaussian:
        """Action distributions of M tasks, each under its latent (M, Z), for observations (M, S).

        A latent stands for the bias transformation.
        """
        features = self.encode(params, observation)
        mean = torch.func.vmap(lambda z, own: self.dist({**params, LATENT: z}, own).mean)
        return Gaussian(mean(latents, features), self.std(params))

    def standardised(self, features: Tensor) -> Tensor:
        """What the first layer sees of features (..., F)."""
        return (features - self.feature_mean) / self.feature_scale

    def layers(self, params: Params) -> Layers:
        """Weights and biases from features to actions.

        The bias transformation, constant, is a part of a bias, the scale one of the last layer.
        """
        first = params["0.weight"]
        num_seen = len(self.feature_mean)
        seen, constant = first[:num_seen], first[num_seen:]
        bias = params["0.bias"] + params["bias_transform"] @ constant
        later = ((params[f"{i}.weight"], params[f"{i}.bias"]) for i in range(1, self.hidden_layers))
        last = (params[f"{self.hidden_layers}.{part}"] for part in ("weight", "bias"))
        weight, shift = (part / self.action_scale for part in last)
        return ((seen, bias), *later, (weight, shift))

    def head(self, params: Params) -> tuple[Layers, Tensor]:
        """All that acts on standardised features: the layers, and the standard deviation."""
        return self.layers(params), self.std(params)

    def std(self, params: Params) -> Tensor:
        """The standard deviation (A,) of actions."""
        return params["log_std"].exp().clamp_min(self.min_std) / self.action_scale

    def to(self, device: torch.device) -> GaussianPolicy:
        """The same with its constants on a device."""
        mean, scale = self.feature_mean.to(device), self.feature_scale.to(device)
        return replace(self, feature_mean=mean, feature_scale=scale)


class GaussianActor:
    """Acts by a policy, in each task with parameters of its own.

    Args:
        policy: the pure functions.
        params: (M, ...); what makes features of images is that of the first task, it never adapts.
        latents: (M, K, S, Z), which stand for the bias transformation of every episode, one after
            the other; they are the actor's memory. None leaves it as it is.
        bounds: the S + 1 steps at which latents change.
    """

    def __init__(
        self,
        policy: GaussianPolicy,
        params: Params,
        latents: Tensor | None = None,
        bounds: Sequence[int] = (0,),
    ) -> None:
        self.memory: Any = latents
        self._policy, self._bounds = policy, bounds
        self._activate = _IN_PLACE[policy.activation]
        self._eyes = {name: value[0] for name, value in params.items()}
        head = torch.func.vmap(policy.head)
        if latents is None:
            self._heads = [head(params)]
        else:
            followed = [{**params, LATENT: latents[:, :, i]} for i in range(latents.shape[2])]
            self._heads = [head(own) for own in followed]

    def __call__(self, memory: Any, seen: Seen) -> tuple[Gaussian, Any]:
        """See `Actor`."""
        layers, std = self._heads[min(bisect_right(self._bounds, seen.t), len(self._heads)) - 1]
        x = self._policy.standardised(self._policy.encode(self._eyes, seen.observation))
        for i, (weight, bias) in enumerate(layers):
            rows = bias if bias.ndim == 3 else bias[:, None]
            x = torch.baddbmm(rows, self._activate(x) if i else x, weight)
        return Gaussian(x, std[:, None]), memory


def replicate(params: Params, num_tasks: int) -> Params:
    """The same parameters for every task, with a leading axis M (no copy)."""
    return {name: value.detach().expand(num_tasks, *value.shape) for name, value in params.items()}


@dataclass(frozen=True)
class AdaptSpec:
    """What the inner loop adapts: the parameters of these names, the rest stays at theta.

    Policies adapt the fully connected layers and the bias transformation: of states, that is
    everything but the standard deviation (adapting it too let the exploration collapse in the
    first step); what makes features of images is meta-learned only (GMPS, section 5.2).
    """

    names: tuple[str, ...]

    @classmethod
    def of_policy(cls, theta: Params) -> AdaptSpec:
        """What the policies of this package adapt."""
        return cls.all_but(theta, "log_std", *(n for n in theta if n.startswith(PREFIX)))

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
