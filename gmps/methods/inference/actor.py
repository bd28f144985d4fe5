"""Acting under codes of tasks: as planned, or moved within the episode by what it has met."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from demokit.learning.distributions import Gaussian
from demokit.learning.networks import Params
from gmps.experience.actor import Seen
from gmps.experience.transitions import Transitions, between
from gmps.methods.inference.policy import act
from gmps.policies.gaussian import GaussianPolicy


class Eyes(NamedTuple):
    """How a policy sees, and what models see of that."""

    policy: GaussianPolicy
    theta: Params

    def features(self, observation: Any) -> Tensor:
        """What the policy acts on, (..., F)."""
        return self.policy.encode(self.theta, observation)

    def modelled(self, features: Tensor) -> Tensor:
        """What models predict, of features (..., F)."""
        return self.policy.baseline_features(features)


class PlannedActor:
    """Follows latents (M, K, S, Z) of its episodes, one after the other.

    Each follows its latent s from its step `starts` (M, K, S) on; the first starts at 0.
    """

    def __init__(self, eyes: Eyes, latents: Tensor, starts: Tensor, std: float) -> None:
        self.memory: Any = None
        self._eyes, self._latents, self._starts, self._std = eyes, latents, starts, std

    def __call__(self, memory: Any, seen: Seen) -> tuple[Gaussian, Any]:
        """See `Actor`."""
        now = (self._starts <= seen.t).sum(-1, keepdim=True) - 1
        index = now[..., None].expand(*now.shape, self._latents.shape[-1])
        latent = self._latents.gather(2, index).squeeze(2)
        features = self._eyes.features(seen.observation)
        mean = act(self._eyes.policy, self._eyes.theta, latent, features)
        return Gaussian(mean, mean.new_full((), self._std)), memory


class Path(NamedTuple):
    """What exploring episodes remember: their latents (M, K, Z), and what they have met so far.

    `draws` are for whoever looks at it in the end.
    """

    latent: Tensor
    draws: Any
    features: tuple[Tensor, ...] = ()
    actions: tuple[Tensor, ...] = ()
    rewards: tuple[Tensor, ...] = ()
    alive: tuple[Tensor, ...] = ()


class SeekingActor:
    """Follows a latent, and looks at certain steps whether another explains the episode better.

    Args:
        eyes: how it sees.
        latent: (M, K, Z), followed first.
        moves: the steps at which it looks.
        look: latents (M, K, Z) for look 0, 1, ..., given the episode's transitions
            (M, K, N, ...).
        draws: kept in the memory.
        std: of its actions.
    """

    def __init__(
        self,
        eyes: Eyes,
        latent: Tensor,
        moves: Sequence[int],
        look: Callable[[int, Transitions], Tensor],
        draws: Any,
        std: float,
    ) -> None:
        self.memory = Path(latent, draws)
        self._eyes, self._moves, self._look, self._std = eyes, list(moves), look, std

    def __call__(self, memory: Path, seen: Seen) -> tuple[Gaussian, Path]:
        """See `Actor`."""
        features = self._eyes.features(seen.observation)
        path = memory._replace(
            features=(*memory.features, self._eyes.modelled(features)),
            alive=(*memory.alive, seen.alive),
        )
        if seen.t:
            path = path._replace(
                actions=(*path.actions, seen.action), rewards=(*path.rewards, seen.reward)
            )
        if seen.t in self._moves:
            latent = self._look(self._moves.index(seen.t), met_on(path))
            path = path._replace(latent=latent)
        mean = act(self._eyes.policy, self._eyes.theta, path.latent, features)
        return Gaussian(mean, mean.new_full((), self._std)), path


def met_on(path: Path) -> Transitions:
    """The transitions (M, K, N, ...) of episodes so far."""
    states = torch.stack(path.features, 2)
    action, reward, alive = (
        torch.stack(part, 2) for part in (path.actions, path.rewards, path.alive)
    )
    return between(states, action, reward, alive)
