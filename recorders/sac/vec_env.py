"""Many tasks of a family as one vector environment of stable-baselines3."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.spaces import Box
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv

from demokit.envs.batch import make_sims
from demokit.envs.family import Family
from demokit.learning.expert import ExpertInputs
from demokit.types import Array, FloatArray, Task


class TaskVecEnv(VecEnv):
    """N simulations whose observation is all there is: state, privileged terms and context.

    Each episode takes the next task of a shuffled round through all of them, so that tasks stay
    balanced. The reward is the dense one and the family's shaping, whatever the meta-task's. The
    horizon truncates, it does not
    terminate: `info["TimeLimit.truncated"]` lets the critic bootstrap through it.

    Args:
        family: the task family.
        tasks: the training tasks.
        num_envs: N.
        rng: draws the order of tasks and the seeds of the start noise.
        num_threads: threads that step the simulations; 0 takes every CPU.
    """

    def __init__(
        self,
        family: Family,
        tasks: Sequence[Task],
        num_envs: int,
        rng: np.random.Generator,
        *,
        num_threads: int = 0,
    ) -> None:
        self._ids = [task.id for task in tasks]
        self._contexts = family.contexts(tasks)
        self.inputs = ExpertInputs.of(family, self._contexts.shape[1])
        self._sims = make_sims(family, num_envs, reward="dense", num_threads=num_threads)
        self._context = np.zeros((num_envs, self._contexts.shape[1]))
        self._rng = rng
        self._round: list[int] = []
        self._actions: FloatArray = np.zeros((num_envs, len(family.actions)), np.float32)
        self._running: dict[str, Any] = {}
        self.render_mode = None
        super().__init__(
            num_envs,
            Box(-np.inf, np.inf, (self.inputs.width,), np.float32),
            Box(-1, 1, (len(family.actions),), np.float32),
        )

    def reset(self) -> FloatArray:
        """Start all simulations; returns observations (N, D) float32."""
        self._start(np.arange(self.num_envs))
        return self._observe()

    def step_async(self, actions: FloatArray) -> None:
        """Keep the actions (N, A) for `step_wait`."""
        self._actions = actions

    def step_wait(self) -> tuple[FloatArray, FloatArray, NDArray[np.bool_], list[dict[str, Any]]]:
        """Step; simulations that ended have started again, their info holds the last moment."""
        step = self._sims.step(self._actions)
        reward = step.reward + self._sims.shaping()
        ended = step.terminated | step.truncated
        observation = self._observe()
        # What has nothing to say shares one dictionary: a fresh one each costs more than the step.
        infos = [self._running] * self.num_envs
        if ended.any():
            for i in np.flatnonzero(ended):
                infos[i] = {
                    "terminal_observation": observation[i].copy(),
                    "TimeLimit.truncated": bool(step.truncated[i] and not step.terminated[i]),
                }
            self._start(np.flatnonzero(ended))
            observation = self._observe()
        return observation, reward, ended, infos

    def close(self) -> None:
        """Close the simulations."""
        self._sims.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """The attribute of the batch, once for each simulation asked for."""
        return [getattr(self, attr_name)] * len(list(self._get_indices(indices)))

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Not for single simulations of a batch; raises NotImplementedError."""
        raise NotImplementedError("The simulations are one batch.")

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> Any:
        """Not for single simulations of a batch; raises NotImplementedError."""
        raise NotImplementedError("The simulations are one batch.")

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:  # noqa: ARG002
        """No simulation is wrapped."""
        return [False] * len(list(self._get_indices(indices)))

    def _start(self, ids: NDArray[np.int64]) -> None:
        drawn = [self._next_task() for _ in ids]
        self._context[ids] = self._contexts[drawn]
        seeds = self._rng.integers(2**31, size=len(ids))
        self._sims.reset(self._context[ids], seeds, ids, tasks=[self._ids[i] for i in drawn])

    def _next_task(self) -> int:
        if not self._round:
            self._round = self._rng.permutation(len(self._contexts)).tolist()
        return self._round.pop()

    def _observe(self) -> FloatArray:
        terms: dict[str, Array] = {**self._sims.terms, "context": self._context}
        return self.inputs.gather(terms).astype(np.float32)
