"""stable-baselines3's SAC with its slow parts replaced: what is left is matrix products.

The losses are SAC's own (Haarnoja et al., 2018, with the learned temperature of its second
version). Against the library's `train`: losses are compiled, Adam is fused, both critics and their
targets move as lists of tensors, nothing is read back per update; critics have layer
normalisation, which keeps them from overshooting where data are few (Ball et al., 2023).
"""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np
import torch
from stable_baselines3 import SAC
from stable_baselines3.common.policies import BaseModel
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from stable_baselines3.sac.policies import Actor, SACPolicy
from torch import Tensor, nn
from torch.nn.functional import softplus

from demokit.learning.expert import ExpertInputs
from demokit.types import FloatArray
from recorders.sac.replay import TorchReplay

_LOG_STD = (-5.0, 2.0)


class TwinCritic(BaseModel):
    """Two action-value networks with layer normalisation; values are (2, B)."""

    def __init__(self, width: int, hidden: list[int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.first, self.second = (_critic_network(width, hidden) for _ in range(2))

    def forward(self, observation: Tensor, action: Tensor) -> Tensor:
        """Values (2, B) of actions (B, A) in states (B, D)."""
        x = torch.cat([observation, action], dim=1)
        return torch.cat([self.first(x), self.second(x)], dim=1).T


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


def squashed_sample(actor: Actor, observation: Tensor) -> tuple[Tensor, Tensor]:
    """Actions (B, A) = tanh(u) with u Gaussian, and their log-densities (B,).

    `log pi = sum log N(u) - log(1 - tanh(u)^2)`, the latter as `2 (log 2 - u - softplus(-2 u))`
    (Haarnoja et al., 2018, appendix C).
    """
    latent = actor.latent_pi(observation)
    log_std = cast(nn.Module, actor.log_std)(latent).clamp(*_LOG_STD)
    noise = torch.randn_like(log_std)
    u = actor.mu(latent) + log_std.exp() * noise
    gaussian = -0.5 * noise.square() - log_std - 0.5 * math.log(2 * math.pi)
    squash = 2 * (math.log(2) - u - softplus(-2 * u))
    return u.tanh(), (gaussian - squash).sum(1)


def critic_loss(
    actor: Actor, critic: nn.Module, target: nn.Module, temperature: Tensor, x: ReplayBufferSamples
) -> Tensor:
    """`1/2 sum_i E (Q_i(s, a) - y)^2`, `y = r + factor (min_i Q'_i(s', a') - alpha log pi(a'))`."""
    with torch.no_grad():
        action, log_prob = squashed_sample(actor, x.next_observations)
        value = target(x.next_observations, action).amin(0) - temperature * log_prob
        wanted = x.rewards + x.discounts * value
    loss: Tensor = 0.5 * (critic(x.observations, x.actions) - wanted).square().mean(1).sum()
    return loss


def actor_loss(
    actor: Actor, critic: nn.Module, temperature: Tensor, observation: Tensor
) -> tuple[Tensor, Tensor]:
    """`E alpha log pi(a) - min_i Q_i(s, a)`, and the mean of log pi."""
    action, log_prob = squashed_sample(actor, observation)
    value = critic(observation, action).amin(0)
    return (temperature * log_prob - value).mean(), log_prob.detach().mean()


class ExpertSAC(SAC):
    """SAC over `TorchReplay`, with compiled losses and without per-update read-backs.

    Attributes:
        inputs: what it sees.
        temperature: logarithm of the entropy coefficient alpha, (1,), learned.
        explores_from: environment steps after which actions come from the policy; before, they
            are uniform.
    """

    replay_buffer: TorchReplay
    inputs: ExpertInputs
    explores_from = 0

    def compile(self) -> None:
        """Compile the losses; the first updates take a minute."""
        self._critic_loss = torch.compile(critic_loss)
        self._actor_loss = torch.compile(actor_loss)

    def _setup_model(self) -> None:
        super()._setup_model()
        self._critic_loss, self._actor_loss = critic_loss, actor_loss
        assert self.log_ent_coef is not None
        assert self.ent_coef_optimizer is not None
        self.temperature, self.temperature_optimizer = self.log_ent_coef, self.ent_coef_optimizer
        self._targets: list[Tensor] = list(self.critic_target.parameters())
        self._critics: list[Tensor] = list(self.critic.parameters())

    def train(self, gradient_steps: int, batch_size: int = 64) -> None:
        """Gradient steps on fresh batches."""
        self.policy.set_training_mode(True)
        for _ in range(gradient_steps):
            batch = self.replay_buffer.sample(batch_size)
            temperature = self.temperature.detach().exp()
            loss = self._critic_loss(
                self.actor, self.critic, self.critic_target, temperature, batch
            )
            _descend(self.critic.optimizer, loss)
            self.critic.requires_grad_(False)
            loss, log_prob = self._actor_loss(
                self.actor, self.critic, temperature, batch.observations
            )
            _descend(self.actor.optimizer, loss)
            self.critic.requires_grad_(True)
            surplus = -(log_prob + float(self.target_entropy))
            _descend(self.temperature_optimizer, (self.temperature * surplus).sum())
            with torch.no_grad():
                torch._foreach_lerp_(self._targets, self._critics, self.tau)
        self._n_updates += gradient_steps

    def _sample_action(
        self, learning_starts: int, action_noise: Any = None, n_envs: int = 1
    ) -> tuple[FloatArray, FloatArray]:
        """Actions (N, A), uniform at the very beginning, and the same again for the buffer."""
        del learning_starts, action_noise
        if self.num_timesteps < self.explores_from:
            shape = (n_envs, *self.action_space.shape)  # type: ignore[misc]
            action = np.random.default_rng(self.num_timesteps).uniform(-1, 1, shape)
            action = action.astype(np.float32)
        else:
            assert isinstance(self._last_obs, np.ndarray)
            with torch.no_grad():
                seen = self.replay_buffer.norm(torch.from_numpy(self._last_obs))
                action = squashed_sample(self.actor, seen.to(self.device))[0].cpu().numpy()
        return action, action


def _descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
