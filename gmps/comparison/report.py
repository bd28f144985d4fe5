"""A comparison as people read it: a verdict, tables, Markdown and JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from demokit.text import in_cell
from demokit.types import FloatArray
from demokit.writing import write_whole
from gmps.comparison.episodes import (
    axis,
    counted,
    episodes_per_step,
    equal_budget,
    last_within,
    shown,
    steps_taken,
)
from gmps.comparison.learning import Monitored
from gmps.comparison.references import EXPERT, RANDOM
from gmps.comparison.rows import (
    ACTORS,
    BOUNDS,
    BY_ROLLOUTS,
    BY_STEP_SCALE,
    MAIN,
    MEASURES,
    Row,
    TaskContext,
    curve,
    is_told,
    labels,
    references,
    scores,
    select,
    splits,
)
from gmps.comparison.statistics import (
    Interval,
    difference,
    improvement,
    interquartile,
    interval,
    mean_upto,
)

SPENT = (
    "environment steps by what they were for. What a method needed to learn is the sum of "
    "demonstrations, the training of experts and meta-training; the choice of a step size and "
    "monitoring come on top"
)
CHECKED = "checkpoint"
"""What no table shows of a run: the SHA-256 of what was measured."""
_AREA_STEPS = 3
NAMES = {"episode_return": "return", "success": "success"}
DIGITS = {"episode_return": 1, "success": 2}


@dataclass(frozen=True, eq=False)
class Comparison:
    """What an evaluation found.

    Attributes:
        title: what was compared, where.
        rows: the long table.
        contexts: the tasks.
        runs: the runs that took part with what they took, a row of a table each.
        facts: name -> how it was made: the protocol, versions.
        options: method -> every option of its training, by name.
        learning: what was logged of the trainings.
        told: method -> all that it is told, in words.
        caveat: in what the trainings differ that a comparison takes for granted, a sentence.
    """

    title: str
    rows: list[Row]
    contexts: list[TaskContext]
    runs: list[dict[str, Any]]
    facts: dict[str, str]
    options: dict[str, dict[str, str]]
    learning: list[Monitored] = field(default_factory=list)
    told: dict[str, str] = field(default_factory=dict)
    caveat: str = ""

    def said(self, split: str) -> str:
        """The verdict on a split, and what must be known with it."""
        return f"{verdict(self.rows, split)} {self.caveat}".strip()


Estimate: TypeAlias = Callable[[FloatArray], Interval]
Show: TypeAlias = Callable[[Any], str]


class Table(NamedTuple):
    """A table under a caption; the first column names the row."""

    caption: str
    header: list[str]
    body: list[list[str]]


def verdict(rows: Sequence[Row], split: str) -> str:
    """Who does best after equal episodes, by how much, and whether the data settle it."""
    measure, budget = headline(rows, split), equal_budget(rows, split)
    best, *others = ranking(rows, split)
    after = after_equal_episodes(rows, best, measure, split)
    parts = [
        f"After {counted(budget)} on each of the {after.shape[1]} {split} tasks "
        f"({steps_taken(rows, split, budget)}), {best} {_achieves(measure, float(after.mean()))}."
    ]
    parts += [_behind(rows, split, measure, best, other) for other in others]
    for label in sorted({*labels(rows)} - {best, *others}):
        reached = after_equal_episodes(rows, label, measure, split)
        parts.append(f"{label} {_achieves(measure, float(reached.mean()))}.")
    expert = references(rows, measure, split=split).get(EXPERT)
    if expert is not None:
        found = _achieves(measure, float(expert.mean()))
        parts.append(f"The expert, who is told the task, {found}.")
    return " ".join(parts)


def _behind(rows: Sequence[Row], split: str, measure: str, best: str, other: str) -> str:
    """By how much a method is behind the best; in return where both succeed alike."""
    theirs = after_equal_episodes(rows, other, measure, split)
    found = _achieves(measure, float(theirs.mean()))
    ours = after_equal_episodes(rows, best, measure, split)
    if measure == "success" and not np.ptp(np.concatenate([ours, theirs]), axis=0).any():
        measure = "episode_return"
        ours, theirs = (after_equal_episodes(rows, each, measure, split) for each in (best, other))
        found += f", and {_achieves(measure, float(theirs.mean()))}"
    gap = difference(ours, theirs, BOUNDS[measure])
    less, low, high = (_amount(measure, value) for value in gap)
    unit = " points" if measure == "success" else ""
    settled = "" if gap.low > 0 else ", which these runs do not settle"
    return f"{other} {found}: {less}{unit} less (95% interval {low} to {high}){settled}."


def headline(rows: Sequence[Row], split: str) -> str:
    """The measure to judge by: success, unless no method ever succeeds."""
    succeeds = any(row.success for row in select(rows, split=split, actor="mean"))
    return "success" if succeeds else "episode_return"


def ranking(rows: Sequence[Row], split: str) -> list[str]:
    """The methods from the best after equal episodes to the worst.

    With one that is told the new task none competes that is not told it.
    """

    def key(label: str) -> tuple[float, float]:
        success, earned = (
            float(after_equal_episodes(rows, label, measure, split).mean()) for measure in MEASURES
        )
        return success, earned

    every = labels(rows)
    return sorted([n for n in every if not is_told(n)] or every, key=key, reverse=True)


def after_equal_episodes(rows: Sequence[Row], label: str, measure: str, split: str) -> FloatArray:
    """Scores (runs, tasks) of a method's mean policy, last measured within `equal_budget`."""
    found = _mean_curve(rows, label, measure, split)
    return found[last_within(found, equal_budget(rows, split))]


def _achieves(measure: str, value: float) -> str:
    return f"succeeds in {value:.0%}" if measure == "success" else f"earns {value:.1f}"


def _amount(measure: str, value: float) -> str:
    return f"{round(100 * value)}" if measure == "success" else f"{value:.1f}"


def _mean_curve(rows: Sequence[Row], label: str, measure: str, split: str) -> dict[int, FloatArray]:
    return curve(rows, label, "mean", measure, split=split)


def tables(rows: Sequence[Row], split: str) -> Iterator[Table]:
    """Everything that is told about a split, in the order of reading."""
    for measure in MEASURES:
        for actor in ACTORS:
            yield _by_episodes(
                rows, split, actor, measure, "", partial(interval, bounds=BOUNDS[measure])
            )
    for measure in MEASURES:
        yield _by_episodes(rows, split, "mean", measure, "interquartile mean", interquartile)
    if references(rows, "success", split=split):
        yield _reference_table(rows, split)
    measure = headline(rows, split)
    less = partial(difference, bounds=BOUNDS[measure])
    yield _compared(rows, split, ("Differences", " - ", DIGITS[measure]), less)
    yield _compared(rows, split, ("Probability of an improvement", " over ", 2), improvement)
    yield _meanwhile_table(rows, split, partial(cell, digits=DIGITS["episode_return"]))
    yield _gap_table(rows, split)
    yield _areas(rows, split)
    for sweep, column in ((BY_ROLLOUTS, "rollouts"), (BY_STEP_SCALE, "step_scale")):
        if select(rows, split=split, sweep=sweep):
            yield _sweep_table(rows, split, sweep, column)
    for measure in MEASURES:
        yield _seed_table(rows, split, measure)


def plain_tables(rows: Sequence[Row], split: str) -> Iterator[Table]:
    """Success and return by episodes, without intervals: for a terminal."""
    columns = _columns(rows, split)
    for measure in MEASURES:
        body = [
            [
                label,
                actor,
                *_cells(curve(rows, label, actor, measure, split=split), columns, _mean(measure)),
            ]
            for label in labels(rows)
            for actor in ACTORS
        ]
        for name, line in references(rows, measure, split=split).items():
            body.append([name, "reference", *_cells({0: line}, columns, _mean(measure))])
        caption = f"{NAMES[measure].capitalize()} after so many {axis(rows)}"
        yield Table(caption, ["method", "policy", *map(str, columns)], body)
    caption, header, body = _meanwhile_table(rows, split, lambda found: f"{found.mean:.1f}")
    yield Table(
        caption,
        [header[0], "policy", *header[1:]],
        [[label, "exploring", *cells] for label, *cells in body],
    )


def _by_episodes(
    rows: Sequence[Row], split: str, actor: str, measure: str, what: str, estimate: Estimate
) -> Table:
    columns, show = _columns(rows, split), _estimated(measure, estimate)
    body = [
        [label, *_cells(curve(rows, label, actor, measure, split=split), columns, show)]
        for label in labels(rows)
    ]
    how = f", {what}" if what else ""
    caption = f"{NAMES[measure].capitalize()} of the {actor} policy{how}, by {axis(rows)}"
    return Table(caption, ["method", *map(str, columns)], body)


def _columns(rows: Sequence[Row], split: str) -> list[int]:
    """The counts of episodes that the tables of a split show."""
    return shown(select(rows, split=split, sweep=MAIN))


def _cells(found: Mapping[int, Any], columns: Sequence[int], show: Show) -> list[str]:
    """A cell for every count of episodes, empty where nothing was measured."""
    return [show(found[num]) if num in found else "" for num in columns]


def _mean(measure: str) -> Show:
    return lambda values: f"{values.mean():.{DIGITS[measure]}f}"


def _estimated(measure: str, estimate: Estimate) -> Show:
    return lambda values: cell(estimate(values), DIGITS[measure])


def cell(found: Interval, digits: int) -> str:
    """A mean with its interval, where that has a width."""
    if found.low == found.high:
        return f"{found.mean:.{digits}f}"
    return f"{found.mean:.{digits}f} [{found.low:.{digits}f}, {found.high:.{digits}f}]"


def _reference_table(rows: Sequence[Row], split: str) -> Table:
    success, earned = (references(rows, measure, split=split) for measure in MEASURES)
    body = [[n, f"{success[n].mean():.2f}", f"{earned[n].mean():.1f}"] for n in success]
    caption = "For reference, an expert that knows the task, and random actions"
    return Table(caption, ["reference", "success", "return"], body)


def _compared(
    rows: Sequence[Row],
    split: str,
    named: tuple[str, str, int],
    estimate: Callable[[FloatArray, FloatArray], Interval],
) -> Table:
    """Every method beside each one that did worse, on the same tasks.

    `named` is what is told, what stands between the two, and how many digits a figure has.
    """
    what, between, digits = named
    measure = headline(rows, split)
    found = {label: _mean_curve(rows, label, measure, split) for label in ranking(rows, split)}
    columns, body = _columns(rows, split), []
    show = partial(cell, digits=digits)
    for (better, ours), (worse, theirs) in combinations(found.items(), 2):
        both = {
            num: estimate(ours[num], theirs[num])
            for num in columns
            if num in ours and num in theirs
        }
        body.append([f"{better}{between}{worse}", *_cells(both, columns, show)])
    caption = f"{what} in {NAMES[measure]} of the mean policy, by {axis(rows)}"
    return Table(caption, ["methods", *map(str, columns)], body)


def gaps(rows: Sequence[Row], label: str, split: str) -> dict[int, Interval]:
    """The expert's return minus that of the mean policy, by episodes on the new task.

    GMPS's Theorem 4.1 bounds it, after one step and on training tasks, by what the imitation loss
    leaves. Without an expert in the table it is empty.
    """
    expert = references(rows, "episode_return", split=split).get(EXPERT)
    if expert is None:
        return {}
    found = _mean_curve(rows, label, "episode_return", split)
    return {num: difference(expert[None], earned) for num, earned in found.items()}


def meanwhile(rows: Sequence[Row], label: str, split: str) -> dict[int, FloatArray]:
    """Episodes spent -> the mean return of these, the exploring ones, (runs, tasks)."""
    explored = curve(rows, label, "stochastic", "episode_return", split=split)
    per_step, (*before, _) = episodes_per_step(rows)[label], explored.values()
    return {
        per_step * num: np.mean(before[:num], 0, dtype=float) for num in range(1, len(before) + 1)
    }


def lost(rows: Sequence[Row], label: str, split: str) -> dict[int, Interval]:
    """Return lost while adapting: the expert's minus that of the episodes spent, their sum.

    Without an expert in the table it is empty.
    """
    expert = references(rows, "episode_return", split=split).get(EXPERT)
    if expert is None:
        return {}
    spent = meanwhile(rows, label, split)
    return {num: interval(num * (expert - earned)) for num, earned in spent.items()}


def _meanwhile_table(rows: Sequence[Row], split: str, show: Callable[[Interval], str]) -> Table:
    """What the episodes cost, or without an expert what they earned."""
    columns = [num for num in _columns(rows, split) if num]
    found = {label: lost(rows, label, split) for label in labels(rows)}
    what = "Return lost while adapting, the expert's minus that of all episodes spent,"
    if not any(found.values()):
        what = "Mean return of all episodes spent while adapting,"
        for label in found:
            spent = meanwhile(rows, label, split)
            found[label] = {num: interval(earned) for num, earned in spent.items()}
    body = [[label, *_cells(own, columns, show)] for label, own in found.items()]
    return Table(f"{what} by {axis(rows)}", ["method", *map(str, columns)], body)


def _gap_table(rows: Sequence[Row], split: str) -> Table:
    columns = _columns(rows, split)
    show = partial(cell, digits=DIGITS["episode_return"])
    found = {label: gaps(rows, label, split) for label in labels(rows)}
    body = [[label, *_cells(own, columns, show)] for label, own in found.items() if own]
    caption = f"Gap to the expert in return (Theorem 4.1), mean policy, by {axis(rows)}"
    return Table(caption, ["method", *map(str, columns)], body)


def areas(rows: Sequence[Row], label: str, split: str) -> dict[str, float]:
    """What sums up adaptation, of the mean policy's return averaged over runs and tasks.

    "return" is the area under the curve over the first episodes, see `area_budget`, over its width:
    what an episode earns meanwhile. "regret" is the expert's line less that, "share" the regret
    over that of random actions, where these do not earn as much as the expert.
    """
    found = _mean_curve(rows, label, "episode_return", split)
    means = {num: float(cells.mean()) for num, cells in found.items()}
    lines = {n: line.mean() for n, line in references(rows, "episode_return", split=split).items()}
    result = {"return": mean_upto(means, area_budget(rows, split))}
    if EXPERT in lines:
        result["regret"] = lines[EXPERT] - result["return"]
    if {EXPERT, RANDOM} <= lines.keys() and lines[EXPERT] != lines[RANDOM]:
        result["share"] = result["regret"] / (lines[EXPERT] - lines[RANDOM])
    return result


def area_budget(rows: Sequence[Row], split: str) -> int:
    """Three steps of the method that takes most episodes a step, or what all were measured to."""
    own = select(rows, split=split, sweep=MAIN, actor="mean")
    last = {label: max(row.episodes for row in select(own, label=label)) for label in labels(own)}
    return min(_AREA_STEPS * max(episodes_per_step(own).values()), *last.values())


def _areas(rows: Sequence[Row], split: str) -> Table:
    found = {label: areas(rows, label, split) for label in labels(rows)}
    titles = {"return": "return", "regret": "regret", "share": "of random's regret"}
    body = [
        [label, *(f"{v:.0%}" if n == "share" else f"{v:.1f}" for n, v in values.items())]
        for label, values in found.items()
    ]
    caption = (
        f"Return of the mean policy over the first {counted(area_budget(rows, split))} (the area "
        "under its curve over their number), and what it is short of the expert's (regret)"
    )
    return Table(caption, ["method", *(titles[n] for n in next(iter(found.values())))], body)


def _sweep_table(rows: Sequence[Row], split: str, sweep: str, column: str) -> Table:
    """Success or return of the mean policy for every value of a sweep."""
    swept = select(rows, split=split, sweep=sweep, actor="mean")
    measure = headline(rows, split)
    columns = shown(swept)
    show = _estimated(measure, partial(interval, bounds=BOUNDS[measure]))
    body = []
    for label in labels(swept):
        for value in dict.fromkeys(getattr(row, column) for row in swept):
            own = scores(select(swept, label=label, **{column: value}), measure)
            body.append([label, f"{value:g}", *_cells(own, columns, show)])
    name = {BY_ROLLOUTS: "episodes a step", BY_STEP_SCALE: "step-size factor"}[sweep]
    caption = (
        f"{NAMES[measure].capitalize()} of the mean policy against {name}, by episodes on the new "
        "task"
    )
    return Table(caption, ["method", name, *map(str, columns)], body)


def _seed_table(rows: Sequence[Row], split: str, measure: str) -> Table:
    columns, body = _columns(rows, split), []
    for label in labels(rows):
        own = select(rows, label=label, split=split, sweep=MAIN, actor="mean")
        for seed in sorted({row.seed for row in own}):
            found = scores(select(own, seed=seed), measure)
            body.append([label, str(seed), *_cells(found, columns, _mean(measure))])
    caption = f"Per seed, {NAMES[measure]} of the mean policy, by {axis(rows)}"
    return Table(caption, ["method", "seed", *map(str, columns)], body)


def task_table(rows: Sequence[Row], contexts: Sequence[TaskContext], split: str) -> Table:
    """Success and return of the mean policy in every task, means over runs."""
    own = [each for each in contexts if each.split == split]
    header, columns = ["task", "context"], []
    for label in labels(rows):
        success, earned = (_mean_curve(rows, label, measure, split) for measure in MEASURES)
        for num in milestones(rows, split)[label]:
            header.append(f"{label}, {num}")
            cells = zip(success[num].mean(0), earned[num].mean(0), strict=True)
            columns.append([f"{100 * s:.0f}% / {r:.1f}" for s, r in cells])
    body = [
        [
            each.task,
            ", ".join(f"{value:.3g}" for value in each.context.values()),
            *(column[i] for column in columns),
        ]
        for i, each in enumerate(own)
    ]
    caption = "Success / return of the mean policy in every task, by method and episodes"
    return Table(caption, header, body)


def milestones(rows: Sequence[Row], split: str) -> dict[str, tuple[int, ...]]:
    """Method -> the counts of episodes to look at: none, see `equal_budget`, and all, if more."""
    budget = equal_budget(rows, split)
    found = {label: _mean_curve(rows, label, "success", split) for label in labels(rows)}
    equal = {label: last_within(own, budget) for label, own in found.items()}
    if all(max(own) == equal[label] for label, own in found.items()):
        return {label: (0, num) for label, num in equal.items()}
    return {label: (0, equal[label], max(own)) for label, own in found.items()}


def told_table(told: Mapping[str, str]) -> Table:
    """What every method was told; methods that are not installed do not say."""
    body = [[label, words] for label, words in told.items() if words]
    return Table("What methods were told", ["method", "told"], body)


def run_table(runs: Sequence[dict[str, Any]]) -> Table:
    """The runs and what they took; columns that no run fills are left out."""
    named = [name for name in runs[0] if name != CHECKED]
    header = [name for name in named if any(run[name] != "" for run in runs)]
    return Table(f"Runs: {SPENT}", header, [[_text(run[name]) for name in header] for run in runs])


def _text(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def summary(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """One entry per split, method, actor, measure and count of episodes: means with intervals."""
    per_step = episodes_per_step(rows)
    return [
        {"split": split, "label": label, "actor": actor, "measure": measure}
        | {"episodes": num, "step": num // per_step[label]}
        | interval(cells, BOUNDS[measure])._asdict()
        | dict(zip(("iqm", "iqm_low", "iqm_high"), interquartile(cells), strict=True))
        for split in splits(rows)
        for label in labels(rows)
        for actor in ACTORS
        for measure in MEASURES
        for num, cells in curve(rows, label, actor, measure, split=split).items()
    ]


def _by_label(
    found: Callable[[Sequence[Row], str, str], dict[int, Interval]], rows: Sequence[Row], split: str
) -> dict[str, dict[int, dict[str, float]]]:
    """A quantity of every method, by episodes on the new task."""
    return {
        label: {num: estimate._asdict() for num, estimate in found(rows, label, split).items()}
        for label in labels(rows)
    }


def write_json(path: Path, comparison: Comparison, table: str = "") -> dict[str, Any]:
    """Write the summary and the runs behind it as JSON; returns what was written.

    `table` is the SHA-256 of the long table, for who reads that later.
    """
    rows, every = comparison.rows, splits(comparison.rows)
    first = every[0]
    content = {
        "title": comparison.title,
        "verdict": {split: comparison.said(split) for split in every},
        "runs": comparison.runs,
        "facts": comparison.facts,
        "areas": {
            split: {label: areas(rows, label, split) for label in labels(rows)} for split in every
        },
        "told": comparison.told,
        "gap_to_expert": _by_label(gaps, rows, first),
        "lost_while_adapting": _by_label(lost, rows, first),
        "references": {
            measure: {
                name: float(line.mean())
                for name, line in references(rows, measure, split=first).items()
            }
            for measure in MEASURES
        },
        "summary": summary(rows),
        "table": table,
    }
    write_whole(path, json.dumps(content, indent=2) + "\n")
    return content


def markdown(comparison: Comparison) -> str:
    """The comparison as a page: the verdict, every table, the budgets."""
    parts = [f"## {comparison.title}\n"]
    every = splits(comparison.rows)
    for split in every:
        if len(every) > 1:
            parts.append(f"### On {split} tasks\n")
        parts.append(in_cell(comparison.said(split)) + "\n")
        parts += [_markdown(table) for table in tables(comparison.rows, split) if table.body]
    parts += [_markdown(table) for table in [told_table(comparison.told)] if table.body]
    parts.append(_markdown(run_table(comparison.runs)))
    return "\n".join(parts)


def _markdown(table: Table) -> str:
    lines = [table.header, ["---"] * len(table.header), *table.body]
    grid = "\n".join("| " + " | ".join(map(in_cell, line)) + " |" for line in lines)
    return f"{in_cell(table.caption)}:\n\n{grid}\n"
