"""Any Gymnasium environment built on MuJoCo, recorded and replayed: `gym:Pusher-v5` is a family.

A thin adapter: each simulation is one environment of Gymnasium's, stepped by its own code, one
after another; the batch of the other families is many times faster. The episode is the one that
Gymnasium gives: same start for the same seed, same rewards, same end, with these differences:

- actions are scaled from [-1, 1] to the environment's bounds, observations are float32;
- wrappers are left out; the horizon is the registered one (1,000 where there is none), and an
  environment that truncates itself ends before it.

The recorded state is MuJoCo's integration state, then the last observation, reward, termination
and success. Restoring it continues the physics bit for bit; the first reward after it may differ
in its last digits where the environment reads positions that MuJoCo left one step behind, and
from there on it is the recorded one. Whatever the environment remembers beside MuJoCo's state is
not restored.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from hashlib import sha256
from typing import Any

import gymnasium
import mujoco
import numpy as np
from gymnasium.spaces import Box, flatten, flatten_space
from numpy.typing import NDArray

from demokit.envs.answers import MisbehavedError, called, paid, says, shut, solved
from demokit.envs.batch import SimBatch, SimState, checked_seeds
from demokit.envs.family import Bounds, ContextSpace, Term, Terms, Viewpoint
from demokit.envs.stepped import SAID, Stepped, scaled
from demokit.envs.vision import Vision
from demokit.envs.watch import ADVICE, BAD, STATE_LIMIT, in_words, outside
from demokit.errors import DemokitError
from demokit.types import FloatArray, Observation, Step

DEFAULT_HORIZON = 1000
_STATE = mujoco.mjtState.mjSTATE_INTEGRATION.value
_EXTRAS = 3  # reward, terminated, success


class GymFamily(Stepped):
    """One Gymnasium environment as a family of one task.

    Raises:
        DemokitError: no such environment, or it is not built on MuJoCo with bounded actions: of
            others `demokit.envs.from_gymnasium` makes families.
    """

    context = ContextSpace(("none",), ("1",), (0.0,), (0.0,), regions=(((0.0,), (0.0,)),))
    start_noise_width = 1

    def __init__(self, name: str) -> None:
        self.env_id = name.rpartition(":")[2]  # its module is not for us to import
        wrapped = self._make()
        env, spec = _on_mujoco(wrapped, self.env_id), wrapped.spec
        self._low, self._high = _bounds(env, name)
        self.seen = _observed(env)
        # Constants of the class in other families; here each environment has its own.
        self.__dict__.update(
            name=name,
            model=env.model,
            horizon=(spec and spec.max_episode_steps) or DEFAULT_HORIZON,
            frame_skip=int(getattr(env, "frame_skip", 1)),
            actions=tuple(f"action {i}" for i in range(len(self._low))),
            terms=(
                Term(
                    "observation",
                    len(self.seen.low),
                    "the environment's",
                    "the environment's",
                    "observation",
                ),
                *SAID,
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

    def bounds(self, term: Term) -> Bounds:
        """See `Family`; those of the environment's own space."""
        return self.seen if term.group == "observation" else super().bounds(term)

    def make_sims(self, num_sims: int, **options: Any) -> SimBatch:
        """See `Family`."""
        return GymBatch(self, num_sims, **options)

    def scaled(self, action: FloatArray) -> FloatArray:
        """An action (A,) in [-1, 1] in the environment's bounds."""
        return scaled(action, self._low, self._high)

    def time_breaks(self, time_s: FloatArray) -> NDArray[np.bool_]:
        """Which steps (T,) went back in time: how long one takes is the environment's own."""
        return np.diff(time_s) < 0

    @cached_property
    def model_hash(self) -> str:
        """SHA-256 of the compiled model: the environment may have changed what its XML says."""
        buffer = np.empty(mujoco.mj_sizeModel(self.model), np.uint8)
        mujoco.mj_saveModel(self.model, None, buffer)
        return sha256(buffer.tobytes()).hexdigest()


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
        observation: str | Vision = "state",
    ) -> None:
        self._set_up(family, num_sims, reward, observation)
        self._envs = [family.make_env() for _ in range(num_sims)]
        self._shut = weakref.finalize(self, _shut_all, self._envs)
        self._physics = mujoco.mj_stateSize(family.model, _STATE)
        self._rows = np.zeros((num_sims, self._physics + family.observation_width + _EXTRAS))
        self._cut, self._started = np.zeros(num_sims, np.bool_), np.zeros(num_sims, np.bool_)
        self._begin(np.arange(num_sims), None)

    def reset(
        self,
        context: FloatArray,  # noqa: ARG002
        seeds: Sequence[int] | NDArray[np.int64],
        ids: NDArray[np.int64] | None = None,
        *,
        tasks: Sequence[str] | None = None,
    ) -> Observation:
        """See `SimBatch`; an environment is seeded with its own seed."""
        ids = np.arange(self.num_sims) if ids is None else np.asarray(ids)
        seeds = checked_seeds(seeds, len(ids))
        self._begin(ids, tasks)
        self._step_index[ids], self._action[ids], self._cut[ids] = 0, 0, False
        for index, seed in zip(ids.tolist(), seeds, strict=True):
            observation = self._restart(index, seed)
            self._note(index, observation, 0.0, ended=False, solved=False)
        return self._look()

    def step(self, action: FloatArray) -> Step:
        """See `SimBatch`; an environment whose episode is over is not stepped."""
        self._action[:] = self.executed(action)
        going = np.flatnonzero(~self._over)
        self._step_index[going] += 1
        for index in going.tolist():
            self._step_one(index)
        observation = self._look()
        return self._outcome(observation, self._cut | (self._step_index >= self.family.horizon))

    def get_state(self) -> SimState:
        """See `SimBatch`; `physics` is the adapter's whole row."""
        return SimState(self._rows.copy(), self._step_index.copy(), self._context.copy())

    def set_state(self, state: SimState, *, tasks: Sequence[str] | None = None) -> Observation:
        """See `SimBatch`."""
        if state.physics.shape != self._rows.shape:
            raise DemokitError(
                f"State has shape {state.physics.shape}, {self.num_sims} simulations of "
                f"{self.family.name} need {self._rows.shape}."
            )
        self._begin(np.arange(self.num_sims), tasks)
        self._rows[:], self._step_index[:] = state.physics, state.step_index
        self._action[:], self._cut[:] = 0, False
        # Whatever an environment counts beside MuJoCo's state begins with the episode.
        for index in np.flatnonzero((self._step_index == 0) | ~self._started).tolist():
            self._restart(index, 0)
        for index, row in enumerate(self._rows):
            self._require_sound_state(index)
            env = self._envs[index]
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

    def close(self) -> None:
        """Close the environments; that happens, too, where nobody has the batch any more."""
        self._shut()

    def _state_rows(self) -> FloatArray:
        return self._rows

    def _restart(self, index: int, seed: int) -> Any:
        """Begin an episode of an environment; returns what it observes."""
        with self._blamed(index):
            observation, _ = called(self._envs[index], "reset", 2, seed=seed)
        self._started[index] = True
        return observation

    def _step_one(self, index: int) -> None:
        """Step one environment, and keep what it is and said."""
        data = self._envs[index].data
        data.warning.number[:] = 0
        before_s = data.time
        action = self.family.scaled(self._action[index])
        with self._blamed(index):
            seen, reward, ended, cut, info = called(self._envs[index], "step", 5, action)
        self._require_no_reset(index, before_s)
        with self._blamed(index):
            self._cut[index] = says("truncated", cut)
            over = says("terminated", ended)
            self._note(index, seen, paid(reward), ended=over, solved=solved(info))
        self._require_sound_state(index)

    @contextmanager
    def _blamed(self, index: int) -> Iterator[None]:
        """Raise SimulationFaultError where the environment misbehaves."""
        try:
            yield
        except MisbehavedError as error:
            raise self._fault(index, str(error)) from error

    def _require_no_reset(self, index: int, before_s: float) -> None:
        """Raise SimulationFaultError where MuJoCo, or the environment, started again by itself."""
        data = self._envs[index].data
        counts = data.warning.number[BAD]
        if counts.any():
            kind = BAD.start + int(counts.argmax())
            raise self._fault(index, in_words(kind, int(data.warning.lastinfo[kind])))
        if data.time < before_s:
            raise self._fault(
                index,
                f"its time went back from {before_s:g} to {data.time:g} s: it started again in "
                "the middle of an episode",
            )

    def _require_sound_state(self, index: int) -> None:
        row = self._rows[index : index + 1, : self._physics]
        found = outside(row, STATE_LIMIT)
        if found is not None:
            said = f"number {found[1]} of its state is {row[found]:g}"
            raise self._fault(index, f"it diverged: {said}; {ADVICE}")

    def _note(
        self, index: int, observation: Any, reward: float, *, ended: bool, solved: bool
    ) -> None:
        """Keep what an environment is and said as a row."""
        env, row = self._envs[index], self._rows[index]
        mujoco.mj_getState(env.model, env.data, row[: self._physics], _STATE)
        try:
            flat: Any = flatten(env.observation_space, observation)
            row[self._physics : -_EXTRAS] = np.reshape(flat, self.family.observation_width)
        except Exception as error:  # whatever flatten meets
            raise self._fault(
                index, "what it observes does not fit its environment's observation space"
            ) from error
        row[-_EXTRAS:] = reward, ended, solved

    def _read(self) -> Terms:
        extras = self._rows[:, -_EXTRAS:].copy()
        return {
            "observation": self._rows[:, self._physics : -_EXTRAS].copy(),
            "reward": extras[:, :1],
            "terminated": extras[:, 1:2],
            "solved": extras[:, 2:],
        }


def _shut_all(envs: Sequence[Any]) -> None:
    for env in envs:
        shut(env)


def _on_mujoco(wrapped: Any, env_id: str) -> Any:
    """The bare environment; raises DemokitError when it is not MuJoCo's."""
    env = wrapped.unwrapped
    model, data = getattr(env, "model", None), getattr(env, "data", None)
    if not (isinstance(model, mujoco.MjModel) and isinstance(data, mujoco.MjData)):
        raise DemokitError(
            f"'{env_id}' is not built on MuJoCo: it has no model and data; in Python "
            "demokit.envs.from_gymnasium makes a family of it."
        )
    return env


def _bounds(env: Any, name: str) -> tuple[FloatArray, FloatArray]:
    space = env.action_space
    if not (isinstance(space, Box) and space.shape is not None and len(space.shape) == 1):
        raise DemokitError(f"The actions of {name} are not a vector: they cannot be recorded.")
    if not space.is_bounded():
        raise DemokitError(f"The actions of {name} are not bounded: they cannot be scaled.")
    return space.low, space.high


def _observed(env: Any) -> Bounds:
    """The bounds of what is observed, side by side."""
    space: Any = flatten_space(env.observation_space)
    return Bounds(space.low, space.high)


def _overview(model: mujoco.MjModel) -> Viewpoint:
    """A viewpoint that shows the whole model."""
    x, y, z = map(float, model.stat.center)
    return Viewpoint((x, y, z), 1.5 * float(model.stat.extent), 120.0, -25.0)
