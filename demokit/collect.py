"""Episodes of N simulations that an action source drives: what every recording is made of.

The recorders and the meta-learner's expert queries (DAgger) share it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from demokit.envs.batch import SimBatch
from demokit.protocols import ActionSource, Decision
from demokit.types import Array, Episode, FloatArray, Observation, Task


def collect(
    sims: SimBatch,
    source: ActionSource,
    tasks: Sequence[Task],
    seeds: Sequence[int],
    *,
    recorder: str,
    options: Sequence[Mapping[str, object]],
) -> list[Episode]:
    """Run N simulations until each has ended once; returns their episodes, validated.

    Args:
        sims: N simulations.
        source: decides the executed actions and the expert's labels; both are kept.
        tasks: the N tasks.
        seeds: the N seeds of the start noise.
        recorder: who acts, as the episodes say it.
        options: N mappings to keep with the episodes.

    Raises:
        DemokitError: an action or a state that is not finite.
    """
    rows = _run(sims, source, tasks, seeds)
    return [
        _episode(rows, sim, task, seed, recorder, extra)
        for sim, (task, seed, extra) in enumerate(zip(tasks, seeds, options, strict=True))
    ]


class _Rows(NamedTuple):
    """A batch of episodes, time first: (T+1, N, ...) what is seen, (T, N, ...) the rest."""

    observations: Observation
    actions: FloatArray
    rewards: FloatArray
    terminations: Array
    truncations: Array
    success: Array
    privileged: Mapping[str, Array]


def _run(
    sims: SimBatch, source: ActionSource, tasks: Sequence[Task], seeds: Sequence[int]
) -> _Rows:
    """Step N simulations until each of them has ended once."""
    observation = sims.reset(np.array([task.context for task in tasks]), seeds)
    observations, actions, steps, seen = [observation], [], [], []
    ended = np.zeros(sims.num_sims, np.bool_)
    while True:
        privileged = sims.privileged()
        decision = source.decide(observation, privileged)
        seen.append({**privileged, **_labels(decision)})
        if ended.all():
            break
        # What is stored is what the simulator executes.
        actions.append(np.clip(np.asarray(decision.action, np.float32), -1, 1))
        steps.append(sims.step(actions[-1]))
        observation = steps[-1].observation
        observations.append(observation)
        ended |= steps[-1].terminated | steps[-1].truncated
    return _Rows(
        observations=_stacked(observations),
        actions=np.stack(actions),
        rewards=np.stack([step.reward for step in steps]),
        terminations=np.stack([step.terminated for step in steps]),
        truncations=np.stack([step.truncated for step in steps]),
        success=np.stack([step.success for step in steps]),
        privileged={name: np.stack([row[name] for row in seen]) for name in seen[0]},
    )


def _stacked(observations: Sequence[Observation]) -> Observation:
    """Observations of all steps, time first; mappings stay mappings."""
    if isinstance(observations[0], Mapping):
        return {name: np.stack([each[name] for each in observations]) for name in observations[0]}
    return np.stack(observations)


def _one_of(observations: Observation, rows: int, sim: int) -> Observation:
    """The first rows of one simulation."""
    if isinstance(observations, Mapping):
        return {name: values[:rows, sim].copy() for name, values in observations.items()}
    return observations[:rows, sim].copy()


def _labels(decision: Decision) -> dict[str, Array]:
    """The privileged terms that a recording adds to those of the family."""
    return {
        "expert_action": np.asarray(decision.label, np.float32),
        "by_expert": np.asarray(decision.by_expert, np.bool_),
    }


def _episode(
    rows: _Rows, sim: int, task: Task, seed: int, recorder: str, options: Mapping[str, object]
) -> Episode:
    """One simulation of a batch, cut where it ended first."""
    ended = rows.terminations[:, sim] | rows.truncations[:, sim]
    steps = int(ended.argmax()) + 1
    return Episode(
        task=task,
        observations=_one_of(rows.observations, steps + 1, sim),
        actions=rows.actions[:steps, sim].copy(),
        rewards=np.asarray(rows.rewards[:steps, sim], np.float64),
        terminations=rows.terminations[:steps, sim].copy(),
        truncations=rows.truncations[:steps, sim].copy(),
        privileged={
            name: values[: steps + 1, sim].copy() for name, values in rows.privileged.items()
        },
        seed=seed,
        success=bool(rows.success[steps - 1, sim]),
        recorder=recorder,
        options=dict(options),
    )
