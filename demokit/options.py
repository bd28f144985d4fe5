"""Options of a training, declared and documented once, as fields of a frozen dataclass.

The command line, the TOML files and the checkpoints are made from these fields.
"""

from __future__ import annotations

import math
from dataclasses import field, fields
from typing import Any

from demokit.errors import DemokitError

DEVICES = ("cpu", "cuda")
"""Where trainings compute; see `demokit.learning.device.find_device`."""
REWARDS = ("dense", "sparse", "sparse-paper")
"""What may be paid; `demokit.envs.family.Family.rewards` says which of them a family has."""
AUTO, EXECUTED, EXPERT = "auto", "executed", "expert"
LABELS = (AUTO, EXECUTED, EXPERT)
"""What demonstrations teach; see `demokit.data.labels.read_labels`."""


def option(default: Any, help: str, choices: tuple[str, ...] | None = None) -> Any:
    """A field with a default, a sentence of help, and the values it may have."""
    return field(default=default, metadata={"help": help, "choices": choices})


def check_options(
    config: Any, *, may_be_zero: tuple[str, ...], signed: tuple[str, ...] = ()
) -> None:
    """Check choices, and that numbers are finite, and positive unless they may be zero or signed.

    Raises:
        DemokitError: names the option.
    """
    for each in fields(config):
        value, choices = getattr(config, each.name), each.metadata["choices"]
        if not _is_a(value, type(each.default)):
            kind = type(each.default).__name__
            raise DemokitError(f"Option {each.name} must be a value of type {kind}.")
        if choices and value not in choices:
            raise DemokitError(f"Option {each.name}: '{value}' is none of {choices}.")
        numeric = isinstance(value, int | float) and not isinstance(value, bool)
        if numeric and not math.isfinite(value):
            raise DemokitError(f"Option {each.name} must be a finite number, not {value}.")
        if not numeric or each.name in signed:
            continue
        if value < 0 or (value == 0 and each.name not in may_be_zero):
            raise DemokitError(f"Option {each.name} must be positive, not {value}.")


def _is_a(value: object, kind: type) -> bool:
    """Whether a value, of a file perhaps, has the type of an option's default."""
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, int | float if kind is float else kind)
