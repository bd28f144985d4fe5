"""The one recording loop: waves of simultaneous episodes, in an order that resuming keeps.

Attempts are numbered across tasks in turn: attempt `n` is the `n // J`-th try at task `n % J`.
Start and noise of an attempt depend on the recording's seed, its task's index and its number
alone, and attempts are accepted strictly in order. So the episodes do not depend on the batch
size, and a recording that was resumed holds exactly what an uninterrupted one would.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np

from demokit.collect import collect
from demokit.envs.batch import SimBatch
from demokit.errors import DemokitError
from demokit.protocols import ActionSource
from demokit.types import Episode, Task

SourceFactory: TypeAlias = Callable[[Sequence[int]], ActionSource]
"""Makes the action source of one wave from the noise seeds of its N episodes."""

TRIES_PER_EPISODE = 10


class Attempt(NamedTuple):
    """The `number`-th try at task `task`, both counted from 0."""

    task: int
    number: int


@dataclass(frozen=True)
class Tried:
    """An attempt that ended: its episode, and whether it was kept."""

    episode: Episode
    kept: bool


def spread(num_episodes: int, num_tasks: int) -> tuple[int, ...]:
    """Episodes wanted of each task: as even as can be, the first tasks get the rest."""
    share, rest = divmod(num_episodes, num_tasks)
    return tuple(share + (task < rest) for task in range(num_tasks))


def attempt_seeds(seed: int, attempt: Attempt) -> tuple[int, int]:
    """Seed of the start and seed of the action noise, both below 2**32."""
    # Not a named stream: a recording that is resumed goes on with the attempts it would have made.
    start, noise = np.random.SeedSequence([seed, *attempt]).generate_state(2)
    return int(start), int(noise)


class Schedule:
    """Which attempts come next: tasks take turns, each until its quota is met.

    Args:
        quotas: episodes wanted of each task.
        only_success: drop failed attempts and try again, at most TRIES_PER_EPISODE times for
            each episode wanted.
        saved: attempts that are already saved, in order.
    """

    def __init__(
        self, quotas: Sequence[int], *, only_success: bool = False, saved: Iterable[Attempt] = ()
    ) -> None:
        self._quotas = tuple(quotas)
        self._only_success = only_success
        self._kept: Counter[int] = Counter()
        self._next = 0
        for attempt in saved:
            self._kept[attempt.task] += 1
            self._next = attempt.number * len(quotas) + attempt.task + 1

    def wave(self, size: int) -> list[Attempt]:
        """The next attempts, at most `size`; empty when nothing is left to do.

        It stops before an attempt that is needed only if one in this wave fails.
        """
        chosen: list[Attempt] = []
        pending: Counter[int] = Counter()
        while len(chosen) < size and self._wanted():
            attempt = Attempt(self._next % len(self._quotas), self._next // len(self._quotas))
            if self._open(attempt.task, attempt.number):
                if self._kept[attempt.task] + pending[attempt.task] >= self._quotas[attempt.task]:
                    break
                chosen.append(attempt)
                pending[attempt.task] += 1
            self._next += 1
        return chosen

    def accept(self, attempt: Attempt, *, success: bool) -> bool:
        """Whether to keep an attempt that ended; call it in the order of `wave`."""
        keep = success or not self._only_success
        self._kept[attempt.task] += keep
        return keep

    def _open(self, task: int, number: int) -> bool:
        """Whether the task still needs episodes and may be tried once more."""
        quota = self._quotas[task]
        spent = self._only_success and number >= TRIES_PER_EPISODE * quota
        return self._kept[task] < quota and not spent

    def _wanted(self) -> bool:
        round_ = self._next // len(self._quotas)
        return any(
            self._open(task, round_ + (task < self._next % len(self._quotas)))
            for task in range(len(self._quotas))
        )


def saved_attempts(
    records: Iterable[tuple[str, Mapping[str, object]]], tasks: Sequence[Task]
) -> list[Attempt]:
    """The attempts of saved episodes, from their task ids and options.

    Raises:
        DemokitError: an episode that this loop did not record.
    """
    index = {task.id: i for i, task in enumerate(tasks)}
    attempts = []
    for task_id, options in records:
        number = options.get("attempt")
        if task_id not in index or not isinstance(number, int):
            raise DemokitError(
                "The saved episodes come from another recorder: record to another --out."
            )
        attempts.append(Attempt(index[task_id], number))
    return attempts


def record(
    sims: SimBatch,
    source: SourceFactory,
    tasks: Sequence[Task],
    schedule: Schedule,
    *,
    seed: int,
    recorder: str,
    on_attempt: Callable[[Tried], None] | None = None,
) -> Iterator[Episode]:
    """Record until the schedule is done; yields the kept episodes, validated, in order.

    Args:
        sims: N simulations; every wave is of at most N episodes.
        source: makes the action source of a wave from N noise seeds. It must act on each
            simulation by itself.
        tasks: the tasks, in the order of the schedule's quotas.
        schedule: which attempts to make.
        seed: the seed of the recording.
        recorder: who acts, as the episodes say it.
        on_attempt: told of every attempt that ended, kept or not.

    Raises:
        DemokitError: an action or a state that is not finite.
    """
    while wave := schedule.wave(sims.num_sims):
        # The batch has a fixed size: spare simulations repeat the last attempt, unseen.
        filled = wave + [wave[-1]] * (sims.num_sims - len(wave))
        seeds = [attempt_seeds(seed, attempt) for attempt in filled]
        episodes = collect(
            sims,
            source([noise for _, noise in seeds]),
            [tasks[attempt.task] for attempt in filled],
            [start for start, _ in seeds],
            recorder=recorder,
            options=[{"attempt": attempt.number} for attempt in filled],
        )
        for attempt, episode in zip(wave, episodes, strict=False):
            kept = schedule.accept(attempt, success=episode.success)
            if on_attempt is not None:
                on_attempt(Tried(episode, kept))
            if kept:
                yield episode
