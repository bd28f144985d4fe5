"""How success grows with training tasks, from the measurements in docs/inference_tasks.

    python docs/training_tasks.py

Draws docs/pictures/training_tasks.png and prints the table of docs/inference.md: success of the
policy's mean on 20 validation tasks, with 95% intervals.
"""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from demokit.page import write_picture
from gmps.comparison.rows import BOUNDS, Row, read_rows, scores, select
from gmps.comparison.statistics import Interval, interval

HERE = Path(__file__).parent
ARCHIVE = HERE / "inference_tasks"
FAMILIES = {"point": "Point", "arm-torque": "arm, torques, sparse", "sliders": "six sliders"}
AFTER = {1: "#b9d3ea", 3: "#7fb0dc", 5: "#2f6fb0", 10: "#123a63"}


def measured(comparison: Path) -> dict[int, Interval]:
    """Episodes -> success, over seeds and tasks."""
    files = sorted(comparison.glob("task-inference-*/curves/*.csv.gz"))
    rows: list[Row] = [row for file in files for row in read_rows(file)]
    cells = scores(select(rows, actor="mean", split="validation"), "success")
    return {num: interval(cell, BOUNDS["success"]) for num, cell in cells.items()}


def sizes(family: str) -> dict[int, dict[int, Interval]]:
    """Number of training tasks -> episodes -> success."""
    found = {int(path.name.rpartition("-")[2]): path for path in ARCHIVE.glob(f"{family}-[0-9]*")}
    return {num: measured(found[num]) for num in sorted(found)}


def table(name: Path) -> str:
    """A row of the table."""
    found = measured(name)
    said = (f"{found[n].mean:.2f} [{found[n].low:.2f}, {found[n].high:.2f}]" for n in AFTER)
    return f"| {name.name} | {' | '.join(said)} |"


def main() -> None:
    """Draw and print."""
    figure, axes = plt.subplots(1, 3, figsize=(8.4, 2.9), sharey=True, layout="constrained")
    for panel, (family, title) in zip(axes, FAMILIES.items(), strict=True):
        found = sizes(family)
        for episodes, color in AFTER.items():
            every = [each[episodes] for each in found.values()]
            panel.plot(
                list(found), [e.mean for e in every], "o-", color=color, ms=4, label=episodes
            )
            low, high = zip(*((e.low, e.high) for e in every), strict=True)
            panel.fill_between(list(found), low, high, color=color, alpha=0.12, lw=0)
        panel.set(xscale="log", xlabel="training tasks", title=title, ylim=(0, 1.03))
        panel.set_xticks(list(found), [str(num) for num in found])
        panel.minorticks_off()
        panel.grid(alpha=0.25)
        panel.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("success (95% interval)")
    axes[-1].legend(title="episodes", frameon=False, loc="upper left")
    write_picture(figure, HERE / "pictures" / "training_tasks.png", "mend that, and draw again.")
    print("\n".join(table(path) for path in sorted(ARCHIVE.iterdir())))


if __name__ == "__main__":
    main()
