"""Lines to read a comparison by: what an expert and random actions earn on the same tasks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from typing import NamedTuple

import numpy as np

from demokit.collect import collect
from demokit.envs.batch import SimBatch, make_sims
from demokit.envs.family import Family
from demokit.errors import DemokitError
from demokit.experts import NOBODY, expert_names, load_expert
from demokit.experts import RANDOM as RANDOM_EXPERT
from demokit.protocols import Decision, Expert
from demokit.types import Array, Episode, FloatArray, Task
from gmps.comparison.rows import MAIN, REFERENCE, Row
from gmps.experience.demos import Demonstrations, stacked
from gmps.problem import Problem

EXPERT, RANDOM = "expert", "random actions"
SCRIPTED = "scripted"
_EPISODES = 5


class _Alone:
    """An action source: the expert's own actions, without noise."""

    def __init__(self, expert: Expert) -> None:
        self.name = expert.name
        self._expert = expert

    def decide(self, observation: FloatArray, privileged: Mapping[str, Array]) -> Decision:
        """See `ActionSource`."""
        action = self._expert.act(observation, privileged)
        return Decision(action, action, np.ones(len(action), np.bool_))


class Reference(NamedTuple):
    """The expert for reference, None where there is none, and what is to be said about it."""

    expert: Expert | None
    note: str = ""


def choose_reference(family: str, named: str | None, demonstrated: Iterable[str]) -> Reference:
    """The expert that is named, else that of the demonstrations, else the scripted one.

    Args:
        family: name of the task family.
        named: a name or a checkpoint, as somebody typed it.
        demonstrated: names of the experts behind the demonstrations, as files say them: taken
            where they are installed. Empty ones are unknown.

    Raises:
        DemokitError: the expert that was named cannot be loaded.
    """
    if named is not None:
        return Reference(load_expert(named, family))
    shown = sorted({*demonstrated} - {"", NOBODY, RANDOM_EXPERT})
    found = (_installed(name, family) for name in (*(shown if len(shown) == 1 else ()), SCRIPTED))
    expert = next(filter(None, found), None)
    why = "the demonstrations name none"
    if shown:
        several = f"one of {', '.join(shown)}" if len(shown) > 1 else shown[0]
        why = f"that of the demonstrations, {several}, cannot be loaded by its name"
    hint = "name one, or its file, with --expert."
    if expert is None:
        note = f"No expert is shown for reference: {family} has no scripted one, and {why}: {hint}"
    elif shown and expert.name not in shown:
        note = f"The expert for reference is the scripted one, as {why}: {hint}"
    else:
        note = ""
    return Reference(expert, note)


def _installed(name: str, family: str) -> Expert | None:
    """An expert that is installed under that name and knows the family."""
    try:
        return load_expert(name, family) if name in expert_names() else None
    except DemokitError:
        return None


def reference_rows(
    family: Family,
    tasks: Sequence[Task],
    reward: str,
    rng: np.random.Generator,
    expert: Expert | None,
) -> list[Row]:
    """A row per reference and task.

    Args:
        family: what is acted in.
        tasks: where.
        reward: one of the family's, such as "dense".
        rng: start noise, and the random actions.
        expert: beside the random actions.
    """
    rows = []
    for label, acting in ((EXPERT, expert), (RANDOM, _installed(RANDOM_EXPERT, family.name))):
        if acting is None:
            continue
        for task, own in zip(tasks, acted(family, acting, tasks, reward, rng), strict=True):
            returns = float(np.mean([episode.episode_return for episode in own]))
            success = float(np.mean([episode.success for episode in own]))
            where = label, 0, task.split, task.id, MAIN, 0, 1.0, 0, REFERENCE
            rows.append(Row(*where, returns, success))
    return rows


def demonstrated(
    problem: Problem, expert: Expert, tasks: Sequence[Task], num: int, rng: np.random.Generator
) -> Demonstrations:
    """`num` episodes of the expert alone in each task, as its policies see them."""
    repeated = [task for task in tasks for _ in range(num)]
    seeds = [int(seed) for seed in rng.integers(2**31, size=len(repeated))]
    found = _alone(problem.simulations(len(repeated)), expert, repeated, seeds)
    return stacked(problem.family, found, [episode.actions for episode in found], len(tasks))


def acted(
    family: Family,
    expert: Expert,
    tasks: Sequence[Task],
    reward: str,
    rng: np.random.Generator,
    episodes_per_task: int = _EPISODES,
) -> list[list[Episode]]:
    """Episodes of the expert alone, a list per task."""
    repeated = [task for task in tasks for _ in range(episodes_per_task)]
    seeds = [int(seed) for seed in rng.integers(2**31, size=len(repeated))]
    found = _alone(make_sims(family, len(repeated), reward=reward), expert, repeated, seeds)
    return [found[i : i + episodes_per_task] for i in range(0, len(found), episodes_per_task)]


def _alone(
    sims: SimBatch, expert: Expert, tasks: Sequence[Task], seeds: Sequence[int]
) -> list[Episode]:
    """An episode of the expert in each simulation; they are closed then."""
    nothing: list[Mapping[str, object]] = [{}] * len(tasks)
    with closing(sims):
        return collect(sims, _Alone(expert), tasks, seeds, recorder=expert.name, options=nothing)
