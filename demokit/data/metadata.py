"""What a dataset says about itself: frozen, checked, and written as HDF5 root attributes."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from demokit import __version__
from demokit.errors import DemokitError
from demokit.experts import checked_training
from demokit.options import REWARDS
from demokit.reading import MALFORMED, parse_json
from demokit.text import is_storable
from demokit.types import Array, FloatArray, Task

if TYPE_CHECKING:
    from demokit.envs.family import Family
    from demokit.envs.vision import Vision

SCHEMA_VERSION = 1
MINARI_VERSION = "0.5.4"
UNSTATED = "not stated or differing"
"""Of a dataset whose sources did not say it, or did not say the same."""
LARGEST_SPACE = 3 * 4096**2  # numbers of an array, see `Vision`
_MOST_LISTED = 2**20  # numbers of all vectors, whose bounds are spelled out
_LIBRARIES = ("mujoco", "numpy", "h5py")
# Root attributes that are texts, and those that are one number or boolean.
_TEXTS = (
    *("data_format", "minari_version", "dataset_id", "algorithm_name", "description", "family"),
    *("environment", "task_set", "tasks", "observation_space", "action_space", "model_hash"),
    *("mujoco_version", "provenance", "license", "sources", "metadata_sha256"),
)
_NUMBERS_OF_FILE = ("total_episodes", "total_steps", "dataset_size", "jpeg_encoding")
# What the checksum of the metadata leaves out: itself, and what changes with the file's name.
_UNSIGNED = ("metadata_sha256", "dataset_id", "dataset_size")


@dataclass(frozen=True)
class ArraySpec:
    """Shape (without time), dtype and bounds of one array, as a Gymnasium Box has them."""

    shape: tuple[int, ...]
    dtype: str
    low: float
    high: float

    def __post_init__(self) -> None:
        """Check bounds, dtype and shape; raises DemokitError."""
        if not self.low <= self.high:
            raise DemokitError(f"Space bounds [{self.low}, {self.high}] are not in order.")
        try:
            numeric = np.dtype(self.dtype).kind in "fiub"
        except TypeError:
            numeric = False
        if not numeric or not all(isinstance(n, int) and n >= 0 for n in self.shape):
            raise DemokitError(f"A space of {self.dtype} {self.shape} is no array of numbers.")
        if math.prod(self.shape) > LARGEST_SPACE:
            raise DemokitError(
                f"A space of {self.shape} has more numbers than the largest image: {LARGEST_SPACE}."
            )
        least, greatest = self._limits()
        if not float(least) <= self.low <= self.high <= float(greatest):
            raise DemokitError(
                f"A space of {self.dtype} cannot have the bounds [{self.low}, {self.high}]."
            )

    def _limits(self) -> tuple[float, float]:
        """The least and the greatest number of the dtype."""
        kind = np.dtype(self.dtype).kind
        if kind == "f":
            return -math.inf, math.inf
        if kind == "b":
            return 0, 1
        found = np.iinfo(self.dtype)
        return int(found.min), int(found.max)

    def to_json(self) -> dict[str, Any]:
        """As Minari writes a Box, but bounds of several axes, such as images', are one number."""
        shape = self.shape if len(self.shape) == 1 and self.shape[0] else ()
        least, greatest = self._limits()
        bounds = max(self.low, least), min(self.high, greatest)
        # In full precision, whatever that of the array is.
        dtype = "float64" if np.dtype(self.dtype).kind == "f" else self.dtype
        low, high = (np.full(shape, bound, dtype) for bound in bounds)
        return {
            "type": "Box",
            "dtype": self.dtype,
            "shape": list(self.shape),
            "low": low.tolist(),
            "high": high.tolist(),
        }

    @classmethod
    def from_json(cls, box: Mapping[str, Any]) -> ArraySpec:
        """The inverse of `to_json`."""
        bounds = float(np.min(box["low"])), float(np.max(box["high"]))
        return cls(tuple(box["shape"]), str(box["dtype"]), *bounds)


Space: TypeAlias = ArraySpec | Mapping[str, ArraySpec]


@dataclass(frozen=True, eq=False)
class ActionRange:
    """The actions of a source that stand at -1 and 1 in a dataset: `low` and `high`, (A,) or (1,).

    Raises:
        DemokitError: they are not finite, of other lengths, or a low is not below its high.
    """

    low: FloatArray
    high: FloatArray

    def __post_init__(self) -> None:
        """Check the bounds."""
        low, high = (np.atleast_1d(np.asarray(side, float)) for side in (self.low, self.high))
        lengths = {low.shape, high.shape} - {(1,)}
        fits = len(lengths) < 2 and all(len(shape) == 1 and shape != (0,) for shape in lengths)
        with np.errstate(all="ignore"):
            if not fits or not (low < high).all() or not np.isfinite(high - low).all():
                raise DemokitError(
                    f"An action range from {low.tolist()} to {high.tolist()} is none: a low and "
                    "a high for all components or each, both finite, the low below the high."
                )
        low, high = np.broadcast_arrays(low, high)
        object.__setattr__(self, "low", low)
        object.__setattr__(self, "high", high)

    @property
    def is_unit(self) -> bool:
        """Whether it is [-1, 1], so that actions stand as they were."""
        return bool((self.low == -1).all() and (self.high == 1).all())

    def outside(self, actions: FloatArray) -> Array:
        """Which components of actions (..., A) leave the range, taken in the actions' own type."""
        with np.errstate(over="ignore"):
            low, high = (side.astype(actions.dtype) for side in (self.low, self.high))
        return np.asarray((actions < low) | (actions > high))

    def to_unit(self, actions: FloatArray) -> FloatArray:
        """Actions (..., A) of the source as they stand in the dataset, in the same type."""
        middle, half = self._parts(actions)
        # Division may round up.
        return np.clip((actions - middle) / half, -1, 1).astype(actions.dtype)

    def from_unit(self, actions: FloatArray) -> FloatArray:
        """Actions (..., A) of the dataset as the source had them: what a robot is sent."""
        middle, half = self._parts(actions)
        return (actions * half + middle).astype(actions.dtype)

    def _parts(self, actions: FloatArray) -> tuple[FloatArray, FloatArray]:
        middle, half = (self.low + self.high) / 2, (self.high - self.low) / 2
        return middle.astype(actions.dtype), half.astype(actions.dtype)


ACTION_RANGE = "action range"
NOT_STORED = {
    "state": "the simulator's state was not stored: episodes cannot be restored or re-simulated",
    "model": "the simulation's model was not stored: its hash is empty",
}
"""What is missing of whatever does not run on MuJoCo here."""
_NUMBERS = re.compile(r"\[[^\]]*\]")


@dataclass(frozen=True)
class Provenance:
    """Who recorded a dataset, with what, and when.

    Attributes:
        recorder: which recorder, such as "scripted".
        expert: name of the expert that acted or labelled.
        noise_std: standard deviation of the noise added to its actions; None where the sources
            of a merged dataset differ, or a policy explored by itself.
        seed: the seed of the recording; all episode seeds derive from it. None as `noise_std`.
        only_success: whether failed episodes were dropped, of all sources.
        operator: the person, if given; several, in their order, such as "Ann, Bob".
        created: ISO 8601 time in UTC.
        versions: library -> version.
        missing: what the source of an imported dataset did not hold -> what stands in its place,
            such as "state" or "last observation".
        trained: of an expert that was trained: "sha256" of its file, "env_steps" that its training
            took, "task_set", and by task id "returns" and "success" there. Empty for others.
    """

    recorder: str
    expert: str
    noise_std: float | None
    seed: int | None
    only_success: bool = False
    operator: str | None = None
    created: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    versions: Mapping[str, str] = field(default_factory=lambda: library_versions())
    missing: Mapping[str, str] = field(default_factory=dict)
    trained: Mapping[str, Any] = field(default_factory=dict)

    @property
    def restorable(self) -> bool:
        """Whether every episode holds the simulator's state, so that it can be restored."""
        return "state" not in self.missing

    @property
    def action_range(self) -> ActionRange | None:
        """What the source's actions were mapped from; None where they stand as they were.

        Raises:
            DemokitError: what the file says of it is damaged.
        """
        if ACTION_RANGE not in self.missing:
            return None
        text = self.missing[ACTION_RANGE]
        try:
            found = [np.array(parse_json(each), float) for each in _NUMBERS.findall(text)][:-1]
            low, high = found if len(found) == 2 else (-found[0], found[0])
        except MALFORMED as error:
            raise DemokitError(f"The action range is damaged: '{text}'.") from error
        return ActionRange(low, high)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Provenance:
        """The inverse of `asdict`; raises TypeError, ValueError or KeyError on anything else."""
        noise, seed, operator = values["noise_std"], values["seed"], values.get("operator")
        checked = {
            **values,
            "recorder": str(values["recorder"]),
            "expert": str(values["expert"]),
            "noise_std": None if noise is None else float(noise),
            "seed": None if seed is None else int(seed),
            "only_success": bool(values.get("only_success", False)),
            "operator": None if operator is None else str(operator),
        }
        if "versions" in values:
            checked["versions"] = {str(k): str(v) for k, v in dict(values["versions"]).items()}
        checked["missing"] = {str(k): str(v) for k, v in dict(values.get("missing", {})).items()}
        checked["trained"] = _training(dict(values.get("trained", {})))
        if "created" in values:
            checked["created"] = str(values["created"])
        return cls(**checked)


def _training(values: Mapping[str, Any]) -> dict[str, Any]:
    """See `Provenance.trained`; raises TypeError, ValueError or KeyError on anything else."""
    if not values:
        return {}
    return {**values, "sha256": str(values["sha256"]), **checked_training(values)}


@dataclass(frozen=True)
class SourceFile:
    """A file that episodes of an edited dataset came from.

    Attributes:
        name: its name, without the folder.
        sha256: of the whole file, in hexadecimal.
        episodes: how many episodes came from it; they stand one after another, in the order of
            the sources.
        edit: what was done, such as "merge".
        task_set: its task set.
        provenance: who recorded it.
        sources: the files it was itself made from, and those behind them, each once, in one row,
            the latest first; beyond the 256th only those with another recorder, expert, operator
            or rule of what was kept.
    """

    name: str
    sha256: str
    episodes: int
    edit: str
    task_set: str
    provenance: Provenance
    sources: tuple[SourceFile, ...] = ()

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> SourceFile:
        """The inverse of `asdict`; raises TypeError, ValueError or KeyError on anything else."""
        return cls(
            name=str(values["name"]),
            sha256=str(values["sha256"]),
            episodes=int(values["episodes"]),
            edit=str(values["edit"]),
            task_set=str(values["task_set"]),
            provenance=Provenance.from_json(values["provenance"]),
            sources=tuple(map(cls.from_json, values.get("sources", ()))),
        )


@dataclass(frozen=True)
class DatasetMetadata:
    """Everything a dataset says about itself except its episodes.

    Attributes:
        family: the task family of every episode.
        reward: "dense", "sparse" or another of the family: which reward `rewards` holds.
        horizon: the longest an episode may be, in steps.
        task_set: name of the task set, such as "paper".
        tasks: the tasks asked for; some may have no episode.
        observation_space: one `ArraySpec`, or name -> `ArraySpec` for dict observations.
        action_space: bounds are [-1, 1].
        model_hash: SHA-256 of the model's XML.
        mujoco_version: the MuJoCo that simulated it.
        provenance: who recorded it.
        license: SPDX identifier, or None when nobody stated one.
        description: a sentence for the card.
        sources: the files it was made from, when it was made by merging or another edit.
    """

    family: str
    reward: str
    horizon: int
    task_set: str
    tasks: tuple[Task, ...]
    observation_space: Space
    action_space: ArraySpec
    model_hash: str
    mujoco_version: str
    provenance: Provenance
    license: str | None = None
    description: str = ""
    schema_version: int = SCHEMA_VERSION
    sources: tuple[SourceFile, ...] = ()

    def __post_init__(self) -> None:
        """Check reward, horizon, tasks and spaces; raises DemokitError."""
        if self.reward not in REWARDS:
            raise DemokitError(f"Dataset reward '{self.reward}' is none of {REWARDS}.")
        if self.horizon < 1:
            raise DemokitError(f"Dataset horizon must be at least one step, not {self.horizon}.")
        if not self.tasks:
            raise DemokitError("A dataset needs at least one task.")
        ids = [task.id for task in self.tasks]
        if len(set(ids)) < len(ids):
            raise DemokitError("Two tasks of the dataset have the same id: ids must be unique.")
        strangers = {task.family for task in self.tasks} - {self.family}
        if strangers:
            raise DemokitError(f"Tasks of {sorted(strangers)} in a dataset of '{self.family}'.")
        widths = sorted({len(task.context) for task in self.tasks})
        if len(widths) > 1:
            raise DemokitError(
                f"The tasks of a dataset have contexts of one length, not of {widths} numbers."
            )
        shapes = [space.shape for space in (*self.space_items().values(), self.action_space)]
        listed = sum(math.prod(shape) for shape in shapes if len(shape) == 1)
        if listed > _MOST_LISTED:
            raise DemokitError(
                f"The observed and action vectors have {listed} numbers, and at most "
                f"{_MOST_LISTED} are read."
            )
        if self.license is not None and not self.license.strip():
            raise DemokitError(
                "The licence is empty: name one, such as CC-BY-4.0, or leave it out."
            )

    def to_attributes(self) -> dict[str, Any]:
        """As flat attributes (strings, numbers, booleans): Minari's names, then ours."""
        tasks = [{"id": t.id, "context": t.context, "split": t.split} for t in self.tasks]
        environment = {"family": self.family, "reward": self.reward, "horizon": self.horizon}
        attributes: dict[str, Any] = {
            "data_format": "hdf5",
            "jpeg_encoding": False,
            "minari_version": MINARI_VERSION,
            "observation_space": json.dumps(space_to_json(self.observation_space)),
            "action_space": json.dumps(self.action_space.to_json()),
            "algorithm_name": self.provenance.expert,
            "description": self.description,
            "demokit_schema_version": self.schema_version,
            "family": self.family,
            "environment": json.dumps(environment),
            "task_set": self.task_set,
            "tasks": json.dumps(tasks),
            "model_hash": self.model_hash,
            "mujoco_version": self.mujoco_version,
            "provenance": json.dumps(asdict(self.provenance)),
        }
        if self.license is not None:
            attributes["license"] = self.license
        if self.sources:
            attributes["sources"] = json.dumps([asdict(source) for source in self.sources])
        return attributes

    def require_storable(self) -> None:
        """Raise DemokitError unless a file that says this can be read again, and says the same."""
        attributes = self.to_attributes()
        for name, value in attributes.items():
            if isinstance(value, str) and not is_storable(value):
                raise DemokitError(f"The dataset's {name} is no text that a file can hold.")
        if DatasetMetadata.from_attributes(attributes, "a new dataset") != self:
            raise DemokitError("What the dataset should say about itself would not come back.")

    @classmethod
    def from_attributes(cls, attributes: Mapping[str, Any], where: str) -> DatasetMetadata:
        """The inverse of `to_attributes`; `where` names the file in errors.

        Raises:
            DemokitError: not a demokit dataset, a newer schema, or damaged metadata.
        """
        try:
            check_schema(attributes, where)
            _check_kinds(attributes)
            return cls._parsed(attributes)
        except MALFORMED as error:
            raise DemokitError(
                f"The metadata of {where} is damaged ({error}): take it from a backup."
            ) from error

    @classmethod
    def _parsed(cls, attributes: Mapping[str, Any]) -> DatasetMetadata:
        environment = parse_json(attributes["environment"])
        family = str(environment["family"])
        license = attributes.get("license")
        return cls(
            family=family,
            reward=str(environment["reward"]),
            horizon=int(environment["horizon"]),
            task_set=str(attributes["task_set"]),
            tasks=tuple(
                Task(family, str(t["id"]), tuple(map(float, t["context"])), str(t["split"]))
                for t in parse_json(attributes["tasks"])
            ),
            observation_space=space_from_json(parse_json(attributes["observation_space"])),
            action_space=ArraySpec.from_json(parse_json(attributes["action_space"])),
            model_hash=str(attributes["model_hash"]),
            mujoco_version=str(attributes["mujoco_version"]),
            provenance=Provenance.from_json(parse_json(attributes["provenance"])),
            license=None if license is None else str(license),
            description=str(attributes.get("description", "")),
            schema_version=int(attributes["demokit_schema_version"]),
            sources=tuple(map(SourceFile.from_json, parse_json(attributes.get("sources", "[]")))),
        )

    def differences(self, other: DatasetMetadata) -> dict[str, tuple[Any, Any]]:
        """What a recording that continues this one may not change: name -> (mine, other's)."""
        mine, theirs = _identity(self), _identity(other)
        if self.license and other.license:  # one may be stated later
            mine["licence"], theirs["licence"] = self.license, other.license
        return {key: (mine[key], theirs[key]) for key in mine if mine[key] != theirs[key]}

    @cached_property
    def task_by_id(self) -> Mapping[str, Task]:
        """Id -> task."""
        return {task.id: task for task in self.tasks}

    @property
    def knows_contexts(self) -> bool:
        """Whether the tasks' contexts are theirs, and no stand-ins of an import."""
        return "context" not in self.provenance.missing

    def trained_experts(self) -> dict[str, int]:
        """Hash of every trained expert behind the episodes -> environment steps it took."""
        found: dict[str, int] = {}
        for source in self._all_provenances():
            if trained := source.trained:
                found[str(trained["sha256"])] = int(trained["env_steps"])
        return found

    def expert_of(self, index: int) -> str:
        """The expert behind an episode; "several" where a merge of merges does not say which."""
        for source in self.sources:
            if index < source.episodes:
                return source.provenance.expert
            index -= source.episodes
        return self.provenance.expert

    @property
    def kept(self) -> str:
        """Which recorded episodes are here, by their success, in words."""
        if self.provenance.only_success:
            return "successful episodes only"
        some = any(source.only_success for source in self._all_provenances())
        return "successful episodes only, of some sources" if some else "every episode"

    def _all_provenances(self) -> Iterator[Provenance]:
        """Its own, and those of its sources and theirs."""
        parts: list[DatasetMetadata | SourceFile] = [self]
        while parts:
            part = parts.pop()
            parts += part.sources
            yield part.provenance

    def space_items(self) -> dict[str, ArraySpec]:
        """The observation space as a mapping; a plain array has the name ''."""
        if isinstance(self.observation_space, ArraySpec):
            return {"": self.observation_space}
        return dict(self.observation_space)


def _identity(metadata: DatasetMetadata) -> dict[str, Any]:
    source = metadata.provenance
    return {
        "family": metadata.family,
        "sources": bool(metadata.sources),
        "reward": metadata.reward,
        "horizon": metadata.horizon,
        "task set": metadata.task_set,
        "seed": source.seed,
        "tasks": metadata.tasks,
        "observation space": metadata.space_items(),
        "action space": metadata.action_space,
        "action range": source.missing.get(ACTION_RANGE),
        "contexts of tasks": "stated" if metadata.knows_contexts else "left out",
        "model": metadata.model_hash,
        "recorder": source.recorder,
        "expert": source.expert,
        "noise": source.noise_std,
        "only-success": source.only_success,
    }


def metadata_digest(attributes: Mapping[str, Any]) -> str:
    """SHA-256 of a file's root attributes, in hexadecimal.

    Of JSON with sorted keys and without `metadata_sha256`, `dataset_id` and `dataset_size`.
    """
    signed = {
        name: np.asarray(value).tolist()
        for name, value in attributes.items()
        if name not in _UNSIGNED
    }
    return sha256(json.dumps(signed, sort_keys=True, default=str).encode()).hexdigest()


def check_schema(attributes: Mapping[str, Any], where: str) -> None:
    """Raise DemokitError unless the attributes are those of a dataset this version reads."""
    if "demokit_schema_version" not in attributes:
        raise DemokitError(
            f"{where} is HDF5 but not a demokit dataset, as it lacks 'demokit_schema_version': "
            "`demokit inspect` says what it is, and how it is imported."
        )
    schema = int(attributes["demokit_schema_version"])
    if schema > SCHEMA_VERSION:
        raise DemokitError(
            f"{where} has schema version {schema}, this demokit reads up to {SCHEMA_VERSION}: "
            "upgrade demokit."
        )


def _check_kinds(attributes: Mapping[str, Any]) -> None:
    """Raise TypeError unless what stands in the root attributes is of its kind."""
    for name in _TEXTS + _NUMBERS_OF_FILE:
        value = attributes.get(name, "")
        if name in _TEXTS and not isinstance(value, str):
            raise TypeError(f"'{name}' is no text")
        if np.ndim(value):
            raise TypeError(f"'{name}' is an array")


def space_to_json(space: Space) -> dict[str, Any]:
    """A Box or a Dict of boxes, see `ArraySpec.to_json`; `spell_out` makes it Minari's."""
    if isinstance(space, ArraySpec):
        return space.to_json()
    return {"type": "Dict", "subspaces": {name: box.to_json() for name, box in space.items()}}


def spell_out(space: Mapping[str, Any]) -> dict[str, Any]:
    """A space of `space_to_json` with bounds as nested lists of the full shape: Minari's way.

    Raises:
        DemokitError: it has more numbers than the largest image, or bounds of another shape.
    """
    if (count := _numbers_in(space)) > LARGEST_SPACE:
        raise DemokitError(f"A space of {count} numbers is too large for Minari's metadata.")
    if space["type"] == "Dict":
        boxes = {name: spell_out(box) for name, box in space["subspaces"].items()}
        return {**space, "subspaces": boxes}
    shape = tuple(space["shape"])
    try:
        bounds = {side: np.broadcast_to(space[side], shape).tolist() for side in ("low", "high")}
    except ValueError:
        raise DemokitError(f"A space of {shape} has bounds of another shape.") from None
    return {**space, **bounds}


def _numbers_in(space: Mapping[str, Any]) -> int:
    if space["type"] == "Dict":
        return sum(map(_numbers_in, space["subspaces"].values()))
    return math.prod(space["shape"])


def space_from_json(space: Mapping[str, Any]) -> Space:
    """The inverse of `space_to_json`."""
    if space["type"] == "Dict":
        return {name: ArraySpec.from_json(box) for name, box in space["subspaces"].items()}
    return ArraySpec.from_json(space)


def library_versions() -> dict[str, str]:
    """Versions of the libraries that decide what a recording contains."""
    found = {"demokit": __version__}
    for library in _LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            found[library] = "unknown"
    return found


def default_dataset_id(family: str, stem: str) -> str:
    """The Minari id of a dataset nobody has registered yet, such as demokit/push/door-v0."""
    name = re.sub(r"[^-\w]+", "-", stem).strip("-") or "dataset"
    space = re.sub(r"[^-\w]+", "-", family)
    return f"demokit/{space}/{name}-v0"


def vision_space(family: Family, vision: Vision) -> dict[str, ArraySpec]:
    """The space of observations through images."""
    image = ArraySpec((vision.height, vision.width, 3), "uint8", 0, 255)
    widths = {term.name: term.width for term in family.terms}
    return {
        **dict.fromkeys(vision.image_names().values(), image),
        **{t: ArraySpec((widths[t],), "float32", -np.inf, np.inf) for t in family.vision_terms},
    }


def describe(
    family: Family,
    *,
    reward: str,
    task_set: str,
    tasks: Sequence[Task],
    provenance: Provenance,
    license: str | None = None,
    observation_space: Space | None = None,
    description: str = "",
) -> DatasetMetadata:
    """Metadata of a recording in `family`; observations are its state vector unless given."""
    state = ArraySpec((family.observation_width,), "float32", -np.inf, np.inf)
    if not family.restorable:
        provenance = replace(provenance, missing={**NOT_STORED, **provenance.missing})
    return DatasetMetadata(
        family=family.name,
        reward=reward,
        horizon=family.horizon,
        task_set=task_set,
        tasks=tuple(tasks),
        observation_space=observation_space or state,
        action_space=ArraySpec((len(family.actions),), "float32", -1.0, 1.0),
        model_hash=family.model_hash,
        mujoco_version=version("mujoco") if family.restorable else "unknown",
        provenance=provenance,
        license=license,
        description=description,
    )
