"""What an environment of Gymnasium's answers, held to what Gymnasium asks of it."""

from __future__ import annotations

import reprlib
from contextlib import suppress
from typing import Any

import numpy as np

from demokit.types import truth

SUCCESS = ("is_success", "success")
"""Under which names an info says success, the first of them that is there."""


class MisbehavedError(Exception):
    """An environment failed, or answered something else: the end of a sentence that says what."""


def called(env: Any, function: str, width: int, *args: Any, **options: Any) -> Any:
    """The tuple of `width` that an environment's own code returns; raises MisbehavedError."""
    try:
        found = getattr(env, function)(*args, **options)
    except Exception as error:  # the environment's own code raises anything
        said = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise MisbehavedError(f"{function} of its environment fails with {said}") from error
    if not (isinstance(found, tuple) and len(found) == width and isinstance(found[-1], dict)):
        raise MisbehavedError(
            f"{function} of its environment must return {width} values, info the last"
        )
    return found


def paid(reward: Any) -> float:
    """A reward; raises MisbehavedError where it is no number."""
    if isinstance(reward, float):
        return float(reward)
    given = np.asarray(reward)
    if given.size != 1 or given.dtype.kind not in "biuf":
        raise MisbehavedError(f"its reward is {_shown(reward)}, which is no number")
    return float(given.item())


def says(what: str, value: Any) -> bool:
    """Yes or no; raises MisbehavedError where it is neither."""
    said = truth(value)
    if said is None:
        raise MisbehavedError(
            f"its {what} is {_shown(value)}, which says neither yes nor no: give True or False"
        )
    return said


def solved(info: dict[str, Any]) -> bool:
    """What the info says of success; where it says nothing, no. Raises MisbehavedError."""
    name = next((name for name in SUCCESS if name in info), None)
    return name is not None and says(f"info['{name}']", info[name])


def shut(env: Any) -> None:
    """Close an environment; what it says of that counts for nothing."""
    with suppress(Exception):
        env.close()


def _shown(value: object) -> str:
    """A value on one short line."""
    return " ".join(reprlib.repr(value).split())
