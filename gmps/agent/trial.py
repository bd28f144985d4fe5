"""Meeting a new task in any loop: one episode after the other, each step asked for by the loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from demokit.errors import DemokitError
from demokit.protocols import Trial
from demokit.types import FloatArray, truth
from gmps.agent.acting import executed, rewards
from gmps.experience.actor import Actor, Seen
from gmps.experience.observation import Observation, each
from gmps.experience.rollouts import Rollouts

if TYPE_CHECKING:
    from gmps.agent.agent import TrainedAgent


class Moment(NamedTuple):
    """A step of an episode: what was seen, (1, ...), done (A,) and paid, (1, 1); was it the end?"""

    observation: Observation
    action: Tensor
    reward: Tensor
    terminated: bool = False


class NewTask(Trial):
    """See `demokit.protocols.Trial`; the docstrings are those of the protocol.

    The method's explorer is made for the K episodes of a step at once. Here they come one after
    the other: in each it acts for all K, and only the one under way is alive. When all are there
    it goes through them together, as if they had been rolled out so: what it remembers then, and
    the densities of the actions, are those of a batch, bit for bit.

    Args:
        agent: with the belief to begin with.
        steps: adaptation steps.
        rollouts: K, episodes of a step.
        seed: of what is tried.
    """

    def __init__(self, agent: TrainedAgent, steps: int, rollouts: int, seed: int) -> None:
        self._agent, self._steps, self._rollouts = agent, steps, rollouts
        self._learner, self._belief = agent.learner, agent.belief
        self._streams = agent.streams(seed)
        self._step = 0
        self._tried: tuple[Observation, Tensor] | None = None
        self._begin_step()

    @property
    def gathering(self) -> bool:
        return self._step < self._steps

    @property
    def episode(self) -> int:
        return self._step * self._rollouts + len(self._done)

    @property
    def episodes(self) -> int:
        return self._steps * self._rollouts

    @property
    def start_seed(self) -> int:
        self._require_gathering()
        return int(self._seeds[len(self._done)])

    def act(self, observation: Any) -> FloatArray:
        self._require_gathering()
        if self._tried is not None:
            raise DemokitError("The last action's reward is not recorded: record it before acting.")
        seen = self._read(observation)
        with torch.no_grad():
            action = self._explored(seen)
        self._tried = seen, action
        now: FloatArray = executed(action)[0]
        return now

    def record(
        self,
        reward: float,
        terminated: bool = False,
        truncated: bool = False,
        *,
        final_observation: Any = None,
    ) -> bool:
        if self._tried is None:
            raise DemokitError("There is no action to record the reward of: act comes first.")
        paid, ends = rewards(reward, 1), (truth(terminated), truth(truncated))
        if None in ends:
            raise DemokitError("terminated and truncated are true or false.")
        last = self._tried[0] if final_observation is None else self._read(final_observation)
        seen, action = self._tried
        self._moments.append(Moment(seen, action, paid, bool(ends[0])))
        self._tried = None
        over = any(ends) or len(self._moments) == self._agent.horizon
        if over:
            self._done.append((self._moments, last))
            self.discard()
            if len(self._done) == self._rollouts:
                self._learn()
        return over

    def discard(self) -> None:
        self._memory, self._moments = self._explorer.memory, list[Moment]()
        self._tried = None

    def adapted(self) -> TrainedAgent:
        if self._step == 0 and self._steps > 0:
            missing = self._rollouts - len(self._done)
            raise DemokitError(
                f"Nothing is learned yet: {missing} of the {self._rollouts} episodes of a step of "
                f"{self._agent.method} are missing."
            )
        return self._agent.knowing(self._belief, self._step, self._step * self._rollouts)

    def _begin_step(self) -> None:
        """Ask the method what to try; start and noise of the episodes are drawn as in a batch."""
        rngs = self._streams(self._agent.steps + self._step).spawn(1)
        step, horizon = self._agent.steps + self._step, self._agent.horizon
        self._explorer: Actor = self._learner.explorer(self._belief, step, self._rollouts, rngs)
        self._seeds = rngs[0].integers(2**31, size=self._rollouts)
        shape = horizon, self._rollouts, len(self._agent.action_names)
        self._noise = torch.from_numpy(rngs[0].standard_normal(shape, np.float32))[:, None]
        self._done: list[tuple[list[Moment], Observation]] = []
        self.discard()

    def _explored(self, seen: Observation) -> Tensor:
        """What the explorer tries in the episode under way, (1, A), before clipping."""
        t, own = len(self._moments), len(self._done)
        alive = torch.zeros(1, self._rollouts, dtype=torch.bool)
        action, reward = torch.zeros_like(self._noise[0]), torch.zeros_like(self._noise[0, ..., 0])
        alive[:, own] = True
        if self._moments:
            action[:, own], reward[:, own] = self._moments[-1].action, self._moments[-1].reward
        every = each(lambda values: values.repeat(self._rollouts, *_ones(values))[None], seen)
        dist, self._memory = self._explorer(self._memory, Seen(t, every, action, reward, alive))
        return dist.sample(self._noise[t])[:, own]

    @torch.no_grad()
    def _learn(self) -> None:
        """An adaptation step from the episodes that are done."""
        step = self._agent.steps + self._step
        self._belief = self._learner.adapt(self._belief, step, *self._together())
        self._step, self._done = self._step + 1, []
        if self.gathering:
            self._begin_step()

    def _together(self) -> tuple[Rollouts, Any]:
        """The episodes as roll-outs of a batch, and what the explorer remembers of them."""
        shape = 1, self._rollouts, self._agent.horizon
        moments = [_padded(*episode, self._agent.horizon) for episode in self._done]
        gathered = Rollouts.empty(shape, moments[0][0].observation, self._noise[0, 0])
        memory, action = self._explorer.memory, torch.zeros_like(self._noise[0])
        reward = torch.zeros_like(action[..., 0])
        for t, now in enumerate(zip(*moments, strict=True)):
            alive = torch.tensor([[t < len(own) for own, _ in self._done]])
            ended = torch.tensor([[m.terminated for m in now]])
            seen = Seen(t, _joined([m.observation for m in now]), action, reward, alive)
            dist, memory = self._explorer(memory, seen)
            action = torch.stack([m.action for m in now], 1)
            reward = torch.cat([m.reward for m in now], 1)
            gathered.keep(t, seen.observation, action, dist.log_prob(action), reward, alive, ended)
        return gathered, memory

    def _read(self, observation: Any) -> Observation:
        """One observation, (1, ...)."""
        seen, batched = self._agent.sight.read(observation)
        if batched:
            raise DemokitError("A trial meets one task, step by step: give one observation.")
        return seen

    def _require_gathering(self) -> None:
        if not self.gathering:
            raise DemokitError("The trial is complete: the agent that adapted() gives acts now.")


def _padded(moments: list[Moment], last: Observation, horizon: int) -> list[Moment]:
    """As long as the horizon: behind its end an episode stays where it is, unpaid."""
    zeros = torch.zeros_like(moments[0].action), torch.zeros_like(moments[0].reward)
    return [*moments, *[Moment(last, *zeros)] * (horizon - len(moments))]


def _joined(observations: list[Observation]) -> Observation:
    """Of K episodes (1, ...) each, (1, K, ...)."""
    return each(lambda *values: torch.cat(values)[None], *observations)


def _ones(values: Tensor) -> list[int]:
    return [1] * (values.ndim - 1)
