"""What a task family is: a model, a task distribution, terms, rewards, success.

A family is a set of pure functions from arrays to arrays. Every array has a leading
simulation axis N, and no function loops over it; `demokit.envs.batch` steps the simulations.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from demokit.envs.schema import Schema
from demokit.envs.schema import Term as Term
from demokit.errors import DemokitError, unknown_name
from demokit.types import Array, FloatArray, Task

if TYPE_CHECKING:
    import mujoco
    from mujoco.batch import Batch

OBSERVATION_BOUND = 100.0  # metres or radians: nothing gets there in the families here
_NAME = re.compile(r"[\w.:-]+")
_OOD_TRIES = 1000  # draws for each context out of distribution
_TIME_TOLERANCE = 1e-6  # of a step: MuJoCo adds up its timesteps

Terms: TypeAlias = Mapping[str, FloatArray]
"""Name of a term -> (N, width) float64."""

Views: TypeAlias = Mapping[str, FloatArray]
"""Name -> live (N, ...) array over the simulations; state fields are writable."""


@dataclass(frozen=True)
class ContextSpace:
    """The task distribution: contexts are uniform in [low, high].

    With `regions`, boxes (low, high) within it, they are uniform in these, which take turns; a box
    of equal bounds is a single context. Out-of-distribution contexts are uniform in
    [ood_low, ood_high] without the distribution; a family whose `ood_low` is empty has none. Where
    some are `held_out`, validation tasks take turns at these, which no other task has. Where it is
    `positive` no number of any task is 0 or less, as of masses.

    Raises:
        DemokitError: lengths or bounds do not fit, or nothing between the out-of-distribution
            bounds is out of distribution.
    """

    names: tuple[str, ...]
    units: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    ood_low: tuple[float, ...] = ()
    ood_high: tuple[float, ...] = ()
    regions: tuple[tuple[tuple[float, ...], tuple[float, ...]], ...] = ()
    held_out: tuple[tuple[float, ...], ...] = ()
    positive: bool = False

    def __post_init__(self) -> None:
        """Check lengths and bounds; raises DemokitError."""
        if not len(self.names) == len(self.units) == len(self.low) == len(self.high) > 0:
            raise DemokitError(
                "A context space has names, units, low and high of one length, not 0: these have "
                f"{len(self.names)}, {len(self.units)}, {len(self.low)} and {len(self.high)}."
            )
        self._check_box("low and high are", (self.low, self.high))
        for region in self.regions:
            self._check_box("a region is", region)
        for context in self.held_out:
            self._check_box("a context that is held out is", (context, context))
        if len(self.ood_low) or len(self.ood_high):
            self._check_box("ood_low and ood_high are", (self.ood_low, self.ood_high))
            self._check_ood()

    def _check_box(self, what: str, box: object) -> None:
        """Raise DemokitError unless these are the bounds of a box of contexts, two."""
        bounds = _numbers(box)
        if bounds is None or bounds.shape != (2, self.width) or (bounds[0] > bounds[1]).any():
            raise DemokitError(
                f"The context space of {', '.join(self.names)}: {what} {box}, and not two bounds, "
                f"{self.width} finite numbers each, of which none is above the other's."
            )
        if self.positive and not (bounds > 0).all():
            raise DemokitError(
                f"The context space of {', '.join(self.names)} is positive: {what} {box}, and not "
                "above 0 throughout."
            )

    def _check_ood(self) -> None:
        """Raise DemokitError where nothing out of distribution is out of it."""
        for low, high in self.regions or ((self.low, self.high),):
            if (
                np.greater_equal(self.ood_low, low).all()
                and np.less_equal(self.ood_high, high).all()
            ):
                raise DemokitError(
                    f"The context space of {', '.join(self.names)}: ood_low {self.ood_low} and "
                    f"ood_high {self.ood_high} lie within {low} and {high}, where training tasks "
                    "are drawn: let them reach beyond, or leave them out."
                )

    @property
    def width(self) -> int:
        """C, the length of a context vector."""
        return len(self.names)

    @property
    def num_contexts(self) -> int | None:
        """How many contexts there are; None where they are a continuum."""
        points = self.regions and all(low == high for low, high in self.regions)
        return len(self.regions) if points else None

    @property
    def single(self) -> bool:
        """Whether there is one context only, and so one task."""
        return self.num_contexts == 1

    def in_words(self, context: Sequence[float]) -> str:
        """A context for people, such as "target_angle 0.54 rad"."""
        named = zip(self.names, context, self.units, strict=False)
        return ", ".join(f"{name} {value:.2f} {unit}" for name, value, unit in named)

    def sample(self, rng: np.random.Generator, num: int) -> FloatArray:
        """Contexts (num, C) of the training distribution."""
        if not self.regions:
            return rng.uniform(self.low, self.high, (num, self.width))
        turns = (rng.integers(len(self.regions)) + np.arange(num)) % len(self.regions)
        drawn = np.array(self.regions)[turns]
        contexts: FloatArray = rng.uniform(drawn[:, 0], drawn[:, 1])
        return contexts

    def sample_held_out(self, num: int) -> FloatArray:
        """Contexts (num, C) of validation, where some are held out."""
        return np.resize(np.array(self.held_out), (num, self.width))

    def sample_ood(self, rng: np.random.Generator, num: int) -> FloatArray:
        """Contexts (num, C) outside the training distribution; raises DemokitError for none."""
        kept: list[FloatArray] = []
        for _ in range(num * _OOD_TRIES):
            if len(kept) == num:
                break
            draw = rng.uniform(self.ood_low, self.ood_high)
            if not self.contains(draw):
                kept.append(draw)
        if len(kept) < num:
            raise DemokitError(
                f"The context space of {', '.join(self.names)}: of {num * _OOD_TRIES} draws "
                f"between ood_low and ood_high, {len(kept)} are out of distribution: widen them."
            )
        return np.array(kept)

    def require_possible(self, contexts: FloatArray) -> None:
        """Raise DemokitError for one of contexts (N, C) that cannot be, a mass of 0 perhaps."""
        row, column = np.nonzero(contexts <= 0)
        if self.positive and len(row):
            raise DemokitError(
                f"A task with {self.names[column[0]]} {contexts[row[0], column[0]]:g} cannot be "
                "simulated: it must be above 0."
            )

    def contains(self, context: FloatArray) -> bool:
        """Whether a context (C,) lies in the training distribution."""
        boxes = self.regions or ((self.low, self.high),)
        return any(bool(np.all((context >= low) & (context <= high))) for low, high in boxes)


def _numbers(values: object) -> FloatArray | None:
    """The array of finite numbers that it is; None where it is none."""
    try:
        found = np.asarray(values)
    except ValueError:  # rows of different lengths
        return None
    return found if found.dtype.kind in "iuf" and np.isfinite(found).all() else None


class Bounds(NamedTuple):
    """The least and the most that the components of a term can be, (width,) each."""

    low: FloatArray
    high: FloatArray


@dataclass(frozen=True)
class Viewpoint:
    """A camera that looks at a point of the world; no part of the model, nor of its hash."""

    lookat_w_m: tuple[float, float, float]
    distance_m: float
    azimuth_deg: float
    elevation_deg: float


class Family(ABC):
    """A task family. Subclasses state the source of every constant in their docstring.

    Attributes:
        name: its name on the command line.
        horizon: T, steps per episode.
        frame_skip: simulator steps per action.
        terms: every term read from the simulator, once.
        context: the task distribution.
        actions: what each action component means; all are in [-1, 1].
        rewards: names of its rewards. Beside "dense" and "sparse" there may be "sparse-paper", what
            a publication pays, in a method `reward_sparse_paper`, where that tells the tasks apart
            from afar.
        seen_rewards: those of them that follow from what is observed and done alone.
        counters: terms that say nothing of the world, such as an episode's seed: experts do not
            see them.
        object_term: the observation term of what the task is about moving.
        start_noise_width: how many uniform numbers in [-1, 1] a reset consumes.
        settle_steps: simulator steps between the written start state and step 0.
        reads_positions: whether `read` needs positions that MuJoCo derives from the state, such as
            those of sites; families that read the state alone step faster.
        viewpoints: cameras beside those of the model; a family with one called "policy" can be
            observed through images.
        vision_terms: the terms that are observed beside the images.
        dynamics: the physics that a task may set, as further context; None where it may not.
        nominal_dynamics: what the model has of it.
        ends_at_success: whether an episode is over where its task is solved.
        published: name of a task set -> the distribution that its source draws training tasks from,
            where that is another than `context`'s.
        restorable: whether MuJoCo holds its state, so that it can be recorded, restored and drawn.
        paper_sizes: split -> tasks of its "paper" set, where the papers publish none: as many as
            they use, drawn once and for all from the distribution.
    """

    name: ClassVar[str]
    horizon: ClassVar[int]
    frame_skip: ClassVar[int]
    terms: ClassVar[tuple[Term, ...]]
    context: ClassVar[ContextSpace]
    actions: ClassVar[tuple[str, ...]]
    rewards: ClassVar[tuple[str, ...]] = ("dense", "sparse")
    seen_rewards: ClassVar[tuple[str, ...]] = ()
    object_term: ClassVar[str]
    counters: ClassVar[tuple[str, ...]] = ()
    start_noise_width: ClassVar[int] = 0
    settle_steps: ClassVar[int] = 0
    reads_positions: ClassVar[bool] = True
    viewpoints: ClassVar[Mapping[str, Viewpoint]] = {}
    vision_terms: ClassVar[tuple[str, ...]] = ()
    dynamics: ClassVar[ContextSpace | None] = None
    nominal_dynamics: ClassVar[tuple[float, ...]] = ()
    ends_at_success: ClassVar[bool] = False
    published: ClassVar[Mapping[str, ContextSpace]] = {}
    restorable: ClassVar[bool] = True
    paper_sizes: ClassVar[Mapping[str, int]] = {}

    @abstractmethod
    def spec(self) -> mujoco.MjSpec:
        """The model, uncompiled; keyframe 0 is the start state, camera "scene" is for people."""

    @abstractmethod
    def views(self, sims: Batch) -> Views:
        """Live arrays over the simulations that the other functions read and write."""

    @abstractmethod
    def start(self, noise: FloatArray) -> Views:
        """Values to write into `views` at reset, from noise (N, start_noise_width) in [-1, 1]."""

    @abstractmethod
    def control(self, views: Views, action: FloatArray) -> Views:
        """Values to write into `views` before a step, from actions (N, A) in [-1, 1]."""

    def make_sims(self, num_sims: int, **options: Any) -> Any:  # noqa: ARG002
        """A batch of its own (see `SimBatch`) where a family does not run on `mujoco.batch`."""
        return None

    def set_task(self, sims: Batch, ids: NDArray[np.int64], context: FloatArray) -> None:
        """Give the models of simulations `ids` (n,) what tasks `context` (n, C) change of them.

        By default nothing but the dynamics of contexts (n, C + D). A family whose tasks always
        differ in their physics writes it here, into `sims.expand` of the model's fields.
        """
        if context.shape[1] > self.context.width:
            self.set_dynamics(sims, ids, context[:, self.context.width :])

    def set_dynamics(self, sims: Batch, ids: NDArray[np.int64], values: FloatArray) -> None:
        """Give the models of simulations `ids` (n,) the physics `values` (n, D)."""
        raise NotImplementedError(f"{self.name} has no dynamics to set.")

    def nominal(self, context: FloatArray) -> FloatArray:
        """Contexts (N, ...) with the dynamics that nothing has changed, all else as it is.

        By default those of tasks that set the dynamics; a family whose tasks always differ in their
        physics says here what is nominal.
        """
        found = context.copy()
        if context.shape[1] > self.context.width:
            found[:, self.context.width :] = self.nominal_dynamics
        return found

    def with_dynamics(self, context: FloatArray) -> FloatArray:
        """Contexts (N, C) as (N, C + D), with the nominal dynamics; (N, C + D) as they are."""
        if context.shape[1] > self.context.width:
            return context
        nominal = np.tile(self.nominal_dynamics, (len(context), 1))
        return np.concatenate([context, nominal], axis=1)

    def contexts(self, tasks: Sequence[Task]) -> FloatArray:
        """Contexts (N, C) of tasks, (N, C + D) of all where some of them set the dynamics."""
        rows = [np.array([task.context]) for task in tasks]
        if len({row.shape for row in rows}) > 1:
            rows = [self.with_dynamics(row) for row in rows]
        return np.concatenate(rows)

    def carry(self, views: Views) -> Views:  # noqa: ARG002
        """Values to write into `views` after a step: what the next states must remember."""
        return {}

    @abstractmethod
    def read(self, views: Views) -> Terms:
        """All terms, as fresh arrays."""

    @abstractmethod
    def reward_dense(self, terms: Terms, context: FloatArray, action: FloatArray) -> FloatArray:
        """Dense reward (N,) for reaching `terms` by `action` in tasks `context`.

        `context` is (N, C), or (N, C + D) where tasks set the dynamics.
        """

    @abstractmethod
    def reward_sparse(self, terms: Terms, context: FloatArray, action: FloatArray) -> FloatArray:
        """Sparse reward (N,); same arguments. Far from the goal it is the same in all tasks."""

    def checked_reward(self, kind: str) -> str:
        """The name of one of `rewards`; raises DemokitError for any other."""
        if kind not in self.rewards:
            raise unknown_name(f"reward of {self.name}", kind, self.rewards)
        return kind

    def reward(
        self, kind: str, terms: Terms, context: FloatArray, action: FloatArray
    ) -> FloatArray:
        """The reward (N,) of that name, one of `rewards`; see `reward_dense`."""
        paid: FloatArray = getattr(self, reward_term(kind))(terms, context, action)
        return paid

    def seen_reward(self, kind: str, observation: FloatArray, action: FloatArray) -> FloatArray:
        """One of `seen_rewards` (N,) for reaching what is observed (N, O) by `action` (N, A)."""
        names = [term.name for term in self.observation_terms]
        edges = np.cumsum([term.width for term in self.observation_terms])
        terms = dict(zip(names, np.split(observation, edges[:-1], axis=1), strict=True))
        nobody_knows = np.full((len(action), self.context.width), np.nan)
        return self.reward(kind, terms, nobody_knows, action)

    def shaping(self, terms: Terms, context: FloatArray) -> FloatArray:  # noqa: ARG002
        """What training an expert adds to the dense reward, (N,); by default nothing.

        For families whose dense reward says nothing until something has been reached.
        """
        return np.zeros(len(context))

    @abstractmethod
    def success(self, terms: Terms, context: FloatArray) -> Array:
        """Whether the tasks are solved in this state, (N,) bool."""

    def terminated(self, terms: Terms) -> NDArray[np.bool_]:
        """Whether the episodes end here, before the horizon, (N,) bool; by default never."""
        return np.zeros(len(next(iter(terms.values()))), np.bool_)

    def goal_marker(self, context: FloatArray) -> Mapping[str, FloatArray]:  # noqa: ARG002
        """Site name -> position (3,) in the world that shows people the goal of context (C,).

        Maps of tasks are drawn over the site called "goal", and over contexts without one.
        """
        return {}

    @cached_property
    def model(self) -> mujoco.MjModel:
        """The compiled model, shared: treat it as read-only."""
        return self.spec().compile()

    @cached_property
    def model_hash(self) -> str:
        """SHA-256 of the model's XML: two datasets with the same hash ran the same physics."""
        spec = self.spec()
        spec.compile()
        return sha256(spec.to_xml().encode()).hexdigest()

    @cached_property
    def schema(self) -> Schema:
        """All of it that a policy knows."""
        return Schema(
            self.name,
            self.model_hash,
            self.horizon,
            self.observation_terms,
            tuple(self.vision_terms),
            tuple(self.actions),
        )

    def require_drawn(self) -> None:
        """Raise DemokitError unless its states can be drawn."""
        if not self.restorable:
            raise DemokitError(f"{self.name} does not run on MuJoCo: it cannot be drawn here.")

    @property
    def control_dt_s(self) -> float:
        """Seconds per action."""
        return float(self.model.opt.timestep) * self.frame_skip

    def time_breaks(self, time_s: FloatArray) -> NDArray[np.bool_]:
        """Which steps (T,) between times (T+1,) did not take `control_dt_s`."""
        off: FloatArray = np.abs(np.diff(time_s) / self.control_dt_s - 1)
        return off > _TIME_TOLERANCE

    @cached_property
    def observation_terms(self) -> tuple[Term, ...]:
        """The terms a policy may see, in the order of the observation vector."""
        return tuple(term for term in self.terms if term.group == "observation")

    @cached_property
    def observation_width(self) -> int:
        """O, the length of the observation vector."""
        return sum(term.width for term in self.observation_terms)

    def bounds(self, term: Term) -> Bounds:
        """Bounds of a term, for Gymnasium's spaces, which ask for some: by default +-100.

        Where a family observes more, it says so here; infinite ones say that there are none.
        """
        most = np.full(term.width, OBSERVATION_BOUND)
        return Bounds(-most, most)

    def observe(self, terms: Terms) -> FloatArray:
        """The observation (N, O) float32: the observation terms side by side, nothing else."""
        parts = [terms[term.name] for term in self.observation_terms]
        return np.concatenate(parts, axis=1, dtype=np.float32, casting="same_kind")


class Reaching(Family):
    """A family whose tasks are places, paid by the distance to the task's."""

    sparse_radius_m: ClassVar[float]
    """Nearer than that, the sparse reward pays."""
    success_radius_m: ClassVar[float]

    @abstractmethod
    def distance_m(self, terms: Terms, context: FloatArray) -> FloatArray:
        """How far each simulation (N,) is from its task's place, in metres."""

    def reward_dense(self, terms: Terms, context: FloatArray, action: FloatArray) -> FloatArray:  # noqa: ARG002
        """Negative distance, metres."""
        return -self.distance_m(terms, context)

    def reward_sparse(self, terms: Terms, context: FloatArray, action: FloatArray) -> FloatArray:  # noqa: ARG002
        """`1 - distance / radius` within `sparse_radius_m`, else 0."""
        nearness = 1 - self.distance_m(terms, context) / self.sparse_radius_m
        reward: FloatArray = np.maximum(0, nearness)
        return reward

    def success(self, terms: Terms, context: FloatArray) -> Array:
        """Within `success_radius_m`."""
        return self.distance_m(terms, context) < self.success_radius_m


def reward_term(kind: str) -> str:
    """Under which name a reward is computed and recorded: "reward_sparse" for "sparse"."""
    return f"reward_{kind.replace('-', '_')}"


def checked_name(name: object) -> str:
    """The name of a family; raises DemokitError for what cannot be one."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise DemokitError(f"A family's name is letters, digits and - _ . alone, not {name!r}.")
    return name
