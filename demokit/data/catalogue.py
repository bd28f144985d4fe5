"""Which datasets there are: in a folder, and registered under Minari's root."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demokit.data.metadata import DatasetMetadata
from demokit.data.paths import local_root
from demokit.data.store import STATE_FILE, Dataset, open_dataset
from demokit.data.summary import size_bytes
from demokit.errors import DemokitError

_REGISTERED_FILE = Path("data") / "main_data.hdf5"
_MOST_READ = 1000  # episodes, one by one


@dataclass(frozen=True)
class Brief:
    """What a listing says of a dataset; None is what would take too long to count."""

    metadata: DatasetMetadata
    unfinished: bool
    episodes: int
    size_bytes: int
    steps: int | None
    success_rate: float | None

    @classmethod
    def of(cls, dataset: Dataset) -> Brief:
        """Of many episodes, what the metadata says; raises DemokitError when it is damaged."""
        steps, success = dataset.stated_steps, None
        if len(dataset) <= _MOST_READ:
            with dataset:
                records = dataset.episodes
            steps = sum(record.length for record in records)
            success = sum(record.success for record in records) / max(len(records), 1)
        size = size_bytes(dataset)
        return cls(dataset.metadata, dataset.unfinished, len(dataset), size, steps, success)


@dataclass(frozen=True)
class Entry:
    """A dataset that was found.

    Attributes:
        name: its path, or its Minari id.
        summary: what it contains; None when it cannot be read.
        problem: why not, in one sentence.
    """

    name: str
    summary: Brief | None
    problem: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain values for `--json`."""
        if self.summary is None:
            return {"name": self.name, "problem": self.problem}
        about = self.summary
        chosen = ("family", "reward", "task_set", "license")
        said = {key: getattr(about.metadata, key) for key in chosen}
        counted = {key: value for key, value in vars(about).items() if key != "metadata"}
        return {"name": self.name, "problem": self.problem, "summary": {**said, **counted}}


def find_datasets(folder: Path) -> Iterator[Entry]:
    """The datasets in a folder and below it, unfinished recordings included, by name.

    Raises:
        DemokitError: no such folder.
    """
    if not folder.is_dir():
        raise DemokitError(f"There is no folder {folder}: name one that holds datasets.")
    finished = {path for path in folder.rglob("*.hdf5") if _is_dataset(path)}
    staged = {
        path.parent.with_name(path.parent.name.removesuffix(".partial"))
        for path in folder.rglob(f"*.hdf5.partial/{STATE_FILE}")
    }
    for path in sorted(finished | staged):
        yield _entry(str(path), path)


def registered_datasets() -> Iterator[Entry]:
    """The datasets of ours under Minari's root, by id."""
    for path in sorted(local_root().rglob(str(_REGISTERED_FILE))):
        dataset_id = str(path.parent.parent.relative_to(local_root()))
        entry = _entry(dataset_id, path)
        # Others' datasets are Minari's to list.
        if "not a demokit dataset" not in entry.problem:
            yield entry


def _is_dataset(path: Path) -> bool:
    return path.is_file() and not any(part.endswith(".hdf5.partial") for part in path.parts)


def _entry(name: str, path: Path) -> Entry:
    try:
        return Entry(name, Brief.of(open_dataset(path)))
    except DemokitError as error:
        return Entry(name, None, str(error))
