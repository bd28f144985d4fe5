"""The learner: its belief about a task is the latent under which it exploits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from demokit.learning.checkpoint import check_tensors
from demokit.random import torch_stream
from gmps.experience.rollouts import Rollouts
from gmps.methods.maml.learner import policy_of
from gmps.methods.maml.meta_exploration.networks import (
    EXPLORER,
    ORIGIN,
    POLICY,
    Networks,
    Shown,
)
from gmps.methods.maml.meta_exploration.options import (
    POLICY_GRADIENT,
    RETURN,
    ExplorationOptions,
)
from gmps.policies.gaussian import LATENT, GaussianActor, replicate
from gmps.policies.meta_params import MetaParams, section
from gmps.policies.standard import policy_tensors, statistics_of
from gmps.problem import Problem, Training
from gmps.steps.advantage import Advantage
from gmps.steps.losses import discounted_returns, mean_weights


class Belief(NamedTuple):
    """The latents of M tasks, (M, Z)."""

    latent: Tensor


@dataclass(frozen=True, eq=False)
class ExplorationLearner:
    """mu explores; z' = z - alpha * grad of M's error there; pi(s, z') exploits.

    A further step takes the episodes of all steps so far, from the z before adaptation: the mean of
    what each of them would make of it.

    Attributes:
        networks: the pure functions; `meta` their parameters.
        advantage: the estimator, of rewards and of credit.
        inner: what the inner step goes by, see `ExplorationOptions`.
        step_size: alpha.
        episodes_per_step: K.
        scale: factor on the step size.
    """

    networks: Networks
    meta: MetaParams
    advantage: Advantage
    inner: str
    inner_lr: float
    episodes_per_step: int
    scale: float = 1.0

    @property
    def alpha(self) -> float:
        """The step size."""
        return self.scale * self.inner_lr

    def scaled(self, factor: float) -> Self:
        """See `HasStepScale`."""
        return replace(self, scale=self.scale * factor)

    def with_meta(self, meta: MetaParams) -> Self:
        """The same with other parameters."""
        return replace(self, meta=meta)

    def begin(self, num_tasks: int) -> Belief:
        """The latent before adaptation."""
        return Belief(self.meta.theta[ORIGIN].detach().expand(num_tasks, -1))

    def explorer(
        self, belief: Belief, step: int, num: int, rngs: Sequence[np.random.Generator]
    ) -> GaussianActor:
        """Mu; where there is none, pi under the latent before adaptation."""
        num_tasks, mu = len(belief.latent), self.networks.explorer
        if mu is None:
            return self.exploiter(self.begin(num_tasks), num)
        return GaussianActor(mu, replicate(section(self.meta.theta, EXPLORER), num_tasks))

    def exploiter(self, belief: Belief, num: int) -> GaussianActor:
        """Pi under the latents."""
        theta = replicate(section(self.meta.theta, POLICY), len(belief.latent))
        return GaussianActor(self.networks.policy, {**theta, LATENT: belief.latent})

    @torch.no_grad()
    def adapt(self, belief: Belief, step: int, gathered: Rollouts, memory: Any) -> Belief:
        """A step of the latent on the tasks' roll-outs, and what was gathered before."""
        fresh = self.networks.adapted(self.meta.theta, self.alpha, self.shown(gathered))
        return Belief(belief.latent + (fresh - belief.latent) / (step + 1))

    def shown(self, gathered: Rollouts) -> Shown:
        """What the inner step sees of roll-outs."""
        seen, alive = gathered.observation, gathered.alive
        assert isinstance(seen, Tensor)
        weight = mean_weights(alive.flatten(1)).view(alive.shape) / alive[0].numel()
        return Shown(seen, gathered.action, self._target(gathered), weight.to(seen.dtype))

    def _target(self, gathered: Rollouts) -> Tensor:
        reward = gathered.reward
        if self.inner == RETURN:
            return discounted_returns(reward, self.advantage.discount)
        if self.inner == POLICY_GRADIENT:
            return self.advantages(gathered)
        return reward

    def advantages(self, gathered: Rollouts) -> Tensor:
        """Of roll-outs, (M, K, T)."""
        seen = gathered.observation
        assert isinstance(seen, Tensor)
        found: Tensor = torch.func.vmap(self.advantage)(seen, gathered.reward, gathered.alive)
        return found

    def tensors(self) -> dict[str, Tensor]:
        """See `MetaLearner`."""
        return {**self.meta.tensors(), **policy_tensors(self.networks.policy)}

    def header(self) -> dict[str, Any]:
        """See `MetaLearner`."""
        return {}

    def to(self, device: torch.device) -> Self:
        """See `MetaLearner`."""
        return replace(self, networks=self.networks.to(device), meta=self.meta.to(device))


def start(training: Training[ExplorationOptions]) -> ExplorationLearner:
    """Fresh parameters; raises DemokitError where images are seen."""
    options, problem = training.options, training.problem
    problem.require_states()
    training.require_batch(options.meta_batch)
    zeros = torch.zeros(problem.schema.width)
    statistics = zeros, zeros + 1
    if options.imitate:
        demos = training.demonstrations
        assert isinstance(demos.observation, Tensor)
        statistics = demos.statistics(demos.observation)
    networks = _networks(options, problem, statistics)
    theta = networks.init(torch_stream(options.seed, "theta"))
    return _learner(options, networks, MetaParams(theta, {}))


def load(
    problem: Problem,
    options: ExplorationOptions,
    tensors: dict[str, Tensor],
    _header: dict[str, Any],
) -> ExplorationLearner:
    """The learner of a checkpoint."""
    networks = _networks(options, problem, statistics_of(tensors))
    meta = MetaParams.of_tensors(tensors)
    check_tensors(meta.theta, lambda: networks.init(None), "parameters")
    return _learner(options, networks, meta)


def _networks(
    options: ExplorationOptions, problem: Problem, statistics: tuple[Tensor, Tensor]
) -> Networks:
    policy = policy_of(options, problem, statistics, options.latent_width)
    explorer = None if options.shared else policy_of(options, problem, statistics)
    return Networks(explorer, policy, options.inner != POLICY_GRADIENT)


def _learner(
    options: ExplorationOptions, networks: Networks, meta: MetaParams
) -> ExplorationLearner:
    advantage = Advantage(options.discount, options.gae_lambda, options.baseline)
    num = options.rollouts_per_task
    return ExplorationLearner(networks, meta, advantage, options.inner, options.inner_lr, num)
