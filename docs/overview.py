"""README's picture, from the measurements in docs/results: three methods on Push, one line each.

    python docs/overview.py

Success of the policy's mean on the held-out tasks after so many episodes of them, means over five
seeds, with the intervals of docs/results.md.
"""

from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from demokit.page import write_picture
from gmps.comparison.rows import BOUNDS, Row, read_rows, scores, select
from gmps.comparison.statistics import interval

HERE = Path(__file__).parent
ROLLOUTS = 20
LINES = {
    "gmps-explore": ("exploring, told the training goals (gmps-latent)", "#2f6fb0"),
    "gmps": ("GMPS", "#2a9d5c"),
    "imitation": ("MultiTask Imitation", "#d1495b"),
}


def measured(method: str) -> list[Row]:
    """What every seed of a method earned by its mean."""
    files = sorted((HERE / "results" / "push").glob(f"{method}-[0-9]/curves/*.csv.gz"))
    rows = [row for file in files for row in read_rows(file)]
    return select(rows, actor="mean", rollouts=ROLLOUTS, split="validation", step_scale=1.0)


def main() -> None:
    """Draw it."""
    figure, axes = plt.subplots(figsize=(6.4, 3.4), layout="constrained")
    for method, (name, color) in LINES.items():
        cells = scores(measured(method), "success")
        found = np.array([interval(cell, BOUNDS["success"]) for cell in cells.values()])
        axes.plot(list(cells), found[:, 0], color=color, marker="o", ms=4, label=name)
        axes.fill_between(list(cells), *found[:, 1:].T, color=color, alpha=0.12, lw=0)
    axes.set(ylim=(0, 1.03), xlabel="episodes of the new task", ylabel="success (95% interval)")
    axes.set_xticks(list(cells)[::2])
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower right", frameon=False)
    write_picture(figure, HERE / "pictures" / "overview.png", "mend that, and draw again.")


if __name__ == "__main__":
    main()
