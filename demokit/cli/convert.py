"""`demokit convert`: datasets to and from the formats of neighbours."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from demokit.cli.grouped import GroupedCommand
from demokit.cli.stated import stated_options
from demokit.cli.typed import refuse_typed

if TYPE_CHECKING:
    from demokit.data.convert.inventory import Loss


@click.command(cls=GroupedCommand)
@click.argument("source", metavar="SRC")
@click.option("--to", "to_format", help="Export to: minari, robomimic or lerobot.")
@click.option(
    "--from", "from_format",
    help="Import from one of these, or gmps-release, npz, csv or pickle-dicts.",
)  # fmt: skip
@click.option(
    "-o", "--output", "--out", type=click.Path(path_type=Path), required=True,
    help="Import: NAME.hdf5. Export: a file (robomimic), a folder (lerobot), or the folder that "
    "will hold Minari's datasets (minari).",
)  # fmt: skip
@click.option(
    "--fps", type=click.IntRange(1),
    help="Export to lerobot: steps per second, where nothing here says it of the family.",
)  # fmt: skip
@click.option("--env", help="Import: the task family, where the source does not say it.")
@click.option("--license", help="Import: the licence, where the source does not say it.")
@stated_options
@click.option("--dry-run", is_flag=True, help="Write nothing: only say what would be lost.")
@click.option("--overwrite", is_flag=True, help="Replace what is there, once all is converted.")
def convert(
    source: str,
    to_format: str | None,
    from_format: str | None,
    output: Path,
    fps: int | None,
    env: str | None,
    license: str | None,
    dry_run: bool,
    overwrite: bool,
    **columns: Any,
) -> None:
    """Convert a dataset to or from another format, and say what it cannot carry."""
    if (to_format is None) == (from_format is None):
        raise click.UsageError("Give --to FORMAT or --from FORMAT, one of them.")
    if to_format and (env, license) != (None, None):
        raise click.UsageError("--env and --license are for imports.")
    if to_format != "lerobot":
        refuse_typed(click.get_current_context(), ("fps",), "without --to lerobot")
    if to_format:
        refuse_typed(click.get_current_context(), list(columns), "with --to")
    common = {"overwrite": overwrite, "dry_run": dry_run}
    if to_format:
        losses = _export(source, to_format, output, fps, **common)
    else:
        losses = _import(
            source, str(from_format), output, columns, env=env, license=license, **common
        )
    _report(losses, output, dry_run=dry_run)


def _export(
    source: str, name: str, output: Path, fps: int | None, **options: bool
) -> tuple[Loss, ...]:
    from demokit.data import open_dataset
    from demokit.data.convert import export_dataset

    return export_dataset(open_dataset(source), name, output, rate_hz=fps, **options)


def _import(
    source: str,
    name: str,
    output: Path,
    columns: dict[str, Any],
    *,
    dry_run: bool,
    **options: Any,
) -> tuple[Loss, ...]:
    from demokit.data.card import write_card
    from demokit.data.convert import import_dataset
    from demokit.data.convert.stated import Stated
    from demokit.data.paths import resolve

    stated = Stated(**columns)
    losses = import_dataset(
        resolve(source), name, output, stated=stated, dry_run=dry_run, **options
    )
    if not dry_run:
        write_card(output)
    return losses


def _report(losses: tuple[Loss, ...], output: Path, *, dry_run: bool) -> None:
    from demokit.cli.console import console, table

    out = console()
    if losses:
        rows = table("Not carried, or not as it was", "what", "why")
        for loss in losses:
            rows.add_row(loss.what, loss.why)
        out.print(rows)
    done = f"Nothing was written to {output} (dry run)." if dry_run else f"Wrote {output}."
    out.print(done if losses else f"{done} Nothing is lost.", soft_wrap=True)
