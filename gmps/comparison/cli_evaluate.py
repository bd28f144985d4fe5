"""`demokit evaluate`: parse, call, print. Torch is imported inside the command."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from demokit.cli.config import config_option
from demokit.cli.grouped import GroupedCommand, grouped
from demokit.cli.number import Number
from demokit.options import REWARDS
from demokit.text import say
from demokit.types import SPLITS

if TYPE_CHECKING:
    from gmps.comparison.report import Comparison, Table


@click.command(cls=GroupedCommand)
@click.argument(
    "runs", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path), metavar="RUN..."
)
@grouped(
    "The tasks",
    click.option("--task-set", help="Default: that of the training, if it has the split."),
    click.option(
        "--task-seed",
        type=click.IntRange(0),
        help="Of the draws of tasks. Default: that of the training.",
    ),
    click.option(
        "--split",
        type=click.Choice(SPLITS),
        multiple=True,
        default=("validation",),
        show_default=True,
        help="Tasks of this split; several if given again, such as --split validation --split ood.",
    ),
    click.option("--num-tasks", type=click.IntRange(1), help="First so many tasks. Default: all."),
    click.option("--reward", type=click.Choice(REWARDS), help="Default: that of the training."),
)
@grouped(
    "How runs adapt",
    click.option("--adapt-steps", type=click.IntRange(1), help="Of every method. Default: 5."),
    click.option(
        "--episodes",
        type=click.IntRange(1),
        help="Episodes of every new task, in place of --adapt-steps: each method takes as many "
        "steps as they fill.",
    ),
    click.option(
        "--demonstrations",
        type=click.IntRange(0),
        default=0,
        help="The expert's own, so many of every new task, are shown before the first episode.",
    ),
    click.option(
        "--rollouts",
        type=click.IntRange(2),
        multiple=True,
        help="K, roll-outs per task and adaptation step; default: as in training. Given again, a "
        "sweep: the first value is that of all other figures.",
    ),
    click.option(
        "--step-scale",
        type=Number(0, min_open=True),
        multiple=True,
        help="Factor on the run's own step sizes; default: 1. Given again, each value is drawn.",
    ),
    click.option(
        "--seed",
        type=click.IntRange(0),
        default=0,
        show_default=True,
        help="Seed of the roll-outs.",
    ),
)
@grouped(
    "What is made of it",
    click.option(
        "--expert",
        help="The reference: a name or a checkpoint. Default: that of the demonstrations, or "
        "scripted.",
    ),
    click.option(
        "--output-dir",
        type=click.Path(file_okay=False, path_type=Path),
        help="Folder of the comparison. Default: evaluation/ in the first run.",
    ),
    click.option(
        "--videos",
        type=click.IntRange(0),
        default=0,
        show_default=True,
        help="Film so many tasks: before adaptation, after one step, and the expert.",
    ),
    click.option(
        "--jobs",
        type=click.IntRange(1),
        default=1,
        show_default=True,
        help="Processes side by side.",
    ),
    click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON."),
)
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
    from gmps.comparison.evaluating import carry_out, protocol_of

    if adapt_steps and options["episodes"]:
        raise click.UsageError("Name --episodes or --adapt-steps, not both.")
    protocol = protocol_of({**options, "adapt_steps": adapt_steps})
    found = carry_out(
        runs, protocol, output_dir, videos=videos, jobs=jobs, tell=partial(say, err=True)
    )
    if as_json:
        from demokit.cli.console import say_json

        say_json(found.content)
    else:
        _print_tables(found.comparison)
    say(f"Page:    {found.folder / 'report.html'}", err=True)
    say(f"Picture: {found.folder / 'evaluation.png'}", err=True)


def _print_tables(comparison: Comparison) -> None:
    """The verdict, and success and return by episodes; the page has the rest."""
    from gmps.comparison.report import plain_tables, told_table
    from gmps.comparison.rows import splits

    say(comparison.title)
    for split in splits(comparison.rows):
        say("", comparison.said(split))
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
