"""The page of a plan: an overview of every comparison, then each of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from demokit.errors import DemokitError
from demokit.page import data_uri, style
from demokit.reading import MALFORMED, parse_object, read_bytes
from demokit.text import in_cell, on_page
from demokit.writing import write_whole
from gmps.comparison.episodes import At, shown_episodes
from gmps.comparison.evaluated_run import NEEDED
from gmps.comparison.folder import TOLD
from gmps.comparison.plan import Plan
from gmps.comparison.plot import ABOUT_LEARNING, LEARNING_CURVES
from gmps.comparison.report import DIGITS, SPENT, cell
from gmps.comparison.rows import label_of
from gmps.comparison.statistics import Interval
from gmps.problem import PARTS

_LEARNING, _EVALUATION = f"-{LEARNING_CURVES}", "-evaluation"
_PARTS = {"verdict", "runs", "references", "summary"}
_NAMES = {"success": "Success", "episode_return": "Return"}
_QUANTITIES = {
    "gap_to_expert": "Gap to the experts: their return minus that of the mean policy, what GMPS's "
    "Theorem 4.1 bounds on training tasks",
    "lost_while_adapting": "Return lost while adapting: the expert's minus that of all episodes "
    "spent, summed over these",
}


def write_results(plan: Plan, folder: Path, page: Path) -> list[str]:
    """Write the page, its pictures beside it, and FOLDER/index.html.

    Args:
        plan: what was to be compared.
        folder: FOLDER/NAME/comparison holds what `evaluate` wrote about a comparison.
        page: the Markdown file.

    Returns:
        The names of the comparisons that the page holds: those that have been evaluated.
    """
    found = _evaluated(folder, plan.comparisons)
    parts = [f"# {plan.title}\n", plan.text.strip() + "\n", *_methods(plan)]
    for measure in _NAMES:
        parts += _overview(found, measure)
    parts += _told(found)
    for key in _QUANTITIES:
        parts += _quantity(found, key)
    parts += _budgets(found)
    for name in found:
        parts += _comparison(plan, name, folder / name / "comparison", page)
    write_whole(page, "\n".join(parts))
    write_whole(folder / "index.html", _index(plan, found, folder))
    return list(found)


def verdicts(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """Comparison -> what was found, in words, of those in FOLDER that have been evaluated."""
    return {
        name: " ".join(content["verdict"].values())
        for name, content in _evaluated(folder, names).items()
    }


def _evaluated(folder: Path, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    places = {name: folder / name / "comparison" / TOLD for name in names}
    return {name: _read(path) for name, path in places.items() if path.exists()}


def _read(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = parse_object(read_bytes(path))
        whole = content.keys() >= _PARTS
        if not (whole and all("episodes" in entry for entry in content["summary"])):
            raise ValueError("written by an older demokit")
    except (OSError, *MALFORMED) as error:
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
        "episodes on the new task, means over seeds and tasks with 95% intervals:\n"
    )
    columns = _columns(found)
    yield _line(["comparison", "method", *map(str, columns)])
    yield _line(["---"] * (2 + len(columns)))
    for name, content in found.items():
        for label in _labels(content):
            yield _line([name, label, *_cells(content, label, measure, columns)])
        for reference, value in content["references"][measure].items():
            cell = f"{value:.{DIGITS[measure]}f}"
            yield _line([name, f"*{reference}*", cell, *[""] * (len(columns) - 1)])
    yield ""


def _splits(found: dict[str, Any]) -> str:
    """The split of the overview's figures: the first of every comparison."""
    return " or ".join(dict.fromkeys(next(iter(each["verdict"])) for each in found.values()))


def _told(found: dict[str, Any]) -> Iterator[str]:
    """What every method was told; comparisons that are older than this do not say."""
    told = dict[tuple[str, str], list[str]]()
    for name, content in found.items():
        for label, words in content.get("told", {}).items():
            if words:
                told.setdefault((label, words), []).append(name)
    if not told:
        return
    yield "What methods were told, in training and of a new task:\n"
    yield _line(["method", "told", "in"])
    yield _line(["---"] * 3)
    for (label, words), names in told.items():
        everywhere = sum(label == other for other, _ in told) == 1
        yield _line([label, words, "" if everywhere else ", ".join(names)])
    yield ""


def _quantity(found: dict[str, Any], key: str) -> Iterator[str]:
    """One of `_QUANTITIES`, a line per comparison and method."""
    if not any(content.get(key) for content in found.values()):
        return
    yield f"{_QUANTITIES[key]}, here on the {_splits(found)} tasks, by episodes:\n"
    columns = _columns(found)
    yield _line(["comparison", "method", *map(str, columns)])
    yield _line(["---"] * (2 + len(columns)))
    for name, content in found.items():
        for label, by_episodes in content.get(key, {}).items():
            entries = (by_episodes.get(str(num)) for num in columns)
            yield _line([name, label, *(_cell(entry, "episode_return") for entry in entries)])
    yield ""


def _budgets(found: dict[str, Any]) -> Iterator[str]:
    """What a run of every method took, by what it was for, a mean over its seeds."""
    yield f"Means over the seeds of a method, {SPENT}:\n"
    every = [run for content in found.values() for run in content["runs"]]
    parts = [name for name in (*PARTS, NEEDED) if any(run.get(name, "") != "" for run in every)]
    yield _line(["comparison", "method", *parts])
    yield _line(["---"] * (2 + len(parts)))
    for name, content in found.items():
        by_method: dict[str, list[dict[str, Any]]] = {}
        for run in content["runs"]:
            label = run.get("label") or label_of(Path(run["run"]))  # older ones do not say
            by_method.setdefault(label, []).append(run)
        for label, runs in by_method.items():
            means = (_mean([run.get(part, "") for run in runs]) for part in parts)
            yield _line([name, label, *means])
    yield ""


def _mean(steps: Sequence[Any]) -> str:
    """A mean over the runs; empty where one does not tell."""
    return "" if "" in steps else f"{sum(steps) / len(steps):,.0f}"


def _columns(found: dict[str, Any]) -> list[int]:
    """The counts of episodes that the overview shows."""
    return shown_episodes(
        At((name, entry["label"]), entry["step"], entry["episodes"])
        for name, content in found.items()
        for entry in content["summary"]
    )


def _labels(content: dict[str, Any]) -> list[str]:
    return list(dict.fromkeys(entry["label"] for entry in content["summary"]))


def _cells(
    content: dict[str, Any], label: str, measure: str, columns: Sequence[int]
) -> Iterator[str]:
    first = next(iter(content["verdict"]))
    wanted = {"split": first, "label": label, "actor": "mean", "measure": measure}
    entries = {
        entry["episodes"]: entry
        for entry in content["summary"]
        if all(entry[key] == value for key, value in wanted.items())
    }
    for num in columns:
        yield _cell(entries.get(num), measure)


def _cell(entry: dict[str, Any] | None, measure: str) -> str:
    if entry is None:
        return ""
    return cell(Interval(entry["mean"], entry["low"], entry["high"]), DIGITS[measure])


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(map(in_cell, cells)) + " |"


def _comparison(plan: Plan, name: str, source: Path, page: Path) -> Iterator[str]:
    """The report of a comparison, its picture after the title."""
    title, _, rest = (source / "report.md").read_text().partition("\n")
    yield f"## {name}: {title.removeprefix('## ')}\n"
    if plan.comparisons[name].about:
        yield plan.comparisons[name].about + "\n"
    yield _picture(name, source / "evaluation.png", page, _picture_of(name))
    learning = source / f"{LEARNING_CURVES}.png"
    if learning.exists():
        yield f"{ABOUT_LEARNING}\n"
        yield _picture(name, learning, page, f"{name}{_LEARNING}")
    yield rest


def _picture_of(name: str) -> str:
    """What the picture of an evaluation is called: as no other's, nor any learning curves."""
    return f"{name}{_EVALUATION}" if name.endswith((_LEARNING, _EVALUATION)) else name


def _picture(name: str, source: Path, page: Path, called: str) -> str:
    """Copy a picture beside the page; returns what shows it there."""
    target = page.with_name(f"{page.stem}-{called}.png")
    write_whole(target, source.read_bytes())
    return f"![{name}]({target.name})\n"


def _index(plan: Plan, found: dict[str, Any], folder: Path) -> str:
    """A page with the verdict and the picture of every comparison, and the way to its own page."""
    sections = []
    for name, content in found.items():
        picture = (folder / name / "comparison" / "evaluation.png").read_bytes()
        said = " ".join(content["verdict"].values())
        sections.append(
            f'<h2><a href="{on_page(name)}/comparison/report.html">{on_page(name)}</a></h2>'
            f"<p>{on_page(said)}</p>"
            f'<figure><img alt="{on_page(name)}" src="{data_uri(picture, "image/png")}"></figure>'
        )
    title = on_page(plan.title)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title>"
        f"<style>{style()}</style></head><body><main><h1>{title}</h1>{''.join(sections)}"
        "</main></body></html>\n"
    )
