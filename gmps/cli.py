"""`demokit meta-train`, `methods` and `runs`: parse, call, print.

Torch is imported inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from demokit.cli.config import config_option
from demokit.cli.grouped import grouped
from demokit.cli.typed import family_of_env
from demokit.errors import DemokitError
from demokit.options import AUTO
from demokit.text import say
from gmps.command import MethodCommand, MethodName
from gmps.method import DEFAULT, find_method, method_names
from gmps.options import RunOptions, differing_options
from gmps.shipped import PRESETS, shipped, shipped_file

if TYPE_CHECKING:
    from gmps.experience.demos import DemoSet
    from gmps.problem import Problem, Spent
    from gmps.runs.checkpoint import Trained
    from gmps.runs.folder import Run, RunSummary


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
    import torch

    from gmps.distributed import join
    from gmps.progress import in_words
    from gmps.runs.folder import Run, last_scalars
    from gmps.sources import problem_of_family

    source = _source(method, demos, env, (task_set, tasks, observation))
    world = join()
    with world.told_once():
        checked = find_method(method).options(**options)
        torch.set_num_threads(checked.threads)
        if demos is None:
            _require_reward(method, checked)
            family = family_of_env(click.get_current_context(), str(env))
            problem = problem_of_family(family, task_set, tasks, checked.reward, observation)
            loaded = None
        else:
            problem, loaded = _of_dataset(method, checked, demos)
        _require_fit(method, checked, problem, source)
        world.require_tasks(len(problem.tasks))
        folder = output_dir or Path("runs") / f"{problem.family_name}-{method}-{checked.seed}"
        run = Run(folder, method, checked, source, resume=resume, overwrite=overwrite, world=world)
        trained = _trained(run, problem, loaded)
        if world.is_main:
            measured = in_words(last_scalars(run.metrics))
            say(f"{folder}: {_summary(trained, loaded, measured)}")
        world.leave()


def _require_reward(method: str, options: RunOptions) -> None:
    """Raise DemokitError where a method's options have it learn from demonstrations."""
    if find_method(method).needs_demos(options):
        raise DemokitError(
            f"Missing option --demos, for so {method} learns from demonstrations: `demokit record` "
            "makes them."
        )


def _require_fit(method: str, options: RunOptions, problem: Problem, source: str) -> None:
    """Raise DemokitError, before there is a folder, unless the method can learn from this so."""
    about = find_method(method)
    if about.rolls_out:
        problem.require_simulation()
    problem.require_effect(options)
    if len(problem.tasks) < about.fewest_tasks:
        raise DemokitError(
            f"{source} has one training task, and {method} learns from what differs between tasks: "
            "record more of them, or clone this one with --method imitation."
        )


def _source(
    method: str, demos: str | None, env: str | None, of_env: tuple[str | None, int | None, str]
) -> str:
    """What is learned from, in words; raises a usage error unless it is one thing."""
    if demos and env:
        raise click.UsageError("Name --demos or --env, not both.")
    if demos:
        if of_env != (None, None, "state"):
            raise click.UsageError("--task-set, --tasks and --observation belong to --env.")
        return demos
    if env is None or find_method(method).imitates:
        needed = "" if env is None else f", for {method} learns from demonstrations"
        raise click.UsageError(f"Missing option --demos{needed}: `demokit record` makes them.")
    from gmps.sources import family_in_words

    return family_in_words(env, *of_env)


def _of_dataset(method: str, options: RunOptions, demos: str) -> tuple[Problem, DemoSet | None]:
    """The problem and, for a method that imitates, the demonstrations."""
    from gmps.experience.demos import load_demos
    from gmps.options import DemoOptions, LabelOptions
    from gmps.problem import Problem
    from gmps.sources import problem_of_dataset

    if not find_method(method).needs_demos(options):
        return problem_of_dataset(demos, options.reward), None
    num = options.demos_per_task if isinstance(options, DemoOptions) else 0
    labels = options.labels if isinstance(options, LabelOptions) else AUTO
    loaded = load_demos(demos, num, options.reward, labels)
    return Problem.of(loaded), loaded


def _trained(run: Run, problem: Problem, demos: DemoSet | None) -> Trained:
    """Carry out the run; the main process shows how far it is."""
    from demokit.cli.console import Stages
    from gmps.loop import train
    from gmps.progress import unheard

    is_main = run.world.is_main
    try:
        shown = Stages(f"{run.method} on {problem.family_name}") if is_main else None
        with shown or nullcontext(unheard) as report:
            return train(run, problem, demos, report)
    except KeyboardInterrupt:
        if is_main:
            say(f"Stopped: continue with --resume --output-dir {run.path}", err=True)
        raise
    finally:
        run.close()


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
        parts.append(f"on held-out tasks as last measured {measured}")
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
        "return, success: on held-out tasks of the training distribution after one adaptation "
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
