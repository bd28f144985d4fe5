"""Means, interquartile means and areas of scores, with bootstrap intervals.

Source: Agarwal et al., 2021, "Deep reinforcement learning at the edge of the statistical
precipice". Scores are (runs, tasks), a row of one training each: here, unlike there, a run is in
all tasks, and is resampled as a whole. Every interval is a 95% percentile interval. Resampling
knows nothing of tasks that were not met: the interval of what is bounded, such as a success rate,
is as wide at least as these could move it, see `_widened`.
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
    rng = _rng()
    tasks = scores.shape[1]
    drawn = (_mean_of_runs(scores, rng) * _counts(tasks, rng)).sum(1) / tasks
    return _widened(_interval(float(scores.mean()), drawn), tasks, bounds)


def interquartile(scores: FloatArray) -> Interval:
    """Interquartile mean of scores (R, M), and how far other training seeds would move it.

    The mean of the middle half of all cells; for the interval runs are resampled, each with all of
    its tasks, so that it is about *these tasks*. One run has nothing to resample: low and high are
    the estimate.
    """
    runs = len(scores)
    resampled = scores[_rng().integers(runs, size=(_RESAMPLES, runs))].reshape(_RESAMPLES, -1)
    estimate = float(trim_mean(scores, _TRIMMED, axis=None))
    return _interval(estimate, trim_mean(resampled, _TRIMMED, axis=1))


def difference(ours: FloatArray, theirs: FloatArray, bounds: Bounds = None) -> Interval:
    """Mean of scores (R, M) minus that of scores (R', M) on the same tasks.

    Tasks are resampled in pairs, the runs of each method by themselves. `bounds` are those of a
    score, see `interval`.
    """
    rng = _rng()
    num = ours.shape[1]
    tasks = rng.integers(num, size=(_RESAMPLES, num))
    drawn = [
        np.take_along_axis(_mean_of_runs(scores, rng), tasks, axis=1).mean(1)
        for scores in (ours, theirs)
    ]
    found = _interval(float(ours.mean() - theirs.mean()), drawn[0] - drawn[1])
    return _widened(found, num, bounds and (bounds[0] - bounds[1], bounds[1] - bounds[0]))


def improvement(ours: FloatArray, theirs: FloatArray) -> Interval:
    """Probability that a run of ours (R, M) scores more than one of theirs (R', M) on a task.

    A mean over tasks; equal scores count half. Runs are resampled as for `interquartile`.
    """
    wins = (np.sign(ours[:, None] - theirs[None]) / 2 + 0.5).mean(-1)
    rng = _rng()
    drawn = [_counts(num, rng) / num for num in wins.shape]
    resampled = np.einsum("ri,ij,rj->r", drawn[0], wins, drawn[1])
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


def _widened(found: Interval, num: int, bounds: Bounds) -> Interval:
    """An interval that allows for what none of `num` tasks has shown.

    Tasks of a kind that is a share u of the family are all missed with probability (1 - u)^num.
    Larger shares than the u of 2.5% are ruled out; those up to it may score as low, or as high, as
    can be. Where all tasks score one of the bounds, this is the exact interval of Clopper and
    Pearson (1934).
    """
    if bounds is None:
        return found
    unseen = 1 - (_TAILS[0] / 100) ** (1 / num)
    low, high = (found.mean + unseen * (bound - found.mean) for bound in bounds)
    return Interval(found.mean, min(low, found.low), max(high, found.high))


def _rng() -> np.random.Generator:
    """The same resamples every time: a table printed again reads the same."""
    return np.random.default_rng(0)
