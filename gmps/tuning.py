"""The choice of a scalar step size, on the training tasks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple, Protocol

import torch

from demokit.random import stream
from gmps.distributed import ALONE, World
from gmps.evaluation import MEAN_EPISODES, meta_test, stages
from gmps.method import HasStepSize, MetaLearner
from gmps.problem import Problem
from gmps.progress import STEP_SIZES, Report, unheard

TUNING_STEPS = 3
STEP_SIZE_GRID = (0.0003, 0.001, 0.003, 0.01, 0.03)
_GRID_FACTOR = 3.0
_MAX_CANDIDATES, _BETWEEN = 12, 2


class TunableLearner(MetaLearner, HasStepSize, Protocol):
    """A learner with a step size."""


class Tuning(NamedTuple):
    """Result of the search: the choice, every candidate's score, and the cost."""

    best: float
    scores: dict[float, float]
    env_steps: int


def choose_step_size(
    learner: TunableLearner,
    problem: Problem,
    seed: int,
    grid: Sequence[float] = STEP_SIZE_GRID,
    world: World = ALONE,
    device: torch.device | str = "cpu",
    report: Report = unheard,
) -> Tuning:
    """The scalar step size with the best mean return over steps 1..3 on the *training* tasks.

    The grid grows by factors of 3 until its best value has a worse one on both sides or twelve
    were tried, then the two values half-way to its neighbours are. The same rule serves GMPS (for
    the steps after its learned one) and MultiTask Imitation (for all steps). Every candidate meets
    the same noise, and what comes before the first step with a scalar is rolled out once for all.
    """
    tasks = problem.tasks[: learner.tuning_tasks or None]
    streams = partial(stream, seed, "step size")
    with problem.sampler(
        tasks,
        explore=learner.episodes_per_step,
        mean=MEAN_EPISODES,
        part=world.part(len(tasks)),
        device=device,
    ) as sampler:
        *_, shared = stages(learner, sampler, streams, learner.num_learned_steps)
        scores: dict[float, float] = {}

        def score(candidates: Sequence[float]) -> float:
            for lr in candidates:
                tried = learner.with_step_size(lr)
                curve = meta_test(tried, sampler, streams, TUNING_STEPS, shared)
                scores[lr] = float(curve.mean.episode_return[-TUNING_STEPS:].mean())
                report(STEP_SIZES, len(scores), _MAX_CANDIDATES + _BETWEEN)
            return max(scores, key=scores.__getitem__)

        best = score(grid)
        while best in (min(scores), max(scores)) and len(scores) < _MAX_CANDIDATES:
            is_lowest = best == min(scores)
            best = score([best / _GRID_FACTOR if is_lowest else best * _GRID_FACTOR])
        best = score([best / _GRID_FACTOR**0.5, best * _GRID_FACTOR**0.5])
    before, after = 1 + learner.num_learned_steps, TUNING_STEPS - learner.num_learned_steps
    spent = (before + len(scores) * after) * sampler.num_steps
    return Tuning(best, dict(sorted(scores.items())), spent)
