"""`demokit train-expert`: parse, call, print. Torch is imported inside the command."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

import click

from demokit.cli.config import config_option, field_options
from demokit.cli.typed import family_of_env
from demokit.errors import not_installed
from demokit.text import say
from recorders import WEAK_SUCCESS
from recorders.sac.config import SacConfig

if TYPE_CHECKING:
    from demokit.types import Task
    from recorders.sac.train import Evaluation, Training

EXPERT_SUFFIX = ".safetensors"


@click.command(name="train-expert")
@click.option("--env", required=True, help="Task family: see `demokit envs`.")
@click.option("--task-set", help="Task set; default: paper where there is one, else uniform.")
@click.option("--tasks", type=click.IntRange(min=1), help="Number of tasks; default: all.")
@click.option(
    "--per-task", is_flag=True, help="A separate expert for every task, in a folder each."
)
@click.option(
    "--output-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the training. Default: runs/expert-FAMILY-SEED.",
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="NAME.safetensors, a copy of the finished expert; its metrics go beside it as .csv.",
)
@click.option("--resume", is_flag=True, help="Continue the training in the folder.")
@click.option("--overwrite", is_flag=True, help="Replace the training in the folder.")
@field_options(SacConfig)
@config_option
@click.pass_context
def train_expert(
    ctx: click.Context,
    /,
    env: str,
    task_set: str | None,
    tasks: int | None,
    per_task: bool,
    output_dir: Path | None,
    out: Path | None,
    resume: bool,
    overwrite: bool,
    **options: Any,
) -> None:
    """Train an expert by SAC, on privileged terms, the context and the dense reward.

    One contextual policy learns all training tasks of the task set. The folder gets config.json,
    metrics.csv, TensorBoard scalars, curve.png, checkpoint.safetensors, and expert.safetensors,
    the best expert so far: pass that file to `record --expert` and `meta-train --expert`. Ctrl-C
    keeps the last checkpoint, --resume continues from it.
    """
    if resume and overwrite:
        raise click.UsageError("--resume keeps what is there and --overwrite drops it: choose one.")
    _check_out(out, per_task=per_task)
    _require_sb3()
    from demokit.envs.tasks import make_tasks, task_sets
    from demokit.learning.device import find_device
    from recorders.sac.folder import make_room
    from recorders.sac.train import Training

    config = SacConfig(**options)
    family = family_of_env(ctx, env)
    chosen = task_set or next(iter(task_sets(family)))
    all_tasks = make_tasks(family, chosen, "train", num_tasks=tasks)
    folder = output_dir or Path("runs") / f"expert-{family.name}-{config.seed}"
    _spare_checkpoint(out, folder)
    groups = _groups(folder, all_tasks, per_task=per_task)
    find_device(config.device)
    _reserve(out)
    make_room(folder, tuple(groups), resume=resume, overwrite=overwrite)
    for each, own in groups.items():
        _train(Training(each, family, own, chosen, config, resume=resume, overwrite=overwrite))
    _report(folder, tuple(groups), family.name, out)


def _check_out(out: Path | None, *, per_task: bool) -> None:
    """Raise click.UsageError for an --out that cannot take an expert and its metrics."""
    if out is None:
        return
    if per_task:
        raise click.UsageError("With --per-task the folder is the expert: leave --out away.")
    if out.suffix != EXPERT_SUFFIX:
        raise click.UsageError(f"--out {out} must be named NAME{EXPERT_SUFFIX}: it is an expert.")


def _spare_checkpoint(out: Path | None, folder: Path) -> None:
    """Raise click.UsageError for an --out that would replace the training's own checkpoint."""
    from demokit.policies import CHECKPOINT

    if out is not None and out.resolve() == (folder / CHECKPOINT).resolve():
        raise click.UsageError(f"--out {out} is where the training keeps its checkpoint.")


def _groups(folder: Path, tasks: Sequence[Task], *, per_task: bool) -> dict[Path, tuple[Task, ...]]:
    """The folder of each training -> its tasks."""
    from recorders.sac.folder import task_folder

    if per_task:
        return {folder / task_folder(task.id): (task,) for task in tasks}
    return {folder: tuple(tasks)}


def _reserve(out: Path | None) -> None:
    """Make the folder of `out`; raises DemokitError where nothing can be written in it."""
    from demokit.writing import aside_of, explain_write

    if out is None:
        return
    with explain_write(out, "name another --out."):
        out.parent.mkdir(parents=True, exist_ok=True)
        aside = aside_of(out)
        aside.touch()
        aside.unlink()


def _train(training: Training) -> None:
    from demokit.cli.console import progress

    folder, name = training.folder, training.family.name
    start, total = training.agent.num_timesteps, training.config.total_steps
    try:
        with progress(f"steps on {name}", total, start=start) as update:
            training.run(lambda steps, found: update(min(steps, total), _note(found)))
    except KeyboardInterrupt:
        say("", _what_is_kept(folder), err=True)
        raise
    finally:
        training.close()


def _what_is_kept(folder: Path) -> str:
    """What a training that was stopped leaves, and how to go on."""
    from demokit.policies import CHECKPOINT

    kept = [each for each in sys.argv[1:] if each not in ("--resume", "--overwrite")]
    go_on = shlex.join(["demokit", *kept, "--resume"])
    if (folder / CHECKPOINT).exists():
        return f"{folder} keeps the last checkpoint; go on with: {go_on}"
    return f"{folder} has no checkpoint yet; start again with: {go_on}"


def _note(found: Evaluation | None) -> str | None:
    return None if found is None else str(found)


def _report(folder: Path, trained: Sequence[Path], family: str, out: Path | None) -> None:
    """Say how good the best expert is, name weak tasks, copy its files, and draw its curve.

    Other trainings than those in the folders `trained` may lie below `folder`.
    """
    from demokit.learning.expert import EXPERT_FILE, load_trained
    from demokit.learning.folder import METRICS
    from demokit.writing import write_whole
    from recorders.sac.curve import draw_curves

    training = load_trained(folder, family).training
    if out is not None:
        advice = f"{folder} has it all."
        write_whole(out, (folder / EXPERT_FILE).read_bytes(), advice)
        write_whole(out.with_suffix(".csv"), (folder / METRICS).read_bytes(), advice)
    draw_curves({each.name: each / METRICS for each in trained}, folder / "curve.png")
    returns, success = (list(training[name].values()) for name in ("returns", "success"))
    say(
        f"{out or folder}: return {mean(returns):.1f}, success {mean(success):.1%} over "
        f"{len(returns)} tasks; {training['env_steps']:,} environment steps."
    )
    for task, rate in training["success"].items():
        if rate < WEAK_SUCCESS:
            say(f"Weak: it solves {task} in {rate:.0%} of its episodes only.", err=True)


def _require_sb3() -> None:
    if find_spec("stable_baselines3") is None:
        raise not_installed("train-expert needs", "stable-baselines3")
