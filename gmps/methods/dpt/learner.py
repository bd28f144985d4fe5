"""The learner: what it believes of a task are the transitions of its newest episodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from demokit.errors import DemokitError
from demokit.learning.checkpoint import check_tensors
from demokit.random import torch_stream
from gmps.experience.demos import DemoSet
from gmps.experience.rollouts import Rollouts
from gmps.experience.transitions import Transitions, flat, joined, met_in, newest, none_met
from gmps.experience.units import own_where_alike
from gmps.methods.dpt.options import DPTOptions
from gmps.methods.dpt.policy import ContextActor, ContextPolicy, Units
from gmps.policies.meta_params import MetaParams, section
from gmps.policies.transformer import Transformer
from gmps.problem import Problem, Training

_MIN_SCALE = 1e-3


@dataclass(frozen=True, eq=False)
class ContextLearner:
    """Acts as the expert would of a task in which this was met; no parameter changes on a new task.

    Attributes:
        policy: the pure functions.
        meta: their parameters.
        horizon: T, steps of an episode.
        options: what a context holds.
    """

    policy: ContextPolicy
    meta: MetaParams
    horizon: int
    options: DPTOptions

    @property
    def episodes_per_step(self) -> int:
        """See `MetaLearner`."""
        return self.options.rollouts_per_task

    @property
    def places(self) -> int:
        """Transitions of an episode that stand in a context."""
        return len(range(0, self.horizon - 1, self.stride))

    @property
    def stride(self) -> int:
        """Every so many do."""
        return self.options.stride(self.horizon)

    def begin(self, num_tasks: int) -> Transitions:
        """Nothing met."""
        seen = self.policy.units.mean
        return none_met((num_tasks, 0), len(seen), self.policy.action_width, seen.device)

    def explorer(
        self, belief: Transitions, step: int, num: int, rngs: Sequence[np.random.Generator]
    ) -> ContextActor:
        """The policy, drawing its actions."""
        return self._actor(belief, num)

    def exploiter(self, belief: Transitions, num: int) -> ContextActor:
        """The same, judged by its mean."""
        return self._actor(belief, num)

    def adapt(self, belief: Transitions, step: int, gathered: Rollouts, memory: Any) -> Transitions:
        """With what these episodes met; the oldest episodes are forgotten."""
        met = flat(met_in(gathered, self.stride))
        return newest(joined(belief, met), self.options.context_episodes * self.places)

    def _actor(self, belief: Transitions, num: int) -> ContextActor:
        how = self.places, self.stride, self.options.exploring_std
        return ContextActor(self.policy, self.meta.theta, belief, num, *how)

    def with_meta(self, meta: MetaParams) -> Self:
        """With other parameters."""
        return replace(self, meta=meta)

    def with_rewards(self, reward: Tensor) -> Self:
        """With rewards (N,) for the unit of all rewards."""
        unit = torch.stack((reward.mean(), own_where_alike(reward.std(), _MIN_SCALE)))
        policy = replace(self.policy, units=self.policy.units._replace(reward=unit))
        return replace(self, policy=policy)

    def tensors(self) -> dict[str, Tensor]:
        """See `MetaLearner`."""
        units = {f"units.{name}": value for name, value in self.policy.units._asdict().items()}
        return {**self.meta.tensors(), **units}

    def header(self) -> dict[str, Any]:
        """See `MetaLearner`."""
        return {}

    def to(self, device: torch.device) -> Self:
        """See `MetaLearner`."""
        return replace(self, policy=self.policy.to(device), meta=self.meta.to(device))


def start(training: Training[DPTOptions]) -> ContextLearner:
    """Fresh parameters; raises DemokitError where images are seen, or a step leads to nothing."""
    options, problem = training.options, training.problem
    problem.require_transitions()
    if problem.sees != "state":
        raise DemokitError("dpt reads states, not images: name a dataset of states.")
    policy = _policy(options, problem, _units(training.demonstrations))
    theta = policy.init(torch_stream(options.seed, "theta"))
    return ContextLearner(policy, MetaParams(theta, {}), problem.schema.horizon, options)


def load(
    problem: Problem,
    options: DPTOptions,
    tensors: dict[str, Tensor],
    header: dict[str, Any],  # noqa: ARG001
) -> ContextLearner:
    """The learner of a checkpoint."""
    units, width = section(tensors, "units."), problem.schema.width
    fresh = Units(*(torch.zeros(n) for n in (width, width, width, 2)))
    check_tensors(units, fresh._asdict, "units")
    policy, meta = _policy(options, problem, Units(**units)), MetaParams.of_tensors(tensors)
    check_tensors(meta.theta, lambda: policy.init(None), "parameters")
    return ContextLearner(policy, MetaParams(meta.theta, {}), problem.schema.horizon, options)


def _policy(options: DPTOptions, problem: Problem, units: Units) -> ContextPolicy:
    body = Transformer(options.width, options.layers, options.heads)
    return ContextPolicy(body, units, len(problem.schema.actions))


def _units(demos: DemoSet) -> Units:
    """Of what was demonstrated; rewards keep their own until they differ."""
    assert isinstance(demos.observation, Tensor)
    seen, both = demos.observation, demos.alive[:, :, 1:]
    changed = (seen[:, :, 1:] - seen[:, :, :-1])[both]
    change = own_where_alike(changed.square().mean(0).sqrt(), _MIN_SCALE)
    return Units(*demos.statistics(seen), change, torch.tensor([0.0, 1.0]))
