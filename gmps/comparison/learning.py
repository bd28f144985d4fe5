"""Learning curves: what held-out tasks earned after adaptation while a method was being trained."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import isfinite, nan
from pathlib import Path

import numpy as np

from demokit.errors import DemokitError
from demokit.reading import MALFORMED
from demokit.types import FloatArray
from gmps.comparison.rows import read_as, write_as
from gmps.runs.folder import read_scalars


@dataclass(frozen=True)
class Monitored:
    """What the monitor tasks of a training earned after adaptation, a mean over them.

    Attributes:
        label, seed: of the run.
        env_steps: environment steps that the method has needed so far, see `Spent.needed`.
        episode_return, success: of the mean policy.
    """

    label: str
    seed: int
    env_steps: float
    episode_return: float
    success: float

    def __post_init__(self) -> None:
        """Check that it can be drawn; raises ValueError."""
        values = self.env_steps, self.episode_return, self.success
        if not all(map(isfinite, values)) or self.env_steps < 0:
            raise ValueError(f"{values} is no point of a learning curve")


def logged(metrics: Path, label: str, seed: int) -> list[Monitored]:
    """The learning curve that a training has logged; iterations without evaluation are left out.

    Raises:
        DemokitError: `metrics` cannot be read.
    """
    names = "env_steps", "return_after", "success_after"
    found = ([row.get(name, nan) for name in names] for row in read_scalars(metrics))
    return [Monitored(label, seed, *values) for values in found if all(map(isfinite, values))]


def read_learning(path: Path) -> list[Monitored]:
    """Read what `write_learning` wrote; nothing where there is no file.

    Raises:
        DemokitError: it is damaged.
    """
    try:
        return read_as(path, Monitored) if path.exists() else []
    except (OSError, *MALFORMED) as error:
        raise DemokitError(f"{path} cannot be read ({error}): remove it.") from None


def write_learning(path: Path, points: Iterable[Monitored]) -> None:
    """Write learning curves as CSV; without any, no file is left that tells of others."""
    every = list(points)
    if every:
        write_as(path, Monitored, every)
    else:
        path.unlink(missing_ok=True)


def by_seed(points: Iterable[Monitored], label: str, measure: str) -> list[FloatArray]:
    """The curves of a method, an array (2, points) of environment steps and measure a seed."""
    seeds: dict[int, list[tuple[float, float]]] = {}
    for point in points:
        if point.label == label:
            seeds.setdefault(point.seed, []).append((point.env_steps, getattr(point, measure)))
    # What is logged again after as many steps, as by methods that take none, replaces the former.
    lasts = (dict(curve) for _, curve in sorted(seeds.items()))
    return [np.array(sorted(last.items())).T for last in lasts]


def mean_curve(curves: Iterable[FloatArray]) -> FloatArray:
    """The mean of curves where all were measured, straight lines between points: (2, points)."""
    every = list(curves)
    first = max(steps[0] for steps, _ in every)
    last = min(steps[-1] for steps, _ in every)
    grid = np.unique(np.concatenate([steps for steps, _ in every]))
    grid = grid[(grid >= first) & (grid <= last)]
    means = np.mean([np.interp(grid, steps, values) for steps, values in every], axis=0)
    return np.array([grid, means])
