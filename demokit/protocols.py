"""The small protocols between rooms: who may see what, and who acts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from demokit.types import Array, FloatArray


class Expert(Protocol):
    """Solves the task it is told: sees the observation and the privileged terms."""

    @property
    def name(self) -> str:
        """What datasets call it."""
        ...

    def act(self, observation: FloatArray, privileged: Mapping[str, Array]) -> FloatArray:
        """Actions (N, A) in [-1, 1]; `privileged` holds "context" (N, C) and the family's terms."""
        ...


class Decision(NamedTuple):
    """What an action source decides for N simulations.

    `action` (N, A) is executed; `label` (N, A) is what the expert would have done there, None, in
    every step, where nobody knows that; `by_expert` (N,) bool says whether the expert chose the
    action (noise added or not).
    """

    action: FloatArray
    label: FloatArray | None
    by_expert: NDArray[np.bool_]


class ActionSource(Protocol):
    """Whatever drives a recording: a device, a noisy expert, a policy."""

    name: str

    def decide(self, observation: FloatArray, privileged: Mapping[str, Array]) -> Decision:
        """The executed actions and the expert's for N simulations."""
        ...


class Agent(Protocol):
    """A trained policy, in any loop that has observations and rewards: see `demokit.load_policy`.

    Observations are what the run was trained on: float vectors (F,), or for images a mapping from
    names to arrays, uint8 (height, width, 3) and vectors. `observation_shapes` says which.

    Attributes:
        method: of the run, such as "gmps".
        family: the task family that it was trained on.
        observation_shapes: name -> shape of one observation; a vector alone has the name "".
        action_names: what the A components of an action mean.
        horizon: steps of an episode in training: the most that a trial's episodes take.
        episodes_per_step: K, the episodes of one adaptation step.
        steps: adaptation steps taken so far; 0: it knows no task yet.
        episodes: episodes that these have taken.
    """

    @property
    def method(self) -> str:
        """See above."""
        ...

    @property
    def family(self) -> str:
        """See above."""
        ...

    @property
    def observation_shapes(self) -> Mapping[str, tuple[int, ...]]:
        """See above."""
        ...

    @property
    def action_names(self) -> tuple[str, ...]:
        """See above."""
        ...

    @property
    def horizon(self) -> int:
        """See above."""
        ...

    @property
    def episodes_per_step(self) -> int:
        """See above."""
        ...

    @property
    def steps(self) -> int:
        """See above."""
        ...

    @property
    def episodes(self) -> int:
        """See above."""
        ...

    def act(self, observation: Any, *, reward: Any = None) -> FloatArray:
        """The action of the policy's mean, without exploration.

        Args:
            observation: one, or a batch of N with a leading axis: N episodes of the same task.
            reward: what the last action was paid, a number or (N,), for methods that look at it.

        Returns:
            Action (A,), or (N, A), float32 in [-1, 1].

        Raises:
            DemokitError: the observation has another shape, lacks a part or is not finite.
        """
        ...

    def reset(self) -> None:
        """Say that the next observation begins an episode.

        It matters to methods that act by time or memory (replay); another batch size does it too.
        """
        ...

    def new_task(
        self,
        *,
        steps: int | None = None,
        episodes: int | None = None,
        rollouts: int | None = None,
        context: Sequence[float] | None = None,
        seed: int = 0,
    ) -> Trial:
        """A trial of a task that nobody has met; what this agent knows of another is forgotten.

        Args:
            steps: adaptation steps; 1 unless `episodes` says more.
            episodes: in place of `steps`, episodes in all: a multiple of those of one step.
            rollouts: K, episodes of one step, in place of the run's own.
            context: of the task, for the methods that are told it, and for no others.
            seed: of what is tried; the same seed and the same answers lead to the same policy.

        Raises:
            DemokitError: the run cannot take so many steps, or what is asked for has no effect.
        """
        ...

    def same_task(
        self,
        *,
        steps: int | None = None,
        episodes: int | None = None,
        rollouts: int | None = None,
        seed: int = 0,
    ) -> Trial:
        """A trial that goes on with the task that this agent knows; else as `new_task`."""
        ...

    def shown(self, demonstrations: str | PathLike[str], *, seed: int = 0) -> Agent:
        """The same after demonstrations of its task, without any reward.

        Args:
            demonstrations: a dataset, file or Minari id, all of whose episodes are of the task.
            seed: of what is drawn where a method draws.

        Raises:
            DemokitError: it shows several tasks, or what the policy neither sees nor does, or the
                method learns from rewards alone.
        """
        ...

    def save(self, path: str | PathLike[str], *, overwrite: bool = False) -> None:
        """Write policy and belief to a file, which `demokit.load_policy` reads.

        Raises:
            DemokitError: the file exists and `overwrite` is false, it has the name of a training's
                checkpoint, it cannot be written, or the policy has diverged and acts no more.
        """
        ...


class Trial(Protocol):
    """Meeting a task: episodes that the method chooses, one after the other, and what they teach.

    Attributes:
        gathering: whether there is something left to try.
        episode: the episode that is under way or comes next, counted from 0.
        episodes: of the whole trial.
        start_seed: a seed for the start of this episode, where a simulator takes one.
    """

    @property
    def gathering(self) -> bool:
        """See above."""
        ...

    @property
    def episode(self) -> int:
        """See above."""
        ...

    @property
    def episodes(self) -> int:
        """See above."""
        ...

    @property
    def start_seed(self) -> int:
        """See above."""
        ...

    def act(self, observation: Any) -> FloatArray:
        """What the method tries now, (A,) float32 in [-1, 1]; `observation` is one, no batch.

        Raises:
            DemokitError: the trial is complete, the last action's reward was not recorded, or the
                observation is none of the run's.
        """
        ...

    def record(
        self,
        reward: float,
        terminated: bool = False,
        truncated: bool = False,
        *,
        final_observation: Any = None,
    ) -> bool:
        """What came of the last action.

        Args:
            reward: it was paid.
            terminated: whether the episode is over by itself.
            truncated: whether somebody stopped it.
            final_observation: what is seen after the last step of an episode that ends early;
                methods that learn how tasks move look at it. Without it, it looks as before.

        Returns:
            Whether the episode is over, also because it has reached the horizon: the next
            observation is that of a new one.

        Raises:
            DemokitError: no action waits for a reward, or something is not finite.
        """
        ...

    def discard(self) -> None:
        """Forget the episode that is under way: it begins anew."""
        ...

    def adapted(self) -> Agent:
        """The agent that knows what all whole adaptation steps so far have taught.

        Raises:
            DemokitError: not one is whole.
        """
        ...
