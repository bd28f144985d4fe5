"""The page of a plan: an overview of every comparison, then each of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from demokit.errors import DemokitError
from demokit.page import data_uri, style
from demokit.reading import parse_object, read_bytes
from demokit.text import on_page
from demokit.writing import write_whole
from gmps.comparison.outcomes import label_of
from gmps.comparison.plan import Plan
from gmps.comparison.report import DIGITS, cell
from gmps.comparison.statistics import Interval
from gmps.problem import PARTS

STEPS = (0, 1, 2, 3, 5, 10)
_NAMES = {"success": "Success", "episode_return": "Return"}


def write_results(plan: Plan, folder: Path, page: Path) -> list[str]:
    """Write the page, its pictures beside it, and FOLDER/index.html.

    Args:
        plan: what was to be compared.
        folder: FOLDER/NAME/comparison holds what `evaluate` wrote about a comparison.
        page: the Markdown file.

    Returns:
        The names of the comparisons that the page holds: those that have been evaluated.
    """
    found = {
        name: _read(folder / name / "comparison" / "evaluation.json")
        for name in plan.comparisons
        if (folder / name / "comparison" / "evaluation.json").exists()
    }
    parts = [f"# {plan.title}\n", plan.text.strip() + "\n", *_methods(plan)]
    for measure in _NAMES:
        parts += _overview(found, measure)
    parts += _gaps(found)
    parts += _budgets(found)
    page.parent.mkdir(parents=True, exist_ok=True)
    for name in found:
        parts += _comparison(plan, name, folder / name / "comparison", page)
    write_whole(page, "\n".join(parts))
    write_whole(folder / "index.html", _index(plan, found, folder))
    return list(found)


def _read(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = parse_object(read_bytes(path))
    except (OSError, ValueError) as error:
        raise DemokitError(
            f"{path} cannot be read ({error}): remove it, and `compare` makes it again."
        ) from None
    return content


def _methods(plan: Plan) -> Iterator[str]:
    for name, method in plan.methods.items():
        options = ", ".join(f"{key}={value}" for key, value in method.train.items())
        yield (
            f"- **{name}**"
            + (f": {method.about}" if method.about else "")
            + (f" (`{options}`)" if options else "")
        )
    yield ""


def _overview(found: dict[str, Any], measure: str) -> Iterator[str]:
    """A line per comparison and method, and one for each reference."""
    yield (
        f"{_NAMES[measure]} of the mean policy on the {_splits(found)} tasks after so many "
        "policy-gradient steps, means over seeds and tasks with 95% intervals:\n"
    )
    steps = _steps(found)
    yield _line(["comparison", "method", *map(str, steps)])
    yield _line(["---"] * (2 + len(steps)))
    for name, content in found.items():
        for label in content["area_under_return"]:
            yield _line([name, label, *_cells(content, label, measure, steps)])
        for reference, value in content["references"][measure].items():
            cell = f"{value:.{DIGITS[measure]}f}"
            yield _line([name, f"*{reference}*", cell, *[""] * (len(steps) - 1)])
    yield ""


def _splits(found: dict[str, Any]) -> str:
    """The split of the overview's figures: the first of every comparison."""
    return " or ".join(dict.fromkeys(next(iter(each["verdict"])) for each in found.values()))


def _gaps(found: dict[str, Any]) -> Iterator[str]:
    """The Theorem's quantity, a line per comparison and method."""
    yield (
        "Gap to the experts: their return minus that of the mean policy, what GMPS's Theorem 4.1 "
        f"bounds on training tasks, here on the {_splits(found)} tasks:\n"
    )
    steps = _steps(found)
    yield _line(["comparison", "method", *map(str, steps)])
    yield _line(["---"] * (2 + len(steps)))
    for name, content in found.items():
        for label, by_step in content.get("gap_to_expert", {}).items():
            entries = (by_step.get(str(step)) for step in steps)
            yield _line([name, label, *(_cell(entry, "episode_return") for entry in entries)])
    yield ""


def _budgets(found: dict[str, Any]) -> Iterator[str]:
    """What a run of every method took, by what it was for, a mean over its seeds."""
    yield "Environment steps of one run, by what they were for, means over seeds:\n"
    known = {name for content in found.values() for run in content["runs"] for name in run}
    parts = [name for name in PARTS if name in known]
    yield _line(["comparison", "method", *parts])
    yield _line(["---"] * (2 + len(parts)))
    for name, content in found.items():
        by_method: dict[str, list[dict[str, Any]]] = {}
        for run in content["runs"]:
            by_method.setdefault(label_of(Path(run["run"])), []).append(run)
        for label, runs in by_method.items():
            means = (sum(run.get(part, 0) for run in runs) / len(runs) for part in parts)
            yield _line([name, label, *(f"{mean:,.0f}" for mean in means)])
    yield ""


def _steps(found: dict[str, Any]) -> list[int]:
    """The adaptation steps of the overview that any comparison has measured."""
    measured = {entry["step"] for content in found.values() for entry in content["summary"]}
    return [step for step in STEPS if step in measured]


def _cells(
    content: dict[str, Any], label: str, measure: str, steps: Sequence[int]
) -> Iterator[str]:
    first = next(iter(content["verdict"]))
    wanted = {"split": first, "label": label, "actor": "mean", "measure": measure}
    entries = {
        entry["step"]: entry
        for entry in content["summary"]
        if all(entry[key] == value for key, value in wanted.items())
    }
    for step in steps:
        yield _cell(entries.get(step), measure)


def _cell(entry: dict[str, Any] | None, measure: str) -> str:
    if entry is None:
        return ""
    return cell(Interval(entry["mean"], entry["low"], entry["high"]), DIGITS[measure])


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _comparison(plan: Plan, name: str, source: Path, page: Path) -> Iterator[str]:
    """The report of a comparison, its picture after the title."""
    title, _, rest = (source / "report.md").read_text().partition("\n")
    picture = page.with_name(f"{page.stem}-{name}.png")
    write_whole(picture, (source / "evaluation.png").read_bytes())
    yield f"## {name}: {title.removeprefix('## ')}\n"
    if plan.comparisons[name].about:
        yield plan.comparisons[name].about + "\n"
    yield f"![{name}]({picture.name})"
    yield rest


def _index(plan: Plan, found: dict[str, Any], folder: Path) -> str:
    """A page with the verdict and the picture of every comparison, and the way to its own page."""
    sections = []
    for name, content in found.items():
        picture = (folder / name / "comparison" / "evaluation.png").read_bytes()
        verdicts = " ".join(content["verdict"].values())
        sections.append(
            f'<h2><a href="{on_page(name)}/comparison/report.html">{on_page(name)}</a></h2>'
            f"<p>{on_page(verdicts)}</p>"
            f'<figure><img alt="{on_page(name)}" src="{data_uri(picture, "image/png")}"></figure>'
        )
    title = on_page(plan.title)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{style()}</style></head><body><main><h1>{title}</h1>{''.join(sections)}"
        "</main></body></html>\n"
    )
