"""Saving what can be saved of a damaged dataset: the logic behind `demokit validate --repair`."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from demokit.data.assembly import check_output, drop_staging, unfinished, write_lock
from demokit.data.edit import Part, put_datasets
from demokit.data.files import SIGNATURE, check_is_file
from demokit.data.paths import resolve
from demokit.data.store import (
    Dataset,
    FinishedFile,
    StagedEpisodes,
    open_source,
    staging_folder,
)
from demokit.data.validation import Report, validate_source
from demokit.errors import DemokitError
from demokit.lock import require_unlocked
from demokit.writing import explain_write

# Where the superblock says how long the file is: version -> offset, 8 bytes, little-endian.
_LENGTH_AT = {0: 40, 1: 44, 2: 28, 3: 28}
# Metadata that was tampered with may claim any number of episodes.
_MOST_NAMED = 100_000


@dataclass(frozen=True)
class Repaired:
    """What a repair did.

    Attributes:
        path: the dataset that is sound now.
        kept: how many episodes it holds.
        dropped: index of a lost episode -> why, in one sentence.
        written: whether anything had to be written.
    """

    path: Path
    kept: int
    dropped: dict[int, str]
    written: bool

    def to_json(self) -> dict[str, Any]:
        """Plain values for `--json`."""
        return {**asdict(self), "path": str(self.path)}


def repair(
    path_or_id: str | Path, *, out: str | Path | None = None, replay: bool = False
) -> Repaired:
    """Keep every episode that verifies; a sound dataset is left as it is.

    An unfinished recording becomes a finished dataset. The original stays until the new file
    takes its name.

    Args:
        path_or_id: the dataset, finished, unfinished or truncated.
        out: write here, and leave the original alone; None replaces it.
        replay: also drop episodes whose actions do not lead to their states.

    Raises:
        DemokitError: another process writes it, its metadata cannot be read, no episode verifies,
            or it cannot be written.
    """
    path = resolve(path_or_id)
    target = path if out is None else Path(out)
    require_unlocked(path)
    with write_lock(target), _rescued(path) as source:
        if out is not None:
            check_output(target, overwrite=False)
        report = validate_source(source, replay=replay)
        whole = isinstance(source, FinishedFile) and source.path == path
        if report.ok and whole and out is None:
            return Repaired(path, len(report.sound), {}, written=False)
        if not report.sound:
            raise DemokitError(f"No episode of {path} verifies: nothing was written.")
        kept = Dataset(source, report.sound)
        put_datasets([Part(target, source.metadata, kept.verified(), len(kept))])
        if isinstance(source, StagedEpisodes) and out is None:
            drop_staging(path)
    return Repaired(target, len(report.sound), _dropped(source, report), written=True)


@contextmanager
def _rescued(path: Path) -> Iterator[FinishedFile | StagedEpisodes]:
    """The dataset, or a copy of a truncated file that has its full length again."""
    if path.exists() and unfinished(path):
        raise DemokitError(
            f"{path} has an unfinished recording: finish it with `demokit record --resume`, or "
            f"remove {staging_folder(path)}."
        )
    try:
        source = open_source(path)
    except DemokitError:
        length = _length(path) if path.exists() else None
        if length is None:
            raise
        with explain_write(path, "it is as it was."), tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / path.name
            shutil.copyfile(path, copy)
            with copy.open("r+b") as file:
                file.truncate(length)
            yield _opened(copy, path)
    else:
        yield source


def _opened(copy: Path, path: Path) -> FinishedFile:
    try:
        return FinishedFile(copy)
    except DemokitError as error:
        raise DemokitError(
            f"{path} is truncated before its metadata: copy it again from its source."
        ) from error


def _length(path: Path) -> int | None:
    """The length that a truncated HDF5 file should have; None when it is something else."""
    check_is_file(path)
    with path.open("rb") as file:
        head = file.read(64)
    if not head.startswith(SIGNATURE) or len(head) < 64 or head[8] not in _LENGTH_AT:
        return None
    start = _LENGTH_AT[head[8]]
    length = int.from_bytes(head[start : start + 8], "little")
    size = path.stat().st_size
    return length if size < length <= 64 * size else None


def _dropped(source: FinishedFile | StagedEpisodes, report: Report) -> dict[int, str]:
    """Why each lost episode was lost, as far as its number is known."""
    reasons: dict[int, str] = {}
    for finding in report.errors:
        if finding.episode is not None and finding.episode not in report.sound:
            reasons.setdefault(finding.episode, finding.message)
    expected = min(source.num_episodes, len(report.sound) + len(reasons) + _MOST_NAMED)
    for index in range(expected):
        if index not in report.sound:
            reasons.setdefault(index, "It is not in the file.")
    return dict(sorted(reasons.items()))
