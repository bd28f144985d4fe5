"""What files of plain arrays hold, by names and shapes: how `convert --from` would read them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from demokit.data.convert.arrays import ACTIONS, KEYS, OBSERVATIONS
from demokit.data.convert.csv import read_head
from demokit.data.convert.inventory import dict_things, listed
from demokit.data.convert.npz import NAMED, SIDE_BY_SIDE, shapes_of
from demokit.data.convert.pickle_dicts import episodes_in
from demokit.data.convert.pickles import read_pickle
from demokit.errors import DemokitError

_MOST_SHOWN = 40  # letters of a value


class Held(NamedTuple):
    """What a file holds.

    Attributes:
        episodes: how many, in words.
        arrays: name -> type and shape, of one episode; of a table its columns.
        names: what the arrays are called that its reader looks for.
        label: of the arrays.
    """

    episodes: str
    arrays: Mapping[str, str]
    names: Sequence[str]
    label: str = "arrays of an episode"

    @property
    def contents(self) -> dict[str, str]:
        """Label -> what it holds."""
        every = [f"{name} ({what})" if what else name for name, what in self.arrays.items()]
        return {"episodes": self.episodes, self.label: listed(every) or "none"}

    @property
    def options(self) -> str:
        """What `convert` must be told of it: which arrays are observations and actions."""
        needed = {OBSERVATIONS: "observation", ACTIONS: "action"}
        missing = [option for name, option in needed.items() if name not in self.names]
        return "".join(f" --{option}-columns NAMES" for option in missing)


def in_npz(path: Path) -> Held:
    """An archive of NumPy's; only headers are read. Raises DemokitError."""
    shapes = shapes_of(path)
    arrays = {name: f"{dtype} {_shape(shape)}" for name, (dtype, shape) in shapes.items()}
    if ACTIONS in shapes:
        _, shape = shapes[ACTIONS]
        if len(shape) != SIDE_BY_SIDE:
            return Held("1", arrays, _groups(arrays))
        rows = {name: f"{dtype} {_shape(shape[1:])}" for name, (dtype, shape) in shapes.items()}
        return Held(f"{shape[0]}, side by side", rows, _groups(rows))
    groups: dict[str, dict[str, str]] = {}
    for name, what in arrays.items():
        group, within, inside = name.partition("/")
        groups.setdefault(group if within else "", {})[inside or name] = what
    first = next(iter(groups.values()), {})
    return Held(f"{len(groups)}, of arrays called {NAMED}" if len(groups) > 1 else "1", first,
                _groups(first))  # fmt: skip


def in_table(path: Path) -> Held:
    """A table; its reader is told every column. Raises DemokitError."""
    columns, rows = read_head(path)
    episodes = f"{rows} rows; one episode, or one for each value of an --episode-column"
    return Held(episodes, dict.fromkeys(columns, ""), (), "columns")


def in_pickle(path: Path) -> Held:
    """A pickle of dicts of arrays, none of which is run. Raises DemokitError."""
    episodes = episodes_in(path, read_pickle(path), (ACTIONS,))
    dicts = [dict_things(each) for each in episodes.values() if isinstance(each, dict)]
    if not dicts:
        raise DemokitError(f"{path} holds no dicts of arrays.")
    arrays = {name: _what(thing) for name, thing in dicts[0].items()}
    return Held(str(len(episodes)), arrays, _groups(arrays))


HELD: dict[str, tuple[str, str, Callable[[Path], Held]]] = {
    ".npz": ("npz", "an npz archive of arrays", in_npz),
    ".csv": ("csv", "a table of numbers", in_table),
    ".pkl": ("pickle-dicts", "a pickle of arrays", in_pickle),
    ".pickle": ("pickle-dicts", "a pickle of arrays", in_pickle),
}
"""Suffix -> format, what it is in words, and what looks inside."""


def _what(thing: Callable[[], Any]) -> str:
    """Type and shape of a value."""
    try:
        value = thing()
    except DemokitError as error:
        return str(error)
    if hasattr(value, "dtype"):
        return f"{value.dtype} {_shape(value.shape)}"
    return (
        f"{type(value).__name__} of {len(value)}" if isinstance(value, list) else repr(value)[:40]
    )


def _groups(names: Mapping[str, str]) -> list[str]:
    """The known names among those, and the groups that are known ones."""
    tops = {name.partition("/")[0] for name in names}
    return [key for key in KEYS if key in tops]


def _shape(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape)) or "single"
