"""Options that say of a source what it does not say itself, see `Stated`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from demokit.cli.grouped import grouped
from demokit.cli.number import Number

_Command = TypeVar("_Command", bound=Callable[..., Any])


class _Several(click.ParamType[Any]):
    """Values of one kind, with commas between them."""

    name = "list"

    def __init__(self, kind: click.ParamType[Any]) -> None:
        self._kind = kind

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[Any, ...]:
        """The values; fails with a sentence that names the option."""
        if isinstance(value, tuple):
            return value
        parts = [part.strip() for part in str(value).split(",")]
        if not all(parts):
            self.fail(f"'{value}' has an empty part.", param, ctx)
        return tuple(self._kind.convert(part, param, ctx) for part in parts)


_NAMES, _NUMBERS = _Several(click.STRING), _Several(Number())
_OPTIONS: dict[str, dict[str, Any]] = {
    "--observation-columns": {
        "type": _NAMES, "help": "What is observed: columns of a table, or arrays, by name.",
    },
    "--action-columns": {"type": _NAMES, "help": "The actions."},
    "--reward-column": {"help": "The reward of each step."},
    "--success-column": {"help": "Whether the task is solved; the last row counts."},
    "--episode-column": {"help": "What tells the episodes of a table apart."},
    "--task-column": {"help": "The task's name, the same within an episode."},
    "--context-columns": {"type": _NAMES, "help": "The numbers that describe the task."},
    "--action-low": {
        "type": _NUMBERS, "help": "The least that an action can be, for all components or each.",
    },
    "--action-high": {"type": _NUMBERS, "help": "The greatest."},
    "--last-observation": {
        "type": click.Choice(["repeat", "drop"]),
        "help": "Of T observations of T actions: repeat the last one, or drop the last action. "
        "Default: repeat.",
    },
}  # fmt: skip
_LISTS = (_NAMES, _NUMBERS)


def stated_options(command: _Command) -> _Command:
    """Decorator that adds the options, named as the fields of `Stated`."""
    found = [
        click.option(name, default=() if about.get("type") in _LISTS else None, **about)
        for name, about in _OPTIONS.items()
    ]
    return grouped("Import: what the source does not say", *found)(command)
