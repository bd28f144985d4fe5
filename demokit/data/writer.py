"""Writing a dataset so that a crash at any moment loses at most the episode in progress.

Each episode becomes durable in the folder NAME.hdf5.partial as soon as it is added; `finish`
assembles a file beside it and renames it, so that NAME.hdf5 is always complete or absent.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Self

from demokit.asked import either, flag, other_output, output, saying
from demokit.data.assembly import (
    begun,
    check_no_folder,
    drop_staging,
    new_file,
    unfinished,
    write_lock,
)
from demokit.data.card import refresh_card
from demokit.data.labels import TELEOP
from demokit.data.layout import EpisodeRecord, check_size, episode_bytes, episodes_digest, record_of
from demokit.data.metadata import DatasetMetadata, Provenance, metadata_digest
from demokit.data.store import (
    STATE_FILE,
    Dataset,
    FinishedFile,
    StagedEpisodes,
    check_fits,
    identity,
    staged_file,
    staging_folder,
)
from demokit.errors import DemokitError
from demokit.types import Episode
from demokit.writing import ASIDE, behind_link, explain_write, write_whole

_FIXES = {
    "action space": "use the version that recorded it",
    "model": "use the version that recorded it",
    "sources": "record apart and use `demokit merge`",
}
_OPTIONS = {
    "family": "pass --env {}",
    "reward": "pass --reward {}",
    "task set": "pass --task-set {}",
    "tasks": "pass the same --tasks and --split",
    "observation space": "pass the same --observation, --image-size and --camera",
    "noise": "pass --noise {}",
    "seed": "pass --seed {}",
    "licence": "pass --license {}, or leave it out",
}

# Differences too long to print.
_OTHER = {
    "sources": "other commands, such as merge",
    "tasks": "other tasks",
    "observation space": "another observation space",
    "action space": "another action space",
    "model": "another model",
    "action range": "another range of the actions",
}


class DatasetWriter:
    """Adds episodes to a dataset; a context manager that keeps what is saved when it leaves.

    Args:
        path: NAME.hdf5.
        metadata: what the dataset says about itself.
        resume: go on with an unfinished recording, or extend a finished dataset; another operator
            who adds an episode is named after those before ("not stated, Bob" where nobody was).
        overwrite: replace what is there, at the final rename and not before.
        all_or_none: drop what is saved when it leaves unfinished; there is nothing to resume.
        grows: tasks, horizon and what is missing are not known beforehand: those of what is resumed
            are added to `metadata`, and `restate` adds more.

    Attributes:
        replaces: whether `finish` drops episodes of the file that is there.

    Raises:
        DemokitError: the output exists, the recording differs from the one to be resumed, the
            file that it extends is not there or another one, another process writes it, or the
            place cannot be written; nothing was touched.
    """

    def __init__(
        self,
        path: str | Path,
        metadata: DatasetMetadata,
        *,
        resume: bool = False,
        overwrite: bool = False,
        all_or_none: bool = False,
        grows: bool = False,
    ) -> None:
        self.path = behind_link(Path(path))
        self._lock = write_lock(self.path)
        self.folder = staging_folder(self.path)
        self._open, self._all_or_none, self._grows = True, all_or_none, grows
        self.metadata, self._state = metadata, dict[str, object]()
        try:
            self._begin(metadata, resume=resume, overwrite=overwrite)
        except BaseException:
            with suppress(OSError):
                self.folder.rmdir()  # if it is empty
            self._let_go()
            raise

    @staticmethod
    def check(
        path: str | Path, *, resume: bool = False, overwrite: bool = False
    ) -> DatasetMetadata | None:
        """What a writer that begins now would go on with says about itself; None: with nothing.

        Raises:
            DemokitError: none could begin, whatever it will write.
        """
        target = behind_link(Path(path))
        with write_lock(target):
            _check_free(target, resume=resume, overwrite=overwrite)
            staged = unfinished(target) if resume else None
            if staged is None and resume and target.exists():
                return FinishedFile(target).metadata
            return staged.metadata if staged else None

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
            DemokitError: the episode does not fit the dataset, it cannot be written, the dataset
                was replaced or its folder removed meanwhile, or the writer is closed.
        """
        self._check_open()
        check_fits(self.metadata, episode, self.path)
        self._name_operator()
        index = len(self._records)
        data = episode_bytes(index, episode)
        last = range(max(self._first, index - 1), index)
        self._check_place(last)
        try:
            self._write(staged_file(self.folder, index), data)
        except DemokitError:
            self._check_place(last)  # what was saved may have gone in this moment
            raise
        self._records.append(record_of(index, episode))
        return len(self._records)

    def restate(self, metadata: DatasetMetadata) -> None:
        """Say something else of the dataset from now on, such as more tasks; durable on return.

        Raises:
            DemokitError: it does not fit a file, cannot be written, or the writer is closed.
        """
        self._check_open()
        # Tasks that are known were checked when they came.
        known = self.metadata.task_by_id
        fresh = tuple(task for task in metadata.tasks if known.get(task.id) != task)
        replace(metadata, tasks=fresh or metadata.tasks[:1]).require_storable()
        signed = _signed(metadata)
        check_size(signed, "Metadata")
        self._check_place(range(0))
        state = {**self._state, "metadata": signed}
        self._write(self.folder / STATE_FILE, json.dumps(state))
        self._state = state
        self.metadata = metadata

    def _name_operator(self) -> None:
        """Say who goes on, once there is something of theirs."""
        source = self.metadata.provenance
        if source.operator != self._operator:
            named = replace(source, operator=self._operator)
            self.restate(replace(self.metadata, provenance=named))

    def finish(self) -> Path:
        """Assemble NAME.hdf5 from all saved episodes and remove the folder; returns the path.

        A card that stands beside it says then what the dataset is now.

        Raises:
            DemokitError: no episodes were saved, the file or its card cannot be written, or the
                writer is closed.
        """
        self._check_open()
        if not self._records:
            raise DemokitError(f"No episode was saved: {self.path} was not written.")
        if len(self._records) > self._first or self.replaces or self._restates:
            self._check_place(range(self._first, len(self._records)))
            self._publish()
        self._discard()
        refresh_card(self.path)
        return self.path

    def _discard(self) -> None:
        """Drop what is saved beside the dataset, and close."""
        drop_staging(self.path)
        self._let_go()

    def close(self) -> None:
        """Let go of the recording; an unfinished one stays as it is, if it saved anything."""
        if self._open and (self._all_or_none or len(self._records) == self._first):
            self._discard()
        self._let_go()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _begin(self, metadata: DatasetMetadata, *, resume: bool, overwrite: bool) -> None:
        """Look at what is there, and make the folder; raises DemokitError."""
        _check_free(self.path, resume=resume, overwrite=overwrite)
        staged = None if overwrite else unfinished(self.path)
        base = self._base(staged, overwrite=overwrite)
        earlier, operator = staged or base, metadata.provenance.operator
        if earlier is not None:
            was, now = earlier.metadata, metadata
            if self._grows:
                was, now = _grown(was, metadata), _grown(metadata, was)
            _check_same(was, now, self.path)
            metadata = _merged(was, now)
        metadata.require_storable()
        check_size(metadata.to_attributes(), "Metadata")
        self.metadata = metadata
        self._operator = _operators(metadata.provenance.operator, operator)
        self._base_file = base
        self._there = base.identity if base else identity(self.path)
        self.replaces = self._there is not None and base is None
        self._records = list(Dataset(base).episodes) if base else []
        pending = _pending(staged, self._records) if staged else []
        self._records += pending
        if staged is None or not pending:
            with explain_write(self.path, other_output()):
                self._start()
            return
        self._state = staged.state
        for aside in self.folder.glob(f"*{ASIDE}"):  # of a writer that was killed
            aside.unlink(missing_ok=True)
        if staged.metadata != metadata:
            self.restate(metadata)

    @property
    def _first(self) -> int:
        """Index of the first episode that the finished file does not hold."""
        return self._base_file.num_episodes if self._base_file else 0

    @property
    def _restates(self) -> bool:
        """Whether the finished file says something else about itself than this recording."""
        return self._base_file is not None and self._base_file.metadata != self.metadata

    def _write(self, path: Path, content: bytes | str) -> None:
        """Put a file durably into the folder, where nobody else writes."""
        write_whole(path, content, self._saved_so_far(), parents=False, tidy=False)

    def _saved_so_far(self) -> str:
        if self._all_or_none:
            return other_output()
        return f"{len(self)} episodes are saved; mend that, then go on with {flag('resume')}."

    def _check_open(self) -> None:
        if not self._open:
            raise DemokitError(
                f"The recording to {self.path} is closed: go on with a new DatasetWriter and "
                "resume=True."
            )

    def _check_place(self, staged: range) -> None:
        """Raise DemokitError when somebody else removed what is staged, or replaced the dataset."""
        needed = [staged_file(self.folder, index) for index in staged] + [self.folder / STATE_FILE]
        if not all(map(os.path.exists, needed)):
            raise DemokitError(
                f"{self.folder} was removed during the recording, with the episodes saved in it: "
                f"nothing was written to {self.path}; record again."
            )
        if identity(self.path) != self._there:
            raise DemokitError(
                f"{self.path} was replaced during the recording, by another program: nothing was "
                f"written to it. Bring back what was there, then go on with {flag('resume')}: "
                f"{self.folder} keeps what was recorded."
            )

    def _publish(self) -> None:
        # What stands at the front of a file survives a truncation, so a file that says something
        # else about itself is written anew.
        base, extends = self._base_file, self._base_file is not None and not self._restates
        with new_file(
            self.path,
            self.metadata,
            len(self._records),
            self._saved_so_far(),
            extends=base if extends else None,
        ) as new:
            if base is not None and not extends:
                with base.keep_open():
                    new.copy(base, self._records[: self._first])
            new.copy(StagedEpisodes(self.path), self._records[self._first :])

    def _let_go(self) -> None:
        self._open = False
        self._lock.release()

    def _base(self, staged: StagedEpisodes | None, *, overwrite: bool) -> FinishedFile | None:
        """The finished file that this recording extends."""
        if overwrite or (staged is not None and staged.replaces):
            return None
        if self.path.exists():
            return FinishedFile(self.path)
        if staged is not None and staged.first:
            raise DemokitError(
                f"{self.path} is gone, and {self.folder} only continues it: bring the file back, "
                f"or {saying('overwrite')}."
            )
        return None

    def _start(self) -> None:
        """Make the folder, empty but for what it says about itself."""
        self.folder.mkdir(exist_ok=True)
        for leftover in self.folder.iterdir():
            leftover.unlink()
        self._state = {
            "first": self._first,
            "replaces": self.replaces,
            "all_or_none": self._all_or_none,
            "extends": episodes_digest(self._records[: self._first]),
            "metadata": _signed(self.metadata),
        }
        write_whole(self.folder / STATE_FILE, json.dumps(self._state), other_output())


def _signed(metadata: DatasetMetadata) -> dict[str, object]:
    """As the state of a recording keeps it, with its checksum."""
    attributes = metadata.to_attributes()
    return {**attributes, "metadata_sha256": metadata_digest(attributes)}


def _check_free(path: Path, *, resume: bool, overwrite: bool) -> None:
    if resume and overwrite:
        raise DemokitError(
            f"{flag('resume')} keeps what is there and {flag('overwrite')} drops it: choose one."
        )
    check_no_folder(path)
    if resume:
        _check_stays(path)
    if resume or overwrite:
        return
    if path.exists():
        raise DemokitError(
            f"{path} exists: {saying('resume')} to extend it, {flag('overwrite')} to replace it, "
            f"or {other_output()}"
        )
    staged = unfinished(path)
    if staged is not None:
        saved = staged.num_episodes - staged.first
        raise DemokitError(
            f"{path} has an unfinished recording with {saved} saved episodes: "
            f"{saying('resume')} to go on, or {flag('overwrite')} to drop them."
        )


def _check_stays(path: Path) -> None:
    """Raise DemokitError where a recording that was to replace the file was killed at its start.

    It saved nothing that could be gone on with, and nobody asked to extend what it would replace.
    """
    if path.exists() and begun(path) and unfinished(path) is None:
        staged = StagedEpisodes(path)
        if staged.replaces and not staged.all_or_none:
            raise DemokitError(
                f"{path} was to be replaced by a recording that ended before its first episode: "
                f"begin it again with {flag('overwrite')}, or remove {staged.folder} and extend "
                "what is there."
            )


def _pending(staged: StagedEpisodes, there: Sequence[EpisodeRecord]) -> list[EpisodeRecord]:
    """The staged episodes that go on after those in the finished file; none if it holds them.

    Raises:
        DemokitError: it is not the file that was there when the recording began.
    """
    own = list(Dataset(staged, range(staged.first, staged.num_episodes)).episodes)
    before, since = there[: staged.first], there[staged.first :]
    same = len(before) == staged.first and staged.extends in ("", episodes_digest(before))
    saved, grown = ({record.digest for record in part} for part in (own, since))
    # One that grew was finished, or repaired, by a process that was killed before it removed the
    # folder.
    if not same or not (grown <= saved or saved <= grown):
        raise DemokitError(
            f"{staged.path} is not the file that {staged.folder} goes on with: bring that one "
            f"back, record to another {output()}, or drop the episodes saved there with "
            f"{flag('overwrite')}."
        )
    return [] if since else own


def _check_same(earlier: DatasetMetadata, now: DatasetMetadata, path: Path) -> None:
    """Raise DemokitError naming the first difference and its fix."""
    for name, (old, new) in earlier.differences(now).items():
        said = _OTHER.get(name, f"{name} {old}, not {new}")
        otherwise = _FIXES.get(name, "record as before")
        fix = either(_typed_fix(name, old, earlier, now), "") or otherwise
        raise DemokitError(f"{path} was recorded with {said}: {fix}, or {other_output()}")


def _typed_fix(name: str, old: object, earlier: DatasetMetadata, now: DatasetMetadata) -> str:
    """What to pass on the command line so that nothing differs, where an option says it."""
    if name in ("recorder", "expert"):
        return _expert_fix(earlier.provenance, now.provenance)
    if name == "only-success":
        return "pass --only-success" if old else "leave out --only-success"
    return _OPTIONS.get(name, "").format(old)


def _expert_fix(earlier: Provenance, now: Provenance) -> str:
    """What to pass so that the same one acts; experts in files have no name to pass."""
    if (earlier.recorder == TELEOP) != (now.recorder == TELEOP):
        return "leave out --device" if now.recorder == TELEOP else "pass --device"
    if earlier.trained:
        return f"pass --expert FILE, the file of {earlier.expert}"
    return f"pass --expert {earlier.expert if earlier.recorder == 'teleop' else earlier.recorder}"


def _grown(metadata: DatasetMetadata, other: DatasetMetadata) -> DatasetMetadata:
    """The same with the tasks of both by their ids, its own first, and the longer horizon."""
    tasks = {task.id: task for task in (*other.tasks, *metadata.tasks)}
    longest = max(metadata.horizon, other.horizon)
    return replace(metadata, tasks=tuple(tasks[name] for name in sorted(tasks)), horizon=longest)


def _merged(earlier: DatasetMetadata, now: DatasetMetadata) -> DatasetMetadata:
    """The earlier metadata, with what is missing or was stated only now."""
    missing = {**now.provenance.missing, **earlier.provenance.missing}
    source = replace(earlier.provenance, missing=missing)
    return replace(
        earlier,
        provenance=source,
        license=earlier.license or now.license,
        description=now.description or earlier.description,
    )


def _operators(earlier: str | None, now: str | None) -> str | None:
    """Who recorded, in the order in which they did; whoever says nothing goes on as before."""
    before = earlier or "not stated"
    if not now or f", {now}, " in f", {before}, ":
        return earlier
    return f"{before}, {now}"
