"""Where a dataset is: a path, or an id under Minari's local root."""

from __future__ import annotations

import os
import re
from pathlib import Path

from demokit.errors import DemokitError

_ID = re.compile(r"(?:[-\w]+/)*[-\w]+-v\d+")


def local_root() -> Path:
    """Where Minari keeps its datasets."""
    return Path(os.environ.get("MINARI_DATASETS_PATH") or Path.home() / ".minari" / "datasets")


def resolve(path_or_id: str | Path) -> Path:
    """The file that a path or a Minari id means.

    A path that exists, or whose recording is unfinished, wins over an id. A path that does not
    exist is returned as it is: opening it says so.

    Raises:
        DemokitError: an id that is not registered.
    """
    path = Path(path_or_id)
    if path.name.endswith(".hdf5.partial"):
        path = path.with_name(path.name.removesuffix(".partial"))
    if path.exists() or path.with_name(path.name + ".partial").exists() or path.suffix == ".hdf5":
        return path
    if not is_dataset_id(str(path_or_id)):
        return path
    registered = local_root() / str(path_or_id) / "data" / "main_data.hdf5"
    if not registered.exists():
        raise DemokitError(
            f"There is no dataset '{path_or_id}', neither as a path nor under {local_root()}: "
            "see `minari list local`, or register one with `demokit share register`."
        )
    return registered


def is_dataset_id(text: str) -> bool:
    """Whether `text` has the form (namespace/)name-vN."""
    return _ID.fullmatch(text) is not None
