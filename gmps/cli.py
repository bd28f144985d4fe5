"""`demokit meta-train` and `demokit evaluate`: parse, call, print.

Torch is imported inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from demokit.cli.config import config_option
from demokit.errors import DemokitError
from demokit.types import SPLITS
from gmps.config import TrainConfig, differing_options

if TYPE_CHECKING:
    from gmps.learned import Learned
    from gmps.report import Row

Function = TypeVar("Function", bound=Callable[..., Any])


def _train_options(command: Function) -> Function:
    """An option for every field of TrainConfig."""
    for option in reversed(fields(TrainConfig)):
        choices = option.metadata["choices"]
        is_flag = isinstance(option.default, bool)
        name = option.name.replace("_", "-")
        command = click.option(
            f"--{name}/--no-{name}" if is_flag else f"--{name}",
            option.name,
            type=click.Choice(choices) if choices else type(option.default),
            default=option.default,
            show_default=True,
            help=option.metadata["help"],
        )(command)
    return command


@click.command(name="meta-train")
@click.option("--demos", required=True, help="Dataset of demonstrations: a file or a Minari id.")
@click.option(
    "--output-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Run folder. Default: runs/FAMILY-METHOD-SEED.",
)
@click.option("--resume", is_flag=True, help="Continue the run in the folder from its checkpoint.")
@click.option("--overwrite", is_flag=True, help="Replace the run in the folder.")
@_train_options
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
    loaded = load_demos(demos, config.demos_per_task)
    folder = output_dir or Path("runs") / f"{loaded.family.name}-{config.method}-{config.seed}"
    run = Run(folder, config, demos, resume=resume, overwrite=overwrite)
    is_meta = config.method == "gmps"
    total = config.iterations if is_meta else config.imitation_steps
    method = train if is_meta else train_imitation
    try:
        with progress(f"{config.method} on {loaded.family.name}", total) as done:
            learned = method(loaded, run, lambda iteration, scalars: done(iteration + 1))
    except KeyboardInterrupt:
        click.echo(f"Stopped: continue with --resume --output-dir {folder}", err=True)
        raise
    finally:
        run.close()
    click.echo(
        f"{folder}: {learned.env_steps:,} environment steps, fine-tuning step size "
        f"{learned.later_lr:g} (chosen on training tasks, see step_sizes.csv)"
    )


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


@click.command()
@click.argument(
    "runs", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path), metavar="RUN..."
)
@click.option(
    "--task-set", help="Task set. Default: 'paper' where the family has it, or 'uniform'."
)
@click.option("--split", type=click.Choice(SPLITS), default="validation", show_default=True)
@click.option("--num-tasks", type=click.IntRange(1), help="First so many tasks. Default: all.")
@click.option(
    "--reward", type=click.Choice(["dense", "sparse"]), help="Default: that of the training."
)
@click.option("--adapt-steps", type=click.IntRange(1), default=5, show_default=True)
@click.option(
    "--rollouts",
    type=click.IntRange(2),
    help="Roll-outs per task and adaptation step. Default: as in training.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the roll-outs.")
@click.option(
    "--output-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the comparison. Default: evaluation/ in the first run.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
@config_option
def evaluate(
    runs: tuple[Path, ...], output_dir: Path | None, as_json: bool, **options: Any
) -> None:
    """Fine-tune runs on held-out tasks by reward alone, and compare them.

    Runs whose folders differ only in a trailing number (gmps-0, gmps-1) are seeds of one method.
    From theta, on each task: roll-outs, one policy-gradient step, roll-outs, ... Writes
    evaluation.csv, evaluation.json, evaluation.png and report.md.
    """
    import json

    from gmps.report import markdown as to_markdown
    from gmps.report import write_json, write_rows

    folder = output_dir or runs[0] / "evaluation"
    rows, budget, title = _evaluate_runs(runs, **options)
    folder.mkdir(parents=True, exist_ok=True)
    write_rows(folder / "evaluation.csv", rows)
    content = write_json(folder / "evaluation.json", rows, budget)
    (folder / "report.md").write_text(to_markdown(title, rows, budget))
    if as_json:
        click.echo(json.dumps(content))
    else:
        _print_tables(rows, title)
    _draw(folder, title)
    click.echo(f"Picture: {folder / 'evaluation.png'}", err=True)
    click.echo(f"Page:    {folder / 'report.md'}", err=True)


def _evaluate_runs(
    runs: tuple[Path, ...],
    *,
    task_set: str | None,
    split: str,
    num_tasks: int | None,
    reward: str | None,
    adapt_steps: int,
    rollouts: int | None,
    seed: int,
) -> tuple[list[Row], list[dict[str, Any]], str]:
    """Evaluate every run on the same tasks: the rows, the runs' budgets, a title."""
    import numpy as np

    from demokit.cli.console import progress
    from demokit.envs.tasks import make_tasks, task_sets
    from gmps.evaluate import evaluate as evaluate_run
    from gmps.learned import load
    from gmps.references import reference_rows
    from gmps.report import label_of, rows_of

    loaded = [(path, load(path)[0]) for path in runs]
    family = _common_family(loaded)
    chosen = task_set or next(iter(task_sets(family)))
    tasks = make_tasks(family, chosen, split, num_tasks=num_tasks)
    rows: list[Row] = []
    budget: list[dict[str, Any]] = []
    measured = count(1)
    with progress("adaptation steps", len(loaded) * (adapt_steps + 1)) as done:
        for path, learned in loaded:
            curve = evaluate_run(
                learned,
                tasks,
                num_steps=adapt_steps,
                rollouts_per_task=rollouts or learned.config.rollouts_per_task,
                seed=seed,
                reward=reward,
                on_step=lambda _: done(next(measured)),
            )
            rows += rows_of(label_of(path), learned, tasks, curve)
            budget.append(_budget(path, learned))
    paid = reward or loaded[0][1].reward
    rows += reference_rows(family, tasks, paid, np.random.default_rng(seed))
    return rows, budget, f"{family.name}, {len(tasks)} {split} tasks of '{chosen}'"


def _common_family(loaded: list[tuple[Path, Learned]]) -> Any:
    first_path, first = loaded[0]
    for path, learned in loaded[1:]:
        if learned.family_name != first.family_name:
            raise DemokitError(
                f"{path} was trained on {learned.family_name}, {first_path} on "
                f"{first.family_name}: compare runs of one family."
            )
    return first.family


def _budget(path: Path, learned: Learned) -> dict[str, Any]:
    """What a run took, as a row of the report."""
    return {
        "run": path.name,
        "seed": learned.config.seed,
        "environment steps": f"{learned.env_steps:,}",
        "fine-tuning step size": learned.later_lr,
        "options other than default": differing_options(learned.config) or "none",
    }


def _print_tables(rows: list[Row], title: str) -> None:
    """Means by adaptation step, a table per measure; the intervals stand in the page."""
    from demokit.cli.console import console, table
    from gmps.report import ACTORS, AREA_STEPS, area, labels, means, references

    steps = [str(step) for step in sorted({row.step for row in rows})]
    for measure, digits in (("success", 2), ("episode_return", 1)):
        name = measure.replace("episode_", "")
        last = f"area 0-{AREA_STEPS}"
        shown = table(
            f"{name.capitalize()} after so many policy-gradient steps: {title}",
            *("method", "policy", *steps, last),
            numbers=(*steps, last),
        )
        for label in labels(rows):
            for actor in ACTORS:
                cells = [f"{mean:.{digits}f}" for mean in means(rows, label, actor, measure)]
                total = f"{area(rows, label, actor, measure):.{digits}f}"
                shown.add_row(label, actor, *cells, total)
        for reference, value in references(rows, measure).items():
            shown.add_row(reference, "reference", f"{value:.{digits}f}")
        console().print(shown)


def _draw(folder: Path, title: str) -> None:
    from gmps.plot import plot_adaptation

    plot_adaptation(folder / "evaluation.csv", folder / "evaluation.png", title)
