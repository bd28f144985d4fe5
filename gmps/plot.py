"""Plots of a comparison; they read its CSV and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from gmps.report import Row, interval, labels, read_rows, references, values

_COLORS = ("#1b6ca8", "#d1495b", "#3c8d5a", "#8d5fb4", "#b07d2b", "#555555")
_STYLES = {"mean": "-", "stochastic": ":"}
_NAMES = {"episode_return": "return", "success": "success rate"}


def plot_adaptation(table: Path, picture: Path, title: str) -> None:
    """Draw return and success against adaptation steps (as Fig. 6 of the GMPS paper).

    Args:
        table: the CSV that `report.write_rows` wrote.
        picture: the PNG to write.
        title: stands above the panels.
    """
    rows = read_rows(table)
    figure, panels = plt.subplots(1, 2, figsize=(10, 4.6), layout="constrained")
    for axes, measure in zip(panels, _NAMES, strict=True):
        _panel(axes, rows, measure)
    panels[1].set_ylim(-0.04, 1.06)
    figure.legend(
        *panels[0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=4,
        frameon=False,
        title="solid: acts by the policy's mean; dotted: samples from it",
        title_fontsize="small",
    )
    figure.suptitle(title)
    figure.savefig(picture, dpi=150)
    plt.close(figure)


def _panel(axes: Axes, rows: Sequence[Row], measure: str) -> None:
    for label, color in zip(labels(rows), _COLORS * len(rows), strict=False):
        for actor, style in _STYLES.items():
            cells = values(rows, label, actor, measure)
            found = np.array([interval(cell) for cell in cells.values()])
            name = label if actor == "mean" else None
            axes.plot(list(cells), found[:, 0], style, color=color, marker="o", ms=4, label=name)
            if actor == "mean":
                axes.fill_between(list(cells), *found[:, 1:].T, color=color, alpha=0.12, lw=0)
    for name, value in references(rows, measure).items():
        axes.axhline(value, color="0.45", lw=0.9, ls="--")
        axes.annotate(
            f"{name} ",
            (1, value),
            xycoords=("axes fraction", "data"),
            ha="right",
            va="bottom",
            fontsize=8,
            color="0.35",
        )
    axes.set_xlabel("policy-gradient steps on the new task")
    axes.set_ylabel(f"{_NAMES[measure]} (95% interval)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
