"""The learner: what it believes of a task is what it remembers of its episodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from demokit.learning.checkpoint import check_tensors
from demokit.random import torch_stream
from gmps.experience.actor import Seen
from gmps.experience.rollouts import Rollouts
from gmps.methods.memory.options import MemoryOptions
from gmps.policies.memory import Belief, MemoryActor, MemoryPolicy
from gmps.policies.meta_params import MetaParams
from gmps.problem import Problem, Training


@dataclass(frozen=True, eq=False)
class MemoryLearner:
    """Acts as somebody who remembers; nothing that it has learned changes on a new task.

    Attributes:
        policy: the pure functions.
        meta: their parameters.
    """

    policy: MemoryPolicy
    meta: MetaParams

    @property
    def episodes_per_step(self) -> int:
        """See `MetaLearner`."""
        return 1

    def begin(self, num_tasks: int) -> Belief:
        """Nothing to remember."""
        return moved(self.policy.begin(num_tasks), self.meta.theta["log_std"].device)

    def explorer(
        self, belief: Belief, step: int, num: int, rngs: Sequence[np.random.Generator]
    ) -> MemoryActor:
        """The policy, drawing its actions."""
        return MemoryActor(self.policy, self.meta.theta, belief, num)

    def exploiter(self, belief: Belief, num: int) -> MemoryActor:
        """The same, which starts from a copy of the memory and is judged by its mean."""
        return MemoryActor(self.policy, self.meta.theta, belief, num)

    def adapt(self, belief: Belief, step: int, gathered: Rollouts, memory: Belief) -> Belief:
        """What the explorer remembers, and how its episode ended: the next one begins with that.

        Of several episodes a step, which began alike: as if they had come one after the other.
        """
        num = gathered.reward.shape[1]
        if num == 1:
            return self._behind(memory, gathered, 0)
        for episode in range(num):
            belief = self._behind(self._read(belief, gathered, episode), gathered, episode)
        return belief

    def _read(self, belief: Belief, gathered: Rollouts, episode: int) -> Belief:
        """What is remembered after an episode of every task, whoever acted in it."""
        own = gathered.episodes(slice(episode, episode + 1))
        assert isinstance(own.observation, Tensor)
        actor = MemoryActor(self.policy, self.meta.theta, belief, 1)
        memory = actor.memory
        action, reward = torch.zeros_like(own.action[:, :, 0]), torch.zeros_like(own.reward[..., 0])
        with torch.no_grad():
            for t in range(own.reward.shape[2]):
                now = own.observation[:, :, t], action, reward, own.alive[:, :, t]
                _, memory = actor(memory, Seen(t, *now))
                action, reward = own.action[:, :, t], own.reward[:, :, t]
        return memory

    def _behind(self, memory: Belief, gathered: Rollouts, episode: int) -> Belief:
        """With the last action and reward of an episode that counted."""
        last = gathered.alive[:, episode].sum(1) - 1
        tasks = torch.arange(len(last), device=last.device)
        ends = (part[tasks, episode, last] for part in (gathered.action, gathered.reward))
        return Belief(self.policy.body.kept(memory.memory), *ends)

    def with_meta(self, meta: MetaParams) -> Self:
        """With other parameters."""
        return replace(self, meta=meta)

    def tensors(self) -> dict[str, Tensor]:
        """See `MetaLearner`."""
        return self.meta.tensors()

    def header(self) -> dict[str, Any]:
        """See `MetaLearner`."""
        return {}

    def to(self, device: torch.device) -> Self:
        """See `MetaLearner`."""
        return replace(self, meta=self.meta.to(device))


def moved(belief: Belief, device: torch.device) -> Belief:
    """The same on a device."""
    memory = {name: value.to(device) for name, value in belief.memory.items()}
    return Belief(memory, belief.action.to(device), belief.reward.to(device))


def start(training: Training[MemoryOptions]) -> MemoryLearner:
    """Fresh parameters; raises DemokitError where images are seen."""
    training.problem.require_states()
    policy = policy_of(training.options, training.problem)
    theta = policy.init(torch_stream(training.options.seed, "theta"))
    return MemoryLearner(policy, MetaParams(theta, {}))


def load(
    problem: Problem,
    options: MemoryOptions,
    tensors: dict[str, Tensor],
    header: dict[str, Any],  # noqa: ARG001
) -> MemoryLearner:
    """The learner of a checkpoint."""
    policy, meta = policy_of(options, problem), MetaParams.of_tensors(tensors)
    check_tensors(meta.theta, lambda: policy.init(None), "parameters")
    return MemoryLearner(policy, MetaParams(meta.theta, {}))


def policy_of(options: MemoryOptions, problem: Problem) -> MemoryPolicy:
    """Of states as they are."""
    return MemoryPolicy(
        options.body(problem.schema.horizon),
        problem.schema.width,
        len(problem.schema.actions),
        options.embedded,
        options.hidden_width,
        options.initial_std,
        options.min_std,
        options.action_scale,
    )
