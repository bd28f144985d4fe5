"""A training from its options to its end, for `demokit meta-train` and `demokit.meta_train`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, fields
from os import PathLike, fspath
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import torch

from demokit.asked import either
from demokit.envs import given_family
from demokit.envs.family import Family
from demokit.errors import DemokitError, unknown_name
from demokit.options import AUTO
from demokit.text import say
from gmps.agent.agent import TrainedAgent
from gmps.distributed import ALONE, World
from gmps.experience.demos import DemoSet, load_demos
from gmps.loop import train
from gmps.method import DEFAULT, find_method
from gmps.options import DemoOptions, LabelOptions, RunOptions
from gmps.problem import Problem
from gmps.progress import Report, unheard
from gmps.runs.checkpoint import Trained
from gmps.runs.folder import Run
from gmps.sources import family_in_words, problem_of_dataset, problem_of_family


@dataclass(frozen=True)
class Source:
    """What is learned from: demonstrations, or without any the tasks of a family.

    Attributes:
        demos: the dataset, a file or a Minari id.
        family: in its place.
        task_set, tasks, observation: of the family, see `problem_of_family`.
    """

    demos: str | None = None
    family: Family | None = None
    task_set: str | None = None
    tasks: int | None = None
    observation: str = "state"

    def __str__(self) -> str:
        """As runs keep it."""
        if self.family is None:
            return str(self.demos)
        return family_in_words(self.family.name, self.task_set, self.tasks, self.observation)

    def read(self, method: str, options: RunOptions) -> tuple[Problem, DemoSet | None]:
        """The problem and, for a method that imitates, the demonstrations.

        Raises:
            DemokitError: they cannot be learned from, or not by this method.
        """
        problem, loaded = self._read(method, options)
        about = find_method(method)
        if about.rolls_out:
            problem.require_simulation()
        problem.require_effect(options)
        if len(problem.tasks) < about.fewest_tasks:
            instead = either("--method imitation", 'method="imitation"')
            raise DemokitError(
                f"{self} has one training task, and {method} learns from what differs between "
                f"tasks: record more of them, or clone this one with {instead}."
            )
        return problem, loaded

    def _read(self, method: str, options: RunOptions) -> tuple[Problem, DemoSet | None]:
        needs_demos = find_method(method).needs_demos(options)
        if self.family is not None:
            if needs_demos:
                missing = either("Missing option --demos", "demos is missing")
                raise DemokitError(
                    f"{missing}, for so {method} learns from demonstrations: `demokit record` "
                    "makes them."
                )
            of_family = self.task_set, self.tasks, options.reward, self.observation
            return problem_of_family(self.family, *of_family), None
        demos = str(self.demos)
        if not needs_demos:
            return problem_of_dataset(demos, options.reward), None
        num = options.demos_per_task if isinstance(options, DemoOptions) else 0
        labels = options.labels if isinstance(options, LabelOptions) else AUTO
        loaded = load_demos(demos, num, options.reward, labels)
        return Problem.of(loaded), loaded


class Outcome(NamedTuple):
    """What a training has come to, and what it learned from."""

    run: Run
    trained: Trained
    demos: DemoSet | None


def carry_out(
    source: Source,
    method: str,
    options: RunOptions,
    folder: Path | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    world: World = ALONE,
    progress: bool = True,
) -> Outcome:
    """Train, from where the folder's run is to its end.

    Args:
        source: what is learned from.
        method: its name.
        options: of that method.
        folder: of the run; None: runs/FAMILY-METHOD-SEED.
        resume: whether a run that is there goes on.
        overwrite: whether it is replaced.
        world: the processes of the run.
        progress: whether the main process shows how far it is.
    """
    problem, demos = source.read(method, options)
    world.require_tasks(len(problem.tasks))
    family = quote(problem.family_name, safe="")  # a file may have said it
    path = folder or Path("runs") / f"{family}-{method}-{options.seed}"
    run = Run(path, method, options, str(source), resume=resume, overwrite=overwrite, world=world)
    shows = progress and world.is_main
    try:
        with _threads(options.threads), _shown(run, problem, shows) as report:
            return Outcome(run, train(run, problem, demos, report), demos)
    except KeyboardInterrupt:
        if world.is_main:
            going_on = either(f"--resume --output-dir {run.path}", f"resume=True ({run.path})")
            say(f"Stopped: continue with {going_on}", err=True)
        raise
    finally:
        run.close()


def _shown(run: Run, problem: Problem, shows: bool) -> AbstractContextManager[Report]:
    if not shows:
        return nullcontext(unheard)
    from demokit.cli.console import Stages

    return Stages(f"{run.method} on {problem.family_name}")


@contextmanager
def _threads(num: int) -> Iterator[None]:
    """So many threads of torch, and afterwards as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(num)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def meta_train(
    demos: str | PathLike[str] | None = None,
    output_dir: str | PathLike[str] | None = None,
    *,
    method: str = DEFAULT,
    env: str | Family | None = None,
    task_set: str | None = None,
    tasks: int | None = None,
    observation: str = "state",
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
    **options: object,
) -> TrainedAgent:
    """See `demokit.meta_train`."""
    family = None if env is None else given_family(env)
    source = Source(None if demos is None else fspath(demos), family, task_set, tasks, observation)
    _require_one(source, method)
    settings = options_of(method, options)
    folder = None if output_dir is None else Path(output_dir)
    found = carry_out(
        source, method, settings, folder, resume=resume, overwrite=overwrite, progress=progress
    )
    return TrainedAgent(found.trained)


def options_of(method: str, given: dict[str, object]) -> RunOptions:
    """The options of a method; raises DemokitError for one that it does not have."""
    declared = find_method(method).options
    known = [each.name for each in fields(declared)]
    for name in given:
        if name not in known:
            raise unknown_name(f"option of {method}", name, known)
    return declared(**given)  # type: ignore[arg-type]


def _require_one(source: Source, method: str) -> None:
    """Raise DemokitError unless something is learned from, and one thing."""
    if source.demos is not None and source.family is not None:
        raise DemokitError("Demonstrations or a family are learned from: name demos or env.")
    if source.demos is not None:
        if (source.task_set, source.tasks, source.observation) != (None, None, "state"):
            raise DemokitError("task_set, tasks and observation belong to env: leave them out.")
    elif source.family is None or find_method(method).imitates:
        raise DemokitError(f"{method} learns from demonstrations: name a dataset, demos.")
