"""What contexts are made of: roll-outs of the training tasks, and what the expert says of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from demokit.experts import load_adviser, training_of
from demokit.protocols import Expert
from gmps.experience.actor import Actor, Replays
from gmps.experience.demos import DemoSet
from gmps.experience.rollouts import Rollouts
from gmps.experience.transitions import Transitions, joined, met_in, newest
from gmps.methods.dpt.learner import ContextLearner
from gmps.methods.dpt.options import DPTOptions
from gmps.problem import Training


class Asked(NamedTuple):
    """States of episodes (M, P, T, O), what the expert does there (M, P, T, A), and `alive`
    (M, P, T) bool, which there are.
    """

    observation: Tensor
    action: Tensor
    alive: Tensor


class Episodes(NamedTuple):
    """P episodes of every training task: what they met (M, P, N, ...), and what the expert says of
    their states; of no episode, P is 0 there, where he is not asked.
    """

    met: Transitions
    asked: Asked

    def and_then(self, later: Episodes, num: int) -> Episodes:
        """With others behind them: the newest `num`."""
        met, asked = joined(self.met, later.met), joined(self.asked, later.asked)
        return Episodes(newest(met, num), newest(asked, num))


class Gathering:
    """Rolls out the training tasks; every process is given the episodes of all.

    Args:
        training: whose options say how much, and who is asked.

    Attributes:
        num_steps: environment steps so far, in all processes.
    """

    def __init__(self, training: Training[DPTOptions]) -> None:
        self.num_steps = 0
        self._training, self._options = training, training.options
        self._adviser: Adviser | None = None
        if self._options.dagger:
            name = training.problem.family_name
            self._adviser = Adviser(load_adviser(self._options.expert, name))

    @property
    def experts(self) -> dict[str, int]:
        """SHA-256 of a trained expert that is asked -> the steps of its training."""
        trained = training_of(self._adviser.expert) if self._adviser else None
        return {trained["sha256"]: trained["env_steps"]} if trained else {}

    def replays(self, rng: np.random.Generator) -> Episodes:
        """Demonstrations of any training tasks, replayed in each of them, with noise."""
        with self._sampler(self._options.replays) as sampler:
            rngs = sampler.streams(rng)
            drawn = [_drawn(self._training.demonstrations, sampler.explore, own) for own in rngs]
            each = torch.arange(sampler.explore, device=drawn[0].device).expand(len(drawn), -1)
            actor = Replays(torch.stack(drawn), each, self._options.exploring_std)
            return self._rolled_out(sampler, actor, rngs)[0]

    def trials(
        self, learner: ContextLearner, rng: np.random.Generator
    ) -> tuple[Episodes, list[float]]:
        """A trial of each task, until a context is full and for an episode more; mean returns."""
        found, returns = list[Episodes](), list[float]()
        with self._sampler(1) as sampler:
            belief = learner.begin(sampler.num_tasks)
            for step in range(self._options.context_episodes + 1):
                rngs = sampler.streams(rng)
                explorer = learner.explorer(belief, step, 1, rngs)
                episodes, rollouts = self._rolled_out(sampler, explorer, rngs)
                belief = learner.adapt(belief, step, rollouts, None)
                paid = self._training.part.gathered(rollouts.reward.sum(-1).cpu())
                found.append(episodes)
                returns.append(float(paid.mean()))
        met, asked = zip(*found, strict=True)
        return Episodes(joined(*met), joined(*asked)), returns

    def _sampler(self, num: int) -> Any:
        training = self._training
        return training.problem.sampler(
            training.problem.tasks,
            explore=num,
            part=training.part,
            device=training.device,
            watch=self._adviser or (lambda sims: None),
        )

    def _rolled_out(
        self, sampler: Any, actor: Actor, rngs: Sequence[np.random.Generator]
    ) -> tuple[Episodes, Rollouts]:
        """Episodes of all tasks, and the roll-outs of the own ones."""
        rollouts: Rollouts = sampler(actor, rngs).explored.rollouts
        self.num_steps += sampler.num_steps
        said = self._adviser.said(rollouts.action) if self._adviser else rollouts.action[:, :0]
        assert isinstance(rollouts.observation, Tensor)
        num = said.shape[1]
        asked = Asked(rollouts.observation[:, :num], said, rollouts.alive[:, :num])
        met = met_in(rollouts, self._options.stride(sampler.horizon))
        return Episodes(self._everywhere(met), self._everywhere(asked)), rollouts

    def _everywhere(self, batch: Any) -> Any:
        """Of all tasks; numbers and truths (m, ...) are those of the own ones."""
        part = self._training.part
        return type(batch)(*(part.gathered(v.float()).to(v.dtype) for v in batch))


class Adviser:
    """Asks an expert about every state of roll-outs: what a sampler is watched by."""

    def __init__(self, expert: Expert) -> None:
        self.expert = expert
        self._said: list[Tensor] = []

    def __call__(self, sims: Any) -> None:
        """Ask about simulations as they stand."""
        said = self.expert.act(sims.observe(), sims.privileged())
        self._said.append(torch.from_numpy(np.asarray(said, np.float32)))

    def said(self, action: Tensor) -> Tensor:
        """Of the last roll-outs, in the shape (M, K, T, A) of what was done there."""
        *states, _ = self._said  # behind the last step nothing is done
        self._said = []
        return torch.stack(states, 1).view(action.shape).to(action.device)


def _drawn(demos: DemoSet, num: int, rng: np.random.Generator) -> Tensor:
    """What was executed in `num` demonstrations of any tasks, (K, T, A)."""
    tasks, episodes = (torch.from_numpy(rng.integers(n, size=num)) for n in demos.alive.shape[:2])
    return demos.executed[tasks, episodes] * demos.alive[tasks, episodes, :, None]
