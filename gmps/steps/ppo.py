"""The clipped losses of proximal policy optimisation (PPO)."""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn.functional import smooth_l1_loss


def clipped_surrogate(
    log_prob: Tensor, old_log_prob: Tensor, advantage: Tensor, clip: float = math.inf
) -> Tensor:
    r"""$- mean_t [ \min(r_t A_t, clip(r_t, 1 - \epsilon, 1 + \epsilon) A_t) ]$; a loss.

    $r_t = \pi(a_t|s_t) / \pi_{old}(a_t|s_t)$. Source: Schulman et al., 2017, Eq. 7. An infinite
    epsilon leaves the clip out: the surrogate of conservative policy iteration, TRPO's loss.

    Args:
        log_prob: log pi of the actions taken, (...,).
        old_log_prob: log pi_old of them, (...,).
        advantage: (...,); it may carry the weights of a mean (`mean_weights`), none below zero.
        clip: epsilon.
    """
    if not log_prob.shape == old_log_prob.shape == advantage.shape:
        raise ValueError(
            f"shapes differ: {log_prob.shape}, {old_log_prob.shape}, {advantage.shape}"
        )
    ratio = (log_prob - old_log_prob).exp()
    paid = ratio * advantage
    if math.isfinite(clip):
        paid = paid.minimum(ratio.clamp(1 - clip, 1 + clip) * advantage)
    return -paid.mean()


def adapted_weight(weight: float, kl: float, target: float) -> float:
    """Of a penalty on the KL, for the next iteration: doubled above 1.5 targets, or halved.

    It is halved below two thirds of the target. Source: Schulman et al., 2017, section 4.
    """
    if kl > 1.5 * target:
        return 2 * weight
    return weight / 2 if kl < target / 1.5 else weight


def clipped_value_loss(value: Tensor, old_value: Tensor, target: Tensor, clip: float) -> Tensor:
    r"""$1/2 \max [ h(V_t - R_t), h(V_t^{clip} - R_t) ]$ for each step, (...,).

    $V^{clip} = V_{old} + clip(V - V_{old}, -\epsilon, \epsilon)$; h is Huber's loss, quadratic up
    to 1. All are (...,). Source: PPO of OpenAI's baselines; the Huber loss is VariBAD's.
    """
    near = old_value + (value - old_value).clamp(-clip, clip)
    errors = (smooth_l1_loss(each, target, reduction="none") for each in (value, near))
    worse: Tensor = next(errors).maximum(next(errors))
    return 0.5 * worse
