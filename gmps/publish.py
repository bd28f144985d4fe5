"""The folder of a comparison: CSV files first, then whatever is made from them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gmps.outcomes import write_places, write_rows
from gmps.page import page
from gmps.plot import pictures, save
from gmps.report import Comparison, markdown, write_json
from gmps.videos import Film

TABLE, PLACES = "evaluation.csv", "tasks.csv"


def publish(comparison: Comparison, folder: Path, films: Sequence[Film] = ()) -> dict[str, Any]:
    """Write a comparison to a folder; returns the content of its JSON file."""
    folder.mkdir(parents=True, exist_ok=True)
    write_rows(folder / TABLE, comparison.rows)
    write_places(folder / PLACES, comparison.places)
    content = write_json(folder / "evaluation.json", comparison)
    (folder / "report.md").write_text(markdown(comparison))
    drawn = save(pictures(folder / TABLE, folder / PLACES), folder)
    (folder / "report.html").write_text(page(comparison, drawn, films))
    return content
