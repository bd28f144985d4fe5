"""Whether a dataset can be trusted: the logic behind `demokit validate`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from demokit.data.changes import SUCCESS_MARKED
from demokit.data.files import explain_damage
from demokit.data.hdf5 import check_below, read_attributes
from demokit.data.labels import misshapen
from demokit.data.layout import EpisodeRecord, digest, episode_name, read_episode, read_record
from demokit.data.metadata import metadata_digest
from demokit.data.paths import resolve
from demokit.data.replay import BATCH, Replayer, comparable, compare
from demokit.data.store import FinishedFile, StagedEpisodes, check_fits, open_source
from demokit.errors import DemokitError
from demokit.types import Array, Episode

SAMPLED_ROWS = 8
_RETURN_TOLERANCE = 1e-9


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        severity: an "error" makes the dataset unfit; a "warning" is worth knowing.
        check: which check found it, such as "checksum".
        message: one sentence.
        episode: the episode it is in, None when it is in the whole dataset.
    """

    severity: Literal["error", "warning"]
    check: str
    message: str
    episode: int | None = None


@dataclass(frozen=True)
class Report:
    """What `validate` found.

    Attributes:
        path: the dataset.
        episodes: how many were looked at.
        sound: the indices of those without an error of their own.
        findings: errors first, then by episode.
        replayed: whether the actions were simulated again.
        restored: whether states were restored, all or a sample.
    """

    path: str
    episodes: int
    sound: tuple[int, ...]
    findings: tuple[Finding, ...]
    replayed: bool
    restored: bool

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that make the dataset unfit."""
        return tuple(finding for finding in self.findings if finding.severity == "error")

    @property
    def ok(self) -> bool:
        """Whether there is no error."""
        return not self.errors

    def to_json(self) -> dict[str, Any]:
        """Plain values for `--json`."""
        return {**asdict(self), "ok": self.ok}


def validate(path_or_id: str | Path, *, replay: bool = False) -> Report:
    """Check a dataset, finished or not; one episode at a time is in memory.

    With `replay` so are the states and actions of as many as are simulated together.

    Args:
        path_or_id: the dataset.
        replay: also restore every state instead of a sample, and simulate the recorded actions
            again; both must agree bit for bit.

    Raises:
        DemokitError: it cannot be opened at all, or its metadata cannot be read.
    """
    return validate_source(open_source(resolve(path_or_id)), replay=replay)


def validate_source(source: FinishedFile | StagedEpisodes, *, replay: bool = False) -> Report:
    """See `validate`."""
    checks = _Checks(source, replay=replay)
    with source.keep_open() if isinstance(source, FinishedFile) else nullcontext():
        present = source.present()
        checks.run(present)
    order = sorted(
        checks.findings, key=lambda f: (f.severity, -1 if f.episode is None else f.episode)
    )
    return Report(
        str(source.path),
        len(present),
        tuple(checks.sound),
        tuple(order),
        replayed=replay and checks.restores,
        restored=checks.restores,
    )


class _Checks:
    """One pass over a dataset that collects findings."""

    def __init__(self, source: FinishedFile | StagedEpisodes, *, replay: bool) -> None:
        self.findings: list[Finding] = []
        self.sound: list[int] = []
        self._source = source
        self._about = source.metadata
        self._replay = replay
        self._signed = self._lost_signature = False
        self._replayer = self._make_replayer()
        self._seen: dict[str, int] = {}
        self._tasks: dict[str, set[tuple[tuple[float, ...], str]]] = defaultdict(set)
        self._ranges: dict[str, tuple[Array, Array]] = {}
        self._steps = 0
        self._waiting: list[tuple[int, Episode]] = []

    @property
    def restores(self) -> bool:
        """Whether states can be restored."""
        return self._replayer is not None

    def run(self, present: Sequence[int]) -> None:
        """Make all checks."""
        self._metadata()
        for index in present:
            self._episode(index)
        self._replay_waiting()
        self._splits()
        self._variance()
        self._counts(present)

    def _error(self, check: str, message: str, episode: int | None = None) -> None:
        self.findings.append(Finding("error", check, message, episode))

    def _warn(self, check: str, message: str, episode: int | None = None) -> None:
        self.findings.append(Finding("warning", check, message, episode))

    @contextmanager
    def _reported(self, check: str, episode: int | None) -> Iterator[None]:
        try:
            with explain_damage(self._source.path):
                yield
        except DemokitError as error:
            self._error(check, str(error), episode)

    def _make_replayer(self) -> Replayer | None:
        if not self._about.provenance.restorable:
            self._warn("restore", "It holds no simulator states: it cannot be replayed.")
            return None
        try:
            replayer = Replayer(self._about, num_sims=BATCH if self._replay else SAMPLED_ROWS)
        except DemokitError as error:
            self._warn("restore", f"States were not restored: {error}")
            return None
        if not replayer.same_model:
            self._warn(
                "restore",
                "States were not restored: it was recorded with another model of "
                f"{self._about.family}, or another MuJoCo, than is installed.",
            )
            return None
        return replayer

    def _metadata(self) -> None:
        if self._about.license is None:
            self._warn("licence", "No licence is stated: nobody may share it.")
        for where, attributes in _signed_attributes(self._source):
            stored = attributes.get("metadata_sha256")
            self._signed = stored is not None
            if self._signed and stored != metadata_digest(attributes):
                self._error("checksum", f"The metadata of {where} does not match its checksum.")

    def _episode(self, index: int) -> None:
        found = len(self.findings)
        with self._reported("structure", index):
            episode, record = self._read(index)
            check_fits(self._about, episode, self._source.path)
            self._checksums(index, episode, record)
            self._consistency(index, episode, record)
            self._duplicates(index, record)
            self._restore(index, episode)
            self._collect(episode)
        if not any(finding.severity == "error" for finding in self.findings[found:]):
            self.sound.append(index)

    def _read(self, index: int) -> tuple[Episode, EpisodeRecord]:
        with self._source.group(index) as group:
            record = read_record(group, index, self._about.family)
            check_below(group)
            if int(read_attributes(group)["id"]) != index:
                self._error("structure", f"Its id is not {index}.", index)
            return read_episode(group, record), record

    def _checksums(self, index: int, episode: Episode, record: EpisodeRecord) -> None:
        if not (record.digest or record.record_digest or self._signed):
            self._warn("checksum", "It has no checksums: changes cannot be found.", index)
        elif record.digest != digest(episode):
            what = "do not match their checksum" if record.digest else "have lost their checksum"
            self._error("checksum", f"Its arrays {what}.", index)
        # Files of the first demokit have neither this checksum nor that of the metadata.
        self._lost_signature |= bool(record.record_digest) and not self._signed
        expected = record.compute_digest() if record.record_digest or self._signed else ""
        if record.record_digest != expected:
            self._error("checksum", "Its attributes do not match their checksum.", index)

    def _consistency(self, index: int, episode: Episode, record: EpisodeRecord) -> None:
        """Attributes, metadata and the last privileged row say the same."""
        if len(episode) > self._about.horizon:
            self._error("length", f"{len(episode)} steps exceed the horizon.", index)
        total = episode.episode_return
        if abs(total - record.episode_return) > _RETURN_TOLERANCE * max(1.0, abs(total)):
            self._error("return", "The stored return is not the sum of the rewards.", index)
        success = episode.privileged.get("success")
        marked = record.options.get(SUCCESS_MARKED)  # a person's word, not the simulator's
        if success is not None and not marked and bool(success[-1]) != record.success:
            self._error("success", "The last state says otherwise about success.", index)
        context = episode.privileged.get("context")
        if context is not None and not (context == np.array(record.task.context)).all():
            self._error("context", "The privileged context is not that of the task.", index)
        wrong = misshapen(episode.actions, episode.privileged)
        if wrong:
            self._error("labels", f"The shape of {wrong} does not fit the actions.", index)
        if not (episode.terminations[-1] or episode.truncations[-1]):
            self._warn("length", "The last step ends neither by termination nor truncation.", index)

    def _duplicates(self, index: int, record: EpisodeRecord) -> None:
        earlier = self._seen.setdefault(record.digest, index) if record.digest else index
        if earlier != index:
            self._warn("duplicate", f"Its arrays are those of episode {earlier}.", index)

    def _restore(self, index: int, episode: Episode) -> None:
        if self._replayer is None or "state" not in episode.privileged:
            return
        broken = self._replayer.family.time_breaks(episode.privileged["state"][:, 0])
        if broken.any():
            row = int(broken.argmax()) + 1
            why = "is not one step after the row before: the simulation was reset there"
            self._error("time", f"The time of row {row} {why}.", index)
            return
        rows = None if self._replay else _sample(len(episode) + 1)
        off = compare(episode, self._replayer.from_states(episode, rows))
        if off.first_step is not None:
            self._error(
                "restore",
                f"Restoring row {off.first_step} gives another {off.array} (by up to "
                f"{off.largest:.3g}).",
                index,
            )
        elif self._replay:
            self._waiting.append((index, comparable(episode)))
            if len(self._waiting) == BATCH:
                self._replay_waiting()

    def _replay_waiting(self) -> None:
        if self._replayer is None or not self._waiting:
            return
        replays = self._replayer.from_actions([episode for _, episode in self._waiting])
        for (index, episode), replay in zip(self._waiting, replays, strict=True):
            off = compare(episode, replay)
            if off.first_step is not None:
                message = f"Simulating its actions again diverges at row {off.first_step}"
                what = f", {off.array} by up to {off.largest:.3g}."
                what = f": {off.fault}" if off.fault else what
                self._error("replay", message + what, index)
                self.sound = [sound for sound in self.sound if sound != index]
        self._waiting.clear()

    def _collect(self, episode: Episode) -> None:
        self._steps += len(episode)
        self._tasks[episode.task.id].add((episode.task.context, episode.task.split))
        vectors = {"actions": episode.actions}
        for name, values in episode.named_observations().items():
            if values.dtype.kind == "f":
                vectors[f"observations {name}".strip()] = values
        for name, values in vectors.items():
            low, high = values.min(axis=0), values.max(axis=0)
            before = self._ranges.get(name, (low, high))
            self._ranges[name] = np.minimum(before[0], low), np.maximum(before[1], high)

    def _splits(self) -> None:
        where: dict[tuple[float, ...], set[str]] = defaultdict(set)
        for task in self._about.tasks if self._about.knows_contexts else ():
            where[task.context].add(task.split)
        for context, splits in where.items():
            if len(splits) > 1:
                names = " and ".join(sorted(splits))
                self._error("leakage", f"The task with context {context} is in {names}.")
        missing = [task.id for task in self._about.tasks if task.id not in self._tasks]
        if missing:
            self._warn("counts", f"{len(missing)} tasks have no episode, such as {missing[0]}.")

    def _variance(self) -> None:
        for name, (low, high) in self._ranges.items():
            constant = np.flatnonzero((low == high).reshape(-1))
            if len(constant):
                shown = ", ".join(map(str, constant[:10]))
                self._warn("variance", f"{name} never change in components {shown}.")

    def _counts(self, present: Sequence[int]) -> None:
        if self._lost_signature:
            self._error("checksum", "The metadata lacks its checksum, which the episodes have.")
        if not present:
            self._error("counts", "It has no episodes.")
        count = self._source.num_episodes
        gap = next((i for i, index in enumerate(present) if i != index), None)
        if gap is not None:
            self._error("counts", f"Episode {gap} is missing, and later ones are there.")
        if count != len(present):
            self._error("counts", f"The metadata says {count} episodes, there are {len(present)}.")
        if isinstance(self._source, FinishedFile):
            self._steps_and_strangers(self._source, present)

    def _steps_and_strangers(self, source: FinishedFile, present: Sequence[int]) -> None:
        with self._reported("counts", None):
            total = int(source.attributes.get("total_steps", -1))
            if len(self.sound) == len(present) and total != self._steps:
                self._error("counts", f"The metadata says {total} steps, there are {self._steps}.")
        for name in sorted(source.names() - {episode_name(index) for index in present}):
            self._error("structure", f"'{name}' does not belong into the file.")


def _signed_attributes(
    source: FinishedFile | StagedEpisodes,
) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(source, FinishedFile):
        yield str(source.path), source.attributes
    else:
        yield str(source.folder), source.state["metadata"]


def _sample(rows: int) -> list[int]:
    """At most SAMPLED_ROWS rows, the first and the last among them."""
    return sorted(set(np.linspace(0, rows - 1, SAMPLED_ROWS).astype(int).tolist()))
