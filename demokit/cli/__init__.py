"""The command line: a click group that imports a command only when it is asked for.

Commands come from the entry points of group `demokit.commands`, so that `recorders` and `gmps`
add theirs without being imported by `demokit`.
"""

from __future__ import annotations

import ast
import difflib
import errno
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from demokit import __version__
from demokit.asked import in_command
from demokit.errors import DemokitError
from demokit.options import dashed
from demokit.text import printable, say
from demokit.writing import refusal

INTERRUPTED = 130
IMPORT = "DEMOKIT_IMPORT"


class Commands(click.Group):
    """Loads commands lazily and turns every foreseen error into one sentence."""

    def main(self, *args: Any, **named: Any) -> Any:
        """See click. What is written to a stream that was closed (`>&-`) goes nowhere."""
        for name in ("stdout", "stderr"):
            if getattr(sys, name) is None:
                setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
        return super().main(*args, **named)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Names of the installed commands."""
        return sorted(_entry_points())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """The command of that name, imported now; None when there is none."""
        point = _entry_points().get(dashed(cmd_name))
        if point is None:
            return None
        try:
            command: click.Command = point.load()
        except (ImportError, AttributeError) as error:
            raise DemokitError(
                f"The command '{cmd_name}' cannot be loaded ({error}): install demokit again."
            ) from error
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the arguments name; an unknown one gets a suggestion."""
        name = args[0]
        if dashed(name) in _entry_points() or name.startswith("-"):
            return super().resolve_command(ctx, args)
        near = difflib.get_close_matches(dashed(name), self.list_commands(ctx), n=1)
        hint = f"did you mean '{near[0]}'?" if near else "see `demokit --help`."
        raise click.UsageError(f"There is no command '{name}': {hint}", ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        rows = [(name, _summary(_entry_points()[name])) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a DemokitError, and what the system refuses, is a sentence, code 1."""
        try:
            try:
                return super().invoke(ctx)
            finally:
                sys.stdout.flush()
        except DemokitError as error:
            say(f"Error: {error}", err=True)
            ctx.exit(1)
        except OSError as error:
            if error.errno == errno.EPIPE:  # whoever read the output has gone: click ends quietly
                raise
            _print_no_more()
            say(f"Error: {refusal(error)}", err=True)
            ctx.exit(1)
        except MemoryError as error:
            why = f" ({printable(str(error))})" if str(error) else ""
            say(f"Error: There is not enough memory{why}: ask for less at once.", err=True)
            ctx.exit(1)
        except click.ClickException as error:
            shown = "\n".join(map(printable, error.message.splitlines()))
            vars(error)["message"] = shown  # click declares it final
            raise
        except (KeyboardInterrupt, click.Abort):
            say("Interrupted.", err=True)
            ctx.exit(INTERRUPTED)


def _print_no_more() -> None:
    """Let go of stdout, which Python would try to write again when it ends."""
    with suppress(OSError):
        out = sys.stdout.fileno()
        os.dup2(os.open(os.devnull, os.O_WRONLY), out)


@cache
def _entry_points() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group="demokit.commands")}


def _summary(point: EntryPoint) -> str:
    """First sentence of a command's docstring, read from its source."""
    spec = find_spec(point.module)
    if spec is None or spec.origin is None:
        return "(not installed)"
    for node in _functions(Path(spec.origin)):
        if node.name == point.attr:
            text = ast.get_docstring(node) or ""
            return " ".join(text.split("\n\n")[0].split())
    return ""


def _functions(path: Path) -> Sequence[ast.FunctionDef]:
    tree = ast.parse(path.read_bytes())
    return [node for node in tree.body if isinstance(node, ast.FunctionDef)]


@click.command(
    cls=Commands,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "token_normalize_func": dashed,
        "max_content_width": 100,
    },
)
@click.version_option(__version__, prog_name="demokit")
@click.option(
    "--import",
    "modules",
    multiple=True,
    metavar="MODULE",
    envvar=IMPORT,
    show_envvar=True,
    help="Import a module of yours first, so that files may name the environments it registers.",
)
def main(modules: tuple[str, ...]) -> None:
    """Record demonstrations of many related tasks, inspect them, and meta-learn from them."""
    click.get_current_context().with_resource(in_command())
    # Threads of torch that wait sleep: on a machine with other work they would hold each other up.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if not modules:
        return
    from demokit.envs import import_for_user

    for module in modules:
        import_for_user(module)
    os.environ[IMPORT] = " ".join(modules)  # for the commands that a command starts
