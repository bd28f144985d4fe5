"""A finished dataset: written aside by whoever holds its lock, read back, then renamed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import h5py

from demokit.asked import either, other_output, saying
from demokit.data.files import written_hdf5
from demokit.data.hdf5 import read_attributes
from demokit.data.layout import (
    EpisodeRecord,
    check_size,
    copy_episode,
    put_attributes,
    record_of,
    reserve_groups,
    write_episode,
)
from demokit.data.metadata import DatasetMetadata, default_dataset_id, metadata_digest
from demokit.data.store import (
    STATE_FILE,
    Dataset,
    FinishedFile,
    Source,
    StagedEpisodes,
    check_fits,
    open_dataset,
    staging_folder,
)
from demokit.errors import DemokitError
from demokit.lock import Lock, require_unlocked
from demokit.types import Episode
from demokit.writing import Together, behind_link, replaced

# File systems take 255 bytes, and a recording makes NAME.hdf5.partial.
_LONGEST_NAME = 255 - len(".partial")
_SIZE = "dataset_size"


def open_settled(path_or_id: str | Path) -> Dataset:
    """A dataset to make another from: with episodes, and written by nobody.

    Raises:
        DemokitError: see `open_dataset`; no episodes, or a process that is writing it.
    """
    dataset = open_dataset(path_or_id).require_episodes()
    require_unlocked(dataset.path)
    return dataset


def unfinished(path: Path) -> StagedEpisodes | None:
    """The unfinished recording to `path`, if it saved anything that can be gone on with."""
    if not begun(path):
        return None
    staged = StagedEpisodes(path)
    saved = staged.num_episodes > staged.first and not staged.all_or_none
    return staged if saved else None


def begun(path: Path) -> bool:
    """Whether a recording to `path` has begun and was not finished."""
    return (staging_folder(path) / STATE_FILE).exists()


def drop_staging(path: Path) -> None:
    """Remove the folder of a recording; without its state file it counts as empty."""
    folder = staging_folder(path)
    (folder / STATE_FILE).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def check_no_folder(path: Path) -> None:
    """Raise DemokitError when a folder is where a dataset should go."""
    if path.is_dir():
        raise DemokitError(f"{path} is a directory: name a file in it, such as {path}/demos.hdf5.")


def write_lock(path: Path) -> Lock:
    """The right to write the dataset at `path`; raises DemokitError for a name that cannot be one.

    Whoever writes a dataset takes it first and looks at what is there then.
    """
    if path.suffix != ".hdf5":
        raise DemokitError(f"The dataset {path} must be named NAME.hdf5.")
    if len(os.fsencode(path.name)) > _LONGEST_NAME:
        raise DemokitError(f"The name of {path} is too long: take at most {_LONGEST_NAME} bytes.")
    return Lock(path, other_output())


def check_output(path: Path, *, overwrite: bool) -> None:
    """Raise DemokitError unless a dataset may be written to `path`, whose lock is held."""
    check_no_folder(path)
    if path.exists() and not overwrite:
        raise DemokitError(
            f"{path} exists: {saying('overwrite')} to replace it, or choose another name."
        )
    if unfinished(behind_link(path)):
        raise DemokitError(
            f"{path} has an unfinished recording: finish it with "
            f"{either('`demokit record --resume`', 'resume=True of what recorded it')}, or "
            "take another name."
        )


class NewFile:
    """A finished dataset in the making; see `new_file`."""

    def __init__(
        self, path: Path, file: h5py.File, check: Callable[[], None], about: DatasetMetadata
    ) -> None:
        self._path, self._file, self._check, self.about = path, file, check, about
        self.records: list[EpisodeRecord] = []

    def add(self, episode: Episode) -> None:
        """Write the next episode; raises DemokitError when it does not fit the dataset."""
        index = len(self.records)
        check_fits(self.about, episode, self._path)
        write_episode(self._file, index, episode)
        self.records.append(record_of(index, episode))
        self._check()

    def copy(self, source: Source, records: Iterable[EpisodeRecord]) -> None:
        """Write the next episodes, as they stand in `source` under the same numbers."""
        for record in records:
            with source.group(record.index) as group:
                copy_episode(group, self._file, record.index)
            self.records.append(record)
            self._check()


@contextmanager
def new_file(
    path: Path,
    metadata: DatasetMetadata,
    total: int,
    advice: str,
    *,
    extends: FinishedFile | None = None,
    together: Together | None = None,
) -> Iterator[NewFile]:
    """A finished dataset of `total` episodes, which takes the place of `path` once it is whole.

    Before that its own reader has read it back. The caller holds the lock.

    Args:
        path: NAME.hdf5.
        metadata: what it says about itself.
        total: how many episodes it will hold, those it begins with included.
        advice: what to do when it cannot be written.
        extends: a file of the same metadata to begin with.
        together: it takes its place with others, at the end of that block.

    Raises:
        DemokitError: it cannot be written or read back; `path` is as it was.
    """
    path = behind_link(path)
    known = list(Dataset(extends).episodes) if extends else []

    def about() -> dict[str, object]:
        steps = sum(record.length for record in new.records)
        return root_attributes(metadata, path, total, steps)

    def check(aside: Path) -> None:
        _read_back(aside, new, about(), len(known))

    metadata.require_storable()
    with replaced(path, advice, check, together=together) as aside:
        if extends is not None:
            shutil.copyfile(extends.path, aside)
        with written_hdf5(aside, extend=extends is not None) as (file, check_disk):
            new = NewFile(path, file, check_disk, metadata)
            new.records += known
            check_size(about(), "Metadata")
            put_root_attributes(file, about())
            reserve_groups(file, range(len(known), total))
            yield new
            put_root_attributes(file, about())
            put_size(file, aside)


def _read_back(aside: Path, new: NewFile, about: Mapping[str, object], copied: int) -> None:
    """Raise DemokitError unless a new file says of itself, and holds, what it should."""
    found = FinishedFile(aside)
    episodes = Dataset(found)
    with episodes:
        records = list(episodes.select(range(copied)).episodes)
        records += [record_of(i, episodes.verify(i)) for i in range(copied, len(episodes))]
    wrong = [r.compute_digest() for r in records] != [r.compute_digest() for r in new.records]
    wrong |= any(found.attributes.get(n) != value for n, value in about.items() if n != _SIZE)
    if wrong:
        raise DemokitError(f"What was written to {aside} is not what was to be: this is a fault.")


def root_attributes(
    metadata: DatasetMetadata, path: Path, episodes: int, steps: int
) -> dict[str, object]:
    """The attributes of a finished file, with their checksum."""
    attributes = {
        **metadata.to_attributes(),
        "total_episodes": episodes,
        "total_steps": steps,
        "dataset_id": default_dataset_id(metadata.family, path.stem),
    }
    return {**attributes, _SIZE: 0.0, "metadata_sha256": metadata_digest(attributes)}


def put_root_attributes(file: h5py.File, attributes: Mapping[str, object]) -> None:
    """Write the root attributes: before the episodes, and again where they changed.

    What stands at the front of a file survives a truncation, so they are changed in place.
    """
    stored = read_attributes(file)
    put_attributes(file, {n: v for n, v in attributes.items() if stored.get(n) != v})
    file.flush()


def put_size(file: h5py.File, path: Path) -> None:
    """Write the size of the file, in MB, as Minari does."""
    file.flush()
    put_attributes(file, {_SIZE: round(os.path.getsize(path) / 1e6, 1)})
