"""Datasets that demokit did not record: what they lack is filled in, marked and reported."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from demokit.data.convert import Imported, Loss
from demokit.data.metadata import (
    ArraySpec,
    DatasetMetadata,
    Provenance,
    Space,
)
from demokit.errors import DemokitError
from demokit.types import Array, Episode, Task

NO_CONTEXT = (0.0,)
_NOT_STORED = {
    "state": "the simulator's state was not stored: episodes cannot be restored or re-simulated",
    "model": "the simulation's model was not stored: its hash is empty",
}
_STAND_INS = {
    "last observation": "the observation before it is repeated, so that there are T+1 rows",
    "context": "0 stands in its place: the source does not describe tasks by numbers",
    "success": "every episode counts as failed",
    "rewards": "0 stands in their place",
}


@dataclass(frozen=True, eq=False)
class Trajectory:
    """An episode of T steps as other formats hold it; None is what they do not say.

    `observations` has T or T+1 rows; `privileged` T+1; `task` names the task within `split`.
    """

    task: str
    observations: Array | Mapping[str, Array]
    actions: Array
    rewards: Array | None
    terminated: bool = False
    success: bool | None = None
    context: tuple[float, ...] | None = None
    split: str = "train"
    seed: int | None = None
    privileged: Mapping[str, Array] = field(default_factory=dict)


@dataclass
class _Survey:
    """What a first pass over the trajectories finds."""

    space: Space
    actions: ArraySpec
    scale: Array
    tasks: dict[str, Task]
    longest: int = 0
    missing: dict[str, str] = field(default_factory=lambda: dict(_NOT_STORED))


def import_foreign(
    trajectories: Callable[[], Iterator[Trajectory]],
    *,
    origin: str,
    family: str,
    horizon: int | None = None,
    task_set: str | None = None,
    license: str | None = None,
    losses: tuple[Loss, ...] = (),
) -> Imported:
    """A dataset from trajectories, which are read twice: to survey them, and to write them.

    Args:
        trajectories: starts a pass over them.
        origin: the format, as the provenance names it.
        family: the task family.
        horizon: the longest an episode may be, in steps; None takes the longest there is.
        task_set: name of the task set; None takes `origin`.
        license: the licence, where the source states it.
        losses: what the reader itself left out.

    Raises:
        DemokitError: no episodes, or episodes that do not fit each other.
    """
    survey = _survey(trajectories(), family)
    metadata = DatasetMetadata(
        family=family,
        reward="dense",
        horizon=max(horizon or 0, survey.longest),
        task_set=task_set or origin,
        tasks=tuple(survey.tasks.values()),
        observation_space=survey.space,
        action_space=survey.actions,
        model_hash="",
        mujoco_version="unknown",
        provenance=Provenance(origin, "unknown", None, None, missing=survey.missing),
        license=license,
        description=f"Imported from {origin}: see its provenance for what is missing.",
    )
    lost = tuple(Loss(what, why) for what, why in survey.missing.items())
    episodes = _Episodes(trajectories, survey, origin)
    return Imported(metadata, episodes, lost + losses)


@dataclass(frozen=True, eq=False)
class _Episodes:
    """Iterable as often as asked, one episode in memory at a time."""

    trajectories: Callable[[], Iterator[Trajectory]]
    survey: _Survey
    origin: str

    def __iter__(self) -> Iterator[Episode]:
        for trajectory in self.trajectories():
            yield _episode(trajectory, self.survey, self.origin)


def plain_name(text: str) -> str:
    """`text` as a name of a family or task: letters, digits, `-`, `_` and `.`."""
    return re.sub(r"[^-\w.]+", "-", text).strip("-").lower() or "unnamed"


def _survey(trajectories: Iterator[Trajectory], family: str) -> _Survey:
    found: _Survey | None = None
    for index, trajectory in enumerate(trajectories):
        _check(trajectory, index)
        space = _space_of(trajectory.observations)
        actions = ArraySpec(trajectory.actions.shape[1:], str(trajectory.actions.dtype), -1.0, 1.0)
        if found is None:
            found = _Survey(space, actions, np.ones(actions.shape), {})
        if (space, actions) != (found.space, found.actions):
            raise DemokitError(
                f"Episode {index} of the source has other shapes or types than episode 0: a "
                "dataset holds episodes of one kind."
            )
        _note(found, trajectory, family)
    if found is None:
        raise DemokitError("The source has no episodes.")
    if (found.scale > 1).any():
        found.missing["action range"] = (
            "actions were divided by their greatest magnitudes "
            f"{json.dumps(found.scale.tolist())} to fit [-1, 1]"
        )
    return found


def _check(trajectory: Trajectory, index: int) -> None:
    """Raise DemokitError when arrays do not fit each other."""
    actions, steps = trajectory.actions, len(trajectory.actions)
    if actions.dtype.kind != "f" or actions.ndim != 2 or not steps:
        raise DemokitError(
            f"Episode {index} of the source has actions of {actions.dtype} {actions.shape}: "
            "demokit holds steps of one vector of floating-point numbers each."
        )
    rows = {len(values) for values in _named(trajectory.observations).values()}
    if not rows or not rows <= {steps, steps + 1} or len(rows) > 1:
        raise DemokitError(
            f"Episode {index} of the source has {steps} actions and {sorted(rows)} observations."
        )
    if not np.isfinite(actions).all():
        raise DemokitError(f"Episode {index} of the source has actions that are not finite.")


def _note(found: _Survey, trajectory: Trajectory, family: str) -> None:
    """Add what a trajectory brings, and what it lacks, to the survey."""
    task = _task(trajectory, family)
    if found.tasks.setdefault(task.id, task) != task:
        raise DemokitError(f"The source gives task {task.id} two different contexts.")
    greatest = np.abs(trajectory.actions).max(0).astype(float)
    found.scale = np.maximum(found.scale, greatest)
    found.longest = max(found.longest, len(trajectory.actions))
    lacks = {
        "last observation": _last_is_missing(trajectory),
        "context": trajectory.context is None,
        "success": trajectory.success is None,
        "rewards": trajectory.rewards is None,
    }
    found.missing.update({what: _STAND_INS[what] for what, is_so in lacks.items() if is_so})


def _task(trajectory: Trajectory, family: str) -> Task:
    task_id = f"{family}/{trajectory.task}"
    return Task(family, task_id, trajectory.context or NO_CONTEXT, trajectory.split)


def _last_is_missing(trajectory: Trajectory) -> bool:
    rows = next(iter(_named(trajectory.observations).values()))
    return len(rows) == len(trajectory.actions)


def _episode(trajectory: Trajectory, survey: _Survey, origin: str) -> Episode:
    steps = len(trajectory.actions)
    task = _task(trajectory, next(iter(survey.tasks.values())).family)
    ended = np.zeros(steps, np.bool_)
    ended[-1] = True
    terminated = ended & trajectory.terminated
    rewards = np.zeros(steps) if trajectory.rewards is None else trajectory.rewards
    actions = trajectory.actions / survey.scale.astype(trajectory.actions.dtype)
    context = np.tile(np.array(task.context), (steps + 1, 1))
    return Episode(
        task=task,
        observations=_with_last(trajectory),
        # Division may round up.
        actions=np.clip(actions, -1, 1).astype(trajectory.actions.dtype),
        rewards=np.asarray(rewards, np.float64),
        terminations=terminated,
        truncations=ended & ~terminated,
        privileged={"context": context, **trajectory.privileged},
        seed=trajectory.seed or 0,
        success=bool(trajectory.success),
        recorder=origin,
    )


def _with_last(trajectory: Trajectory) -> Array | Mapping[str, Array]:
    """The observations with T+1 rows."""
    if not _last_is_missing(trajectory):
        return trajectory.observations
    if isinstance(trajectory.observations, Mapping):
        return {name: repeat_last(rows) for name, rows in trajectory.observations.items()}
    return repeat_last(trajectory.observations)


def repeat_last(rows: Array) -> Array:
    """(T, ...) -> (T+1, ...), the last row twice."""
    return np.concatenate([rows, rows[-1:]])


def _named(observations: Array | Mapping[str, Array]) -> Mapping[str, Array]:
    return observations if isinstance(observations, Mapping) else {"": observations}


def _space_of(observations: Array | Mapping[str, Array]) -> Space:
    if isinstance(observations, Mapping):
        return {name: _spec_of(rows) for name, rows in sorted(observations.items())}
    return _spec_of(observations)


def _spec_of(rows: Array) -> ArraySpec:
    if rows.dtype.kind not in "fu":
        raise DemokitError(
            f"The source has observations of {rows.dtype}: demokit holds floating-point numbers "
            "and images (uint8)."
        )
    bounds = (0.0, 255.0) if rows.dtype == np.uint8 else (-np.inf, np.inf)
    return ArraySpec(rows.shape[1:], str(rows.dtype), *bounds)
