"""`demokit record`: demonstrations of many tasks from an expert, or by hand."""

from __future__ import annotations

import shlex
import sys
from collections import Counter
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import click

from demokit.cli.config import config_option
from demokit.cli.grouped import GroupedCommand, grouped
from demokit.cli.number import Number
from demokit.cli.typed import family_of_env, is_typed, refuse_typed
from demokit.experts import NOBODY, load_expert, training_of
from demokit.options import REWARDS
from demokit.text import say
from recorders.teleop.options import HandOptions, hand_options

if TYPE_CHECKING:
    from demokit.data.metadata import DatasetMetadata
    from demokit.data.writer import DatasetWriter
    from demokit.envs.family import Family
    from demokit.envs.vision import Vision
    from demokit.protocols import Expert
    from recorders.loop import Schedule, Tried

SCRIPTED = "scripted"
EPISODES_PER_TASK = 10
WEAK_SUCCESS = 0.5
BY_HAND = tuple(field.name for field in fields(HandOptions) if field.name != "device")


@dataclass(frozen=True)
class Options:
    """The options of `record`, each as on the command line."""

    env: str
    expert: str | None
    task_set: str | None
    split: str | None
    tasks: int | None
    num_episodes: int | None
    episodes_per_task: int | None
    noise: float
    reward: str
    observation: str
    image_size: tuple[int, int]
    camera: tuple[str, ...]
    out: Path | None
    seed: int
    resume: bool
    overwrite: bool
    only_success: bool
    license: str | None
    operator: str | None
    batch_size: int
    hand: HandOptions

    @property
    def path(self) -> Path:
        """Where the dataset goes."""
        return self.out or Path("datasets") / f"{self.env.replace(':', '-')}.hdf5"


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
    options = _checked(ctx, given)
    _record(options, family_of_env(ctx, options.env))


def _checked(ctx: click.Context, given: dict[str, object]) -> Options:
    """The options, after the checks that need no simulator; raises click.UsageError."""
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
    return Options(**given, hand=hand)  # type: ignore[arg-type]


def _record(options: Options, family: Family) -> None:
    from demokit.data import DatasetWriter
    from demokit.data.card import write_card
    from recorders.teleop.source import check_hand

    if options.hand.device is not None:
        check_hand(family)  # before an expert is asked for, which would not help
    expert = _expert(options)
    metadata = _metadata(options, family, expert)
    with DatasetWriter(
        options.path, metadata, resume=options.resume, overwrite=options.overwrite
    ) as writer:
        schedule, total = _schedule(options, writer)
        try:
            fill = _fill if options.hand.device is None else _fill_by_hand
            tally = fill(options, family, expert, writer, schedule, total)
            path = writer.finish()
        except KeyboardInterrupt:
            say("", f"{len(writer)} of {total} episodes are saved; {_go_on()}", err=True)
            raise
    card = write_card(path)
    if options.hand.device is not None and len(writer) < total:
        say(f"{len(writer)} of {total} episodes are kept; {_go_on()}", err=True)
    _report(path, card, tally)


def _expert(options: Options) -> Expert:
    """Who demonstrates; by hand nobody need, the person does."""
    from recorders.scripted import has_script
    from recorders.teleop.source import Nobody

    if options.hand.device is not None:
        default = SCRIPTED if has_script(options.env) else NOBODY
        if (options.expert or default) == NOBODY:
            return Nobody()
    return load_expert(options.expert or SCRIPTED, options.env)


def _observation(options: Options) -> str | Vision:
    from demokit.envs.vision import Vision

    if options.observation == "state":
        return "state"
    return Vision(*options.image_size, tuple(options.camera))


def _metadata(options: Options, family: Family, expert: Expert) -> DatasetMetadata:
    from demokit.data import Provenance, describe
    from demokit.data.labels import TELEOP
    from demokit.data.metadata import vision_space
    from demokit.envs.batch import checked_vision
    from demokit.envs.tasks import make_tasks, task_sets

    sets = task_sets(family)
    task_set = options.task_set or next(iter(sets))
    split = options.split or sets.get(task_set, ("train",))[0]
    if not options.split and "train" in sets.get(task_set, ()):
        split = "train"
    tasks = make_tasks(family, task_set, split, num_tasks=options.tasks, seed=options.seed)
    vision = checked_vision(family, _observation(options))
    return describe(
        family,
        reward=options.reward,
        observation_space=vision_space(family, vision) if vision else None,
        task_set=task_set,
        tasks=tasks,
        license=options.license,
        description=f"Demonstrations of {family.name} {_by_whom(options, expert)}: task set "
        f"{task_set}, {split} tasks.",
        provenance=Provenance(
            recorder=TELEOP if options.hand.device else _recorder(options, expert),
            expert=expert.name,
            noise_std=options.noise,
            seed=options.seed,
            only_success=options.only_success,
            operator=options.operator,
            trained=training_of(expert),
        ),
    )


def _recorder(options: Options, expert: Expert) -> str:
    """What kind of expert acts: a trained one is not named after the place of its file."""
    return "sac" if training_of(expert) else options.expert or SCRIPTED


def _by_whom(options: Options, expert: Expert) -> str:
    return "by hand" if options.hand.device else f"by the {expert.name} expert"


class _Tally:
    """Attempts and successes per task id in this run, rejected attempts included."""

    def __init__(self) -> None:
        self.tried: Counter[str] = Counter()
        self.solved: Counter[str] = Counter()

    def count(self, tried: Tried) -> None:
        self.tried[tried.episode.task.id] += 1
        self.solved[tried.episode.task.id] += tried.episode.success

    def weak(self) -> dict[str, float]:
        """Task id -> success rate, where it is below WEAK_SUCCESS."""
        rates = {task: self.solved[task] / count for task, count in self.tried.items()}
        return {task: rate for task, rate in rates.items() if rate < WEAK_SUCCESS}


def _fill(
    options: Options,
    family: Family,
    expert: Expert,
    writer: DatasetWriter,
    schedule: Schedule,
    total: int,
) -> _Tally:
    """Record what is missing into the writer."""
    from demokit.cli.console import progress
    from demokit.envs.batch import make_sims
    from recorders.loop import record as run
    from recorders.noise import EpisodeNoise, NoisyExpert

    tally = _Tally()
    missing = total - len(writer)
    if missing <= 0:
        return tally
    sims = make_sims(
        family,
        min(options.batch_size, missing),
        reward=options.reward,
        observation=_observation(options),
    )
    episodes = run(
        sims,
        lambda seeds: NoisyExpert(expert, options.noise, EpisodeNoise(seeds)),
        writer.metadata.tasks,
        schedule,
        seed=options.seed,
        recorder=_recorder(options, expert),
        on_attempt=tally.count,
    )
    with progress("saved", total, start=len(writer)) as update:
        for episode in episodes:
            update(writer.add(episode))
    if len(writer) < total:
        say(f"Only {len(writer)} of {total} episodes succeeded within the tries allowed.", err=True)
    return tally


def _fill_by_hand(
    options: Options,
    family: Family,
    expert: Expert,
    writer: DatasetWriter,
    schedule: Schedule,
    total: int,
) -> _Tally:
    """Record what is missing by hand; what a person drops is not tallied."""
    from demokit.envs.batch import make_sims
    from recorders.teleop.command import record_by_hand

    sims = make_sims(
        family, 1, reward=options.reward, num_threads=1, observation=_observation(options)
    )
    record_by_hand(
        options.hand,
        sims,
        expert,
        writer,
        schedule,
        target=total,
        seed=options.seed,
        only_success=options.only_success,
    )
    return _Tally()


def _schedule(options: Options, writer: DatasetWriter) -> tuple[Schedule, int]:
    """What to record, and how many episodes the dataset has at the end."""
    from recorders.loop import Schedule, saved_attempts, spread

    tasks = writer.metadata.tasks
    per_task = options.episodes_per_task or EPISODES_PER_TASK
    total = options.num_episodes or per_task * len(tasks)
    saved = saved_attempts(((r.task.id, r.options) for r in writer.records), tasks)
    quotas = spread(total, len(tasks))
    # A person may try as often as they like, and drops failures themselves.
    only_success = options.only_success and options.hand.device is None
    return Schedule(quotas, only_success=only_success, saved=saved), total


def _go_on() -> str:
    """How to go on: the same command with --resume."""
    arguments = [a for a in sys.argv[1:] if a not in ("--resume", "--overwrite")]
    return f"go on with: demokit {shlex.join([*arguments, '--resume'])}"


def _report(path: Path, card: Path | None, tally: _Tally) -> None:
    from demokit.cli.console import console
    from demokit.cli.inspect import task_table
    from demokit.data import open_dataset
    from demokit.data.summary import summarize

    summary = summarize(open_dataset(path), ranges=False)
    out = console()
    out.print(task_table(summary))
    out.print(
        f"{summary.episodes} episodes of {len(summary.tasks)} tasks in {path}"
        f"{f' (card: {card})' if card else ''}: success rate {summary.success_rate:.1%}, "
        f"mean return {summary.returns[1]:.2f}.",
        soft_wrap=True,
    )
    for task, rate in sorted(tally.weak().items()):
        say(f"Weak expert: it solves {task} in {rate:.0%} of its tries only.", err=True)
    if summary.metadata.license is None:
        say("No licence is stated: pass --license before you share it.", err=True)
