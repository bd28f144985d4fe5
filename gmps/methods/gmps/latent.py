"""GMPS that explores by latents: roll-outs follow them, and the latent is what adapts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from demokit.learning.checkpoint import check_tensors
from demokit.learning.networks import Params
from demokit.random import torch_stream
from demokit.types import Task
from gmps.distributed import Part
from gmps.experience.demos import Demonstrations, DemoSet
from gmps.experience.rollouts import Gathered, Rollouts
from gmps.methods.gmps.algorithm import train
from gmps.methods.gmps.critic import Critic
from gmps.methods.gmps.latents import (
    CANDIDATES,
    LatentBatch,
    LatentSpace,
    LatentStep,
    count_segments,
    segment_bounds,
)
from gmps.methods.gmps.objective import MetaObjective
from gmps.methods.gmps.options import LatentOptions
from gmps.policies.gaussian import LATENT, AdaptSpec, GaussianActor, GaussianPolicy, replicate
from gmps.policies.meta_params import MetaParams, section
from gmps.policies.standard import (
    demo_statistics,
    make_policy,
    policy_tensors,
    require_params,
    statistics_of,
)
from gmps.problem import Problem, Training
from gmps.steps.imitation import fine_tuned

__all__ = ["LatentLearner", "load", "start", "train"]

_CRITIC = "critic."
_SHOWN_LR = 1e-2  # of the latent, which alone adapts


class Followed(NamedTuple):
    """What exploring roll-outs remember: their latents (M, K, S, Z), and noise (M, C, Z)."""

    latents: Tensor
    noise: Tensor


class LatentActor(GaussianActor):
    """Follows a latent in every segment of an episode."""

    def __init__(
        self, policy: GaussianPolicy, params: Params, followed: Followed, bounds: Sequence[int]
    ) -> None:
        super().__init__(policy, params, followed.latents, bounds)
        self.memory = followed


@dataclass(frozen=True, eq=False)
class LatentLearner:
    """Roll-outs follow latents around the center b; a step moves b to where it pays.

    Its belief are the parameters (M, ...), of which only b differs between tasks.

    Attributes:
        policy: the pure functions; `meta` its parameters and the step size of the latent.
        space: the latents of the training tasks.
        critic: judges latents by what all roll-outs were paid; None: each by its own's.
        horizon: steps of an episode.
        episodes_per_step: K.
        scale: factor on the step size.
    """

    policy: GaussianPolicy
    meta: MetaParams
    space: LatentSpace
    critic: Critic | None
    horizon: int
    episodes_per_step: int
    scale: float = 1.0

    def scaled(self, factor: float) -> Self:
        """See `HasStepScale`."""
        return replace(self, scale=self.scale * factor)

    def begin(self, num_tasks: int) -> Params:
        """Theta for every task."""
        return replicate(self.meta.theta, num_tasks)

    def explorer(
        self, belief: Params, step: int, num: int, rngs: Sequence[np.random.Generator]
    ) -> LatentActor:
        """Every roll-out follows latents of its own."""
        center = belief[LATENT]
        drawn = self.space.drawn(num, step, rngs).to(center.device)
        shape = CANDIDATES, center.shape[-1]
        noise = np.stack([rng.standard_normal(shape, np.float32) for rng in rngs])
        followed = Followed(
            center[:, None, None] + drawn, torch.from_numpy(noise).to(center.device)
        )
        bounds = segment_bounds(self.horizon, self.space.segments)
        return LatentActor(self.policy, belief, followed, bounds)

    def exploiter(self, belief: Params, num: int) -> GaussianActor:
        """The policy under the task's own latent."""
        return GaussianActor(self.policy, belief)

    @torch.no_grad()
    def adapt(self, belief: Params, step: int, gathered: Rollouts, memory: Followed) -> Params:
        """A step on the latent."""
        sizes = {LATENT: self.scale * self.meta.step_sizes[LATENT]}
        phi: Params = torch.func.vmap(LatentStep(), in_dims=(0, None, 0))(
            belief, sizes, self._judged(gathered, memory)
        )
        return phi

    def demonstrated(
        self, belief: Params, demonstrations: Demonstrations, rngs: Sequence[np.random.Generator]
    ) -> Params:
        """The latent moved to where the policy acts so."""
        return fine_tuned(self.policy, belief, (LATENT,), demonstrations, _SHOWN_LR)

    def with_meta(self, meta: MetaParams) -> Self:
        """See `Guided`."""
        return replace(self, meta=meta)

    @torch.no_grad()
    def shown(self, explored: Gathered) -> LatentBatch:
        """See `Guided`."""
        return self._judged(explored.rollouts, explored.memory)

    def taught(self, explored: Gathered, tasks: Sequence[Task], part: Part) -> Self:
        """With a critic that has learned from roll-outs of all training tasks, if there is one."""
        if self.critic is None:
            return self
        latent, score = (part.gathered(own) for own in self._scored(*explored[:2]))
        task = self.space.of(tasks).to(latent.device)[:, None].expand_as(latent)
        latent = latent - self.meta.theta[LATENT]
        learned = latent.flatten(0, 1), task.flatten(0, 1), score.flatten()
        return replace(self, critic=self.critic.taught(*learned))

    def objective(self, options: LatentOptions, tasks: Sequence[Task]) -> MetaObjective:
        """See `Guided`."""
        step = torch.func.vmap(LatentStep(), in_dims=(None, None, 0))

        def adapted(meta: MetaParams, batch: LatentBatch) -> Params:
            phi: Params = step(*meta, batch)
            return phi

        return MetaObjective(
            self.policy,
            adapted,
            options.outer_loss,
            options.expert_weight,
            self.space.of(tasks).to(self.meta.theta[LATENT].device),
            options.precision == "bf16",
            options.post_weight,
            options.object_weight,
        )

    def _judged(self, gathered: Rollouts, memory: Followed) -> LatentBatch:
        """What the latent step sees of the roll-outs."""
        latent, score = self._scored(gathered, memory)
        if self.critic is None:
            return self.space.by_score(latent, score)
        origin = self.meta.theta[LATENT]
        return self.space.by_critic(self.critic, latent, score, origin, memory.noise)

    def _scored(self, gathered: Rollouts, memory: Followed) -> tuple[Tensor, Tensor]:
        """Latents (M, E, Z) of all segments of all roll-outs, and what they were paid (M, E)."""
        score = self.space.score(gathered.reward * gathered.alive)
        return memory.latents.flatten(1, 2), score

    def tensors(self) -> dict[str, Tensor]:
        """See `MetaLearner`."""
        critic = self.critic.tensors() if self.critic else {}
        named = {f"{_CRITIC}{name}": value for name, value in critic.items()}
        return {**self.meta.tensors(), **policy_tensors(self.policy), **named}

    def header(self) -> dict[str, Any]:
        """See `MetaLearner`."""
        return {"segments": self.space.segments}

    def to(self, device: torch.device) -> Self:
        """See `MetaLearner`; latents are drawn on the CPU all the same."""
        return replace(
            self,
            policy=self.policy.to(device),
            meta=self.meta.to(device),
            critic=self.critic and self.critic.to(device),
        )


def start(training: Training[LatentOptions]) -> LatentLearner:
    """Fresh parameters, and constants taken from the demonstrations."""
    options, demos, problem = training.options, training.demonstrations, training.problem
    space = LatentSpace.over(problem.tasks, _segments(demos), options.temperature)
    policy = _policy(options, problem, demo_statistics(demos, options.object_weight), space)
    theta = policy.init(torch_stream(options.seed, "theta"))
    theta[LATENT] = torch.zeros_like(theta[LATENT])
    alpha = AdaptSpec((LATENT,)).init_step_sizes(theta, 1.0)  # to the weighted mean of the latents
    critic = None
    if options.critic:
        critic = Critic.init(torch_stream(options.seed, "critic"), len(theta[LATENT]))
    return _learner(options, problem, policy, MetaParams(theta, alpha), space, critic)


def load(
    problem: Problem, options: LatentOptions, tensors: dict[str, Tensor], header: dict[str, Any]
) -> LatentLearner:
    """The learner of a checkpoint."""
    segments = int(header["segments"])
    if not 1 <= segments <= problem.schema.horizon:
        raise ValueError(f"{segments} segments")
    space = LatentSpace.over(problem.tasks, segments, options.temperature)
    policy = _policy(options, problem, statistics_of(tensors), space)
    meta = MetaParams.of_tensors(tensors)
    require_params(policy, meta, AdaptSpec((LATENT,)), step_sizes=True)
    critic = None
    if options.critic:
        critic = Critic.of_tensors(section(tensors, _CRITIC))
        fresh = partial(Critic.init, None, len(meta.theta[LATENT]))
        check_tensors(critic.tensors(), lambda: fresh().tensors(), "critic")
    return _learner(options, problem, policy, meta, space, critic)


def _policy(
    options: LatentOptions,
    problem: Problem,
    statistics: tuple[Tensor, Tensor],
    space: LatentSpace,
) -> GaussianPolicy:
    width = space.tasks.shape[1]
    return make_policy(options, problem.schema, problem.sees, statistics, width)


def _learner(
    options: LatentOptions,
    problem: Problem,
    policy: GaussianPolicy,
    meta: MetaParams,
    space: LatentSpace,
    critic: Critic | None,
) -> LatentLearner:
    horizon = problem.schema.horizon
    return LatentLearner(policy, meta, space, critic, horizon, options.rollouts_per_task)


def _segments(demos: DemoSet) -> int:
    """How many experts one after the other fit into an episode; see `count_segments`."""
    if not demos.object_position.shape[-1]:
        raise demos.unknown_object()
    position, alive = demos.object_position.flatten(0, 1), demos.alive.flatten(0, 1)
    return count_segments(position.cpu(), alive.cpu(), demos.family.horizon)
