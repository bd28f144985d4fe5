"""Options that were typed, or stand in a --config file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

if TYPE_CHECKING:
    from demokit.envs.family import Family

_TYPED = ParameterSource.COMMANDLINE


def is_typed(ctx: click.Context, name: str) -> bool:
    """Whether the option stands on the command line."""
    return ctx.get_parameter_source(name) == _TYPED


def family_of_env(ctx: click.Context, env: str) -> Family:
    """The family that --env names; only where it was typed is a module imported for it."""
    from demokit.envs import family_named_by_user, make_family

    return family_named_by_user(env) if is_typed(ctx, "env") else make_family(env)


def refuse_typed(ctx: click.Context, names: Sequence[str], why: str) -> None:
    """Raise click.UsageError for parameters that would be ignored; `why` is "without --video".

    Typed or in a --config file: both are somebody's wish.
    """
    for parameter in ctx.command.params:
        source = ctx.get_parameter_source(str(parameter.name))
        if parameter.name in names and source in (_TYPED, ParameterSource.DEFAULT_MAP):
            is_option = isinstance(parameter, click.Option)
            shown = parameter.opts[0] if is_option else parameter.human_readable_name
            where = "" if source == _TYPED else " in the --config file"
            raise click.UsageError(f"{shown}{where} means nothing {why}: leave it out.", ctx)


def require_mp4(ctx: click.Context, video: Path | None) -> None:
    """Raise click.UsageError for a --video of another kind."""
    if video is not None and video.suffix.lower() != ".mp4":
        raise click.UsageError(f"--video writes an MP4: name it NAME.mp4, not {video}.", ctx)
