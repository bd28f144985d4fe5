"""Episodes as something to look at: states, a goal, and words for every step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from demokit.envs.batch import make_sims
from demokit.envs.family import Family
from demokit.protocols import Expert
from demokit.types import Episode, FloatArray, Task

Words = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Clip:
    """What is shown of one episode.

    Attributes:
        states: (R, S) float64, at least one.
        context: (C,), the task.
        words: (name, value) pairs for each of the R rows.
    """

    states: FloatArray
    context: FloatArray
    words: Callable[[int], Words]


def of_episode(family: Family, episode: Episode, states: FloatArray, title: Words) -> Clip:
    """A recorded episode, or its replay: states (T+1, S)."""
    solved = episode.privileged.get("success")

    def words(row: int) -> Words:
        done = episode.success if solved is None else bool(solved[row])
        reward = [("reward", f"{episode.rewards[row - 1]:.2f}")] if row else []
        step = ("step", f"{row}/{len(episode)}")
        return [*title, step, *reward, ("solved", _yes(done)), *_task_words(family, episode.task)]

    return Clip(states, np.array(episode.task.context), words)


def of_task(family: Family, task: Task, expert: Expert | None, title: Words) -> Clip:
    """One episode of a task: the expert's, or without one that of a robot at rest."""
    context = np.array(task.context)
    sims = make_sims(family, 1, num_threads=1)
    observation = sims.reset(context[None], [0], tasks=[task.id])
    rows = [sims.privileged()]
    for _ in range(family.horizon):
        action = np.zeros((1, len(family.actions)), np.float32)
        if expert is not None:
            action = np.asarray(expert.act(observation, rows[-1]), np.float32)
        step = sims.step(action)
        observation = step.observation
        rows.append(sims.privileged())
        if step.terminated[0]:
            break

    def words(row: int) -> Words:
        solved = ("solved", _yes(bool(rows[row]["success"][0])))
        step = ("step", f"{row}/{family.horizon}")
        reward = ("reward", f"{float(rows[row]['reward_dense'][0]):.2f}")
        return [*title, step, reward, solved, *_task_words(family, task)]

    return Clip(np.concatenate([row["state"] for row in rows]), context, words)


def _task_words(family: Family, task: Task) -> Words:
    goal = () if family.context.single else (("goal", family.context.in_words(task.context)),)
    return ("task", task.id), *goal


def _yes(value: bool) -> str:
    return "yes" if value else "no"
