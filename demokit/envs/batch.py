"""Many simulations of one family, stepped together: the only way simulations run here.

`mujoco.batch.Batch` steps them on a thread pool, bit-identical at any thread count; a single
environment is a batch of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import mujoco
import numpy as np
from mujoco.batch import Batch, SimulationError
from numpy.typing import NDArray

from demokit.envs.family import Family, Terms, Views, reward_term
from demokit.envs.images import ImageRenderer
from demokit.envs.vision import Vision
from demokit.envs.watch import (
    BAD,
    FLOAT32_LIMIT,
    STATE_LIMIT,
    SimulationFaultError,
    diverged,
    outside,
    why_diverged,
)
from demokit.errors import DemokitError, unknown_name
from demokit.random import MAX_SEED
from demokit.types import Array, FloatArray, Observation, Step, as_rows

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

    Whoever resets, steps or restores them gets a `SimulationFaultError`, which names simulation,
    task and step, where one diverges or a number that the family makes of it is NaN, infinite or
    too large for float32. Episodes that are over are not watched: a simulation that diverges
    behind its end starts again.

    Args:
        family: the task family.
        num_sims: N.
        reward: "dense", "sparse" or another of the family's: the one that `step` returns.
        num_threads: threads that step and draw the simulations; 0 takes every CPU.
        observation: "state", the observation terms as one vector; "vision", images and the
            family's `vision_terms`, by name; or a `Vision`, the same with other images.
    """

    _eyes: ImageRenderer | None

    def __init__(
        self,
        family: Family,
        num_sims: int,
        *,
        reward: str = "dense",
        num_threads: int = 0,
        observation: str | Vision = "state",
    ) -> None:
        self._set_up(family, num_sims, reward, observation)
        if self.vision:
            self._eyes = ImageRenderer(family, self.vision, num_threads)
        self._sims = Batch(family.model, num_sims, num_threads)
        self._stage = _POSITIONS if family.reads_positions else _NOTHING
        self._views = family.views(self._sims)
        self._begin(np.arange(num_sims), None)
        self._warned = self._sims.warning[:, BAD, 1]

    def _set_up(
        self, family: Family, num_sims: int, reward: str, observation: str | Vision
    ) -> None:
        """What every batch has, whoever simulates; raises DemokitError for what it cannot be."""
        if num_sims < 1:
            raise DemokitError(f"A batch needs at least one simulation, not {num_sims}.")
        self.family, self.num_sims = family, num_sims
        self.reward = family.checked_reward(reward)
        self.vision = checked_vision(family, observation)
        self._eyes = None
        self._step_index = np.zeros(num_sims, np.int64)
        self._context: FloatArray = np.zeros((num_sims, family.context.width))
        self._action = np.zeros((num_sims, len(family.actions)))

    def reset(
        self,
        context: FloatArray,
        seeds: Sequence[int] | NDArray[np.int64],
        ids: NDArray[np.int64] | None = None,
        *,
        tasks: Sequence[str] | None = None,
    ) -> Observation:
        """Start episodes; returns the observations of all simulations, (N, O).

        Args:
            context: contexts (n, C) of the tasks, or (n, C + D) with the family's dynamics.
            seeds: n seeds; the start noise of a simulation depends on its own seed alone.
            ids: the n simulations to reset; None resets all N.
            tasks: ids of the n tasks, for messages; without them a task is told by its context.
        """
        ids = np.arange(self.num_sims) if ids is None else np.asarray(ids)
        noise = _start_noise(checked_seeds(seeds, len(ids)), self.family.start_noise_width)
        self._set_tasks(ids, np.asarray(context, np.float64))
        self._begin(ids, tasks)
        self._step_index[ids] = 0
        self._action[ids] = 0
        self._sims.reset(ids, keyframe=0, stage=_NOTHING)
        self._write(self.family.start(noise), ids)
        if self.family.settle_steps:
            self._advance(ids, self.family.settle_steps, _NOTHING)
            self._sims.time[ids] = 0
        self._require_sound()
        self._derive(ids)
        return self._look()

    def step(self, action: FloatArray) -> Step:
        """Apply actions (N, A), clipped to [-1, 1], for one control step.

        Raises:
            DemokitError: see `executed`, or a simulation diverged.
        """
        self._action[:] = self.executed(action)
        self._write(self.family.control(self._views, self._action), slice(None))
        self._step_index += 1
        self._advance(None, self.family.frame_skip, self._stage)
        self._require_sound()
        self._write(self.family.carry(self._views), slice(None))
        return self._outcome(self._look(), self._step_index >= self.family.horizon)

    def executed(self, action: FloatArray) -> FloatArray:
        """What actions (N, A) come to: float32, clipped to [-1, 1].

        Raises:
            DemokitError: an action is not finite or has the wrong shape.
        """
        given = np.asarray(action)
        if given.shape != self._action.shape:
            raise DemokitError(
                f"Actions have shape {given.shape}, {self.family.name} needs {self._action.shape}."
            )
        if not np.isfinite(given).all():
            sim, index = map(int, np.argwhere(~np.isfinite(given))[0])
            raise self._fault(
                sim,
                f"action {index} ({self.family.actions[index]}) is {given[sim, index]:g}, so it "
                "was not stepped",
                int(self._step_index[sim]) + 1,
            )
        clipped: FloatArray = np.clip(given, -1, 1).astype(np.float32)
        return clipped

    def retire(self, over: NDArray[np.bool_]) -> None:
        """Say which episodes (N,) are over although their simulations step on: see the class."""
        self._over |= over

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

        The family's terms, "state" (N, S) where it is restorable, "context" (N, C), all of its
        rewards, such as "reward_dense", and "success" (N,). At reset the rewards are those of a
        zero action.
        """
        return {
            **{name: values.copy() for name, values in self._terms.items()},
            **self._kept(),
            "context": self._context.copy(),
            **{reward_term(kind): self._reward(kind) for kind in self.family.rewards},
            "success": self.family.success(self._terms, self._context),
        }

    def shaping(self) -> FloatArray:
        """What training an expert adds to the dense reward now, (N,); see `Family.shaping`."""
        return self._numbers("its shaping", self.family.shaping(self._terms, self._context))

    def get_state(self) -> SimState:
        """A copy of everything that `set_state` needs to come back to this moment."""
        return SimState(self._sims.state.copy(), self._step_index.copy(), self._context.copy())

    def set_state(self, state: SimState, *, tasks: Sequence[str] | None = None) -> Observation:
        """Come back to a moment, bit for bit; returns the observations (N, O).

        Args:
            state: of N simulations.
            tasks: as for `reset`.

        Raises:
            DemokitError: the state is of another model or batch size, or a bad one.
        """
        if state.physics.shape != self._sims.state.shape:
            raise DemokitError(
                f"State has shape {state.physics.shape}, {self.num_sims} simulations of "
                f"{self.family.name} need {self._sims.state.shape}."
            )
        self._sims.state[:] = state.physics
        self._sims.warning[:] = 0
        self._step_index[:] = state.step_index
        self._set_tasks(np.arange(self.num_sims), state.context)
        self._begin(np.arange(self.num_sims), tasks)
        self._action[:] = 0
        self._require_sound()
        self._derive(None)
        return self._look()

    def data(self, sim: int) -> mujoco.MjData:
        """Simulation `sim` as an MjData, for rendering."""
        return self._sims.get_data(sim)

    def close(self) -> None:
        """Free what draws the images, and environments of Gymnasium's; `with` does it, too."""
        if self._eyes is not None:
            self._eyes.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _begin(self, ids: NDArray[np.int64], tasks: Sequence[str] | None) -> None:
        """Note whose episodes begin in simulations `ids`."""
        if len(ids) == self.num_sims:
            self._names = np.full(self.num_sims, "", object)
            self._over = np.zeros(self.num_sims, np.bool_)
        self._over[ids] = False
        self._names[ids] = "" if tasks is None else np.array(tasks, object)

    def _advance(self, ids: NDArray[np.int64] | None, nstep: int, stage: int) -> None:
        try:
            self._sims.step(ids, nstep=nstep, stage=stage)
        except SimulationError as error:
            sim = int(error.ids[0])
            said = " ".join(self._sims.error(sim).split())
            raise self._fault(sim, f"MuJoCo cannot step it ({said})") from None

    def _require_sound(self) -> None:
        """Raise SimulationFaultError where one diverged that is watched; the others start again."""
        if not self._warned.any() and outside(self._sims.state, STATE_LIMIT) is None:
            return
        bad = diverged(self._sims)
        watched = np.flatnonzero(bad & ~self._over)
        if len(watched):
            raise self._fault(int(watched[0]), why_diverged(self._sims, int(watched[0])))
        self._sims.reset(np.flatnonzero(bad), keyframe=0, stage=self._stage)

    def _look(self) -> Observation:
        """Read the terms and observe."""
        terms = self._read().items()
        self._terms = {name: self._numbers(f"its term '{name}'", each) for name, each in terms}
        return self.observe()

    def _read(self) -> Terms:
        return self.family.read(self._views)

    def _outcome(self, observation: Observation, truncated: NDArray[np.bool_]) -> Step:
        """The step that led here."""
        success = self.family.success(self._terms, self._context)
        terminated = self.family.terminated(self._terms)
        if self.family.ends_at_success:
            terminated = terminated | success
        step = Step(observation, self._reward(self.reward), terminated, truncated, success)
        self._over |= step.terminated | step.truncated
        return step

    def _reward(self, kind: str) -> FloatArray:
        values = self.family.reward(kind, self._terms, self._context, self._action)
        return self._numbers(f"its {kind} reward", values)

    def _numbers(self, what: str, values: FloatArray) -> FloatArray:
        """The values (N, ...); raises SimulationFaultError unless all are numbers of float32.

        Of episodes that are over, what is none is 0.
        """
        if outside(values, FLOAT32_LIMIT) is None:
            return values
        over = self._over.reshape(-1, *[1] * (values.ndim - 1))
        values = np.where(over & ~(np.abs(values) <= FLOAT32_LIMIT), 0, values)
        found = outside(values, FLOAT32_LIMIT)
        if found is None:
            return values
        sim, index = found
        one = as_rows(values)[sim]
        component = f", component {index}," if len(one) > 1 else ""
        raise self._fault(
            sim, f"{what}{component} is {one[index]:g}, and only finite numbers of float32 are used"
        )

    def _fault(self, sim: int, what: str, step: int | None = None) -> SimulationFaultError:
        context = self.family.context.in_words(self._context[sim])
        who = f"task {self._names[sim] or context}"
        return SimulationFaultError(
            sim, who, int(self._step_index[sim]) if step is None else step, what
        )

    def _kept(self) -> dict[str, Array]:
        """The privileged "state", where there is one."""
        return {"state": self._state_rows().copy()}

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
        self._require_contexts(ids, context, len(family.nominal_dynamics))
        if context.shape[1] > self._context.shape[1]:
            self._context = family.with_dynamics(self._context)
        elif context.shape[1] < self._context.shape[1]:
            context = family.with_dynamics(context)
        self._context[ids] = context
        family.set_task(self._sims, ids, self._context[ids])

    def _require_contexts(
        self, ids: NDArray[np.int64], context: FloatArray, num_dynamics: int = 0
    ) -> None:
        """Raise DemokitError unless there is a context (n, C), or (n, C + D), for each of `ids`."""
        width = self.family.context.width
        if context.ndim != 2 or len(context) != len(ids):
            raise DemokitError(
                f"{len(ids)} simulations of {self.family.name} start in a task each: contexts have "
                f"the shape ({len(ids)}, {width}) then, not {context.shape}."
            )
        if context.shape[1] not in (width, width + num_dynamics):
            known = " or ".join(map(str, sorted({width, width + num_dynamics})))
            raise DemokitError(
                f"A context of {self.family.name} has {known} numbers, not {context.shape[1]}."
            )
        if self.family.dynamics is not None:
            self.family.dynamics.require_possible(context[:, width:])

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


def checked_seeds(seeds: Sequence[int] | NDArray[np.int64], num: int) -> list[int]:
    """The seeds of `num` episodes; raises DemokitError where they are others, or none."""
    found = [int(seed) for seed in seeds]
    if len(found) != num:
        raise DemokitError(f"{num} simulations start with a seed each, and {len(found)} are given.")
    for seed in found:
        if not 0 <= seed <= MAX_SEED:
            raise DemokitError(f"The seed of an episode is from 0 to {MAX_SEED}, not {seed}.")
    return found


def _start_noise(seeds: Sequence[int], width: int) -> FloatArray:
    """Uniform numbers (n, width) in [-1, 1], each row from its own seed."""
    # Not a named stream: recorded episodes name these seeds, and their starts come of them so.
    rows = [np.random.default_rng(seed).uniform(-1, 1, width) for seed in seeds]
    return np.array(rows).reshape(len(rows), width)
