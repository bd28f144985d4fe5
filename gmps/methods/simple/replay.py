"""Replay: the actions of a demonstration, open loop, and of several the one that was paid best.

Nothing is learned. What a method cannot do better than this, it has not shown to have learned.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gmps.experience.actor import Certain, Seen
from gmps.experience.rollouts import Rollouts
from gmps.method import Iteration
from gmps.methods.simple.options import ReplayOptions
from gmps.methods.simple.turns import rarest
from gmps.problem import Problem, Training


class Replays:
    """Acts as demonstrations did, whatever it sees, and not at all (zero) behind their ends.

    Args:
        actions: of all demonstrations, (D, T, A).
        chosen: which of them, (M, K): the actor's memory.
    """

    def __init__(self, actions: Tensor, chosen: Tensor) -> None:
        self.memory = chosen
        self._actions = actions

    def __call__(self, memory: Tensor, seen: Seen) -> tuple[Certain, Tensor]:
        """See `Actor`."""
        if seen.t >= self._actions.shape[1]:
            return Certain(torch.zeros_like(seen.action)), memory
        return Certain(self._actions[memory, seen.t]), memory


class Tried(NamedTuple):
    """What is known of M tasks: the demonstration that was paid best, and how often each was tried.

    `best` (M,) counts demonstrations task by task, `paid` (M,) is the return of that episode, minus
    infinity before the first, `times` (M, N, E).
    """

    best: Tensor
    paid: Tensor
    times: Tensor


@dataclass(frozen=True, eq=False)
class ReplayLearner:
    """Each episode is another demonstration, of another training task while there are any.

    Before the first it is the most common one: the one that is nearest to all, in squared distance
    of actions.

    Attributes:
        actions: E executed demonstrations of each of the N training tasks, (N, E, T, A), zero
            behind their ends.
        episodes_per_step: K.
    """

    actions: Tensor
    episodes_per_step: int

    @cached_property
    def _flat(self) -> Tensor:
        return self.actions.flatten(0, 1)

    def begin(self, num_tasks: int) -> Tried:
        """Nothing was tried."""
        # Of squared distances, the medoid is what is nearest to the mean.
        medoid = (self._flat - self._flat.mean(0)).square().sum((1, 2)).argmin()
        never = self.actions.new_zeros(num_tasks, *self.actions.shape[:2], dtype=torch.long)
        return Tried(
            medoid.expand(num_tasks), self.actions.new_full((num_tasks,), -torch.inf), never
        )

    def explorer(
        self, belief: Tried, step: int, num: int, rngs: Sequence[np.random.Generator]
    ) -> Replays:
        """What was tried least, in random order."""
        times = belief.times.cpu().numpy()
        drawn = [_drawn(of_task, num, rng) for of_task, rng in zip(times, rngs, strict=True)]
        return Replays(self._flat, torch.tensor(drawn, device=self.actions.device))

    def adapt(self, belief: Tried, step: int, gathered: Rollouts, memory: Tensor) -> Tried:
        """Keep what was paid best, the earlier one of equals."""
        paid, which = gathered.reward.sum(-1).max(1)
        better = paid > belief.paid
        chosen = memory.take_along_dim(which[:, None], 1)[:, 0]
        times = belief.times.flatten(1).scatter_add(1, memory, torch.ones_like(memory))
        return Tried(
            torch.where(better, chosen, belief.best),
            torch.where(better, paid, belief.paid),
            times.view_as(belief.times),
        )

    def exploiter(self, belief: Tried, num: int) -> Replays:
        """The best so far."""
        return Replays(self._flat, belief.best[:, None].expand(-1, num))

    def tensors(self) -> dict[str, Tensor]:
        """See `MetaLearner`."""
        return {"actions": self.actions}

    def header(self) -> dict[str, Any]:
        """See `MetaLearner`."""
        return {}

    def to(self, device: torch.device) -> Self:
        """See `MetaLearner`."""
        return replace(self, actions=self.actions.to(device))


def _drawn(times: NDArray[np.int64], num: int, rng: np.random.Generator) -> list[int]:
    """`num` demonstrations: of the rarest task the rarest, after `times` (N, E) so far."""
    times, drawn = times.copy(), []
    for _ in range(num):
        task = rarest(times.sum(1), rng)
        episode = rarest(times[task], rng)
        times[task, episode] += 1
        drawn.append(task * times.shape[1] + episode)
    return drawn


def start(training: Training[ReplayOptions]) -> ReplayLearner:
    """All that it will ever know."""
    demos = training.demonstrations
    actions = demos.executed * demos.alive[..., None]
    return ReplayLearner(actions, training.options.rollouts_per_task)


def train(
    training: Training[ReplayOptions],
    learner: ReplayLearner,
    _state: Mapping[str, Tensor],
    first: int,
) -> Generator[Iteration]:
    """Nothing is to be learned."""
    for _ in range(first, training.options.iterations):
        yield Iteration(learner, {}, 0, {})


def load(
    problem: Problem, options: ReplayOptions, tensors: dict[str, Tensor], _header: dict[str, Any]
) -> ReplayLearner:
    """The learner of a checkpoint."""
    actions = tensors["actions"]
    known = len(problem.tasks), len(problem.schema.actions)
    if actions.ndim != 4 or (actions.shape[0], actions.shape[3]) != known or not actions.numel():
        raise ValueError("its demonstrations are not those of its tasks")
    if actions.dtype != torch.float32 or not bool(actions.isfinite().all()):
        raise ValueError("its demonstrations are no actions")
    return ReplayLearner(actions, options.rollouts_per_task)
