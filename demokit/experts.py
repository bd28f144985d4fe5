"""Experts by name or by file.

Packages offer them by name through entry points of group `demokit.experts`; `train-expert` writes
files.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from demokit.errors import DemokitError, unknown_name
from demokit.protocols import Expert

RANDOM = "random"
"""The expert that knows nothing: its actions are executed, and never an advice."""
NOBODY = "none"
"""What datasets call the expert where there is none, as by hand."""
SCORES = ("returns", "success")
"""What is said of a trained expert by task."""


def expert_names() -> tuple[str, ...]:
    """Names of the kinds of experts that are installed."""
    return tuple(sorted(point.name for point in entry_points(group="demokit.experts")))


def load_expert(name: str, family: str) -> Expert:
    """The expert of that name, or in that file, for a family.

    Args:
        name: of a kind of experts that is installed, or a path to an expert's file.
        family: name of the task family.

    Raises:
        DemokitError: there is no such expert, or it does not know the family.
    """
    for point in entry_points(group="demokit.experts"):
        if point.name == name:
            return _made(point, family)
    if _is_path(name):
        from demokit.learning.expert import load_trained

        return load_trained(Path(name), family)
    raise unknown_name("expert", name, expert_names())


def load_adviser(name: str, family: str) -> Expert:
    """An expert that can be asked what it would do, see `load_expert`; the random one cannot."""
    expert = load_expert(name, family)
    if not advises(expert):
        raise DemokitError(
            f"The {RANDOM} expert knows nothing and labels nothing: give an --expert that knows "
            f"the tasks of {family}."
        )
    return expert


def advises(expert: Expert) -> bool:
    """Whether it knows what to do; never so of the random one, or where there is none."""
    return expert.name not in (RANDOM, NOBODY)


def checked_training(values: Mapping[str, Any]) -> dict[str, Any]:
    """What files say of a training, as the types that others expect: its cost and its scores.

    Raises:
        KeyError, TypeError, ValueError: something is missing, or of another type.
    """
    return {
        "task_set": str(values["task_set"]),
        "env_steps": int(values["env_steps"]),
        **{n: {str(k): float(v) for k, v in dict(values[n]).items()} for n in SCORES},
    }


def training_of(expert: Expert) -> dict[str, Any]:
    """What an expert's file says of its training, for the provenance; empty for other experts."""
    found: dict[str, Any] = getattr(expert, "training", {})
    return found


def _made(point: EntryPoint, family: str) -> Expert:
    """What the factory of an entry point makes; raises DemokitError where it cannot."""
    try:
        expert: Expert = point.load()(family)
    except DemokitError:
        raise
    except Exception as error:  # code of others raises anything
        raise DemokitError(
            f"The expert '{point.name}' ({point.value}) cannot be made for '{family}' "
            f"({type(error).__name__}: {error}): give another --expert."
        ) from error
    return expert


def _is_path(name: str) -> bool:
    return "/" in name or "." in name or Path(name).exists()
