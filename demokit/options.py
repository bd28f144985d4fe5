"""Options of a training, declared and documented once, as fields of a frozen dataclass.

The command line, the TOML files and the checkpoints are made from these fields.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import Field, field, fields
from typing import Any

from demokit.errors import DemokitError

DEVICES = ("cpu", "cuda")
"""Where trainings compute; see `demokit.learning.device.find_device`."""
REWARDS = ("dense", "sparse", "sparse-paper")
"""What may be paid; `demokit.envs.family.Family.rewards` says which of them a family has."""
AUTO, EXECUTED, EXPERT = "auto", "executed", "expert"
LABELS = (AUTO, EXECUTED, EXPERT)
"""What demonstrations teach; see `demokit.data.labels.read_labels`."""
_NOT = "!"
IMAGES, SIMULATION = "images", "a simulation"
"""What an option may need besides other options: observations that are images, a simulator."""


def option(
    default: Any,
    help: str,
    choices: tuple[str, ...] | None = None,
    *,
    zero: bool = False,
    signed: bool = False,
    at_most: float = math.inf,
    needs: str = "",
    length: bool = False,
    tells: str = "",
) -> Any:
    """A field with a default, a sentence of help, and the values it may have.

    Args:
        default: its type is the option's.
        help: the sentence.
        choices: of a word.
        zero: whether a number may be zero.
        signed: whether it may be negative.
        at_most: the largest number.
        needs: without what this one would have no effect, see `is_there`.
        length: whether a training is shorter in proportion where this is less.
        tells: what a method is told where this is on, a phrase.
    """
    limits = {"zero": zero or signed, "signed": signed, "at_most": at_most, "needs": needs}
    about = {"help": help, "choices": choices, "length": length, "tells": tells}
    return field(default=default, metadata={**about, **limits})


def check_options(config: Any) -> None:
    """Check choices, ranges, and that every option has an effect.

    Raises:
        DemokitError: names the option.
    """
    for each in fields(config):
        _check(each, getattr(config, each.name))
    require_effect(config, {each.name: getattr(config, each.name) for each in fields(config)})


def require_effect(config: Any, given: Mapping[str, Any]) -> None:
    """Raise DemokitError for an option that was changed and needs something that is not there.

    Args:
        config: the options.
        given: see `is_there`.
    """
    for each in fields(config):
        needed = each.metadata["needs"]
        if getattr(config, each.name) != each.default and not is_there(needed, given):
            preposition = "with" if needed.startswith(_NOT) else "without"
            raise DemokitError(
                f"Option {_typed(each.name)} has no effect {preposition} "
                f"{_typed(needed.removeprefix(_NOT))}: leave it out."
            )


def is_there(needed: str, given: Mapping[str, Any]) -> bool:
    """Whether what an option needs is there.

    Args:
        needed: "name", which must be on; "!name", which must not; "name=value", which must be that.
        given: values by name; what it does not name is not judged.
    """
    name, equals, value = needed.removeprefix(_NOT).partition("=")
    if name not in given:
        return True
    found = str(given[name]) == value if equals else bool(given[name])
    return found != needed.startswith(_NOT)


def _typed(needed: str) -> str:
    return needed if needed in (IMAGES, SIMULATION) else f"--{dashed(needed).replace('=', ' ')}"


def dashed(name: str) -> str:
    """`name` as commands and options spell it: `--num_episodes` means `--num-episodes`."""
    return name.replace("_", "-")


def _is_a(value: object, kind: type) -> bool:
    """Whether a value, of a file perhaps, has the type of an option's default."""
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, int | float if kind is float else kind)


def _check(each: Field[Any], value: Any) -> None:
    name, limits = each.name, each.metadata
    if not _is_a(value, type(each.default)):
        raise DemokitError(f"Option {name} must be a value of type {type(each.default).__name__}.")
    if limits["choices"] and value not in limits["choices"]:
        raise DemokitError(f"Option {name}: '{value}' is none of {limits['choices']}.")
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    if not math.isfinite(value):
        raise DemokitError(f"Option {name} must be a finite number, not {value}.")
    if (value < 0 and not limits["signed"]) or (value == 0 and not limits["zero"]):
        raise DemokitError(f"Option {name} must be positive, not {value}.")
    if value > limits["at_most"]:
        raise DemokitError(f"Option {name}: at most {limits['at_most']:g}, not {value}.")
