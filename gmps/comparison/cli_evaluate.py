"""`demokit evaluate`: parse, call, print. Torch is imported inside the command."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from demokit.cli.config import config_option
from demokit.cli.number import Number
from demokit.errors import DemokitError
from demokit.options import REWARDS
from demokit.text import say
from demokit.types import SPLITS

if TYPE_CHECKING:
    from gmps.comparison.evaluated_run import EvaluatedRun
    from gmps.comparison.measure import Protocol
    from gmps.comparison.report import Comparison, Table
    from gmps.comparison.videos import Film


@click.command()
@click.argument(
    "runs", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path), metavar="RUN..."
)
@click.option("--task-set", help="Default: that of the training, if it has the split.")
@click.option(
    "--task-seed",
    type=click.IntRange(0),
    help="Of the draws of tasks. Default: that of the training.",
)
@click.option(
    "--split",
    type=click.Choice(SPLITS),
    multiple=True,
    default=("validation",),
    show_default=True,
    help="Tasks of this split; several if given again, such as --split validation --split ood.",
)
@click.option("--num-tasks", type=click.IntRange(1), help="First so many tasks. Default: all.")
@click.option("--reward", type=click.Choice(REWARDS), help="Default: that of the training.")
@click.option("--adapt-steps", type=click.IntRange(1), help="Of every method. Default: 5.")
@click.option(
    "--episodes",
    type=click.IntRange(1),
    help="Episodes of every new task, in place of --adapt-steps: each method takes as many steps "
    "as they fill.",
)
@click.option(
    "--demonstrations",
    type=click.IntRange(0),
    default=0,
    help="The expert's own, so many of every new task, are shown before the first episode.",
)
@click.option(
    "--rollouts",
    type=click.IntRange(2),
    multiple=True,
    help="K, roll-outs per task and adaptation step; default: as in training. Given again, a "
    "sweep: the first value is that of all other figures.",
)
@click.option(
    "--step-scale",
    type=Number(0, min_open=True),
    multiple=True,
    help="Factor on the run's own step sizes; default: 1. Given again, each value is drawn.",
)
@click.option(
    "--expert",
    help="The reference: a name or a checkpoint. Default: that of the demonstrations, or scripted.",
)
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the roll-outs."
)
@click.option(
    "--output-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the comparison. Default: evaluation/ in the first run.",
)
@click.option(
    "--videos",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Film so many tasks: before adaptation, after one step, and the expert.",
)
@click.option(
    "--jobs", type=click.IntRange(1), default=1, show_default=True, help="Curves side by side."
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
@config_option
def evaluate(
    runs: tuple[Path, ...],
    output_dir: Path | None,
    videos: int,
    jobs: int,
    as_json: bool,
    adapt_steps: int | None,
    **options: Any,
) -> None:
    """Fine-tune runs on held-out tasks by reward alone, and compare them.

    Runs whose folders differ only in a last number (gmps-0, gmps-1) are seeds of one method.
    On each task: episodes, an adaptation step from them, episodes, ... Methods are compared after
    equal numbers of episodes, whatever their steps take. Writes report.html and report.md,
    evaluation.csv, evaluation.json and pictures. What was measured is kept in the runs' folders:
    the same command continues an interrupted evaluation.
    """
    from demokit.cli.console import progress
    from gmps.comparison.evaluated_run import evaluated_runs
    from gmps.comparison.folder import write_folder
    from gmps.comparison.measure import Protocol, compare, num_steps

    folder = output_dir or (runs[0] if runs[0].is_dir() else runs[0].parent) / "evaluation"
    loaded, protocol = evaluated_runs(runs), Protocol(**options)
    if adapt_steps and protocol.episodes:
        raise click.UsageError("Name --episodes or --adapt-steps, not both.")
    if adapt_steps:
        protocol = replace(protocol, adapt_steps=adapt_steps)
    for label, rollouts in protocol.short(loaded).items():
        steps = protocol.steps(rollouts)
        what = f"{steps} steps of {rollouts} episodes" if steps > 1 else f"a step of {rollouts}"
        say(f"{label} takes {what}: {steps * rollouts} of {protocol.episodes}.", err=True)
    for run in loaded:
        of_run = protocol.variants(run.facts.episodes_per_step)
        run.require_steps(max(protocol.steps(variant.rollouts) for variant in of_run))
        if not run.facts.finished:
            say(f"{run.path} is not finished: it is evaluated as it is now.", err=True)
    if len({run.facts.demos for run in loaded} - {""}) > 1:
        say("The runs were not all trained on the same demonstrations.", err=True)
    if note := protocol.reference(loaded).note:
        say(note, err=True)
    with progress("adaptation steps", num_steps(loaded, protocol)) as report:
        comparison = compare(loaded, protocol, report, jobs)
    content = write_folder(comparison, folder, _film(loaded, protocol, videos, folder))
    if as_json:
        from demokit.cli.console import say_json

        say_json(content)
    else:
        _print_tables(comparison)
    say(f"Page:    {folder / 'report.html'}", err=True)
    say(f"Picture: {folder / 'evaluation.png'}", err=True)


def _film(runs: list[EvaluatedRun], protocol: Protocol, videos: int, folder: Path) -> list[Film]:
    """Videos of the first run of every method on a few tasks of every split.

    Where nothing can be drawn or written, the page does without them.
    """
    if not videos:
        return []
    from demokit.cli.console import progress
    from gmps.comparison.measure import films, num_films

    try:
        with progress("videos", num_films(runs, protocol, videos)) as done:
            return films(runs, protocol, videos, folder / "videos", done)
    except DemokitError as error:
        say(f"No videos: {error}", err=True)
        return []


def _print_tables(comparison: Comparison) -> None:
    """The verdict, and success and return by episodes; the page has the rest."""
    from gmps.comparison.report import plain_tables, told_table, verdict
    from gmps.comparison.rows import splits

    say(comparison.title)
    for split in splits(comparison.rows):
        say("", f"{verdict(comparison.rows, split)}")
        for table in plain_tables(comparison.rows, split):
            _print(table)
    told = told_table(comparison.told)
    say("", f"{told.caption}:", *(f"  {label}: {words}" for label, words in told.body))


def _print(table: Table) -> None:
    from demokit.cli.console import console
    from demokit.cli.console import table as make_table

    shown = make_table(table.caption, *table.header, numbers=table.header[2:])
    for line in table.body:
        shown.add_row(*line)
    console().print(shown)
