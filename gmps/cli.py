"""`demokit meta-train` and `demokit runs`: parse, call, print.

Torch is imported inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from demokit.cli.config import config_option, field_options
from demokit.errors import DemokitError
from demokit.text import say
from gmps.options import TrainConfig, differing_options

if TYPE_CHECKING:
    from gmps.experience.demos import DemoSet
    from gmps.methods.gmps.learner import Learned
    from gmps.runs.folder import Run


@click.command(name="meta-train")
@click.option("--demos", required=True, help="Dataset of demonstrations: a file or a Minari id.")
@click.option(
    "--output-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Run folder. Default: runs/FAMILY-METHOD-SEED.",
)
@click.option("--resume", is_flag=True, help="Continue the run in the folder from its checkpoint.")
@click.option("--overwrite", is_flag=True, help="Replace the run in the folder.")
@field_options(TrainConfig)
@config_option
def meta_train(
    demos: str, output_dir: Path | None, resume: bool, overwrite: bool, **options: Any
) -> None:
    """Meta-train a policy from demonstrations.

    Writes config.json, metrics.csv, TensorBoard scalars, step_sizes.csv and
    checkpoint.safetensors to the run folder. Ctrl-C keeps the last checkpoint; --resume
    continues from it bit for bit.
    """
    import torch

    from gmps.distributed import join
    from gmps.experience.demos import load_demos
    from gmps.runs.folder import Run

    world = join()
    with world.told_once():
        config = TrainConfig(**options)
        torch.set_num_threads(config.threads)
        loaded = load_demos(demos, config.demos_per_task, config.reward, config.labels)
        world.require_tasks(len(loaded.tasks))
        if world.is_main and len(loaded.tasks) == 1:
            say(f"{demos} has one training task: there is nothing to meta-learn.", err=True)
        folder = output_dir or Path("runs") / f"{loaded.family.name}-{config.method}-{config.seed}"
        run = Run(folder, config, demos, resume=resume, overwrite=overwrite, world=world)
        learned = _trained(loaded, run)
        if world.is_main:
            shown = f"{len(loaded.tasks)} tasks x {loaded.num_recorded} demonstrations"
            say(f"{folder}: {shown}, {_summary(learned, run)}")
        world.leave()


def _trained(demos: DemoSet, run: Run) -> Learned:
    """Carry out the run; the main process shows how far it is."""
    from demokit.cli.console import Stages
    from gmps.methods.gmps.algorithm import train
    from gmps.methods.imitation import train_imitation
    from gmps.progress import unheard

    config, is_main = run.config, run.world.is_main
    method = train if config.method == "gmps" else train_imitation
    what = f"{config.method} on {demos.family.name}"
    try:
        with Stages(what) if is_main else nullcontext(unheard) as report:
            return method(demos, run, report)
    except KeyboardInterrupt:
        if is_main:
            say(f"Stopped: continue with --resume --output-dir {run.folder}", err=True)
        raise
    finally:
        run.close()


def _summary(learned: Learned, run: Run) -> str:
    step = f"{learned.later_lr:g} (chosen on training tasks, see step_sizes.csv)"
    if learned.exploration is not None:
        step = "learned with the policy"
    steps = f"{learned.env_steps:,} environment steps{_and_expert(learned)}"
    early = ""
    if run.iteration < run.config.total_iterations:
        early = f", stopped after {run.iteration} iterations"
    return f"{steps}{early}, fine-tuning step size {step}"


def _and_expert(learned: Learned) -> str:
    steps = learned.expert_steps
    return f" and {steps:,} to train the expert" if steps else ""


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
        shown.add_row(
            name,
            found.family,
            found.config.method,
            str(found.config.seed),
            f"{found.iteration}" + ("" if found.finished else ", unfinished"),
            *(
                f"{found.scalars[name]:.{digits}f}" if name in found.scalars else "-"
                for name, digits in (("return_post", 1), ("success_post", 2))
            ),
            f"{found.env_steps:,}",
            differing_options(found.config),
        )
    console().print(shown)
    say("return, success: on the training tasks after one adaptation step, as last measured.")
