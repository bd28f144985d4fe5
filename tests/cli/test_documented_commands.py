"""Every command that the README and the docs show is one that the command line takes."""

import re
import shlex
from pathlib import Path

import click
import pytest

from demokit.cli import main
from demokit.cli.config import SECTION

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES += sorted((ROOT / "gmps" / "presets").glob("*.toml"))
SHOWN = re.compile(r"^(?:#  | {4}).*?\b(demokit [a-z].*)$", re.MULTILINE)


def commands():
    for page in PAGES:
        text = page.read_text().replace("\\\n", " ")
        for found in SHOWN.finditer(text):
            yield " ".join(found[1].split())


def given(command, args):
    """The parameters and their values, as far as they do not depend on files."""
    context = click.Context(command)
    if "--method" in args:
        context.meta[SECTION] = args[args.index("--method") + 1]
    values, rest, _ = command.make_parser(context).parse_args(list(args))
    if isinstance(command, click.Group):
        _, chosen, rest = command.resolve_command(context, rest)
        return given(chosen, rest)
    assert not rest, rest
    for parameter in command.params:
        if parameter.name in values and not isinstance(parameter.type, click.Path | click.File):
            parameter.type_cast_value(context, values[parameter.name])
    return values


@pytest.mark.usefixtures("other_package")
@pytest.mark.parametrize("command", sorted(set(commands())))
def test_the_command_line_takes_it(command):
    given(main, shlex.split(command, comments=True)[1:])
