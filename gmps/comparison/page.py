"""One static HTML page about a comparison, complete in itself, videos included."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from string import Template

from demokit.page import data_uri, facts, image, style, table, tile
from demokit.text import on_page
from gmps.comparison.episodes import counted
from gmps.comparison.plot import ABOUT_LEARNING, LEARNING_CURVES
from gmps.comparison.report import (
    DIGITS,
    NAMES,
    Comparison,
    Table,
    after_equal_episodes,
    headline,
    milestones,
    run_table,
    tables,
    task_table,
    told_table,
)
from gmps.comparison.rows import labels, references, select, splits
from gmps.comparison.videos import Film

_LEAD = (
    "On each task: some episodes, an adaptation step from their rewards and observations, more "
    "episodes, and so on. Every task starts from what training left and sees no other."
)


def page(comparison: Comparison, pictures: Mapping[str, Path], films: Sequence[Film] = ()) -> str:
    """The page; `pictures` are the files that `plot.save` wrote."""
    template = Template((files("gmps") / "page.html").read_text())
    return template.substitute(
        title=on_page(comparison.title),
        lead=_LEAD,
        style=style(),
        sections="\n".join(_sections(comparison, pictures, films)),
        runs=_captioned(run_table(comparison.runs)),
        facts=facts(comparison.facts),
        options="\n".join(_options(comparison)),
    )


def _sections(
    comparison: Comparison, pictures: Mapping[str, Path], films: Sequence[Film]
) -> Iterator[str]:
    every = splits(comparison.rows)
    for split in every:
        yield f'<p class="verdict">{on_page(comparison.said(split))}</p>'
        yield f'<section class="tiles">{"".join(_tiles(comparison, split))}</section>'
    if (told := told_table(comparison.told)).body:
        yield f'<h2>{on_page(told.caption)}</h2><div class="panel methods">{_plain(told)}</div>'
    yield "<h2>Adaptation</h2>"
    yield _wide(pictures["evaluation"])
    if LEARNING_CURVES in pictures:
        yield f"<h2>Learning to learn</h2><p>{on_page(ABOUT_LEARNING)}</p>"
        yield _wide(pictures[LEARNING_CURVES])
    if films:
        yield '<h2>Before, after, and the expert</h2><section class="films">'
        yield from map(_video, films)
        yield "</section>"
    yield "<h2>Task by task</h2>"
    for split in every:
        yield f"<h3>{on_page(split)} tasks where their goals are, and the return in each</h3>"
        yield _wide(pictures[f"map-{split}"])
        yield _wide(pictures[f"tasks-{split}"])
        yield _folded(task_table(comparison.rows, comparison.contexts, split))
    swept = [name for name in pictures if name.startswith("sweep")]
    if swept:
        yield "<h2>Sweeps</h2>"
        yield from (_wide(pictures[name]) for name in swept)
    yield "<h2>Figures</h2>"
    for split in every:
        first, *rest = (found for found in tables(comparison.rows, split) if found.body)
        yield f"<h3>{on_page(first.caption)}, {on_page(split)} tasks</h3>"
        yield f'<div class="panel methods">{_plain(first)}</div>'
        yield from map(_folded, rest)


def _tiles(comparison: Comparison, split: str) -> Iterator[str]:
    """The figures to be seen first."""
    rows, measure = comparison.rows, headline(comparison.rows, split)
    digits, name = DIGITS[measure], NAMES[measure]
    for label in labels(rows):
        value = after_equal_episodes(rows, label, measure, split).mean()
        episodes = counted(milestones(rows, split)[label][1])
        yield tile(f"{name} of {label} after {episodes}", f"{value:.{digits}f}")
    for label, line in references(rows, measure, split=split).items():
        yield tile(f"{name} of {label}", f"{line.mean():.{digits}f}")
    tasks = len({row.task for row in select(rows, split=split)})
    yield tile(f"{split} tasks", str(tasks))
    yield tile("runs", str(len(comparison.runs)))


def _wide(picture: Path) -> str:
    return f'<figure class="wide">{image(picture.read_bytes(), picture.stem)}</figure>'


def _video(film: Film) -> str:
    source = data_uri(film.path.read_bytes(), "video/mp4")
    return (
        f'<figure><video src="{source}" autoplay loop muted playsinline controls></video>'
        f"<figcaption>{on_page(film.caption)}</figcaption></figure>"
    )


def _plain(found: Table) -> str:
    return table(found.header, found.body)


def _captioned(found: Table) -> str:
    return f"<p>{on_page(found.caption)}.</p>{_plain(found)}"


def _folded(found: Table) -> str:
    return _details(found.caption, _plain(found))


def _options(comparison: Comparison) -> Iterator[str]:
    for label, options in comparison.options.items():
        yield _details(f"{label}, first run", f'<div class="facts">{facts(options)}</div>')


def _details(summary: str, content: str) -> str:
    return f'<details class="panel"><summary>{on_page(summary)}</summary>{content}</details>'
