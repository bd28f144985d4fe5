"""Frozen, validated values that cross rooms: a task, an episode, one step of a batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from demokit.errors import DemokitError
from demokit.text import is_storable

Array: TypeAlias = NDArray[Any]
FloatArray: TypeAlias = NDArray[np.floating[Any]]
Observation: TypeAlias = Any
"""(N, O) float32; or, where images are observed, a mapping name -> (N, ...)."""
Split = Literal["train", "validation", "ood", "monitor"]
SPLITS: tuple[str, ...] = get_args(Split)


def as_rows(values: Array) -> Array:
    """Values (N, ...) as (N, components), also where there are no rows or no components."""
    rows: Array = values.reshape(len(values), prod(values.shape[1:]))
    return rows


def truth(value: object) -> bool | None:
    """What a value says of success or an end; None where it says neither yes nor no.

    Yes and no are booleans, the numbers 1 and 0, and arrays of one of these; text is neither.
    """
    if isinstance(value, bool):
        return value
    said = np.asarray(value)
    if said.size != 1 or said.dtype.kind not in "biuf" or said.item() not in (0, 1):
        return None
    return bool(said.item())


@dataclass(frozen=True)
class Task:
    """One task of a family: a context vector with a name and a split.

    Attributes:
        family: name of the environment family, such as "push".
        id: name unique within the family, such as "push/paper/train/03".
        context: the task's context vector omega (units: see the family's `ContextSpace`).
        split: "train", "validation", "ood" or "monitor".
    """

    family: str
    id: str
    context: tuple[float, ...]
    split: str

    def __post_init__(self) -> None:
        """Check id, split and context; raises DemokitError."""
        if not is_storable(self.id):
            raise DemokitError(f"Task '{self.id}': its id is no text that a file can hold.")
        if self.split not in SPLITS:
            raise DemokitError(f"Task '{self.id}': split '{self.split}' is none of {SPLITS}.")
        if not self.context or not np.isfinite(self.context).all():
            raise DemokitError(f"Task '{self.id}': context {self.context} is empty or not finite.")
        object.__setattr__(self, "context", tuple(map(float, self.context)))


class Step(NamedTuple):
    """What one step of N simulations returns; every array has the leading axis N.

    `observation` (N, O) float32, or for vision name -> (N, ...); `reward` (N,) float64;
    `terminated`, `truncated`, `success` (N,) bool.
    """

    observation: Observation
    reward: FloatArray
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    success: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Episode:
    """One recorded episode of T steps, checked when it is made.

    Attributes:
        task: the task it was recorded in.
        observations: (T+1, O) float32, or a mapping from a name to such an array (images: uint8).
        actions: (T, A) float32, the executed actions, within the action bounds [-1, 1].
        rewards: (T,) float64.
        terminations, truncations: (T,) bool; nothing but the last step may end the episode.
        privileged: name -> (T+1, ...), what only recorders, experts and evaluation may see;
            "state" (T+1, S) float64 restores the simulator at any step; only datasets that say
            they are not restorable hold episodes without it.
        seed: the seed that its reset was given.
        success: whether the task was solved at the end.
        recorder: who acted, such as "scripted".
    """

    task: Task
    observations: Array | Mapping[str, Array]
    actions: FloatArray
    rewards: FloatArray
    terminations: NDArray[np.bool_]
    truncations: NDArray[np.bool_]
    privileged: Mapping[str, Array]
    seed: int
    success: bool
    recorder: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check lengths, dtypes, finiteness and bounds; raises DemokitError naming the field."""
        steps = len(self.actions)
        if steps == 0:
            raise DemokitError("Episode has no steps: record at least one action.")
        self._check("actions", self.actions, steps, "f", ndim=2)
        self._check("rewards", self.rewards, steps, "f", ndim=1)
        self._check("terminations", self.terminations, steps, "b", ndim=1)
        self._check("truncations", self.truncations, steps, "b", ndim=1)
        for name, values in self.named_observations().items():
            self._check(f"observations {name}".strip(), values, steps + 1, "fu")
        for name, values in self.privileged.items():
            self._check(f"privileged {name}", values, steps + 1, "fiub")
        self._check_origin()
        if np.abs(self.actions).max(initial=0) > 1:
            raise DemokitError(
                "Episode actions leave the bounds [-1, 1]: record the executed (clipped) action."
            )
        if (self.terminations | self.truncations)[:-1].any():
            raise DemokitError("Episode goes on after a step that ended it: cut it there.")

    def __len__(self) -> int:
        """T, the number of steps."""
        return len(self.actions)

    @property
    def episode_return(self) -> float:
        """Sum of rewards, undiscounted."""
        return float(self.rewards.sum())

    def named_observations(self) -> Mapping[str, Array]:
        """The observations as a mapping; a plain array has the name ''."""
        if isinstance(self.observations, Mapping):
            return self.observations
        return {"": self.observations}

    def _check_origin(self) -> None:
        seed: object = self.seed
        is_int = isinstance(seed, int | np.integer) and not isinstance(seed, bool)
        if not is_int or not -(2**63) <= self.seed < 2**64:
            raise DemokitError(f"Episode seed: {seed!r} is no integer of 64 bits.")
        if not is_storable(self.recorder):
            raise DemokitError(
                f"Episode recorder: {self.recorder!r} is no text that a file can hold."
            )

    def _check(
        self, name: str, values: Array, length: int, kinds: str, *, ndim: int | None = None
    ) -> None:
        if not isinstance(values, np.ndarray) or values.dtype.kind not in kinds:
            raise DemokitError(f"Episode {name}: expected an array of kind '{kinds}'.")
        if len(values) != length or (ndim is not None and values.ndim != ndim):
            raise DemokitError(
                f"Episode {name}: shape {values.shape} does not fit {length} rows"
                + (f" and {ndim} axes." if ndim else ".")
            )
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            row, *component = np.argwhere(~np.isfinite(values))[0].tolist()
            which = f" component {', '.join(map(str, component))}" if component else ""
            raise DemokitError(
                f"Episode {name}{which}: NaN or infinity at step {row} of task {self.task.id}."
            )
