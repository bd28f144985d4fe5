"""`demokit list`: which datasets there are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from demokit.text import say

if TYPE_CHECKING:
    from demokit.data.catalogue import Entry

DEFAULT_FOLDER = Path("datasets")


@click.command("list")
@click.argument("folder", required=False, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def list_datasets(folder: Path | None, as_json: bool) -> None:
    """List the datasets in FOLDER (default: datasets) and those registered with Minari."""
    from demokit.data.catalogue import find_datasets, registered_datasets

    found: list[Entry] = []
    if folder is not None or DEFAULT_FOLDER.is_dir():
        found.extend(find_datasets(folder or DEFAULT_FOLDER))
    found.extend(registered_datasets())
    if as_json:
        from demokit.cli.console import say_json

        say_json([entry.to_json() for entry in found])
    elif found:
        _print(found)
    else:
        say("No datasets here or under Minari's root: `demokit record` makes one.")


def _print(found: list[Entry]) -> None:
    from demokit.cli.console import console, table

    numbers = ("episodes", "steps", "success", "MB")
    rows = table(
        "Datasets", "name", "family", "reward", "task set", *numbers, "licence", numbers=numbers
    )
    for entry in found:
        about = entry.summary
        if about is None:
            rows.add_row(entry.name, "unreadable", *[""] * 7)
            continue
        state = " (unfinished)" if about.unfinished else ""
        rows.add_row(
            entry.name + state,
            about.metadata.family,
            about.metadata.reward,
            about.metadata.task_set,
            str(about.episodes),
            "-" if about.steps is None else str(about.steps),
            "-" if about.success_rate is None else f"{about.success_rate:.0%}",
            f"{about.size_bytes / 1e6:.1f}",
            about.metadata.license or "none stated",
        )
    console().print(rows)
    for entry in found:
        if entry.problem:
            say(f"{entry.name}: {entry.problem}", err=True)
