"""`demokit merge`, `split`, `filter` and `relabel`: datasets from datasets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from demokit.cli.number import Number
from demokit.cli.typed import refuse_typed
from demokit.options import REWARDS
from demokit.text import say

if TYPE_CHECKING:
    from demokit.data.edit import Edited

_OUT = click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="The new dataset, NAME.hdf5."
)
_OVERWRITE = click.option("--overwrite", is_flag=True, help="Replace what is there, at the end.")


def _say(edited: Edited) -> None:
    rest = f"; {edited.left_out} left out" if edited.left_out else ""
    say(f"{edited.episodes} episodes in {edited.path}{rest}.")


@click.command()
@click.argument("sources", metavar="PATH|ID...", nargs=-1, required=True)
@_OUT
@click.option(
    "--license",
    help="Licence of the new dataset; needed where those of the sources differ.",
)
@_OVERWRITE
def merge(sources: tuple[str, ...], out: Path, license: str | None, overwrite: bool) -> None:
    """Put the episodes of several datasets into one; of one alone, to state its licence.

    They must share family, reward, model and spaces. Episodes that come twice, with the same
    task and success, are kept once; one that was renamed or marked is kept beside its original.
    The metadata names every source, with its checksum, seed and recorder.
    """
    from demokit.data.edit import merge as put

    _say(put(sources, out, license=license, overwrite=overwrite))


@click.command()
@click.argument("source", metavar="PATH|ID")
@click.option(
    "--validation-fraction",
    type=Number(0, 1, min_open=True, max_open=True),
    default=0.2,
    show_default=True,
    help="The share that validates.",
)
@click.option(
    "--by",
    type=click.Choice(["task", "episode"]),
    default="task",
    show_default=True,
    help="task: disjoint tasks; episode: the same share of every task's episodes.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option(
    "--train-out", type=click.Path(path_type=Path), help="Default: NAME-train.hdf5, beside."
)
@click.option(
    "--validation-out",
    type=click.Path(path_type=Path),
    help="Default: NAME-validation.hdf5, beside.",
)
@_OVERWRITE
def split(
    source: str,
    validation_fraction: float,
    by: str,
    seed: int,
    train_out: Path | None,
    validation_out: Path | None,
    overwrite: bool,
) -> None:
    """Part a dataset into one to train on and one to validate with."""
    from demokit.data.edit import split as part

    beside = Path(source) if Path(source).exists() else Path(Path(source).name)
    name = beside.name.removesuffix(".hdf5")
    train = train_out or beside.with_name(f"{name}-train.hdf5")
    validation = validation_out or beside.with_name(f"{name}-validation.hdf5")
    for edited in part(
        source,
        train,
        validation,
        fraction=validation_fraction,
        by=by,
        seed=seed,
        overwrite=overwrite,
    ):
        say(f"{edited.episodes} episodes in {edited.path}.")


@click.command("filter")
@click.argument("source", metavar="PATH|ID")
@_OUT
@click.option("--task", "tasks", multiple=True, help="Task id or pattern such as '*/03'.")
@click.option("--split", "splits", multiple=True, help="train, validation, ood or monitor.")
@click.option("--recorder", "recorders", multiple=True, help="Who acted.")
@click.option("--success/--failure", default=None, help="Only successful, or only failed ones.")
@click.option("--min-return", type=Number(), help="The least return, undiscounted.")
@click.option(
    "--episode", "episodes", multiple=True, metavar="NUMBERS", help="Such as 3,7-9, from 0."
)
@click.option("--drop", multiple=True, metavar="NUMBERS", help="Leave these episodes out.")
@click.option(
    "--trim",
    "trims",
    multiple=True,
    metavar="[NUMBERS=]START:STOP",
    help="Keep these steps of each episode, such as 0:80, or of some: 3,7-9=0:80.",
)
@click.option(
    "--rename-task", "renames", multiple=True, nargs=2, metavar="ID NEW", help="Rename a task."
)
@click.option(
    "--mark-success",
    "solved",
    multiple=True,
    metavar="NUMBERS",
    help="Call these episodes successful, whatever their last state says.",
)
@click.option(
    "--mark-failure", "failed", multiple=True, metavar="NUMBERS", help="Call these failed."
)
@_OVERWRITE
def filter_episodes(
    source: str,
    out: Path,
    tasks: tuple[str, ...],
    splits: tuple[str, ...],
    recorders: tuple[str, ...],
    success: bool | None,
    min_return: float | None,
    episodes: tuple[str, ...],
    drop: tuple[str, ...],
    trims: tuple[str, ...],
    renames: tuple[tuple[str, str], ...],
    solved: tuple[str, ...],
    failed: tuple[str, ...],
    overwrite: bool,
) -> None:
    """Keep the episodes that fit every option given, and change them; options may be repeated.

    Episodes have the numbers that `demokit inspect` and `replay` show, counted from 0. SOURCE
    stays as it is; the new file says what was done.
    """
    from demokit.data.changes import Changes, Selection, Trim
    from demokit.data.edit import filter_episodes as keep
    from demokit.errors import DemokitError, unknown_name
    from demokit.ranges import parse_ranges
    from demokit.types import SPLITS

    for name in splits:
        if name not in SPLITS:
            raise unknown_name("split", name, SPLITS)
    if len(dict(renames)) < len(renames):
        raise DemokitError("--rename-task names a task twice: give it one new name.")
    named = parse_ranges(episodes, "--episode") if episodes else None
    dropped = parse_ranges(drop, "--drop")
    selection = Selection(tasks, splits, recorders, success, min_return, named, dropped)
    changes = Changes(
        trims=tuple(map(Trim.parsed, trims)),
        renames=dict(renames),
        solved=parse_ranges(solved, "--mark-success"),
        failed=parse_ranges(failed, "--mark-failure"),
    )
    _say(keep(source, out, selection, changes, overwrite=overwrite))


@click.command()
@click.argument("source", metavar="PATH|ID")
@_OUT
@click.option(
    "--reward",
    type=click.Choice(REWARDS),
    help="Which reward the new dataset holds; default: as it is.",
)
@click.option("--vision", is_flag=True, help="Observe images instead of states.")
@click.option(
    "--image-size",
    type=(click.IntRange(min=1), click.IntRange(min=1)),
    metavar="HEIGHT WIDTH",
    default=(48, 64),
    show_default=True,
    help="Size of the images, in pixels.",
)
@click.option("--camera", "cameras", multiple=True, help="Camera of the images; repeatable.")
@_OVERWRITE
@click.pass_context
def relabel(
    ctx: click.Context,
    source: str,
    out: Path,
    reward: str | None,
    vision: bool,
    image_size: tuple[int, int],
    cameras: tuple[str, ...],
    overwrite: bool,
) -> None:
    """Compute rewards, or images, anew from the recorded simulator states."""
    if reward is None and not vision:
        raise click.UsageError("Say what to compute: --reward, or --vision.", ctx)
    if not vision:
        refuse_typed(ctx, ("image_size", "cameras"), "without --vision")
    from demokit.data.edit import relabel as put
    from demokit.envs.vision import Vision

    images = Vision(*image_size, cameras or ("policy",)) if vision else None
    _say(put(source, out, reward=reward, vision=images, overwrite=overwrite))
