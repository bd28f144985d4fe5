"""One update of SAC as equations over dicts of tensors: everything in it compiles to one function.

Haarnoja et al., 2018b, "Soft Actor-Critic Algorithms and Applications" (arXiv 1812.05905), with
its learned temperature. Optimisers are written out, because those of `torch.optim` cut a compiled
function into pieces. Shapes: B transitions, D numbers of a state, A action components; theta are
the actor's parameters, phi the critics', phi' their targets'.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from torch import Tensor, nn
from torch.func import functional_call, grad
from torch.nn.functional import softplus

Tensors = dict[str, Tensor]
_LOG_ALPHA = "log_alpha"


class Networks(NamedTuple):
    """The networks as functions of their parameters, see `pure`.

    Attributes:
        actor: theta, states (B, D) -> mean and log standard deviation (B, A) of a Gaussian.
        critic: phi, states (B, D), actions (B, A) -> two values each (2, B).
    """

    actor: Callable[..., tuple[Tensor, Tensor]]
    critic: Callable[..., Tensor]


class Settings(NamedTuple):
    """Numbers of the algorithm, see `SacConfig`; `target_entropy` is that of whole actions."""

    learning_rate: float
    tau: float
    target_entropy: float


class Learned(NamedTuple):
    """Parameters and Adam's running means of their gradients and of the gradients' squares."""

    params: Tensors
    first: Tensors
    second: Tensors

    @classmethod
    def fresh(cls, params: Tensors) -> Learned:
        """Parameters that have seen no gradient."""
        first, second = ({n: torch.zeros_like(p) for n, p in params.items()} for _ in range(2))
        return cls(params, first, second)


@dataclass(frozen=True)
class State:
    """All that updates change, in place.

    Attributes:
        actor, critic: theta and phi.
        temperature: log alpha (1,), the logarithm of the entropy coefficient.
        target: phi'.
        count: (1,) float64, updates so far. Not (): compiled functions take that for a constant.
    """

    actor: Learned
    critic: Learned
    temperature: Learned
    target: Tensors
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
            Learned.fresh(theta),
            Learned.fresh(phi),
            Learned.fresh({_LOG_ALPHA: log_alpha.detach()}),
            phi_target,
            torch.zeros(1, dtype=torch.float64, device=log_alpha.device),
        )

    @property
    def alpha(self) -> Tensor:
        """The entropy coefficient (1,)."""
        return self.temperature.params[_LOG_ALPHA].exp()

    def named(self) -> Tensors:
        """Every tensor under a name of its own; they share this state's memory."""
        parts = {"target": self.target}
        for part in ("actor", "critic", "temperature"):
            learned: Learned = getattr(self, part)
            parts |= {f"{part}.{kind}": tensors for kind, tensors in learned._asdict().items()}
        named = {f"{part}/{n}": t for part, tensors in parts.items() for n, t in tensors.items()}
        return {**named, "count": self.count}


def pure(module: nn.Module, *, bf16: bool = False) -> Callable[..., Any]:
    """A network as a function of parameters and inputs; with `bf16`, of bfloat16 products."""

    def call(params: Tensors, *inputs: Tensor) -> Any:
        with torch.autocast(inputs[0].device.type, torch.bfloat16, enabled=bf16):
            return functional_call(module, params, inputs)

    return call


def squashed_sample(mean: Tensor, log_std: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Actions (B, A) = tanh(u), u = mean + std * noise, and their log-densities (B,).

    `log pi = sum log N(u) - log(1 - tanh(u)^2)`, the latter as `2 (log 2 - u - softplus(-2 u))`
    (appendix C). Noise (B, A) is standard normal.
    """
    u = mean + log_std.exp() * noise
    gaussian = -0.5 * noise.square() - log_std - 0.5 * math.log(2 * math.pi)
    squash = 2 * (math.log(2) - u - softplus(-2 * u))
    return u.tanh(), (gaussian - squash).sum(1)


def soft_value(
    nets: Networks, state: State, alpha: Tensor, x: ReplayBufferSamples, noise: Tensor
) -> Tensor:
    """What critics should say (B,): `y = r + factor (min_i Q'_i(s', a') - alpha log pi(a'|s'))`.

    Equations 2 and 3, with the targets' smaller value; `factor` is the discount, 0 after an end.
    """
    assert x.discounts is not None
    action, log_prob = squashed_sample(*nets.actor(state.actor.params, x.next_observations), noise)
    value = nets.critic(state.target, x.next_observations, action).amin(0)
    return x.rewards + x.discounts * (value - alpha * log_prob)


def critic_loss(phi: Tensors, nets: Networks, x: ReplayBufferSamples, wanted: Tensor) -> Tensor:
    """`1/2 sum_i E (Q_i(s, a) - y)^2` (equation 5)."""
    error = nets.critic(phi, x.observations, x.actions) - wanted
    return 0.5 * error.square().mean(1).sum()


def actor_loss(
    theta: Tensors, nets: Networks, phi: Tensors, alpha: Tensor, states: Tensor, noise: Tensor
) -> tuple[Tensor, Tensor]:
    """`E alpha log pi(a|s) - min_i Q_i(s, a)` (equation 9), and the mean of log pi, ()."""
    action, log_prob = squashed_sample(*nets.actor(theta, states), noise)
    value = nets.critic(phi, states, action).amin(0)
    return (alpha * log_prob - value).mean(), log_prob.detach().mean()


def temperature_loss(temperature: Tensors, log_prob: Tensor, target_entropy: float) -> Tensor:
    """`-log alpha E (log pi + H)` (equation 18, of log alpha as in the authors' code)."""
    return -(temperature[_LOG_ALPHA] * (log_prob + target_entropy)).sum()


def adam(
    learned: Learned,
    gradient: Tensors,
    count: Tensor,
    learning_rate: float,
    *,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-8,
) -> None:
    """Adam's step in place (Kingma & Ba, 2015, algorithm 1).

    `p -= lr m^ / (sqrt(v^) + epsilon)` with `m^ = m / (1 - beta_1^count)`, the running mean of
    gradients without the bias of its start at zero, and `v^` that of their squares.
    """
    bias_1, bias_2 = ((1 - beta**count).float() for beta in (beta_1, beta_2))
    for name, p in learned.params.items():
        m, v, g = learned.first[name], learned.second[name], gradient[name]
        m.lerp_(g, 1 - beta_1)
        v.lerp_(g.square(), 1 - beta_2)
        p.sub_(learning_rate * (m / bias_1) / ((v / bias_2).sqrt() + epsilon))


def polyak(target: Tensors, phi: Tensors, tau: float) -> None:
    """`phi' <- (1 - tau) phi' + tau phi`, in place."""
    for name, p in target.items():
        p.lerp_(phi[name], tau)


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
    state.count.add_(1)
    wanted = soft_value(nets, state, alpha, x, noise[0])
    gradient = grad(critic_loss)(state.critic.params, nets, x, wanted)
    adam(state.critic, gradient, state.count, rate)
    theta, phi = state.actor.params, state.critic.params
    gradient, log_prob = grad(actor_loss, has_aux=True)(
        theta, nets, phi, alpha, x.observations, noise[1]
    )
    adam(state.actor, gradient, state.count, rate)
    gradient = grad(temperature_loss)(state.temperature.params, log_prob, settings.target_entropy)
    adam(state.temperature, gradient, state.count, rate)
    polyak(state.target, phi, settings.tau)
