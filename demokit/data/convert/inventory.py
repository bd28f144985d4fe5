"""What a source holds, by name, and what became of each of it: nothing is dropped unsaid.

An importer lists a source as parts: one per episode, and one of what stands above them. Names are
taken from the source, not from what the importer knows. A thing counts as carried when it is asked
for; whatever was not is listed at the end, with the reason where one was given.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import h5py
import numpy as np

from demokit.data.hdf5 import Claims, StoredArray, read_attributes, walk
from demokit.errors import DemokitError
from demokit.reading import FREE_BYTES
from demokit.types import Array

NO_PLACE = "left out: a demokit dataset has no place for it"
_MOST_NAMES = 20


class Loss(NamedTuple):
    """Something that a conversion cannot carry, and why or what stands in its place."""

    what: str
    why: str


class Part:
    """An episode of a source, or what stands above the episodes: its things by name, read lazily.

    `reasons` says why some of them are not carried, or not as they were.

    Args:
        name: as the source names it.
        things: name -> what reads it.
    """

    def __init__(self, name: str, things: Mapping[str, Callable[[], Any]]) -> None:
        self.name = name
        self._things = things
        self._taken: set[str] = set()
        self.reasons: dict[str, str] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._things

    def __getitem__(self, name: str) -> Any:
        """Read a thing, which now counts as carried; raises DemokitError when it cannot be read."""
        if name not in self._things:
            raise DemokitError(f"it has no '{name}'")
        value = self._things[name]()
        self._taken.add(name)
        return value

    def get(self, name: str, default: Any = None) -> Any:
        """Read a thing that may not be there."""
        return self[name] if name in self._things else default

    def array(self, name: str) -> Array:
        """Read a thing as an array; raises DemokitError as `array_of`."""
        return array_of(self[name], name)

    def names(self, start: str = "") -> list[str]:
        """The names that begin with `start`, in the order of the source."""
        return [name for name in self._things if name.startswith(start)]

    def explain(self, name: str, why: str) -> None:
        """Say why a thing is not carried, or not as it was."""
        if name in self._things:
            self.reasons[name] = why

    def understood(self, *names: str) -> None:
        """Things that only say how the source is laid out: the dataset says it in its own way."""
        self._taken.update(name for name in names if name in self._things)

    def repeats(self, name: str, expected: Array, why: str) -> None:
        """A thing that says again what is carried; where it says something else, `why`."""
        if name in self._things and not np.array_equal(self[name], expected):
            self.explain(name, why)

    def flag(self, name: str) -> bool | None:
        """The last of a row of flags, one per step, whose others are false; None where it is not.

        A flag that is set earlier has no place in an episode, and is said.
        """
        if name not in self._things:
            return None
        said = self.array(name).reshape(-1)
        if said.dtype.kind not in "biuf" or not np.isin(said, (0, 1)).all():
            self.explain(name, "left out: it is neither true nor false")
            return None
        marks = said.astype(bool)
        if marks[:-1].any():
            self.explain(name, "only its last row is kept, and it is set before")
        return bool(marks[-1]) if len(marks) else None

    def losses(self) -> dict[str, str]:
        """Name -> why, of everything that is not carried or not as it was."""
        untold = {name: NO_PLACE for name in self._things if name not in self._taken}
        return {**untold, **self.reasons}


def array_of(value: Any, name: str) -> Array:
    """A value as an array; raises DemokitError where it is none, such as ragged lists.

    Texts are bounded: in an array every value takes as much as the longest of them.
    """
    try:
        count, longest = _extent(value)
        if 4 * count * longest <= FREE_BYTES:
            return np.asarray(value)
    except (ValueError, TypeError, RuntimeError) as error:
        raise DemokitError(
            f"its {name} cannot be an array: rows differ in length, or are no numbers"
        ) from error
    raise DemokitError(
        f"its {name} cannot be an array: {count} values, and {longest} letters in one"
    )


def _extent(value: Any) -> tuple[int, int]:
    """How many values nested lists hold, and the letters of the longest text among them."""
    if isinstance(value, str | bytes):
        return 1, len(value)
    if not isinstance(value, list | tuple):
        return np.size(value) if isinstance(value, np.ndarray) else 1, 0
    if not any(issubclass(kind, str | bytes | list | tuple) for kind in set(map(type, value))):
        return len(value), 0
    parts = [_extent(each) for each in value]
    return sum(count for count, _ in parts), max(longest for _, longest in parts)


class Inventory:
    """All of a source: what stands above its episodes, and what was found of each episode."""

    def __init__(self, head: Part, episodes: Iterable[str]) -> None:
        self.head = head
        self._outcome: dict[str, str] = dict.fromkeys(episodes, "left out: it was not read")
        self._kept = 0
        self._losses: Counter[tuple[str, str]] = Counter()

    def begin(self) -> None:
        """Start a pass over all episodes; what an earlier one found is forgotten."""
        self._outcome = dict.fromkeys(self._outcome, "left out: it was not read")
        self._kept = 0
        self._losses.clear()

    def keep(self, part: Part) -> None:
        """An episode is in the dataset."""
        self._outcome[part.name] = ""
        self._kept += 1
        self._losses.update(part.losses().items())

    def leave_out(self, name: str, why: str) -> None:
        """An episode is not in the dataset."""
        self._outcome[name] = why

    def first_problem(self) -> str | None:
        """An episode that was left out, and why; None when there are no episodes."""
        return next((f"{name}: {why}" for name, why in self._outcome.items() if why), None)

    def losses(self) -> tuple[Loss, ...]:
        """Everything that is not in the dataset or not as it was: episodes first."""
        above = [Loss(name, why) for name, why in self.head.losses().items()]
        return (*self._episodes_left_out(), *above, *self._things_left_out())

    def _episodes_left_out(self) -> list[Loss]:
        names: dict[str, list[str]] = {}
        for name, why in self._outcome.items():
            if why:
                names.setdefault(why, []).append(name)
        return [Loss(listed(found), why) for why, found in names.items()]

    def _things_left_out(self) -> list[Loss]:
        return [
            Loss(
                name, why if count == self._kept else f"{why} (in {count} of {self._kept} episodes)"
            )
            for (name, why), count in sorted(self._losses.items())
        ]


def listed(names: list[str]) -> str:
    """Names in a sentence, the first ones of many."""
    shown = ", ".join(names[:_MOST_NAMES])
    return shown if len(names) <= _MOST_NAMES else f"{shown} and {len(names) - _MOST_NAMES} more"


def hdf5_things(
    group: h5py.Group, readers: Mapping[str, Callable[[StoredArray], Any]] | None = None
) -> dict[str, Callable[[], Any]]:
    """Every array and attribute at and below a group; raises DemokitError as `walk`.

    Args:
        group: an episode's.
        readers: path -> what reads the array there, where its numbers are not the thing itself.
    """
    things, together = attributes(group), _Together()
    for path, node in walk(group):
        if isinstance(node, StoredArray):
            things[path] = partial((readers or {}).get(path, together.read), node)
            node = h5py.Dataset(node.data)
        things.update(attributes(node, f"{path}/"))
    return things


def dict_things(content: Mapping[Any, Any]) -> dict[str, Callable[[], Any]]:
    """Path -> what gives the value, of all in a dict of dicts; an empty dict holds nothing.

    Two values of one path cannot be told apart, so none is read.
    """
    found: dict[str, Callable[[], Any]] = {}
    for path, value in _below(content, "", set()):
        why = f"two things are called '{path}'"
        found[path] = partial(_complain, why) if path in found else partial(_itself, value)
    return found


def _below(content: Mapping[Any, Any], prefix: str, seen: set[int]) -> Iterator[tuple[str, Any]]:
    seen.add(id(content))  # a small pickle can hold one dict very often
    for name, value in content.items():
        path = f"{prefix}{name if isinstance(name, str) else repr(name)}"
        if isinstance(value, Mapping) and id(value) not in seen:
            yield from _below(value, f"{path}/", seen)
        elif not (isinstance(value, Mapping) and not value):
            yield path, value


def _itself(value: Any) -> Any:
    return value


class _Together:
    """Reads the arrays of an episode, which are in memory together."""

    def __init__(self) -> None:
        self._claims, self._seen = Claims(), set[str]()

    def read(self, stored: StoredArray) -> Array:
        if stored.is_numeric and stored.path not in self._seen:
            self._claims.add(stored)
            self._seen.add(stored.path)
        return stored.read()


def attribute(name: str) -> str:
    """What the attribute of a part is called among its things."""
    return f"attribute {name}"


def attributes(node: h5py.Group | h5py.Dataset, prefix: str = "") -> dict[str, Callable[[], Any]]:
    """Every attribute of a group or array, also those that cannot be read."""
    found = read_attributes(node)
    return {attribute(prefix + name): _reader(name, found) for name in node.attrs}


def at_once(read: Callable[[], Any]) -> Callable[[], Any]:
    """Read a thing now, while its file is open; a problem is raised when the thing is asked for."""
    try:
        value = read()
    except DemokitError as problem:
        return partial(_complain, str(problem))
    return lambda: value


def _complain(problem: str) -> None:
    raise DemokitError(problem)


def _reader(name: str, found: Mapping[str, Any]) -> Callable[[], Any]:
    def read() -> Any:
        if name not in found:
            raise DemokitError(f"attribute {name} is neither numbers nor text")
        return found[name]

    return read
