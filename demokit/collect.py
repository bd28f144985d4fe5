"""Episodes of N simulations that an action source drives: what every recording is made of.

The recorders and the meta-learner's expert queries (DAgger) share it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from demokit.errors import DemokitError
from demokit.protocols import ActionSource, Decision
from demokit.types import Array, Episode, FloatArray, Observation, Step, Task

if TYPE_CHECKING:
    from demokit.envs.batch import SimBatch


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
        source: decides the executed actions, and says what the expert would do; both are kept.
        tasks: the N tasks.
        seeds: the N seeds of the start noise.
        recorder: who acts, as the episodes say it.
        options: N mappings to keep with the episodes.

    Raises:
        DemokitError: an action or a state that is not finite.
    """
    builder = EpisodeBuilder(sims, source, tasks, seeds)
    while not builder.ended:
        builder.step()
    return builder.episodes(recorder=recorder, options=options)


class _Rows(NamedTuple):
    """A batch of episodes, time first: (T+1, N, ...) what is seen, (T, N, ...) the rest."""

    observations: Observation
    actions: FloatArray
    rewards: FloatArray
    terminations: Array
    truncations: Array
    success: Array
    privileged: Mapping[str, Array]


class EpisodeBuilder:
    """N episodes in the making, a step at a time: `collect` runs it through, a person stops it.

    Args:
        sims: N simulations; they are reset here.
        source: decides the executed actions, and says what the expert would do.
        tasks: the N tasks.
        seeds: the N seeds of the start noise.
    """

    def __init__(
        self, sims: SimBatch, source: ActionSource, tasks: Sequence[Task], seeds: Sequence[int]
    ) -> None:
        self._sims, self._source = sims, source
        self._tasks, self._seeds = tuple(tasks), tuple(seeds)
        contexts, names = [task.context for task in tasks], [task.id for task in tasks]
        self._observations = [sims.reset(np.array(contexts), seeds, tasks=names)]
        self._actions: list[FloatArray] = []
        self._steps: list[Step] = []
        self._seen: list[dict[str, Array]] = []
        self._ended = np.zeros(sims.num_sims, np.bool_)

    def __len__(self) -> int:
        """T, the number of steps so far."""
        return len(self._steps)

    @property
    def ended(self) -> bool:
        """Whether every simulation has ended at least once."""
        return bool(self._ended.all())

    def step(self) -> Step:
        """Let the source decide and execute it; raises DemokitError for what is not finite."""
        # What is stored is what the simulator executes.
        self._actions.append(self._sims.executed(self._decide().action))
        step = self._sims.step(self._actions[-1])
        self._steps.append(step)
        self._observations.append(step.observation)
        self._ended |= step.terminated | step.truncated
        return step

    def episodes(self, *, recorder: str, options: Sequence[Mapping[str, object]]) -> list[Episode]:
        """The episodes, each up to its first end; call it once, after the last step.

        A simulation that has not ended is cut here, as truncated.

        Raises:
            DemokitError: nothing was recorded, or an action or a state is not finite.
        """
        if not self._steps:
            raise DemokitError("Episode has no steps: record at least one action.")
        self._decide()
        rows = self._rows()
        return [
            _episode(rows, sim, task, seed, recorder, extra)
            for sim, (task, seed, extra) in enumerate(
                zip(self._tasks, self._seeds, options, strict=True)
            )
        ]

    def _decide(self) -> Decision:
        privileged = self._sims.privileged()
        decision = self._source.decide(self._observations[-1], privileged)
        self._seen.append({**privileged, **_who_acted(decision)})
        return decision

    def _rows(self) -> _Rows:
        truncations = np.stack([step.truncated for step in self._steps])
        truncations[-1] |= ~self._ended
        return _Rows(
            observations=_stacked(self._observations),
            actions=np.stack(self._actions),
            rewards=np.stack([step.reward for step in self._steps]),
            terminations=np.stack([step.terminated for step in self._steps]),
            truncations=truncations,
            success=np.stack([step.success for step in self._steps]),
            privileged={n: np.stack([row[n] for row in self._seen]) for n in self._seen[0]},
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


def _who_acted(decision: Decision) -> dict[str, Array]:
    """The privileged terms that a recording adds to those of the family."""
    by_expert = {"by_expert": np.asarray(decision.by_expert, np.bool_)}
    if decision.label is None:
        return by_expert
    return {"expert_action": np.asarray(decision.label, np.float32), **by_expert}


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
