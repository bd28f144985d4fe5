"""PEARL: roll-outs under latents of tasks, and gradient steps on all that was kept of them."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from demokit.envs.family import reward_term
from demokit.errors import DemokitError
from demokit.random import torch_stream
from demokit.types import Array, Episode
from gmps.experience.demos import recorded_episodes
from gmps.experience.replay import Episodes, Replay
from gmps.experience.rollouts import Rollouts
from gmps.method import Iteration
from gmps.methods.pearl.learner import LatentActor, PearlLearner, load, start
from gmps.methods.pearl.networks import ACTOR, ENCODER
from gmps.methods.pearl.options import SAME, PearlOptions
from gmps.methods.pearl.posterior import Evidence
from gmps.methods.pearl.update import LOSSES, Batch, Learning, update
from gmps.policies.meta_params import MetaParams, section
from gmps.problem import Training

if TYPE_CHECKING:
    from demokit.envs.batch import SimBatch

__all__ = ["load", "start", "train"]

_REPLAY = "replay"


def train(
    training: Training[PearlOptions],
    learner: PearlLearner,
    state: Mapping[str, Tensor],
    first: int,
) -> Generator[Iteration]:
    """Meta-train off-policy, an iteration at a time (Rakelly et al., 2019, Algorithm 1)."""
    options = training.options
    replay, learning = restored(training, learner, state)
    num = len(training.problem.tasks)
    part = training.part.world.part(options.meta_batch)
    for iteration in range(first, options.iterations):
        gather = Gathering(training, replay, training.stream("iteration", iteration))
        if iteration == 0:
            gather.first(learner)
        chosen = gather.rng.permutation(num)[: options.collect_tasks].tolist()
        scalars = {"return_prior": gather(learner, chosen, options.prior_rollouts, of_prior=True)}
        if several := options.posterior_rollouts:
            scalars["return_posterior"] = gather(learner, chosen, several, of_prior=False)
        draws = torch_stream(options.seed, "gradient steps", iteration, device=training.device)
        losses = torch.zeros(len(LOSSES), device=training.device)
        for _ in range(options.gradient_steps):
            batch = Batch.drawn(replay, learning.nets, options, draws, part)
            losses += update(learning, batch, options, part)
        learner = learner.with_theta(learning.theta)
        MetaParams(learner.tensors(), {}).require_finite(iteration)
        means = (losses / options.gradient_steps).tolist()
        scalars |= dict(zip(LOSSES, means, strict=True))
        scalars["buffer_mb"] = replay.num_bytes / 1e6
        kept = {f"{_REPLAY}.{n}": value for n, value in replay.tensors().items()}
        yield Iteration(learner, scalars, gather.env_steps, {**kept, **learning.tensors()})


class Gathering:
    """Rolls out tasks in an iteration, and keeps what was met.

    Args:
        training: with the tasks.
        replay: where it is kept.
        rng: of the iteration.

    Attributes:
        env_steps: that it took so far, in all processes.
    """

    def __init__(
        self, training: Training[PearlOptions], replay: Replay, rng: np.random.Generator
    ) -> None:
        self._training, self._replay, self.rng, self.env_steps = training, replay, rng, 0

    def first(self, learner: PearlLearner) -> None:
        """Before the first gradient step: demonstrations, if any are taken, and every task."""
        training, num = self._training, len(self._training.problem.tasks)
        if training.options.warm_start:
            every = torch.arange(num, device=training.device)
            self._replay.add(every, demonstrated(training), as_context=False)
        self(learner, range(num), training.options.initial_rollouts, of_prior=True)

    @torch.no_grad()
    def __call__(
        self, learner: PearlLearner, chosen: Sequence[int], num: int, *, of_prior: bool
    ) -> float:
        """`num` episodes of each of some tasks, a latent each; returns what they earned, a mean.

        With latents of the prior they are what contexts are drawn from from now on.
        """
        training, paid = self._training, Paid(self._training.options.critic_reward)
        options = training.options
        tasks = torch.as_tensor(chosen, device=training.device)
        with training.sampler_of(chosen, explore=num, watch=paid) as sampler:
            rngs = sampler.streams(self.rng)
            latent = self._latents(learner, tasks[sampler.part.own], num, rngs, of_prior=of_prior)
            actor = LatentActor(learner.nets, learner.theta[ACTOR], latent, explores=True)
            rollouts = sampler(actor, rngs).explored.rollouts
        assert isinstance(sampler.final, Tensor)
        own = Episodes.of(rollouts, sampler.final, paid.of(rollouts))
        met = Episodes(*map(sampler.part.gathered, own))
        if of_prior:
            self._replay.forget_contexts(tasks)
        self._replay.add(tasks, met, as_context=of_prior or options.posterior_contexts)
        self.env_steps += sampler.num_steps
        return float(met.reward.sum(2).mean())

    def _latents(
        self,
        learner: PearlLearner,
        tasks: Tensor,
        num: int,
        rngs: Sequence[np.random.Generator],
        *,
        of_prior: bool,
    ) -> Tensor:
        """Latents (m, K, Z) for `num` episodes; of posteriors, a context each."""
        device, width = tasks.device, learner.nets.latent_width
        noise = np.stack([rng.standard_normal((num, width), np.float32) for rng in rngs])
        mean, variance = Evidence.nothing(len(tasks), num, width, device=device).gaussian()
        if not of_prior:
            steps = num * self._training.options.context
            chances = torch.from_numpy(np.stack([rng.random(steps) for rng in rngs]))
            context = self._replay.contexts(tasks, chances.to(device))[:4]
            each = (v.view(len(tasks), num, -1, *v.shape[2:]) for v in context)
            mean, variance = learner.nets.evidence(learner.theta[ENCODER], *each).gaussian()
        return mean + variance.sqrt() * torch.from_numpy(noise).to(device)


class Paid:
    """Watches what another reward of the family pays in every step; see `Sampler`."""

    def __init__(self, kind: str) -> None:
        self._kind, self._seen = kind, list[Array]()

    def __call__(self, sims: SimBatch) -> None:
        """After the reset and after every step."""
        if self._kind != SAME:
            self._seen.append(sims.privileged()[reward_term(self._kind)])

    def of(self, rollouts: Rollouts) -> Tensor:
        """What it pays for these (M, K, T), nothing behind an end; their own if it watches none."""
        if not self._seen:
            return rollouts.reward
        steps = torch.from_numpy(np.stack(self._seen[1:], 1)).to(rollouts.reward)
        return steps.view_as(rollouts.reward) * rollouts.alive


def restored(
    training: Training[PearlOptions], learner: PearlLearner, state: Mapping[str, Tensor]
) -> tuple[Replay, Learning]:
    """What is kept and learned besides the learner: as a state says, or nothing yet."""
    options, schema, nets = training.options, training.problem.schema, learner.nets
    judges = nets.init_judges(torch_stream(options.seed, "judges"))
    judges = {n: {k: v.to(training.device) for k, v in own.items()} for n, own in judges.items()}
    learning = Learning.of(nets, learner.theta, judges, options.outer_lr)
    tasks, room = len(training.problem.tasks), options.buffer_rollouts
    replay = Replay.empty(tasks, room, schema.horizon, schema.width, len(schema.actions))
    replay = replay.to(training.device)
    if not state:
        return replay, learning
    learning.restore({n: v for n, v in state.items() if not n.startswith(f"{_REPLAY}.")})
    return replay.filled(section(state, f"{_REPLAY}.")), learning


def demonstrated(training: Training[PearlOptions]) -> Episodes:
    """The demonstrations, with what they would have been paid.

    Raises:
        DemokitError: there are none, or they do not say it.
    """
    problem, demos = training.problem, training.demonstrations
    episodes, recorded = recorded_episodes(demos)
    kind = training.options.critic_reward
    kinds = problem.reward, problem.reward if kind == SAME else kind
    rewards = [partial(_paid_as, kind=each, recorded=recorded, path=demos.path) for each in kinds]
    horizon = problem.schema.horizon
    found = Episodes.recorded(episodes, len(problem.tasks), horizon, rewards)
    return Episodes(*(value.to(training.device) for value in found))


def _paid_as(episode: Episode, kind: str, recorded: str, path: str) -> Array:
    """What the steps (T,) of a recorded episode are paid by a reward."""
    kept = episode.privileged.get(reward_term(kind))
    if kept is not None:
        return kept[1:]
    if kind == recorded:
        return episode.rewards
    raise DemokitError(
        f"{path} does not say what the {kind} reward pays: name the one that it was recorded with."
    )
