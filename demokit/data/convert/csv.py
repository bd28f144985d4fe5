"""Tables: one row per step, columns by name in the first line."""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np

from demokit.data.convert import Imported
from demokit.data.convert.arrays import TAKES as OF_ARRAYS
from demokit.data.convert.arrays import files_of, import_arrays
from demokit.data.convert.foreign import About, plain_name
from demokit.data.convert.inventory import Inventory, Part, listed
from demokit.data.convert.stated import Stated
from demokit.errors import DemokitError
from demokit.reading import check_regular
from demokit.types import Array, FloatArray

TAKES = OF_ARRAYS | {"episode_column"}
_FLAGS = {"true": 1.0, "false": 0.0}


class _Row(NamedTuple):
    line: int
    cells: list[str]


def read(source: Path, env: str | None, stated: Stated) -> Imported:
    """A table, or a folder of them, as a dataset.

    A table is one episode, or one per value of the episode column, whose rows stand together.
    Where the last row of an episode has no action, it holds the observation after the last one.
    `*` in the name of a column stands for anything.

    Raises:
        DemokitError: no columns for observations or actions are stated, a column that is not
            there, a line with too few or too many cells, or no sound episode.
    """
    files = files_of(source, ".csv")
    header = _header(files[0], _rows(files[0]))
    if not stated.observation_columns or not stated.action_columns:
        raise DemokitError(
            "State --observation-columns and --action-columns: the columns of "
            f"{files[0]} are {listed(header)}."
        )
    stated = replace(
        stated,
        observation_columns=_meant(stated.observation_columns, header, files[0]),
        action_columns=_meant(stated.action_columns, header, files[0]),
        context_columns=_meant(stated.context_columns, header, files[0]),
    )
    parts = partial(_parts, files, stated)
    inventory = Inventory(Part(source.name, {}), ())
    about = About("csv", env or plain_name(source.stem))
    return import_arrays(inventory, parts, about, stated, table=True)


def read_head(path: Path) -> tuple[list[str], int]:
    """The names of the columns of a table, and how many rows there are; raises DemokitError."""
    rows = _rows(path)
    return _header(path, rows), sum(1 for _ in rows)


def _meant(names: Sequence[str], header: Sequence[str], path: Path) -> tuple[str, ...]:
    """Columns by name, or by pattern in the order of the table; raises DemokitError for others."""
    found: dict[str, None] = {}
    for name in names:
        meant = [name] if name in header else [c for c in header if fnmatchcase(c, name)]
        if not meant:
            raise _no_column(name, header, path)
        found |= dict.fromkeys(meant)
    return tuple(found)


def _no_column(name: str, header: Sequence[str], path: Path) -> DemokitError:
    return DemokitError(f"{path} has no column '{name}': its columns are {listed([*header])}.")


def _parts(files: Sequence[Path], stated: Stated) -> Iterator[Part]:
    """The episodes of the tables, one in memory at a time."""
    needed = [*stated.observation_columns, *stated.action_columns, *stated.context_columns]
    others = (stated.reward_column, stated.success_column, stated.task_column)
    needed += [name for name in (*others, stated.episode_column) if name is not None]
    for path in files:
        rows = _rows(path)
        header = _header(path, rows)
        known = set(header)
        for name in needed:
            if name not in known:
                raise _no_column(name, header, path)
        texts = {stated.task_column or "task", "split"}
        for name, episode in _episodes(path, header, rows, stated.episode_column):
            readers = [_texts if column in texts else _numbers for column in header]
            part = Part(name, {
                column: partial(reader, column, i, episode)
                for i, (column, reader) in enumerate(zip(header, readers, strict=True))
            })  # fmt: skip
            part.understood(stated.episode_column or "")
            yield part


def _episodes(
    path: Path, header: Sequence[str], rows: Iterator[_Row], column: str | None
) -> Iterator[tuple[str, list[_Row]]]:
    """Name and rows of each episode; raises DemokitError where one is in pieces."""
    if column is None:
        yield path.name, list(rows)
        return
    place, seen = header.index(column), set[str]()
    for value, several in groupby(rows, lambda row: row.cells[place]):
        episode = list(several)
        if value in seen:
            raise DemokitError(
                f"{path}, line {episode[0].line}: episode {value} goes on after another one; "
                "its rows must stand together."
            )
        seen.add(value)
        yield f"{path.name} episode {value}", episode


def _header(path: Path, rows: Iterator[_Row]) -> list[str]:
    """The names of the columns; raises DemokitError where they are not distinct."""
    first = next(rows, None)
    if first is None:
        raise DemokitError(f"{path} is empty: its first line names the columns.")
    names = [name.strip() for name in first.cells]
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise DemokitError(f"{path} has two columns called '{twice}'.")
    return names


def _rows(path: Path) -> Iterator[_Row]:
    """The lines that are not empty; raises DemokitError at one that is broken."""
    line, width = 0, 0
    try:
        check_regular(path)
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.reader(stream, strict=True)
            for cells in reader:
                line, width = reader.line_num, width or len(cells)
                if cells and len(cells) != width:
                    raise DemokitError(
                        f"{path}, line {line}: {len(cells)} cells, the first line has {width}."
                    )
                if cells:
                    yield _Row(line, cells)
    except csv.Error as error:
        raise DemokitError(f"{path} is broken after line {line} ({error}).") from error
    except UnicodeDecodeError as error:
        raise DemokitError(f"{path} is no text in UTF-8, after line {line}.") from error
    except OSError as error:
        raise DemokitError(f"{path} cannot be read ({error.strerror or error}).") from error


def _texts(_: str, place: int, rows: Sequence[_Row]) -> Array:
    """The texts of a column, the first that differs after the first of all."""
    # As many as show whether they are all the same: in an array each takes as much as the longest.
    return np.array([*dict.fromkeys(row.cells[place] for row in rows)][:2])


def _numbers(column: str, place: int, rows: Sequence[_Row]) -> FloatArray:
    """The numbers of a column (T,), without the last where it is empty; raises DemokitError."""
    if len(rows) > 1 and not rows[-1].cells[place].strip():
        rows = rows[:-1]
    found = np.empty(len(rows))
    for index, row in enumerate(rows):
        found[index] = _number(row.cells[place])
        if not math.isfinite(found[index]):
            said = row.cells[place]
            raise DemokitError(f"line {row.line}: {column} is '{said}', no finite number")
    return found


def _number(text: str) -> float:
    """What a cell says; NaN where that is no number."""
    try:
        return float(text)
    except ValueError:
        return _FLAGS.get(text.strip().lower(), math.nan)
