"""A recording from its options to its file, for `demokit record` and `demokit.record`."""

from __future__ import annotations

import math
import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

from demokit.asked import either
from demokit.cli.console import progress, quiet
from demokit.data import Dataset, DatasetWriter, Provenance, describe, open_dataset
from demokit.data.card import write_card
from demokit.data.labels import TELEOP
from demokit.data.metadata import DatasetMetadata, vision_space
from demokit.envs import given_family
from demokit.envs.batch import OBSERVATIONS, checked_vision, make_sims
from demokit.envs.family import Family
from demokit.envs.tasks import make_tasks, task_sets
from demokit.envs.vision import Vision
from demokit.errors import DemokitError, unknown_name
from demokit.experts import NOBODY, load_expert, training_of
from demokit.options import dashed
from demokit.protocols import Expert
from demokit.ranges import MOST
from demokit.text import say
from recorders import EPISODES_PER_TASK, SCRIPTED, WEAK_SUCCESS
from recorders.loop import Schedule, Tried, saved_attempts, spread
from recorders.loop import record as run
from recorders.noise import EpisodeNoise, NoisyExpert
from recorders.scripted import has_script
from recorders.teleop.options import HandOptions
from recorders.teleop.source import Nobody, check_hand


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to record: the options of `demokit record`, and the arguments of `demokit.record`.

    Raises:
        DemokitError: one of them is out of its range.
    """

    env: str
    path: Path
    expert: str | None = None
    task_set: str | None = None
    split: str | None = None
    tasks: int | None = None
    num_episodes: int | None = None
    episodes_per_task: int | None = None
    noise: float = 0.2
    reward: str = "dense"
    observation: str = "state"
    image_size: tuple[int, int] = (48, 64)
    camera: tuple[str, ...] = ("policy",)
    seed: int = 0
    resume: bool = False
    overwrite: bool = False
    only_success: bool = False
    license: str | None = None
    operator: str | None = None
    batch_size: int = 64
    hand: HandOptions = field(default_factory=HandOptions)
    progress: bool = True

    def __post_init__(self) -> None:
        """Check what the command line checks itself."""
        counts = ("tasks", "num_episodes", "episodes_per_task", "batch_size")
        for name in counts:
            given = getattr(self, name)
            if given is not None and not 1 <= given <= MOST:
                option = either(f"--{dashed(name)}", name)
                raise DemokitError(f"{option} must be from 1 to {MOST:,}, not {given:,}.")
        if not 0 <= self.noise < math.inf:
            raise DemokitError(f"noise must be a finite number from 0, not {self.noise}.")
        if self.observation not in OBSERVATIONS:
            raise unknown_name("observation", self.observation, OBSERVATIONS)
        if self.num_episodes and self.episodes_per_task:
            raise DemokitError("Name num_episodes or episodes_per_task, not both.")


class Tally:
    """Attempts and successes per task id in this run, rejected attempts included."""

    def __init__(self) -> None:
        self.tried: Counter[str] = Counter()
        self.solved: Counter[str] = Counter()

    def count(self, tried: Tried) -> None:
        """An attempt has ended."""
        self.tried[tried.episode.task.id] += 1
        self.solved[tried.episode.task.id] += tried.episode.success

    def weak(self) -> dict[str, float]:
        """Task id -> success rate, where it is below WEAK_SUCCESS."""
        rates = {task: self.solved[task] / count for task, count in self.tried.items()}
        return {task: rate for task, rate in rates.items() if rate < WEAK_SUCCESS}


class Recording(NamedTuple):
    """What was recorded: the dataset and its card, and how many episodes of how many wanted."""

    path: Path
    card: Path | None
    tally: Tally
    saved: int
    wanted: int


def carry_out(options: Options, family: Family) -> Recording:
    """Record, from where an unfinished recording is to its end.

    Args:
        options: how.
        family: of the name in the options.

    Raises:
        DemokitError: fewer episodes than asked for, where they would replace a dataset: they are
            saved beside it, and it is as it was; or something else of the options cannot be.
    """
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
            _spare_what_is_there(writer, total)
            path = writer.finish()
        except KeyboardInterrupt:
            # With nothing saved, --resume would extend what --overwrite was to replace.
            how = go_on() if len(writer) else "do it again."
            say("", f"{len(writer)} of {total} episodes are saved; {how}", err=True)
            raise
    return Recording(path, write_card(path), tally, len(writer), total)


def _spare_what_is_there(writer: DatasetWriter, total: int) -> None:
    """Raise DemokitError where a dataset would be replaced by less than was asked for."""
    if writer.replaces and 0 < len(writer) < total:
        raise DemokitError(
            f"{len(writer)} of {total} episodes are saved beside {writer.path}, which is as it was "
            f"until all are saved, or fewer are asked for: {go_on()}"
        )


def record_by_expert(
    env: str | Family, path: str | PathLike[str], *, camera: Sequence[str], **given: Any
) -> Dataset:
    """See `demokit.record`."""
    family = given_family(env)
    options = Options(env=family.name, path=Path(path), camera=tuple(camera), **given)
    return open_dataset(carry_out(options, family).path)


def _expert(options: Options) -> Expert:
    """Who demonstrates; by hand nobody need, the person does."""
    if options.hand.device is not None:
        default = SCRIPTED if has_script(options.env) else NOBODY
        if (options.expert or default) == NOBODY:
            return Nobody()
    return load_expert(options.expert or SCRIPTED, options.env)


def _observation(options: Options) -> str | Vision:
    if options.observation == "state":
        return "state"
    return Vision(*options.image_size, tuple(options.camera))


def _metadata(options: Options, family: Family, expert: Expert) -> DatasetMetadata:
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


def _fill(
    options: Options,
    family: Family,
    expert: Expert,
    writer: DatasetWriter,
    schedule: Schedule,
    total: int,
) -> Tally:
    """Record what is missing into the writer."""
    tally = Tally()
    missing = total - len(writer)
    if missing <= 0:
        return tally
    show = progress if options.progress else quiet
    with (
        make_sims(
            family,
            min(options.batch_size, missing),
            reward=options.reward,
            observation=_observation(options),
        ) as sims,
        show("saved", total, start=len(writer)) as update,
    ):
        episodes = run(
            sims,
            lambda seeds: NoisyExpert(expert, options.noise, EpisodeNoise(seeds)),
            writer.metadata.tasks,
            schedule,
            seed=options.seed,
            recorder=_recorder(options, expert),
            on_attempt=tally.count,
        )
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
) -> Tally:
    """Record what is missing by hand; what a person drops is not tallied."""
    from recorders.teleop.command import record_by_hand

    with make_sims(
        family, 1, reward=options.reward, num_threads=1, observation=_observation(options)
    ) as sims:
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
    return Tally()


def _schedule(options: Options, writer: DatasetWriter) -> tuple[Schedule, int]:
    """What to record, and how many episodes the dataset has at the end."""
    tasks = writer.metadata.tasks
    per_task = options.episodes_per_task or EPISODES_PER_TASK
    total = options.num_episodes or per_task * len(tasks)
    saved = saved_attempts(((r.task.id, r.options) for r in writer.records), tasks)
    quotas = spread(total, len(tasks))
    # A person may try as often as they like, and drops failures themselves.
    only_success = options.only_success and options.hand.device is None
    return Schedule(quotas, only_success=only_success, saved=saved), total


def go_on() -> str:
    """How to go on: the same command with --resume, the same call with resume=True."""
    arguments = [a for a in sys.argv[1:] if a not in ("--resume", "--overwrite")]
    typed = f"go on with: demokit {shlex.join([*arguments, '--resume'])}"
    return either(typed, "go on with resume=True")
