"""Options of a command in groups, each under a heading of `--help`; click knows none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

Decorator = Callable[[Any], Any]
_Command = TypeVar("_Command", bound=Callable[..., Any])
_GROUP, _OTHERS = "demokit_group", "Options"


def grouped(heading: str, *options: Decorator) -> Callable[[_Command], _Command]:
    """Decorator that adds options under a heading, in this order."""

    def decorate(command: _Command) -> _Command:
        known = len(getattr(command, "__click_params__", ()))
        for option in reversed(options):
            command = option(command)
        for parameter in vars(command)["__click_params__"][known:]:
            put_under(heading, parameter)
        return command

    return decorate


def put_under(heading: str, parameter: click.Parameter) -> None:
    """Show a parameter under a heading."""
    setattr(parameter, _GROUP, heading)


class GroupedCommand(click.Command):
    """A command whose help has a section for every group; the rest stands last, as "Options"."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """See click."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                groups.setdefault(getattr(parameter, _GROUP, _OTHERS), []).append(record)
        for heading in sorted(groups, key=_OTHERS.__eq__):
            with formatter.section(heading):
                formatter.write_dl(groups[heading])
