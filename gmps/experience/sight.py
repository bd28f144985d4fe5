"""What the policies of a run see and do, and observations of any origin checked against it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from demokit.envs.schema import Schema, Term
from demokit.envs.vision import Vision
from demokit.errors import DemokitError
from demokit.types import Array
from gmps.experience.observation import Observation, each


@dataclass(frozen=True)
class Sight:
    """What policies see of a family.

    Attributes:
        family: its name.
        terms: what makes the vectors, one after the other.
        vectors: key -> width; the key of a state, which is no mapping, is "".
        images: key -> (height, width, 3).
    """

    family: str
    terms: tuple[Term, ...]
    vectors: Mapping[str, int]
    images: Mapping[str, tuple[int, int, int]]

    @classmethod
    def of(cls, schema: Schema, sees: str | Vision) -> Sight:
        """That of states, or of images and the vectors beside them."""
        if not isinstance(sees, Vision):
            return cls(schema.name, schema.terms, {"": schema.width}, {})
        terms = tuple(term for term in schema.terms if term.name in schema.vision_terms)
        images = dict.fromkeys(sees.image_names().values(), (sees.height, sees.width, 3))
        return cls(schema.name, terms, {term.name: term.width for term in terms}, images)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Key -> the shape of one observation; the key of a state is ""."""
        return {**{key: (width,) for key, width in self.vectors.items()}, **self.images}

    def zeros(self) -> Observation:
        """A batch of one observation in which all is zero."""
        found: dict[str, Tensor] = {key: torch.zeros(1, n) for key, n in self.vectors.items()}
        for key, shape in self.images.items():
            found[key] = torch.zeros(1, *shape, dtype=torch.uint8)
        return found.get("", found)

    def read(self, given: Any) -> tuple[Observation, bool]:
        """An observation, or N of them, as tensors (N, ...), and whether there were N.

        Raises:
            DemokitError: it is none of this family.
        """
        if "" in self.vectors:
            read = self._vector("", given)
            batched = read.ndim == 2
            return read if batched else read[None], batched
        if not isinstance(given, Mapping) or set(given) != set(self.shapes):
            raise DemokitError(f"{_described(given)}, but {self}.")
        found: dict[str, Tensor] = {key: self._vector(key, given[key]) for key in self.vectors}
        found |= {key: self._image(key, given[key]) for key in self.images}
        lengths = {
            len(values) if values.ndim > len(self.shapes[key]) else None
            for key, values in found.items()
        }
        if len(lengths) > 1:
            raise DemokitError("The parts of the observation are not all of one, or of as many.")
        batched = None not in lengths
        return found if batched else each(lambda values: values[None], found), batched

    def __str__(self) -> str:
        """What is seen, as the end of a sentence."""
        terms = ", ".join(f"{term.name} ({term.width})" for term in self.terms)
        if not self.images:
            return f"{self.family} is seen as a vector of {self.vectors['']} numbers: {terms}"
        images = ", ".join(f"{key} {shape} uint8" for key, shape in self.images.items())
        return f"{self.family} is seen as a mapping of {', '.join(filter(None, (images, terms)))}"

    def _vector(self, key: str, given: Any) -> Tensor:
        """Numbers (width,) or (N, width), finite as float32."""
        values = _array(key, given)
        shape, width = values.shape, self.vectors[key]
        fits = len(shape) in (1, 2) and shape[-1] == width and len(values) > 0
        if values.dtype.kind not in "fiu" or not fits:
            raise DemokitError(f"{_described(given, key)}, but {self}; give one, or a batch.")
        read = torch.empty(shape)  # not the memory of numpy, see `from_numpy`
        array = read.numpy()
        with np.errstate(over="ignore"):
            array[...] = values
        if not np.isfinite(array).all():
            raise self._not_finite(key, array)
        return read

    def _image(self, key: str, given: Any) -> Tensor:
        """Pixels (height, width, 3) or (N, height, width, 3)."""
        values = _array(key, given)
        fits = values.shape[-3:] == self.images[key] and values.ndim in (3, 4) and len(values) > 0
        if values.dtype != np.uint8 or not fits:
            raise DemokitError(f"{_described(given, key)}, but {self}; give one, or a batch.")
        return torch.from_numpy(np.array(values, order="C")).clone()

    def _not_finite(self, key: str, values: Array) -> DemokitError:
        """Which number is none, by the name of its term."""
        column = int(np.argwhere(~np.isfinite(np.atleast_2d(values)))[0, 1])
        value = float(np.atleast_2d(values)[~np.isfinite(np.atleast_2d(values))][0])
        terms = [term for term in self.terms if key in ("", term.name)]
        for term in terms:
            if column < term.width:
                break
            column -= term.width
        return DemokitError(
            f"Component {column} of {term.name} is {value:g} in the observation: it must be finite."
        )


def _array(key: str, given: Any) -> Array:
    try:
        return np.asarray(given)
    except (TypeError, ValueError, RuntimeError):
        raise DemokitError(
            f"{_named(key)} is a {type(given).__name__} that is no array of numbers."
        ) from None


def _named(key: str) -> str:
    return f"The observation's '{key}'" if key else "The observation"


def _described(given: Any, key: str = "") -> str:
    """What was given, in words, as the beginning of a sentence."""
    if isinstance(given, Mapping):
        return f"{_named(key)} is a mapping of {', '.join(map(str, given)) or 'nothing'}"
    array = _array(key, given)
    return f"{_named(key)} has the shape {array.shape} and the type {array.dtype}"
