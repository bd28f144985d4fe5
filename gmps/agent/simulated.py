"""A trained policy in simulations of its family: it adapts there, and what it does is recorded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from demokit.collect import collect
from demokit.data import DatasetMetadata, Provenance, describe
from demokit.envs.family import reward_term
from demokit.envs.tasks import label_of
from demokit.experts import NOBODY
from demokit.protocols import ActionSource, Decision
from demokit.random import stream
from demokit.types import Array, Episode, FloatArray, Task
from gmps.agent.acting import Acting
from gmps.agent.agent import TrainedAgent
from gmps.evaluation import MEAN_EPISODES, Curve, curve_of, stage_of, stages
from gmps.experience.observation import from_numpy
from gmps.problem import Problem

_AT_ONCE = 64


@dataclass(frozen=True, eq=False)
class Adaptation:
    """What came of adapting to a task.

    Attributes:
        agent: that knows it now.
        curve: what was earned after each step; the first before any.
        episodes: those that taught it, in their order; none unless they were asked for.
    """

    agent: TrainedAgent
    curve: Curve
    episodes: tuple[Episode, ...]


def paid(agent: TrainedAgent, reward: str | None) -> TrainedAgent:
    """The same, paid another reward of its family."""
    if reward is None:
        return agent
    problem = agent.trained.problem
    changed = replace(problem, reward=problem.family.checked_reward(reward))
    return TrainedAgent(replace(agent.trained, problem=changed))


def adapt(
    agent: TrainedAgent,
    task: Task,
    steps: int,
    rollouts: int,
    *,
    seed: int = 0,
    keep: bool = False,
    on_step: Callable[[int], None] = lambda step: None,
) -> Adaptation:
    """Adapt to one task of the family by simulation; mean episodes beside it measure only.

    Args:
        agent: with what it knows already.
        task: what it meets.
        steps: adaptation steps, of `rollouts` episodes each; see `TrainedAgent.plan`.
        rollouts: K.
        seed: of the roll-outs.
        keep: whether the episodes that teach are kept.
        on_step: called after the roll-outs of each step.
    """
    agent = agent.in_task(task.context)
    problem, streams, first = agent.trained.problem, agent.streams(seed), agent.steps
    measured, episodes, belief = [], list[Episode](), agent.belief
    with problem.sampler((task,), explore=rollouts, mean=MEAN_EPISODES) as sampler:
        start = stage_of(agent.learner, sampler, streams, first, agent.belief)
        for stage in stages(agent.learner, sampler, streams, first + steps, start):
            measured.append(stage.earned)
            belief = stage.belief
            if keep and stage.step < first + steps:
                actions = stage.sampled.explored.rollouts.action[0].numpy()
                source = _Again(agent.method, actions)
                starts = sampler.starts[:rollouts]
                episodes += _recorded(
                    problem, task, source, starts, {"adaptation_step": stage.step}
                )
            on_step(stage.step - first)
    adapted = agent.knowing(belief, steps, steps * rollouts)
    return Adaptation(adapted, curve_of(measured, sampler), tuple(episodes))


def acted(agent: TrainedAgent, task: Task, num: int, *, seed: int = 0) -> list[Episode]:
    """Episodes of a task in which the agent acts by its mean; it learns nothing from them."""
    agent, problem = agent.in_task(task.context), agent.trained.problem
    seeds = stream(seed, "rollout", task.id).integers(2**31, size=num)
    found: list[Episode] = []
    for at_once in np.split(seeds, range(_AT_ONCE, num, _AT_ONCE)):
        source = _ByMean(agent, len(at_once))
        found += _recorded(problem, task, source, at_once, {"adaptation_steps": agent.steps})
    return found


def described(
    agent: TrainedAgent,
    tasks: Sequence[Task],
    seed: int,
    what: str,
    noise_std: float | None = 0.0,
) -> DatasetMetadata:
    """What a dataset of such episodes says about itself: no expert was asked.

    `noise_std` is that of the actions: none by the policy's mean, None of what explored.
    """
    problem = agent.trained.problem
    return describe(
        problem.family,
        reward=problem.reward,
        task_set=" ".join(dict.fromkeys(label_of(problem.family, task.id) for task in tasks)),
        tasks=tasks,
        observation_space=problem.observation_space,
        description=what,
        provenance=Provenance(agent.method, NOBODY, noise_std, seed),
    )


def _recorded(
    problem: Problem,
    task: Task,
    source: ActionSource,
    seeds: Array,
    options: Mapping[str, object],
) -> list[Episode]:
    with closing(problem.simulations(len(seeds))) as sims:
        return collect(
            sims,
            source,
            [task] * len(seeds),
            [int(seed) for seed in seeds],
            recorder=source.name,
            options=[options] * len(seeds),
        )


class _Again:
    """Actions (N, T, A) that were taken in the same episodes before: simulations repeat exactly."""

    def __init__(self, name: str, actions: FloatArray) -> None:
        self.name = name
        self._actions, self._t = actions, 0

    def decide(self, observation: Any, privileged: Mapping[str, Array]) -> Decision:
        """See `ActionSource`; nobody acts behind the end."""
        num, horizon, _ = self._actions.shape
        action = self._actions[:, min(self._t, horizon - 1)]
        self._t += 1
        return Decision(action, None, np.zeros(num, np.bool_))


class _ByMean:
    """An agent in N episodes."""

    def __init__(self, agent: TrainedAgent, num: int) -> None:
        self.name = agent.method
        self._paid = reward_term(agent.trained.problem.reward)
        with torch.no_grad():
            actor = agent.learner.exploiter(agent.belief, num)
        self._acting, self._first = Acting(actor, num, len(agent.action_names)), True

    def decide(self, observation: Any, privileged: Mapping[str, Array]) -> Decision:
        """See `ActionSource`."""
        if not self._first:
            self._acting.paid(privileged[self._paid])
        self._first = False
        action = self._acting(from_numpy(observation))
        return Decision(action, None, np.zeros(len(action), np.bool_))
