"""`demokit adapt` and `rollout`: parse, call, print. Torch is imported inside the commands."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Self

import click

from demokit.cli.config import config_option
from demokit.cli.grouped import GroupedCommand, grouped
from demokit.cli.typed import family_of_env, require_mp4
from demokit.errors import DemokitError
from demokit.lock import Lock
from demokit.options import REWARDS
from demokit.policies import CHECKPOINT
from demokit.text import say
from demokit.writing import require_free

if TYPE_CHECKING:
    from demokit.cli.console import Update
    from demokit.data import DatasetWriter
    from demokit.types import Episode, Task
    from gmps.agent.agent import TrainedAgent
    from gmps.agent.simulated import Adaptation

_POLICY = click.argument("policy", type=click.Path(exists=True, path_type=Path), metavar="RUN")
_ENV = click.option("--env", help="Task family: that of the run, which is the default.")
_REWARD = click.option("--reward", type=click.Choice(REWARDS), help="Default: that of the run.")
_SEED = click.option("--seed", type=click.IntRange(0), default=0, show_default=True)


@click.command(cls=GroupedCommand)
@_POLICY
@grouped(
    "The task",
    _ENV,
    click.option("--task", help="Id of the task, such as push/paper/validation/03."),
    click.option("--context", help="In place of --task its context, such as 0.3,-0.2."),
    _REWARD,
)
@grouped(
    "What it learns from",
    click.option(
        "--demos",
        type=click.Path(path_type=Path),
        help="Demonstrations of the task, and of no other: a dataset. They are shown first.",
    ),
    click.option(
        "--episodes",
        type=click.IntRange(0),
        help="Episodes that it learns from, in all. 0: from demonstrations alone.",
    ),
    click.option(
        "--adapt-steps",
        type=click.IntRange(0),
        help="In place of --episodes. Default: 1, with --demos 0.",
    ),
    click.option(
        "--rollouts", type=click.IntRange(1), help="K, episodes of a step; default: as in training."
    ),
    _SEED,
)
@grouped(
    "What is kept",
    click.option(
        "--out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The policy."
    ),
    click.option(
        "--video",
        type=click.Path(dir_okay=False, path_type=Path),
        help="MP4 of an episode before and after.",
    ),
    click.option(
        "--roll-outs",
        type=click.Path(path_type=Path),
        help="Dataset of the episodes that it learned from.",
    ),
    click.option("--overwrite", is_flag=True, help="Replace the files that are there."),
)
@config_option
@click.pass_context
def adapt(
    ctx: click.Context,
    policy: Path,
    env: str | None,
    task: str | None,
    context: str | None,
    demos: Path | None,
    episodes: int | None,
    adapt_steps: int | None,
    rollouts: int | None,
    reward: str | None,
    seed: int,
    out: Path,
    video: Path | None,
    roll_outs: Path | None,
    overwrite: bool,
) -> None:
    """Adapt a run to one task of its family by simulation, and keep the policy.

    RUN is a run folder, or a policy that was adapted before: it goes on. The task is named, or is
    that of the demonstrations. Prints what the policy's mean earns after each adaptation step.
    `demokit.load_policy` and `demokit rollout` take what is written.
    """
    from demokit.cli.console import progress
    from gmps.agent.simulated import adapt as adapt_to

    require_free([out, video, roll_outs], overwrite)
    require_mp4(ctx, video)
    _require_apart([out, video, roll_outs], policy, demos)
    agent = before = _agent(ctx, policy, env, reward)
    if demos is None:
        if 0 in (episodes, adapt_steps):
            raise click.UsageError("There is nothing to learn from: name episodes, or --demos.")
        chosen = _task(agent, task, context)
    else:
        shown, agent = agent.shown_task(demos, seed)
        chosen = _task(agent, task, context, shown)
        adapt_steps = 0 if episodes is None and adapt_steps is None else adapt_steps
    if video is not None:
        agent.trained.problem.family.require_drawn()
    steps, num = agent.plan(adapt_steps, episodes, rollouts)
    what = f"Episodes from which {agent.method} learned {chosen.id}."
    with _Kept(roll_outs, agent, [chosen], seed, what, overwrite, None) as kept, ExitStack() as own:
        for path in filter(None, (out, video)):
            own.enter_context(Lock(path, "name another file."))
        with progress("adaptation steps", steps + 1) as report:
            on_step = partial(_counted, report)
            keep = roll_outs is not None
            found = adapt_to(agent, chosen, steps, num, seed=seed, keep=keep, on_step=on_step)
        found.agent.save(out, overwrite=overwrite)
        _print_curve(found, chosen, agent.episodes)
        say(f"Policy: {out}")
        if roll_outs is not None:
            kept.add(found.episodes)
            say(f"Roll-outs: {kept.finish()}")
        if video is not None:
            _film(video, before, found.agent, chosen, seed)
            say(f"Video: {video}")


def _counted(report: Update, step: int) -> None:
    report(step + 1)


@click.command()
@_POLICY
@_ENV
@click.option("--task", multiple=True, help="Id of a task; several if given again.")
@click.option("--context", multiple=True, help="In place of --task a context, such as 0.3,-0.2.")
@click.option(
    "--episodes",
    type=click.IntRange(1),
    default=10,
    show_default=True,
    help="Episodes of each task.",
)
@_REWARD
@_SEED
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="The dataset, NAME.hdf5."
)
@click.option("--overwrite", is_flag=True, help="Replace the dataset that is there.")
@config_option
@click.pass_context
def rollout(
    ctx: click.Context,
    policy: Path,
    env: str | None,
    task: tuple[str, ...],
    context: tuple[str, ...],
    episodes: int,
    reward: str | None,
    seed: int,
    out: Path,
    overwrite: bool,
) -> None:
    """Record what a policy does, by its mean, as a dataset like any other.

    RUN is a run folder, which acts as before adaptation, or a policy that `adapt` has written.
    """
    from demokit.cli.console import progress
    from gmps.agent.simulated import acted

    require_free([out], overwrite)
    _require_apart([out], policy)
    agent = _agent(ctx, policy, env, reward)
    tasks = [_task(agent, name, None) for name in task]
    tasks += [_task(agent, None, numbers) for numbers in context]
    if not tasks:
        raise click.UsageError("Name the tasks: --task or --context.")
    returns, solved = [], []
    what = f"What {agent.method} does {_when(agent)}."
    with _Kept(out, agent, tasks, seed, what, overwrite) as kept:
        with progress("episodes", episodes * len(tasks)) as report:
            for each in tasks:
                found = acted(agent, each, episodes, seed=seed)
                kept.add(found)
                returns += [episode.episode_return for episode in found]
                solved += [episode.success for episode in found]
                report(len(returns))
        path = kept.finish()
    mean, success = sum(returns) / len(returns), sum(solved) / len(solved)
    say(f"{path}: {len(returns)} episodes, mean return {mean:.2f}, success {success:.1%}.")


def _require_apart(outputs: Sequence[Path | None], policy: Path, demos: Path | None = None) -> None:
    """Raise DemokitError for an output that is read, or is the checkpoint of a training."""
    from demokit.data.paths import resolve
    from gmps.agent.agent import require_own

    read = [policy, policy / CHECKPOINT, *([] if demos is None else [resolve(demos)])]
    for path in filter(None, outputs):
        if path.resolve() in [each.resolve() for each in read]:
            raise DemokitError(f"{path} is read by this command: name another file.")
        require_own(path)


def _when(agent: TrainedAgent) -> str:
    """How far it has adapted, in words."""
    from gmps.comparison.episodes import counted

    if agent.steps:
        return f"after {counted(agent.episodes)}"
    return "told of the task" if agent.trained.adapted else "before adaptation"


class _Kept:
    """The dataset of what a policy did, if it is wanted: all of it, or none where something fails.

    Its place is checked and taken before anything is simulated.
    """

    def __init__(
        self,
        path: Path | None,
        agent: TrainedAgent,
        tasks: Sequence[Task],
        seed: int,
        what: str,
        overwrite: bool,
        noise_std: float | None = 0.0,
    ) -> None:
        from demokit.data import DatasetWriter
        from gmps.agent.simulated import described

        self._writer: DatasetWriter | None = None
        if path is not None:
            metadata = described(agent, tasks, seed, what, noise_std)
            self._writer = DatasetWriter(path, metadata, overwrite=overwrite, all_or_none=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()

    def add(self, episodes: Sequence[Episode]) -> None:
        """Save some more."""
        assert self._writer is not None
        for episode in episodes:
            self._writer.add(episode)

    def finish(self) -> Path:
        """The file, and its card."""
        from demokit.data.card import write_card

        assert self._writer is not None
        path = self._writer.finish()
        write_card(path)
        return path


def _agent(ctx: click.Context, policy: Path, env: str | None, reward: str | None) -> TrainedAgent:
    from gmps.agent.agent import load_policy
    from gmps.agent.simulated import paid

    named = family_of_env(ctx, env).name if env else None
    agent = load_policy(policy)
    if not agent.trained.finished:
        say(f"{policy} is not finished: it is taken as it is now.", err=True)
    if named not in (None, agent.family):
        raise DemokitError(f"{policy} was trained on {agent.family}: it cannot act in {named}.")
    return paid(agent, reward)


def _task(
    agent: TrainedAgent, name: str | None, context: str | None, shown: Task | None = None
) -> Task:
    """The task that was named: one of the training, or of the family, or one of a context.

    Where nothing was, the one that was shown; raises DemokitError for any other than that.
    """
    if shown is not None and name is context is None:
        return shown
    if name is not None and context is None:
        found = _named_task(agent, name)
    elif context is not None and name is None:
        found = _typed_task(agent, context)
    else:
        raise click.UsageError("Name the task: --task or --context, one of them.")
    if shown is not None and not _is_same(found, shown):
        raise DemokitError(
            f"--demos shows {shown.id}, which is not {found.id}: name that, or none."
        )
    return found


def _named_task(agent: TrainedAgent, name: str) -> Task:
    from demokit.envs.tasks import find_task

    problem = agent.trained.problem
    known = {task.id: task for task in problem.tasks}
    return known[name] if name in known else find_task(problem.family, name)


def _typed_task(agent: TrainedAgent, context: str) -> Task:
    from demokit.types import Task

    family = agent.trained.problem.family
    try:
        numbers = tuple(float(part) for part in context.split(","))
    except ValueError:
        numbers = ()
    width = family.context.width
    if len(numbers) not in (width, width + len(family.nominal_dynamics)):
        raise DemokitError(
            f"--context {context}: a task of {agent.family} is told by {width} numbers, "
            f"{', '.join(family.context.names)}, with commas between them."
        )
    said = ",".join(repr(number).removesuffix(".0") for number in numbers)
    return Task(agent.family, f"{agent.family}/typed/{said}", numbers, "validation")


def _is_same(one: Task, other: Task) -> bool:
    """Whether two contexts are one, as far as single precision tells."""
    import numpy as np

    ours, theirs = (np.array(each.context, np.float32) for each in (one, other))
    return np.array_equal(ours, theirs)


def _print_curve(found: Adaptation, task: Task, before: int) -> None:
    """What was earned by episodes of experience."""
    from demokit.cli.console import console, table

    columns = ("episodes", "return", "success", "exploring return", "exploring success")
    shown = table(f"{found.agent.method} on {task.id}", *columns, numbers=columns)
    curve = found.curve
    for step in range(len(curve.mean.success)):
        cells = [str(before + step * curve.episodes_per_step)]
        for outcome in (curve.mean, curve.stochastic):
            cells.append(f"{outcome.episode_return[step].mean():.2f}")
            cells.append(f"{outcome.success[step].mean():.2f}")
        shown.add_row(*cells)
    console().print(shown)


def _film(path: Path, before: TrainedAgent, after: TrainedAgent, task: Task, seed: int) -> None:
    """Before and after side by side, from the same start."""
    from gmps.agent.simulated import acted
    from gmps.comparison.videos import take_of, write_takes

    takes = [take_of(_when(agent), acted(agent, task, 1, seed=seed)) for agent in (before, after)]
    write_takes(path, after.trained.problem.family, task, takes)
