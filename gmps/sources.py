"""Where a problem comes from: demonstrations, their tasks alone, or a family's task set."""

from __future__ import annotations

import re
from pathlib import Path

from demokit.data import open_dataset
from demokit.envs.batch import checked_vision
from demokit.envs.family import Family
from demokit.envs.tasks import make_tasks, task_sets
from demokit.errors import DemokitError
from gmps.experience.demos import family_of, observed_in, tasks_of
from gmps.options import RECORDED
from gmps.problem import Problem

_IN_WORDS = re.compile(r".+, task set .+, (all|\d+) tasks, \w+")


def problem_of_dataset(path: str | Path, reward: str) -> Problem:
    """The tasks, reward and observations of a dataset; no demonstration is read.

    Raises:
        DemokitError: it has no training episodes, or does not say the tasks' contexts.
    """
    with open_dataset(path) as dataset:
        family = family_of(dataset)
        paid = family.checked_reward(dataset.metadata.reward if reward == RECORDED else reward)
        tasks = tuple(tasks_of(dataset))
        return Problem.in_family(family, paid, observed_in(dataset), tasks)


def family_in_words(
    env: str, task_set: str | None = None, tasks: int | None = None, observation: str = "state"
) -> str:
    """What `problem_of_family` takes, as runs keep it."""
    return f"{env}, task set {task_set or 'default'}, {tasks or 'all'} tasks, {observation}"


def is_family_in_words(text: str) -> bool:
    """Whether `text` has the form of `family_in_words`."""
    return _IN_WORDS.fullmatch(text) is not None


def problem_of_family(
    family: Family, task_set: str | None, num_tasks: int | None, reward: str, observation: str
) -> Problem:
    """The training tasks of a family's task set.

    Args:
        family: whose tasks.
        task_set: None takes the first that has training tasks.
        num_tasks: the first so many; None takes all.
        reward: dense where nothing was recorded.
        observation: "state" or "vision".

    Raises:
        DemokitError: there are no such tasks, or no such observations.
    """
    found = [known for known, splits in task_sets(family).items() if "train" in splits]
    if task_set is None and not found:
        raise DemokitError(f"{family.name} has no training tasks.")
    tasks = make_tasks(family, task_set or found[0], "train", num_tasks=num_tasks)
    paid = family.checked_reward("dense" if reward == RECORDED else reward)
    return Problem(family.schema, paid, checked_vision(family, observation) or "state", tasks)
