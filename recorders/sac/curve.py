"""The learning curves of experts; they read metrics.csv and nothing else."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from demokit.figure import Figure
from demokit.page import write_picture

DPI = 140
_MEAN, _WORST = "#1b6ca8", "#d1495b"


def draw_curves(metrics: Mapping[str, Path], out: Path) -> None:
    """Return and success against environment steps, a column for each training.

    Args:
        metrics: title -> metrics.csv.
        out: the picture, in a format that matplotlib knows.
    """
    figure = Figure(figsize=(4.2 * len(metrics), 4.6), layout="constrained")
    axes = figure.subplots(2, len(metrics), squeeze=False, sharex="col", height_ratios=(2, 1))
    for (above, below), (title, path) in zip(axes.T, metrics.items(), strict=True):
        rows = read_metrics(path)
        steps = [value / 1e6 for value in rows["env_steps"]]
        above.plot(steps, rows["return"], color=_MEAN, label="mean over tasks")
        above.plot(steps, rows["worst_task_return"], color=_WORST, label="worst task")
        below.plot(steps, rows["success"], color=_MEAN)
        below.set(xlabel="environment steps / million", ylim=(-0.04, 1.04))
        above.set(title=title)
        for axis in (above, below):
            axis.grid(alpha=0.3)
            axis.spines[["top", "right"]].set_visible(False)
    axes[0, 0].set_ylabel("return")
    axes[1, 0].set_ylabel("success")
    axes[0, 0].legend(loc="lower right", frameon=False)
    write_picture(figure, out, "the training is complete.", dpi=DPI)


def read_metrics(path: Path) -> dict[str, list[float]]:
    """Column -> its values."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: [float(row[name]) for row in rows] for name in rows[0]}
