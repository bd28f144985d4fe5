"""`demokit validate`: whether a dataset can be trusted, and saving what can be saved."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from demokit.text import say

if TYPE_CHECKING:
    from demokit.data.repair import Repaired
    from demokit.data.validation import Report

MAX_ROWS = 40


@click.command()
@click.argument("dataset", metavar="PATH|ID")
@click.option("--replay", is_flag=True, help="Restore every state, simulate all actions again.")
@click.option("--repair", is_flag=True, help="Keep the episodes that verify, drop the others.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Where --repair writes; default: in place of the dataset.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
@click.pass_context
def validate(
    ctx: click.Context, dataset: str, replay: bool, repair: bool, out: Path | None, as_json: bool
) -> None:
    """Check that a dataset is complete, consistent, unchanged and replayable.

    Exits with 1 when there are errors. Warnings are worth knowing and do not fail.
    """
    from demokit.cli.console import say_json
    from demokit.data.validation import validate as check

    if out is not None and not repair:
        raise click.UsageError("--out says where --repair writes: add --repair.", ctx)
    repaired = _repair(dataset, out, replay) if repair else None
    report = check(repaired.path if repaired else dataset, replay=replay)
    if as_json:
        extra = {"repair": repaired.to_json()} if repaired else {}
        say_json({**report.to_json(), **extra})
    else:
        if repaired:
            _print_repair(repaired)
        _print_report(report)
    ctx.exit(0 if report.ok else 1)


def _repair(dataset: str, out: Path | None, replay: bool) -> Repaired:
    from demokit.data.repair import repair

    return repair(dataset, out=out, replay=replay)


def _print_repair(repaired: Repaired) -> None:
    from demokit.cli.console import console, table

    if not repaired.written:
        say("Nothing to repair.")
        return
    if repaired.dropped:
        rows = table("Dropped", "episode", "why", numbers=("episode",))
        for index, reason in list(repaired.dropped.items())[:MAX_ROWS]:
            rows.add_row(str(index), reason)
        console().print(rows)
    say(f"Kept {repaired.kept} episodes in {repaired.path}, dropped {len(repaired.dropped)}.")


def _print_report(report: Report) -> None:
    from demokit.cli.console import console, table

    if report.findings:
        rows = table("Findings", "severity", "episode", "check", "what", numbers=("episode",))
        for found in report.findings[:MAX_ROWS]:
            episode = "" if found.episode is None else str(found.episode)
            rows.add_row(found.severity, episode, found.check, found.message)
        if len(report.findings) > MAX_ROWS:
            rows.add_row("", "", "", f"and {len(report.findings) - MAX_ROWS} more")
        console().print(rows)
    how = "a sample of states restored" if report.restored else "no state restored"
    if report.replayed:
        how = "every action simulated again"
    errors = len(report.errors)
    say(
        f"{report.path}: {errors} errors, {len(report.findings) - errors} warnings; "
        f"{len(report.sound)} of {report.episodes} episodes are sound ({how})."
    )
