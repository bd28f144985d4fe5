"""Task sets: named, seeded, with disjoint splits.

`paper` holds the tasks published with the GMPS release, or as many as the papers use, drawn once
and for all; `uniform` draws from the family's distribution; `ood` draws outside it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.resources import files
from typing import Any

import numpy as np

from demokit.envs.family import Family
from demokit.errors import DemokitError, unknown_name
from demokit.types import FloatArray, Task

DEFAULT_NUM_TASKS = 20
PAPER_SEED = 2019


def task_sets(family: Family) -> dict[str, tuple[str, ...]]:
    """Name of each task set of the family -> its splits."""
    paper = {"paper": tuple(sorted(_paper(family)))} if _paper(family) else {}
    ood = {"ood": ("ood",)} if family.context.ood_low else {}
    return {**paper, "uniform": ("train", "validation"), **ood}


def make_tasks(
    family: Family, task_set: str, split: str, *, num_tasks: int | None = None, seed: int = 0
) -> tuple[Task, ...]:
    """The tasks of a split, or its first `num_tasks`.

    Args:
        family: the task family.
        task_set: "paper" (fixed), "uniform" or "ood" (drawn from `seed`).
        split: "train", "validation" or "ood".
        num_tasks: how many; None takes all of `paper`, or 20 draws.
        seed: seed of the draws; `paper` ignores it. Train and validation draws are disjoint.

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
        contexts = _draw(family, task_set, split, num_tasks or DEFAULT_NUM_TASKS, seed)
        label = f"{task_set}-{seed}"
    prefix = f"{family.name}/{label}/{split}"
    chosen = contexts[:num_tasks].tolist()
    return tuple(
        Task(family.name, f"{prefix}/{i:02d}", tuple(c), split) for i, c in enumerate(chosen)
    )


def _draw(family: Family, task_set: str, split: str, num: int, seed: int) -> FloatArray:
    """Contexts (num, C); each split has a random stream of its own."""
    stream = ("train", "validation", "ood").index(split)
    rng = np.random.default_rng([seed, stream])
    sample: Callable[[np.random.Generator, int], FloatArray] = (
        family.context.sample_ood if task_set == "ood" else family.context.sample
    )
    return sample(rng, num)


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
