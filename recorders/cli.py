"""`demokit record`: demonstrations of many tasks from an expert, or by hand."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

import click

from demokit.cli.config import config_option
from demokit.cli.grouped import GroupedCommand, grouped
from demokit.cli.number import Number
from demokit.cli.typed import family_of_env, is_typed, refuse_typed
from demokit.experts import NOBODY
from demokit.options import REWARDS
from demokit.text import say
from recorders import EPISODES_PER_TASK, SCRIPTED
from recorders.teleop.options import HandOptions, hand_options

if TYPE_CHECKING:
    from recorders.recording import Options, Recording

BY_HAND = tuple(field.name for field in fields(HandOptions) if field.name != "device")


@click.command(cls=GroupedCommand)
@grouped(
    "What is recorded",
    click.option("--env", required=True, help="Task family: see `demokit envs`."),
    click.option("--task-set", help="Task set; default: paper where there is one, else uniform."),
    click.option(
        "--split", help="train, validation, ood or monitor; default: train where there is one."
    ),
    click.option("--tasks", type=click.IntRange(min=1), help="Number of tasks; default: all."),
    click.option(
        "--num-episodes",
        type=click.IntRange(min=1),
        help="Episodes kept of all tasks together.",
    ),
    click.option(
        "--episodes-per-task",
        type=click.IntRange(min=1),
        help=f"Episodes kept of each task; default {EPISODES_PER_TASK}.",
    ),
    click.option("--only-success", is_flag=True, help="Keep successful episodes only."),
    click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True),
)
@grouped(
    "Who acts",
    click.option(
        "--expert",
        show_default=SCRIPTED,
        help="Who demonstrates: a name, or a file that train-expert wrote. By hand: who can take "
        f"over, the script where there is one; {NOBODY}: nobody.",
    ),
    click.option(
        "--noise",
        type=Number(min=0),
        default=0.2,
        show_default=True,
        help="Standard deviation of the noise on executed actions; labels have none.",
    ),
    click.option(
        "--batch-size",
        type=click.IntRange(min=1),
        default=64,
        show_default=True,
        help="Simultaneous episodes; changes the speed, not the episodes.",
    ),
)
@grouped(
    "What is seen and paid",
    click.option(
        "--observation",
        type=click.Choice(["state", "vision"]),
        default="state",
        show_default=True,
        help="What policies will see: the state, or images and the hand's position.",
    ),
    click.option(
        "--image-size",
        type=(click.IntRange(min=1), click.IntRange(min=1)),
        metavar="HEIGHT WIDTH",
        default=(48, 64),
        show_default=True,
        help="Size of the images, in pixels.",
    ),
    click.option(
        "--camera",
        multiple=True,
        default=("policy",),
        show_default=True,
        help="Camera of the images; several if given again.",
    ),
    click.option(
        "--reward",
        type=click.Choice(REWARDS),
        default="dense",
        show_default=True,
        help="Which reward to record; all are kept as privileged terms.",
    ),
)
@grouped(
    "The dataset",
    click.option(
        "--out",
        type=click.Path(path_type=Path),
        help="The dataset; default datasets/ENV.hdf5.",
    ),
    click.option("--resume", is_flag=True, help="Go on with, or extend, what is there."),
    click.option("--overwrite", is_flag=True, help="Replace what is there, once all is recorded."),
    click.option("--license", help="Licence of the dataset, such as CC-BY-4.0."),
    click.option("--operator", help="Who records, for the provenance."),
)
@grouped("By hand", hand_options)
@config_option
@click.pass_context
def record(ctx: click.Context, /, **given: object) -> None:
    """Record demonstrations of many tasks, from an expert or by hand, into one dataset.

    Every episode is safe on disk as soon as it is counted; stop at any time and go on with
    --resume.
    """
    from recorders.recording import carry_out, go_on

    options = _checked(ctx, given)
    found = carry_out(options, family_of_env(ctx, options.env))
    if options.hand.device is not None and found.saved < found.wanted:
        say(f"{found.saved} of {found.wanted} episodes are kept; {go_on()}", err=True)
    _report(found)


def _checked(ctx: click.Context, given: dict[str, object]) -> Options:
    """The options, after the checks that need no simulator; raises click.UsageError."""
    from recorders.recording import Options

    amounts = ("num_episodes", "episodes_per_task")
    if all(given[name] is not None for name in amounts):
        # An amount typed on the command line wins over the other one in the config file.
        typed = [name for name in amounts if is_typed(ctx, name)]
        if len(typed) != 1:
            raise click.UsageError("Give --num-episodes or --episodes-per-task, not both.", ctx)
        given[next(name for name in amounts if name not in typed)] = None
    if given["resume"] and given["overwrite"]:
        raise click.UsageError(
            "--resume keeps what is there and --overwrite drops it: choose one.", ctx
        )
    hand = HandOptions.taken_from(given)
    if hand.device:
        refuse_typed(ctx, ("noise", "batch_size"), "with --device")
    else:
        refuse_typed(ctx, BY_HAND, "without --device")
    if given["observation"] == "state":
        refuse_typed(ctx, ("image_size", "camera"), "without --observation vision")
    if hand.device is not None:
        if not any(given[name] for name in amounts):
            given["episodes_per_task"] = 1
        given["noise"] = 0.0
    path = given.pop("out") or Path("datasets") / f"{str(given['env']).replace(':', '-')}.hdf5"
    return Options(**given, path=path, hand=hand)  # type: ignore[arg-type]


def _report(found: Recording) -> None:
    from demokit.cli.console import console
    from demokit.cli.inspect import task_table
    from demokit.data import open_dataset
    from demokit.data.summary import summarize

    summary = summarize(open_dataset(found.path), ranges=False)
    out = console()
    out.print(task_table(summary))
    card = f" (card: {found.card})" if found.card else ""
    out.print(
        f"{summary.episodes} episodes of {len(summary.tasks)} tasks in {found.path}"
        f"{card}: success rate {summary.success_rate:.1%}, "
        f"mean return {summary.returns[1]:.2f}.",
        soft_wrap=True,
    )
    for task, rate in sorted(found.tally.weak().items()):
        say(f"Weak expert: it solves {task} in {rate:.0%} of its tries only.", err=True)
    if summary.metadata.license is None:
        say("No licence is stated: pass --license before you share it.", err=True)
