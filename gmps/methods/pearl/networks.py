"""The networks of PEARL: encoder, actor, two critics and state values, functions of parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import softplus

from demokit.learning.networks import Layers, Params, init_mlp, mlp
from demokit.learning.sac import Networks
from gmps.methods.pearl.options import PearlOptions
from gmps.methods.pearl.posterior import Evidence
from gmps.problem import Problem

Parts: TypeAlias = dict[str, Params]
"""Parameters of each network, by its name."""

ENCODER, ACTOR, CRITIC, VALUE = "encoder", "actor", "critic", "value"
_CRITICS = "first", "second"
_LEAST_VARIANCE = 1e-7
_LOG_STD = (-20.0, 2.0)
_FIRST_OUTPUTS = 3e-3


@dataclass(frozen=True)
class PearlNetworks:
    """States here are observations with the latent behind them, (..., O + Z).

    Attributes:
        observation_width, action_width, latent_width: O, A, Z.
        hidden: widths of the hidden layers of actor, critics and state values.
        encoder_hidden: those of the encoder.
        sees_next: whether the encoder sees next observations.
    """

    observation_width: int
    action_width: int
    latent_width: int
    hidden: tuple[int, ...]
    encoder_hidden: tuple[int, ...]
    sees_next: bool = False

    @classmethod
    def of(cls, options: PearlOptions, problem: Problem) -> PearlNetworks:
        """For the states of a problem as they are."""
        return cls(
            problem.schema.width,
            len(problem.schema.actions),
            options.latent_width,
            options.hidden_layers * (options.hidden_width,),
            3 * (options.encoder_width,),
            options.next_observations,
        )

    def init(self, rng: torch.Generator | None) -> Parts:
        """Fresh parameters of what a new task needs: encoder and actor."""
        met = self.observation_width * (1 + self.sees_next) + self.action_width + 1
        return {
            ENCODER: _small_outputs(rng, met, *self.encoder_hidden, 2 * self.latent_width),
            ACTOR: _small_outputs(rng, self.state_width, *self.hidden, 2 * self.action_width),
        }

    def init_judges(self, rng: torch.Generator | None) -> Parts:
        """Fresh parameters of what only training needs: critics and state values."""
        judged = self.state_width + self.action_width, *self.hidden, 1
        critics = {name: _small_outputs(rng, *judged) for name in _CRITICS}
        value = _small_outputs(rng, self.state_width, *self.hidden, 1)
        return {CRITIC: named(critics), VALUE: value}

    @property
    def state_width(self) -> int:
        """Of states: O + Z."""
        return self.observation_width + self.latent_width

    @property
    def sac(self) -> Networks:
        """For the equations of soft actor-critic."""
        return Networks(self.actor, self.critic)

    def evidence(
        self,
        encoder: Params,
        observation: Tensor,
        action: Tensor,
        reward: Tensor,
        next_observation: Tensor,
        counts: Tensor | None = None,
    ) -> Evidence:
        """What transitions (..., N, ...) say of the latent, (..., Z); of those that count."""
        behind = (next_observation,) if self.sees_next else ()
        x = torch.cat((observation, action, reward[..., None], *behind), -1)
        mean, variance = mlp(_layers(encoder), x).chunk(2, -1)
        return Evidence.of(mean, softplus(variance).clamp_min(_LEAST_VARIANCE), counts)

    def actor(self, theta: Params, states: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation (..., A) of actions before tanh."""
        mean, log_std = mlp(_layers(theta), states).chunk(2, -1)
        return mean, log_std.clamp(*_LOG_STD)

    def critic(self, phi: Params, states: Tensor, actions: Tensor) -> Tensor:
        """Values (2, ...) of actions in states, by two critics."""
        x = torch.cat((states, actions), -1)
        return torch.stack([mlp(_layers(phi, f"{n}."), x).squeeze(-1) for n in _CRITICS])

    def value(self, psi: Params, states: Tensor) -> Tensor:
        """Values (...) of states."""
        return mlp(_layers(psi), states).squeeze(-1)


def under(latent: Tensor, observation: Tensor) -> Tensor:
    """States: observations (..., B, O) with the latents (..., Z) of their tasks behind them."""
    return torch.cat((observation, latent[..., None, :].expand(*observation.shape[:-1], -1)), -1)


def named(parts: Parts) -> dict[str, Tensor]:
    """Parameters of several networks by name, "actor.0.weight"."""
    return {f"{part}.{n}": value for part, own in parts.items() for n, value in own.items()}


def _layers(params: Params, prefix: str = "") -> Layers:
    depth = sum(name.startswith(prefix) for name in params) // 2
    return tuple((params[f"{prefix}{i}.weight"], params[f"{prefix}{i}.bias"]) for i in range(depth))


def _small_outputs(rng: torch.Generator | None, *widths: int) -> Params:
    """An MLP whose outputs are about zero, as in the authors' code."""
    params, last = init_mlp(rng, widths), f"{len(widths) - 2}.weight"
    bound = (6 / sum(widths[-2:])) ** 0.5
    return {**params, last: _FIRST_OUTPUTS / bound * params[last]}
