"""Roll-outs of many tasks and episodes in one batch of simulations; it knows actors, no method."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from demokit.envs.batch import SimBatch, make_sims
from demokit.envs.family import Family
from demokit.envs.vision import Vision
from demokit.types import FloatArray, Task
from gmps.distributed import WHOLE, Part
from gmps.experience.actor import Actor, Seen
from gmps.experience.observation import Observation, each, from_numpy
from gmps.experience.rollouts import Gathered, Rollouts, Sampled


class Sampler:
    """Rolls out M tasks x (K exploring + E mean-action) episodes together.

    Whoever makes one closes it, best by `with`: a person's own environments are then closed, too.

    Args:
        family: the task family.
        tasks: the M tasks.
        reward: one of the family's, such as "dense".
        explore: K, episodes per task in which the explorer's actions are sampled.
        mean: E, episodes per task in which the exploiter acts by its mean.
        watch: called with the simulations after the reset and after every step.
        sees: what is observed, see `SimBatch`.
        part: which of the tasks this process rolls out; below, M counts those.
        device: where actors compute.

    Attributes:
        starts: the seeds (M * (K + E),) from which the last episodes began.
        final: what was observed after their last step, (M, K + E, ...).
    """

    starts: NDArray[np.int64]
    final: Observation

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
        device: torch.device | str = "cpu",
    ) -> None:
        self.part, self.explore, self.mean = part, explore, mean
        self.horizon = family.horizon
        self._watch, self._device = watch, torch.device(device)
        self._num_everywhere = len(tasks)
        contexts = np.array([task.context for task in tasks[part.own]])
        self._names = [task.id for task in tasks[part.own] for _ in range(explore + mean)]
        self.num_tasks = len(contexts)
        self._contexts: FloatArray = contexts.repeat(explore + mean, axis=0)
        self._sims = make_sims(
            family,
            len(self._contexts),
            reward=reward,
            num_threads=part.world.simulation_threads,
            observation=sees,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the simulations; what has been rolled out stays."""
        self._sims.close()

    @property
    def contexts(self) -> Tensor:
        """Of the M tasks, (M, C): for learners that are told (`IsTold`), and nobody else."""
        return torch.from_numpy(self._contexts[:: self.explore + self.mean]).float()

    @property
    def num_steps(self) -> int:
        """Environment steps of one call in all processes; those after an early end count."""
        return self.steps_of(self.explore + self.mean)

    def steps_of(self, episodes: int) -> int:
        """Environment steps of so many episodes of every task, in all processes."""
        return self._num_everywhere * episodes * self.horizon

    def streams(self, rng: np.random.Generator) -> list[np.random.Generator]:
        """A generator for each of this process's tasks.

        How many numbers a task draws, and how many processes there are, changes no other's.
        """
        return rng.spawn(self._num_everywhere)[self.part.own]

    @torch.no_grad()
    def __call__(
        self, explorer: Actor, rngs: Sequence[np.random.Generator], exploiter: Actor | None = None
    ) -> Sampled:
        """Roll out; `rngs`, one of each task, decide start and action noise.

        Episodes 0..K-1 of each task are the explorer's, K..K+E-1 the exploiter's.
        """
        self.starts = self._seeds(rngs)
        start = self._sims.reset(self._contexts, self.starts, tasks=self._names)
        observation = from_numpy(start, self._device)
        self._watch(self._sims)
        noise = self._action_noise(rngs)
        cast = _Cast(explorer, exploiter, self.explore)
        shape = self.num_tasks, self.explore + self.mean, self.horizon
        record = Rollouts.empty(shape, observation, noise)
        alive = np.ones(self._sims.num_sims, np.bool_)
        success = np.zeros(self._sims.num_sims, np.bool_)
        action, reward = torch.zeros_like(noise[0]), torch.zeros_like(noise[0, ..., 0])
        for t in range(self.horizon):
            living = self._tensor(alive)
            seen = Seen(t, self._by_task(observation), action, reward, living)
            action, log_prob = cast.act(seen, noise[t])
            step = self._sims.step(action.flatten(0, 1).cpu().numpy())
            self._watch(self._sims)
            reward = self._tensor(np.where(alive, step.reward, 0)).to(noise.dtype)
            ended = self._tensor(alive & step.terminated)
            record.keep(t, seen.observation, action, log_prob, reward, living, ended)
            success = np.where(alive, step.success, success)
            alive &= ~(step.terminated | step.truncated)
            observation = from_numpy(step.observation, self._device)
        self.final = self._by_task(observation)
        return cast.split(record, self._tensor(success))

    def _by_task(self, observation: Observation) -> Observation:
        shape = self.num_tasks, self.explore + self.mean
        return each(lambda values: values.view(*shape, *values.shape[1:]), observation)

    def _tensor(self, values: NDArray[Any]) -> Tensor:
        """Values (M, K + E) of the simulations."""
        shape = self.num_tasks, self.explore + self.mean
        return torch.from_numpy(values).view(shape).to(self._device, copy=True)

    def _seeds(self, rngs: Sequence[np.random.Generator]) -> NDArray[np.int64]:
        """Seeds (M * (K + E),) of the starts."""
        episodes = self.explore + self.mean
        return np.concatenate([rng.integers(2**31, size=episodes) for rng in rngs])

    def _action_noise(self, rngs: Sequence[np.random.Generator]) -> Tensor:
        """Standard normal noise (T, M, K + E, A), zero for the mean-action episodes."""
        shape = self.horizon, self.explore, len(self._sims.family.actions)
        drawn = np.stack([rng.standard_normal(shape, np.float32) for rng in rngs], 1)
        noise = torch.from_numpy(drawn).to(self._device)
        return torch.nn.functional.pad(noise, (0, 0, 0, self.mean))


class _Cast:
    """The actors of one call, each with its share of the episodes and its own memory."""

    def __init__(self, explorer: Actor, exploiter: Actor | None, explore: int) -> None:
        self._shares = slice(explore), slice(explore, None)
        self._actors = (explorer,) if exploiter is None else (explorer, exploiter)
        self._memories = [actor.memory for actor in self._actors]

    def act(self, seen: Seen, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Actions (M, K + E, A) and their log-densities (M, K + E)."""
        found = []
        for i, actor in enumerate(self._actors):
            own = self._shares[i]
            dist, self._memories[i] = actor(self._memories[i], _share(seen, own))
            action = dist.sample(noise[:, own])
            found.append((action, dist.log_prob(action)))
        actions, log_probs = zip(*found, strict=True)
        return torch.cat(actions, 1), torch.cat(log_probs, 1)

    def split(self, record: Rollouts, success: Tensor) -> Sampled:
        """What each of them did."""
        memories = (*self._memories, None)
        return Sampled(
            *(
                Gathered(record.episodes(own), memory, success[:, own])
                for own, memory in zip(self._shares, memories, strict=False)
            )
        )


def _share(seen: Seen, own: slice) -> Seen:
    return Seen(
        seen.t,
        each(lambda values: values[:, own], seen.observation),
        seen.action[:, own],
        seen.reward[:, own],
        seen.alive[:, own],
    )
