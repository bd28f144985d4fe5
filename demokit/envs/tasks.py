"""Task sets: named, seeded, with splits that are drawn apart.

`paper` holds the tasks published with the GMPS release, or as many as the papers use, drawn once
and for all; `uniform` draws from the family's distribution; `ood` draws outside it. `dynamics`
draws as `uniform` and physics with it, as further context; its `ood` split has physics out of
distribution.
"""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

import numpy as np

from demokit.envs.family import Family
from demokit.errors import DemokitError, unknown_name
from demokit.types import SPLITS, FloatArray, Task

DEFAULT_NUM_TASKS = 20
PAPER_SEED = 2019


def task_sets(family: Family) -> dict[str, tuple[str, ...]]:
    """Name of each task set of the family -> its splits; "only" for a family of one task."""
    if family.context.single:
        return {"only": ("train",)}
    paper = {"paper": tuple(sorted(_paper(family)))} if _paper(family) else {}
    ood = {"ood": ("ood",)} if family.context.ood_low else {}
    dynamics = {"dynamics": SPLITS} if family.dynamics else {}
    return {**paper, "uniform": ("train", "validation"), **ood, **dynamics}


def make_tasks(
    family: Family, task_set: str, split: str, *, num_tasks: int | None = None, seed: int = 0
) -> tuple[Task, ...]:
    """The tasks of a split, or its first `num_tasks`.

    Args:
        family: the task family.
        task_set: "paper" (fixed), "uniform", "ood" or "dynamics" (drawn from `seed`).
        split: "train", "validation" or "ood".
        num_tasks: how many; None takes all of `paper`, or 20 draws.
        seed: seed of the draws; `paper` ignores it. Train and validation are drawn apart:
            no task is in both, except in families of a few contexts, such as two directions.

    Raises:
        DemokitError: no such task set or split, or more tasks asked for than there are.
    """
    known = task_sets(family)
    if task_set not in known:
        raise unknown_name(f"task set of {family.name}", task_set, tuple(known))
    if split not in known[task_set]:
        raise unknown_name(f"split of task set '{task_set}'", split, known[task_set])
    if num_tasks is not None and num_tasks < 1:
        raise DemokitError(f"At least one task is needed, not {num_tasks}.")
    if task_set == "paper":
        contexts, label = _paper(family)[split], "paper"
        if num_tasks is not None and num_tasks > len(contexts):
            raise DemokitError(
                f"Task set 'paper' of {family.name} has {len(contexts)} {split} tasks, "
                f"not {num_tasks}: ask for fewer, or take --task-set uniform."
            )
    else:
        contexts = _draw(family, task_set, split, num_tasks or _default_num(family), seed)
        label = f"{task_set}-{seed}"
    prefix = f"{family.name}/{label}/{split}"
    chosen = contexts[:num_tasks].tolist()
    return tuple(
        Task(family.name, f"{prefix}/{i:02d}", tuple(c), split) for i, c in enumerate(chosen)
    )


def _default_num(family: Family) -> int:
    return 1 if family.context.single else DEFAULT_NUM_TASKS


def _draw(family: Family, task_set: str, split: str, num: int, seed: int) -> FloatArray:
    """Contexts (num, C), or with dynamics (num, C + D); each split has its own random stream."""
    # Not named streams: datasets and results name tasks by set, seed and split, and mean these.
    rng = np.random.default_rng([seed, SPLITS.index(split)])
    if task_set == "ood":
        return family.context.sample_ood(rng, num)
    contexts = family.context.sample(rng, num)
    if task_set != "dynamics" or family.dynamics is None:
        return contexts
    physics = np.random.default_rng([seed, SPLITS.index(split), 1])
    space = family.dynamics
    drawn = space.sample_ood(physics, num) if split == "ood" else space.sample(physics, num)
    return np.concatenate([contexts, drawn], axis=1)


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
