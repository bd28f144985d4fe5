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

from gmps.experience.actor import Replays
from gmps.experience.demos import Demonstrations
from gmps.experience.rollouts import Rollouts
from gmps.method import Iteration
from gmps.methods.simple.options import ReplayOptions
from gmps.methods.simple.turns import rarest
from gmps.problem import Problem, Training


class Shown(NamedTuple):
    """Demonstrations of the M tasks themselves: actions (M, D, T, A), and how often each was tried
    (M, D).
    """

    actions: Tensor
    times: Tensor


class Tried(NamedTuple):
    """What is known of M tasks: the demonstration that was paid best, and how often each was tried.

    `best` (M,) counts demonstrations task by task, then what was `shown` of the task itself;
    `paid` (M,) is the return of that episode, minus infinity before the first; `times` (M, N, E).
    """

    best: Tensor
    paid: Tensor
    times: Tensor
    shown: Shown


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
        none = self._flat.new_zeros(num_tasks, 0, *self._flat.shape[1:])
        return Tried(
            medoid.expand(num_tasks),
            self.actions.new_full((num_tasks,), -torch.inf),
            never,
            Shown(none, never.new_zeros(num_tasks, 0)),
        )

    def demonstrated(
        self, belief: Tried, demonstrations: Demonstrations, rngs: Sequence[np.random.Generator]
    ) -> Tried:
        """What was done in the task itself is as good as anything; it is tried first."""
        own = demonstrations.executed * demonstrations.alive[..., None]
        own = torch.cat((belief.shown.actions, _as_long(own, self._flat.shape[1])), 1)
        never = belief.shown.times.new_zeros(len(own), own.shape[1] - belief.shown.times.shape[1])
        shown = Shown(own, torch.cat((belief.shown.times, never), 1))
        first = torch.full_like(belief.best, len(self._flat))
        best = torch.where(belief.paid.isinf(), first, belief.best)
        return belief._replace(best=best, shown=shown)

    def explorer(
        self, belief: Tried, step: int, num: int, rngs: Sequence[np.random.Generator]
    ) -> Replays:
        """What was shown of the task itself, once; then what was tried least, in random order."""
        every = zip(belief.times.cpu().numpy(), belief.shown.times.cpu().numpy(), rngs, strict=True)
        drawn = [_drawn(times, own, num, rng) for times, own, rng in every]
        return Replays(self._known(belief), torch.tensor(drawn, device=self.actions.device))

    def adapt(self, belief: Tried, step: int, gathered: Rollouts, memory: Tensor) -> Tried:
        """Keep what was paid best, the earlier one of equals."""
        paid, which = gathered.reward.sum(-1).max(1)
        better = paid > belief.paid
        chosen = memory.take_along_dim(which[:, None], 1)[:, 0]
        times = torch.cat((belief.times.flatten(1), belief.shown.times), 1)
        times = times.scatter_add(1, memory, torch.ones_like(memory))
        return Tried(
            torch.where(better, chosen, belief.best),
            torch.where(better, paid, belief.paid),
            times[:, : len(self._flat)].reshape(belief.times.shape),
            belief.shown._replace(times=times[:, len(self._flat) :]),
        )

    def exploiter(self, belief: Tried, num: int) -> Replays:
        """The best so far."""
        return Replays(self._known(belief), belief.best[:, None].expand(-1, num))

    def _known(self, belief: Tried) -> Tensor:
        """All demonstrations (M, D, T, A) of each task, those of others first."""
        own = belief.shown.actions
        others = self._flat.expand(len(own), *self._flat.shape)
        return torch.cat((others, own), 1) if own.shape[1] else others

    def tensors(self) -> dict[str, Tensor]:
        """See `MetaLearner`."""
        return {"actions": self.actions}

    def header(self) -> dict[str, Any]:
        """See `MetaLearner`."""
        return {}

    def to(self, device: torch.device) -> Self:
        """See `MetaLearner`."""
        return replace(self, actions=self.actions.to(device))


def _drawn(
    times: NDArray[np.int64], shown: NDArray[np.int64], num: int, rng: np.random.Generator
) -> list[int]:
    """`num` demonstrations, after `times` (N, E) so far, and those `shown` (D,) of the task itself.

    Of these the ones that were not tried yet; then of the rarest task the rarest.
    """
    times = times.copy()
    drawn = [times.size + int(i) for i in np.flatnonzero(shown == 0)[:num]]
    while len(drawn) < num:
        task = rarest(times.sum(1), rng)
        episode = rarest(times[task], rng)
        times[task, episode] += 1
        drawn.append(task * times.shape[1] + episode)
    return drawn


def _as_long(actions: Tensor, steps: int) -> Tensor:
    """Actions (M, D, T, A) of `steps` steps: cut, or nothing done behind their end."""
    missing = steps - actions.shape[2]
    return torch.nn.functional.pad(actions, (0, 0, 0, missing)) if missing else actions


def start(training: Training[ReplayOptions]) -> ReplayLearner:
    """All that it will ever know."""
    demos = training.demonstrations
    executed = demos.executed * demos.alive[..., None]
    actions = _as_long(executed, training.problem.schema.horizon)
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
