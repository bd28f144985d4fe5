"""Gymnasium's spaces as arrays of a dataset: what is observed by name, and actions as a vector."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import Space, spaces

from demokit.data.metadata import ActionRange
from demokit.errors import DemokitError
from demokit.types import Array, FloatArray

_PLAIN = (spaces.Box, spaces.Discrete, spaces.MultiBinary, spaces.MultiDiscrete)


@dataclass(frozen=True)
class Part:
    """One array of an observation: the keys that lead to it, its shape and its type."""

    keys: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def name(self) -> str:
        """In the dataset; a plain observation has none."""
        return ".".join(self.keys).replace("/", ".")

    def read(self, observation: Any) -> Array:
        """A copy of it; raises DemokitError where it is not what the space says."""
        value = observation
        for key in self.keys:
            if not isinstance(value, Mapping) or key not in value:
                raise DemokitError(f"The observation has no '{'/'.join(self.keys)}', as its space.")
            value = value[key]
        what = f"The observation {self.name}".strip()
        return checked(what, value, self.shape, self.dtype)


def parts_of(space: Space[Any]) -> tuple[Part, ...]:
    """The arrays that an observation is made of; raises DemokitError where there are others."""
    found = tuple(_parts(space, ()))
    if not found or len({part.name for part in found}) < len(found):
        raise DemokitError("The observations have no parts, or two of one name: rename them.")
    return found


def _parts(space: Space[Any], keys: tuple[str, ...]) -> Iterator[Part]:
    if isinstance(space, spaces.Dict):
        for key, inside in space.spaces.items():
            yield from _parts(inside, (*keys, str(key)))
        return
    if not isinstance(space, _PLAIN) or space.shape is None or space.dtype is None:
        raise DemokitError(
            f"Observations of {type(space).__name__} are no arrays: wrap the environment in "
            "gymnasium.wrappers.FlattenObservation, or another that makes arrays of them."
        )
    yield Part(keys, space.shape, np.dtype(space.dtype))


def checked(what: str, value: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """A value as an array of its own; raises DemokitError for another shape or type, or NaN."""
    try:
        given = np.asarray(value)
    except (TypeError, ValueError) as error:
        raise DemokitError(f"{what} is a {type(value).__name__} that is no array.") from error
    if given.shape != shape or not np.can_cast(given.dtype, dtype, "same_kind"):
        raise DemokitError(
            f"{what} has the shape {given.shape} and the type {given.dtype}, but its space "
            f"{shape} and {dtype}."
        )
    with np.errstate(over="ignore"):
        found = given.astype(dtype)
    if dtype.kind == "f" and not np.isfinite(found).all():
        raise DemokitError(f"{what} is not finite, as {dtype}: {found.ravel()[:6].tolist()}.")
    return found


def action_range_of(space: Space[Any], stated: ActionRange | None) -> ActionRange:
    """What stands at -1 and 1, (A,) each: what a person stated, else the bounds of the space.

    Raises:
        DemokitError: actions that are neither a vector nor a number, or have no bounds.
    """
    if not isinstance(space, _PLAIN) or len(space.shape or ()) > 1 or space.shape == (0,):
        raise DemokitError(
            f"Actions of {space} are neither a vector nor a number: wrap the environment so that "
            "they are one."
        )
    width = (space.shape or (1,))[0]
    low, high = _bounds(space)
    if stated is not None:
        if len(stated.low) not in (1, width):
            raise DemokitError(
                f"The action range has {len(stated.low)} components, the actions {width}."
            )
        low, high = stated.low, stated.high
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise DemokitError(
            "The environment's actions have no bounds: state what stands at -1 and 1, with "
            "action_low and action_high."
        )
    low, high = (np.broadcast_to(side, (width,)) for side in (low, high))
    return ActionRange(low, high)


def _bounds(space: Any) -> tuple[FloatArray, FloatArray]:
    """The least and the greatest action."""
    if isinstance(space, spaces.Box):
        return np.atleast_1d(space.low).astype(float), np.atleast_1d(space.high).astype(float)
    if isinstance(space, spaces.MultiBinary):
        return np.zeros(1), np.ones(1)
    first = np.atleast_1d(space.start).astype(float)
    count = space.n if isinstance(space, spaces.Discrete) else space.nvec
    return first, first + np.atleast_1d(count) - 1


def read_action(space: Any, within: ActionRange, action: Any) -> FloatArray:
    """An action as a vector (A,) of floating-point numbers, in the range that the dataset states.

    Raises:
        DemokitError: it is none of the space's, not finite, or outside the range.
    """
    found = np.atleast_1d(checked("The action", action, space.shape or (), np.dtype(space.dtype)))
    found = found if found.dtype.kind == "f" else found.astype(np.float32)
    outside = within.outside(found)
    if outside.any():
        index = int(outside.argmax())
        low, high = float(within.low[index]), float(within.high[index])
        raise DemokitError(
            f"Component {index} of the action is {found[index]:g}, outside [{low:g}, {high:g}], "
            "which the dataset keeps as [-1, 1]: clip it, or state action_low and action_high."
        )
    return found


def stated_range(
    low: float | Sequence[float] | None, high: float | Sequence[float] | None
) -> ActionRange | None:
    """The range that a person stated in Python; None where they stated none.

    Raises:
        DemokitError: one end, or no numbers.
    """
    from demokit.data.convert.arrays import bounds
    from demokit.data.convert.stated import Stated

    return Stated(action_low=bounds(low), action_high=bounds(high)).action_range
