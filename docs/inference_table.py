"""The tables of docs/inference.md, from the measurements in docs/inference:

    python docs/inference_table.py [ARCHIVE]

Success of the mean policy on 20 validation tasks, with 95% intervals; by how much task inference is
ahead of the others on the same tasks; and returns outside Ant's arc.
"""

import sys
from collections.abc import Iterable
from pathlib import Path

from demokit.types import FloatArray
from gmps.comparison.rows import BOUNDS, Row, read_rows, scores, select
from gmps.comparison.statistics import Interval, difference, interval

ARCHIVE = Path(__file__).parent / "inference"
OURS, SIMPLE, ORACLE = "task-inference", ("context-search", "replay"), "oracle"
AFTER, COMPARED = (0, 1, 2, 3, 5, 10), (1, 3, 5, 10)


def runs_of(comparison: Path, method: str) -> list[Row]:
    """All that was measured of a method's seeds."""
    files = sorted(comparison.glob(f"{method}-[0-9]*/curves/*.csv.gz"))
    return [row for file in files for row in read_rows(file) if row.sweep == "main"]


def measured(comparison: Path, method: str, split: str, measure: str) -> dict[int, FloatArray]:
    """Episodes -> scores (seeds, tasks) of the policy's mean."""
    rows = runs_of(comparison, method)
    return scores(select(rows, actor="mean", split=split), measure)


def said(found: Interval, digits: int = 2) -> str:
    """As in a table."""
    low, high = (f"{value:.{digits}f}" for value in (found.low, found.high))
    return f"{found.mean:.{digits}f} [{low}, {high}]"


def row(name: str, cells: Iterable[str]) -> str:
    """A row of a table."""
    return f"| {' | '.join((name, *cells))} |"


def successes(comparison: Path) -> str:
    """A row for every method."""
    lines = []
    for method in (OURS, *SIMPLE, ORACLE):
        found = measured(comparison, method, "validation", "success")
        cells = [said(interval(found[n], BOUNDS["success"])) for n in AFTER if n in found]
        lines.append(row(f"{comparison.name}, {method}, {len(found[0])} seeds", cells))
    return "\n".join(lines)


def ahead(comparison: Path, split: str, measure: str, digits: int) -> str:
    """What task inference is ahead by, a row for every other method."""
    ours, lines = measured(comparison, OURS, split, measure), []
    for method in (*SIMPLE, ORACLE):
        theirs = measured(comparison, method, split, measure)
        common = [n for n in COMPARED if n in ours and n in theirs]
        found = [difference(ours[n], theirs[n], BOUNDS[measure]) for n in common]
        lines.append(row(f"{comparison.name} - {method}", [said(each, digits) for each in found]))
    return "\n".join(lines)


def returns(comparison: Path, split: str) -> str:
    """A row for every method."""
    lines = []
    for method in (OURS, *SIMPLE, ORACLE):
        found = measured(comparison, method, split, "episode_return")
        lines.append(row(method, [said(interval(found[n]), 0) for n in AFTER if n in found]))
    return "\n".join(lines)


def main(archive: Path) -> None:
    """Print."""
    comparisons = [path for path in sorted(archive.iterdir()) if runs_of(path, OURS)]
    print(f"success after {AFTER} episodes", *map(successes, comparisons), sep="\n")
    print(f"\nahead by, after {COMPARED}")
    print(*(ahead(path, "validation", "success", 2) for path in comparisons), sep="\n")
    for path in comparisons:
        if measured(path, OURS, "ood", "success"):
            print(f"\n{path.name}, out of distribution: return after {AFTER} episodes")
            print(returns(path, "ood"), ahead(path, "ood", "episode_return", 0), sep="\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ARCHIVE)
