"""Pictures of a comparison; they read its CSV files and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import ceil
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.ticker import EngFormatter, LogLocator

from demokit.figure import Figure
from demokit.page import write_picture
from demokit.types import FloatArray
from demokit.writing import AS_IT_WAS
from gmps.comparison.episodes import counted, episodes_per_step, shared, shown
from gmps.comparison.learning import Monitored, by_seed, mean_curve, read_learning
from gmps.comparison.report import headline, milestones
from gmps.comparison.rows import (
    BOUNDS,
    BY_ROLLOUTS,
    BY_STEP_SCALE,
    MAIN,
    MEASURES,
    REFERENCE,
    Row,
    TaskContext,
    curve,
    labels,
    read_contexts,
    read_rows,
    references,
    scores,
    select,
    splits,
)
from gmps.comparison.statistics import Bounds, interval

DPI = 140
COLORS = (
    *("#1b6ca8", "#d1495b", "#3c8d5a", "#8d5fb4", "#e08e0b"),
    *("#16a3ab", "#d877b5", "#7a4a21", "#94990f", "#222222"),
)
_STYLES = {"mean": "-", "stochastic": ":"}
_NAMES = {"episode_return": "return", "success": "success rate"}
_SUCCESS_LIMITS = -0.04, 1.06
_MAP = "viridis"
_MANY_TIMES = 20
LEARNING_CURVES = "learning"
ABOUT_LEARNING = (
    "After adaptation to tasks of the training distribution that neither training nor evaluation "
    "sees, against the environment steps that a method has needed so far: its demonstrations and "
    "the training of the experts behind them, which shift its curve to the right, and "
    "meta-training. Thin lines are seeds, thick ones their means; a method that gets its step size "
    "only when training has ended is a point."
)
_WIDELY = 3
_LONG_NAME = 22
_ROOM = 0.06


def pictures(table: Path, contexts: Path, learning: Path | None = None) -> dict[str, Figure]:
    """Every picture that the CSV files give, by name; "evaluation" is the main one.

    Args:
        table: the CSV that `rows.write_rows` wrote.
        contexts: the CSV that `rows.write_contexts` wrote.
        learning: the CSV that `write_learning` wrote, where there is one.
    """
    rows, where = read_rows(table), read_contexts(contexts)
    drawn = {"evaluation": adaptation(rows)}
    if learning and (points := read_learning(learning)):
        drawn[LEARNING_CURVES] = learning_curves(points, dict(_colored(rows)))
    if select(rows, sweep=BY_ROLLOUTS):
        drawn["sweep-rollouts"] = over_rollouts(rows)
    if select(rows, sweep=BY_STEP_SCALE):
        drawn["sweep-step-size"] = over_step_sizes(rows)
    for split in splits(rows):
        drawn[f"map-{split}"] = task_map(rows, where, split)
        drawn[f"tasks-{split}"] = small_multiples(rows, split)
    return drawn


def save(figures: dict[str, Figure], folder: Path) -> dict[str, Path]:
    """Write every picture to `folder`, NAME.png; returns the files by name."""
    files = {name: folder / f"{name}.png" for name in figures}
    for name, file in files.items():
        write_picture(figures[name], file, AS_IT_WAS, dpi=DPI)
    return files


def adaptation(rows: Sequence[Row]) -> Figure:
    """Success and return against episodes on the new task (as Fig. 6 of the GMPS paper).

    Solid lines act by the policy's mean, dotted ones sample from it; a marker is an adaptation
    step. A row of panels per split.
    """
    note = "solid: acts by the policy's mean; dotted: samples from it; a marker: an adaptation step"
    return _grid(rows, _adaptation_panel, note)


def over_rollouts(rows: Sequence[Row]) -> Figure:
    """The same for the smallest and the largest K of a sweep, and for the main curve's."""
    note = "acts by the policy's mean; K episodes a step; a marker: an adaptation step"
    return _grid(rows, _rollouts_panel, note)


def over_step_sizes(rows: Sequence[Row]) -> Figure:
    """Success and return against the factor on the step sizes, after 1, 2, 3 steps' episodes."""
    return _grid(rows, _step_sizes_panel, "acts by the policy's mean")


def _grid(
    rows: Sequence[Row], draw: Callable[[Axes, Sequence[Row], str, str], None], note: str
) -> Figure:
    every = splits(rows)
    figure = Figure(figsize=(10, 0.7 + 3.9 * len(every)), layout="constrained")
    panels = figure.subplots(len(every), len(MEASURES), squeeze=False)
    for line, split in zip(panels, every, strict=True):
        for axes, measure in zip(line, MEASURES, strict=True):
            draw(axes, rows, measure, split)
            _reference_lines(axes, rows, measure, split)
            _finish(axes, measure, split if len(every) > 1 else "")
    handles, names = panels[0, 0].get_legend_handles_labels()
    figure.legend(
        handles,
        names,
        loc="outside lower center",
        ncols=3 if any(len(name) > _LONG_NAME for name in names) else 4,
        frameon=False,
        title=note,
        title_fontsize="small",
    )
    return figure


def _finish(axes: Axes, measure: str, title: str) -> None:
    axes.set_ylabel(f"{_NAMES[measure]} (95% interval)")
    axes.set_title(title)
    if measure == "success":
        axes.set_ylim(*_SUCCESS_LIMITS)
    _plain(axes)


def _plain(axes: Axes) -> None:
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _adaptation_panel(axes: Axes, rows: Sequence[Row], measure: str, split: str) -> None:
    for label, color in _colored(rows):
        for actor, style in _STYLES.items():
            cells = curve(rows, label, actor, measure, split=split)
            name, band = (label, 0.12) if actor == "mean" else (None, 0.0)
            _line(axes, cells, style, color, name, band, BOUNDS[measure])
    ticks = _episode_axis(axes, select(rows, split=split, sweep=MAIN))
    if (per_step := shared(episodes_per_step(rows)) or 1) > 1:
        _label_steps(axes, ticks, per_step)


def _rollouts_panel(axes: Axes, rows: Sequence[Row], measure: str, split: str) -> None:
    own = select(rows, split=split, actor="mean")
    swept_over = sorted({row.rollouts for row in own if row.sweep == BY_ROLLOUTS})
    for label, color in _colored(rows):
        main = select(own, label=label, sweep=MAIN)
        lines = [(main, "-", 0.12)]
        for rollouts, style in zip(swept_over[:1] + swept_over[-1:], ("--", ":"), strict=False):
            chosen = select(own, label=label, sweep=BY_ROLLOUTS, rollouts=rollouts)
            if chosen and rollouts != main[0].rollouts:
                lines.append((chosen, style, 0.0))
        for chosen, style, band in lines:
            name = f"{label}, K = {chosen[0].rollouts}"
            _line(axes, scores(chosen, measure), style, color, name, band, BOUNDS[measure])
    _episode_axis(axes, [row for row in own if row.sweep in (MAIN, BY_ROLLOUTS)])


def _step_sizes_panel(axes: Axes, rows: Sequence[Row], measure: str, split: str) -> None:
    own = select(rows, split=split, sweep=BY_STEP_SCALE, actor="mean")
    values = sorted({row.step_scale for row in own})
    for label, color in _colored(own):
        for step, style in zip((1, 2, 3), ("-", "--", ":"), strict=True):
            at_step = select(own, label=label, step=step)
            found = {
                value: next(iter(scores(chosen, measure).values()))
                for value in values
                if (chosen := select(at_step, step_scale=value))
            }
            if len(found) == len(values):
                name = f"{label}, {counted(at_step[0].episodes)}"
                band = 0.12 if step == 1 else 0.0
                _line(axes, found, style, color, name, band, BOUNDS[measure])
    axes.set_xscale("log")
    axes.set_xticks(values, [f"{value:g}" for value in values])
    axes.minorticks_off()
    axes.set_xlabel("factor on the run's step sizes")


def _episode_axis(axes: Axes, rows: Sequence[Row]) -> list[int]:
    """Ticks where tables have columns; where steps differ widely, few episodes have their room."""
    counts = {row.rollouts for row in rows if row.actor != REFERENCE}
    if max(counts) >= _WIDELY * min(counts):
        axes.set_xscale("symlog", linthresh=min(counts))
    ticks = _apart(axes, shown(rows))
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("episodes on the new task")
    return ticks


def _apart(axes: Axes, ticks: Sequence[int]) -> list[int]:
    """The ticks whose labels have room beside the one before, in a panel that has its scale."""
    places = axes.transScale.transform([(tick, 1) for tick in ticks])[:, 0]
    kept = [0]
    for i in range(1, len(ticks)):
        if places[i] - places[kept[-1]] >= _ROOM * (places[-1] - places[0]):
            kept.append(i)
    return [ticks[i] for i in kept]


def _label_steps(axes: Axes, ticks: Sequence[int], per_step: int) -> None:
    """Adaptation steps as a second label of the axis."""
    above = axes.secondary_xaxis("top")
    above.set_xticks(ticks, [str(tick // per_step) for tick in ticks])
    above.set_xlabel("adaptation steps", fontsize=8, color="0.4")
    above.tick_params(labelsize=8, labelcolor="0.4", color="0.7")
    above.spines["top"].set_visible(False)


def _line(
    axes: Axes,
    cells: Mapping[float, FloatArray] | Mapping[int, FloatArray],
    style: str,
    color: str,
    name: str | None,
    band: float,
    bounds: Bounds,
) -> None:
    """Means of scores (R, M) at each x, with the band of their intervals."""
    x = list(cells)
    found = np.array([interval(cell, bounds) for cell in cells.values()])
    axes.plot(x, found[:, 0], style, color=color, marker="o", ms=4, label=name)
    if band:
        axes.fill_between(x, *found[:, 1:].T, color=color, alpha=band, lw=0)


def _colored(rows: Sequence[Row]) -> Iterator[tuple[str, str]]:
    for i, label in enumerate(labels(rows)):
        yield label, COLORS[i % len(COLORS)]


def _reference_lines(axes: Axes, rows: Sequence[Row], measure: str, split: str) -> None:
    for name, values in references(rows, measure, split=split).items():
        axes.axhline(float(values.mean()), color="0.45", lw=0.9, ls="--")
        axes.annotate(
            f"{name} ",
            (1, float(values.mean())),
            xycoords=("axes fraction", "data"),
            ha="right",
            va="bottom",
            fontsize=8,
            color="0.35",
        )


def learning_curves(points: Sequence[Monitored], colors: Mapping[str, str]) -> Figure:
    """Success and return of monitor tasks after adaptation, against what the method needed so far.

    Seeds are thin lines, means over them thick ones.
    """
    figure = Figure(figsize=(10, 4.4), layout="constrained")
    panels = figure.subplots(1, len(MEASURES))
    steps = [point.env_steps for point in points]
    for axes, measure in zip(panels, MEASURES, strict=True):
        for label, color in colors.items():
            if curves := by_seed(points, label, measure):
                _learning_lines(axes, curves, label, color)
        axes.set_xlabel("environment steps that learning needed so far")
        _finish(axes, measure, "")
        axes.set_ylabel(f"{_NAMES[measure]} after adaptation")
        if min(steps) > 0 and max(steps) > _MANY_TIMES * min(steps):
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.minorticks_off()
        else:
            axes.set_xlim(left=0)
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    handles = panels[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=4, frameon=False)
    return figure


def _learning_lines(axes: Axes, curves: Sequence[FloatArray], label: str, color: str) -> None:
    for steps, values in curves:
        axes.plot(steps, values, color=color, lw=0.7, alpha=0.5, marker=".", ms=3)
    steps, values = mean_curve(curves)
    marker = "o" if len(steps) == 1 else ""
    axes.plot(steps, values, color=color, lw=2.2, marker=marker, label=label)


def task_map(rows: Sequence[Row], contexts: Sequence[TaskContext], split: str) -> Figure:
    """Every task where its goal is, coloured by success (or return) at the `milestones`.

    Families without a marker in the world show the first component of the context instead.
    """
    own = [each for each in contexts if each.split == split]
    measure, every = headline(rows, split), labels(rows)
    found = {la: curve(rows, la, "mean", measure, split=split) for la in every}
    counts = milestones(rows, split)
    x, y, names = _coordinates(own)
    values = np.array([[found[la][num].mean(0) for num in counts[la]] for la in every])
    scale = Normalize(0, 1) if measure == "success" else Normalize(values.min(), values.max())
    columns = values.shape[1]
    figure = Figure(figsize=(3.1 * columns + 1, 2.7 * len(every) + 0.4), layout="constrained")
    panels = figure.subplots(len(every), columns, squeeze=False, sharex=True, sharey=True)
    for line, label, of_label in zip(panels, every, values, strict=True):
        for axes, num, colors in zip(line, counts[label], of_label, strict=True):
            axes.scatter(x, y, c=colors, cmap=_MAP, norm=scale, s=70, edgecolors="0.3", lw=0.6)
            axes.set_title(f"{label}, {counted(num)}", fontsize=9)
            _plain(axes)
    for axes in panels[-1]:
        axes.set_xlabel(names[0])
    for axes in panels[:, 0]:
        axes.set_ylabel(names[1])
    bar = figure.colorbar(ScalarMappable(scale, _MAP), ax=panels, shrink=0.8)
    bar.set_label(_NAMES[measure])
    return figure


def _coordinates(contexts: Sequence[TaskContext]) -> tuple[FloatArray, FloatArray, tuple[str, str]]:
    """Where to draw the tasks, and what the axes are called."""
    goals = np.array([each.goal_w_m for each in contexts])
    if goals.size and (len(goals) == 1 or np.ptp(goals, axis=0).any()):  # not one for all
        return goals[:, 0], goals[:, 1], ("goal x, m", "goal y, m")
    values = np.array([list(each.context.values()) for each in contexts])
    names = list(contexts[0].context)
    if values.shape[1] > 1:
        return values[:, 0], values[:, 1], (names[0], names[1])
    return values[:, 0], np.zeros(len(values)), (names[0], "")


def small_multiples(rows: Sequence[Row], split: str) -> Figure:
    """The return in every task against episodes: a small panel each, means over runs."""
    found = {
        label: curve(rows, label, "mean", "episode_return", split=split) for label in labels(rows)
    }
    main = select(rows, split=split, sweep=MAIN)
    tasks = list(dict.fromkeys(row.task for row in main))
    expert = references(rows, "episode_return", split=split).get("expert")
    columns = min(5, len(tasks))
    lines = ceil(len(tasks) / columns)
    figure = Figure(figsize=(10, 1.5 * lines + 0.8), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True).ravel()
    for axes in panels[len(tasks) :]:
        axes.set_visible(False)
    for i, (axes, task) in enumerate(zip(panels, tasks, strict=False)):
        for label, color in _colored(rows):
            means = [cells[:, i].mean() for cells in found[label].values()]
            axes.plot(list(found[label]), means, color=color, lw=1.4, label=label)
        if expert is not None:
            axes.axhline(expert[i], color="0.45", lw=0.8, ls="--", label="expert")
        axes.set_title(task.split("/")[-1], fontsize=8, pad=2)
        _episode_axis(axes, main)
        axes.set_xlabel("")
        axes.tick_params(labelsize=7)
        _plain(axes)
    handles = panels[0].get_legend_handles_labels()
    figure.legend(
        *handles,
        loc="outside lower center",
        ncols=5,
        frameon=False,
        title="return of the mean policy against episodes on the new task, a panel per task",
        title_fontsize="small",
    )
    return figure
