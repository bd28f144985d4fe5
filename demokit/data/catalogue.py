"""Which datasets there are: in a folder, and registered under Minari's root."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from demokit.data.paths import local_root
from demokit.data.store import STATE_FILE, open_dataset
from demokit.data.summary import Summary, summarize
from demokit.errors import DemokitError

_REGISTERED_FILE = Path("data") / "main_data.hdf5"


@dataclass(frozen=True)
class Entry:
    """A dataset that was found.

    Attributes:
        name: its path, or its Minari id.
        summary: what it contains; None when it cannot be read.
        problem: why not, in one sentence.
    """

    name: str
    summary: Summary | None
    problem: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain values for `--json`."""
        if self.summary is None:
            return {"name": self.name, "problem": self.problem}
        about = self.summary.to_json()
        chosen = ("family", "reward", "task_set", "episodes", "steps", "success_rate", "license")
        more = {"unfinished": self.summary.unfinished, "size_bytes": self.summary.size_bytes}
        return {**asdict(self), "summary": {**{key: about[key] for key in chosen}, **more}}


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
        return Entry(name, summarize(open_dataset(path), ranges=False))
    except DemokitError as error:
        return Entry(name, None, str(error))
