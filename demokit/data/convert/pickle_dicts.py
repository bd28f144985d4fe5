"""Pickles of dicts of arrays: one per episode, or a list or dict of such dicts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from demokit.data.convert import Imported
from demokit.data.convert.arrays import ACTIONS, TAKES, files_of, import_arrays
from demokit.data.convert.foreign import About, plain_name
from demokit.data.convert.inventory import Inventory, Part, dict_things
from demokit.data.convert.pickles import read_pickle
from demokit.data.convert.stated import Stated
from demokit.errors import DemokitError

__all__ = ["TAKES", "read"]


def read(source: Path, env: str | None, stated: Stated) -> Imported:
    """A pickle, or a folder of them, as a dataset; nothing in them is run, see `read_pickle`.

    Raises:
        DemokitError: pickles of anything else, or no sound episode.
    """
    files = files_of(source, ".pkl", ".pickle")
    parts = partial(_parts, files, stated.action_columns or (ACTIONS,))
    inventory = Inventory(Part(source.name, {}), ())
    about = About("pickle_dicts", env or plain_name(source.stem))
    return import_arrays(inventory, parts, about, stated)


def _parts(files: list[Path], marks: tuple[str, ...]) -> Iterator[Part]:
    """The episodes of the files, one file in memory at a time."""
    for path in files:
        for name, episode in episodes_in(path, read_pickle(path), marks).items():
            yield Part(name, dict_things(episode) if isinstance(episode, dict) else {})


def episodes_in(path: Path, content: Any, marks: tuple[str, ...]) -> Mapping[str, Any]:
    """Name -> episode, of what a pickle holds; a dict with actions (`marks`) is one."""
    if isinstance(content, list | tuple):
        return {f"{path.name} episode {index}": each for index, each in enumerate(content)}
    if not isinstance(content, dict):
        raise DemokitError(f"{path} holds {type(content).__name__}, no dicts of arrays.")
    if any(mark in dict_things(content) for mark in marks):
        return {path.name: content}
    return {f"{path.name} {key!r}": each for key, each in content.items()}
