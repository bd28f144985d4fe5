"""Task sets: named, seeded, with splits that are drawn apart.

`paper` holds the tasks published with the GMPS release, or as many as the papers use, drawn once
and for all; `uniform` draws from the family's distribution; `ood` draws outside it. A
distribution that a paper has and the family has not is a set of the paper's name. `dynamics`
draws as `uniform` and physics with it, as further context; its `ood` split has physics out of
distribution.

Each set that is trained on has three splits: `train`, `validation`, which no choice may be made on,
and `monitor`, to watch a training by. They share no task, except in families of a few contexts,
such as two directions, where all have these; of a few that are held out, validation has them alone.
"""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

import numpy as np

from demokit.envs.family import ContextSpace, Family
from demokit.errors import DemokitError, unknown_name
from demokit.random import MAX_SEED, stream
from demokit.types import SPLITS, FloatArray, Task

DEFAULT_NUM_TASKS = 20
PAPER_SEED = 2019
MOST_TASKS = 100_000
"""The most that are drawn at once."""
_DRAWN = ("train", "validation", "monitor")


def task_sets(family: Family) -> dict[str, tuple[str, ...]]:
    """Name of each task set of the family -> its splits; "only" for a family of one task."""
    if family.context.single:
        return {"only": ("train", "monitor")}
    published = tuple(sorted(_paper(family)))
    paper = {"paper": (*published, "monitor")} if published else {}
    ood = {"ood": ("ood",)} if family.context.ood_low else {}
    dynamics = {"dynamics": _dynamics_splits(family.dynamics)} if family.dynamics else {}
    drawn = dict.fromkeys(("uniform", *family.published), _DRAWN)
    return {**paper, **drawn, **ood, **dynamics}


def _dynamics_splits(space: ContextSpace) -> tuple[str, ...]:
    return tuple(split for split in SPLITS if split != "ood" or space.ood_low)


def make_tasks(
    family: Family, task_set: str, split: str, *, num_tasks: int | None = None, seed: int = 0
) -> tuple[Task, ...]:
    """The tasks of a split, or its first `num_tasks`.

    Args:
        family: the task family.
        task_set: "paper" (fixed), "uniform", "ood", "dynamics" or another of the family's (drawn
            from `seed`).
        split: "train", "validation", "ood" or "monitor".
        num_tasks: how many; None takes all of `paper`, or 20 draws; to monitor, no more than there
            are contexts.
        seed: seed of the draws; `paper` ignores it.

    Raises:
        DemokitError: no such task set or split, or more tasks asked for than there are.
    """
    known = task_sets(family)
    if task_set not in known:
        raise unknown_name(f"task set of {family.name}", task_set, tuple(known))
    if split not in known[task_set]:
        raise unknown_name(f"split of task set '{task_set}'", split, known[task_set])
    if num_tasks is not None and not 1 <= num_tasks <= MOST_TASKS:
        raise DemokitError(f"Tasks are from 1 to {MOST_TASKS:,} at once, not {num_tasks:,}.")
    if not 0 <= seed <= MAX_SEED:
        raise DemokitError(f"The seed of tasks is from 0 to {MAX_SEED}, not {seed}.")
    contexts = _contexts(family, task_set, split, num_tasks, seed)
    label = task_set if task_set == "paper" else f"{task_set}-{seed}"
    prefix = f"{family.name}/{label}/{split}"
    chosen = contexts[:num_tasks].tolist()
    return tuple(
        Task(family.name, f"{prefix}/{i:02d}", tuple(c), split) for i, c in enumerate(chosen)
    )


def label_of(family: Family, task_id: str) -> str:
    """What an id of `make_tasks` says of its task set and the seed of its draws, "uniform-0"."""
    return task_id.removeprefix(f"{family.name}/").partition("/")[0]


def task_set_of(family: Family, task_id: str) -> tuple[str, int]:
    """The task set that an id of `make_tasks` names, and the seed of its draws; else ("", 0)."""
    known = task_sets(family)
    label = label_of(family, task_id)
    if label in known:
        return label, 0
    name, _, seed = label.rpartition("-")
    return (name, int(seed)) if name in known and _is_number(seed, MAX_SEED) else ("", 0)


def find_task(family: Family, task_id: str) -> Task:
    """The task of an id that `make_tasks` gives, such as "push/paper/validation/03".

    Raises:
        DemokitError: there is none.
    """
    inner = task_id.removeprefix(f"{family.name}/")  # names of others' environments have "/", too
    _, split, number, *more = [*inner.split("/"), "", ""]
    task_set, seed = task_set_of(family, task_id)
    if task_set and inner != task_id and _is_number(number, MOST_TASKS - 1) and not any(more):
        drawn = {} if task_set == "paper" else {"num_tasks": int(number) + 1, "seed": seed}
        for task in make_tasks(family, task_set, split, **drawn):
            if task.id == task_id:
                return task
    known = next(iter(task_sets(family)))
    first = make_tasks(family, known, task_sets(family)[known][-1], num_tasks=1)[0].id
    raise DemokitError(f"There is no task '{task_id}' of {family.name}: one is {first}.")


def _is_number(text: str, most: int) -> bool:
    """Whether it is a whole number from 0 to `most`."""
    # int() refuses thousands of digits.
    return text.isdecimal() and len(text) <= len(str(most)) and int(text) <= most


def _contexts(
    family: Family, task_set: str, split: str, num_tasks: int | None, seed: int
) -> FloatArray:
    """Contexts of a split that there is; see `make_tasks`."""
    fixed = _paper(family).get(split) if task_set == "paper" else None
    if fixed is None:
        num = num_tasks or _default_num(family, split)
        return _draw(family, task_set, split, num, PAPER_SEED if task_set == "paper" else seed)
    if num_tasks is not None and num_tasks > len(fixed):
        raise DemokitError(
            f"Task set 'paper' of {family.name} has {len(fixed)} {split} tasks, "
            f"not {num_tasks}: ask for fewer, or take --task-set uniform."
        )
    return fixed


def _default_num(family: Family, split: str) -> int:
    known = family.context.num_contexts
    if split == "validation" and family.context.held_out:
        return len(family.context.held_out)
    if known is not None and (known == 1 or split == "monitor"):
        return min(known, DEFAULT_NUM_TASKS)
    return DEFAULT_NUM_TASKS


def _draw(family: Family, task_set: str, split: str, num: int, seed: int) -> FloatArray:
    """Contexts (num, C), or with dynamics (num, C + D); each split has its own random stream."""
    if split == "validation" and family.context.held_out:
        return family.context.sample_held_out(num)
    if task_set in family.published:
        return family.published[task_set].sample(stream(seed, "tasks", task_set, split), num)
    rng = _generator(seed, task_set, split)
    if task_set == "ood":
        return family.context.sample_ood(rng, num)
    contexts = family.context.sample(rng, num)
    if task_set != "dynamics" or family.dynamics is None:
        return contexts
    physics, space = _generator(seed, task_set, split, 1), family.dynamics
    drawn = space.sample_ood(physics, num) if split == "ood" else space.sample(physics, num)
    return np.concatenate([contexts, drawn], axis=1)


def _generator(seed: int, task_set: str, split: str, *part: int) -> np.random.Generator:
    if split == "monitor":
        return stream(seed, "tasks", task_set, split, *part)
    # Not a named stream: datasets and results name tasks by set, seed and split, and mean these.
    return np.random.default_rng([seed, SPLITS.index(split), *part])


def _paper(family: Family) -> dict[str, FloatArray]:
    """Split -> contexts (num, C) of the family's `paper` set; empty where there is none."""
    published: dict[str, Any] = json.loads(
        (files("demokit.envs") / "assets" / "paper_tasks.json").read_text()
    )
    splits = published.get(family.name, {})
    drawn = {
        split: _draw(family, "uniform", split, num, PAPER_SEED)
        for split, num in family.paper_sizes.items()
    }
    return drawn or {name: np.array(splits[name]) for name in splits if name != "context"}
