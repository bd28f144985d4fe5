"""Episodes on the new task: the axis on which methods are compared, each in steps of its own."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from math import log
from typing import NamedTuple, TypeVar

from gmps.comparison.rows import MAIN, REFERENCE, Row, select

_STEPS = {1, 2, 5, 10, 20, 50, 100}
_IF_THERE_IS_ROOM = {3}
_MOST_COLUMNS = 7
_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")

Value = TypeVar("Value", bound=Hashable)


class At(NamedTuple):
    """Where a curve was measured: after so many adaptation steps, that took so many episodes."""

    curve: Hashable
    step: int
    episodes: int


def shown_episodes(measured: Iterable[At]) -> list[int]:
    """All counts of episodes where they are few, else those that tables and ticks show.

    Before adaptation, after the first and the last step of each curve, and of the others those
    that lie furthest from these in ratio.
    """
    found = set(measured)
    every = {at.episodes for at in found}
    if len(every) <= _MOST_COLUMNS:
        return sorted(every)
    ends = set[int]()
    for curve in {at.curve for at in found}:
        own = {at.episodes for at in found if at.curve == curve}
        ends |= {0, min(own - {0}, default=0), max(own)}
    for steps in (_STEPS, _IF_THERE_IS_ROOM):
        others = {at.episodes for at in found if at.step in steps}
        ends = _filled(ends, others - ends)
    return sorted(ends)


def _filled(kept: set[int], others: set[int]) -> set[int]:
    """With others, those first that lie furthest from what is kept, until there is no more room."""
    if not others or len(kept) >= _MOST_COLUMNS:
        return kept

    def distance(num: int) -> float:
        return min(abs(log(num / other)) for other in kept if other)

    furthest = max(sorted(others), key=distance)
    return _filled(kept | {furthest}, others - {furthest})


def shown(rows: Iterable[Row]) -> list[int]:
    """The same of rows of one split."""
    return shown_episodes(
        At((row.label, row.rollouts), row.step, row.episodes)
        for row in rows
        if row.actor != REFERENCE
    )


def episodes_per_step(rows: Iterable[Row]) -> dict[str, int]:
    """Method -> K, the episodes of one of its adaptation steps."""
    return {row.label: row.rollouts for row in rows if row.actor != REFERENCE and row.sweep == MAIN}


def shared(counts: Mapping[str, int]) -> int | None:
    """K, where all methods have the same."""
    return next(iter(counts.values())) if len(set(counts.values())) == 1 else None


def axis(rows: Iterable[Row]) -> str:
    """What the axis is, in words: "episodes on the new task (20 a step)"."""
    by_count = _grouped(episodes_per_step(rows))
    if len(by_count) == 1:
        return f"episodes on the new task ({next(iter(by_count))} a step)"
    told = ", ".join(f"{num} a step of {listed(names)}" for num, names in by_count.items())
    return f"episodes on the new task ({told})"


def equal_budget(rows: Sequence[Row], split: str) -> int:
    """The fewest episodes after which every method has taken an adaptation step.

    Where each takes one episode for it, that says little: as many as all were measured to.
    """
    own = select(rows, split=split, sweep=MAIN)
    fewest = max(row.rollouts for row in select(own, step=1))
    if fewest > 1:
        return fewest
    return min(
        max(r.episodes for r in select(own, label=label)) for label in episodes_per_step(own)
    )


def last_within(measured: Iterable[int], budget: int) -> int:
    """The last of the counts of episodes that a budget allows."""
    return max(episodes for episodes in measured if episodes <= budget)


def steps_taken(rows: Sequence[Row], split: str, budget: int) -> str:
    """How many steps every method has taken by then: "one step of gmps, four of gmps-k5"."""
    taken: dict[str, tuple[int, int]] = {}
    for row in select(rows, split=split, sweep=MAIN, actor="mean"):
        if row.episodes <= budget:
            taken[row.label] = max((row.step, row.episodes), taken.get(row.label, (0, 0)))
    if len(taken) > 1 and len(set(taken.values())) == 1:
        steps = next(iter(taken.values()))[0]
        return f"{_number(steps)} step{'s' * (steps > 1)} of each method"
    parts: list[str] = []
    for (steps, episodes), names in _grouped(taken).items():
        unit = " step" if steps == 1 else " steps"
        short = f" with {episodes} episodes" if episodes < budget else ""
        parts.append(f"{_number(steps)}{'' if parts else unit} of {listed(names)}{short}")
    return ", ".join(parts)


def counted(num: int, what: str = "episode") -> str:
    """A number and its unit: "1 episode", "20 episodes"."""
    return f"{num} {what}" + "s" * (num != 1)


def listed(names: Sequence[str]) -> str:
    """Names in a sentence: "a", "a and b", "a, b and c"."""
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _grouped(values: Mapping[str, Value]) -> dict[Value, list[str]]:
    """Value -> the methods that have it."""
    found: dict[Value, list[str]] = {}
    for name, value in values.items():
        found.setdefault(value, []).append(name)
    return found


def _number(num: int) -> str:
    return _NUMBERS[num] if num < len(_NUMBERS) else str(num)
