"""DiCE: how what was done before adaptation is credited with what adaptation comes to.

Source: Foerster et al., 2018; with baselines: Gurumurthy et al., 2019, section 4.1.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def dice(log_prob: Tensor, old_log_prob: Tensor) -> Tensor:
    r"""$\prod_{t' \le t} \mu(a_{t'}|s_{t'}) / \mu_{old}(a_{t'}|s_{t'})$ of episodes (..., T).

    Where mu has sampled these are ones, and their derivative is that of the sum of all
    log-likelihoods so far: DiCE's operator.
    """
    return (log_prob - old_log_prob).cumsum(-1).exp()


def step_costs(
    losses: Callable[[Tensor], Tensor], latents: Tensor, slope: Tensor, weight: Tensor
) -> Tensor:
    r"""$- w_t \langle \partial L / \partial z', \partial l_t / \partial z \rangle$ for each step.

    That is the derivative of an outer loss L by how much step t counts in the inner step
    $z' = z - \sum_t w_t \nabla l_t(z)$: what each step costs a policy that samples them. The
    report's (5) has the other sign, which the descent of z' takes away.

    Args:
        losses: l, from latents (M, Z) to (M, ...), one number for each step.
        latents: z.
        slope: the derivative of L by z', (M, Z).
        weight: w (M, ...), the step size and the weights of a mean.
    """
    along = torch.func.jvp(losses, (latents,), (slope,))[1]
    costs: Tensor = -weight * along
    return costs
