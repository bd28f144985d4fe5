"""The options of `demokit record` that make it a recording by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import click

from demokit.cli.number import Number
from demokit.cli.view import LISTEN, web_options
from demokit.errors import DemokitError
from recorders.teleop.detect import DEVICES, VIEWS

_Command = TypeVar("_Command", bound=Callable[..., Any])


@dataclass(frozen=True)
class HandOptions:
    """How to record by hand, each as on the command line; `device` None: an expert records."""

    device: str | None = None
    view: str = "auto"
    bindings: Path | None = None
    rate: float | None = None
    countdown: float = 1.0
    end_on_success: bool = False
    keep_partial: bool = False
    picture: Path | None = None
    listen: str = ""
    port: int = 0

    @classmethod
    def taken_from(cls, given: dict[str, Any]) -> HandOptions:
        """These options, taken out of all that were given."""
        return cls(**{field.name: given.pop(field.name) for field in fields(cls)})

    def refuse_idle(self, view: str) -> None:
        """Raise DemokitError for an option that means nothing with the view that is shown."""
        for name, given, wanted in (
            ("picture", self.picture is not None, "png"),
            ("listen", self.listen not in ("", LISTEN), "web"),
            ("port", self.port != 0, "web"),
        ):
            if given and view != wanted:
                raise DemokitError(
                    f"--{name} means nothing with --view {view}: leave it out, or pass "
                    f"--view {wanted}."
                )


_OPTIONS = (
    click.option("--device", type=click.Choice(DEVICES), help="Record by hand, with this device."),
    click.option(
        "--view", type=click.Choice(VIEWS), default="auto", help="By hand: how to see the scene."
    ),
    click.option(
        "--bindings", type=click.Path(path_type=Path), help="By hand: a TOML file of key bindings."
    ),
    click.option(
        "--rate",
        type=Number(min=1, max=200),
        help="By hand: steps per second; default: the environment's, slower is easier.",
    ),
    click.option(
        "--countdown",
        type=Number(min=0, max=60),
        default=1.0,
        show_default=True,
        help="By hand: seconds before each episode but the first, which waits for you.",
    ),
    click.option(
        "--end-on-success", is_flag=True, help="By hand: end and keep an episode once solved."
    ),
    click.option(
        "--keep-partial",
        is_flag=True,
        help="By hand: keep, truncated, an episode in progress when nobody answers about it.",
    ),
    click.option(
        "--picture",
        type=click.Path(path_type=Path),
        help="By hand: the file of --view png; default: a temporary one.",
    ),
)


def hand_options(command: _Command) -> _Command:
    """Add the options of `HandOptions` to a command."""
    command = web_options(command)
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
