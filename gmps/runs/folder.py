"""A run's folder: what `TrainingFolder` keeps, and the checkpoint of a method's training."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from torch import Tensor

from demokit.errors import DemokitError
from demokit.learning.checkpoint import explain_content
from demokit.learning.device import find_device
from demokit.learning.folder import CONFIG, METRICS, TrainingFolder, read_config
from demokit.lock import ENDING
from demokit.policies import CHECKPOINT
from demokit.reading import read_json
from gmps.distributed import ALONE, World
from gmps.options import RunOptions
from gmps.progress import Report
from gmps.runs.checkpoint import Trained, load, save
from gmps.runs.underway import Telling, Underway, underway

FACTS, CURVES, LEARNING = "facts.json", "curves", "learning.csv"
"""What is measured about a run stays in its folder, see `gmps.comparison.evaluated_run`."""
_FORGET = (FACTS, CURVES, LEARNING, "step_sizes.csv", "aggregated.hdf5")
FREE = ("device", "iterations", "tuning_tasks", "checkpoint_every")
"""What a run that goes on may change: how long it goes on, and where."""
_OF_PROBLEM = {
    "family_name": "family",
    "tasks": "tasks",
    "sees": "observations",
    "reward": "reward",
}


class Run:
    """One training run, written to a folder as it goes.

    Args:
        path: the folder; created when missing.
        method: the name of the method.
        options: its options, kept in config.json.
        source: what is learned from, kept there too: the path of the demonstrations, or the tasks.
        world: the processes of the run; the first reads and writes for all.

    Attributes:
        state: what the method's training needs besides the learner, as last saved.

    Raises:
        DemokitError: see `TrainingFolder`.
    """

    def __init__(
        self,
        path: Path,
        method: str,
        options: RunOptions,
        source: str,
        *,
        resume: bool = False,
        overwrite: bool = False,
        world: World = ALONE,
    ) -> None:
        self.path, self.method, self.options, self.world = path, method, options, world
        self.device = find_device(options.device)
        self.state: Mapping[str, Tensor] = {}
        self._folder: TrainingFolder | None = None

        def open_folder() -> bool:
            self._folder = TrainingFolder(
                path,
                {"method": method, "options": asdict(options)},
                extras={"demos": source},
                defaults={each.name: each.default for each in fields(options)},
                free=FREE,
                forget=_FORGET,
                resume=resume,
                overwrite=overwrite,
            )
            return self._folder.resumed

        self.resumed = world.from_main(open_folder)

    @property
    def checkpoint(self) -> Path:
        """The run's one checkpoint file."""
        return self.path / CHECKPOINT

    @property
    def metrics(self) -> Path:
        """The scalars, a row per iteration."""
        return self.path / METRICS

    def restore(self, fresh: Trained) -> Trained:
        """What to go on from, on the run's device; `state` is that of its training."""
        trained, self.state = self.world.from_main(lambda: self._found(fresh))
        self.state = {name: value.to(self.device) for name, value in self.state.items()}
        return trained.to(self.device)

    def save(self, trained: Trained, state: Mapping[str, Tensor]) -> None:
        """Checkpoint: training continues from it bit for bit."""
        self.state = state
        if self._folder:
            with self._folder.writing():
                save(self.checkpoint, trained, state)

    def log(self, iteration: int, scalars: Mapping[str, float]) -> None:
        """Append a row to metrics.csv and to TensorBoard."""
        if self._folder:
            self._folder.log(iteration, scalars)

    def telling(self, report: Report) -> Report:
        """The report, which says in the folder's lock, too, how far the run is."""
        return Telling(self._folder.say, report) if self._folder else report

    def write_rows(self, name: str, rows: list[dict[str, Any]]) -> None:
        """Write a small table NAME.csv."""
        if self._folder:
            self._folder.write_rows(name, rows)

    def close(self) -> None:
        """Leave the folder to others."""
        if self._folder:
            self._folder.close()

    def _found(self, fresh: Trained) -> tuple[Trained, Mapping[str, Tensor]]:
        """What is trained, and the state: from the checkpoint, if any."""
        if not self.resumed:
            return fresh, {}
        trained, state = load(self.checkpoint)
        if trained.finished:
            self._require_end(trained)
        else:
            self._require_iterations(trained)
            trained, state = load(self.checkpoint, options=self.options)
        for name, what in _OF_PROBLEM.items():
            if getattr(trained.problem, name) != getattr(fresh.problem, name):
                raise self._other(what)
        if trained.demos not in ("", fresh.demos):
            raise self._other("episodes")
        assert self._folder is not None
        if not trained.finished:
            self._folder.drop_from(trained.iteration)
        return trained, state

    def _require_end(self, trained: Trained) -> None:
        """Raise DemokitError where a finished run should go on, or should have ended sooner."""
        if trained.options.iterations != self.options.iterations:
            raise DemokitError(
                f"{self.path} is finished, with {trained.options.iterations} iterations: start "
                "another run for another number of them."
            )

    def _require_iterations(self, trained: Trained) -> None:
        """Raise DemokitError where more are done than were asked for, or were meant for others."""
        done, meant = trained.iteration, trained.options.iterations
        if done > self.options.iterations:
            raise DemokitError(
                f"{self.path} has done {done} iterations: name at least {done} with --iterations."
            )
        if self.options.scheduled and meant != self.options.iterations:
            raise DemokitError(
                f"{self.path} learns by step sizes that fall to zero in {meant} iterations: resume "
                f"it with --iterations {meant}, or start another run."
            )

    def _other(self, what: str) -> DemokitError:
        return DemokitError(
            f"{self.path} was started with other demonstrations (other {what}): resume with "
            "those, or start another run."
        )


@dataclass(frozen=True)
class RunSummary:
    """A run as a line of a table.

    Attributes:
        folder: its own.
        method, seed: what it was started with.
        trained: what its checkpoint holds; None where it has not written one yet.
        scalars: what was last measured of it.
        underway: how far it is, where a process trains it now.
    """

    folder: Path
    method: str
    seed: int
    trained: Trained | None
    scalars: Mapping[str, float]
    underway: Underway | None


def source_of(folder: Path) -> str | None:
    """What a run was started with, see `Run`; None where its folder does not say."""
    try:
        return str(read_json(folder / CONFIG)["demos"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def find_runs(root: Path) -> list[Path]:
    """The run folders at or below `root`, in the order of their names; no trainings of experts.

    A run that is under way counts before its first checkpoint.
    """
    begun = [path.parent for path in root.rglob(ENDING) if _is_run(path.parent)]
    folders = sorted({*(path.parent for path in root.rglob(CHECKPOINT)), *begun})
    return [folder for folder in folders if not _trains_an_expert(folder)]


def _is_run(folder: Path) -> bool:
    """Whether a process trains a run there now."""
    return (folder / CONFIG).is_file() and underway(folder) is not None


def _trains_an_expert(folder: Path) -> bool:
    """Whether config.json is one of `train-expert`."""
    try:
        content = read_json(folder / CONFIG)
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and "task_set" in content


def summarise(folder: Path) -> RunSummary:
    """What a run has come to; raises DemokitError when its files cannot be read."""
    scalars, now = last_scalars(folder / METRICS), underway(folder)
    if (folder / CHECKPOINT).exists() or now is None:
        trained = load(folder)[0]
        return RunSummary(folder, trained.method, trained.options.seed, trained, scalars, now)
    with explain_content(folder / CONFIG):
        settings = read_config(folder)
        method, seed = str(settings["method"]), int(settings["options"]["seed"])
    return RunSummary(folder, method, seed, None, scalars, now)


def last_scalars(metrics: Path) -> dict[str, float]:
    """The last value of every scalar that was measured at all; raises DemokitError."""
    return {name: value for row in read_scalars(metrics) for name, value in row.items()}


def read_scalars(metrics: Path) -> list[dict[str, float]]:
    """The rows of metrics.csv, without what was not measured; none where there is no file.

    Raises:
        DemokitError: it cannot be read.
    """
    if not metrics.exists():
        return []
    try:
        with metrics.open(newline="") as file:
            return [
                {name: float(v) for name, v in row.items() if v and not math.isnan(float(v))}
                for row in csv.DictReader(file)
            ]
    except (ValueError, TypeError, csv.Error) as error:
        raise DemokitError(f"{metrics} cannot be read ({error}): mend it.") from None
