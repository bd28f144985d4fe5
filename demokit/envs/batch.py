"""Many simulations of one family, stepped together: the only way simulations run here.

`mujoco.batch.Batch` steps them on a thread pool, bit-identical at any thread count; a single
environment is a batch of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import mujoco
import numpy as np
from mujoco.batch import Batch
from numpy.typing import NDArray

from demokit.envs.family import Family, Terms, Views
from demokit.envs.vision import ImageRenderer, Vision
from demokit.errors import DemokitError, unknown_name
from demokit.types import Array, FloatArray, Observation, Step

RewardKind = Literal["dense", "sparse"]
REWARDS: tuple[str, ...] = get_args(RewardKind)
OBSERVATIONS = ("state", "vision")
_NOTHING, _POSITIONS = mujoco.mjtStage.mjSTAGE_NONE.value, mujoco.mjtStage.mjSTAGE_POS.value


class SimState(NamedTuple):
    """All that N simulations are: restoring it continues bit for bit.

    `physics` (N, S) float64 is MuJoCo's mjSTATE_INTEGRATION; `step_index` (N,) counts actions
    since reset; `context` (N, C) is the task, (N, C + D) where tasks set the dynamics.
    """

    physics: FloatArray
    step_index: NDArray[np.int64]
    context: FloatArray


class SimBatch:
    """N simulations of one family with a task each.

    Args:
        family: the task family.
        num_sims: N.
        reward: "dense" or "sparse", the reward that `step` returns.
        num_threads: threads that step and draw the simulations; 0 takes every CPU.
        observation: "state", the observation terms as one vector; "vision", images and the
            family's `vision_terms`, by name; or a `Vision`, the same with other images.
    """

    def __init__(
        self,
        family: Family,
        num_sims: int,
        *,
        reward: str = "dense",
        num_threads: int = 0,
        observation: str | Vision = "state",
    ) -> None:
        if reward not in REWARDS:
            raise unknown_name("reward", reward, REWARDS)
        if num_sims < 1:
            raise DemokitError(f"A batch needs at least one simulation, not {num_sims}.")
        self.family = family
        self.num_sims = num_sims
        self.reward = reward
        self._reward = family.reward_dense if reward == "dense" else family.reward_sparse
        self.vision = checked_vision(family, observation)
        self._eyes = ImageRenderer(family, self.vision, num_threads) if self.vision else None
        self._sims = Batch(family.model, num_sims, num_threads)
        self._stage = _POSITIONS if family.reads_positions else _NOTHING
        self._views = family.views(self._sims)
        self._step_index = np.zeros(num_sims, np.int64)
        self._context: FloatArray = np.zeros((num_sims, family.context.width))
        self._action = np.zeros((num_sims, len(family.actions)))

    def reset(
        self,
        context: FloatArray,
        seeds: Sequence[int] | NDArray[np.int64],
        ids: NDArray[np.int64] | None = None,
    ) -> Observation:
        """Start episodes; returns the observations of all simulations, (N, O).

        Args:
            context: contexts (n, C) of the tasks, or (n, C + D) with the family's dynamics.
            seeds: n seeds; the start noise of a simulation depends on its own seed alone.
            ids: the n simulations to reset; None resets all N.
        """
        ids = np.arange(self.num_sims) if ids is None else np.asarray(ids)
        noise = _start_noise(seeds, self.family.start_noise_width)
        self._set_tasks(ids, np.asarray(context, np.float64))
        self._step_index[ids] = 0
        self._action[ids] = 0
        self._sims.reset(ids, keyframe=0, stage=_NOTHING)
        self._write(self.family.start(noise), ids)
        if self.family.settle_steps:
            self._sims.step(ids, nstep=self.family.settle_steps)
            self._sims.time[ids] = 0
        self._derive(ids)
        self._terms = self.family.read(self._views)
        return self.observe()

    def step(self, action: FloatArray) -> Step:
        """Apply actions (N, A), clipped to [-1, 1], for one control step.

        Raises:
            DemokitError: an action is not finite or has the wrong shape.
        """
        self._action[:] = self._checked(action)
        self._write(self.family.control(self._views, self._action), slice(None))
        self._sims.step(nstep=self.family.frame_skip, stage=self._stage)
        self._write(self.family.carry(self._views), slice(None))
        self._step_index += 1
        self._terms = self.family.read(self._views)
        return Step(
            observation=self.observe(),
            reward=self._reward(self._terms, self._context, self._action),
            terminated=self.family.terminated(self._terms),
            truncated=self._step_index >= self.family.horizon,
            success=self.family.success(self._terms, self._context),
        )

    def observe(self) -> Observation:
        """What a policy may see now: (N, O) float32, or for vision name -> (N, ...)."""
        if self._eyes is None:
            return self.family.observe(self._terms)
        images = self._eyes.render(self._sims.state)
        names = self.family.vision_terms
        return {**images, **{name: self._terms[name].astype(np.float32) for name in names}}

    @property
    def terms(self) -> Terms:
        """Every term of the family as it stands now."""
        return self._terms

    def privileged(self) -> dict[str, Array]:
        """What only recorders, experts and evaluation may see now; every array is a copy.

        The family's terms, and "state" (N, S), "context" (N, C), "reward_dense",
        "reward_sparse" and "success" (N,). At reset the rewards are those of a zero action.
        """
        args = self._terms, self._context, self._action
        return {
            **{name: values.copy() for name, values in self._terms.items()},
            "state": self._state_rows().copy(),
            "context": self._context.copy(),
            "reward_dense": self.family.reward_dense(*args),
            "reward_sparse": self.family.reward_sparse(*args),
            "success": self.family.success(self._terms, self._context),
        }

    def get_state(self) -> SimState:
        """A copy of everything that `set_state` needs to come back to this moment."""
        return SimState(self._sims.state.copy(), self._step_index.copy(), self._context.copy())

    def set_state(self, state: SimState) -> Observation:
        """Come back to a moment, bit for bit; returns the observations (N, O).

        Raises:
            DemokitError: the state is of another model or batch size.
        """
        if state.physics.shape != self._sims.state.shape:
            raise DemokitError(
                f"State has shape {state.physics.shape}, {self.num_sims} simulations of "
                f"{self.family.name} need {self._sims.state.shape}."
            )
        self._sims.state[:] = state.physics
        self._step_index[:] = state.step_index
        self._set_tasks(np.arange(self.num_sims), state.context)
        self._action[:] = 0
        self._derive(None)
        self._terms = self.family.read(self._views)
        return self.observe()

    def data(self, sim: int) -> mujoco.MjData:
        """Simulation `sim` as an MjData, for rendering."""
        return self._sims.get_data(sim)

    def close(self) -> None:
        """Free what draws the images; a batch without images needs no closing."""
        if self._eyes is not None:
            self._eyes.close()

    def _checked(self, action: FloatArray) -> FloatArray:
        """Actions (N, A), clipped to [-1, 1]; raises DemokitError, see `step`."""
        action = np.asarray(action, np.float32)
        if action.shape != self._action.shape:
            raise DemokitError(
                f"Actions have shape {action.shape}, {self.family.name} needs {self._action.shape}."
            )
        clipped: FloatArray = np.clip(action, -1, 1)
        if not np.isfinite(clipped).all():
            raise DemokitError("An action is NaN or infinite: the simulation was not stepped.")
        return clipped

    def _state_rows(self) -> FloatArray:
        """The live states (N, S)."""
        rows: FloatArray = self._sims.state
        return rows

    def _derive(self, ids: NDArray[np.int64] | None) -> None:
        """Compute what the family reads beside the state."""
        # Positions only: a full mj_forward would change the warm start, and with it the future.
        if self._stage != _NOTHING:
            self._sims.forward(ids, stage=self._stage)

    def _set_tasks(self, ids: NDArray[np.int64], context: FloatArray) -> None:
        """Contexts of simulations `ids`; once a task sets the dynamics, all have them."""
        family = self.family
        known = family.context.width, family.context.width + len(family.nominal_dynamics)
        if context.shape[-1] not in known:
            raise DemokitError(
                f"A context of {family.name} has {' or '.join(map(str, sorted(set(known))))} "
                f"numbers, not {context.shape[-1]}."
            )
        if context.shape[-1] > self._context.shape[1]:
            self._context = self._with_nominal(self._context)
        elif context.shape[-1] < self._context.shape[1]:
            context = self._with_nominal(context)
        self._context[ids] = context
        if self._context.shape[1] > family.context.width:
            family.set_dynamics(self._sims, ids, self._context[ids, family.context.width :])

    def _with_nominal(self, context: FloatArray) -> FloatArray:
        nominal = np.tile(self.family.nominal_dynamics, (len(context), 1))
        return np.concatenate([context, nominal], axis=1)

    def _write(self, values: Views, ids: NDArray[np.int64] | slice) -> None:
        for name, rows in values.items():
            self._views[name][ids] = rows


def make_sims(family: Family, num_sims: int, **options: Any) -> SimBatch:
    """N simulations of any family, adapted ones included; `options` are those of `SimBatch`."""
    adapted: SimBatch | None = family.make_sims(num_sims, **options)
    return SimBatch(family, num_sims, **options) if adapted is None else adapted


def checked_vision(family: Family, observation: str | Vision) -> Vision | None:
    """The images that are observed, None for states; raises DemokitError for anything else."""
    if observation == "state":
        return None
    if isinstance(observation, str) and observation != "vision":
        raise unknown_name("observation", observation, OBSERVATIONS)
    if "policy" not in family.viewpoints:
        raise DemokitError(f"{family.name} cannot be observed through images: take 'state'.")
    return observation if isinstance(observation, Vision) else Vision()


def _start_noise(seeds: Sequence[int] | NDArray[np.int64], width: int) -> FloatArray:
    """Uniform numbers (n, width) in [-1, 1], each row from its own seed."""
    rows = [np.random.default_rng(int(seed)).uniform(-1, 1, width) for seed in seeds]
    return np.array(rows).reshape(len(rows), width)
