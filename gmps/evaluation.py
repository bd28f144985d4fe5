"""Meta-test: what a learner earns on tasks that nobody has met, after more and more episodes.

Adaptation sees rewards and observations only; every task starts from what the learner begins with.
The one exception is a learner that is told the tasks' contexts (`IsTold`).
This is the only loop over adaptation: evaluation, the choice of step sizes, videos and pictures
take it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from demokit.random import stream
from demokit.types import FloatArray, Task
from gmps.distributed import Part
from gmps.experience.demos import Demonstrations
from gmps.experience.rollouts import Gathered, Sampled
from gmps.experience.sampler import Sampler
from gmps.method import MetaLearner, informed, shown_to
from gmps.problem import Problem

MEAN_EPISODES = 5
_ENOUGH_EPISODES = 5  # fewer a step are several trials: what one leads to is chance

Showing = Callable[[Sequence[Task]], Demonstrations]
"""As many demonstrations of each of these tasks."""

Streams = Callable[[int], np.random.Generator]
"""The random numbers of adaptation step 0, 1, ...: start and action noise."""


class Earned(NamedTuple):
    """What roll-outs of this process's tasks earned, (M,) each: means over a task's episodes."""

    episode_return: Tensor
    success: Tensor

    @classmethod
    def by(cls, gathered: Gathered) -> Earned:
        """By the episodes of one actor."""
        paid = gathered.rollouts.reward.sum(-1).mean(1)
        return cls(paid, gathered.success.float().mean(1))


class Stage(NamedTuple):
    """Adaptation step 0, 1, ...: what was believed, and the roll-outs taken with it."""

    step: int
    belief: Any
    sampled: Sampled

    @property
    def earned(self) -> tuple[Earned, Earned]:
        """By the explorer and by the exploiter: the roll-outs are large, and need not be kept."""
        return Earned.by(self.sampled.explored), Earned.by(self.sampled.judged)


class Outcome(NamedTuple):
    """What roll-outs earn after each number of adaptation steps, (steps + 1, M) each.

    Means over a task's episodes; returns are undiscounted sums over the horizon.
    """

    episode_return: FloatArray
    success: FloatArray


@dataclass(frozen=True, eq=False)
class Curve:
    """Adaptation on M tasks: `mean` acts by the policy's mean, `stochastic` explores.

    `episodes_per_step` of every task were gathered for each step.
    """

    mean: Outcome
    stochastic: Outcome
    episodes_per_step: int


def stages(
    learner: MetaLearner,
    sampler: Sampler,
    streams: Streams,
    num_steps: int,
    start: Stage | None = None,
) -> Iterator[Stage]:
    """Adapt to the sampler's tasks for 0..num_steps steps.

    Args:
        learner: whose roll-outs explore and are judged.
        sampler: its exploring episodes teach, its mean episodes only measure.
        streams: the random numbers of each step.
        num_steps: adaptation steps.
        start: a stage to go on from; it is the first one.
    """
    learner = informed(learner, sampler.contexts)
    found = start or stage_of(learner, sampler, streams, 0, learner.begin(sampler.num_tasks))
    yield found
    while found.step < num_steps:
        rollouts, memory, _ = found.sampled.explored
        belief = learner.adapt(found.belief, found.step, rollouts, memory)
        found = stage_of(learner, sampler, streams, found.step + 1, belief)
        yield found


def stage_of(
    learner: MetaLearner, sampler: Sampler, streams: Streams, step: int, belief: Any
) -> Stage:
    """The roll-outs of a belief after so many steps."""
    rngs = sampler.streams(streams(step))
    explorer = learner.explorer(belief, step, sampler.explore, rngs)
    exploiter = learner.exploiter(belief, sampler.mean) if sampler.mean else None
    return Stage(step, belief, sampler(explorer, rngs, exploiter))


def shown_stage(
    learner: MetaLearner,
    sampler: Sampler,
    streams: Streams,
    demonstrations: Demonstrations,
    rng: np.random.Generator,
) -> Stage:
    """Before the first episode, after demonstrations of the sampler's tasks."""
    learner = informed(learner, sampler.contexts)
    begun = learner.begin(sampler.num_tasks)
    belief = shown_to(learner, begun, demonstrations, sampler.streams(rng))
    return stage_of(learner, sampler, streams, 0, belief)


def meta_test(
    learner: MetaLearner,
    sampler: Sampler,
    streams: Streams,
    num_steps: int,
    start: Stage | None = None,
    on_step: Callable[[int], None] = lambda step: None,
) -> Curve:
    """What a learner earns in each of `stages`; `on_step` is called after each."""
    measured = []
    for stage in stages(learner, sampler, streams, num_steps, start):
        measured.append(stage.earned)
        on_step(stage.step)
    return curve_of(measured, sampler)


def curve_of(measured: Sequence[tuple[Earned, Earned]], sampler: Sampler) -> Curve:
    """Of what stages `earned`."""
    explored, judged = zip(*measured, strict=True)
    part = sampler.part
    return Curve(_outcome(judged, part), _outcome(explored, part), sampler.explore)


def evaluate(
    learner: MetaLearner,
    problem: Problem,
    tasks: Sequence[Task],
    own: slice | None = None,
    *,
    num_steps: int,
    seed: int,
    run_seed: int = 0,
    episodes_per_step: int | None = None,
    reward: str | None = None,
    show: Showing | None = None,
    on_step: Callable[[int], None] = lambda step: None,
) -> Curve:
    """The adaptation curve on held-out tasks.

    Args:
        learner: what is judged.
        problem: what it was trained on.
        tasks: M tasks.
        own: which of them, in a row, the curve shall be of; None: all. Others are not rolled out.
        num_steps: adaptation steps on each.
        seed: of the roll-outs.
        run_seed: that of the training; its roll-outs are others.
        episodes_per_step: K in place of the learner's own.
        reward: in place of the problem's.
        show: demonstrations of all these tasks, which are shown to it first.
        on_step: called after each step's roll-outs.
    """
    explore = episodes_per_step or learner.episodes_per_step
    trials = num_trials(explore)
    paid = replace(problem, reward=reward or problem.reward)
    repeated = tuple(task for task in tasks for _ in range(trials))
    first, last, _ = (own or slice(None)).indices(len(tasks))
    part = Part(own=slice(first * trials, last * trials))
    streams = partial(stream, seed, "evaluation", run_seed)
    start = None
    with paid.sampler(repeated, explore=explore, mean=MEAN_EPISODES, part=part) as sampler:
        if show is not None:
            rng = stream(seed, "demonstrations", run_seed)
            shown = show(repeated).of_tasks(part.own)
            start = shown_stage(learner, sampler, streams, shown, rng)
        found = meta_test(learner, sampler, streams, num_steps, start, on_step)
    return _over_trials(found, trials)


def joined(parts: Sequence[Curve]) -> Curve:
    """The curve of all tasks, from those of some at a time."""
    mean, stochastic = (
        Outcome(*(np.concatenate(values, 1) for values in zip(*outcomes, strict=True)))
        for outcomes in ([part.mean for part in parts], [part.stochastic for part in parts])
    )
    return Curve(mean, stochastic, parts[0].episodes_per_step)


def num_trials(episodes_per_step: int) -> int:
    """Independent trials of every task, where a step takes too few episodes to average over."""
    return 1 if episodes_per_step >= _ENOUGH_EPISODES else _ENOUGH_EPISODES


def _over_trials(curve: Curve, trials: int) -> Curve:
    """Means over the trials of every task, which stand in a row."""
    if trials == 1:
        return curve
    mean, stochastic = (
        Outcome(*(values.reshape(len(values), -1, trials).mean(2) for values in outcome))
        for outcome in (curve.mean, curve.stochastic)
    )
    return Curve(mean, stochastic, curve.episodes_per_step)


def _outcome(earned: Sequence[Earned], part: Part) -> Outcome:
    """Of all tasks, from a process's own."""
    every = (torch.stack(own, 1) for own in zip(*earned, strict=True))
    return Outcome(*(part.gathered(own.cpu()).T.numpy() for own in every))
