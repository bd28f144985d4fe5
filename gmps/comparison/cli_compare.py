"""`demokit compare`: parse, call, print. What is heavy is imported inside the command."""

from __future__ import annotations

import shlex
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import click

from demokit.errors import DemokitError
from demokit.text import say
from demokit.writing import refusal
from gmps.shipped import PLANS, shipped

if TYPE_CHECKING:
    from gmps.comparison.campaign import Campaign
    from gmps.comparison.estimate import Cost
    from gmps.comparison.processes import Command


@click.command()
@click.argument(
    "plan", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@click.option(
    "--plan",
    "named",
    type=click.Choice(list(shipped(PLANS))),
    help="In place of PLAN one that comes with demokit.",
)
@click.option("--list", "listed", is_flag=True, help="List the plans that come with demokit.")
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
@click.option(
    "--scale",
    type=click.FloatRange(0, 1, min_open=True),
    default=1.0,
    show_default=True,
    help="So much of the work, to try a plan: fewer seeds, then shorter trainings and fewer tasks "
    "that are evaluated.",
)
@click.option("--dry-run", is_flag=True, help="Print the commands that are left to do.")
@click.option(
    "--estimate",
    "asked",
    is_flag=True,
    help="Train a little of every method, and say what the plan takes: steps, hours, disk.",
)
@click.pass_context
def compare(
    ctx: click.Context,
    plan: Path | None,
    named: str | None,
    listed: bool,
    output_dir: Path | None,
    page: Path | None,
    only: tuple[str, ...],
    num_seeds: int | None,
    jobs: int,
    archive: Path | None,
    scale: float,
    dry_run: bool,
    asked: bool,
) -> None:
    """Carry out a PLAN of comparisons: record, train every seed, evaluate, write the page.

    Everything continues where it stopped: run the same command again. Several at once in one
    output folder, on machines that share it, divide the work: each recording, training and
    evaluation is done by one, and what one leaves unfinished another takes over. What fails is
    reported at the end and does not keep the others from being done. Exits with 1 when anything
    failed.
    """
    from gmps.comparison.campaign import Campaign
    from gmps.comparison.plan import load_plan
    from gmps.comparison.results import verdicts

    if listed:
        _list_plans()
        return
    if (plan is None) == (named is None):
        raise click.UsageError(
            "Name a PLAN or --plan, one of them; --list says which come with it."
        )
    _hear_of_ends()
    path = plan or shipped(PLANS)[str(named)]
    small = "" if scale == 1 else f"-{scale:g}"
    folder = output_dir or Path("runs") / (path.stem + small)
    content = load_plan(path) if scale == 1 else load_plan(path).scaled(scale)
    page = page or folder / "results.md"
    campaign = Campaign(content, folder, page, jobs, num_seeds, archive)
    chosen = campaign.chosen(only)
    if dry_run:
        _print([command for name in chosen for command in campaign.left(name)])
    if asked:
        _estimate(campaign, chosen)
    if dry_run or asked:
        return
    failed = _carry_out_all(campaign, chosen)
    for name, said in verdicts(folder, chosen).items():
        say(f"{name}: {said}")
    say(f"Page:  {campaign.page}", f"Index: {folder / 'index.html'}")
    for what, why in failed.items():
        say(f"Error: {what}: {why}", err=True)
    ctx.exit(1 if failed else 0)


def _hear_of_ends() -> None:
    """Whoever ends this process, or closes its terminal, ends the runs that it started."""
    for each in (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
        if signal.getsignal(each) == signal.SIG_DFL:  # under nohup it is ignored
            signal.signal(each, signal.default_int_handler)


def _list_plans() -> None:
    from demokit.cli.console import console, table
    from gmps.comparison.plan import load_plan

    rows = table("Plans: demokit compare --plan NAME", "name", "what", "comparisons", "seeds")
    for name, path in shipped(PLANS).items():
        plan = load_plan(path)
        rows.add_row(name, plan.title, ", ".join(plan.comparisons), str(len(plan.seeds)))
    console().print(rows)
    say(f"They are files, to be copied and changed: {path.parent}")


def _estimate(campaign: Campaign, names: list[str]) -> None:
    """Say what comparisons take, each seed of each method, and all in all."""
    from demokit.cli.console import console, progress, table
    from gmps.comparison.estimate import Cost, estimate

    seeds = len(campaign.plan.seeds)
    numbers = ("env steps", "hours", "MB")
    rows = table("Each seed takes, about", "comparison", "method", *numbers, numbers=numbers)
    known = list[Cost]()
    for name in names:
        total = len(campaign.plan.trainings(name)) // seeds
        with progress(f"{name}: methods tried", total) as done:
            found = estimate(campaign, name, done)
        known += [cost for cost in found.values() if isinstance(cost, Cost)]
        for row, cost in found.items():
            rows.add_row(name, row, *_in_words(cost))
    console().print(rows)
    hours = seeds * sum(cost.seconds for cost in known) / 3600
    size = seeds * sum(cost.size for cost in known) / 1e6
    say(
        f"{seeds} seeds: {hours:.1f} hours of one run after the other, {size:.0f} MB. Runs that "
        "are there count, too; what is not known does not, nor do datasets, the choice of step "
        "sizes and evaluations."
    )


def _in_words(cost: Cost | str) -> tuple[str, str, str]:
    if isinstance(cost, str):
        return "not known", cost, ""
    return f"{cost.env_steps:,.0f}", f"{cost.seconds / 3600:.2f}", f"{cost.size / 1e6:.1f}"


def _carry_out_all(campaign: Campaign, names: list[str]) -> dict[str, str]:
    """Every comparison, last those that other processes are at; returns what failed."""
    failed = {name: _carry_out(campaign, name, wait=False) for name in names}
    failed |= {
        name: _carry_out(campaign, name, wait=True) for name, why in failed.items() if why is None
    }
    return {what: said for why in failed.values() if why for what, said in why.items()}


def _carry_out(campaign: Campaign, name: str, *, wait: bool) -> dict[str, str] | None:
    """One comparison, with a bar; returns what failed, None where others are at something."""
    from demokit.cli.console import progress

    try:
        total = 100 * len(campaign.plan.trainings(name))
        trained = campaign.trained(name)
        with progress(f"{name}: hundredths of a run", total, start=trained) as done:
            return campaign.carry_out(name, done, wait=wait)
    except DemokitError as error:
        return {name: str(error)}
    except OSError as error:
        return {name: refusal(error)}


def _print(commands: list[Command]) -> None:
    if not commands:
        say("Nothing is left to do.", err=True)
    for command in commands:
        say(shlex.join(["demokit", *command.arguments]))
