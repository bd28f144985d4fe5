"""The critic of latents: what a roll-out that follows latent z is paid by the task with latent p.

It learns on the training tasks, whose latents are known, from the roll-outs of meta-training. On a
new task it is asked the other way round: which p explains what all the roll-outs were paid? Where a
roll-out was paid a little, and where nothing, says as much about the goal as where it was paid
best.

A learned critic of the roll-outs that explore is an idea of Gurumurthy et al. (2019); inferring the
task from them that of PEARL (Rakelly et al., 2019), whose encoder this inversion replaces.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from demokit.learning.networks import Params, init_mlp, mlp

_HIDDEN = (64, 64)
_STEPS = 50
_LR = 3e-3
_WEIGHT_DECAY = 1e-3
_MIN_SCALE = 1e-6
_MIN_ERROR = 0.1  # standard deviations of all scores: to agree closer says nothing more


@dataclass(frozen=True, eq=False)
class Critic:
    """A network from latent and task to the score of a roll-out.

    Attributes:
        network: its parameters.
        mean, scale: the units of scores.
    """

    network: Params
    mean: Tensor
    scale: Tensor

    @classmethod
    def init(cls, rng: torch.Generator | None, latent_width: int) -> Critic:
        """Fresh parameters."""
        network = init_mlp(rng, (2 * latent_width, *_HIDDEN, 1))
        return cls(network, torch.zeros(()), torch.ones(()))

    def predicted(self, latent: Tensor, task: Tensor) -> Tensor:
        """Standardised scores (...,) of latents (..., Z) on the tasks with latents (..., Z)."""
        return _predicted(self.network, latent, task)

    def taught(self, latent: Tensor, task: Tensor, score: Tensor) -> Critic:
        """After some gradient steps on the squared error of one iteration's scores (N,).

        Args:
            latent: what roll-outs followed, (N, Z).
            task: latents of their tasks, (N, Z).
            score: (N,); the critic's units become those of these.
        """
        mean, scale = score.mean(), score.std().clamp_min(_MIN_SCALE)
        target = (score - mean) / scale
        learned = {n: v.detach().clone().requires_grad_() for n, v in self.network.items()}
        optimizer = torch.optim.AdamW(learned.values(), _LR, weight_decay=_WEIGHT_DECAY)
        for _ in range(_STEPS):
            optimizer.zero_grad()
            loss = (_predicted(learned, latent, task) - target).square().mean()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        return Critic({name: value.detach() for name, value in learned.items()}, mean, scale)

    def log_likelihood(self, latent: Tensor, score: Tensor, tasks: Tensor) -> Tensor:
        """How well tasks (C, Z) explain one task's scores (E,) of latents (E, Z): (C,).

        Errors are Gaussian and independent; how large they are is not known and integrated out
        (under 1 / sigma). Up to a constant.
        """
        shape = len(tasks), *latent.shape
        predicted = self.predicted(latent.expand(shape), tasks[:, None].expand(shape))
        error = (score - self.mean) / self.scale - predicted
        return -0.5 * len(score) * (error.square().mean(1) + _MIN_ERROR**2).log()

    def tensors(self) -> dict[str, Tensor]:
        """By name, for a checkpoint."""
        return {**self.network, "mean": self.mean, "scale": self.scale}

    @classmethod
    def of_tensors(cls, tensors: Mapping[str, Tensor]) -> Critic:
        """The inverse of `tensors`; raises KeyError."""
        network = {n: value for n, value in tensors.items() if n not in ("mean", "scale")}
        return cls(network, tensors["mean"], tensors["scale"])

    def to(self, device: torch.device) -> Critic:
        """The same on a device."""
        return Critic.of_tensors({n: value.to(device) for n, value in self.tensors().items()})


def _predicted(network: Params, latent: Tensor, task: Tensor) -> Tensor:
    layers = tuple((network[f"{i}.weight"], network[f"{i}.bias"]) for i in range(len(_HIDDEN) + 1))
    return mlp(layers, torch.cat((latent - task, task), -1)).squeeze(-1)
