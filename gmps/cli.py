"""`demokit meta-train` and `demokit runs`: parse, call, print.

Torch is imported inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from demokit.cli.config import config_option, field_options
from demokit.errors import DemokitError
from gmps.config import TrainConfig, differing_options

if TYPE_CHECKING:
    from gmps.learned import Learned


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

    from demokit.cli.console import progress
    from gmps.baselines.imitation import train_imitation
    from gmps.demos import load_demos
    from gmps.runs import Run
    from gmps.train import train

    config = TrainConfig(**options)
    torch.set_num_threads(config.threads)
    loaded = load_demos(demos, config.demos_per_task, config.reward)
    folder = output_dir or Path("runs") / f"{loaded.family.name}-{config.method}-{config.seed}"
    run = Run(folder, config, demos, resume=resume, overwrite=overwrite)
    method = train if config.method == "gmps" else train_imitation
    try:
        with progress(f"{config.method} on {loaded.family.name}", config.total_iterations) as done:
            learned = method(loaded, run, lambda iteration, scalars: done(iteration + 1))
    except KeyboardInterrupt:
        click.echo(f"Stopped: continue with --resume --output-dir {folder}", err=True)
        raise
    finally:
        run.close()
    step = f"{learned.later_lr:g} (chosen on training tasks, see step_sizes.csv)"
    if learned.exploration is not None:
        step = "learned with the policy"
    steps = f"{learned.env_steps:,} environment steps{_and_expert(learned)}"
    click.echo(f"{folder}: {steps}, fine-tuning step size {step}")


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
    from gmps.runs import find_runs, summarise

    folders = find_runs(root)
    if not folders:
        raise DemokitError(f"No run below {root}: `demokit meta-train` makes one.")
    columns = ("run", "family", "method", "seed", "iterations", "return", "success", "steps")
    shown = table(f"Runs below {root}", *columns, "options", numbers=columns[3:])
    for folder in folders:
        found = summarise(folder)
        shown.add_row(
            str(folder.relative_to(root)),
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
    click.echo("return, success: on the training tasks after one adaptation step.")
