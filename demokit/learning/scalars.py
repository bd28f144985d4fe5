"""Scalars of a training: a table that survives anything, and TensorBoard."""

from __future__ import annotations

import csv
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from demokit.errors import DemokitError
from demokit.learning.checkpoint import KEPT
from demokit.writing import csv_text, write_whole

Row = Mapping[str, object]
_REST = "\n"  # no column is called so


class ScalarLog:
    """metrics.csv, a row per logged step, and TensorBoard.

    Args:
        table: the CSV file; rows that are there stay.
        board: folder of TensorBoard's events, made with the first row.
        key: the first column, such as "iteration"; whole numbers.
    """

    def __init__(self, table: Path, board: Path, key: str) -> None:
        self._table, self._board, self._key = table, _Board(board), key
        self._columns: list[str] = []

    def add(self, step: int, scalars: Mapping[str, float]) -> None:
        """Append a row; NaN marks what was not measured, and is left out of TensorBoard."""
        row: Row = {self._key: step, **scalars}
        if row.keys() <= set(self._columns):
            with self._table.open("a", newline="") as file:
                file.write(csv_text(self._columns, [row], header=False))
        else:  # the first one here: an earlier process may have measured other scalars
            self._rewrite([*self._rows(), row])
        self._board.add(step, scalars)

    def drop_from(self, step: int) -> None:
        """Forget rows that the checkpoint of a resumed training does not contain.

        Raises:
            DemokitError: the table is damaged.
        """
        self._board.resumed_at = step
        with self._explained():
            kept = [row for row in self._rows() if int(str(row[self._key])) < step]
        if self._table.exists():
            self._rewrite(kept)

    def _rows(self) -> list[Row]:
        """The whole rows of the table; what a killed process wrote half of is none."""
        if not self._table.exists():
            return []
        with self._explained(), self._table.open(newline="") as file:
            whole = [line for line in file if line.endswith("\n")]
            rows: list[Row] = list(csv.DictReader(whole, restkey=_REST, strict=True))
            if any(_REST in row or None in row.values() for row in rows):
                raise ValueError("not as many columns as in the first line")
        return rows

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (ValueError, LookupError, csv.Error) as error:
            raise DemokitError(f"{self._table} has a damaged row ({error}): mend it.") from None

    def _rewrite(self, rows: Sequence[Row]) -> None:
        self._columns = list(dict.fromkeys(name for row in rows for name in row))
        text = csv_text(self._columns, rows) if rows else ""
        write_whole(self._table, text, KEPT, parents=False)


class _Board:
    """TensorBoard's events, in one file of this process.

    `SummaryWriter` writes from a thread: rows are lost with a process that is killed, and a full
    disk is an error that nobody catches.
    """

    resumed_at: int | None = None
    """TensorBoard is to hide what earlier processes logged from this step on."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: Path | None = None

    def add(self, step: int, scalars: Mapping[str, float]) -> None:
        """Append all scalars that are numbers."""
        values = [
            Summary.Value(tag=name, simple_value=value)
            for name, value in scalars.items()
            if not math.isnan(value)
        ]
        events = [{"step": step, "summary": Summary(value=values)}]
        if self._file is None:
            self._folder.mkdir(exist_ok=True)
            # Files are read in the order of their names.
            self._file = self._folder / f"events.out.tfevents.{time.time():.6f}.{os.getpid()}"
            events = [*self._beginning(), *events]
        with self._file.open("ab") as file:
            record = RecordWriter(file)
            for event in events:
                record.write(Event(wall_time=time.time(), **event).SerializeToString())

    def _beginning(self) -> Iterator[dict[str, Any]]:
        yield {"file_version": "brain.Event:2"}
        if self.resumed_at is not None:
            start = SessionLog(status=SessionLog.START)
            yield {"step": self.resumed_at, "session_log": start}
