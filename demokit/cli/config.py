"""Options from files and from dataclasses: `--config FILE.toml`, and a field each.

The keys of a file are the command's own option names.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import Field, fields
from pathlib import Path
from typing import Any, TypeVar

import click

from demokit.cli.grouped import put_under
from demokit.errors import DemokitError
from demokit.options import dashed

SECTIONS, SECTION = "demokit.config.sections", "demokit.config.section"
"""In a context's `meta`: names of tables that a file may have, and the one whose keys count."""

_OWN = "This method"
_MOST_BYTES = 2**20

Decorated = TypeVar("Decorated", bound="Callable[..., Any] | click.Command")


def field_params(config: type) -> list[click.Option]:
    """An option for every field of a configuration made of `option`s, in groups.

    A group are the fields that one of its bases has declared, under the `HEADING` of that.
    """
    found = [_param(each) for each in fields(config)]
    for parameter in found:
        put_under(_heading(config, str(parameter.name)), parameter)
    return found


def field_options(config: type) -> Callable[[Decorated], Decorated]:
    """Decorator that adds the options of `field_params`."""

    def decorate(command: Decorated) -> Decorated:
        for each in reversed(fields(config)):
            command = click.option(*_declared(each), cls=click.Option, **_typed_as(each))(command)
        return command

    return decorate


def _heading(config: type, name: str) -> str:
    """That of the first of its bases that has the field."""
    for base in reversed(config.__mro__):
        if name in getattr(base, "__dataclass_fields__", ()):
            return str(vars(base).get("HEADING", _OWN))
    raise KeyError(name)


def _param(each: Field[Any]) -> click.Option:
    return click.Option(_declared(each), **_typed_as(each))


def _declared(each: Field[Any]) -> list[str]:
    """How the option is typed, and the name of its value."""
    name = dashed(each.name)
    typed = f"--{name}/--no-{name}" if isinstance(each.default, bool) else f"--{name}"
    return [typed, each.name]


def _typed_as(each: Field[Any]) -> dict[str, Any]:
    choices = each.metadata["choices"]
    return {
        "type": click.Choice(choices) if choices else type(each.default),
        "default": each.default,
        "show_default": True,
        "help": each.metadata["help"],
    }


class NamedFile(click.Path):
    """A file: its path, or a name that `find` knows."""

    def __init__(self, find: Callable[[str], Path]) -> None:
        super().__init__(exists=True, dir_okay=False, path_type=Path)
        self._find = find

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """See click."""
        try:
            found = self._find(str(value))
        except DemokitError as error:
            self.fail(str(error), param, ctx)
        super().convert(found, param, ctx)
        return found


def config_option(
    command: Decorated, find: Callable[[str], Path] = Path, names: Iterable[str] = ()
) -> Decorated:
    """Decorator that adds `--config`; options on the command line win over the file.

    Keys may use dashes or underscores. Values are checked as if typed on the command line.

    Args:
        command: what is decorated.
        find: the file that a path or a name stands for; raises DemokitError.
        names: what it knows.
    """
    known = ", ".join(names)
    return click.option(
        "--config",
        type=NamedFile(find),
        is_eager=True,
        expose_value=False,
        callback=_load,
        help="TOML file whose keys are options of this command"
        + (f"; or one that comes with it: {known}." if known else "."),
    )(command)


def _load(ctx: click.Context, _: click.Parameter, path: Path | None) -> None:
    if path is None:
        return
    try:
        content = _read(path)
    except (ValueError, RecursionError) as error:  # of what is no TOML, no text, too long or deep
        raise click.UsageError(f"{path} is not valid TOML ({error}).", ctx) from error
    options = _options(ctx)
    defaults: dict[str, Any] = {}
    for key, value in _of_section(content, ctx).items():
        option = _find(key, options, path, ctx)
        defaults[str(option.name)] = _typed(key, value, option, path, ctx)
    ctx.default_map = {**(ctx.default_map or {}), **defaults}


def _read(path: Path) -> dict[str, Any]:
    """What a file or a pipe says; raises ValueError or RecursionError."""
    with path.open("rb") as file:
        content = file.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise ValueError(f"more than {_MOST_BYTES >> 20} MiB")
    return tomllib.loads(content.decode())


def _of_section(content: dict[str, Any], ctx: click.Context) -> dict[str, Any]:
    """The keys of a file outside its sections, and those of the chosen one, which win."""
    named, chosen = ctx.meta.get(SECTIONS, ()), str(ctx.meta.get(SECTION))
    shared = {
        key: value
        for key, value in content.items()
        if not (key in named and isinstance(value, dict))
    }
    own = content.get(chosen, {}) if chosen in named else {}
    return {**shared, **(own if isinstance(own, dict) else {})}


def _options(ctx: click.Context) -> dict[str, click.Option]:
    """Each option as it is typed, with dashes and without the leading ones."""
    return {
        dashed(spelt.lstrip("-")): parameter
        for parameter in ctx.command.get_params(ctx)
        if isinstance(parameter, click.Option)
        and parameter.expose_value  # which --config and --help are not
        for spelt in parameter.opts
        if spelt.startswith("--")
    }


def _find(
    key: str, options: dict[str, click.Option], path: Path, ctx: click.Context
) -> click.Option:
    typed = dashed(key)
    if typed in options:
        return options[typed]
    near = difflib.get_close_matches(typed, options, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(sorted(options))}."
    raise click.UsageError(f"{path} has an unknown option '{key}': {hint}", ctx)


def _typed(key: str, value: Any, option: click.Option, path: Path, ctx: click.Context) -> Any:
    """The value as text, so that click checks it exactly as it checks the command line."""
    takes_several = option.multiple or option.nargs != 1
    if isinstance(value, dict) or (isinstance(value, list) and not takes_several):
        kind = "table" if isinstance(value, dict) else "list"
        raise click.UsageError(f"{path}: '{key}' is a {kind}, the option takes one value.", ctx)
    try:
        texts = [str(item) for item in (value if isinstance(value, list) else [value])]
    except ValueError:  # Python writes no number of thousands of digits
        raise click.UsageError(f"{path}: '{key}' is too long a number.", ctx) from None
    return texts if takes_several else texts[0]
