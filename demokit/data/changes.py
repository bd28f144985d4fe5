"""Which episodes to keep of a dataset, and what becomes of each: trimmed, renamed, marked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from demokit.data.layout import EpisodeRecord
from demokit.errors import DemokitError
from demokit.ranges import parse_ranges, spell_ranges
from demokit.types import Array, Episode, Task

SUCCESS_MARKED = "success_marked"
"""The option of an episode whose success a person stated, whatever its last state says."""
KEPT_STEPS = "kept_steps"
"""The option of a trimmed episode: its steps START, STOP in the one that was recorded."""
_STEPS = re.compile(r"(?:(?P<numbers>[^=]*)=)?(?P<start>[0-9]{0,12}):(?P<stop>[0-9]{0,12})")


@dataclass(frozen=True)
class Selection:
    """Which episodes to keep; None and () keep all.

    Attributes:
        tasks: task ids, or patterns such as "*/03".
        splits: of "train", "validation", "ood", "monitor".
        recorders: names of recorders.
        success: only the successful, or only the failed.
        min_return: the least undiscounted return.
        episodes: numbers, counted from 0.
        drop: numbers of episodes to leave out.
    """

    tasks: tuple[str, ...] = ()
    splits: tuple[str, ...] = ()
    recorders: tuple[str, ...] = ()
    success: bool | None = None
    min_return: float | None = None
    episodes: frozenset[int] | None = None
    drop: frozenset[int] = frozenset()

    def keeps(self, record: EpisodeRecord) -> bool:
        """Whether an episode is chosen."""
        return (
            (self.episodes is None or record.index in self.episodes)
            and record.index not in self.drop
            and (not self.tasks or any(fnmatchcase(record.task.id, t) for t in self.tasks))
            and (not self.splits or record.task.split in self.splits)
            and (not self.recorders or record.recorder in self.recorders)
            and (self.success is None or record.success == self.success)
            and (self.min_return is None or record.episode_return >= self.min_return)
        )

    def words(self) -> list[str]:
        """As the options of `demokit filter`."""
        lists = {"task": self.tasks, "split": self.splits, "recorder": self.recorders}
        given = [(f"--{name}", value) for name, values in lists.items() for value in values]
        if self.min_return is not None:
            given.append(("--min-return", f"{self.min_return:.17g}"))
        if self.episodes is not None:
            given.append(("--episode", spell_ranges(self.episodes)))
        if self.drop:
            given.append(("--drop", spell_ranges(self.drop)))
        solved = {None: [], True: ["--success"], False: ["--failure"]}[self.success]
        return [*(word for pair in given for word in pair), *solved]


@dataclass(frozen=True)
class Trim:
    """Keep steps start:stop, as of a slice, of the episodes with these numbers; None: of all."""

    start: int = 0
    stop: int | None = None
    numbers: frozenset[int] | None = None

    @classmethod
    def parsed(cls, text: str) -> Trim:
        """The inverse of `str`; raises DemokitError for what is none."""
        match = _STEPS.fullmatch(text.strip())
        if match is None or not (match["start"] or match["stop"]):
            raise DemokitError(
                f"--trim '{text}' says no steps: write START:STOP such as 0:80, or for some "
                "episodes 3,7-9=0:80."
            )
        start, stop = int(match["start"] or 0), int(match["stop"]) if match["stop"] else None
        if stop is not None and stop <= start:
            raise DemokitError(f"--trim {text} keeps no step: the second number is the greater.")
        named = match["numbers"]
        return cls(start, stop, None if named is None else parse_ranges([named], "--trim"))

    def __str__(self) -> str:
        """As an option says it: 3,7-9=0:80."""
        numbers = "" if self.numbers is None else f"{spell_ranges(self.numbers)}="
        return f"{numbers}{self.start}:{'' if self.stop is None else self.stop}"


@dataclass(frozen=True)
class Changes:
    """What becomes of the chosen episodes.

    Attributes:
        trims: which steps to keep; of several that name an episode, the last counts.
        renames: task id -> its new id.
        solved: numbers of episodes that a person calls successful.
        failed: numbers of episodes that a person calls failed.
    """

    trims: tuple[Trim, ...] = ()
    renames: Mapping[str, str] = field(default_factory=dict)
    solved: frozenset[int] = frozenset()
    failed: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        """Raise DemokitError where an episode is called both, or a task nothing."""
        if not all(name.strip() for name in self.renames.values()):
            raise DemokitError("A task cannot be renamed to nothing: say its new name.")
        if both := self.solved & self.failed:
            raise DemokitError(f"Episode {min(both)} is marked both: as a success, or a failure.")

    @property
    def numbers(self) -> frozenset[int]:
        """All episodes that are named."""
        return self.solved.union(self.failed, *(trim.numbers or () for trim in self.trims))

    def words(self) -> list[str]:
        """As the options of `demokit filter`."""
        words = [word for trim in self.trims for word in ("--trim", str(trim))]
        for old, new in self.renames.items():
            words += ["--rename-task", old, new]
        for name, numbers in (("success", self.solved), ("failure", self.failed)):
            words += [f"--mark-{name}", spell_ranges(numbers)] if numbers else []
        return words

    def renamed(self, task: Task) -> Task:
        """The task under its new name."""
        return replace(task, id=self.renames.get(task.id, task.id))

    def changed(self, number: int, episode: Episode) -> Episode:
        """The episode as asked for; raises DemokitError where no step of it would be left."""
        for trim in reversed(self.trims):
            if trim.numbers is None or number in trim.numbers:
                episode = _trimmed(number, episode, trim)
                break
        if number in self.solved | self.failed:
            options = {**episode.options, SUCCESS_MARKED: True}
            episode = replace(episode, success=number in self.solved, options=options)
        return replace(episode, task=self.renamed(episode.task))


def _trimmed(number: int, episode: Episode, trim: Trim) -> Episode:
    """The steps of a trim; where the steps say so, success is that of the last one."""
    start, stop = trim.start, min(len(episode), trim.stop or len(episode))
    if start >= stop:
        raise DemokitError(
            f"Episode {number} has {len(episode)} steps: --trim {trim} would leave none of it."
        )
    if stop - start == len(episode):
        return episode
    steps, rows = slice(start, stop), slice(start, stop + 1)
    seen = {name: values[rows] for name, values in episode.named_observations().items()}
    truncations = episode.truncations[steps].copy()
    truncations[-1] = not episode.terminations[stop - 1]
    before = _first_kept(episode.options)
    return replace(
        episode,
        observations=seen if isinstance(episode.observations, Mapping) else seen[""],
        actions=episode.actions[steps],
        rewards=episode.rewards[steps],
        terminations=episode.terminations[steps],
        truncations=truncations,
        privileged={name: values[rows] for name, values in episode.privileged.items()},
        success=_success_at(episode, stop),
        options={**episode.options, KEPT_STEPS: [before + start, before + stop]},
    )


def _success_at(episode: Episode, row: int) -> bool:
    solved: Array | None = episode.privileged.get("success")
    if solved is None or episode.options.get(SUCCESS_MARKED):
        return episode.success
    return bool(solved[row])


def _first_kept(options: Mapping[str, Any]) -> int:
    """The recorded step that an episode begins with; an earlier trim says it."""
    steps = np.asarray(options.get(KEPT_STEPS, 0))
    return int(steps.flat[0]) if steps.size and steps.dtype.kind in "iu" else 0
