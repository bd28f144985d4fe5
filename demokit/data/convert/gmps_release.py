"""The GMPS release's expert data: a folder of pickles, one file per task, and their tasks.

`3.pkl` is a list of episodes of task 3, each a dict with "observations" (T, O), "actions" (T, A)
and "rewards" (T,); `tasks_pool.pkl` holds the tasks in order. There is no last observation.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from demokit.data.convert import Imported
from demokit.data.convert.foreign import (
    About,
    Trajectory,
    import_foreign,
    plain_name,
    repeat_last,
)
from demokit.data.convert.inventory import Inventory, Part, array_of, dict_things, listed
from demokit.data.convert.pickles import read_pickle
from demokit.data.convert.stated import Stated
from demokit.errors import DemokitError
from demokit.types import Array, FloatArray

TAKES: frozenset[str] = frozenset()
ORIGIN = "gmps_release"
_TASKS = "tasks_pool"
_ARRAYS = ("observations", "actions", "rewards")


def read(source: Path, env: str | None, stated: Stated) -> Imported:  # noqa: ARG001
    """The release's folder `source` as a dataset of the family `env`.

    Without `env`, the family is the one whose observations, actions and horizon have the sizes
    found, and not a variant of it such as `push-rotated`. A family known to demokit whose
    observations are as wide gets the terms in them as privileged terms, and with these each
    episode's success.

    Raises:
        DemokitError: no episodes there, or pickles that are not those of the release.
    """
    files = _files(source)
    pool = _pool(source / f"{_TASKS}.pkl")
    first = _first(files)
    family = _family(first, env)
    known = _known(family)
    found = {index: _context(_goal(task), known) for index, task in enumerate(pool)}
    contexts = {index: context for index, context in found.items() if context is not None}
    names = _paper_names(known, contexts) if known else {}
    inventory = Inventory(_head(source, files, pool), ())

    def trajectory(part: Part) -> Trajectory:
        index = int(part.name.partition(".")[0])
        task = names.get(index, f"{ORIGIN}/train/{index:02d}")
        return _trajectory(part, task, contexts.get(index), known)

    about = About(
        ORIGIN,
        family,
        horizon=known.horizon if known else None,
        task_set="paper" if names else None,
    )
    return import_foreign(inventory, partial(_parts, files), trajectory, about)


def _files(source: Path) -> list[Path]:
    if not source.is_dir():
        raise DemokitError(f"{source} is no folder: name the folder of the release's pickles.")
    files = [path for path in source.glob("*.pkl") if path.stem.isdecimal()]
    if not files:
        raise DemokitError(f"{source} holds no pickles named by a task's number, such as 0.pkl.")
    return sorted(files, key=lambda path: int(path.stem))


def _parts(files: Iterable[Path]) -> Iterator[Part]:
    """The episodes of the files, one file in memory at a time."""
    for path in files:
        content = read_pickle(path)
        episodes = content if isinstance(content, list | tuple) else [content]
        for index, episode in enumerate(episodes):
            things = dict_things(episode) if isinstance(episode, dict) else {}
            yield Part(f"{path.name} episode {index}", things)


def _first(files: Iterable[Path]) -> Part:
    """The first episode that has the arrays of the release."""
    for part in _parts(files):
        if all(isinstance(part.get(name), np.ndarray) for name in _ARRAYS):
            return part
    raise DemokitError(f"No dict with the arrays {', '.join(_ARRAYS)}: there is no episode.")


def _head(source: Path, files: list[Path], pool: Sequence[Any]) -> Part:
    """What stands beside the episodes: other pickles, and what the list of tasks holds."""
    others = {path.name for path in source.glob("*.pkl")} - {path.name for path in files}
    things = sorted(others - {f"{_TASKS}.pkl"})
    tasks = [task for task in pool if isinstance(task, dict)]
    keys = dict.fromkeys(str(key) for task in tasks for key in task)
    things += [f"{_TASKS} {key}" for key in keys if "goal" not in key]
    numbers = {int(path.stem) for path in files}
    alone = [str(index) for index in range(len(pool)) if index not in numbers]
    without = f"tasks {listed(alone)} of {_TASKS}"
    head = Part(source.name, dict.fromkeys(things + [without] * bool(alone), _nothing))
    head.explain(without, "left out: they have no episodes")
    return head


def _nothing() -> None:
    """What stands beside the episodes is named, not read."""


def _pool(path: Path) -> Sequence[Any]:
    """The tasks by their numbers; empty when the release's list of tasks is not there."""
    if not path.exists():
        return ()
    pool = read_pickle(path)
    tasks = pool.get(_TASKS) if isinstance(pool, dict) else pool
    if not isinstance(tasks, list | tuple | np.ndarray) or np.ndim(tasks) == 0:
        raise DemokitError(f"{path} holds no list of tasks.")
    return list(tasks)


def _context(goal: tuple[float, ...] | None, family: Any) -> tuple[float, ...] | None:
    """The context that a goal is in demokit's family; None when it is none there.

    The release's ant has goals (x, y) on a ring, the family here their angle.
    """
    if goal is None:
        return None
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
    values = np.atleast_1d(array_of(task, "task"))
    if values.ndim != 1 or values.dtype.kind not in "fiu" or not np.isfinite(values).all():
        return None
    return tuple(values.astype(float).tolist()) or None


def _family(episode: Part, env: str | None) -> str:
    """Name of the family: `env`, or the one that fits the first episode."""
    from demokit.envs import family_names, make_family

    shapes = episode.array("observations").shape, episode.array("actions").shape
    steps, width = (shapes[0] + (0, 0))[:2]
    sizes = width, (shapes[1] or (0,))[-1]
    families = {name: make_family(name) for name in ([env] if env else family_names())
                if name in family_names()}  # fmt: skip
    fitting = [n for n, f in families.items() if (f.observation_width, len(f.actions)) == sizes]
    if env:
        # Other observations are another family: a policy of one cannot act in the other.
        return plain_name(env if fitting or not families else f"{env}-release")
    fitting = _originals({n: families[n] for n in fitting if families[n].horizon == steps})
    if len(fitting) != 1:
        raise DemokitError(
            f"No one family has {steps} steps with {width} observed numbers and {sizes[1]} "
            "actions: name it with --env."
        )
    return fitting[0]


def _originals(families: Mapping[str, Any]) -> list[str]:
    """Names of those that are no variant of another one: a variant is meant where it is named."""
    kinds = [type(family) for family in families.values()]
    return [n for n, family in families.items() if sum(isinstance(family, k) for k in kinds) == 1]


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
    part: Part, task: str, context: tuple[float, ...] | None, family: Any
) -> Trajectory:
    arrays = {name: part.get(name) for name in _ARRAYS}
    missing = [name for name, rows in arrays.items() if not isinstance(rows, np.ndarray)]
    if missing:
        raise DemokitError(f"it is no dict with the arrays {', '.join(_ARRAYS)}")
    if arrays["observations"].ndim != 2 or arrays["rewards"].ndim != 1:
        raise DemokitError("it has observations or rewards of another shape")
    observations, actions = (_rounded(part, name, arrays[name]) for name in _ARRAYS[:2])
    privileged, success = _terms(observations, context, family)
    cut = family is not None and len(actions) == family.horizon
    return Trajectory(
        task=task,
        observations={"": observations},
        actions=actions,
        rewards=arrays["rewards"],
        terminated=False if cut else None,
        success=success,
        context=context,
        privileged=privileged,
    )


def _rounded(part: Part, name: str, rows: Array) -> Array:
    """Numbers of double precision as those of single precision, which is said; others unchanged."""
    if rows.dtype != np.float64:
        return rows
    single = rows.astype(np.float32)
    if not np.array_equal(rows, single, equal_nan=True):
        part.explain(name, "rounded from double to single precision")
    return single


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
