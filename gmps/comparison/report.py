"""A comparison as people read it: a verdict, tables, Markdown and JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from demokit.types import FloatArray
from demokit.writing import write_whole
from gmps.comparison.outcomes import (
    ACTORS,
    BOUNDS,
    BY_ROLLOUTS,
    BY_STEP_SCALE,
    MAIN,
    MEASURES,
    Row,
    TaskContext,
    curve,
    labels,
    references,
    scores,
    select,
    splits,
)
from gmps.comparison.references import EXPERT, RANDOM
from gmps.comparison.statistics import (
    Interval,
    area,
    area_over_rollouts,
    difference,
    interquartile,
    interval,
)

AREA_STEPS = 3
NAMES = {"episode_return": "return", "success": "success"}
DIGITS = {"episode_return": 1, "success": 2}
_STEPS = (0, 1, 2, 3, 5, 10, 20, 50, 100)
_MOST_COLUMNS = 7


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
    """

    title: str
    rows: list[Row]
    contexts: list[TaskContext]
    runs: list[dict[str, Any]]
    facts: dict[str, str]
    options: dict[str, dict[str, str]]


class Table(NamedTuple):
    """A table under a caption; the first column names the row."""

    caption: str
    header: list[str]
    body: list[list[str]]


def verdict(rows: Sequence[Row], split: str) -> str:
    """Who does best after one step, by how much, and whether the data settle it."""
    measure = headline(rows, split)
    best, *others = ranking(rows, split)
    after = after_one_step(rows, best, measure, split)
    parts = [
        f"After one policy-gradient step on each of the {after.shape[1]} {split} tasks, {best} "
        f"{_achieves(measure, float(after.mean()))}."
    ]
    parts += [_behind(rows, split, measure, best, other) for other in others]
    expert = references(rows, measure, split=split).get(EXPERT)
    if expert is not None:
        found = _achieves(measure, float(expert.mean()))
        parts.append(f"The expert, who is told the task, {found}.")
    return " ".join(parts)


def _behind(rows: Sequence[Row], split: str, measure: str, best: str, other: str) -> str:
    """By how much a method is behind the best; in return where both succeed alike."""
    theirs = after_one_step(rows, other, measure, split)
    found = _achieves(measure, float(theirs.mean()))
    ours = after_one_step(rows, best, measure, split)
    if measure == "success" and not np.ptp(np.concatenate([ours, theirs]), axis=0).any():
        measure = "episode_return"
        ours, theirs = (after_one_step(rows, each, measure, split) for each in (best, other))
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
    """The methods from the best after one step to the worst."""

    def key(label: str) -> tuple[float, float]:
        success, earned = (
            float(after_one_step(rows, label, measure, split).mean()) for measure in MEASURES
        )
        return success, earned

    return sorted(labels(rows), key=key, reverse=True)


def after_one_step(rows: Sequence[Row], label: str, measure: str, split: str) -> FloatArray:
    """Scores (runs, tasks) of a method's mean policy after one adaptation step."""
    return _mean_curve(rows, label, measure, split)[1]


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
            yield _by_step(
                rows, split, actor, measure, "", partial(interval, bounds=BOUNDS[measure])
            )
    for measure in MEASURES:
        yield _by_step(rows, split, "mean", measure, "interquartile mean", interquartile)
    if references(rows, "success", split=split):
        yield _reference_table(rows, split)
    yield _differences(rows, split)
    yield _gap_table(rows, split)
    yield _areas(rows, split)
    for sweep, column in ((BY_ROLLOUTS, "rollouts"), (BY_STEP_SCALE, "step_scale")):
        if select(rows, split=split, sweep=sweep):
            yield _sweep_table(rows, split, sweep, column)
    for measure in MEASURES:
        yield _seed_table(rows, split, measure)


def plain_tables(rows: Sequence[Row], split: str) -> Iterator[Table]:
    """Success and return by adaptation step, without intervals: for a terminal."""
    for measure in MEASURES:
        digits = DIGITS[measure]
        body, steps = [], []
        for label in labels(rows):
            for actor in ACTORS:
                found = curve(rows, label, actor, measure, split=split)
                steps = shown_steps(found)
                means = [f"{found[step].mean():.{digits}f}" for step in steps]
                body.append([label, actor, *means])
        for name, line in references(rows, measure, split=split).items():
            body.append([name, "reference", f"{line.mean():.{digits}f}", *[""] * (len(steps) - 1)])
        caption = f"{NAMES[measure].capitalize()} after so many policy-gradient steps"
        yield Table(caption, ["method", "policy", *map(str, steps)], body)


def _by_step(
    rows: Sequence[Row], split: str, actor: str, measure: str, what: str, estimate: Any
) -> Table:
    name, digits = NAMES[measure].capitalize(), DIGITS[measure]
    body, steps = [], []
    for label in labels(rows):
        found = curve(rows, label, actor, measure, split=split)
        steps = shown_steps(found)
        body.append([label, *(cell(estimate(found[step]), digits) for step in steps)])
    how = f", {what}" if what else ""
    caption = f"{name} of the {actor} policy{how}, by adaptation steps"
    return Table(caption, ["method", *map(str, steps)], body)


def shown_steps(steps: Iterable[int]) -> list[int]:
    """All steps where they are few, else those that the tables show; the last is among them."""
    every = sorted(steps)
    if len(every) <= _MOST_COLUMNS:
        return every
    return [step for step in every if step in _STEPS or step == every[-1]]


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


def _differences(rows: Sequence[Row], split: str) -> Table:
    """The best method minus each other one, on the same tasks."""
    best, *others = ranking(rows, split)
    measure = headline(rows, split)
    ours, bounds = _mean_curve(rows, best, measure, split), BOUNDS[measure]
    steps = shown_steps(ours)
    body = []
    for other in others:
        theirs = _mean_curve(rows, other, measure, split)
        cells = [cell(difference(ours[s], theirs[s], bounds), DIGITS[measure]) for s in steps]
        body.append([f"{best} - {other}", *cells])
    caption = f"Differences in {NAMES[measure]} of the mean policy, by adaptation steps"
    return Table(caption, ["difference", *map(str, steps)], body)


def gaps(rows: Sequence[Row], label: str, split: str) -> dict[int, Interval]:
    """The expert's return minus that of the mean policy, by adaptation steps.

    GMPS's Theorem 4.1 bounds it, after one step and on training tasks, by what the imitation loss
    leaves. Without an expert in the table it is empty.
    """
    expert = references(rows, "episode_return", split=split).get(EXPERT)
    if expert is None:
        return {}
    found = _mean_curve(rows, label, "episode_return", split)
    return {step: difference(expert[None], earned) for step, earned in found.items()}


def _gap_table(rows: Sequence[Row], split: str) -> Table:
    body, steps = [], []
    for label in labels(rows):
        found = gaps(rows, label, split)
        steps = shown_steps(found)
        if found:
            body.append([label, *(cell(found[s], DIGITS["episode_return"]) for s in steps)])
    caption = "Gap to the expert in return (Theorem 4.1), mean policy, by adaptation steps"
    return Table(caption, ["method", *map(str, steps)], body)


def areas(rows: Sequence[Row], label: str, split: str) -> dict[str, float]:
    """Areas that sum up adaptation, of the mean policy's return averaged over runs and tasks.

    "area" lies under the curve over steps 0 to 3. "regret over steps" and "regret over roll-outs"
    lie between it and the expert's line, up to three steps and up to the roll-outs that the
    method with the least has spent by then; "share" is the former over that of random actions.
    """
    found = _means(_mean_curve(rows, label, "episode_return", split))
    lines = {n: line.mean() for n, line in references(rows, "episode_return", split=split).items()}
    result = {"area": area(found, AREA_STEPS)}
    if EXPERT in lines:
        regret = lines[EXPERT] - found
        result["regret over steps"] = area(regret, AREA_STEPS)
        rollouts = _rollouts_of(rows, label, split)
        result["regret over roll-outs"] = area_over_rollouts(regret, rollouts, budget(rows, split))
    if {EXPERT, RANDOM} <= lines.keys():
        worst = area(np.full(len(found), lines[EXPERT] - lines[RANDOM]), AREA_STEPS)
        result["share"] = result["regret over steps"] / worst if worst else float("nan")
    return result


def budget(rows: Sequence[Row], split: str) -> int:
    """Roll-outs that every method has spent after AREA_STEPS steps or fewer."""
    last = max(row.step for row in select(rows, split=split, sweep=MAIN))
    least = min(_rollouts_of(rows, label, split) for label in labels(rows))
    return min(AREA_STEPS, last) * least


def _rollouts_of(rows: Sequence[Row], label: str, split: str) -> int:
    return select(rows, label=label, split=split, sweep=MAIN)[0].rollouts


def _means(found: dict[int, FloatArray]) -> FloatArray:
    return np.array([cells.mean() for cells in found.values()])


def _areas(rows: Sequence[Row], split: str) -> Table:
    found = {label: areas(rows, label, split) for label in labels(rows)}
    columns = list(next(iter(found.values())))
    titles = {
        "area": "area under the return",
        "regret over steps": "regret over steps",
        "regret over roll-outs": f"regret over the first {budget(rows, split)} roll-outs",
        "share": "of random's regret",
    }
    body = [
        [label, *(f"{v:.0%}" if n == "share" else f"{v:.1f}" for n, v in values.items())]
        for label, values in found.items()
    ]
    last = min(AREA_STEPS, max(row.step for row in rows))
    caption = f"Areas over steps 0 to {last}, return of the mean policy"
    return Table(caption, ["method", *(titles[name] for name in columns)], body)


def _sweep_table(rows: Sequence[Row], split: str, sweep: str, column: str) -> Table:
    """Success and return of the mean policy for every value of a sweep."""
    swept = select(rows, split=split, sweep=sweep, actor="mean")
    measure = headline(rows, split)
    body, steps = [], []
    for label in labels(swept):
        for value in dict.fromkeys(getattr(row, column) for row in swept):
            own = scores(select(swept, label=label, **{column: value}), measure)
            steps = shown_steps(own)
            cells = [cell(interval(own[step], BOUNDS[measure]), DIGITS[measure]) for step in steps]
            body.append([label, f"{value:g}", *cells])
    name = {BY_ROLLOUTS: "roll-outs per step", BY_STEP_SCALE: "step-size factor"}[sweep]
    caption = f"{NAMES[measure].capitalize()} of the mean policy against {name}"
    return Table(caption, ["method", name, *map(str, steps)], body)


def _seed_table(rows: Sequence[Row], split: str, measure: str) -> Table:
    body, steps = [], []
    for label in labels(rows):
        own = select(rows, label=label, split=split, sweep=MAIN, actor="mean")
        for seed in sorted({row.seed for row in own}):
            found = scores(select(own, seed=seed), measure)
            steps = shown_steps(found)
            means = [f"{found[step].mean():.{DIGITS[measure]}f}" for step in steps]
            body.append([label, str(seed), *means])
    caption = f"Per seed, {NAMES[measure]} of the mean policy"
    return Table(caption, ["method", "seed", *map(str, steps)], body)


def task_table(rows: Sequence[Row], contexts: Sequence[TaskContext], split: str) -> Table:
    """Success and return of the mean policy in every task, means over runs."""
    own = [each for each in contexts if each.split == split]
    header, columns = ["task", "context"], []
    for label in labels(rows):
        success, earned = (_mean_curve(rows, label, measure, split) for measure in MEASURES)
        for step in (0, 1, max(success)):
            header.append(f"{label}, {step}")
            cells = zip(success[step].mean(0), earned[step].mean(0), strict=True)
            columns.append([f"{100 * s:.0f}% / {r:.1f}" for s, r in cells])
    body = [
        [
            each.task,
            ", ".join(f"{value:.3g}" for value in each.context.values()),
            *(column[i] for column in columns),
        ]
        for i, each in enumerate(own)
    ]
    caption = "Success / return of the mean policy in every task, by method and adaptation steps"
    return Table(caption, header, body)


def run_table(runs: Sequence[dict[str, Any]]) -> Table:
    """The runs and what they took."""
    caption = "Runs and their budget in environment steps: demonstrations, roll-outs and the search"
    return Table(caption, list(runs[0]), [[_text(value) for value in r.values()] for r in runs])


def _text(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def summary(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """One entry per split, method, actor, measure and step: means with intervals."""
    return [
        {"split": split, "label": label, "actor": actor, "measure": measure, "step": step}
        | interval(cells, BOUNDS[measure])._asdict()
        | dict(zip(("iqm", "iqm_low", "iqm_high"), interquartile(cells), strict=True))
        for split in splits(rows)
        for label in labels(rows)
        for actor in ACTORS
        for measure in MEASURES
        for step, cells in curve(rows, label, actor, measure, split=split).items()
    ]


def write_json(path: Path, comparison: Comparison) -> dict[str, Any]:
    """Write the summary and the runs behind it as JSON; returns what was written."""
    rows, every = comparison.rows, splits(comparison.rows)
    first = every[0]
    content = {
        "title": comparison.title,
        "verdict": {split: verdict(rows, split) for split in every},
        "runs": comparison.runs,
        "facts": comparison.facts,
        "area_under_return": {label: areas(rows, label, first)["area"] for label in labels(rows)},
        "areas": {
            split: {label: areas(rows, label, split) for label in labels(rows)} for split in every
        },
        "gap_to_expert": {
            label: {step: found._asdict() for step, found in gaps(rows, label, first).items()}
            for label in labels(rows)
        },
        "references": {
            measure: {
                name: float(line.mean())
                for name, line in references(rows, measure, split=first).items()
            }
            for measure in MEASURES
        },
        "summary": summary(rows),
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
        parts.append(verdict(comparison.rows, split) + "\n")
        parts += [_markdown(table) for table in tables(comparison.rows, split) if table.body]
    parts.append(_markdown(run_table(comparison.runs)))
    return "\n".join(parts)


def _markdown(table: Table) -> str:
    lines = [table.header, ["---"] * len(table.header), *table.body]
    grid = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return f"{table.caption}:\n\n{grid}\n"
