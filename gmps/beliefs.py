"""Beliefs as named tensors, for files: a tensor, or a mapping or a named tuple of beliefs.

What a belief is made of is its learner's business. So a file names no class: it holds tensors, and
they are put together as the belief with which the learner begins.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor


def tensors_of(belief: Any) -> dict[str, Tensor]:
    """All tensors of a belief by name, "met.reward", as copies that share no memory."""
    if isinstance(belief, Tensor):
        return {"": belief.detach().clone()}
    return {
        f"{name}.{inner}".rstrip("."): value
        for name, own in _parts(belief).items()
        for inner, value in tensors_of(own).items()
    }


def belief_of(tensors: Mapping[str, Tensor], like: Any) -> Any:
    """The inverse of `tensors_of`.

    Args:
        tensors: from a file.
        like: a belief of the same learner about as many tasks. What it has of tasks (M, ...) may
            have become more along the second axis, together with all that stands beside it.

    Raises:
        ValueError: they are none of such a belief, or one is not a number.
    """
    if set(tensors) != set(tensors_of(like)):
        raise ValueError("its belief is not one of its method")
    return _rebuilt(dict(tensors), like, "")


def _parts(belief: Any) -> Mapping[str, Any]:
    found: Mapping[str, Any] = belief if isinstance(belief, Mapping) else belief._asdict()
    return found


def _rebuilt(tensors: dict[str, Tensor], like: Any, name: str) -> Any:
    if isinstance(like, Tensor):
        return tensors[name]
    parts = _parts(like)
    found = {
        part: _rebuilt(tensors, own, f"{name}.{part}".lstrip(".")) for part, own in parts.items()
    }
    _require_alike(
        [(found[part], own) for part, own in parts.items() if isinstance(own, Tensor)], name
    )
    return found if isinstance(like, Mapping) else type(like)(**found)


def _require_alike(pairs: list[tuple[Tensor, Tensor]], name: str) -> None:
    """Raise ValueError unless tensors have the types and shapes of others, see `belief_of`."""
    for found, like in pairs:
        fits = found.dtype == like.dtype and found.ndim == like.ndim
        if not fits or _fixed(found) != _fixed(like) or bool(found.isnan().any()):
            raise ValueError(f"its belief {name} is not one of its method")
    grown = any(found.shape != like.shape for found, like in pairs)
    if grown and len({found.shape[1:2] for found, _ in pairs}) > 1:
        raise ValueError(f"its belief {name} holds more of one thing than of another")


def _fixed(values: Tensor) -> tuple[int, ...]:
    """The axes that do not become longer."""
    return (*values.shape[:1], *values.shape[2:])
