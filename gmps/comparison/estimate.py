"""What a plan takes, by training a little of every method that it names."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from demokit.errors import DemokitError
from demokit.learning.folder import METRICS
from demokit.writing import ASIDE
from gmps.comparison.campaign import Campaign
from gmps.comparison.processes import Command, run_until
from gmps.runs.folder import read_scalars

_SECONDS = 20.0
_LEAST = 3
_PATIENCE = 6


@dataclass(frozen=True)
class Cost:
    """What the training of one seed takes.

    Attributes:
        env_steps: of the environment, demonstrations among them.
        seconds: of one core or as many as its threads.
        size: of its folder in bytes.
    """

    env_steps: float
    seconds: float
    size: int


@dataclass
class _Watch:
    """Looks at a run that is being trained.

    Attributes:
        metrics: its file.
        iterations: of the whole training.
        begun: when that was, in seconds.
        seen: when an iteration was first seen to be logged, and how many were by then.
    """

    metrics: Path
    iterations: int
    begun: float = field(default_factory=time.monotonic)
    seen: list[tuple[float, int]] = field(default_factory=list)

    def is_enough(self) -> bool:
        """Whether it has run for long enough, and iterations enough were seen or none will be."""
        now, num = time.monotonic(), len(read_scalars(self.metrics))
        if num > (self.seen[-1][1] if self.seen else 0):
            self.seen.append((now, num))
        waited = now - self.begun
        return (
            waited > _SECONDS and num >= min(_LEAST, self.iterations)
        ) or waited > _PATIENCE * _SECONDS

    def cost(self, size: int) -> Cost:
        """What all iterations take; raises DemokitError where none was seen.

        Where they were seen at one time alone, the start counts as the other: what comes once,
        demonstrations and the begin of a process, is taken for part of an iteration.
        """
        if not self.seen:
            raise DemokitError(f"too few iterations in {_PATIENCE * _SECONDS:.0f} s")
        start = self.seen[0] if len(self.seen) > 1 else (self.begun, 0)
        (first, few), (last, many) = start, self.seen[-1]
        steps = [0.0, *(row["env_steps"] for row in read_scalars(self.metrics))]
        more = (self.iterations - many) / (many - few)
        return Cost(
            steps[many] + more * (steps[many] - steps[few]),
            last - self.begun + more * (last - first),
            size,
        )


def estimate(campaign: Campaign, name: str, report: Callable[[int], None]) -> dict[str, Cost | str]:
    """Method -> what one seed of it takes in a comparison, or why that cannot be said.

    Each is trained for some iterations in a temporary folder; the rest would take as long in
    proportion. Choosing a step size, and evaluation, come on top.

    Args:
        campaign: what is to be carried out.
        name: of the comparison.
        report: told how many methods have been tried.

    Raises:
        DemokitError: the dataset cannot be recorded.
    """
    found = dict[str, Cost | str]()
    with TemporaryDirectory(prefix="demokit-estimate-") as folder:
        trial = campaign.moved(Path(folder), name)
        for command in trial.left(name):
            if command.arguments[0] == "record":
                _record(command, Path(trial.demos(name)))
            if command.run:
                planned = trial.plan.trainings(name)[command.run.name]
                cost = _tried(command, command.run, planned.options.iterations)
                found[command.run.name.rpartition("-")[0]] = cost
                report(len(found))
    return found


def _record(command: Command, demos: Path) -> None:
    """Unless the dataset is there: it is the user's own, behind a link."""
    if not demos.exists() and (why := run_until(command, 1, lambda: False)):
        raise DemokitError(why)


def _tried(command: Command, folder: Path, iterations: int) -> Cost | str:
    """What a training takes, by a part of it; or why that cannot be said.

    It writes a checkpoint every iteration, and its size is that of a run that goes on.
    """
    watch = _Watch(folder / METRICS, iterations)
    often = replace(command, arguments=(*command.arguments, "--checkpoint-every", "1"))
    began = time.monotonic()
    why = run_until(often, 1, watch.is_enough)
    if why:
        return why
    # What was being written when it was stopped is beside what it would have replaced.
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ASIDE)
    size = sum(path.stat().st_size for path in files)
    if why is not None:  # it came to its end
        return Cost(read_scalars(folder / METRICS)[-1]["env_steps"], time.monotonic() - began, size)
    try:
        return watch.cost(size)
    except DemokitError as error:
        return str(error)
