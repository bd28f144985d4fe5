"""What other formats carry for us unread: a dataset's metadata and an episode's record as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from demokit.data.convert.foreign import Trajectory
from demokit.data.convert.inventory import Inventory, Part
from demokit.data.layout import EpisodeRecord
from demokit.data.metadata import DatasetMetadata
from demokit.errors import DemokitError
from demokit.reading import MALFORMED, parse_object
from demokit.types import Array, Episode, Task

KEY = "demokit"
PLAIN_NAME = "state"  # what a plain observation vector is called where observations need names


def metadata_json(metadata: DatasetMetadata) -> str:
    """All of a dataset's metadata."""
    return json.dumps(metadata.to_attributes())


def metadata_from_json(text: str, where: str) -> DatasetMetadata:
    """The inverse of `metadata_json`; raises DemokitError naming `where`."""
    return DatasetMetadata.from_attributes(_loads(text, where), where)


def record_json(record: EpisodeRecord) -> str:
    """What is known of an episode besides its arrays."""
    task = {"id": record.task.id, "context": record.task.context, "split": record.task.split}
    about = {
        "task": task,
        "seed": record.seed,
        "success": record.success,
        "recorder": record.recorder,
        "options": dict(record.options),
    }
    return json.dumps(about, default=lambda value: np.asarray(value).tolist())


@dataclass(frozen=True, eq=False)
class Arrays:
    """An episode's arrays, observations by name: (T+1, ...), (T, A), (T,), and privileged."""

    observations: Mapping[str, Array]
    actions: Array
    rewards: Array
    terminations: Array
    truncations: Array
    privileged: Mapping[str, Array]


def episode_from_json(text: str, arrays: Arrays, metadata: DatasetMetadata, where: str) -> Episode:
    """An episode of ours that came back from another format; raises DemokitError."""
    about = _loads(text, where)
    observations: Array | Mapping[str, Array] = arrays.observations
    if not isinstance(metadata.observation_space, Mapping):
        observations = next(iter(arrays.observations.values()))
    try:
        task = about["task"]
        return Episode(
            task=Task(metadata.family, task["id"], tuple(task["context"]), task["split"]),
            observations=observations,
            actions=arrays.actions,
            rewards=arrays.rewards,
            terminations=arrays.terminations,
            truncations=arrays.truncations,
            privileged=arrays.privileged,
            seed=int(about["seed"]),
            success=bool(about["success"]),
            recorder=str(about["recorder"]),
            options=about["options"],
        )
    except MALFORMED as error:
        raise DemokitError(f"What demokit kept in {where} is damaged ({error}).") from error


@dataclass(frozen=True, eq=False)
class OwnEpisodes:
    """The episodes of an export of ours, read as often as asked; one that is not whole stops it."""

    inventory: Inventory
    parts: Callable[[], Iterator[Part]]
    read: Callable[[Part], Episode]

    def __iter__(self) -> Iterator[Episode]:
        self.inventory.begin()
        for part in self.parts():
            try:
                episode = self.read(part)
            except DemokitError as problem:
                text = str(problem)
                raise DemokitError(f"{part.name} of demokit's export is damaged: {text}") from None
            yield episode
            self.inventory.keep(part)


def restored(found: Trajectory, part: Part, place: str, family: str) -> Trajectory:
    """What `record_json` kept at a place of a part whose source no longer says that it is ours."""
    if place not in part:
        return found
    about = _loads(part[place], part.name)
    try:
        task = about["task"]
        return replace(
            found,
            task=str(task["id"]).removeprefix(f"{family}/"),
            context=tuple(map(float, task["context"])),
            split=str(task["split"]),
            seed=int(about["seed"]),
            success=bool(about["success"]),
            options=dict(about["options"]),
            numbered=False,
        )
    except MALFORMED as error:
        raise DemokitError(f"what demokit kept in it is damaged ({error})") from error


def named_observations(episode: Episode) -> Mapping[str, Array]:
    """The observations with a name each."""
    return {name or PLAIN_NAME: rows for name, rows in episode.named_observations().items()}


def success_after(episode: Episode) -> Array:
    """Success after each action (T,); where it was not recorded, at the end alone."""
    after = episode.privileged.get("success")
    if after is not None and after.shape == (len(episode) + 1,):
        return after[1:].astype(np.bool_)
    solved = np.zeros(len(episode), np.bool_)
    solved[-1] = episode.success
    return solved


def _loads(text: str, where: str) -> dict[str, Any]:
    try:
        return parse_object(text)
    except ValueError as error:
        raise DemokitError(f"What demokit kept in {where} is damaged ({error}).") from error
