"""What the commands that open a web page have in common: its options, and what they say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

_Command = TypeVar("_Command", bound=Callable[..., Any])


def web_options(command: _Command) -> _Command:
    """Add --listen and --port to a command."""
    command = click.option(
        "--port",
        type=click.IntRange(min=0, max=65535),
        default=0,
        help="The port of the web page; default: the first free one from 8080.",
    )(command)
    return click.option(
        "--listen",
        default="127.0.0.1",
        show_default=True,
        help="The address of the web page; any other than loopback asks for a token.",
    )(command)


def tell_address(address: str, listen: str) -> None:
    """Say what to open, and warn where others can reach it."""
    from demokit.view.gate import is_loopback

    click.echo(f"Open {address}", err=True)
    if not is_loopback(listen):
        click.echo(
            "Others in the network can reach this page; the token in its address keeps them out, "
            "but nothing is encrypted. Safer: leave out --listen and use ssh -L.",
            err=True,
        )
