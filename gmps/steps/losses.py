"""Losses that methods share, each an equation, its source, then the code."""

from __future__ import annotations

import torch
from torch import Tensor

from demokit.learning.distributions import Gaussian


def inner_surrogate(
    dist: Gaussian,
    action: Tensor,
    behaviour_log_prob: Tensor,
    advantage: Tensor,
    *,
    ratio_clip: float,
    ratio_gradient: bool,
) -> Tensor:
    r"""L_RL, whose negative gradient is the inner update of GMPS, Eq. 3.

    $$ L = - mean_t [ w_t \log \pi_\theta(a_t|s_t) A_t ],
       w_t = \min(\pi_\theta(a_t|s_t) / \pi_{init}(a_t|s_t), c) $$

    with the gradient stopped through w, as the authors' published code does (per time step;
    the paper writes the ratio of whole trajectories). With `ratio_gradient`, the loss is
    $- mean_t [ w_t A_t ]$: its first gradient is the same wherever the clip c is not active,
    its second gradient also sees how the ratio moves with theta.

    Args:
        dist: pi_theta at the visited states, of batch shape (...,).
        action: the actions taken there, (..., A).
        behaviour_log_prob: log pi_init of those actions, (...,).
        advantage: (...,).
        ratio_clip: c.
        ratio_gradient: whether to differentiate through the ratio.

    Returns:
        The scalar loss.
    """
    log_prob = dist.log_prob(action)
    if not log_prob.shape == behaviour_log_prob.shape == advantage.shape:
        raise ValueError(
            f"shapes differ: {log_prob.shape}, {behaviour_log_prob.shape}, {advantage.shape}"
        )
    ratio = (log_prob - behaviour_log_prob).exp().clamp_max(ratio_clip)
    if ratio_gradient:
        return -(ratio * advantage).mean()
    return -(ratio.detach() * log_prob * advantage).mean()


def policy_gradient(log_prob: Tensor, advantage: Tensor) -> Tensor:
    r"""$- mean_t [ \log \pi(a_t|s_t) A_t ]$; downhill is REINFORCE (Williams, 1992).

    Both are (...,); advantages may carry the weights of a mean (`mean_weights`).
    """
    if log_prob.shape != advantage.shape:
        raise ValueError(f"shapes differ: {log_prob.shape}, {advantage.shape}")
    return -(log_prob * advantage).mean()


def behaviour_cloning(
    dist: Gaussian, expert_action: Tensor, weight: Tensor, *, kind: str
) -> Tensor:
    r"""L_BC of Eq. 2, between the policy and the expert's actions (..., A), as a weighted mean.

    "log_likelihood" is the paper's $-\log \pi(a^*|s)$; "squared" is the published code's
    $\|\mu(s) - a^*\|^2$ summed over action dimensions, which leaves the standard deviation free.
    `weight` (...,) is that of `mean_weights`.
    """
    if kind == "log_likelihood":
        return -(weight * dist.log_prob(expert_action)).mean()
    return (weight * (dist.mean - expert_action).square().sum(-1)).mean()


def mean_weights(alive: Tensor) -> Tensor:
    """Weights (..., S) that make a mean over all S steps the mean over those `alive`.

    Zero after an episode's end; all ones, exactly, where no episode ends early.
    """
    return alive * (alive.shape[-1] / alive.sum(-1, keepdim=True))


def discounted_returns(reward: Tensor, discount: float) -> Tensor:
    """Sum of discounted rewards from each step on, for rewards (..., T)."""
    returns = torch.empty_like(reward)
    following = torch.zeros_like(reward[..., 0])
    for t in reversed(range(reward.shape[-1])):
        following = reward[..., t] + discount * following
        returns[..., t] = following
    return returns
