"""Means, interquartile means and areas of scores, with bootstrap intervals.

Source: Agarwal et al., 2021, "Deep reinforcement learning at the edge of the statistical
precipice". Scores are (runs, tasks); every interval is a 95% percentile interval. Where all scores
are equal, resampling them tells nothing: what is bounded, such as a success rate, has an exact
interval there (Clopper and Pearson, 1934).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

import numpy as np
from scipy.stats import trim_mean

from demokit.types import Array, FloatArray

Bounds: TypeAlias = tuple[float, float] | None

_RESAMPLES = 2000
_TAILS = (2.5, 97.5)
_TRIMMED = 0.25


class Interval(NamedTuple):
    """An estimate with its 95% interval."""

    mean: float
    low: float
    high: float


def interval(scores: FloatArray, bounds: Bounds = None) -> Interval:
    """Mean of scores (R, M), for other training seeds and other tasks of the family.

    Runs and tasks are resampled, each by themselves: the runs of a task are not independent
    samples, a task is hard or easy for all of them (Owen, 2007, "The pigeonhole bootstrap").

    Args:
        scores: of R runs in M tasks.
        bounds: the least and the greatest score that there can be; None: there are none.
    """
    if bounds and not np.ptp(scores):
        return _exact(float(scores[0, 0]), scores.shape[1], bounds)
    rng = _rng()
    tasks = scores.shape[1]
    drawn = (_mean_of_runs(scores, rng) * _counts(tasks, rng)).sum(1) / tasks
    return _interval(float(scores.mean()), drawn)


def interquartile(scores: FloatArray) -> Interval:
    """Interquartile mean of scores (R, M), with a stratified bootstrap.

    The mean of the middle half of all cells; for the interval, runs are resampled within each
    task, so that it says how sure the figure is of *these tasks* for other training seeds. One
    run has nothing to resample: low and high are the estimate.
    """
    runs, tasks = scores.shape
    drawn = _rng().integers(runs, size=(_RESAMPLES, runs, tasks))
    resampled = np.take_along_axis(scores[None], drawn, axis=1).reshape(_RESAMPLES, -1)
    estimate = float(trim_mean(scores, _TRIMMED, axis=None))
    return _interval(estimate, trim_mean(resampled, _TRIMMED, axis=1))


def difference(ours: FloatArray, theirs: FloatArray, bounds: Bounds = None) -> Interval:
    """Mean of scores (R, M) minus that of scores (R', M) on the same tasks.

    Tasks are resampled in pairs, the runs of each method by themselves. `bounds` are those of a
    score, see `interval`.
    """
    every = (ours[:, None] - theirs[None]).reshape(-1, ours.shape[1])
    if bounds and not np.ptp(every):
        low, high = bounds
        return _exact(float(every[0, 0]), every.shape[1], (low - high, high - low))
    rng = _rng()
    tasks = rng.integers(ours.shape[1], size=(_RESAMPLES, ours.shape[1]))
    drawn = [
        np.take_along_axis(_mean_of_runs(scores, rng), tasks, axis=1).mean(1)
        for scores in (ours, theirs)
    ]
    return _interval(float(ours.mean() - theirs.mean()), drawn[0] - drawn[1])


def improvement(ours: FloatArray, theirs: FloatArray) -> Interval:
    """Probability that a run of ours (R, M) scores more than one of theirs (R', M) on a task.

    A mean over tasks; equal scores count half. Runs are resampled within each task, as for
    `interquartile`.
    """
    wins = np.sign(ours[:, None] - theirs[None]) / 2 + 0.5
    rng = _rng()
    runs, others, tasks = wins.shape
    drawn = [
        np.stack([_counts(num, rng) for _ in range(tasks)], axis=-1) / num for num in (runs, others)
    ]
    resampled = np.einsum("rim,ijm,rjm->r", drawn[0], wins, drawn[1]) / tasks
    return _interval(float(wins.mean()), resampled)


def mean_upto(values: Mapping[int, float], budget: int) -> float:
    """Area under values after so many episodes, up to `budget` (trapezoids), over its width."""
    episodes = np.array(list(values))
    grid = np.append(episodes[episodes < budget], budget)
    return float(np.trapezoid(np.interp(grid, episodes, list(values.values())), grid) / budget)


def _mean_of_runs(scores: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Means (resamples, M) over resampled runs."""
    means: FloatArray = _counts(len(scores), rng) @ scores / len(scores)
    return means


def _counts(num: int, rng: np.random.Generator) -> Array:
    """How often every one of `num` is drawn into each resample of `num`: (resamples, num)."""
    return rng.multinomial(num, np.full(num, 1 / num), size=_RESAMPLES)


def _interval(estimate: float, drawn: Array) -> Interval:
    low, high = np.percentile(drawn, _TAILS)
    return Interval(estimate, float(low), float(high))


def _exact(value: float, num: int, bounds: tuple[float, float]) -> Interval:
    """The interval of a mean where each of `num` tasks has scored `value`.

    A share u of the family's tasks that score otherwise is missed by all of them with probability
    (1 - u)^num. Larger shares than the u of 2.5% are ruled out; those up to it may score as low,
    or as high, as can be.
    """
    unseen = 1 - (_TAILS[0] / 100) ** (1 / num)
    low, high = (value + unseen * (bound - value) for bound in bounds)
    return Interval(value, low, high)


def _rng() -> np.random.Generator:
    """The same resamples every time: a table printed again reads the same."""
    return np.random.default_rng(0)
