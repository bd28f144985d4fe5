"""What policies earned, as one long table; whatever people read is made from its CSV."""

from __future__ import annotations

import csv
import gzip
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from math import isfinite
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from demokit.envs.family import Family
from demokit.reading import check_regular
from demokit.types import FloatArray, Task
from demokit.writing import csv_text, write_whole
from gmps.evaluation import Curve

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

ACTORS = ("mean", "stochastic")
REFERENCE = "reference"
MEASURES = ("success", "episode_return")
BOUNDS = {"success": (0.0, 1.0), "episode_return": None}
MAIN, BY_ROLLOUTS, BY_STEP_SCALE = "main", "rollouts", "step scale"
TOLD = " (told the context)"
"""Behind the name of a method that is told the new task, wherever it is shown; see `IsTold`."""
_COMMENT = "# "
_MOST_LINE, _MOST_UNPACKED = 2**20, 2**26  # characters
_TYPES = {"str": str, "int": int, "float": float}
Made = TypeVar("Made", bound="DataclassInstance")


class Variant(NamedTuple):
    """How a run is fine-tuned.

    `sweep` says which question the variant answers: "main", or what it varies; `rollouts` is K,
    episodes per task and adaptation step; `step_scale` multiplies the run's own step sizes.
    """

    sweep: str
    rollouts: int
    step_scale: float = 1.0


@dataclass(frozen=True)
class Row:
    """What one policy earned in one task after some adaptation steps, a mean over episodes."""

    label: str
    seed: int
    split: str
    task: str
    sweep: str
    rollouts: int
    step_scale: float
    step: int
    actor: str
    episode_return: float
    success: float

    @property
    def episodes(self) -> int:
        """Of the task, that adaptation has learned from: the axis of every comparison."""
        return self.step * self.rollouts


@dataclass(frozen=True)
class TaskContext:
    """Where a task is: its split, its context by name, and its goal's marker in the world.

    `goal_w_m` (x, y) is empty where a family shows no marker called "goal".
    """

    task: str
    split: str
    context: dict[str, float]
    goal_w_m: tuple[float, ...]


def label_of(path: Path) -> str:
    """The method's name of a run folder, or of a checkpoint in one.

    Runs that differ in a last number, after - or _, are its seeds.
    """
    folder = path.resolve()
    name = folder.parent.name if folder.is_file() else folder.name
    return re.sub(r"[-_]\d+$", "", name) or name


def rows_of(
    label: str, seed: int, variant: Variant, tasks: Sequence[Task], curve: Curve
) -> list[Row]:
    """The curve of one run as rows."""
    rows = []
    for actor in ACTORS:
        outcome = getattr(curve, actor)
        for (step, i), value in np.ndenumerate(outcome.episode_return):
            success = float(outcome.success[step, i])
            where = label, seed, tasks[i].split, tasks[i].id, *variant, step, actor
            rows.append(Row(*where, float(value), success))
    return rows


def check_whole(
    rows: Sequence[Row], seed: int, variant: Variant, tasks: Sequence[Task], num_steps: int
) -> None:
    """Check that they are a whole curve, as `rows_of` gives it; its label and sweep are free.

    Raises:
        ValueError: a row is missing, there twice or another's, or holds no such numbers.
    """
    of_step = [(step, task) for step in range(num_steps + 1) for task in tasks]
    found = [
        (row.seed, row.split, row.task, row.rollouts, row.step_scale, row.step, row.actor)
        for row in rows
    ]
    if found != [
        (seed, task.split, task.id, variant.rollouts, variant.step_scale, step, actor)
        for actor in ACTORS
        for step, task in of_step
    ]:
        raise ValueError("it is another curve, or not whole")
    if not all(0 <= row.success <= 1 and isfinite(row.episode_return) for row in rows):
        raise ValueError("its numbers are none that were measured")


def context_of(family: Family, task: Task) -> TaskContext:
    """Where a task of the family is."""
    names = [*family.context.names, *(family.dynamics.names if family.dynamics else ())]
    context = np.array(task.context)
    marker = family.goal_marker(context).get("goal", ())
    goal = tuple(float(value) for value in marker[:2])
    return TaskContext(task.id, task.split, dict(zip(names, task.context, strict=False)), goal)


def write_rows(path: Path, rows: Iterable[Row], about: Mapping[str, Any] | None = None) -> None:
    """Write the long table as CSV, after a comment that says how it was made, if anything does."""
    write_as(path, Row, rows, about)


def read_rows(path: Path) -> list[Row]:
    """Read the rows that `write_rows` wrote."""
    return read_as(path, Row)


def write_as(
    path: Path, kind: type[Made], rows: Iterable[Made], about: Mapping[str, Any] | None = None
) -> None:
    """The same for rows of any dataclass of strings and numbers."""
    comment = "" if about is None else f"{_COMMENT}{json.dumps(about)}\n"
    _write(path, [field.name for field in fields(kind)], map(asdict, rows), comment)


def read_as(path: Path, kind: type[Made]) -> list[Made]:
    """Read the rows that `write_as` wrote; raises OSError, or as `MALFORMED` content does."""
    return [
        kind(**{field.name: _TYPES[str(field.type)](row[field.name]) for field in fields(kind)})
        for row in csv.DictReader(line for line in _lines(path) if not line.startswith(_COMMENT))
    ]


def read_about(path: Path) -> dict[str, Any]:
    """What `write_rows` was told of how the table was made; empty where it was told nothing."""
    first = next(_lines(path), "")
    found = json.loads(first.removeprefix(_COMMENT)) if first.startswith(_COMMENT) else {}
    return found if isinstance(found, dict) else {}


def write_contexts(path: Path, contexts: Sequence[TaskContext]) -> None:
    """Write where the tasks are, as CSV."""
    rows = [
        {"task": each.task, "split": each.split}
        | {f"context {name}": value for name, value in each.context.items()}
        | {f"goal_{axis}_w_m": value for axis, value in zip("xy", each.goal_w_m, strict=False)}
        for each in contexts
    ]
    _write(path, list(rows[0]), rows)


def read_contexts(path: Path) -> list[TaskContext]:
    """Read what `write_contexts` wrote."""
    return [
        TaskContext(
            row["task"],
            row["split"],
            {
                name.removeprefix("context "): float(value)
                for name, value in row.items()
                if name.startswith("context ") and value
            },
            tuple(float(row[n]) for n in ("goal_x_w_m", "goal_y_w_m") if n in row),
        )
        for row in csv.DictReader(_lines(path))
    ]


def _lines(path: Path) -> Iterator[str]:
    """The lines of a table; raises ValueError where a compressed one is longer than any is."""
    check_regular(path)
    is_packed = ".gz" in path.suffixes
    left = _MOST_UNPACKED if is_packed else path.stat().st_size
    with gzip.open(path, "rt", newline="") if is_packed else path.open(newline="") as file:
        while line := file.readline(_MOST_LINE):
            left -= len(line)
            if left < 0 or len(line) == _MOST_LINE:
                raise ValueError("it is too long")
            yield line


def _write(path: Path, names: list[str], rows: Iterable[dict[str, Any]], comment: str = "") -> None:
    """Write CSV; with .gz in the name it is compressed, to the same bytes each time."""
    data = (comment + csv_text(names, rows)).encode()
    write_whole(path, gzip.compress(data, mtime=0) if ".gz" in path.suffixes else data)


def select(rows: Iterable[Row], **wanted: object) -> list[Row]:
    """The rows whose columns have these values, of one column at least."""
    columns, values = attrgetter(*wanted), tuple(wanted.values())
    asked = values if len(values) > 1 else values[0]
    return [row for row in rows if columns(row) == asked]


def labels(rows: Iterable[Row]) -> list[str]:
    """The methods in the order in which they appear; references are none."""
    return list(dict.fromkeys(row.label for row in rows if row.actor != REFERENCE))


def is_told(label: str) -> bool:
    """Whether a method is told the new task."""
    return label.endswith(TOLD)


def splits(rows: Iterable[Row]) -> list[str]:
    """The splits in the order in which they appear."""
    return list(dict.fromkeys(row.split for row in rows))


def scores(rows: Iterable[Row], measure: str) -> dict[int, FloatArray]:
    """Episodes on the new task -> the measure of every run in every task, (runs, tasks).

    The rows are those of one method, actor, split and variant.
    """
    cells: dict[int, dict[str, list[float]]] = {}
    for row in rows:
        cells.setdefault(row.episodes, {}).setdefault(row.task, []).append(getattr(row, measure))
    return {spent: np.array(list(tasks.values())).T for spent, tasks in sorted(cells.items())}


def curve(
    rows: Iterable[Row],
    label: str,
    actor: str,
    measure: str,
    *,
    split: str,
    sweep: str = MAIN,
    **wanted: object,
) -> dict[int, FloatArray]:
    """The scores of one method, see `scores`."""
    chosen = select(rows, label=label, actor=actor, split=split, sweep=sweep, **wanted)
    return scores(chosen, measure)


def references(rows: Iterable[Row], measure: str, *, split: str) -> dict[str, FloatArray]:
    """Name of a reference -> the measure in every task, (tasks,); they do not adapt."""
    own = select(rows, actor=REFERENCE, split=split)
    return {
        name: scores(select(own, label=name), measure)[0][0]
        for name in dict.fromkeys(row.label for row in own)
    }
