"""Meta-test: from theta, plain policy gradient on each task's reward, and what it earns.

Adaptation sees rewards and observations only; every task starts from theta.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch

from demokit.learning.networks import Params
from demokit.types import FloatArray, Task
from gmps.distributed import ALONE, Part, World
from gmps.experience.sampler import Rollouts, Sampler, replicate
from gmps.methods.gmps.learner import Learned
from gmps.progress import STEP_SIZES, Report, unheard

MEAN_EPISODES = 5
TUNING_STEPS = 3
STEP_SIZE_GRID = (0.0003, 0.001, 0.003, 0.01, 0.03)
_GRID_FACTOR = 3.0
_MAX_CANDIDATES, _BETWEEN = 12, 2


class Outcome(NamedTuple):
    """What roll-outs earn after each number of adaptation steps, (steps + 1, M) each.

    Means over a task's episodes; returns are undiscounted sums over the horizon.
    """

    episode_return: FloatArray
    success: FloatArray


@dataclass(frozen=True, eq=False)
class Curve:
    """Adaptation on M tasks: `mean` acts by the policy's mean, `stochastic` samples."""

    mean: Outcome
    stochastic: Outcome


def adaptation_curve(
    learned: Learned,
    sampler: Sampler,
    rng: np.random.Generator,
    num_steps: int,
    later_lr: float | None = None,
    step_scale: float = 1.0,
    on_step: Callable[[int], None] = lambda step: None,
) -> Curve:
    """Fine-tune on the sampler's tasks from theta, for 0..num_steps policy-gradient steps.

    Args:
        learned: the policy and its step sizes.
        sampler: K exploring roll-outs per task adapt, its mean episodes only measure.
        rng: start and action noise.
        num_steps: adaptation steps.
        later_lr: scalar step size in place of `learned.later_lr`.
        step_scale: multiplies every step size.
        on_step: called after each step's roll-outs.
    """
    params = replicate(learned.meta.theta, sampler.num_tasks)
    explore, mean = slice(sampler.explore), slice(sampler.explore, None)
    measured: list[tuple[Rollouts, Rollouts]] = []
    for step in range(num_steps + 1):
        latents = learned.latents(params, sampler.explore, step, rng, sampler.part)
        rollouts = sampler(learned.policy, params, rng, latents)
        measured.append((rollouts.episodes(mean), rollouts.episodes(explore)))
        on_step(step)
        if step < num_steps:
            sizes = scaled(learned.step_sizes(step, later_lr), step_scale)
            params = adapted(learned, params, sizes, rollouts.episodes(explore))
    by_mean, by_sample = zip(*measured, strict=True)
    return Curve(_outcome(by_mean, sampler.part), _outcome(by_sample, sampler.part))


def scaled(step_sizes: Params, factor: float) -> Params:
    """Every step size times a factor."""
    return {name: factor * size for name, size in step_sizes.items()}


@torch.no_grad()
def adapted(learned: Learned, params: Params, step_sizes: Params, rollouts: Rollouts) -> Params:
    """Parameters with a leading axis M after one policy-gradient step on the tasks' roll-outs."""
    phi: Params = torch.func.vmap(learned.inner, in_dims=(0, None, 0))(
        params, step_sizes, learned.inner_batch(learned.encoded(rollouts))
    )
    return phi


class Tuning(NamedTuple):
    """Result of the step-size search: the choice, every candidate's score, and the cost."""

    best: float
    scores: dict[float, float]
    env_steps: int


def choose_step_size(
    learned: Learned,
    rng_seed: int,
    grid: Sequence[float] = STEP_SIZE_GRID,
    world: World = ALONE,
    report: Report = unheard,
) -> Tuning:
    """The scalar step size with the best mean return over steps 1..3 on the *training* tasks.

    The grid grows by factors of 3 until its best value has a worse one on both sides, then the
    two values half-way to its neighbours are tried. The same rule serves GMPS (for the steps
    after its learned one) and MultiTask Imitation (for all steps). Every candidate meets the
    same noise.
    """
    tasks = learned.tasks[: learned.config.tuning_tasks or None]
    sampler = Sampler(
        learned.family,
        tasks,
        learned.reward,
        explore=learned.config.rollouts_per_task,
        mean=MEAN_EPISODES,
        sees=learned.sees,
        part=world.part(len(tasks)),
    )
    scores: dict[float, float] = {}

    def score(candidates: Sequence[float]) -> float:
        for lr in candidates:
            rng = np.random.default_rng(rng_seed)
            curve = adaptation_curve(learned, sampler, rng, TUNING_STEPS, later_lr=lr)
            scores[lr] = float(curve.mean.episode_return[1:].mean())
            report(STEP_SIZES, len(scores), _MAX_CANDIDATES + _BETWEEN)
        return max(scores, key=scores.__getitem__)

    best = score(grid)
    while best in (min(scores), max(scores)) and len(scores) < _MAX_CANDIDATES:
        is_lowest = best == min(scores)
        best = score([best / _GRID_FACTOR if is_lowest else best * _GRID_FACTOR])
    best = score([best / _GRID_FACTOR**0.5, best * _GRID_FACTOR**0.5])
    spent = len(scores) * (TUNING_STEPS + 1) * sampler.num_steps
    return Tuning(best, dict(sorted(scores.items())), spent)


def with_step_size(learned: Learned, tuning: Tuning) -> Learned:
    """The same policy with its step size settled, and the roll-outs of the search counted."""
    spent = learned.env_steps + tuning.env_steps
    return replace(learned, later_lr=tuning.best, env_steps=spent)


def evaluate(
    learned: Learned,
    tasks: Sequence[Task],
    *,
    num_steps: int,
    rollouts_per_task: int,
    seed: int,
    reward: str | None = None,
    step_scale: float = 1.0,
    on_step: Callable[[int], None] = lambda step: None,
) -> Curve:
    """The adaptation curve on held-out tasks; see `adaptation_curve`."""
    sampler = Sampler(
        learned.family,
        tasks,
        reward or learned.reward,
        explore=rollouts_per_task,
        mean=MEAN_EPISODES,
        sees=learned.sees,
    )
    rng = np.random.default_rng([seed, learned.config.seed])
    return adaptation_curve(
        learned, sampler, rng, num_steps, step_scale=step_scale, on_step=on_step
    )


def _outcome(rollouts: Sequence[Rollouts], part: Part) -> Outcome:
    """Of all tasks, from the roll-outs of a process's own."""
    earned = torch.stack([r.reward.sum(-1).mean(1) for r in rollouts], 1)
    succeeded = torch.stack([r.success.float().mean(1) for r in rollouts], 1)
    return Outcome(*(part.gathered(own.cpu()).T.numpy() for own in (earned, succeeded)))
