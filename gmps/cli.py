"""`demokit meta-train`, `methods` and `runs`: parse, call, print.

Torch is imported inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from demokit.cli.config import config_option
from demokit.cli.grouped import grouped
from demokit.cli.typed import family_of_env
from demokit.errors import DemokitError
from demokit.text import say
from gmps.command import MethodCommand, MethodName
from gmps.method import DEFAULT, find_method, method_names
from gmps.options import differing_options
from gmps.shipped import PRESETS, shipped, shipped_file

if TYPE_CHECKING:
    from gmps.experience.demos import DemoSet
    from gmps.problem import Spent
    from gmps.runs.checkpoint import Trained
    from gmps.runs.folder import RunSummary


@click.command(name="meta-train", cls=MethodCommand)
@grouped(
    "What is learned from",
    click.option("--demos", help="Dataset of demonstrations: a file or a Minari id."),
    click.option("--env", help="Task family to learn by reward alone, without demonstrations."),
    click.option("--task-set", help="Task set of --env; default: its first one."),
    click.option("--tasks", type=click.IntRange(1), help="Training tasks of --env; default: all."),
    click.option(
        "--observation",
        type=click.Choice(["state", "vision"]),
        default="state",
        show_default=True,
        help="What policies see of --env.",
    ),
)
@grouped(
    "The run",
    click.option(
        "--method",
        type=MethodName(),
        default=DEFAULT,
        show_default=True,
        help="How to learn: `demokit methods`. --method NAME --help lists its options.",
    ),
    click.option(
        "--output-dir",
        type=click.Path(file_okay=False, path_type=Path),
        help="Run folder. Default: runs/FAMILY-METHOD-SEED.",
    ),
    click.option("--resume", is_flag=True, help="Continue the run from its checkpoint."),
    click.option("--overwrite", is_flag=True, help="Replace the run in the folder."),
    partial(config_option, find=partial(shipped_file, PRESETS), names=shipped(PRESETS)),
)
def meta_train(
    demos: str | None,
    env: str | None,
    task_set: str | None,
    tasks: int | None,
    observation: str,
    method: str,
    output_dir: Path | None,
    resume: bool,
    overwrite: bool,
    **options: Any,
) -> None:
    """Meta-train a policy from demonstrations, or by reward on the tasks of a family.

    Writes config.json, metrics.csv, TensorBoard scalars and checkpoint.safetensors to the run
    folder. Ctrl-C keeps the last checkpoint; --resume continues from it bit for bit.
    """
    from gmps.distributed import join
    from gmps.progress import in_words
    from gmps.runs.folder import last_scalars
    from gmps.training import Source, carry_out, options_of

    of_env = task_set, tasks, observation
    _require_one_source(method, demos, env, of_env)
    world = join()
    with world.told_once():
        checked = options_of(method, options)
        family = family_of_env(click.get_current_context(), env) if env else None
        source = Source(demos, family, *of_env)
        found = carry_out(
            source, method, checked, output_dir, resume=resume, overwrite=overwrite, world=world
        )
        if world.is_main:
            measured = in_words(last_scalars(found.run.metrics))
            say(f"{found.run.path}: {_summary(found.trained, found.demos, measured)}")
        world.leave()


def _require_one_source(
    method: str, demos: str | None, env: str | None, of_env: tuple[str | None, int | None, str]
) -> None:
    """Raise a usage error unless something is learned from, and one thing."""
    if demos and env:
        raise click.UsageError("Name --demos or --env, not both.")
    if demos and of_env != (None, None, "state"):
        raise click.UsageError("--task-set, --tasks and --observation belong to --env.")
    if not demos and (env is None or find_method(method).imitates):
        needed = "" if env is None else f", for {method} learns from demonstrations"
        raise click.UsageError(f"Missing option --demos{needed}: `demokit record` makes them.")


def _summary(trained: Trained, demos: DemoSet | None, measured: str) -> str:
    from gmps.method import HasStepSize

    learned_from = f"{len(trained.problem.tasks)} tasks"
    if demos is not None:
        learned_from += f" x {demos.num_recorded} demonstrations"
    parts = [learned_from, _spent(trained.spent)]
    if trained.iteration < trained.options.iterations:
        parts.append(f"stopped after {trained.iteration} iterations")
    learner = trained.learner
    if isinstance(learner, HasStepSize) and learner.step_size is not None:
        chosen = "chosen on training tasks, see step_sizes.csv"
        chosen = chosen if trained.spent.tuning else "stated"
        parts.append(f"fine-tuning step size {learner.step_size:g} ({chosen})")
    if measured:
        parts.append(f"on monitor tasks as last measured {measured}")
    return ", ".join(parts)


def _spent(spent: Spent) -> str:
    """The parts of what was spent that are not nothing."""
    parts = {
        "of demonstrations": spent.demonstrations,
        "of meta-training": spent.meta_training,
        "to choose a step size": spent.tuning,
        "to watch": spent.monitoring,
        "to train the expert": spent.expert_training,
    }
    found = ", ".join(f"{steps:,} {what}" for what, steps in parts.items() if steps)
    return f"environment steps: {found or 'none'}"


@click.command()
def methods() -> None:
    """List the methods of meta-learning: what they are told, and how they learn a new task."""
    from demokit.cli.console import console, table

    shown = table("Methods", "name", "what", "source", "demonstrations", "told", "adapts by")
    for name in method_names():
        found = find_method(name)
        needs = "needed" if found.imitates else "their tasks, or --env"
        shown.add_row(name, found.about, found.source, needs, found.told or "?", found.adapts)
    console().print(shown)
    say("The options of one: demokit meta-train --method NAME --help")


@click.command()
@click.argument(
    "root", default="runs", type=click.Path(exists=True, file_okay=False, path_type=Path)
)
def runs(root: Path) -> None:
    """List the training runs below a folder, side by side."""
    from demokit.cli.console import console, table
    from gmps.runs.folder import find_runs, summarise

    folders = find_runs(root)
    if not folders:
        raise DemokitError(f"No run below {root}: `demokit meta-train` makes one.")
    columns = ("run", "family", "method", "seed", "iterations", "return", "success", "steps")
    shown = table(f"Runs below {root}", *columns, "options", numbers=columns[3:])
    for folder in folders:
        name = str(folder.relative_to(root))
        try:
            found = summarise(folder)
        except DemokitError as error:
            shown.add_row(name, "unreadable", *[""] * (len(columns) - 1))
            say(f"Error: {error}", err=True)
            continue
        shown.add_row(name, *_row(found))
    console().print(shown)
    say(
        "return, success: on monitor tasks, held out where more can be drawn, after one adaptation "
        "step, as last measured. steps: of the environment, that the method learned from."
    )


def _row(found: RunSummary) -> list[str]:
    """The cells of a run behind its name."""
    trained, now = found.trained, found.underway
    measured = [
        f"{found.scalars[name]:.{digits}f}" if name in found.scalars else "-"
        for name, digits in (("return_after", 1), ("success_after", 2))
    ]
    told = [found.method, str(found.seed)]
    if trained is None:
        return ["-", *told, str(now), *measured, "-", ""]
    differing = ", ".join(f"{n}={v}" for n, v in differing_options(trained.options).items())
    done = f"{trained.iteration}" + ("" if trained.finished else ", unfinished")
    family, steps = trained.problem.family_name, f"{trained.spent.needed:,}"
    return [family, *told, str(now or done), *measured, steps, differing]
