"""stable-baselines3's SAC with its slow parts replaced: what is left is matrix products.

Against the library's `train`: an update is one compiled function (`recorders.sac.update`), and
nothing is read back from it; critics have layer normalisation, which keeps them from overshooting
where data are few (Ball et al., 2023).
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from stable_baselines3 import SAC
from stable_baselines3.common.policies import BaseModel
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from stable_baselines3.sac.policies import Actor, SACPolicy
from torch import Tensor, nn

from demokit.learning.expert import ExpertInputs
from demokit.learning.sac import Networks, squashed_sample
from demokit.types import FloatArray
from recorders.sac.replay import TorchReplay
from recorders.sac.update import Settings, State, pure, update

_LOG_STD = (-5.0, 2.0)


class Gaussian(nn.Module):
    """The library's actor as one function: states (B, D) -> mean and log std (B, A) of u.

    Its parameters have the names that they have in the actor.
    """

    def __init__(self, actor: Actor) -> None:
        super().__init__()
        self.latent_pi, self.mu = actor.latent_pi, actor.mu
        self.log_std = cast(nn.Module, actor.log_std)

    def forward(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and logarithm of the standard deviation, float32."""
        latent = self.latent_pi(states)
        return self.mu(latent).float(), self.log_std(latent).float().clamp(*_LOG_STD)


class TwinCritic(BaseModel):
    """Two action-value networks with layer normalisation; values are (2, B)."""

    def __init__(self, width: int, hidden: list[int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.first, self.second = (_critic_network(width, hidden) for _ in range(2))

    def forward(self, observation: Tensor, action: Tensor) -> Tensor:
        """Values (2, B), float32, of actions (B, A) in states (B, D)."""
        x = torch.cat([observation, action], dim=1)
        return torch.cat([self.first(x), self.second(x)], dim=1).float().T


def _critic_network(width: int, hidden: list[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for units in hidden:
        layers += [nn.Linear(width, units), nn.LayerNorm(units), nn.ReLU()]
        width = units
    return nn.Sequential(*layers, nn.Linear(width, 1))


class ExpertPolicy(SACPolicy):
    """The library's actor beside the twin critic."""

    def make_critic(self, features_extractor: Any = None) -> TwinCritic:  # type: ignore[override]
        """See `SACPolicy`."""
        kwargs = self._update_features_extractor(self.critic_kwargs, features_extractor)
        width = kwargs["features_dim"] + self.action_space.shape[0]  # type: ignore[index]
        kept = ("observation_space", "action_space", "features_extractor")
        named = {name: kwargs[name] for name in kept}
        return TwinCritic(width, list(kwargs["net_arch"]), **named).to(self.device)


class ExpertSAC(SAC):
    """SAC over `TorchReplay`, with compiled updates that are never waited for.

    Attributes:
        inputs: what it sees.
        state: what updates change: parameters (the networks' own memory) and Adam's moments.
        explores_from: environment steps after which actions come from the policy; before, they
            are uniform.
        rng: draws the uniform ones.
    """

    replay_buffer: TorchReplay
    inputs: ExpertInputs
    state: State
    rng: np.random.Generator
    explores_from = 0

    def prepare(self, *, bf16: bool = False, compiled: bool = False) -> None:
        """Choose how updates are computed; the first compiled one takes a minute."""
        self._networks = Networks(pure(self._gaussian, bf16=bf16), pure(self.critic, bf16=bf16))
        self._update = torch.compile(update) if compiled else update

    def _setup_model(self) -> None:
        super()._setup_model()
        assert self.log_ent_coef is not None
        assert isinstance(self.learning_rate, float)
        self._gaussian = Gaussian(self.actor)
        self.state = State.fresh(self._gaussian, self.critic, self.critic_target, self.log_ent_coef)
        self._settings = Settings(self.learning_rate, self.tau, float(self.target_entropy))
        self.prepare()

    @torch.no_grad()
    def train(self, gradient_steps: int, batch_size: int = 64) -> None:
        """Gradient steps on fresh batches."""
        self.policy.set_training_mode(True)
        shape = (2, batch_size, *self.action_space.shape)  # type: ignore[misc]
        drawn = self.replay_buffer.sample(gradient_steps * batch_size)
        batches = (
            part.split(batch_size)  # type: ignore[no-untyped-call]
            for part in drawn
            if part is not None
        )
        for parts in zip(*batches, strict=True):
            noise = torch.randn(shape, device=self.device)
            x = ReplayBufferSamples(*parts)
            self._update(self._networks, self.state, x, noise, self._settings)
        self._n_updates += gradient_steps

    def _sample_action(
        self, learning_starts: int, action_noise: Any = None, n_envs: int = 1
    ) -> tuple[FloatArray, FloatArray]:
        """Actions (N, A), uniform at the very beginning, and the same again for the buffer."""
        del learning_starts, action_noise
        if self.num_timesteps < self.explores_from:
            shape = (n_envs, *self.action_space.shape)  # type: ignore[misc]
            action = self.rng.uniform(-1, 1, shape).astype(np.float32)
        else:
            assert isinstance(self._last_obs, np.ndarray)
            with torch.no_grad():
                seen = self.replay_buffer.norm(torch.from_numpy(self._last_obs)).to(self.device)
                mean, log_std = self._gaussian(seen)
                noise = torch.randn_like(mean)
                action = squashed_sample(mean, log_std, noise)[0].cpu().numpy()
        return action, action
