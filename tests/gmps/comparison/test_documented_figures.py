"""Figures in README and in the page of task inference are those of the archive."""

import re
from pathlib import Path

import pytest
from beside_docs import module

ROOT = Path(__file__).parents[3]
ARCHIVE = ROOT / "docs" / "inference"
README = {
    "Push": "push",
    "Door": "door",
    "Point": "point",
    "Point, actions turned by a hidden angle": "point-rotated",
    "Point, contexts that say nothing": "point-coded",
    "Push, paid near the goal only": "push-sparse",
    "Which of four corners pays? (sparse, 40)": "point-corner",
    "Six sliders (100 training tasks)": "sliders",
    "Two joints moved by torques, sparse (100; after five episodes: .98)": "arm-torque",
    "Push, from images (five demonstrations a task)": "push-vision",
    "Push, goal and the turn of the actions hidden (100)": "push-rotated",
    "Ant, four legs, to a goal on an arc (40)": "ant",
    "Ant, paid near the goal only (40)": "ant-sparse",
}
PAGE = {
    "Push": "push",
    "Door": "door",
    "Point": "point",
    "sliders, 100 training tasks": "sliders",
    "`arm-torque`, sparse, 100 training tasks": "arm-torque",
    "`point-rotated`": "point-rotated",
    "`point-coded`": "point-coded",
    "Push, sparse": "push-sparse",
    "`point-corner`, sparse, 40 training tasks": "point-corner",
    "Push, from images, five demonstrations a task": "push-vision",
    "`push-rotated`, 100 training tasks": "push-rotated",
    "Ant, 40 training tasks": "ant",
    "Ant, sparse, 40 training tasks": "ant-sparse",
}


def rows_below(path, head):
    """Name -> cells of a table's rows, without intervals."""
    text = path.read_text()
    table = text[text.index(head) :].split("\n\n")[0].splitlines()[2:]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    return {name: [re.sub(r" \[.*", "", cell) for cell in cells] for name, *cells in rows}


def measured(comparison, method):
    """Episodes -> success (seeds, tasks) of a method's mean policy on validation tasks."""
    return module("inference_table").measured(ARCHIVE / comparison, method, "validation", "success")


def in_words(success):
    return f"{success:.2f}".removeprefix("0")


@pytest.mark.parametrize("row", README)
def test_the_table_of_the_readme(row):
    ours = measured(README[row], "task-inference")
    after = [ours[num].mean() for num in (1, 2, 3)]
    others = [measured(README[row], name) for name in ("context-search", "replay", "oracle")]
    found = [*after, *(each[3].mean() for each in others)]
    cells = rows_below(ROOT / "README.md", "| | seeds | task inference after 1 |")[row]
    assert cells == [str(len(ours[0])), *map(in_words, found)]


@pytest.mark.parametrize("row", PAGE)
def test_the_table_of_the_page(row):
    ours = measured(PAGE[row], "task-inference")
    simple = [measured(PAGE[row], name)[3].mean() for name in ("context-search", "replay")]
    found = [*(ours[num].mean() for num in (0, 1, 2, 3)), max(simple)]
    cells = rows_below(ROOT / "docs" / "inference.md", "| episodes | seeds | 0 | 1 |")[row]
    assert cells == [str(len(ours[0])), *map(in_words, found)]


@pytest.mark.parametrize(("path", "head", "rows"), [
    ("README.md", "| | seeds | task inference after 1 |", README),
    ("docs/inference.md", "| episodes | seeds | 0 | 1 |", PAGE),
])  # fmt: skip
def test_no_row_is_of_something_else(path, head, rows):
    assert [*rows_below(ROOT / path, head)] == [*rows]
