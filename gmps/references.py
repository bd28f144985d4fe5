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
from demokit.types import Array, FloatArray, Task
from gmps.report import REFERENCE, Row

REFERENCES = {"expert": "scripted", "random actions": "random"}
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
    family: Family, tasks: Sequence[Task], reward: str, rng: np.random.Generator
) -> list[Row]:
    """A row per reference and task; a family without a scripted expert has none of it."""
    rows = []
    for label, name in REFERENCES.items():
        try:
            source = _Alone(load_expert(name, family.name))
        except DemokitError:
            continue
        repeated = [task for task in tasks for _ in range(_EPISODES)]
        seeds = [int(seed) for seed in rng.integers(2**31, size=len(repeated))]
        sims = make_sims(family, len(repeated), reward=reward)
        nothing: list[Mapping[str, object]] = [{}] * len(repeated)
        episodes = collect(sims, source, repeated, seeds, recorder=name, options=nothing)
        for i, task in enumerate(tasks):
            own = episodes[i * _EPISODES : (i + 1) * _EPISODES]
            returns = float(np.mean([episode.episode_return for episode in own]))
            success = float(np.mean([episode.success for episode in own]))
            rows.append(Row(label, 0, task.id, 0, REFERENCE, returns, success))
    return rows
