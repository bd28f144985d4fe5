"""What a dataset contains, in numbers: the logic behind `demokit inspect` and the card."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from demokit.data.labels import LabelSteps, count_labels
from demokit.data.layout import EpisodeRecord, episodes_digest
from demokit.data.metadata import DatasetMetadata, space_to_json
from demokit.data.store import Dataset, staging_folder
from demokit.types import Array, Task, as_rows

_MOST_LISTED = 1000  # components of a vector


@dataclass(frozen=True)
class TaskSummary:
    """The episodes of one task: how many, share solved in [0, 1], mean undiscounted return."""

    task: Task
    episodes: int
    success_rate: float
    mean_return: float


@dataclass(frozen=True)
class ArrayRange:
    """Range of one array over all episodes; `low` and `high` have one number per component."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    @cached_property
    def constant(self) -> frozenset[int]:
        """Components that never change: a policy learns nothing from them."""
        pairs = enumerate(zip(self.low, self.high, strict=True))
        return frozenset(i for i, (low, high) in pairs if low == high)

    @property
    def is_listed(self) -> bool:
        """Whether its components are shown one by one, and not in one line."""
        return len(self.shape) < 2 and len(self.low) <= _MOST_LISTED


@dataclass(frozen=True)
class Summary:
    """A dataset in numbers. Lengths are in steps, the size in bytes, rates in [0, 1].

    `lengths` and `returns` are (least, mean, greatest); they and the rates are 0 without
    episodes. `checksum` is the SHA-256 of the episodes' checksums: equal for equal episodes,
    whatever file they are in; "" when an episode has none. `labels` says what the steps teach.
    """

    path: str
    unfinished: bool
    metadata: DatasetMetadata
    episodes: int
    steps: int
    size_bytes: int
    success_rate: float
    lengths: tuple[float, float, float]
    returns: tuple[float, float, float]
    tasks: tuple[TaskSummary, ...]
    ranges: tuple[ArrayRange, ...]
    labels: LabelSteps
    checksum: str

    def splits(self) -> dict[str, tuple[int, int]]:
        """Split -> (tasks with episodes, episodes)."""
        found: dict[str, tuple[int, int]] = {}
        for row in self.tasks:
            tasks, episodes = found.get(row.task.split, (0, 0))
            found[row.task.split] = (tasks + 1, episodes + row.episodes)
        return found

    def to_json(self) -> dict[str, Any]:
        """Plain values for `--json`."""
        about = self.metadata
        return {
            "path": self.path,
            "unfinished": self.unfinished,
            "schema_version": about.schema_version,
            "family": about.family,
            "reward": about.reward,
            "horizon": about.horizon,
            "task_set": about.task_set,
            "license": about.license,
            "model_hash": about.model_hash,
            "mujoco_version": about.mujoco_version,
            "provenance": asdict(about.provenance),
            "episodes": self.episodes,
            "steps": self.steps,
            "size_bytes": self.size_bytes,
            "success_rate": self.success_rate,
            "lengths": dict(zip(("min", "mean", "max"), self.lengths, strict=True)),
            "returns": dict(zip(("min", "mean", "max"), self.returns, strict=True)),
            "checksum": self.checksum,
            "observation_space": space_to_json(about.observation_space),
            "action_space": about.action_space.to_json(),
            "labels": self.labels._asdict(),
            "tasks": [asdict(row) for row in self.tasks],
            "ranges": [asdict(row) for row in self.ranges],
        }


def summarize(dataset: Dataset, *, ranges: bool = True) -> Summary:
    """The summary of a dataset.

    Args:
        dataset: any dataset; without `ranges` only attributes are read.
        ranges: also read actions, observations (not images) and who acted, an episode at a time.

    Raises:
        DemokitError: the file is damaged.
    """
    with dataset:
        records = dataset.episodes
        return Summary(
            path=str(dataset.path),
            unfinished=dataset.unfinished,
            metadata=dataset.metadata,
            episodes=len(records),
            steps=sum(record.length for record in records),
            size_bytes=size_bytes(dataset),
            success_rate=_mean([record.success for record in records]),
            lengths=_spread([record.length for record in records]),
            returns=_spread([record.episode_return for record in records]),
            tasks=summarize_tasks(records),
            ranges=_ranges(dataset) if ranges else (),
            labels=count_labels(dataset) if ranges else LabelSteps(),
            checksum=episodes_digest(records),
        )


def action_labels(about: DatasetMetadata) -> tuple[str, ...]:
    """What each component of the actions means; its number, where no family here says it."""
    from demokit.envs import family_names, make_family

    width = about.action_space.shape[0]
    known = make_family(about.family).actions if about.family in family_names() else ()
    return known if len(known) == width else tuple(f"component {i}" for i in range(width))


def summarize_tasks(records: Sequence[EpisodeRecord]) -> tuple[TaskSummary, ...]:
    """One row per task that has episodes, in order of task ids."""
    groups: dict[str, list[EpisodeRecord]] = {}
    for record in records:
        groups.setdefault(record.task.id, []).append(record)
    return tuple(
        TaskSummary(
            task=group[0].task,
            episodes=len(group),
            success_rate=_mean([record.success for record in group]),
            mean_return=_mean([record.episode_return for record in group]),
        )
        for _, group in sorted(groups.items())
    )


def _ranges(dataset: Dataset) -> tuple[ArrayRange, ...]:
    images = {
        f"observations/{name}".rstrip("/")
        for name, spec in dataset.metadata.space_items().items()
        if len(spec.shape) >= 2 and (spec.dtype == "uint8" or prod(spec.shape) > _MOST_LISTED)
    }
    observed = (f"observations/{name}".rstrip("/") for name in dataset.metadata.space_items())
    names = ["actions", *(name for name in observed if name not in images)]
    found: dict[str, ArrayRange] = {}
    for index, record in enumerate(dataset.episodes):
        arrays = dataset.window(index, 0, record.length + 1, names)
        for name, values in arrays.items():
            found[name] = _widened(found.get(name), array_range(name, values))
    return tuple(found.values())


def array_range(name: str, values: Array) -> ArrayRange:
    """Range of an array (T, ...) over time; T is at least 1."""
    rows = as_rows(values)
    low, high = rows.min(axis=0).astype(float), rows.max(axis=0).astype(float)
    return ArrayRange(name, str(values.dtype), values.shape[1:], tuple(low), tuple(high))


def _widened(earlier: ArrayRange | None, now: ArrayRange) -> ArrayRange:
    if earlier is None:
        return now
    low = tuple(np.minimum(earlier.low, now.low).tolist())
    high = tuple(np.maximum(earlier.high, now.high).tolist())
    return ArrayRange(now.name, now.dtype, now.shape, low, high)


def size_bytes(dataset: Dataset) -> int:
    """Size of a dataset's file, or of the files of its unfinished recording."""
    if dataset.unfinished:
        return sum(map(_size, staging_folder(dataset.path).iterdir()))
    return os.path.getsize(dataset.path)


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else 0.0


def _spread(values: Sequence[float]) -> tuple[float, float, float]:
    if not values:
        return (0.0, 0.0, 0.0)
    return float(min(values)), float(np.mean(values)), float(max(values))


def _size(path: Path) -> int:
    """Size of a file in bytes, 0 when a recording that runs has renamed it."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
