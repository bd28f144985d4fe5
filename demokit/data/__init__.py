"""Datasets: the only rooms that touch HDF5 or Minari. Imported lazily, so that help is quick."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from demokit.data.convert.arrays import from_arrays
    from demokit.data.layout import EpisodeRecord
    from demokit.data.metadata import ArraySpec, DatasetMetadata, Provenance, describe
    from demokit.data.recorder import Recorder
    from demokit.data.store import Dataset, open_dataset
    from demokit.data.writer import DatasetWriter

__all__ = [
    "ArraySpec",
    "Dataset",
    "DatasetMetadata",
    "DatasetWriter",
    "EpisodeRecord",
    "Provenance",
    "Recorder",
    "describe",
    "from_arrays",
    "open_dataset",
]

_HOMES = {
    "ArraySpec": "metadata",
    "DatasetMetadata": "metadata",
    "Provenance": "metadata",
    "describe": "metadata",
    "Dataset": "store",
    "EpisodeRecord": "layout",
    "open_dataset": "store",
    "DatasetWriter": "writer",
    "from_arrays": "convert.arrays",
    "Recorder": "recorder",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
