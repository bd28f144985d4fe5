"""Exploration before adaptation: every roll-out follows another training task's expert.

The bias transformation of the policy becomes a latent z. Training task i has a latent z_i
(its standardised context), and under z_i the policy imitates that task's expert. On a
new task the roll-outs are taken under latents spread over those, and a gradient step on a
weighted fit moves the latent, by reward alone, to where it pays (`latent_surrogate`): to latents
that explain what the roll-outs were paid (`critic`), or to the latents that were paid best.

This joins two ideas: imitation as the meta-objective (GMPS, Mendonca et al., 2019), and that the
policy which gathers the data wants to be another one than the policy which uses it (Gurumurthy
et al., 2019); structured noise in a latent, and a gradient on the latent only, are MAESN's (Gupta
et al., 2018). Nothing of it is written for a family: latents and segments come from
the demonstrations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from scipy.cluster.vq import kmeans2
from torch import Tensor

from demokit.learning.networks import Params
from demokit.types import Task
from gmps.experience.contexts import ContextUnits
from gmps.experience.observation import Observation
from gmps.methods.gmps.critic import Critic
from gmps.policies.gaussian import LATENT

CANDIDATES = 1000
"""Latents that the critic is asked about."""
_NEIGHBOURS = 3
_ARRIVED = 0.1  # of the way: where an expert has brought the object
_SLOWEST = 0.95  # quantile of the experts' time to arrive
_TAIL = 0.25  # share of a segment that is judged: its end, when the expert has arrived
_ON_THE_WAY = (
    0.1  # weight of the rest: where no end is paid, a reward in passing says where to look
)


class LatentBatch(NamedTuple):
    """What the latent step sees of one task: latents (C, Z), and how well they pay (C,).

    Those of roll-outs and their segments, or candidates that the critic has judged. The weights sum
    to 1. A leading axis M when batched over tasks.
    """

    latent: Tensor
    weight: Tensor

    @property
    def num_samples(self) -> int:
        """Of all tasks."""
        return self.weight.numel()

    def encoded(self, encode: Callable[[Observation], Tensor]) -> LatentBatch:
        """The same: it holds no observations."""
        return self

    def thinned(self, stride: int, rng: np.random.Generator) -> LatentBatch:
        """The same: it holds few samples."""
        return self


@dataclass(frozen=True)
class LatentStep:
    """phi = theta - alpha * grad `latent_surrogate`: only the latent adapts."""

    def __call__(self, theta: Params, step_sizes: Params, batch: LatentBatch) -> Params:
        """The adapted parameters phi of one task."""
        gradient = torch.func.grad(latent_surrogate)(theta[LATENT], *batch)
        return {**theta, LATENT: theta[LATENT] - step_sizes[LATENT] * gradient}


def latent_surrogate(center: Tensor, latent: Tensor, weight: Tensor) -> Tensor:
    r"""The surrogate whose negative gradient moves a latent by reward alone.

    A weighted fit of N(b, 1) to latents z_c, whose weights w_c sum to 1:

    $$ L = - \sum_c w_c \log N(z_c; b, 1) = \sum_c w_c |z_c - b|^2 / 2 + const. $$

    With roll-outs' own $w_e \propto exp(R_e / \tau)$, R standardised scores, $-\nabla_b L$ would be
    the likelihood-ratio gradient of $\log E exp(R / \tau)$ (REPS, Peters et al., 2010) had N(b, 1)
    drawn the latents; they come from a fixed design (`LatentSpace.drawn`). With a critic,
    $w_c \propto p(R_1, ..., R_E | z_c)$, how well the task at z_c explains what all roll-outs were
    paid. A step of size 1 leads to the weighted mean of the latents.

    Args:
        center: b, (Z,).
        latent: z_c, (C, Z).
        weight: w_c, (C,), with the sum 1.
    """
    return 0.5 * (weight * (latent - center).square().sum(-1)).sum()


@dataclass(frozen=True, eq=False)
class LatentSpace:
    """The latent space of a set of training tasks.

    Attributes:
        tasks: latents (N, Z) of the training tasks, standardised.
        units: in which contexts are latents.
        segments: how many latents a roll-out follows, one after the other.
        temperature: of the weights, in standard deviations of the scores of a task.
    """

    tasks: Tensor
    units: ContextUnits
    segments: int
    temperature: float

    @classmethod
    def over(cls, tasks: Sequence[Task], segments: int, temperature: float) -> LatentSpace:
        """The latent space of these training tasks."""
        units = ContextUnits.over(tasks)
        return cls(units.of(tasks), units, segments, temperature)

    def of(self, tasks: Sequence[Task]) -> Tensor:
        """Latents (N, Z) of tasks that demonstrations are known of."""
        return self.units.of(tasks)

    def drawn(self, num_rollouts: int, step: int, rngs: Sequence[np.random.Generator]) -> Tensor:
        """Latents (M, K, segments, Z) for K roll-outs of M tasks, around zero.

        In adaptation step 0 they lie as the training tasks do: at every one's latent, moved away
        from one of its neighbours; fewer latents than tasks at the means of as many groups of
        tasks. Tasks of one context count once. In later steps they lie on the way there, at u, u^2,
        u^3, ... of it with u uniform in [0, 1]: the spread shrinks as 1 / (step + 1).
        """
        num = num_rollouts * self.segments
        drawn = [self._spread(num, rng) * _share(num, rng) ** step for rng in rngs]
        return torch.stack(drawn).view(len(rngs), self.segments, num_rollouts, -1).transpose(1, 2)

    def by_score(self, latent: Tensor, score: Tensor) -> LatentBatch:
        """The latents of roll-outs (M, E, Z), weighed by what they were paid, (M, E)."""
        spread = score.std(1, keepdim=True).nan_to_num()
        standard = (score - score.mean(1, keepdim=True)) / (spread + 1e-6)
        return LatentBatch(latent, (standard / self.temperature).softmax(1))

    def by_critic(
        self, critic: Critic, latent: Tensor, score: Tensor, origin: Tensor, noise: Tensor
    ) -> LatentBatch:
        """Candidates (M, C, Z) near latents that were paid, by how well they explain all scores.

        What they were paid is the prior, the critic the likelihood: candidates are drawn from
        Gaussians around the latents, weighed as in `by_score`, as wide as the latents are apart.

        Args:
            critic: of latents as seen from `origin`.
            latent: of roll-outs and segments, (M, E, Z).
            score: what they were paid, (M, E).
            origin: (Z,).
            noise: standard normal, (M, C, Z).
        """
        candidates = _candidates(self.by_score(latent, score), noise)
        tasks = zip(latent - origin, score, candidates - origin, strict=True)
        explained = torch.stack([critic.log_likelihood(*task) for task in tasks])
        return LatentBatch(candidates, explained.softmax(1))

    def score(self, reward: Tensor) -> Tensor:
        """How well every segment of roll-outs (M, K, T) was paid, (M, K * S).

        The mean reward of its last quarter, and a tenth of that of the whole segment.
        """
        scores = []
        for start, end in pairwise(segment_bounds(reward.shape[-1], self.segments)):
            tail = max(1, round(_TAIL * (end - start)))
            whole = reward[..., start:end].mean(-1)
            scores.append(reward[..., end - tail : end].mean(-1) + _ON_THE_WAY * whole)
        return torch.stack(scores, -1).flatten(1)

    def _spread(self, num: int, rng: np.random.Generator) -> Tensor:
        """Latents (num, Z): all tasks', again and again, and for the rest means of groups."""
        tasks = _distinct(self.tasks)
        rounds, rest = divmod(num, len(tasks))
        around = [_moved(tasks, rng) for _ in range(rounds)]
        if rest:
            centers, _ = kmeans2(tasks.double().numpy(), rest, minit="++", seed=rng)
            around.append(torch.from_numpy(centers).float())
        return torch.cat(around)


def _distinct(rows: Tensor) -> Tensor:
    """The rows (N, Z) that differ, in their order."""
    return rows.new_tensor(list(dict.fromkeys(map(tuple, rows.tolist()))))


def _moved(tasks: Tensor, rng: np.random.Generator) -> Tensor:
    """Latents (N, Z) that differ, in random order, each moved away from one of its neighbours.

    By up to their distance: new goals lie as often outside the training tasks as between them.
    """
    order = torch.from_numpy(rng.permutation(len(tasks)))
    near = torch.cdist(tasks, tasks).argsort(1)[:, 1 : _NEIGHBOURS + 1]
    if near.shape[1] == 0:
        return tasks
    other = near[torch.arange(len(near)), rng.integers(near.shape[1], size=len(near))]
    share = torch.from_numpy(rng.uniform(0, 1, (len(near), 1)).astype(np.float32))
    return (tasks + share * (tasks - tasks[other]))[order]


def _share(num: int, rng: np.random.Generator) -> Tensor:
    return torch.from_numpy(rng.random((num, 1), np.float32))


def _candidates(paid: LatentBatch, noise: Tensor) -> Tensor:
    """Draws (M, C, Z) from a mixture of Gaussians, by standard normal noise (M, C, Z)."""
    latent, weight = paid
    num, last = noise.shape[1], latent.shape[1] - 1
    quantile = (torch.arange(num, device=latent.device) + 0.5) / num
    chosen = torch.searchsorted(weight.cumsum(1), quantile.repeat(len(weight), 1)).clamp_max(last)
    centers = latent.take_along_dim(chosen[..., None], 1)
    itself = torch.eye(last + 1, device=latent.device).bool()
    apart = torch.cdist(latent, latent).masked_fill(itself, torch.inf).min(2).values.mean(1)
    return centers + apart[:, None, None] * noise


def segment_bounds(horizon: int, segments: int) -> list[int]:
    """Where the segments of an episode begin, and its end: segments + 1 step numbers."""
    return [round(i * horizon / segments) for i in range(segments + 1)]


def count_segments(position: Tensor, alive: Tensor, horizon: int) -> int:
    """How many experts one after the other fit into an episode.

    By how long the demonstrations take until their object stays where it ends; from where another
    expert has left it the way may be twice as long.

    Args:
        position: of the object in the demonstrations, (N, T, P).
        alive: (N, T), the steps that were demonstrated.
        horizon: steps of an episode.
    """
    last = alive.sum(1) - 1
    goal = position[torch.arange(len(position)), last]
    left = (position - goal[:, None]).norm(dim=-1)
    under_way = (left > _ARRIVED * left[:, :1]) & alive
    steps = torch.arange(position.shape[1]) + 1
    arrival = float((under_way * steps).max(1).values.float().quantile(_SLOWEST))
    return max(1, int(horizon // (2 * arrival))) if arrival else 1
