"""Any Gymnasium environment built on MuJoCo, recorded and replayed: `gym:Pusher-v5` is a family.

A thin adapter: each simulation is one environment of Gymnasium's, stepped by its own code, one
after another; the batch of the other families is many times faster. The episode is the one that
Gymnasium gives: same start for the same seed, same rewards, same end, with these differences:

- actions are scaled from [-1, 1] to the environment's bounds, observations are float32;
- wrappers are left out; the horizon is the registered one (1,000 where there is none).

The recorded state is MuJoCo's integration state, then the last observation, reward, termination
and success. Restoring it continues the physics bit for bit; the first reward after it may differ
in its last digits where the environment reads positions that MuJoCo left one step behind, and
from there on it is the recorded one. Whatever the environment remembers beside MuJoCo's state is
not restored.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from hashlib import sha256
from typing import Any

import gymnasium
import mujoco
import numpy as np
from gymnasium.spaces import Box, flatdim, flatten
from mujoco.batch import Batch
from numpy.typing import NDArray

from demokit.envs.batch import SimBatch, SimState
from demokit.envs.family import ContextSpace, Family, Term, Terms, Viewpoint, Views
from demokit.errors import DemokitError
from demokit.types import Array, FloatArray, Observation, Step

PREFIX = "gym:"
DEFAULT_HORIZON = 1000
_STATE = mujoco.mjtState.mjSTATE_INTEGRATION.value
_EXTRAS = 3  # reward, terminated, success
_MAX_SEED = 2**31 - 1


class GymFamily(Family):
    """One Gymnasium environment as a family of one task.

    Raises:
        DemokitError: no such environment, or it is not built on MuJoCo with bounded actions.
    """

    context = ContextSpace(("none",), ("1",), (0.0,), (0.0,), regions=(((0.0,), (0.0,)),))
    object_term = "observation"
    start_noise_width = 1

    def __init__(self, name: str) -> None:
        self.env_id = name.removeprefix(PREFIX)
        wrapped = self._make()
        env, spec = _on_mujoco(wrapped, self.env_id), wrapped.spec
        self._low, self._high = _bounds(env, name)
        width = flatdim(env.observation_space)
        # Constants of the class in other families; here each environment has its own.
        self.__dict__.update(
            name=name,
            model=env.model,
            horizon=(spec and spec.max_episode_steps) or DEFAULT_HORIZON,
            frame_skip=int(getattr(env, "frame_skip", 1)),
            actions=tuple(f"action {i}" for i in range(len(self._low))),
            terms=(
                Term("observation", width, "the environment's", "the environment's", "observation"),
                Term("reward", 1, "1", "none", "privileged"),
                Term("terminated", 1, "1", "none", "privileged"),
                Term("solved", 1, "1", "none", "privileged"),
            ),
            viewpoints={"scene": _overview(env.model)},
        )

    def make_env(self) -> Any:
        """The bare environment; raises DemokitError when there is none or it is not MuJoCo's."""
        return _on_mujoco(self._make(), self.env_id)

    def _make(self) -> Any:
        """The environment as Gymnasium makes it; raises DemokitError when it cannot."""
        try:
            return gymnasium.make(self.env_id)
        except Exception as error:  # the environment's own code raises anything
            raise DemokitError(f"Gymnasium cannot make '{self.env_id}': {error}") from error

    def make_sims(self, num_sims: int, **options: Any) -> SimBatch:
        """See `Family`."""
        return GymBatch(self, num_sims, **options)

    def scaled(self, action: FloatArray) -> FloatArray:
        """An action (A,) in [-1, 1] in the environment's bounds, float32."""
        share = (np.asarray(action, np.float32) + 1) / 2
        scaled: FloatArray = self._low + share * (self._high - self._low)
        return scaled

    @cached_property
    def model_hash(self) -> str:
        """SHA-256 of the compiled model: the environment may have changed what its XML says."""
        buffer = np.empty(mujoco.mj_sizeModel(self.model), np.uint8)
        mujoco.mj_saveModel(self.model, None, buffer)
        return sha256(buffer.tobytes()).hexdigest()

    def reward_dense(self, terms: Terms, context: FloatArray, action: FloatArray) -> FloatArray:  # noqa: ARG002
        """The environment's reward for the step that led here."""
        return terms["reward"][:, 0]

    def reward_sparse(self, terms: Terms, context: FloatArray, action: FloatArray) -> FloatArray:
        """The same: Gymnasium's environments have one reward."""
        return self.reward_dense(terms, context, action)

    def success(self, terms: Terms, context: FloatArray) -> Array:  # noqa: ARG002
        """What the environment's info says under "is_success" or "success", else never."""
        return terms["solved"][:, 0] > 0

    def terminated(self, terms: Terms) -> NDArray[np.bool_]:
        """What the environment said."""
        return terms["terminated"][:, 0] > 0

    def spec(self) -> mujoco.MjSpec:
        """Never called: the environment has compiled its model."""
        raise NotImplementedError

    def views(self, sims: Batch) -> Views:
        """Never called: the environment steps itself, as for `start`, `control` and `read`."""
        raise NotImplementedError

    def start(self, noise: FloatArray) -> Views:
        """Never called."""
        raise NotImplementedError

    def control(self, views: Views, action: FloatArray) -> Views:
        """Never called."""
        raise NotImplementedError

    def read(self, views: Views) -> Terms:
        """Never called."""
        raise NotImplementedError


class GymBatch(SimBatch):
    """N environments of Gymnasium's with the interface of a batch, stepped one after another.

    Args:
        family: the adapted environment.
        num_sims: N.
        reward: either; there is one reward.
        num_threads: has no effect.
        observation: "state"; the adapter knows no images.
    """

    family: GymFamily

    def __init__(
        self,
        family: GymFamily,
        num_sims: int,
        *,
        reward: str = "dense",
        num_threads: int = 0,  # noqa: ARG002
        observation: object = "state",
    ) -> None:
        if observation != "state":
            raise DemokitError(f"{family.name} cannot be observed through images: take 'state'.")
        self.family, self.num_sims, self.reward = family, num_sims, reward
        self.vision = self._eyes = None
        self._envs = [family.make_env() for _ in range(num_sims)]
        self._physics = mujoco.mj_stateSize(family.model, _STATE)
        self._rows = np.zeros((num_sims, self._physics + family.observation_width + _EXTRAS))
        self._step_index = np.zeros(num_sims, np.int64)
        self._context = np.zeros((num_sims, 1))
        self._action = np.zeros((num_sims, len(family.actions)))

    def reset(
        self,
        context: FloatArray,  # noqa: ARG002
        seeds: Sequence[int] | NDArray[np.int64],
        ids: NDArray[np.int64] | None = None,
    ) -> Observation:
        """See `SimBatch`; an environment is seeded with its own seed."""
        ids = np.arange(self.num_sims) if ids is None else np.asarray(ids)
        self._step_index[ids], self._action[ids] = 0, 0
        for index, seed in zip(ids, seeds, strict=True):
            observation, _ = self._envs[index].reset(seed=int(seed) % _MAX_SEED)
            self._note(index, observation, 0.0, ended=False, solved=False)
        return self._look()

    def step(self, action: FloatArray) -> Step:
        """See `SimBatch`."""
        self._action[:] = self._checked(action)
        for index, env in enumerate(self._envs):
            seen, reward, ended, _, info = env.step(self.family.scaled(self._action[index]))
            solved = bool(info.get("is_success", info.get("success", False)))
            self._note(index, seen, reward, ended=ended, solved=solved)
        self._step_index += 1
        self._look()
        return Step(
            observation=self.observe(),
            reward=self.family.reward_dense(self._terms, self._context, self._action),
            terminated=self.family.terminated(self._terms),
            truncated=self._step_index >= self.family.horizon,
            success=self.family.success(self._terms, self._context),
        )

    def get_state(self) -> SimState:
        """See `SimBatch`; `physics` is the adapter's whole row."""
        return SimState(self._rows.copy(), self._step_index.copy(), self._context.copy())

    def set_state(self, state: SimState) -> Observation:
        """See `SimBatch`."""
        if state.physics.shape != self._rows.shape:
            raise DemokitError(
                f"State has shape {state.physics.shape}, {self.num_sims} simulations of "
                f"{self.family.name} need {self._rows.shape}."
            )
        self._rows[:], self._step_index[:] = state.physics, state.step_index
        self._action[:] = 0
        for env, row in zip(self._envs, self._rows, strict=True):
            mujoco.mj_setState(env.model, env.data, row[: self._physics], _STATE)
            mujoco.mj_forward(env.model, env.data)
            # Once more: mj_forward has changed the warm start, and with it the future.
            mujoco.mj_setState(env.model, env.data, row[: self._physics], _STATE)
        return self._look()

    def data(self, sim: int) -> mujoco.MjData:
        """See `SimBatch`."""
        data = mujoco.MjData(self.family.model)
        mujoco.mj_setState(self.family.model, data, self._rows[sim, : self._physics], _STATE)
        return data

    def _state_rows(self) -> FloatArray:
        return self._rows

    def _note(
        self, index: int, observation: Any, reward: float, *, ended: bool, solved: bool
    ) -> None:
        """Keep what an environment is and said as a row."""
        env, row = self._envs[index], self._rows[index]
        mujoco.mj_getState(env.model, env.data, row[: self._physics], _STATE)
        row[self._physics : -_EXTRAS] = flatten(env.observation_space, observation)
        row[-_EXTRAS:] = reward, ended, solved

    def _look(self) -> Observation:
        extras = self._rows[:, -_EXTRAS:].copy()
        self._terms = {
            "observation": self._rows[:, self._physics : -_EXTRAS].copy(),
            "reward": extras[:, :1],
            "terminated": extras[:, 1:2],
            "solved": extras[:, 2:],
        }
        return self.observe()


def _on_mujoco(wrapped: Any, env_id: str) -> Any:
    """The bare environment; raises DemokitError when it is not MuJoCo's."""
    env = wrapped.unwrapped
    model, data = getattr(env, "model", None), getattr(env, "data", None)
    if not (isinstance(model, mujoco.MjModel) and isinstance(data, mujoco.MjData)):
        raise DemokitError(f"'{env_id}' is not built on MuJoCo: it has no model and data.")
    return env


def _bounds(env: Any, name: str) -> tuple[FloatArray, FloatArray]:
    space = env.action_space
    if not (isinstance(space, Box) and space.shape is not None and len(space.shape) == 1):
        raise DemokitError(f"The actions of {name} are not a vector: they cannot be recorded.")
    if not space.is_bounded():
        raise DemokitError(f"The actions of {name} are not bounded: they cannot be scaled.")
    return space.low, space.high


def _overview(model: mujoco.MjModel) -> Viewpoint:
    """A viewpoint that shows the whole model."""
    x, y, z = map(float, model.stat.center)
    return Viewpoint((x, y, z), 1.5 * float(model.stat.extent), 120.0, -25.0)
