"""Soft actor-critic as equations: pure functions of parameters, for whoever learns by it.

With a learned temperature: Haarnoja et al., 2018b, "Soft Actor-Critic Algorithms and Applications"
(arXiv 1812.05905), whose equations are numbered here. With a network of state values: Haarnoja et
al., 2018a, "Soft Actor-Critic" (arXiv 1801.01290); there alpha is 1, and rewards are scaled.

theta are the actor's parameters, phi the critics', psi those of state values; a dash, as in phi',
marks a slow copy. Shapes: ... is a batch, (B,) or (M, B) for M tasks that weigh alike; D numbers
of a state, A action components. A context z is part of the states, put there by the caller. No
function stops a gradient unless it says so: z learns from a loss unless it was detached before.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor
from torch.nn.functional import softplus

from demokit.learning.networks import Params


class Networks(NamedTuple):
    """The networks as functions of their parameters.

    Attributes:
        actor: theta, states (..., D) -> mean and log standard deviation (..., A) of a Gaussian.
        critic: phi, states (..., D), actions (..., A) -> values (N, ...) of N critics, usually 2.
    """

    actor: Callable[..., tuple[Tensor, Tensor]]
    critic: Callable[..., Tensor]


def squashed_sample(mean: Tensor, log_std: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Actions (..., A) = tanh(u), u = mean + std * noise, and their log-densities (...,).

    `log pi = sum log N(u) - log(1 - tanh(u)^2)`, the latter as `2 (log 2 - u - softplus(-2 u))`
    (appendix C). Noise (..., A) is standard normal.
    """
    u = mean + log_std.exp() * noise
    gaussian = -0.5 * noise.square() - log_std - 0.5 * math.log(2 * math.pi)
    squash = 2 * (math.log(2) - u - softplus(-2 * u))
    return u.tanh(), (gaussian - squash).sum(-1)


def soft_value(
    nets: Networks, theta: Params, phi: Params, alpha: Tensor, states: Tensor, noise: Tensor
) -> tuple[Tensor, Tensor]:
    """`V(s) = min_i Q_i(s, a) - alpha log pi(a|s)`, a from pi (equation 3), and log pi, (...,).

    Of next states with phi' it is what follows a transition, see `bellman_target`; of states, what
    a network of state values should say (2018a, equation 5).
    """
    action, log_prob = squashed_sample(*nets.actor(theta, states), noise)
    return nets.critic(phi, states, action).amin(0) - alpha * log_prob, log_prob


def bellman_target(rewards: Tensor, factors: Tensor, next_values: Tensor) -> Tensor:
    """What critics should say, `y = r + factor V(s')`, (...,) (equation 2).

    The factor is the discount, its n-th power where r sums n rewards, and 0 after a state that
    ended the episode by itself; a time limit is no such end.
    """
    return rewards + factors * next_values


def critic_loss(
    phi: Params, nets: Networks, states: Tensor, actions: Tensor, wanted: Tensor
) -> Tensor:
    """`1/2 sum_i E (Q_i(s, a) - y)^2`, () (equation 5)."""
    return _half_squares(nets.critic(phi, states, actions), wanted)


def value_loss(
    psi: Params, network: Callable[[Params, Tensor], Tensor], states: Tensor, wanted: Tensor
) -> Tensor:
    """`1/2 E (V(s) - wanted)^2`, () (2018a, equation 5); V of states (..., D) is (...,)."""
    return _half_squares(network(psi, states).unsqueeze(0), wanted)


def actor_loss(
    theta: Params, nets: Networks, phi: Params, alpha: Tensor, states: Tensor, noise: Tensor
) -> tuple[Tensor, Tensor]:
    """`E alpha log pi(a|s) - min_i Q_i(s, a)` (equation 9); and E log pi, without gradient; ()."""
    value, log_prob = soft_value(nets, theta, phi, alpha, states, noise)
    return -value.mean(), log_prob.detach().mean()


def temperature_loss(log_alpha: Tensor, log_prob: Tensor, target_entropy: float) -> Tensor:
    """`-log alpha E (log pi + H)`, () (equation 18, of log alpha as in the authors' code).

    Args:
        log_alpha: (1,).
        log_prob: E log pi, (), from `actor_loss`.
        target_entropy: H, of whole actions.
    """
    return -(log_alpha * (log_prob + target_entropy)).sum()


def polyak(target: Params, params: Params, tau: float) -> None:
    """`phi' <- (1 - tau) phi' + tau phi`, in place."""
    for name, p in target.items():
        p.lerp_(params[name], tau)


def _half_squares(values: Tensor, wanted: Tensor) -> Tensor:
    """Half the squared errors of values (N, ...), summed over N, their mean over the rest."""
    return 0.5 * (values - wanted).square().flatten(1).mean(1).sum()
