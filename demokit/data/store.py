"""Reading a dataset: opening costs its metadata, an episode is read when it is asked for."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, Self, overload

import h5py

from demokit.data.files import explain_damage, open_file, open_hdf5
from demokit.data.hdf5 import names, read_attributes
from demokit.data.layout import (
    EpisodeRecord,
    episode_arrays,
    episode_group,
    episode_name,
    holds_array,
    read_episode,
    read_record,
    read_window,
)
from demokit.data.layout import digest as episode_digest
from demokit.data.metadata import ArraySpec, DatasetMetadata
from demokit.data.paths import resolve
from demokit.errors import DemokitError
from demokit.reading import read_json
from demokit.types import Array, Episode, Task

STATE_FILE = "recording.json"
_EPISODE = re.compile(r"episode_(0|[1-9]\d{0,17})")


def staging_folder(path: Path) -> Path:
    """Where the episodes of an unfinished recording to `path` lie."""
    return path.with_name(path.name + ".partial")


def identity(path: Path) -> tuple[int, ...] | None:
    """What tells the file at `path` from one that takes its place; None when nothing is there."""
    try:
        return _identity(path.stat())
    except (FileNotFoundError, NotADirectoryError):
        return None


def _identity(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def staged_file(folder: Path, index: int) -> Path:
    """The file of one staged episode."""
    return folder / f"{episode_name(index)}.hdf5"


class Source(Protocol):
    """Where episodes come from: a finished file or a staging folder."""

    path: Path
    metadata: DatasetMetadata
    num_episodes: int

    def group(self, index: int) -> AbstractContextManager[h5py.Group]:
        """The HDF5 group of an episode, open while the block lasts."""
        ...

    def present(self) -> list[int]:
        """The episodes that are there, ascending, whatever the metadata says."""
        ...


class FinishedFile:
    """A complete NAME.hdf5."""

    def __init__(self, path: Path) -> None:
        with open_hdf5(path) as file:
            attributes = read_attributes(file)
            self.identity = _identity_of(file)
        self.path = path
        self.metadata = DatasetMetadata.from_attributes(attributes, str(path))
        self.attributes = attributes
        with explain_damage(path):
            self.num_episodes = int(attributes.get("total_episodes", 0))
            if not 0 <= self.num_episodes <= sys.maxsize:  # what a length can be
                raise ValueError(f"it says {self.num_episodes} episodes")
        self._kept: h5py.File | None = None

    @contextmanager
    def keep_open(self) -> Iterator[None]:
        """Open the file once for the whole block instead of once per access."""
        if self._kept is not None:
            yield
            return
        with self._opened() as file:
            self._kept = file
            try:
                yield
            finally:
                self._kept = None

    @contextmanager
    def group(self, index: int) -> Iterator[h5py.Group]:
        """See `Source`."""
        if self._kept is not None:
            with explain_damage(self.path):
                yield episode_group(self._kept, index)
        else:
            with self._opened() as file, explain_damage(self.path):
                yield episode_group(file, index)

    @contextmanager
    def _opened(self) -> Iterator[h5py.File]:
        """The file, if it is still the one whose metadata was read."""
        with open_file(self.path) as file:
            if _identity_of(file) != self.identity:
                raise DemokitError(
                    f"{self.path} was replaced while it was read: run the command again."
                )
            yield file

    def names(self) -> set[str]:
        """All names at the top of the file."""
        with self.keep_open(), explain_damage(self.path):
            return set(names(self._kept) if self._kept else ())

    def present(self) -> list[int]:
        """See `Source`."""
        return _indices(self.names())


class StagedEpisodes:
    """The saved episodes of an unfinished recording; `first` is the index of the first one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.folder = staging_folder(path)
        self.state = _read_state(self.folder)
        self.metadata = DatasetMetadata.from_attributes(
            self.state["metadata"], str(self.folder / STATE_FILE)
        )
        with explain_damage(self.folder / STATE_FILE):
            self.first = int(self.state["first"])
            self.replaces = bool(self.state["replaces"])
            self.extends = str(self.state.get("extends", ""))
            self.all_or_none = bool(self.state.get("all_or_none", False))
        self.num_episodes = self.first
        while staged_file(self.folder, self.num_episodes).exists():
            self.num_episodes += 1

    @contextmanager
    def group(self, index: int) -> Iterator[h5py.Group]:
        """See `Source`."""
        with open_hdf5(staged_file(self.folder, index)) as file:
            yield episode_group(file, index)

    def present(self) -> list[int]:
        """See `Source`."""
        return _indices(path.stem for path in self.folder.glob("episode_*.hdf5"))


def _identity_of(file: h5py.File) -> tuple[int, ...]:
    return _identity(os.fstat(file.id.get_vfd_handle()))


def _indices(names: Iterable[str]) -> list[int]:
    found = (_EPISODE.fullmatch(name) for name in names)
    return sorted(int(match[1]) for match in found if match)


def _read_state(folder: Path) -> dict[str, Any]:
    with explain_damage(folder):
        state: dict[str, Any] = dict(read_json(folder / STATE_FILE))
        dict(state["metadata"])
    return state


def open_dataset(path_or_id: str | Path) -> Dataset:
    """A dataset by path or Minari id; reads the metadata and nothing else.

    When only an unfinished recording exists there, its saved episodes are read and
    `Dataset.unfinished` is true.

    Raises:
        DemokitError: nothing there, not a demokit dataset, truncated, locked or too new.
    """
    return Dataset(open_source(resolve(path_or_id)))


def open_source(path: Path) -> FinishedFile | StagedEpisodes:
    """What lies at `path`; see `open_dataset`."""
    if not path.exists() and (staging_folder(path) / STATE_FILE).exists():
        staged = StagedEpisodes(path)
        if staged.all_or_none:
            raise DemokitError(
                f"{path} is not there yet: what makes it is under way, or was stopped and leaves "
                "no part of it; make it again."
            )
        if staged.first:
            raise DemokitError(f"{path} is gone, and {staged.folder} only continues it.")
        return staged
    return FinishedFile(path)


class Dataset:
    """Episodes read lazily; a context manager that keeps the file open while it lasts.

    Blocks may stand within each other; the last one closes the file. Outside of them every access
    opens it briefly.
    """

    def __init__(self, source: Source, indices: Sequence[int] | None = None) -> None:
        self._source = source
        self._indices = range(source.num_episodes) if indices is None else tuple(indices)
        self._stack, self._entries = ExitStack(), 0

    @property
    def path(self) -> Path:
        """Path of the file, or of the file to be when the recording is unfinished."""
        return self._source.path

    @property
    def metadata(self) -> DatasetMetadata:
        """What the dataset says about itself."""
        return self._source.metadata

    @property
    def unfinished(self) -> bool:
        """Whether these are the saved episodes of a recording that was never finished."""
        return isinstance(self._source, StagedEpisodes)

    @property
    def total_steps(self) -> int:
        """Steps of all episodes together."""
        return sum(record.length for record in self.episodes)

    @property
    def stated_steps(self) -> int | None:
        """Steps of the whole file as its metadata says; None of an unfinished recording."""
        if not isinstance(self._source, FinishedFile):
            return None
        with explain_damage(self.path):
            return int(self._source.attributes["total_steps"])

    @cached_property
    def episodes(self) -> tuple[EpisodeRecord, ...]:
        """The table of episodes, from attributes alone."""
        if isinstance(self._source, FinishedFile):
            with self._source.keep_open():
                return tuple(self._record(index) for index in self._indices)
        return tuple(self._record(index) for index in self._indices)

    def __len__(self) -> int:
        """Number of episodes."""
        return len(self._indices)

    def __iter__(self) -> Iterator[Episode]:
        """Episodes one after another; one at a time is in memory."""
        return (self[i] for i in range(len(self)))

    @overload
    def __getitem__(self, index: int) -> Episode: ...
    @overload
    def __getitem__(self, index: slice) -> Dataset: ...
    def __getitem__(self, index: int | slice) -> Episode | Dataset:
        """An episode, checked; or for a slice a dataset of those episodes, read lazily.

        Raises:
            DemokitError: no such episode, or it is damaged.
        """
        if isinstance(index, slice):
            return self.select(range(len(self))[index])
        return self._read(self._position(index))[0]

    def select(self, indices: Collection[int]) -> Dataset:
        """A dataset of the chosen episodes, in that order, read lazily."""
        return Dataset(self._source, [self._position(index) for index in indices])

    def window(
        self, index: int, start: int, stop: int, names: Collection[str] | None = None
    ) -> dict[str, Array]:
        """Rows start:stop of an episode's arrays, reading only those rows.

        Args:
            index: the episode.
            start: first row.
            stop: row after the last one.
            names: such as "actions", "observations" (or "observations/image" in dict
                observations), "privileged/state"; None reads all.

        Raises:
            DemokitError: no such episode or array.
        """
        with self._source.group(self._position(index)) as group:
            rows = read_window(group, start, stop, names)
        _check_specs(self.metadata, rows, self.path)
        return rows

    def holds(self, index: int, name: str) -> bool:
        """Whether an episode has an array of that name, as `window` takes it; reads none."""
        with self._source.group(self._position(index)) as group:
            return holds_array(group, name)

    def verify(self, index: int) -> Episode:
        """The episode; raises DemokitError when it is not as it was written."""
        episode, record = self._read(self._position(index))
        for stored, now in (
            (record.digest, episode_digest(episode)),
            (record.record_digest, record.compute_digest()),
        ):
            # Other writers, and the first demokit, leave checksums out.
            if stored not in ("", now):
                raise DemokitError(
                    f"Episode {record.index} of {self.path} was changed after it was recorded: its "
                    "checksum does not match."
                )
        return episode

    def verified(self) -> Iterator[Episode]:
        """All episodes, one at a time; raises DemokitError at the first that was changed."""
        with self:
            for index in range(len(self)):
                yield self.verify(index)

    def require_episodes(self) -> Self:
        """The dataset itself; raises DemokitError when it has no episode."""
        if not len(self):
            raise DemokitError(f"{self.path} has no episodes: record some first.")
        return self

    def close(self) -> None:
        """Close the file that a `with` block keeps open."""
        self._stack.close()

    def __enter__(self) -> Self:
        if not self._entries and isinstance(self._source, FinishedFile):
            self._stack.enter_context(self._source.keep_open())
        self._entries += 1
        return self

    def __exit__(self, *_: object) -> None:
        self._entries -= 1
        if not self._entries:
            self.close()

    def __repr__(self) -> str:
        state = ", unfinished" if self.unfinished else ""
        return f"Dataset({str(self.path)!r}, {len(self)} episodes of {self.metadata.family}{state})"

    def _position(self, index: int) -> int:
        if not -len(self) <= index < len(self):
            raise DemokitError(
                f"{self.path} has no episode {index}: it has {len(self)}, counted from 0."
            )
        return self._indices[index]

    def _read(self, position: int) -> tuple[Episode, EpisodeRecord]:
        with self._source.group(position) as group:
            record = read_record(group, position, self.metadata.family)
            episode = read_episode(group, record)
        check_fits(self.metadata, episode, self.path)
        return episode, record

    def _record(self, position: int) -> EpisodeRecord:
        with self._source.group(position) as group:
            return read_record(group, position, self.metadata.family)


def check_fits(metadata: DatasetMetadata, episode: Episode, path: Path) -> None:
    """Raise DemokitError unless an episode has a task and the arrays of its dataset."""
    if metadata.task_by_id.get(episode.task.id) != episode.task:
        raise DemokitError(_not_a_task(metadata, episode.task, path))
    specs = _specs(metadata)
    arrays = dict(episode_arrays(episode))
    given = {name for name in arrays if name.startswith("observations")}
    if given | {"actions"} != set(specs):
        raise DemokitError(f"Episode has {sorted(given)}, {path} needs {sorted(specs)}.")
    if metadata.provenance.restorable and "state" not in episode.privileged:
        raise DemokitError("Episode lacks privileged 'state': it could not be restored.")
    _check_specs(metadata, arrays, path)


def _not_a_task(metadata: DatasetMetadata, task: Task, path: Path) -> str:
    known = metadata.task_by_id.get(task.id)
    if known is None:
        return f"Task '{task.id}' is not one of the tasks of {path}."
    what = "context" if known.context != task.context else "split or family"
    return f"Task '{task.id}' has another {what} than the task of that id in {path}."


def _specs(metadata: DatasetMetadata) -> dict[str, ArraySpec]:
    """What the arrays of observations and actions must be."""
    spaces = metadata.space_items().items()
    named = {f"observations/{name}".rstrip("/"): spec for name, spec in spaces}
    return {**named, "actions": metadata.action_space}


def _check_specs(metadata: DatasetMetadata, arrays: Mapping[str, Array], path: Path) -> None:
    for name, spec in _specs(metadata).items():
        if name not in arrays:
            continue
        found = arrays[name].shape[1:], str(arrays[name].dtype)
        if found != (spec.shape, spec.dtype):
            raise DemokitError(
                f"Episode {name}: {found[1]} {found[0]} per step, {path} needs "
                f"{spec.dtype} {spec.shape}."
            )
