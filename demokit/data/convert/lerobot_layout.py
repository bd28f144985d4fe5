"""How LeRobot 3.0 lays its folders out, and where demokit's exports keep what has none there."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from demokit.data.convert.own import KEY
from demokit.data.files import probe
from demokit.data.metadata import ArraySpec
from demokit.errors import not_installed
from demokit.reading import check_regular
from demokit.types import Array

VERSION = "v3.0"
CHUNK = "chunk-000/file-000.parquet"
CHUNKS_SIZE = 1000
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
INFO = "meta/info.json"
LAST = f"{KEY}/last/"  # columns of meta/episodes with the last row of an array, as bytes
OBSERVATION, PRIVILEGED = "observation.", "privileged."
INDICES = ("timestamp", "frame_index", "episode_index", "index", "task_index")
STEPS = {
    "next.reward": "rewards",
    "next.terminated": "terminations",
    "next.truncated": "truncations",
}


def library(name: str) -> Any:
    """A module that only this format needs; raises DemokitError when it is not installed."""
    try:
        return import_module(name)
    except ImportError as error:
        raise not_installed("LeRobot's format needs", name.split(".")[0]) from error


def arrow_library() -> tuple[Any, Any]:
    """The module pyarrow and its Parquet part; raises DemokitError."""
    return library("pyarrow"), library("pyarrow.parquet")


def open_parquet(path: Path) -> Any:
    """A Parquet file that can be read: its library trusts the sizes that pages claim.

    Raises:
        DemokitError: no regular file, or reading it all takes far more memory than it holds.
        OSError, ArrowException: it is damaged.
    """
    check_regular(path)
    probe(path)
    _, parquet = arrow_library()
    return parquet.ParquetFile(path)


def column_of(name: str, dtype: str, shape: tuple[int, ...]) -> str:
    """The column of an observation; `shape` is that of one row."""
    return f"{OBSERVATION}images.{name}" if is_picture(dtype, shape) else f"{OBSERVATION}{name}"


def column_of_space(name: str, space: ArraySpec) -> str:
    """The column of an observation of this space."""
    return column_of(name, space.dtype, space.shape)


def are_pictures(rows: Array) -> bool:
    """Whether rows are pictures, which LeRobot keeps as such."""
    return is_picture(str(rows.dtype), rows.shape[1:])


def is_picture(dtype: str, shape: tuple[int, ...]) -> bool:
    """Whether an array of this kind is a picture: (height, width, 3), uint8."""
    return np.dtype(dtype) == np.uint8 and len(shape) == 3 and shape[-1] == 3
