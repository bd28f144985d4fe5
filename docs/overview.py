"""README's picture, from the measurements in docs/inference: success on new tasks of families.

    python docs/overview.py

Of the policy's mean on 20 held-out tasks after so many episodes of them, means over seeds with 95%
intervals.
"""

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from demokit.page import write_picture
from gmps.comparison.rows import BOUNDS
from gmps.comparison.statistics import interval
from inference_table import ARCHIVE, ORACLE, OURS, measured

FAMILIES = {
    "push": "Push",
    "door": "Door",
    "point-rotated": "Point, actions turned",
    "point-coded": "Point, contexts say nothing",
    "push-sparse": "Push, sparse",
    "point-corner": "Which corner? Sparse",
    "ant": "Ant",
    "sliders": "Six sliders",
}
LINES = {
    OURS: ("task inference", "#2f6fb0", "-"),
    "context-search": ("told training contexts: search", "#d1495b", "-"),
    "replay": ("replay the best demonstration", "#8a8a8a", "-"),
    ORACLE: ("told the new context", "#333333", ":"),
}


def draw(panel: Axes, family: str) -> None:
    """A family."""
    for method, (name, color, style) in LINES.items():
        scores = measured(ARCHIVE / family, method, "validation", "success")
        found = {num: interval(cell, BOUNDS["success"]) for num, cell in scores.items()}
        means = [each.mean for each in found.values()]
        panel.plot(list(found), means, style, color=color, label=name)
        if method != ORACLE:
            low, high = zip(*((each.low, each.high) for each in found.values()), strict=True)
            panel.fill_between(list(found), low, high, color=color, alpha=0.12, lw=0)
    panel.set(title=FAMILIES[family], ylim=(-0.02, 1.04))
    panel.set_xticks([num for num in (0, 1, 2, 3, 5, 10) if num <= max(found)])
    panel.title.set_fontsize(9)
    panel.grid(alpha=0.25)
    panel.spines[["top", "right"]].set_visible(False)


def main() -> None:
    """Draw them."""
    figure, panels = plt.subplots(2, 4, figsize=(9.6, 4.6), sharey=True, layout="constrained")
    for panel, family in zip(panels.flat, FAMILIES, strict=True):
        draw(panel, family)
    for panel in panels[:, 0]:
        panel.set_ylabel("success")
    for panel in panels[1]:
        panel.set_xlabel("episodes of the new task", fontsize=9)
    lines, names = panels[0, 0].get_legend_handles_labels()
    figure.legend(lines, names, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    write_picture(
        figure, ARCHIVE.parent / "pictures" / "overview.png", "mend that, and draw again."
    )


if __name__ == "__main__":
    main()
