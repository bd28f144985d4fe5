"""What the commands that show simulations have in common: options, and how they show them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from demokit.text import say

if TYPE_CHECKING:
    from demokit.envs.family import Family
    from demokit.view.clips import Clip
    from demokit.view.play import Editor
    from demokit.view.scene import Hands, Scene

LISTEN = "127.0.0.1"
_Command = TypeVar("_Command", bound=Callable[..., Any])


def view_options(command: _Command) -> _Command:
    """Add --view, --listen and --port to a command."""
    return click.option(
        "--view",
        type=click.Choice(["window", "web"]),
        help="Show it in MuJoCo's window, or on a page for a browser.",
    )(web_options(command))


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
        default=LISTEN,
        show_default=True,
        help="The address of the web page; any other than loopback asks for a token.",
    )(command)


def tell_address(address: str, listen: str) -> None:
    """Say what to open, and warn where others can reach it."""
    from demokit.view.gate import is_loopback

    say(f"Open {address}", err=True)
    if not is_loopback(listen):
        say(
            "Others in the network can reach this page; the token in its address keeps them out, "
            "but nothing is encrypted. Safer: leave out --listen and use ssh -L.",
            err=True,
        )


class Where(NamedTuple):
    """What `view_options` gave."""

    view: str
    listen: str
    port: int


def play(
    where: Where,
    family: Family,
    clip: Callable[[int], Clip],
    count: int,
    editor: Editor | None = None,
) -> None:
    """Show `count` clips, round and round, until the person quits, with Ctrl-C too."""
    import contextlib

    from demokit.view.play import Player

    player = Player(clip, count, 1 / family.control_dt_s, editor)
    scene = _open(where, family, player, editor)
    try:
        with contextlib.suppress(KeyboardInterrupt):
            player.run(scene)
    finally:
        scene.close()


def _open(where: Where, family: Family, player: Hands, editor: Editor | None) -> Scene:
    if where.view == "window":
        from demokit.view.window import Window

        return Window(family)
    from demokit.view.play import BUTTONS, GUIDE, KEYS
    from demokit.view.web import WebPage

    page = WebPage(
        family,
        where.listen,
        where.port,
        buttons=(*BUTTONS, *(editor.buttons if editor else ())),
        asks=editor.asks if editor else {},
        keys=tuple(KEYS),
        hands=player,
        guide=GUIDE,
    )
    tell_address(page.address, where.listen)
    return page
