"""`demokit share`: handing datasets and runs on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from demokit.cli.number import Number
from demokit.text import say

if TYPE_CHECKING:
    from demokit.sharing.bundle import Bundle

_WHAT = click.argument("path", metavar="PATH|ID|RUN")
_LICENSE = click.option("--license", help="Of a run, such as MIT; a dataset states its own.")
_DRY_RUN = click.option("--dry-run", is_flag=True, help="Check and say, but write nothing.")
_OVERWRITE = click.option("--overwrite", is_flag=True, help="Replace what is there.")


@click.group()
def share() -> None:
    """Hand a dataset or a run on to other programs and people."""


@share.command()
@click.argument("dataset", metavar="PATH")
@click.argument("dataset_id", metavar="ID")
def register(dataset: str, dataset_id: str) -> None:
    """Make the dataset at PATH known to Minari as ID, such as demokit/push/scripted-v0."""
    from demokit.data.minari import register as put

    folder = put(dataset, dataset_id)
    say(f"Registered {dataset_id} in {folder}; see `minari show {dataset_id}`.")


@share.command()
@_WHAT
@click.option(
    "-o", "--output", "--out", type=click.Path(path_type=Path), help="Default: NAME.zip next to it."
)
@_LICENSE
@_DRY_RUN
@_OVERWRITE
def pack(
    path: str, output: Path | None, license: str | None, dry_run: bool, overwrite: bool
) -> None:
    """Pack a dataset or a run, its card, its licence's name and checksums into one archive."""
    from demokit.sharing.bundle import who_shares
    from demokit.sharing.giving import check_archive
    from demokit.sharing.giving import pack as write

    bundle = who_shares(path).make_bundle(path, license)
    target = output or bundle.archive
    _show(bundle)
    if dry_run:
        check_archive(target, overwrite=overwrite)
        say(f"Dry run: {target} was not written.")
    else:
        say(f"Packed {write(bundle, target, overwrite=overwrite)}.")


@share.command()
@_WHAT
@click.argument("place", required=False)
@click.option("--repo-id", help="Hugging Face repository, the same as PLACE hf:USER/NAME.")
@_LICENSE
@click.option("--private/--public", default=True, help="Who sees a new repository; private.")
@_DRY_RUN
@_OVERWRITE
def push(
    path: str,
    place: str | None,
    repo_id: str | None,
    license: str | None,
    private: bool,
    dry_run: bool,
    overwrite: bool,
) -> None:
    """Put a dataset or a run in a folder, at a URL that fsspec opens, or on Hugging Face.

    PLACE is hf:USER/NAME there: a repository of a dataset, or of a model for a run.
    """
    from demokit.sharing.bundle import who_shares
    from demokit.sharing.giving import check_place
    from demokit.sharing.giving import push as send

    if (place is None) == (repo_id is None):
        raise click.UsageError("Say where to: PLACE or --repo-id, one of them.")
    target = f"hf:{repo_id}" if place is None else place
    bundle = who_shares(path).make_bundle(path, license)
    _show(bundle)
    if dry_run:
        check_place(bundle, target, public=not private, overwrite=overwrite)
        seen = "private" if private else "public"
        extra = f" ({seen})" if target.startswith("hf:") else ""
        say(f"Dry run: nothing was pushed to {target}{extra}.")
        return
    say(f"Pushed to {send(bundle, target, public=not private, overwrite=overwrite)}.")


@share.command()
@click.argument("place")
@click.option(
    "-o",
    "--output",
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="NAME.hdf5 for a dataset, a folder for a run.",
)
@click.option(
    "--max-size",
    type=Number(min=0, min_open=True),
    default=20.0,
    show_default=True,
    help="Largest file to accept, in GB.",
)
@_OVERWRITE
def pull(place: str, output: Path, max_size: float, overwrite: bool) -> None:
    """Fetch what `pack` or `push` made, and verify it: checksums, then what it is."""
    from demokit.sharing.bundle import who_receives

    receive = who_receives(output).pull
    path = receive(place, output, overwrite=overwrite, limit_bytes=int(max_size * 1e9))
    what = "run" if path.is_dir() else "dataset"
    say(f"Pulled {path}: checksums match and the {what} is valid.")


def _show(bundle: Bundle) -> None:
    names = ", ".join((bundle.name, *bundle.small))
    say(f"{names}: {bundle.size_bytes / 1e6:.1f} MB, licence {bundle.license}, valid.")
