"""A command that takes the options of one method, the one that its arguments name."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import fields
from itertools import pairwise

import click

from demokit.cli.config import SECTION, SECTIONS, field_params
from demokit.cli.grouped import GroupedCommand
from demokit.errors import DemokitError
from demokit.options import dashed
from gmps.method import DEFAULT, find_method, method_names
from gmps.shipped import PRESETS, shipped_file


class MethodName(click.ParamType[str]):
    """The name of a method that is installed."""

    name = "method"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """See click."""
        try:
            find_method(value)
        except DemokitError as error:
            self.fail(str(error), param, ctx)
        return value


class MethodCommand(GroupedCommand):
    """Its own options, and those of the method that --method names, there or in --config."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """See click; an option of another method is refused, and said whose it is."""
        name = _named(args)
        ctx.meta[SECTIONS] = method_names()
        ctx.meta[SECTION] = name if name in method_names() else DEFAULT
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            raise _explained(error, ctx.meta[SECTION], ctx) from None

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """See click."""
        method = find_method(ctx.meta.get(SECTION, DEFAULT))
        *own, shown = super().get_params(ctx)
        return [*own, *field_params(method.options), shown]


def _named(args: Sequence[str]) -> str:
    """The method that arguments name, or their file does; it is checked later."""
    given = dict(_pairs(args))
    if "method" in given:
        return given["method"]
    try:
        found = tomllib.loads(shipped_file(PRESETS, given["config"]).read_text())["method"]
    except (KeyError, OSError, ValueError, DemokitError):
        return DEFAULT
    return str(found)


def _pairs(args: Sequence[str]) -> list[tuple[str, str]]:
    """Options and their values, as they are typed."""
    joined = [tuple(arg.split("=", 1)) for arg in args if arg.startswith("--") and "=" in arg]
    apart = list(pairwise(args))
    return [(dashed(name.lstrip("-")), value) for name, value in (*apart, *joined)]


def _explained(error: click.NoSuchOption, method: str, ctx: click.Context) -> click.UsageError:
    """Whose option it is, where it is another method's."""
    typed = dashed(error.option_name.lstrip("-"))
    names = {typed, typed.removeprefix("no-")}
    owners = [
        name
        for name in method_names()
        if names & {dashed(each.name) for each in fields(find_method(name).options)}
    ]
    if not owners:
        return error
    owned = f"an option of {', '.join(owners)}, not of {method}"
    return click.UsageError(f"{error.option_name} is {owned}: leave it out.", ctx)
