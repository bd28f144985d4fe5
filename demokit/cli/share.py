"""`demokit share`: handing datasets on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from demokit.cli.number import Number
from demokit.text import say

if TYPE_CHECKING:
    from demokit.data.share import Bundle

_DRY_RUN = click.option("--dry-run", is_flag=True, help="Check and say, but write nothing.")
_OVERWRITE = click.option("--overwrite", is_flag=True, help="Replace what is there.")


@click.group()
def share() -> None:
    """Hand a dataset on to other programs and people."""


@share.command()
@click.argument("dataset", metavar="PATH")
@click.argument("dataset_id", metavar="ID")
def register(dataset: str, dataset_id: str) -> None:
    """Make the dataset at PATH known to Minari as ID, such as demokit/push/scripted-v0."""
    from demokit.data.minari import register as put

    folder = put(dataset, dataset_id)
    say(f"Registered {dataset_id} in {folder}; see `minari show {dataset_id}`.")


@share.command()
@click.argument("dataset", metavar="PATH|ID")
@click.option(
    "-o", "--output", "--out", type=click.Path(path_type=Path), help="Default: NAME.zip next to it."
)
@_DRY_RUN
@_OVERWRITE
def pack(dataset: str, output: Path | None, dry_run: bool, overwrite: bool) -> None:
    """Pack a dataset, its card, its licence's name and checksums into one archive."""
    from demokit.data.share import make_bundle
    from demokit.data.share import pack as write

    bundle = make_bundle(dataset)
    target = output or bundle.path.with_suffix(".zip")
    _show(bundle)
    if dry_run:
        say(f"Dry run: {target} was not written.")
    else:
        say(f"Packed {write(bundle, target, overwrite=overwrite)}.")


@share.command()
@click.argument("dataset", metavar="PATH|ID")
@click.argument("place", required=False)
@click.option("--repo-id", help="Hugging Face dataset repository, the same as PLACE hf:USER/NAME.")
@click.option("--private/--public", default=True, help="Who sees a new repository; private.")
@_DRY_RUN
@_OVERWRITE
def push(
    dataset: str,
    place: str | None,
    repo_id: str | None,
    private: bool,
    dry_run: bool,
    overwrite: bool,
) -> None:
    """Put a dataset in a folder, at a URL that fsspec opens, or on Hugging Face (hf:USER/NAME)."""
    from demokit.data.share import make_bundle
    from demokit.data.share import push as send

    if (place is None) == (repo_id is None):
        raise click.UsageError("Say where to: PLACE or --repo-id, one of them.")
    target = place or f"hf:{repo_id}"
    bundle = make_bundle(dataset)
    _show(bundle)
    if dry_run:
        seen = "private" if private else "public"
        extra = f" ({seen})" if target.startswith("hf:") else ""
        say(f"Dry run: nothing was pushed to {target}{extra}.")
        return
    say(f"Pushed to {send(bundle, target, public=not private, overwrite=overwrite)}.")


@share.command()
@click.argument("place")
@click.option(
    "-o", "--output", "--out", type=click.Path(path_type=Path), required=True, help="NAME.hdf5."
)
@click.option(
    "--max-size",
    type=Number(min=0, min_open=True),
    default=20.0,
    show_default=True,
    help="Largest dataset to accept, in GB.",
)
@_OVERWRITE
def pull(place: str, output: Path, max_size: float, overwrite: bool) -> None:
    """Fetch what `pack` or `push` made, and verify it: checksums, then the dataset itself."""
    from demokit.data.share import pull as fetch

    path = fetch(place, output, overwrite=overwrite, limit_bytes=int(max_size * 1e9))
    say(f"Pulled {path}: checksums match and the dataset is valid.")


def _show(bundle: Bundle) -> None:
    names = ", ".join((bundle.path.name, *bundle.small))
    say(f"{names}: {bundle.size_bytes / 1e6:.1f} MB, licence {bundle.license}, valid.")
