"""Writing a dataset so that a crash at any moment loses at most the episode in progress.

Each episode becomes durable in the folder NAME.hdf5.partial as soon as it is added; `finish`
assembles NAME.hdf5.tmp and renames it, so that NAME.hdf5 is always complete or absent.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import IO, Self

import h5py

from demokit.data.files import (
    behind_link,
    explain_write,
    open_hdf5,
    rename_durably,
    sync,
    try_lock,
    write_durably,
    written_hdf5,
)
from demokit.data.hdf5 import read_attributes
from demokit.data.labels import TELEOP
from demokit.data.layout import (
    EpisodeRecord,
    copy_episode,
    episode_bytes,
    put_attributes,
    record_of,
    reserve_groups,
)
from demokit.data.metadata import (
    DatasetMetadata,
    Provenance,
    default_dataset_id,
    metadata_digest,
)
from demokit.data.store import (
    STATE_FILE,
    Dataset,
    FinishedFile,
    StagedEpisodes,
    check_fits,
    staged_file,
    staging_folder,
)
from demokit.errors import DemokitError
from demokit.types import Episode

_FIXES = {
    "family": "pass --env {}",
    "reward": "pass --reward {}",
    "task set": "pass --task-set {}",
    "tasks": "pass the same --tasks and --split",
    "observation space": "pass the same --observation, --image-size and --camera",
    "action space": "use the version that recorded it",
    "model": "use the version that recorded it",
    "noise": "pass --noise {}",
    "seed": "pass --seed {}",
    "sources": "record apart and use `demokit merge`",
}

# Differences too long to print.
_OTHER = {
    "sources": "other commands, such as merge",
    "tasks": "other tasks",
    "observation space": "another observation space",
    "action space": "another action space",
    "model": "another model",
}


class DatasetWriter:
    """Adds episodes to a dataset; a context manager that keeps what is saved when it leaves.

    Args:
        path: NAME.hdf5.
        metadata: what the dataset says about itself.
        resume: go on with an unfinished recording, or extend a finished dataset.
        overwrite: replace what is there, at the final rename and not before.

    Raises:
        DemokitError: the output exists, the recording differs from the one to be resumed,
            another process writes it, or the place cannot be written; nothing was touched.
    """

    def __init__(
        self,
        path: str | Path,
        metadata: DatasetMetadata,
        *,
        resume: bool = False,
        overwrite: bool = False,
    ) -> None:
        self.path = behind_link(Path(path))
        _check_target(self.path, resume=resume, overwrite=overwrite)
        self.folder = staging_folder(self.path)
        staged = None if overwrite else _staged(self.path)
        base = self._base(staged, overwrite=overwrite)
        earlier = staged or base
        if earlier is not None:
            _check_same(earlier.metadata, metadata, self.path)
            metadata = _merged(earlier.metadata, metadata)
        self.metadata = metadata
        self._base_file = base
        self._replaces = self.path.exists() and base is None
        self._lock = self._claim(keep=staged is not None)
        self._records = self._saved(staged)

    @property
    def records(self) -> tuple[EpisodeRecord, ...]:
        """The episodes saved so far, those of an earlier recording included."""
        return tuple(self._records)

    def __len__(self) -> int:
        """Number of episodes saved so far."""
        return len(self._records)

    def add(self, episode: Episode) -> int:
        """Save an episode; when this returns it is durable. Returns the number saved so far.

        Raises:
            DemokitError: the episode does not fit the dataset, it cannot be written, or the
                writer is closed.
        """
        self._check_open()
        check_fits(self.metadata, episode, self.path)
        index = len(self._records)
        target = staged_file(self.folder, index)
        with explain_write(target, f"{index} episodes are saved; make room, then use --resume."):
            write_durably(target, episode_bytes(index, episode))
        self._records.append(record_of(index, episode))
        return len(self._records)

    def finish(self) -> Path:
        """Assemble NAME.hdf5 from all saved episodes and remove the folder; returns the path.

        Raises:
            DemokitError: no episodes were saved, the file cannot be written, or the writer is
                closed.
        """
        self._check_open()
        if not self._records:
            raise DemokitError(f"No episode was saved: {self.path} was not written.")
        base = self._base_file
        changed = base is not None and base.metadata != self.metadata
        if len(self._records) > self._first or self._replaces or changed:
            self._publish()
        self._drop_folder()
        return self.path

    @property
    def _first(self) -> int:
        """Index of the first episode that the finished file does not hold."""
        return self._base_file.num_episodes if self._base_file else 0

    def _check_open(self) -> None:
        if self._lock is None:
            raise DemokitError(
                f"The recording to {self.path} is closed: go on with a new DatasetWriter and "
                "resume=True."
            )

    def _publish(self) -> None:
        aside = self.path.with_name(self.path.name + ".tmp")
        with explain_write(aside, "the episodes are saved; make room, then use --resume."):
            self._assemble(aside)
            sync(aside)
            rename_durably(aside, self.path)

    def close(self) -> None:
        """Let go of the recording; an unfinished one stays as it is, if it saved anything."""
        if self._lock is None:
            return
        if len(self._records) == self._first:
            self._drop_folder()
        else:
            self._let_go()

    def _drop_folder(self) -> None:
        # Without its state file the folder counts as empty, whatever a kill leaves in it.
        (self.folder / STATE_FILE).unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)
        self._let_go()

    def _let_go(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _base(self, staged: StagedEpisodes | None, *, overwrite: bool) -> FinishedFile | None:
        """The finished file that this recording extends."""
        if overwrite or (staged is not None and staged.replaces):
            return None
        if self.path.exists():
            return FinishedFile(self.path)
        if staged is not None and staged.first:
            raise DemokitError(
                f"{self.path} is gone, and {self.folder} only continues it: bring the file back, "
                "or pass --overwrite."
            )
        return None

    def _claim(self, *, keep: bool) -> IO[bytes] | None:
        """Lock the staging folder; empty it unless it is to be kept."""
        advice = "choose a folder you can write to with --out."
        with explain_write(self.path, advice):
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = (self.folder / "lock").open("wb")
        if not try_lock(lock):
            lock.close()
            raise DemokitError(f"Another process is recording {self.path}: wait until it ends.")
        with explain_write(self.path, advice):
            if not keep:
                self._start()
        return lock

    def _start(self) -> None:
        for leftover in self.folder.iterdir():
            if leftover.name != "lock":
                leftover.unlink()
        attributes = self.metadata.to_attributes()
        signed = {**attributes, "metadata_sha256": metadata_digest(attributes)}
        state = {"first": self._first, "replaces": self._replaces, "metadata": signed}
        write_durably(self.folder / STATE_FILE, json.dumps(state).encode())

    def _saved(self, staged: StagedEpisodes | None) -> list[EpisodeRecord]:
        base = list(Dataset(self._base_file).episodes) if self._base_file else []
        # A file that grew since the recording began holds what is staged: it was finished, or
        # repaired, and killed before the folder was removed.
        if staged is None or len(base) != staged.first:
            return base
        pending = range(staged.first, staged.num_episodes)
        return base + list(Dataset(staged, pending).episodes)

    def _assemble(self, aside: Path) -> None:
        if self._base_file:
            shutil.copyfile(self.path, aside)
        with written_hdf5(aside, extend=self._base_file is not None) as (file, check):
            put_root_attributes(file, self._root_attributes())
            new = range(self._first, len(self._records))
            reserve_groups(file, new)
            for index in new:
                with open_hdf5(staged_file(self.folder, index)) as staged:
                    copy_episode(staged, file, index)
                check()
            put_size(file, aside)

    def _root_attributes(self) -> dict[str, object]:
        steps = sum(record.length for record in self._records)
        return root_attributes(self.metadata, self.path, len(self._records), steps)


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
    return {**attributes, "dataset_size": 0.0, "metadata_sha256": metadata_digest(attributes)}


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
    file.attrs.modify("dataset_size", round(os.path.getsize(path) / 1e6, 1))


def _check_target(path: Path, *, resume: bool, overwrite: bool) -> None:
    if resume and overwrite:
        raise DemokitError("--resume keeps what is there and --overwrite drops it: choose one.")
    if path.suffix != ".hdf5":
        raise DemokitError(f"The dataset {path} must be named NAME.hdf5.")
    if path.is_dir():
        raise DemokitError(f"{path} is a directory: name a file in it, such as {path}/demos.hdf5.")
    if resume or overwrite:
        return
    if path.exists():
        raise DemokitError(
            f"{path} exists: pass --resume to extend it, --overwrite to replace it, or another "
            "--out."
        )
    staged = _staged(path)
    if staged is not None:
        saved = staged.num_episodes - staged.first
        raise DemokitError(
            f"{path} has an unfinished recording with {saved} saved episodes: pass --resume to "
            "go on, or --overwrite to drop them."
        )


def _staged(path: Path) -> StagedEpisodes | None:
    """The unfinished recording to `path`, if it saved anything."""
    if not (staging_folder(path) / STATE_FILE).exists():
        return None
    staged = StagedEpisodes(path)
    return staged if staged.num_episodes > staged.first else None


def _check_same(earlier: DatasetMetadata, now: DatasetMetadata, path: Path) -> None:
    """Raise DemokitError naming the first difference and its fix."""
    for name, (old, new) in earlier.differences(now).items():
        said = _OTHER.get(name, f"{name} {old}, not {new}")
        if name in ("recorder", "expert"):
            fix = _expert_fix(earlier.provenance, now.provenance)
        elif name == "only-success":
            fix = "pass --only-success" if old else "leave out --only-success"
        else:
            fix = _FIXES.get(name, "record as before").format(old)
        raise DemokitError(f"{path} was recorded with {said}: {fix}, or record to another --out.")


def _expert_fix(earlier: Provenance, now: Provenance) -> str:
    """What to pass so that the same one acts; experts in files have no name to pass."""
    if (earlier.recorder == TELEOP) != (now.recorder == TELEOP):
        return "leave out --device" if now.recorder == TELEOP else "pass --device"
    if earlier.trained:
        return f"pass --expert FILE, the file of {earlier.expert}"
    return f"pass --expert {earlier.expert if earlier.recorder == 'teleop' else earlier.recorder}"


def _merged(earlier: DatasetMetadata, now: DatasetMetadata) -> DatasetMetadata:
    """The earlier metadata, with a licence, operator or description stated only now."""
    source = replace(
        earlier.provenance, operator=now.provenance.operator or earlier.provenance.operator
    )
    return replace(
        earlier,
        provenance=source,
        license=now.license or earlier.license,
        description=now.description or earlier.description,
    )
