"""Gymnasium environments of one's own as a family, without MuJoCo: see `from_gymnasium`.

The batch is a vector environment of Gymnasium's: the environments step one after another, or in a
process each, by their own code; other families step on all cores
(`benchmarks/own_environment.py` measures what it costs). Nothing restores or draws a state: what
is recorded is not replayed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from math import isnan
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeAlias

import gymnasium
import numpy as np
from gymnasium.spaces import Box
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from gymnasium.vector.async_vector_env import AsyncState
from numpy.typing import NDArray

from demokit.envs.answers import MisbehavedError, called, paid, says, shut, solved
from demokit.envs.batch import SimBatch, SimState, checked_seeds
from demokit.envs.family import Bounds, ContextSpace, Term, Terms, checked_name
from demokit.envs.stepped import SAID, Stepped, scaled
from demokit.envs.vision import Vision
from demokit.errors import DemokitError, unknown_name
from demokit.random import stream
from demokit.types import Array, FloatArray, Observation, Step

if TYPE_CHECKING:
    import mujoco

RESET: Literal["reset"] = "reset"
CONSTRUCTOR: Literal["constructor"] = "constructor"
VECTORIZED = ("sync", "async")
Tell: TypeAlias = Literal["reset", "constructor"] | Callable[[Any, FloatArray], object]
_CUT, _PROGRESS = "cut", "progress"
_ENDS_S = 5.0  # how long a process whose answers have ended may take to end itself


class OwnFamily(Stepped):
    """Environments of somebody's class as a family; the arguments are those of `from_gymnasium`.

    Its terms are "observation", privileged what the environment said of the step ("reward",
    "terminated", "solved", "cut") and "progress", the episode's seed and the number of the step.
    """

    restorable = False
    frame_skip = 1
    counters = (_PROGRESS,)
    model_hash = ""

    def __init__(
        self,
        name: str,
        make: str | Callable[..., Any],
        tasks: Box | ContextSpace,
        *,
        horizon: int | None = None,
        tell: Tell = RESET,
        vectorized: str = "sync",
    ) -> None:
        checked_name(name)
        if vectorized not in VECTORIZED:
            raise unknown_name("vector environment", str(vectorized), VECTORIZED)
        if not callable(tell) and tell not in (RESET, CONSTRUCTOR):
            raise unknown_name("way to tell a task", str(tell), (RESET, CONSTRUCTOR))
        self.make: Callable[..., Any] = make if callable(make) else partial(gymnasium.make, make)
        self.tell, self.vectorized = tell, vectorized
        context = _context_space(name, tasks)
        env = self._first(name, context)
        try:
            self.low, self.high = _bounds(name, env.action_space)
            self.seen = _observed(name, env.observation_space)
            # Constants of the class in other families; here each environment has its own.
            self.__dict__.update(
                name=name,
                context=context,
                horizon=_horizon(name, env, horizon),
                actions=tuple(f"action {i}" for i in range(len(self.low))),
                terms=_terms(len(self.seen.low)),
            )
            self.rate_hz = _rate_hz(name, env)
        finally:
            shut(env)
        self._try_out()

    @property
    def model(self) -> mujoco.MjModel:
        """Raise DemokitError: there is nothing to draw."""
        self.require_drawn()
        raise AssertionError

    @property
    def control_dt_s(self) -> float:
        """Seconds per action: of `render_fps` in the environment's metadata, or one."""
        return 1 / self.rate_hz

    def bounds(self, term: Term) -> Bounds:
        """See `Family`; those of the environment's own space."""
        return self.seen if term.group == "observation" else super().bounds(term)

    def make_sims(self, num_sims: int, **options: Any) -> SimBatch:
        """See `Family`."""
        return OwnBatch(self, num_sims, **options)

    def made(self, context: FloatArray) -> Any:
        """A new environment; it is told its task here where the constructor is told."""
        return self.make(context) if self.tell == CONSTRUCTOR else self.make()

    def _first(self, name: str, context: ContextSpace) -> Any:
        """An environment to ask for its spaces; raises DemokitError where it cannot be made."""
        try:
            env = self.made(context.sample(stream(0, "check"), 1)[0])
        except Exception as error:  # code of others raises anything
            raise DemokitError(
                f"The environment of '{name}' cannot be made ({type(error).__name__}: "
                f"{' '.join(str(error).split())})."
            ) from error
        if not isinstance(env, gymnasium.Env):
            raise DemokitError(
                f"The environment of '{name}' is a {type(env).__name__}, no gymnasium.Env."
            )
        return env

    def _try_out(self) -> None:
        """Step two environments once; raises DemokitError where they misbehave."""
        with OwnBatch(self, 2) as sims:
            sims.reset(self.context.sample(stream(0, "check"), 2), [0, 1])
            sims.step(np.zeros((2, len(self.actions))))


class OwnBatch(SimBatch):
    """N environments of a person's own with the interface of a batch.

    Args:
        family: the environments.
        num_sims: N.
        reward: either; there is one reward.
        num_threads: has no effect.
        observation: "state"; no images are drawn.
    """

    family: OwnFamily

    def __init__(
        self,
        family: OwnFamily,
        num_sims: int,
        *,
        reward: str = "dense",
        num_threads: int = 0,  # noqa: ARG002
        observation: str | Vision = "state",
    ) -> None:
        self._set_up(family, num_sims, reward, observation)
        seats = [partial(Seat, family, index) for index in range(num_sims)]
        several = AsyncVectorEnv if family.vectorized == "async" else SyncVectorEnv
        self._envs: Any = several(seats, autoreset_mode=AutoresetMode.DISABLED)
        self._seeds = np.zeros(num_sims, np.uint64)
        self._rows = np.zeros((num_sims, _width(family)))
        self._begin(np.arange(num_sims), None)

    def reset(
        self,
        context: FloatArray,
        seeds: Sequence[int] | NDArray[np.int64],
        ids: NDArray[np.int64] | None = None,
        *,
        tasks: Sequence[str] | None = None,
    ) -> Observation:
        """See `SimBatch`; an environment is seeded with its own seed."""
        ids = np.arange(self.num_sims) if ids is None else np.asarray(ids)
        context = np.asarray(context, np.float64)
        self._require_contexts(ids, context)
        self._begin(ids, tasks)
        self._context[ids], self._seeds[ids] = context, checked_seeds(seeds, len(ids))
        self._step_index[ids], self._action[ids] = 0, 0
        chosen = np.isin(np.arange(self.num_sims), ids)
        told = {"chosen": chosen, "contexts": self._context}
        with self._answering():
            rows, infos = self._envs.reset(seed=self._seeds.tolist(), options=told)
        self._require_apart()
        self._take(rows, infos, chosen)
        return self._look()

    def step(self, action: FloatArray) -> Step:
        """See `SimBatch`; an environment whose episode is over is not stepped."""
        self._action[:] = self.executed(action)
        going = ~self._over
        self._step_index[going] += 1
        with self._answering():
            rows, *_, infos = self._envs.step(np.where(going[:, None], self._given(), np.nan))
        self._take(rows, infos, going)
        observation = self._look()
        cut = self._terms[_CUT][:, 0] > 0
        return self._outcome(observation, cut | (self._step_index >= self.family.horizon))

    def get_state(self) -> NoReturn:
        """Raise DemokitError: nobody knows the state, as for `set_state` and `data`."""
        raise self._unknown()

    def set_state(self, state: SimState, *, tasks: Sequence[str] | None = None) -> NoReturn:  # noqa: ARG002
        """See `get_state`."""
        raise self._unknown()

    def data(self, sim: int) -> NoReturn:  # noqa: ARG002
        """See `get_state`."""
        raise self._unknown()

    def close(self) -> None:
        """Close the environments; processes that are gone, or still answer, are ended."""
        if getattr(self._envs, "_state", AsyncState.DEFAULT) == AsyncState.DEFAULT:
            with suppress(EOFError, OSError):
                self._envs.close()
        if not self._envs.closed:
            self._envs._state = AsyncState.DEFAULT
            self._envs.close(terminate=True)

    @contextmanager
    def _answering(self) -> Iterator[None]:
        """Raise DemokitError where they are closed, or a process of theirs has ended."""
        if self._envs.closed:
            raise DemokitError(f"The environments of {self.family.name} are closed: make new ones.")
        try:
            yield
        except (EOFError, ConnectionError):
            sentinels = [process.sentinel for process in self._envs.processes]
            ended = wait(sentinels, timeout=_ENDS_S)
            sim = sentinels.index(ended[0]) if ended else 0
            self.close()
            raise self._fault(sim, "the process of its environment has ended by itself") from None

    def _require_apart(self) -> None:
        """Raise DemokitError where two simulations are one environment."""
        if self.family.vectorized == "async":
            return  # each process has its own
        made = [seat.inside for seat in self._envs.envs if seat.inside is not None]
        if len(set(map(id, made))) < len(made):
            raise DemokitError(
                f"What makes the environments of '{self.family.name}' gives the same one twice, "
                "and episodes would mix: let it make a new one each time."
            )

    def _given(self) -> FloatArray:
        """The actions (N, A) in the environments' own bounds and type."""
        low, high = self.family.low, self.family.high
        given: FloatArray = np.clip(scaled(self._action, low, high).astype(low.dtype), low, high)
        return given

    def _unknown(self) -> DemokitError:
        return DemokitError(
            f"The states of {self.family.name} are its environment's own: they are not restored."
        )

    def _kept(self) -> dict[str, Array]:
        return {}

    def _take(self, rows: FloatArray, infos: dict[str, Any], chosen: NDArray[np.bool_]) -> None:
        """Keep what the chosen environments answered; raises SimulationFaultError."""
        self._rows[chosen] = rows[chosen]
        failed = np.flatnonzero(infos.get("_fault", np.zeros(0, np.bool_)))
        if len(failed):
            raise self._fault(int(failed[0]), str(infos["fault"][failed[0]]))

    def _read(self) -> Terms:
        found: dict[str, FloatArray] = {}
        start = 0
        for term in self.family.terms:
            found[term.name] = self._rows[:, start : start + term.width].copy()
            start += term.width
        found[_PROGRESS] = np.stack([self._seeds, self._step_index], 1).astype(float)
        return found


class Seat(gymnasium.Env[FloatArray, FloatArray]):
    """One of the environments, as a row of numbers: it says its faults, and never starts again.

    Its row is the family's terms. An action that is NaN is none: nothing happens.
    """

    def __init__(self, family: OwnFamily, index: int) -> None:
        self._family, self._index = family, index
        self._env: Any = None
        self._row: FloatArray = np.zeros(_width(family))
        self._width = family.observation_width
        self.observation_space = Box(-np.inf, np.inf, (_width(family),), np.float64)
        self.action_space = Box(-np.inf, np.inf, family.low.shape, np.float64)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[FloatArray, dict[str, Any]]:
        """Begin an episode, if this one is chosen, in the task of its row of contexts."""
        assert options is not None
        if not options["chosen"][self._index]:
            return self._row, {}
        context = options["contexts"][self._index].copy()
        return self._row, self._answer(self._begin, seed, context)

    def step(self, action: FloatArray) -> tuple[FloatArray, float, bool, bool, dict[str, Any]]:
        """One step; how it ended stands in the row."""
        info = {} if isnan(action[0]) else self._answer(self._step, action)
        return self._row, 0.0, False, False, info

    @property
    def inside(self) -> Any:
        """The environment without wrappers, None before the first episode."""
        return None if self._env is None else self._env.unwrapped

    def close(self) -> None:
        """Close the environment."""
        if self._env is not None:
            shut(self._env)

    def _answer(self, ask: Callable[..., None], *args: Any) -> dict[str, Any]:
        """An info that says a fault, if there is one."""
        try:
            ask(*args)
        except MisbehavedError as error:
            return {"fault": str(error)}
        return {}

    def _begin(self, seed: int, context: FloatArray) -> None:
        tell, options = self._family.tell, None
        try:
            if self._env is None or tell == CONSTRUCTOR:
                self.close()
                self._env = self._family.made(context)
            if callable(tell):
                tell(self._env, context)
        except Exception as error:  # code of others raises anything
            said = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise MisbehavedError(f"its environment cannot be told its task ({said})") from error
        if tell == RESET:
            options = {"task": context}
        observation, _ = called(self._env, "reset", 2, seed=seed, options=options)
        self._note(observation, 0.0, (False, False, False))

    def _step(self, action: FloatArray) -> None:
        given = action.astype(self._family.low.dtype)
        seen, reward, ended, cut, info = called(self._env, "step", 5, given)
        said = says("terminated", ended), solved(info), says("truncated", cut)
        self._note(seen, paid(reward), said)

    def _note(self, observation: Any, reward: float, said: tuple[bool, bool, bool]) -> None:
        width = self._width
        try:
            seen = np.asarray(observation)
        except ValueError as error:
            raise MisbehavedError(f"what it observes is no array ({error})") from error
        if seen.shape != (width,) or seen.dtype.kind not in "fiub":
            raise MisbehavedError(
                f"what it observes is {seen.dtype} {seen.shape}, not {width} numbers as its "
                "observation space says"
            )
        self._row[:width] = seen
        self._row[width : width + 1 + len(said)] = reward, *said


def _terms(width: int) -> tuple[Term, ...]:
    """The observation, what was said of the step, and where in the episode it is."""
    observation = Term(
        "observation", width, "the environment's", "the environment's", "observation"
    )
    cut = Term(_CUT, 1, "1", "none", "privileged")
    progress = Term(_PROGRESS, 2, "seed, steps", "none", "privileged")
    return observation, *SAID, cut, progress


def _width(family: OwnFamily) -> int:
    return sum(term.width for term in family.terms)


def _context_space(name: str, tasks: Box | ContextSpace) -> ContextSpace:
    """The distribution of the tasks; raises DemokitError for none."""
    if isinstance(tasks, ContextSpace):
        return tasks
    if not isinstance(tasks, Box) or len(tasks.shape) != 1 or not tasks.is_bounded():
        raise DemokitError(
            f"The tasks of '{name}' are {tasks!s:.80}: give a Box of one axis with bounds, "
            "such as Box(-1, 1, (2,)), or a ContextSpace."
        )
    low, high = (tuple(map(float, side)) for side in (tasks.low, tasks.high))
    return ContextSpace(tuple(f"task_{i}" for i in range(len(low))), ("1",) * len(low), low, high)


def _bounds(name: str, space: Any) -> tuple[FloatArray, FloatArray]:
    if not isinstance(space, Box) or len(space.shape) != 1 or not space.shape[0]:
        raise DemokitError(
            f"The actions of '{name}' are {space!s:.80}: policies here give a vector, so they "
            "must be a Box of one axis."
        )
    if space.dtype is None or space.dtype.kind != "f":
        raise DemokitError(
            f"The actions of '{name}' are {space!s:.80}, whole numbers: wrap the environment so "
            "that it takes a Box of floats, and rounds them itself."
        )
    if not space.is_bounded():
        raise DemokitError(
            f"The actions of '{name}' have no bounds: use gymnasium.wrappers.RescaleAction, or "
            "a Box with a low and a high."
        )
    return space.low, space.high


def _observed(name: str, space: Any) -> Bounds:
    """The bounds of the observation; raises DemokitError where it is no vector."""
    if not isinstance(space, Box) or len(space.shape) != 1 or not space.shape[0]:
        raise DemokitError(
            f"The observations of '{name}' are {space!s:.80}, and must be one vector: wrap the "
            "environment in gymnasium.wrappers.FlattenObservation."
        )
    return Bounds(space.low, space.high)


def _horizon(name: str, env: Any, stated: int | None) -> int:
    found = stated if stated is not None else env.spec and env.spec.max_episode_steps
    whole = isinstance(found, int | np.integer) and not isinstance(found, bool)
    if not whole or found < 1:
        said = "is not known" if found is None else f"is no number of steps, {found!r}"
        raise DemokitError(f"How long episodes of '{name}' may be {said}: say horizon=, in steps.")
    return int(found)


def _rate_hz(name: str, env: Any) -> float:
    """Actions per second, of the environment's metadata; 1 where it says nothing."""
    rate = (env.metadata or {}).get("render_fps") or 1
    if not isinstance(rate, int | float | np.number) or not 0 < rate < np.inf:
        raise DemokitError(
            f"The render_fps in the metadata of '{name}' is {rate!r}: give a number above 0, or "
            "leave it out."
        )
    return float(rate)
