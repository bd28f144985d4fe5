"""Comparison of runs: one long table, its means with intervals, and what people read of it."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import bootstrap

from demokit.types import FloatArray, Task
from gmps.evaluate import Curve
from gmps.learned import Learned

ACTORS = ("mean", "stochastic")
REFERENCE = "reference"
MEASURES = ("episode_return", "success")
AREA_STEPS = 3
_CONFIDENCE = 0.95
_RESAMPLES = 2000


@dataclass(frozen=True)
class Row:
    """What one policy earned in one task after some adaptation steps, a mean over episodes."""

    label: str
    seed: int
    task: str
    step: int
    actor: str
    episode_return: float
    success: float


class Interval(NamedTuple):
    """A mean with its 95% bootstrap interval."""

    mean: float
    low: float
    high: float


def label_of(folder: Path) -> str:
    """The method's name of a run folder: runs that differ in a trailing number are its seeds."""
    return re.sub(r"[-_]?\d+$", "", folder.resolve().name) or folder.resolve().name


def rows_of(label: str, learned: Learned, tasks: Sequence[Task], curve: Curve) -> list[Row]:
    """The curve of one run as rows."""
    rows = []
    for actor in ACTORS:
        outcome = getattr(curve, actor)
        for (step, i), value in np.ndenumerate(outcome.episode_return):
            success = float(outcome.success[step, i])
            rows.append(
                Row(label, learned.config.seed, tasks[i].id, step, actor, float(value), success)
            )
    return rows


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write the long table as CSV."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(Row.__dataclass_fields__))
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)


def read_rows(path: Path) -> list[Row]:
    """Read what `write_rows` wrote."""
    with path.open(newline="") as file:
        return [
            Row(
                row["label"],
                int(row["seed"]),
                row["task"],
                int(row["step"]),
                row["actor"],
                float(row["episode_return"]),
                float(row["success"]),
            )
            for row in csv.DictReader(file)
        ]


def labels(rows: Sequence[Row]) -> list[str]:
    """The methods in the order in which they appear; references are none."""
    return list(dict.fromkeys(row.label for row in rows if row.actor != REFERENCE))


def references(rows: Sequence[Row], measure: str) -> dict[str, float]:
    """Name of a reference -> its mean over the tasks; they do not adapt."""
    names = dict.fromkeys(row.label for row in rows if row.actor == REFERENCE)
    return {name: float(values(rows, name, REFERENCE, measure)[0].mean()) for name in names}


def values(rows: Sequence[Row], label: str, actor: str, measure: str) -> dict[int, FloatArray]:
    """Adaptation step -> the measure in every (seed, task) cell of a method."""
    cells: dict[int, list[float]] = {}
    for row in rows:
        if (row.label, row.actor) == (label, actor):
            cells.setdefault(row.step, []).append(getattr(row, measure))
    return {step: np.array(cell) for step, cell in sorted(cells.items())}


def interval(cells: FloatArray) -> Interval:
    """Mean over (seed, task) cells and its 95% percentile bootstrap interval."""
    mean = float(cells.mean())
    if np.ptp(cells) == 0:
        return Interval(mean, mean, mean)
    found = bootstrap(
        (cells,),
        np.mean,
        n_resamples=_RESAMPLES,
        confidence_level=_CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return Interval(mean, float(found.low), float(found.high))


def area(
    rows: Sequence[Row], label: str, actor: str = "mean", measure: str = "episode_return"
) -> float:
    """Area under a method's curve over the first three adaptation steps (trapezoids)."""
    return float(np.trapezoid(means(rows, label, actor, measure)[: AREA_STEPS + 1]))


def means(rows: Sequence[Row], label: str, actor: str, measure: str) -> list[float]:
    """A method's means over seeds and tasks after 0, 1, ... adaptation steps."""
    return [float(cell.mean()) for cell in values(rows, label, actor, measure).values()]


def summary(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """One entry per method, actor, measure and step: mean and interval over seeds and tasks."""
    return [
        {"label": label, "actor": actor, "measure": measure, "step": step}
        | interval(cell)._asdict()
        for label in labels(rows)
        for actor in ACTORS
        for measure in MEASURES
        for step, cell in values(rows, label, actor, measure).items()
    ]


def per_seed(rows: Sequence[Row], actor: str, measure: str) -> list[dict[str, Any]]:
    """One entry per method and seed: the mean over tasks after each step."""
    table = []
    for label in labels(rows):
        seeds = sorted({row.seed for row in rows if row.label == label})
        for seed in seeds:
            own = [row for row in rows if (row.label, row.seed) == (label, seed)]
            table.append({"label": label, "seed": seed, "means": means(own, label, actor, measure)})
    return table


def write_json(path: Path, rows: Sequence[Row], runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Write the summary and the runs behind it as JSON; returns what was written."""
    content = {
        "runs": runs,
        "area_under_return": {label: area(rows, label) for label in labels(rows)},
        "references": {measure: references(rows, measure) for measure in MEASURES},
        "summary": summary(rows),
    }
    path.write_text(json.dumps(content, indent=2) + "\n")
    return content


def markdown(title: str, rows: Sequence[Row], runs: list[dict[str, Any]]) -> str:
    """The comparison as a page: means with intervals, then every seed, then the budget."""
    parts = [f"## {title}\n"]
    for measure, digits in (("success", 2), ("episode_return", 1)):
        for actor in ACTORS:
            name = measure.replace("episode_", "")
            parts.append(f"{name.capitalize()} of the {actor} policy, by adaptation steps:\n")
            parts.append(_mean_table(rows, actor, measure, digits))
    if references(rows, "success"):
        parts.append("For reference, an expert that knows the task, and random actions:\n")
        parts.append(_reference_table(rows))
    parts.append(f"Area under the return curve of the mean policy, steps 0 to {AREA_STEPS}:\n")
    parts.append(_table(["method", "area"], [[la, f"{area(rows, la):.1f}"] for la in labels(rows)]))
    parts.append("Per seed, success of the mean policy:\n")
    parts.append(_seed_table(rows, "success", 2))
    parts.append("Per seed, return of the mean policy:\n")
    parts.append(_seed_table(rows, "episode_return", 1))
    parts.append("Runs and their budget (environment steps in training, all included):\n")
    parts.append(_table(list(runs[0]), [[str(value) for value in run.values()] for run in runs]))
    return "\n".join(parts)


def mean_cells(rows: Sequence[Row], label: str, actor: str, measure: str, digits: int) -> list[str]:
    """A method's means with intervals after each step, as text."""
    found = (interval(cell) for cell in values(rows, label, actor, measure).values())
    return [f"{m:.{digits}f} [{lo:.{digits}f}, {hi:.{digits}f}]" for m, lo, hi in found]


def _mean_table(rows: Sequence[Row], actor: str, measure: str, digits: int) -> str:
    body = [[la, *mean_cells(rows, la, actor, measure, digits)] for la in labels(rows)]
    return _table(["method", *map(str, range(len(body[0]) - 1))], body)


def _reference_table(rows: Sequence[Row]) -> str:
    success, returns = references(rows, "success"), references(rows, "episode_return")
    body = [[name, f"{success[name]:.2f}", f"{returns[name]:.1f}"] for name in success]
    return _table(["reference", "success", "return"], body)


def _seed_table(rows: Sequence[Row], measure: str, digits: int) -> str:
    body = [
        [entry["label"], str(entry["seed"]), *(f"{m:.{digits}f}" for m in entry["means"])]
        for entry in per_seed(rows, "mean", measure)
    ]
    return _table(["method", "seed", *map(str, range(len(body[0]) - 2))], body)


def _table(header: list[str], body: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
