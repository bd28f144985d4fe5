"""The learner: a posterior over the latent of a task, and an actor under it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from demokit.learning.checkpoint import check_tensors
from demokit.learning.networks import Params
from demokit.learning.sac import squashed_sample
from demokit.random import torch_stream
from gmps.experience.actor import ActionDistribution, Certain, Seen
from gmps.experience.rollouts import Rollouts
from gmps.methods.pearl.networks import ACTOR, ENCODER, Parts, PearlNetworks, named
from gmps.methods.pearl.options import PearlOptions
from gmps.methods.pearl.posterior import Evidence
from gmps.policies.meta_params import section
from gmps.problem import Problem, Training


class Known(NamedTuple):
    """What is known of M tasks: `Evidence` (M, Z), of so many `episodes` (M,)."""

    precision: Tensor
    weighted: Tensor
    episodes: Tensor

    @property
    def evidence(self) -> Evidence:
        """Without how many episodes it is of."""
        return Evidence(self.precision, self.weighted)


@dataclass(frozen=True, eq=False)
class PearlLearner:
    """Episodes follow latents drawn from the posterior; its mean is judged; actions are means.

    Attributes:
        nets: the pure functions.
        theta: parameters of encoder and actor.
        episodes_per_step: see `MetaLearner`.
        prior_episodes: the first episodes of a task, which follow latents of the prior.
    """

    nets: PearlNetworks
    theta: Parts
    episodes_per_step: int
    prior_episodes: int

    def begin(self, num_tasks: int) -> Known:
        """Nothing seen."""
        nothing = Evidence.nothing(num_tasks, self.nets.latent_width, device=self._device)
        return Known(*nothing, torch.zeros(num_tasks, dtype=torch.long, device=self._device))

    def explorer(
        self, belief: Known, step: int, num: int, rngs: Sequence[np.random.Generator]
    ) -> LatentActor:
        """A latent of its own for every episode; of the prior in the first ones of a task."""
        mean, variance = (part[:, None] for part in belief.evidence.gaussian())
        before = belief.episodes[:, None] + torch.arange(num, device=self._device)
        of_prior = (before < self.prior_episodes)[..., None]
        mean, variance = torch.where(of_prior, 0, mean), torch.where(of_prior, 1, variance)
        drawn = np.stack([rng.standard_normal((num, mean.shape[-1]), np.float32) for rng in rngs])
        latent = mean + variance.sqrt() * torch.from_numpy(drawn).to(self._device)
        return LatentActor(self.nets, self.theta[ACTOR], latent)

    def exploiter(self, belief: Known, num: int) -> LatentActor:
        """The actor under the posterior's mean."""
        mean, _ = belief.evidence.gaussian()
        return LatentActor(self.nets, self.theta[ACTOR], mean[:, None].expand(-1, num, -1))

    @torch.no_grad()
    def adapt(self, belief: Known, step: int, gathered: Rollouts, memory: Any) -> Known:
        """With a factor for every step of the episodes.

        Where the encoder sees next observations an episode's last step is left out: what follows it
        is not among roll-outs.
        """
        assert isinstance(gathered.observation, Tensor)
        seen, steps = gathered.observation, gathered.reward.shape[2] - self.nets.sees_next
        behind = torch.cat((seen[:, :, 1:], seen[:, :, -1:]), 2)
        parts = seen, gathered.action.clamp(-1, 1), gathered.reward, behind, gathered.alive
        met = (part[:, :, :steps].flatten(1, 2) for part in parts)
        found = belief.evidence.and_(self.nets.evidence(self.theta[ENCODER], *met))
        return Known(*found, belief.episodes + gathered.reward.shape[1])

    def with_theta(self, theta: Parts) -> Self:
        """With other parameters."""
        return replace(self, theta=theta)

    def tensors(self) -> dict[str, Tensor]:
        """See `MetaLearner`."""
        return named(self.theta)

    def header(self) -> dict[str, Any]:
        """See `MetaLearner`."""
        return {}

    def to(self, device: torch.device) -> Self:
        """See `MetaLearner`."""
        return self.with_theta(
            {part: {n: v.to(device) for n, v in own.items()} for part, own in self.theta.items()}
        )

    @property
    def _device(self) -> torch.device:
        return self.theta[ACTOR]["0.bias"].device


class Squashed(NamedTuple):
    """tanh of a Gaussian, mean and log standard deviation (..., A)."""

    mean: Tensor
    log_std: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """See `ActionDistribution`."""
        return squashed_sample(self.mean, self.log_std, noise)[0]

    def log_prob(self, action: Tensor) -> Tensor:
        """See `ActionDistribution`; of actions within the range."""
        edge = 1 - torch.finfo(action.dtype).eps
        noise = (action.clamp(-edge, edge).atanh() - self.mean) / self.log_std.exp()
        return squashed_sample(self.mean, self.log_std, noise)[1]


class LatentActor:
    """Acts under latents (M, K, Z) of its episodes: by its mean, or as it `explores`."""

    def __init__(
        self, nets: PearlNetworks, theta: Params, latent: Tensor, *, explores: bool = False
    ) -> None:
        self.memory: Any = None
        self._nets, self._theta, self._latent, self._explores = nets, theta, latent, explores

    def __call__(self, memory: Any, seen: Seen) -> tuple[ActionDistribution, Any]:
        """See `Actor`."""
        assert isinstance(seen.observation, Tensor)
        states = torch.cat((seen.observation, self._latent), -1)
        mean, log_std = self._nets.actor(self._theta, states)
        return Squashed(mean, log_std) if self._explores else Certain(mean.tanh()), memory


def start(training: Training[PearlOptions]) -> PearlLearner:
    """Fresh parameters; raises DemokitError where images are seen."""
    options, problem = training.options, training.problem
    problem.require_states()
    options.require_reward(problem)
    if options.warm_start:
        options.require_room(training.demonstrations.num_recorded)
    nets = PearlNetworks.of(options, problem)
    return _learner(options, nets, nets.init(torch_stream(options.seed, "theta")))


def load(
    problem: Problem,
    options: PearlOptions,
    tensors: dict[str, Tensor],
    header: dict[str, Any],  # noqa: ARG001
) -> PearlLearner:
    """The learner of a checkpoint."""
    nets = PearlNetworks.of(options, problem)
    check_tensors(tensors, lambda: named(nets.init(None)), "parameters")
    return _learner(options, nets, {n: section(tensors, f"{n}.") for n in (ENCODER, ACTOR)})


def _learner(options: PearlOptions, nets: PearlNetworks, theta: Parts) -> PearlLearner:
    return PearlLearner(nets, theta, options.rollouts_per_task, options.prior_episodes)
