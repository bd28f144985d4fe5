"""Lines to read a comparison by: what an expert and random actions earn on the same tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from demokit.collect import collect
from demokit.envs.batch import make_sims
from demokit.envs.family import Family
from demokit.errors import DemokitError
from demokit.experts import load_expert
from demokit.protocols import Decision, Expert
from demokit.types import Array, Episode, FloatArray, Task
from gmps.comparison.outcomes import MAIN, REFERENCE, Row

EXPERT, RANDOM = "expert", "random actions"
DEFAULT_EXPERT = "scripted"
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


def reference_rows(
    family: Family,
    tasks: Sequence[Task],
    reward: str,
    rng: np.random.Generator,
    expert: str | None = None,
) -> list[Row]:
    """A row per reference and task.

    Args:
        family: what is acted in.
        tasks: where.
        reward: one of the family's, such as "dense".
        rng: start noise, and the random actions.
        expert: a name or a checkpoint; None takes the scripted expert where there is one.

    Raises:
        DemokitError: the expert that was named cannot be loaded.
    """
    rows = []
    for label, name in ((EXPERT, expert or DEFAULT_EXPERT), (RANDOM, "random")):
        try:
            acting = load_expert(name, family.name)
        except DemokitError:
            if name == expert:
                raise
            continue
        for task, own in zip(tasks, acted(family, acting, tasks, reward, rng), strict=True):
            returns = float(np.mean([episode.episode_return for episode in own]))
            success = float(np.mean([episode.success for episode in own]))
            where = label, 0, task.split, task.id, MAIN, 0, 1.0, 0, REFERENCE
            rows.append(Row(*where, returns, success))
    return rows


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
    sims = make_sims(family, len(repeated), reward=reward)
    nothing: list[Mapping[str, object]] = [{}] * len(repeated)
    recorder = expert.name
    found = collect(sims, _Alone(expert), repeated, seeds, recorder=recorder, options=nothing)
    return [found[i : i + episodes_per_task] for i in range(0, len(found), episodes_per_task)]
