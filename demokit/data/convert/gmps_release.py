"""The GMPS release's expert data: a folder of pickles, one file per task, and their tasks.

`3.pkl` is a list of episodes of task 3, each a dict with "observations" (T, O), "actions" (T, A)
and "rewards" (T,); `tasks_pool.pkl` holds the tasks in order. There is no last observation.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from demokit.data.convert import Imported, Loss
from demokit.data.convert.foreign import Trajectory, import_foreign, plain_name, repeat_last
from demokit.data.convert.pickles import read_pickle
from demokit.errors import DemokitError
from demokit.types import Array, FloatArray

ORIGIN = "gmps_release"
_TASKS = "tasks_pool"
_ARRAYS = ("observations", "actions", "rewards")


def read(source: Path, env: str | None) -> Imported:
    """The release's folder `source` as a dataset of the family `env`.

    Without `env`, the family is the one whose observations, actions and horizon have the sizes
    found. A family known to demokit whose observations are as wide gets the terms in them as
    privileged terms, and with these each episode's success.

    Raises:
        DemokitError: no episodes there, or pickles that are not those of the release.
    """
    files = _files(source)
    goals = _goals(source / f"{_TASKS}.pkl")
    first = next(_episodes(files[0]))
    family = _family(first, env)
    known = _known(family)
    found = {index: _context(goal, known) for index, goal in goals.items()}
    contexts = {index: context for index, context in found.items() if context is not None}
    names = _paper_names(known, contexts) if known else {}

    def trajectories() -> Iterator[Trajectory]:
        for path in files:
            context = contexts.get(int(path.stem))
            task = names.get(int(path.stem), f"{ORIGIN}/train/{int(path.stem):02d}")
            for episode in _episodes(path):
                yield _trajectory(episode, task, context, known)

    return import_foreign(
        trajectories,
        origin=ORIGIN,
        family=family,
        horizon=known.horizon if known else None,
        task_set="paper" if names else None,
        losses=_left_out(first),
    )


def _files(source: Path) -> list[Path]:
    if not source.is_dir():
        raise DemokitError(f"{source} is no folder: name the folder of the release's pickles.")
    files = [path for path in source.glob("*.pkl") if path.stem.isdecimal()]
    if not files:
        raise DemokitError(f"{source} holds no pickles named by a task's number, such as 0.pkl.")
    return sorted(files, key=lambda path: int(path.stem))


def _episodes(path: Path) -> Iterator[Mapping[str, Any]]:
    """The episodes of one task's file, checked."""
    content = read_pickle(path)
    episodes = content if isinstance(content, list | tuple) else [content]
    for index, episode in enumerate(episodes):
        if not isinstance(episode, dict) or not all(
            isinstance(episode.get(name), np.ndarray) for name in _ARRAYS
        ):
            raise DemokitError(
                f"{path}: episode {index} is no dict with the arrays {', '.join(_ARRAYS)}."
            )
        if episode["observations"].ndim != 2 or episode["rewards"].ndim != 1:
            raise DemokitError(f"{path}: episode {index} has arrays of another shape.")
        yield episode
    if not episodes:
        raise DemokitError(f"{path} holds no episodes.")


def _goals(path: Path) -> dict[int, tuple[float, ...]]:
    """Number of a task -> its goal; empty when the release's list of tasks is not there."""
    if not path.exists():
        return {}
    pool = read_pickle(path)
    tasks = pool.get(_TASKS) if isinstance(pool, dict) else pool
    if not isinstance(tasks, list | tuple | np.ndarray):
        raise DemokitError(f"{path} holds no list of tasks.")
    goals = {index: _goal(task) for index, task in enumerate(tasks)}
    return {index: goal for index, goal in goals.items() if goal is not None}


def _context(goal: tuple[float, ...], family: Any) -> tuple[float, ...] | None:
    """The context that a goal is in demokit's family; None when it is none there.

    The release's ant has goals (x, y) on a ring, the family here their angle.
    """
    if family is None or len(goal) == family.context.width:
        return goal
    if family.context.names == ("goal_angle",) and len(goal) == 2:
        return (math.atan2(goal[1], goal[0]),)
    return None


def _goal(task: Any) -> tuple[float, ...] | None:
    """The numbers of a task: its entry named after a goal, or the task itself."""
    if isinstance(task, dict):
        named = [value for name, value in task.items() if "goal" in str(name)]
        return _goal(named[0]) if len(named) == 1 else None
    values = np.atleast_1d(np.asarray(task))
    if values.ndim != 1 or values.dtype.kind not in "fiu" or not np.isfinite(values).all():
        return None
    return tuple(values.astype(float).tolist()) or None


def _family(episode: Mapping[str, Any], env: str | None) -> str:
    """Name of the family: `env`, or the one that fits the first episode."""
    from demokit.envs import family_names, make_family

    steps, width = episode["observations"].shape
    sizes = width, episode["actions"].shape[-1]
    families = {name: make_family(name) for name in ([env] if env else family_names())
                if name in family_names()}  # fmt: skip
    fitting = [n for n, f in families.items() if (f.observation_width, len(f.actions)) == sizes]
    if env:
        # Other observations are another family: a policy of one cannot act in the other.
        return plain_name(env if fitting or not families else f"{env}-release")
    fitting = [name for name in fitting if families[name].horizon == steps]
    if len(fitting) != 1:
        raise DemokitError(
            f"No one family has {steps} steps with {width} observed numbers and {sizes[1]} "
            "actions: name it with --env."
        )
    return fitting[0]


def _known(family: str) -> Any:
    """The family, if demokit has it."""
    from demokit.envs import family_names, make_family

    return make_family(family) if family in family_names() else None


def _paper_names(family: Any, contexts: Mapping[int, tuple[float, ...]]) -> dict[int, str]:
    """Number -> name in the task set "paper", when all tasks are of its training split."""
    from demokit.envs.tasks import make_tasks, task_sets

    if "paper" not in task_sets(family):
        return {}
    named = {task.context: task.id for task in make_tasks(family, "paper", "train")}
    if not contexts or not all(context in named for context in contexts.values()):
        return {}
    return {i: named[c].removeprefix(f"{family.name}/") for i, c in contexts.items()}


def _trajectory(
    episode: Mapping[str, Any], task: str, context: tuple[float, ...] | None, family: Any
) -> Trajectory:
    observations = np.asarray(episode["observations"], np.float32)
    privileged, success = _terms(observations, context, family)
    return Trajectory(
        task=task,
        observations=observations,
        actions=np.asarray(episode["actions"], np.float32),
        rewards=np.asarray(episode["rewards"], np.float64),
        success=success,
        context=context,
        privileged=privileged,
    )


def _terms(
    observations: FloatArray, context: tuple[float, ...] | None, family: Any
) -> tuple[dict[str, Array], bool | None]:
    """Terms (T+1, width) that the observations hold, and whether the last state is a success."""
    if family is None or context is None:
        return {}, None
    rows = repeat_last(observations).astype(np.float64)
    widths = [term.width for term in family.observation_terms]
    parts = np.split(rows, np.cumsum(widths)[:-1], axis=1)
    terms = dict(zip((term.name for term in family.observation_terms), parts, strict=True))
    try:
        solved = family.success(terms, np.tile(context, (len(rows), 1)))
    except KeyError:  # success depends on a term that is not observed
        return terms, None
    return {**terms, "success": solved}, bool(solved[-1])


def _left_out(episode: Mapping[str, Any]) -> tuple[Loss, ...]:
    """What the release holds besides, by an example; and the rounding."""
    losses = []
    for name, value in sorted(episode.items(), key=lambda item: str(item[0])):
        if name in _ARRAYS or not value:
            continue
        inside = ", ".join(sorted(map(str, value))) if isinstance(value, dict) else "values"
        losses.append(Loss(str(name), f"{inside}: not part of a demokit dataset"))
    rounded = any(
        not np.array_equal(values, values.astype(np.float32))
        for values in (episode["observations"], episode["actions"])
        if math.prod(values.shape)
    )
    if rounded:
        losses.append(Loss("double precision", "observations and actions become float32"))
    return tuple(losses)
