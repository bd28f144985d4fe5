"""The folder of a comparison: CSV files first, then whatever is made from them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from demokit.reading import file_sha256
from demokit.writing import write_whole
from gmps.comparison.learning import write_learning
from gmps.comparison.page import page
from gmps.comparison.plot import LEARNING_CURVES, pictures, save
from gmps.comparison.report import Comparison, markdown, write_json
from gmps.comparison.rows import write_contexts, write_rows
from gmps.comparison.videos import Film
from gmps.runs.folder import LEARNING

TABLE, CONTEXTS, TOLD = "evaluation.csv", "tasks.csv", "evaluation.json"


def write_folder(
    comparison: Comparison, folder: Path, films: Sequence[Film] = ()
) -> dict[str, Any]:
    """Write a comparison to a folder; returns the content of its JSON file.

    While that is missing, the folder is not whole.
    """
    told = folder / TOLD
    told.unlink(missing_ok=True)
    write_rows(folder / TABLE, comparison.rows)
    write_contexts(folder / CONTEXTS, comparison.contexts)
    write_whole(folder / "report.md", markdown(comparison))
    write_learning(folder / LEARNING, comparison.learning)
    drawn = save(pictures(folder / TABLE, folder / CONTEXTS, folder / LEARNING), folder)
    if LEARNING_CURVES not in drawn:
        (folder / f"{LEARNING_CURVES}.png").unlink(missing_ok=True)
    write_whole(folder / "report.html", page(comparison, drawn, films))
    return write_json(told, comparison, file_sha256(folder / TABLE))
