"""The critic of latents: what a roll-out that follows latent z is paid by the task at place p.

It learns on the training tasks, whose places are known, from the roll-outs of meta-training. On a
new task it is asked the other way round: which place explains what all the roll-outs were paid?
Where a roll-out was paid a little, and where nothing, says as much about the goal as where it was
paid best.

A learned critic of the roll-outs that explore is an idea of Gurumurthy et al. (2019); inferring the
task from them that of PEARL (Rakelly et al., 2019), whose encoder this inversion replaces.
"""

from __future__ import annotations

import torch
from torch import Tensor

from demokit.learning.networks import Params, init_mlp, mlp

PREFIX = "critic."
_HIDDEN = (64, 64)
_MEAN, _SCALE = f"{PREFIX}mean", f"{PREFIX}scale"
_STEPS = 50
_LR = 3e-3
_WEIGHT_DECAY = 1e-3
_MIN_SCALE = 1e-6
_MIN_ERROR = 0.1  # standard deviations of all scores: to agree closer says nothing more


def init_critic(rng: torch.Generator, latent_width: int) -> Params:
    """Fresh parameters, and the units of scores; the outer loop leaves them alone."""
    network = init_mlp(rng, (2 * latent_width, *_HIDDEN, 1))
    units = {_MEAN: torch.zeros(()), _SCALE: torch.ones(())}
    return {**{PREFIX + name: value for name, value in network.items()}, **units}


def predicted(theta: Params, latent: Tensor, place: Tensor) -> Tensor:
    """Standardised scores (...,) of latents (..., Z) on the tasks at places (..., Z)."""
    layers = tuple(
        (theta[f"{PREFIX}{i}.weight"], theta[f"{PREFIX}{i}.bias"]) for i in range(len(_HIDDEN) + 1)
    )
    return mlp(layers, torch.cat((latent - place, place), -1)).squeeze(-1)


def learn(theta: Params, latent: Tensor, place: Tensor, score: Tensor) -> None:
    """Some gradient steps, in place, on the squared error of one iteration's scores (N,).

    Args:
        theta: holds the critic; its units become those of these scores.
        latent: what roll-outs followed, (N, Z), from the latent of theta.
        place: of their tasks, (N, Z).
        score: (N,).
    """
    theta[_MEAN].copy_(score.mean())
    theta[_SCALE].copy_(score.std().clamp_min(_MIN_SCALE))
    target = _standardised(theta, score)
    critic = {
        name: value.detach().clone().requires_grad_()
        for name, value in theta.items()
        if name.startswith(PREFIX) and name not in (_MEAN, _SCALE)
    }
    optimizer = torch.optim.AdamW(critic.values(), _LR, weight_decay=_WEIGHT_DECAY)
    for _ in range(_STEPS):
        optimizer.zero_grad()
        loss = (predicted(critic, latent, place) - target).square().mean()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    for name, value in critic.items():
        theta[name].copy_(value.detach())


def log_likelihood(theta: Params, latent: Tensor, score: Tensor, places: Tensor) -> Tensor:
    """How well places (C, Z) explain one task's scores (E,) of latents (E, Z): (C,).

    Errors are Gaussian and independent; how large they are is not known and integrated out (under
    1 / sigma). Up to a constant.
    """
    shape = len(places), *latent.shape
    error = _standardised(theta, score) - predicted(
        theta, latent.expand(shape), places[:, None].expand(shape)
    )
    return -0.5 * len(score) * (error.square().mean(1) + _MIN_ERROR**2).log()


def _standardised(theta: Params, score: Tensor) -> Tensor:
    return (score - theta[_MEAN]) / theta[_SCALE]
