"""`demokit compare`: parse, call, print. What is heavy is imported inside the command."""

from __future__ import annotations

import shlex
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import click

from demokit.errors import DemokitError
from demokit.text import say

if TYPE_CHECKING:
    from gmps.comparison.campaign import Campaign
    from gmps.comparison.processes import Command


@click.command()
@click.argument("plan", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--output-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Datasets, runs, comparisons and logs. Default: runs/PLAN.",
)
@click.option(
    "--page",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The Markdown page, pictures beside it. Default: results.md in the output folder.",
)
@click.option("--only", multiple=True, help="This comparison; several if given again.")
@click.option("--num-seeds", type=click.IntRange(1), help="The first so many of the plan's seeds.")
@click.option(
    "--jobs", type=click.IntRange(1), default=2, show_default=True, help="Runs side by side."
)
@click.option(
    "--archive",
    type=click.Path(file_okay=False, path_type=Path),
    help="Small files of what was measured about every run go here, and runs that are here are not "
    "trained again.",
)
@click.option("--dry-run", is_flag=True, help="Print the commands that are left to do.")
@click.pass_context
def compare(
    ctx: click.Context,
    plan: Path,
    output_dir: Path | None,
    page: Path | None,
    only: tuple[str, ...],
    num_seeds: int | None,
    jobs: int,
    archive: Path | None,
    dry_run: bool,
) -> None:
    """Carry out a plan of comparisons: record, train every seed, evaluate, write the page.

    Everything continues where it stopped: run the same command again. What fails is reported at
    the end and does not keep the others from being done. Exits with 1 when anything failed.
    """
    from demokit.lock import Lock
    from gmps.comparison.campaign import Campaign
    from gmps.comparison.plan import load_plan
    from gmps.comparison.results import verdicts

    # Whoever ends this process, or closes its terminal, ends the runs that it started.
    for each in (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
        if signal.getsignal(each) == signal.SIG_DFL:  # under nohup it is ignored
            signal.signal(each, signal.default_int_handler)
    folder = output_dir or Path("runs") / plan.stem
    page = page or folder / "results.md"
    campaign = Campaign(load_plan(plan), folder, page, jobs, num_seeds, archive)
    chosen = campaign.chosen(only)
    if dry_run:
        for name in chosen:
            _print(campaign.left(name))
        return
    failed = dict[str, str]()
    with Lock(folder, "name another --output-dir.", inside=True):
        for name in chosen:
            failed |= _carry_out(campaign, name)
    for name, said in verdicts(folder, chosen).items():
        say(f"{name}: {said}")
    say(f"Page:  {campaign.page}", f"Index: {folder / 'index.html'}")
    for what, why in failed.items():
        say(f"Error: {what}: {why}", err=True)
    ctx.exit(1 if failed else 0)


def _carry_out(campaign: Campaign, name: str) -> dict[str, str]:
    """One comparison, with a bar; returns what failed."""
    from demokit.cli.console import progress

    try:
        total = 100 * len(campaign.plan.trainings(name))
        trained = campaign.trained(name)
        with progress(f"{name}: hundredths of a run", total, start=trained) as done:
            return campaign.carry_out(name, done)
    except DemokitError as error:
        return {name: str(error)}


def _print(commands: list[Command]) -> None:
    for command in commands:
        say(shlex.join(["demokit", *command.arguments]))
