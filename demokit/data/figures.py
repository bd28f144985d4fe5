"""Pictures of what a dataset contains: the logic behind `demokit inspect --plot`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from demokit.data.layout import EpisodeRecord
from demokit.data.store import Dataset
from demokit.data.summary import action_labels
from demokit.figure import Figure
from demokit.page import write_picture
from demokit.random import stream
from demokit.types import Array, FloatArray

_SOLVED, _FAILED, _INK = "#1b6ca8", "#d1495b", "#444444"
_LINES = ("#1b6ca8", "#d1495b", "#3c8d5a", "#8d5fb4", "#b07d2b", "#2a9d8f", "#e07a5f", "#555555")
_BINS = 41
_MOST_NAMES = 25


@dataclass(frozen=True, eq=False)
class Survey:
    """What the pictures show of a dataset.

    Attributes:
        records: its episodes.
        edges, counts: of the histograms of action components, (B+1,) and (A, B).
        ends: where the object of each task ended, (E, W); None where that was not recorded.
        end_label: the term that `ends` holds.
        context_labels: name and unit of each component of the context.
        action_labels: what each component of the action means.
    """

    records: tuple[EpisodeRecord, ...]
    edges: FloatArray
    counts: Array
    ends: FloatArray | None
    end_label: str
    context_labels: tuple[str, ...]
    action_labels: tuple[str, ...]

    @property
    def contexts(self) -> FloatArray:
        """(E, C)."""
        return np.array([record.task.context for record in self.records])


def survey(dataset: Dataset) -> Survey:
    """Read what the pictures need, one episode at a time; raises DemokitError."""
    term, contexts, means = _of_family(dataset)
    width = dataset.metadata.action_space.shape[0]
    edges = np.linspace(-1, 1, _BINS + 1)
    counts = np.zeros((width, _BINS), np.int64)
    ends: list[Array] = []
    with dataset.require_episodes():
        for index, record in enumerate(dataset.episodes):
            actions = dataset.window(index, 0, record.length, ["actions"])["actions"]
            counts += np.stack([np.histogram(a, edges)[0] for a in actions.T])
            ends += _end(dataset, index, record.length, term)
        records = dataset.episodes
    found = np.stack(ends) if len(ends) == len(records) else None
    return Survey(records, edges, counts, found, term, contexts, means)


def _of_family(dataset: Dataset) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """The term of what the tasks move, and labels of the components of context and action."""
    from demokit.envs import family_names, make_family

    name = dataset.metadata.family
    if name not in family_names():
        width = len(dataset.metadata.tasks[0].context)
        contexts = tuple(f"context {i}" for i in range(width))
        return "", contexts, action_labels(dataset.metadata)
    family = make_family(name)
    pairs = zip(family.context.names, family.context.units, strict=True)
    labels = tuple(f"{name} ({unit})" for name, unit in pairs)
    return family.object_term, labels, action_labels(dataset.metadata)


def _end(dataset: Dataset, index: int, length: int, term: str) -> list[Array]:
    """The last row of a privileged term, if it was recorded."""
    name = f"privileged/{term}"
    if name not in dataset.window(index, 0, 0):
        return []
    row: Array = dataset.window(index, length, length + 1, [name])[name][0]
    return [row] if row.ndim == 1 else []


def plot(dataset: Dataset, path: Path) -> None:
    """Write the picture of a dataset: returns, lengths, actions, goals and end positions.

    Args:
        dataset: any dataset with episodes.
        path: NAME.png, or any ending that matplotlib writes.

    Raises:
        DemokitError: no episodes, damage, or a picture that cannot be written.
    """
    found = survey(dataset)
    figure = Figure(figsize=(12, 8), layout="constrained")
    panels = figure.subplots(2, 2)
    for draw, axes in zip(PANELS, panels.flat, strict=True):
        draw(axes, found)
    about = dataset.metadata
    figure.suptitle(f"{dataset.path.stem}: {len(found.records)} episodes of {about.family}")
    write_picture(figure, path, "choose another place with --plot.", dpi=130)


def draw_returns(axes: Axes, found: Survey) -> None:
    """The return of every episode, by task."""
    _by_task(axes, found, np.array([record.episode_return for record in found.records]))
    axes.set_title("Return by task")
    axes.set_ylabel("undiscounted return")


def draw_lengths(axes: Axes, found: Survey) -> None:
    """The length of every episode, by task."""
    _by_task(axes, found, np.array([record.length for record in found.records]))
    axes.set_title("Length by task")
    axes.set_ylabel("steps")
    axes.set_ylim(bottom=0)


def draw_actions(axes: Axes, found: Survey) -> None:
    """The distribution of each action component."""
    share = found.counts / np.maximum(found.counts.sum(1, keepdims=True), 1)
    for index, row in enumerate(share):
        color = _LINES[index % len(_LINES)]
        axes.stairs(row, found.edges, color=color, lw=1.6, label=found.action_labels[index])
    axes.set_title("Executed actions")
    axes.set_xlabel("action")
    axes.set_ylabel("share of steps")
    axes.legend(frameon=False, fontsize=8, ncols=1 + len(share) // 5)
    _plain(axes)


def draw_goals(axes: Axes, found: Survey) -> None:
    """Goals and end positions in the plane; targets against ends where the context is a number."""
    colors = _colors(found)
    contexts, ends = found.contexts, found.ends
    axes.set_title("Goals and end positions")
    if contexts.shape[1] == 1:
        _draw_targets(axes, found, colors)
    else:
        axes.scatter(
            contexts[:, 0], contexts[:, 1], marker="x", s=60, color=_INK, lw=1.5, label="goal"
        )
        if ends is not None and ends.shape[1] >= 2:
            axes.scatter(
                ends[:, 0], ends[:, 1], s=14, color=colors, alpha=0.7, label=found.end_label
            )
            for goal, end in zip(contexts, ends, strict=True):
                axes.plot(*np.stack([goal[:2], end[:2]]).T, color="0.8", lw=0.7, zorder=0)
        axes.set_xlabel(found.context_labels[0])
        axes.set_ylabel(found.context_labels[1])
        axes.set_aspect("equal", adjustable="datalim")
    axes.legend(frameon=False, fontsize=8)
    _plain(axes)


PANELS = (draw_returns, draw_goals, draw_lengths, draw_actions)


def _draw_targets(axes: Axes, found: Survey, colors: list[str]) -> None:
    targets = found.contexts[:, 0]
    if found.ends is None:
        axes.hist(targets, color=_SOLVED, label=found.context_labels[0])
    else:
        span = [targets.min(), targets.max()]
        axes.plot(span, span, color="0.7", lw=1, label="equal")
        axes.scatter(targets, found.ends[:, 0], s=14, color=colors, alpha=0.7)
        axes.set_ylabel(f"{found.end_label} at the end")
    axes.set_xlabel(found.context_labels[0])


def _by_task(axes: Axes, found: Survey, values: FloatArray) -> None:
    """One column of dots per task: blue where the episode succeeded, red where it failed."""
    tasks = sorted({record.task.id for record in found.records})
    columns = {task: index for index, task in enumerate(tasks)}
    column = np.array([columns[record.task.id] for record in found.records], float)
    column += stream(0, "column").uniform(-0.18, 0.18, len(column))
    solved = np.array([record.success for record in found.records])
    for is_solved, color, label in ((True, _SOLVED, "success"), (False, _FAILED, "failure")):
        rows = solved == is_solved
        if rows.any():
            axes.scatter(column[rows], values[rows], s=14, color=color, alpha=0.75, label=label)
    step = 1 + len(tasks) // _MOST_NAMES
    names = [task.rsplit("/", 1)[-1] for task in tasks]
    axes.set_xticks(range(0, len(tasks), step), names[::step], fontsize=8)
    axes.set_xlabel(f"task of {tasks[0].rsplit('/', 1)[0]}")
    axes.legend(frameon=False, fontsize=8)
    _plain(axes)


def _colors(found: Survey) -> list[str]:
    return [_SOLVED if record.success else _FAILED for record in found.records]


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.2, lw=0.6)
