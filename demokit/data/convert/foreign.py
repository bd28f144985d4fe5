"""Datasets that demokit did not record: what they lack is filled in, marked and reported."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np

from demokit.data.changes import SUCCESS_MARKED
from demokit.data.convert import Imported
from demokit.data.convert.inventory import Inventory, Loss, Part, attribute, listed
from demokit.data.labels import misshapen
from demokit.data.metadata import (
    ACTION_RANGE,
    NOT_STORED,
    ActionRange,
    ArraySpec,
    DatasetMetadata,
    Provenance,
    Space,
)
from demokit.errors import DemokitError
from demokit.types import Array, Episode, Task, as_rows

_Name = TypeVar("_Name", bound=Hashable)
NO_CONTEXT = (0.0,)
STATE_ALONE = "it is kept, but the model that it belongs to is not known: it restores nothing"
_STAND_INS = {
    "last observation": "the observation before it is repeated, so that there are T+1 rows",
    "context": "0 stands in its place: the source does not describe tasks by numbers",
    "success": "every episode counts as failed",
    "rewards": "0 stands in their place",
    "seed": "0 stands in its place: what reset the episodes was not stored",
    "end": "every episode counts as truncated: the source says that it ended, not how",
}
_EXACT_IN_FLOAT64 = 2**53


@dataclass(frozen=True, eq=False)
class Trajectory:
    """An episode of T steps as other formats hold it; None is what they do not say.

    `observations` have T or T+1 rows, and `privileged` too; a plain observation has the name "".
    `task` names the task within `split`; where it is `numbered`, it names several, told apart by
    their contexts. `terminated` is false for an episode that was cut off.
    """

    task: str
    observations: Mapping[str, Array]
    actions: Array
    rewards: Array | None
    terminated: bool | None = None
    success: bool | None = None
    context: tuple[float, ...] | None = None
    split: str = "train"
    seed: int | None = None
    privileged: Mapping[str, Array] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    numbered: bool = False


@dataclass(frozen=True)
class About:
    """What a source says of itself, and how the dataset shall be called.

    `origin` is the format, as the provenance names it; a None `horizon` is the longest episode,
    a None `task_set` the origin, a None `action_range` the greatest magnitudes of its actions
    (of one component: that of all).
    """

    origin: str
    family: str
    horizon: int | None = None
    task_set: str | None = None
    expert: str = "unknown"
    operator: str | None = None
    description: str = ""
    action_range: ActionRange | None = None


@dataclass
class _Survey:
    """What a first pass over the trajectories finds; `low` and `high` of the actions, (A,)."""

    low: Array
    high: Array
    tasks: dict[str, Task] = field(default_factory=dict)
    without_context: set[str] = field(default_factory=set)
    longest: int = 0
    episodes: int = 0
    lacking: Counter[str] = field(default_factory=Counter)
    types: dict[str, str] = field(default_factory=dict)


def import_foreign(
    inventory: Inventory,
    parts: Callable[[], Iterator[Part]],
    read: Callable[[Part], Trajectory],
    about: About,
    losses: tuple[Loss, ...] = (),
) -> Imported:
    """A dataset from the parts of a source, which are read twice: to survey them, and to write.

    An episode that is not sound is left out, with the reason in the inventory.

    Args:
        inventory: of the source.
        parts: starts a pass over its episodes.
        read: makes a trajectory of one, or raises DemokitError with what is wrong with it.
        about: what is known of all of them.
        losses: what the reader itself changed.

    Raises:
        DemokitError: no sound episode.
    """
    source = _Source(inventory, parts, read, about.family)
    survey, space, actions = _survey(source, about.family)
    range_ = _range(survey, about.action_range, actions.dtype)
    missing = _missing(survey) | scaling(range_, about.action_range) | survey.types
    metadata = DatasetMetadata(
        family=about.family,
        reward="dense",
        horizon=max(about.horizon or 0, survey.longest),
        task_set=about.task_set or about.origin,
        tasks=_widened(survey, source.stand_in),
        observation_space=space,
        action_space=actions,
        model_hash="",
        mujoco_version="unknown",
        provenance=Provenance(
            about.origin, about.expert, None, None, operator=about.operator, missing=missing
        ),
        description=about.description
        or f"Imported from {about.origin}: see its provenance for what is missing.",
    )
    lost = tuple(Loss(what, why) for what, why in missing.items())
    return Imported(metadata, _Episodes(source, range_, about), inventory, lost + losses)


def plain_name(text: str) -> str:
    """`text` as a name of a family or task: letters, digits, `-`, `_` and `.`."""
    return re.sub(r"[^-\w.]+", "-", text).strip("-").lower() or "unnamed"


def distinct(names: Iterable[_Name], *ways: Callable[[_Name], str]) -> dict[_Name, str]:
    """Name -> new name, one to one.

    A name is changed in the first of the `ways` that makes no two alike; where all do, the last
    one gets a number.
    """
    left, found = list(dict.fromkeys(names)), dict[_Name, str]()
    for way in ways:
        counts = Counter([*found.values(), *map(way, left)])
        found |= {name: way(name) for name in left if counts[way(name)] == 1}
        left = [name for name in left if name not in found]
    taken, tried = set(found.values()), Counter[str]()
    for name in left:
        base = ways[-1](name)
        numbered = (f"{base}-{number}" for number in range(tried[base] + 1, len(taken) + 2))
        found[name] = next(new for new in numbered if new not in taken)
        taken.add(found[name])
        tried[base] = int(found[name].removeprefix(f"{base}-"))
    return found


def observed(part: Part, places: Mapping[str, str]) -> dict[str, Array]:
    """The observations of a part: name -> rows; what holds no rows of numbers is explained.

    Args:
        part: the episode.
        places: place in the part -> name of the observation.
    """
    found = {}
    for place, name in places.items():
        try:
            rows = part.array(place)
        except DemokitError as problem:
            part.explain(place, f"left out: {problem}")
            continue
        if rows.ndim and rows.dtype.kind in "fiub":
            found[name] = rows
        else:
            part.explain(place, f"left out: {rows.dtype} {rows.shape} is no row of numbers")
    return found


def terminated(part: Part, terminations: str, truncations: str, dones: str) -> bool | None:
    """Whether the last step ended the episode by itself; None where the source does not say.

    Args:
        part: the episode.
        terminations: place of a flag per step, set where the task ended.
        truncations: set where the episode was cut off.
        dones: set for either: it says that an episode ended, not how.
    """
    ended, cut, done = (part.flag(name) for name in (terminations, truncations, dones))
    if ended is not None:
        return ended
    if cut or done is False:
        return False
    return done if cut is not None else None


def truth(part: Part, name: str) -> bool | None:
    """A thing that is true or false; None where it is not there, or is something else."""
    try:
        value = part.array(name) if name in part else np.asarray(None)
    except DemokitError as problem:
        part.explain(name, f"left out: {problem}")
        return None
    if value.size == 1 and value.dtype.kind in "biuf" and value.item() in (0, 1):
        return bool(value.item())
    part.explain(name, "left out: it is neither true nor false")
    return None


def said_once(part: Part, name: str, *, by_row: bool = False) -> Array:
    """What an episode says once: a number, a text or a vector; or the same in every row.

    Args:
        part: the episode.
        name: of the thing in it.
        by_row: also a thing of one axis has rows.

    Raises:
        DemokitError: it is not there, changes within the episode, or is neither number nor text.
    """
    value = part.array(name)
    if value.dtype.kind not in "fiubUS":
        raise DemokitError(f"its {name} is neither numbers nor text")
    if value.ndim > 1 or (by_row and value.ndim == 1):
        if not len(value) or not (value == value[:1]).all():
            raise DemokitError(f"its {name} changes within the episode, or has no rows")
        value = np.asarray(value[0])
    return value


def stated_task(part: Part, name: str, *, by_row: bool = False) -> str:
    """The name of a task, which is a text or a number; see `said_once`."""
    value = said_once(part, name, by_row=by_row)
    if value.size != 1:
        raise DemokitError(f"its {name} is no name of a task")
    found = value.ravel()[0]
    if isinstance(found, bytes):
        found = found.decode(errors="replace")
    text = str(found).removesuffix(".0") if value.dtype.kind == "f" else str(found)
    if not text.strip():
        raise DemokitError(f"its {name} is an empty name")
    return text


def stated_context(
    part: Part, names: tuple[str, ...], *, by_row: bool = False
) -> tuple[float, ...] | None:
    """The numbers under these names, one after another; None of no names. See `said_once`."""
    found: list[float] = []
    for name in names:
        value = said_once(part, name, by_row=by_row)
        if value.dtype.kind not in "fiub":
            raise DemokitError(f"its {name} is no row of numbers that describes a task")
        found += value.astype(float).ravel().tolist()
    if names and not found:
        raise DemokitError(f"its {names[0]} holds no number that describes a task")
    return tuple(found) if names else None


def seed_of(part: Part) -> int | None:
    """The seed in an episode's attributes, where it is one."""
    name = attribute("seed")
    try:
        value = np.asarray(part.get(name, ""))
    except DemokitError:
        value = np.asarray("")
    if value.shape == () and value.dtype.kind in "iu" and value >= 0:
        return int(value)
    part.explain(name, "left out: it is no whole number of at least 0")
    return None


class _Source:
    """The sound episodes of a source, all of one kind: that of the first one."""

    def __init__(
        self,
        inventory: Inventory,
        parts: Callable[[], Iterator[Part]],
        read: Callable[[Part], Trajectory],
        family: str,
    ) -> None:
        self.inventory, self._parts, self._read, self._family = inventory, parts, read, family
        self._kind: object = None
        self._context_width = 0
        self._numbers: dict[str, dict[tuple[float, ...] | None, int]] = {}
        self.types: dict[str, str] = {}

    def __iter__(self) -> Iterator[Trajectory]:
        self.inventory.begin()
        for part in self._parts():
            try:
                read = self._read(part)
                if not read.observations:
                    raise DemokitError(f"it has no observations that can be read{_reasons(part)}")
                found = self._named(sound(read))
                self._check_kind(found)
                _task(found, self._family)  # its context and split may be unusable
            except DemokitError as problem:
                self.inventory.leave_out(part.name, f"left out: {problem}")
                continue
            self.types.update(_changed_types(read, found))
            yield found
            self.inventory.keep(part)

    @property
    def stand_in(self) -> tuple[float, ...]:
        """The context of an episode that states none: as wide as those of the others."""
        return NO_CONTEXT * max(1, self._context_width)

    def _named(self, found: Trajectory) -> Trajectory:
        """With a number behind the name, or in its place, of tasks that contexts tell apart."""
        if not found.numbered or (found.task and found.context is None):
            return found
        numbers = self._numbers.setdefault(found.task, {})
        number = numbers.setdefault(found.context, len(numbers))
        start = f"{found.task}/" if found.task else ""
        return replace(found, task=f"{start}{number:02d}")

    def _check_kind(self, found: Trajectory) -> None:
        kind = space_of(found.observations), found.actions.shape[1:], found.actions.dtype
        self._kind = self._kind or kind
        if kind != self._kind:
            raise DemokitError(
                "it has other names, shapes or types than the first episode, and a dataset holds "
                "episodes of one kind"
            )
        if found.context is not None:
            width = len(found.context)
            self._context_width = self._context_width or width
            if width != self._context_width:
                raise DemokitError(
                    f"its context has {width} numbers, and those before it {self._context_width}"
                )


def _reasons(part: Part) -> str:
    said = [f"{name}: {why}" for name, why in part.reasons.items()]
    return f" ({listed(said)})" if said else ""


def _survey(source: _Source, family: str) -> tuple[_Survey, Space, ArraySpec]:
    first, survey = None, _Survey(np.full(1, np.inf), np.full(1, -np.inf))
    for trajectory in source:
        first = first or trajectory
        _note(survey, trajectory, family)
    if first is None:
        problem = source.inventory.first_problem()
        raise DemokitError(
            f"The source has no episode that can be imported ({problem})."
            if problem
            else "The source has no episodes."
        )
    survey.types = source.types
    space, actions = space_of(first.observations), first.actions
    return survey, space, ArraySpec(actions.shape[1:], str(actions.dtype), -1.0, 1.0)


def _note(survey: _Survey, trajectory: Trajectory, family: str) -> None:
    """Add what a trajectory brings, and what it lacks, to the survey."""
    task = _task(trajectory, family)
    if survey.tasks.setdefault(task.id, task) != task:
        raise DemokitError(f"The source gives task {task.id} two different contexts or splits.")
    if trajectory.context is None:
        survey.without_context.add(task.id)
    survey.low = np.minimum(survey.low, trajectory.actions.min(0).astype(float))
    survey.high = np.maximum(survey.high, trajectory.actions.max(0).astype(float))
    survey.longest = max(survey.longest, len(trajectory.actions))
    survey.episodes += 1
    lacks = {
        "state": "state" not in trajectory.privileged,
        "last observation": _is_short(trajectory),
        "context": trajectory.context is None,
        "success": trajectory.success is None,
        "rewards": trajectory.rewards is None,
        "seed": trajectory.seed is None,
        "end": trajectory.terminated is None,
    }
    survey.lacking.update(what for what, is_so in lacks.items() if is_so)


def _widened(survey: _Survey, stand_in: tuple[float, ...]) -> tuple[Task, ...]:
    """The tasks, those that nobody described with the stand-in for a context."""
    return tuple(
        replace(task, context=stand_in) if task.id in survey.without_context else task
        for task in survey.tasks.values()
    )


def _missing(survey: _Survey) -> dict[str, str]:
    """What the source does not hold, and what stands in its place."""
    missing = dict(NOT_STORED)
    if not survey.lacking["state"]:
        missing["state"] = STATE_ALONE
    for what, stands in _STAND_INS.items():
        count = survey.lacking[what]
        if 0 < count < survey.episodes:
            stands = f"{stands.replace('every', 'such an')} (in {count} of {survey.episodes})"
        if count:
            missing[what] = stands
    return missing


def _range(survey: _Survey, stated: ActionRange | None, dtype: str) -> ActionRange:
    """What the actions are mapped from; raises DemokitError where they leave what is stated."""
    if stated is None:
        greatest = np.maximum(1, np.maximum(-survey.low, survey.high))
        return ActionRange(-greatest, greatest)
    width = len(survey.low)
    if len(stated.low) not in (1, width):
        raise DemokitError(
            f"The action range has {len(stated.low)} components, the actions {width}."
        )
    low, high = (np.broadcast_to(side, width) for side in (stated.low, stated.high))
    if stated.outside(np.stack([survey.low, survey.high]).astype(dtype)).any():
        raise DemokitError(
            f"The actions reach from {survey.low.tolist()} to {survey.high.tolist()}, outside "
            f"{low.tolist()} to {high.tolist()}: state the range of the actions, with --action-low "
            "and --action-high, or in Python action_low and action_high."
        )
    return ActionRange(low, high)


def scaling(found: ActionRange, stated: ActionRange | None) -> dict[str, str]:
    """What to say of actions that do not stand as they were; `Provenance.action_range` reads it."""
    if found.is_unit:
        return {}
    low, high = json.dumps(found.low.tolist()), json.dumps(found.high.tolist())
    said = f"divided by their greatest magnitudes {high}"
    if stated is not None:
        said = f"mapped from the range that was stated, {low} to {high},"
    return {ACTION_RANGE: f"actions were {said} to fit [-1, 1]"}


def sound(found: Trajectory) -> Trajectory:
    """The trajectory with arrays as demokit holds them; raises DemokitError where it cannot."""
    actions = _actions(found.actions)
    steps = len(actions)
    rows = {len(values) for values in found.observations.values()}
    if not rows <= {steps, steps + 1} or len(rows) > 1:
        raise DemokitError(f"it has {steps} actions and {sorted(rows)} observations")
    for name, values in found.privileged.items():
        if len(values) not in (steps, steps + 1):
            raise DemokitError(f"it has {steps} actions and {len(values)} rows of {name}")
    if wrong := misshapen(actions, found.privileged):
        raise DemokitError(f"the shape of its {wrong} does not fit its actions")
    found = _with_success(_with_context(found), steps)
    sound = replace(
        found,
        actions=actions,
        rewards=_rewards(found.rewards, steps),
        observations={name: _observation(values) for name, values in found.observations.items()},
    )
    _check_finite(sound)
    return sound


def _with_context(found: Trajectory) -> Trajectory:
    """With the context that privileged rows say, which it repeats; raises DemokitError."""
    if "context" not in found.privileged:
        return found
    rows = as_rows(found.privileged["context"])
    if (rows != rows[0]).any():
        raise DemokitError("its privileged context changes within the episode")
    said, stated = tuple(rows[0].astype(float).tolist()), found.context
    if stated is not None and (len(stated) != len(said) or not np.allclose(said, stated)):
        raise DemokitError(f"its context is {stated}, and its privileged one {said}")
    others = {name: rows for name, rows in found.privileged.items() if name != "context"}
    return replace(found, context=stated or said or None, privileged=others)


def _with_success(found: Trajectory, steps: int) -> Trajectory:
    """With the success that the last privileged row says; raises DemokitError."""
    rows = found.privileged.get("success")
    if rows is None:
        return found
    if rows.size != len(rows) or rows.dtype.kind not in "biuf" or not np.isin(rows, (0, 1)).all():
        raise DemokitError("its privileged success is not true or false in every row")
    if found.success is None:
        return replace(found, success=bool(rows[-1]))
    if len(rows) == steps:
        last = np.full((1, *rows.shape[1:]), found.success, rows.dtype)
        rows = np.concatenate([rows, last])
    elif bool(rows[-1]) != found.success and not found.options.get(SUCCESS_MARKED):
        raise DemokitError(f"its success is {found.success}, and its privileged one is not")
    return replace(found, privileged={**found.privileged, "success": rows})


def _actions(actions: Array) -> Array:
    """One vector of floating-point numbers per step; one number is a vector of one."""
    if actions.ndim and not len(actions):
        raise DemokitError("it has no steps")
    found = _floats(actions[:, None] if actions.ndim == 1 else actions)
    if found.dtype.kind != "f" or found.ndim != 2 or not found.shape[1]:
        raise DemokitError(
            f"it has actions of {actions.dtype} {actions.shape}, not steps of one vector"
        )
    return found


def _rewards(rewards: Array | None, steps: int) -> Array | None:
    if rewards is None:
        return None
    if rewards.size != steps or rewards.dtype.kind not in "fiub":
        raise DemokitError(f"it has {steps} actions and rewards of {rewards.dtype} {rewards.shape}")
    return rewards.reshape(steps).astype(np.float64)


def _check_finite(found: Trajectory) -> None:
    arrays = {"actions": found.actions, "rewards": found.rewards}
    arrays |= {f"observations {name}".strip(): rows for name, rows in found.observations.items()}
    arrays |= {f"privileged {name}": rows for name, rows in found.privileged.items()}
    for name, values in arrays.items():
        if values is not None and values.dtype.kind == "f" and not np.isfinite(values).all():
            raise DemokitError(f"it has {name} that are not finite")


def _changed_types(read: Trajectory, found: Trajectory) -> dict[str, str]:
    """What was neither a floating-point number nor a pixel, and is one now."""
    pairs = {"actions": (read.actions, found.actions)}
    for name, rows in found.observations.items():
        pairs[f"observation {name}".strip()] = read.observations[name], rows
    return {
        f"type of {name}": f"{before.dtype} in the source, {after.dtype} here: the same numbers"
        for name, (before, after) in pairs.items()
        if before.dtype.kind != after.dtype.kind
    }


def _observation(rows: Array) -> Array:
    """Observations as demokit holds them: pixels as they are, all others floating-point."""
    return rows if rows.dtype in (np.uint8, np.uint16) else _floats(rows)


def _floats(rows: Array) -> Array:
    """Numbers as floating-point ones that hold each of them exactly, in this machine's order."""
    if rows.dtype.kind == "f":
        size = min(rows.dtype.itemsize, 8)
        return rows.astype(f"f{size}", copy=False)
    if rows.dtype.kind not in "iub":
        return rows
    if rows.dtype.itemsize <= 2:
        return rows.astype(np.float32)
    if rows.size and max(abs(int(rows.min())), abs(int(rows.max()))) > _EXACT_IN_FLOAT64:
        raise DemokitError("it has whole numbers too great for a floating-point one")
    return rows.astype(np.float64)


def _task(trajectory: Trajectory, family: str, stand_in: tuple[float, ...] = NO_CONTEXT) -> Task:
    task_id = f"{family}/{trajectory.task}"
    return Task(family, task_id, trajectory.context or stand_in, trajectory.split)


def _is_short(trajectory: Trajectory) -> bool:
    """Whether the observation after the last action is missing."""
    rows = next(iter(trajectory.observations.values()))
    return len(rows) == len(trajectory.actions)


@dataclass(frozen=True, eq=False)
class _Episodes:
    """Iterable as often as asked, one episode in memory at a time."""

    source: _Source
    action_range: ActionRange
    about: About

    def __iter__(self) -> Iterator[Episode]:
        for trajectory in self.source:
            yield episode_of(trajectory, self.action_range, self.about, self.source.stand_in)


def episode_of(
    trajectory: Trajectory,
    action_range: ActionRange,
    about: About,
    stand_in: tuple[float, ...] = NO_CONTEXT,
) -> Episode:
    """An episode of a trajectory that is `sound`; what it does not say is filled in."""
    steps = len(trajectory.actions)
    task = _task(trajectory, about.family, stand_in)
    ended = np.zeros(steps, np.bool_)
    ended[-1] = True
    terminated = ended & bool(trajectory.terminated)
    rewards = np.zeros(steps) if trajectory.rewards is None else trajectory.rewards
    context = np.tile(np.array(task.context), (steps + 1, 1))
    privileged = {n: _with_last(rows, steps) for n, rows in trajectory.privileged.items()}
    observations = {n: _with_last(rows, steps) for n, rows in trajectory.observations.items()}
    return Episode(
        task=task,
        observations=observations[""] if set(observations) == {""} else observations,
        actions=action_range.to_unit(trajectory.actions),
        rewards=rewards,
        terminations=terminated,
        truncations=ended & ~terminated,
        privileged={**privileged, "context": context},
        seed=trajectory.seed or 0,
        success=bool(trajectory.success),
        recorder=about.origin,
        options=trajectory.options,
    )


def _with_last(rows: Array, steps: int) -> Array:
    """The rows with the last one of T repeated."""
    return repeat_last(rows) if len(rows) == steps else rows


def repeat_last(rows: Array) -> Array:
    """(T, ...) -> (T+1, ...), the last row twice."""
    return np.concatenate([rows, rows[-1:]])


def space_of(observations: Mapping[str, Array]) -> Space:
    """The space of observations by name; of one without a name, its own."""
    specs = {name: _spec_of(rows) for name, rows in sorted(observations.items())}
    return specs[""] if set(specs) == {""} else specs


def _spec_of(rows: Array) -> ArraySpec:
    whole = rows.dtype.kind == "u"
    bounds = (0.0, float(np.iinfo(rows.dtype).max)) if whole else (-np.inf, np.inf)
    return ArraySpec(rows.shape[1:], str(rows.dtype), *bounds)
