"""Recording any Gymnasium environment: a wrapper that keeps whole episodes, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any, Literal, TypeAlias

import gymnasium
import numpy as np

from demokit.data.convert.foreign import (
    NO_CONTEXT,
    STATE_ALONE,
    About,
    Trajectory,
    episode_of,
    plain_name,
    scaling,
    sound,
    space_of,
)
from demokit.data.metadata import NOT_STORED, ArraySpec, DatasetMetadata, Provenance
from demokit.data.spaces import action_range_of, checked, parts_of, read_action, stated_range
from demokit.data.writer import DatasetWriter
from demokit.envs.answers import SUCCESS
from demokit.errors import DemokitError
from demokit.types import Array, FloatArray, Task, truth

Ask: TypeAlias = Callable[[Any], Any]
"""A question to the environment without its wrappers."""

GYMNASIUM = "gymnasium"
_LACKS = {
    "seed": "0 stands in its place where the reset was given none",
    "success": "an episode of which nobody said so counts as failed",
}
_NO_CONTEXT = "0 stands in its place: nobody described the tasks by numbers"


class Recorder(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Records an environment to a dataset: what is stepped through it are the file's episodes.

    An episode is durable as soon as it ends: whatever kills the process, the one in progress alone
    is lost, and `resume=True` goes on. `close`, or the end of a `with` block, makes NAME.hdf5 of
    all. A reset in the middle of an episode, and `close`, end it as truncated; `discard` drops it.
    Where an error leaves a block, the episode in progress is dropped, and the others wait for
    `resume=True`. What the environment returns is passed on as it is.

    Args:
        env: an environment that observes arrays, or dicts of them, and takes a vector or a number.
        path: NAME.hdf5.
        family: name of the robot or environment; by default that of the file.
        task: the name of the task, a `demokit.types.Task`, or a function that gives one after each
            reset. By default `options["task"]` of the reset is that, or the numbers of the context.
        context: (C,) numbers that describe the task, or a function that gives them after each
            reset; by default `options["context"]`. Without a name, each context is a task.
        split: of tasks that are no `Task`.
        privileged: gives a dict of arrays that a policy must never see, at every reset and step.
        success: says whether the task is solved, asked at the end of an episode; by default
            `info["is_success"]` or `info["success"]` does.
        action_low: what stands at -1 in the dataset, a number or one per component.
        action_high: what stands at 1. By default both are the bounds of the action space;
            `Dataset.metadata.provenance.action_range` undoes what was done.
        expert: who acts, for the provenance.
        operator: the person, for the provenance.
        license: SPDX identifier, such as "CC-BY-4.0".
        description: a sentence for the card.
        resume: go on with an unfinished recording, or extend a finished dataset.
        overwrite: replace what is there, once the dataset is complete.

    All functions are given the environment without its wrappers.

    Raises:
        DemokitError: spaces that cannot be recorded, or a place that cannot be written; by `reset`
            and `step`, something is NaN, or of another shape than before, or an action leaves its
            range, and then it is not stepped. The steps before are kept.
    """

    def __init__(
        self,
        env: gymnasium.Env[Any, Any],
        path: str | PathLike[str],
        *,
        family: str | None = None,
        task: str | Task | Ask | None = None,
        context: Sequence[float] | Ask | None = None,
        split: Literal["train", "validation", "ood", "monitor"] = "train",
        privileged: Ask | None = None,
        success: Ask | None = None,
        action_low: float | Sequence[float] | None = None,
        action_high: float | Sequence[float] | None = None,
        expert: str = "unknown",
        operator: str | None = None,
        license: str | None = None,
        description: str = "",
        resume: bool = False,
        overwrite: bool = False,
    ) -> None:
        _require_spaces(env)
        super().__init__(env)
        self.path = Path(path)
        self._parts = parts_of(env.observation_space)
        self._range = action_range_of(env.action_space, stated_range(action_low, action_high))
        name = family or plain_name(self.path.stem)
        said = (
            description
            or f"Recorded from the Gymnasium environment {type(env.unwrapped).__name__}."
        )
        self._about = About(GYMNASIUM, name, expert=expert, operator=operator, description=said)
        self._license, self._again = license, {"resume": resume, "overwrite": overwrite}
        self._tasks = _Tasks(name, task, context, split)
        self._hidden, self._success = _Hidden(privileged), success
        if success is not None and not callable(success):
            raise DemokitError(f"success is a function of the environment, not {success!r:.80}.")
        self._writer: DatasetWriter | None = None
        self._begun: _Begun | None = None
        self._closed = False
        nobody = Task(name, f"{name}/0", NO_CONTEXT, split)
        self._described(nobody, True).require_storable()  # what a person said can be written
        self._earlier = DatasetWriter.check(self.path, **self._again)
        if self._earlier is not None and self._earlier.family != name:
            raise DemokitError(
                f"{self.path} has episodes of '{self._earlier.family}', and these would be of "
                f"'{name}': choose another path, or say the family."
            )

    @property
    def saved(self) -> int:
        """Episodes that are safe on disk, those of an earlier recording included once it began."""
        return len(self._writer) if self._writer else 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """As the environment's; ends the episode under way, and begins one."""
        self._require_open()
        self._end()
        observation, info = self.env.reset(seed=seed, options=options)
        seen, hidden = self._seen(observation), self._hidden.ask(self.unwrapped)
        about = self._writer.metadata if self._writer else self._earlier
        known = about.tasks if about else ()
        task, described = self._tasks.task(self.unwrapped, options or {}, known)
        self._open_for(task, described)
        self._begun = _Begun(task, described, seed, [seen], [hidden])
        return observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """As the environment's."""
        self._require_open()
        begun = self._begun
        if begun is None or begun.broken or begun.over:
            raise DemokitError("No episode is under way: call reset() first.")
        taken = read_action(self.env.action_space, self._range, action)
        begun.broken = True  # unless all of what follows can be kept
        answer = self.env.step(action)
        observation, reward, terminated, truncated, begun.info = answer
        seen, hidden = self._seen(observation), self._hidden.ask(self.unwrapped)
        ends = _says("terminated", terminated), _says("truncated", truncated)
        paid = float(checked("The reward", reward, (), np.dtype(float)))
        begun.add(taken, paid, seen, hidden)
        begun.broken, begun.terminated, begun.over = False, ends[0], any(ends)
        if begun.over:
            self._end()
        return answer

    def discard(self) -> None:
        """Drop the episode under way; the next step needs a reset."""
        self._begun = None

    def close(self) -> None:
        """End the episode under way, make NAME.hdf5, and close the environment.

        Raises:
            DemokitError: no episode was recorded, or the file cannot be written; what is saved
                waits for `resume=True`.
        """
        if self._closed:
            return
        try:
            self._end()
            if self._writer is None and self._earlier is not None:
                self._open_with(self._earlier)
            if self._writer is None:
                raise DemokitError(f"No episode was saved: {self.path} was not written.")
            self._writer.finish()
        finally:
            self._let_go()

    def __exit__(self, *problem: Any) -> Literal[False]:
        if any(problem):
            self._let_go()
        else:
            self.close()
        return False

    def _let_go(self) -> None:
        """Close everything; what is saved stays."""
        self._closed, self._begun = True, None
        if self._writer is not None:
            self._writer.close()
        self.env.close()

    def _require_open(self) -> None:
        if self._closed:
            raise DemokitError(
                f"The recording to {self.path} is closed: go on with a new Recorder and "
                "resume=True."
            )

    def _seen(self, observation: Any) -> dict[str, Array]:
        return {part.name: part.read(observation) for part in self._parts}

    def _open_for(self, task: Task, described: bool) -> None:
        """Begin the file with its first task; raises DemokitError where a task does not fit it."""
        writer = self._writer or self._open_with(self._described(task, described))
        about = writer.metadata
        if about.task_by_id.get(task.id, task) != task:
            raise DemokitError(
                f"Task '{task.id}' has another context or split than before: give it another name."
            )
        fits = len(task.context) == len(about.tasks[0].context)
        if described != about.knows_contexts or not fits:
            raise DemokitError(
                f"The context of task '{task.id}' is {task.context if described else 'not stated'},"
                " unlike those before: give all tasks contexts of one length, or none."
            )

    def _open_with(self, about: DatasetMetadata) -> DatasetWriter:
        self._writer = DatasetWriter(self.path, about, grows=True, **self._again)
        return self._writer

    def _described(self, task: Task, described: bool) -> DatasetMetadata:
        """What the dataset says about itself when it begins."""
        about, lacks = self._about, {**NOT_STORED, **scaling(self._range, self._range)}
        if not described:
            lacks["context"] = _NO_CONTEXT
        space, limit = self.env.action_space, self.env.spec and self.env.spec.max_episode_steps
        dtype = space.dtype if np.dtype(space.dtype).kind == "f" else np.float32
        zeros = {p.name: np.zeros((1, *p.shape), p.dtype) for p in self._parts}
        still = Trajectory("", _rows(zeros), np.zeros((1, len(self._range.low)), dtype), None)
        return DatasetMetadata(
            family=about.family,
            reward="dense",
            horizon=limit or 1,
            task_set=GYMNASIUM,
            tasks=(task,),
            observation_space=space_of(sound(still).observations),
            action_space=ArraySpec(self._range.low.shape, str(np.dtype(dtype)), -1.0, 1.0),
            model_hash="",
            mujoco_version="unknown",
            provenance=Provenance(
                GYMNASIUM, about.expert, None, None, operator=about.operator, missing=lacks
            ),
            license=self._license,
            description=about.description,
        )

    def _end(self) -> None:
        """Save the episode under way, if it has steps."""
        begun, writer = self._begun, self._writer
        if begun is not None and writer is not None and begun.actions:
            found = sound(begun.trajectory(self._solved(begun)))
            about = _grown(writer.metadata, begun.task, found)
            if about != writer.metadata:
                writer.restate(about)
            writer.add(replace(episode_of(found, self._range, self._about), task=begun.task))
        self._begun = None

    def _solved(self, begun: _Begun) -> bool | None:
        """Whether the task is solved, where somebody says so."""
        if begun.broken:
            return None  # the environment is a step ahead of what is kept
        if self._success is not None:
            return _says("success", self._success(self.unwrapped))
        name = next((name for name in SUCCESS if name in begun.info), None)
        return None if name is None else _says(f"info['{name}']", begun.info[name])


@dataclass
class _Begun:
    """An episode in the making; `broken` where a step could not be kept."""

    task: Task
    described: bool
    seed: int | None
    seen: list[dict[str, Array]]
    hidden: list[dict[str, Array]]
    actions: list[FloatArray] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    info: Mapping[str, Any] = field(default_factory=dict)
    terminated: bool = False
    over: bool = False
    broken: bool = False

    def add(
        self,
        action: FloatArray,
        reward: float,
        seen: dict[str, Array],
        hidden: dict[str, Array],
    ) -> None:
        """One more step."""
        self.actions.append(action)
        self.rewards.append(reward)
        self.seen.append(seen)
        self.hidden.append(hidden)

    def trajectory(self, solved: bool | None) -> Trajectory:
        """What it came to."""
        return Trajectory(
            task=self.task.id,
            observations=_rows(_stacked(self.seen)),
            actions=np.stack(self.actions),
            rewards=np.array(self.rewards),
            terminated=self.terminated,
            success=solved,
            context=self.task.context,
            split=self.task.split,
            seed=self.seed,
            privileged=_stacked(self.hidden),
        )


@dataclass
class _Tasks:
    """Which task an episode is of."""

    family: str
    stated: str | Task | Ask | None
    context: Sequence[float] | Ask | None
    split: str

    def __post_init__(self) -> None:
        """Check what was said; raises DemokitError."""
        if self.stated is not None and not isinstance(self.stated, str | Task | Callable):
            raise DemokitError(f"task is a name, a Task or a function, not {self.stated!r:.80}.")
        if self.context is not None and not callable(self.context):
            _numbers(self.context)

    def task(
        self, env: Any, options: Mapping[str, Any], known: Sequence[Task]
    ) -> tuple[Task, bool]:
        """The task, and whether numbers describe it; raises DemokitError for none."""
        found = options.get("task") if self.stated is None else _told(self.stated, env)
        context = options.get("context") if self.context is None else _told(self.context, env)
        if isinstance(found, Task):
            if found.family != self.family:
                raise DemokitError(
                    f"Task '{found.id}' is none of '{self.family}': say family='{found.family}'."
                )
            return found, True
        if context is None and found is not None and not isinstance(found, str):
            found, context = None, found
        numbers = NO_CONTEXT if context is None else _numbers(context)
        if found is None:
            return self._numbered(numbers, known), context is not None
        if not isinstance(found, str) or not found.strip():
            raise DemokitError(f"The name of a task is a text, not {found!r:.80}.")
        return Task(self.family, f"{self.family}/{found}", numbers, self.split), context is not None

    def _numbered(self, context: tuple[float, ...], known: Sequence[Task]) -> Task:
        """The task of a context: the one that was met before, or the next number."""
        taken = set()
        for task in known:
            if (task.context, task.split) == (context, self.split):
                return task
            taken.add(task.id)
        ids = (f"{self.family}/{number:02d}" for number in range(len(known), 2 * len(known) + 1))
        return Task(self.family, next(i for i in ids if i not in taken), context, self.split)


class _Hidden:
    """What a policy must never see: the same arrays every time."""

    def __init__(self, ask: Ask | None) -> None:
        if ask is not None and not callable(ask):
            raise DemokitError(f"privileged is a function of the environment, not {ask!r:.80}.")
        self._ask, self._kind = ask, dict[str, tuple[tuple[int, ...], np.dtype[Any]]]()

    def ask(self, env: Any) -> dict[str, Array]:
        """The arrays now; raises DemokitError where they are none, or others than before."""
        given = {} if self._ask is None else self._ask(env)
        if not isinstance(given, Mapping):
            raise DemokitError(f"privileged must give a dict, not {type(given).__name__}.")
        found = {str(name): np.array(value) for name, value in given.items()}
        kind = {name: (rows.shape, rows.dtype) for name, rows in found.items()}
        for name, rows in found.items():
            if name in ("", "context") or "/" in name or rows.dtype.kind not in "fiub":
                raise DemokitError(
                    f"The privileged term '{name}' is no array of numbers, or has a name that is "
                    "taken or empty or holds a '/'."
                )
            if rows.dtype.kind == "f" and not np.isfinite(rows).all():
                raise DemokitError(f"The privileged term '{name}' is not finite.")
        self._kind = self._kind or kind
        if kind != self._kind:
            raise DemokitError(
                f"The privileged terms are {_listed(kind)}, and were {_listed(self._kind)} before."
            )
        return found


def _require_spaces(env: object) -> None:
    """Raise DemokitError unless it is an environment that says what it observes and takes."""
    if not isinstance(env, gymnasium.Env):
        raise DemokitError(f"A Recorder wraps one gymnasium.Env, not {type(env).__name__}.")
    for name in ("observation_space", "action_space"):
        if not isinstance(getattr(env, name, None), gymnasium.Space):
            raise DemokitError(f"{type(env).__name__} has no {name}: give the class one.")


def _grown(about: DatasetMetadata, task: Task, found: Trajectory) -> DatasetMetadata:
    """What the dataset says about itself with one more episode."""
    source = about.provenance
    lacks = {name: why for name, why in _LACKS.items() if getattr(found, name) is None}
    if "state" in found.privileged:
        lacks["state"] = STATE_ALONE
    return replace(
        about,
        tasks=about.tasks if about.task_by_id.get(task.id) == task else (*about.tasks, task),
        horizon=max(about.horizon, len(found.actions)),
        provenance=replace(source, missing={**source.missing, **lacks}),
    )


def _told(said: Any, env: Any) -> Any:
    """What a person said, or what their function says of the environment."""
    return said(env) if callable(said) else said


def _numbers(context: Any) -> tuple[float, ...]:
    given = np.asarray(context)
    if given.dtype.kind not in "fiub" or given.ndim > 1 or not given.size:
        raise DemokitError(f"A context is a row of numbers, not {context!r:.80}.")
    return tuple(given.astype(float).ravel().tolist())


def _says(what: str, value: Any) -> bool:
    said = truth(value)
    if said is None:
        raise DemokitError(f"{what} is {value!r:.80}, which says neither yes nor no.")
    return said


def _stacked(rows: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def _rows(observations: Mapping[str, Array]) -> dict[str, Array]:
    """With one axis behind the steps, where an observation is a number."""
    return {n: rows[:, None] if rows.ndim == 1 else rows for n, rows in observations.items()}


def _listed(kind: Mapping[str, tuple[tuple[int, ...], Any]]) -> str:
    return ", ".join(f"{name} {shape} {dtype}" for name, (shape, dtype) in kind.items()) or "none"
