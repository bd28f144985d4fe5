"""Roll-outs: every task and episode in one batch, each task with parameters of its own."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from demokit.envs.batch import SimBatch, make_sims
from demokit.envs.family import Family
from demokit.envs.vision import Vision
from demokit.learning.networks import Params
from demokit.types import FloatArray, Task
from gmps.distributed import WHOLE, Part
from gmps.experience.observation import Observation, each, from_numpy
from gmps.methods.gmps.latents import segment_bounds
from gmps.policies.gaussian import LATENT, GaussianPolicy
from gmps.steps.inner import InnerBatch
from gmps.steps.losses import mean_weights


@dataclass(frozen=True, eq=False)
class Rollouts:
    """Episodes of M tasks, K each, of T steps.

    `observation` (M, K, T, ...), `action` (M, K, T, A) before clipping, `log_prob` and `reward`
    (M, K, T), `alive` (M, K, T) bool, `success` (M, K) at the end. Episodes that end before T keep
    stepping, unpaid: they are alive up to and with the step that ends them, their later rewards
    are 0, and success is that at their end. `latent` (M, K, segments, Z) is what exploring
    roll-outs followed; without segments where they followed none.
    """

    observation: Observation
    action: Tensor
    log_prob: Tensor
    reward: Tensor
    alive: Tensor
    success: Tensor
    latent: Tensor

    def episodes(self, chosen: slice) -> Rollouts:
        """The roll-outs of these episodes of every task."""
        return Rollouts(
            each(lambda values: values[:, chosen], self.observation),
            self.action[:, chosen],
            self.log_prob[:, chosen],
            self.reward[:, chosen],
            self.alive[:, chosen],
            self.success[:, chosen],
            self.latent[:, chosen],
        )

    def inner_batch(self, advantage: Tensor) -> InnerBatch:
        """What the inner step sees, for every task: (M, K * T, ...).

        `advantage` (M, K, T) are those of `gmps.steps.advantage`.
        """
        return InnerBatch(
            each(lambda values: values.flatten(1, 2), self.observation),
            self.action.flatten(1, 2),
            self.log_prob.flatten(1, 2),
            advantage.flatten(1, 2) * mean_weights(self.alive.flatten(1, 2)),
        )


class Sampler:
    """Rolls out M tasks x (K exploring + E mean-action) episodes together.

    Args:
        family: the task family.
        tasks: the M tasks.
        reward: one of the family's, such as "dense".
        explore: K, episodes per task that sample from the policy.
        mean: E, episodes per task that take the policy's mean action.
        watch: called with the simulations after the reset and after every step.
        sees: what the policy observes, see `SimBatch`.
        part: which of the tasks this process rolls out; below, M counts those.
    """

    def __init__(
        self,
        family: Family,
        tasks: Sequence[Task],
        reward: str,
        *,
        explore: int,
        mean: int = 0,
        watch: Callable[[SimBatch], None] = lambda sims: None,
        sees: str | Vision = "state",
        part: Part = WHOLE,
    ) -> None:
        self.part, self.explore = part, explore
        self.episodes_per_task = explore + mean
        self.horizon = family.horizon
        self._watch = watch
        self._num_everywhere = len(tasks)
        contexts = np.array([task.context for task in tasks[part.own]])
        self._names = [task.id for task in tasks[part.own] for _ in range(explore + mean)]
        self.num_tasks = len(contexts)
        self._contexts: FloatArray = contexts.repeat(self.episodes_per_task, axis=0)
        self._sims = make_sims(
            family,
            len(self._contexts),
            reward=reward,
            num_threads=part.world.simulation_threads,
            observation=sees,
        )

    @property
    def num_steps(self) -> int:
        """Environment steps of one call in all processes; those after an early end count."""
        return self._num_everywhere * self.episodes_per_task * self.horizon

    @torch.no_grad()
    def __call__(
        self,
        policy: GaussianPolicy,
        params: Params,
        rng: np.random.Generator,
        latents: Tensor | None = None,
    ) -> Rollouts:
        """Roll out parameters with a leading axis M; `rng` decides start and action noise.

        Episodes 0..K-1 of each task explore, following `latents` (M, K, segments, Z) where they
        are given; K..K+E-1 take the mean action.
        """
        device = params["log_std"].device
        start = self._sims.reset(self._contexts, self._seeds(rng), tasks=self._names)
        observation = from_numpy(start, device)
        self._watch(self._sims)
        noise = self._action_noise(rng).to(device)
        shape = (self.num_tasks, self.episodes_per_task, self.horizon)
        record = Rollouts(
            each(lambda seen: seen.new_empty(*shape, *seen.shape[1:]), observation),
            noise.new_empty(*shape, noise.shape[-1]),
            noise.new_empty(shape),
            noise.new_empty(shape),
            noise.new_empty(shape, dtype=torch.bool),
            noise.new_empty(shape[:2], dtype=torch.bool),
            noise.new_empty(*shape[:2], 0, 0)
            if latents is None
            else self._with_own(latents, params),
        )
        following = self._follow(record.latent, params)
        alive = np.ones(self._sims.num_sims, np.bool_)
        success = np.zeros(self._sims.num_sims, np.bool_)
        act = torch.func.vmap(policy.dist)
        unadapted = {name: value[0] for name, value in params.items()}
        for t in range(self.horizon):
            seen = each(lambda values: values.view(*shape[:2], *values.shape[1:]), observation)
            _keep(record.observation, seen, t)
            dist = act(following(t), policy.encode(unadapted, seen))
            dist = dist._replace(std=dist.std.unsqueeze(1))
            action = dist.sample(noise[t])
            step = self._sims.step(action.flatten(0, 1).cpu().numpy())
            self._watch(self._sims)
            record.action[:, :, t] = action
            record.log_prob[:, :, t] = dist.log_prob(action)
            paid = np.where(alive, step.reward, 0)
            record.reward[:, :, t] = torch.from_numpy(paid).view(shape[:2])
            record.alive[:, :, t] = torch.from_numpy(alive).view(shape[:2])
            success = np.where(alive, step.success, success)
            alive &= ~(step.terminated | step.truncated)
            observation = from_numpy(step.observation, device)
        record.success[:] = torch.from_numpy(success).view(shape[:2])
        return record

    def _with_own(self, latents: Tensor, params: Params) -> Tensor:
        """The latents (M, K + E, segments, Z) of all episodes: mean episodes follow their own."""
        mean = self.episodes_per_task - self.explore
        own = params[LATENT][:, None, None].expand(-1, mean, latents.shape[2], -1)
        return torch.cat((latents, own), 1)

    def _follow(self, latent: Tensor, params: Params) -> Callable[[int], Params]:
        """The parameters by time: with the latent of the segment, where there are latents."""
        segments = latent.shape[2]
        if not segments:
            return lambda t: params
        bounds = segment_bounds(self.horizon, segments)
        return lambda t: {**params, LATENT: latent[:, :, bisect_right(bounds, t) - 1]}

    def _seeds(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """Seeds (M * (K + E),) of the own tasks' starts; they are drawn for all tasks."""
        shape = self._num_everywhere, self.episodes_per_task
        seeds: NDArray[np.int64] = rng.integers(2**31, size=shape)[self.part.own].flatten()
        return seeds

    def _action_noise(self, rng: np.random.Generator) -> Tensor:
        """Standard normal noise (T, M, K + E, A), zero for the mean-action episodes.

        It is drawn for all tasks.
        """
        width = len(self._sims.family.actions)
        shape = (self.horizon, self._num_everywhere, self.explore, width)
        noise = torch.from_numpy(rng.standard_normal(shape, np.float32)[:, self.part.own])
        mean = self.episodes_per_task - self.explore
        return torch.nn.functional.pad(noise, (0, 0, 0, mean))


def _keep(record: Observation, seen: Observation, t: int) -> None:
    """Write observations (M, K, ...) of step t into those of all steps (M, K, T, ...)."""
    each(lambda kept, values: kept[:, :, t].copy_(values), record, seen)


def replicate(params: Params, num_tasks: int) -> Params:
    """The same parameters for every task, with a leading axis M (no copy)."""
    return {name: value.detach().expand(num_tasks, *value.shape) for name, value in params.items()}
