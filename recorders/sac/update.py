"""One update of SAC on a batch of the replay buffer: everything in it compiles to one function.

The equations are those of `demokit.learning.sac`, with a learned temperature. B transitions, D
numbers of a state, A action components.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from torch import Tensor, nn
from torch.func import functional_call, grad

from demokit.learning.networks import Params
from demokit.learning.optimizer import AdamState, adam
from demokit.learning.sac import (
    Networks,
    actor_loss,
    bellman_target,
    critic_loss,
    polyak,
    soft_value,
    temperature_loss,
)

_LOG_ALPHA = "log_alpha"


class Settings(NamedTuple):
    """Numbers of the algorithm, see `SacConfig`; `target_entropy` is that of whole actions."""

    learning_rate: float
    tau: float
    target_entropy: float


@dataclass(frozen=True)
class State:
    """All that updates change, in place.

    Attributes:
        actor, critic: theta and phi.
        temperature: log alpha (1,), the logarithm of the entropy coefficient.
        target: phi'.
        count: (1,) float64, updates so far. Not (): compiled functions take that for a constant.
    """

    actor: AdamState
    critic: AdamState
    temperature: AdamState
    target: Params
    count: Tensor

    @classmethod
    def fresh(
        cls, actor: nn.Module, critic: nn.Module, target: nn.Module, log_alpha: Tensor
    ) -> State:
        """That of networks which have seen no update; it shares their memory."""
        theta, phi, phi_target = (
            {name: p.detach() for name, p in module.named_parameters()}
            for module in (actor, critic, target)
        )
        return cls(
            AdamState.fresh(theta),
            AdamState.fresh(phi),
            AdamState.fresh({_LOG_ALPHA: log_alpha.detach()}),
            phi_target,
            torch.zeros(1, dtype=torch.float64, device=log_alpha.device),
        )

    @property
    def alpha(self) -> Tensor:
        """The entropy coefficient (1,)."""
        return self.temperature.params[_LOG_ALPHA].exp()

    def named(self) -> Params:
        """Every tensor under a name of its own; they share this state's memory."""
        parts = {"target": self.target}
        for part in ("actor", "critic", "temperature"):
            learned: AdamState = getattr(self, part)
            parts |= {f"{part}.{kind}": tensors for kind, tensors in learned._asdict().items()}
        named = {f"{part}/{n}": t for part, tensors in parts.items() for n, t in tensors.items()}
        return {**named, "count": self.count}


def pure(module: nn.Module, *, bf16: bool = False) -> Callable[..., Any]:
    """A network as a function of parameters and inputs; with `bf16`, of bfloat16 products."""

    def call(params: Params, *inputs: Tensor) -> Any:
        with torch.autocast(inputs[0].device.type, torch.bfloat16, enabled=bf16):
            return functional_call(module, params, inputs)

    return call


def update(
    nets: Networks, state: State, x: ReplayBufferSamples, noise: Tensor, settings: Settings
) -> None:
    """One gradient step of critics, actor and temperature, then the targets' (algorithm 1).

    Args:
        nets: the networks.
        state: what is learned; changed in place.
        x: B transitions.
        noise: (2, B, A) standard normal, for the actions in the next states and in the states.
        settings: numbers of the algorithm.
    """
    rate, alpha = settings.learning_rate, state.alpha
    theta, phi = state.actor.params, state.critic.params
    assert x.discounts is not None
    state.count.add_(1)
    value, _ = soft_value(nets, theta, state.target, alpha, x.next_observations, noise[0])
    wanted = bellman_target(x.rewards, x.discounts, value)
    gradient = grad(critic_loss)(phi, nets, x.observations, x.actions, wanted)
    adam(state.critic, gradient, state.count, rate)
    gradient, log_prob = grad(actor_loss, has_aux=True)(
        theta, nets, phi, alpha, x.observations, noise[1]
    )
    adam(state.actor, gradient, state.count, rate)
    log_alpha = state.temperature.params[_LOG_ALPHA]
    slope = grad(temperature_loss)(log_alpha, log_prob, settings.target_entropy)
    adam(state.temperature, {_LOG_ALPHA: slope}, state.count, rate)
    polyak(state.target, phi, settings.tau)
