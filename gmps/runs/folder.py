"""A run's folder: configuration, scalars (CSV and TensorBoard), checkpoint."""

from __future__ import annotations

import csv
import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from demokit.errors import DemokitError
from demokit.reading import read_json
from demokit.learning.device import find_device
from demokit.learning.runs import Hold, ScalarLog, optimizer_tensors, restore_optimizer, versions
from demokit.writing import csv_text, write_whole
from gmps.runs.checkpoint import CHECKPOINT, load, save
from gmps.options import TrainConfig
from gmps.distributed import ALONE, World
from gmps.methods.gmps.learner import Learned

CONFIG, METRICS = "config.json", "metrics.csv"
FACTS, CURVES = "facts.json", "curves"
"""What is measured about a run stays in its folder, see `gmps.comparison.contender`."""
STEP_SIZES = "step_sizes"
AGGREGATED = "aggregated.hdf5"
_OF_DEMOS = {
    "family_name": "family",
    "tasks": "tasks",
    "sees": "observations",
    "reward": "reward",
    "demos": "episodes",
}


class Run:
    """One training run, written to a folder as it goes.

    Args:
        folder: where; created when missing.
        config: the run's configuration, kept in config.json.
        demos: path of the demonstrations, kept there too.
        world: the processes of the run; the first reads and writes for all.

    Raises:
        DemokitError: the folder holds a run and neither `resume` nor `overwrite` is given, or
            it holds a run of another configuration; or another process trains there.
    """

    def __init__(
        self,
        folder: Path,
        config: TrainConfig,
        demos: str,
        *,
        resume: bool = False,
        overwrite: bool = False,
        world: World = ALONE,
    ) -> None:
        self.folder, self.config, self.world = folder, config, world
        self.device = find_device(config.device)
        self.iteration = 0
        self._hold: Hold | None = None
        self._options = asdict(config)
        self.resumed = world.from_main(lambda: self._prepare(resume, overwrite))
        self._log: ScalarLog | None = None
        if world.is_main and not self.resumed:
            settings = {"config": self._options, "demos": demos, "versions": versions()}
            write_whole(folder / CONFIG, json.dumps(settings, indent=2) + "\n")
        if world.is_main:
            self._log = ScalarLog(folder, "iteration", fresh=not self.resumed)

    @property
    def checkpoint(self) -> Path:
        """The run's one checkpoint file."""
        return self.folder / CHECKPOINT

    @property
    def metrics(self) -> Path:
        """The scalars, a row per logged iteration."""
        return self.folder / METRICS

    def restore(self, fresh: Learned) -> tuple[Learned, torch.optim.Adam, int]:
        """What to train, its optimiser, and the first iteration still to do."""
        learned, state, self.iteration = self.world.from_main(lambda: self._found(fresh))
        learned = learned.to(self.device)
        optimizer = torch.optim.Adam(learned.meta.leaves(), lr=self.config.outer_lr)
        restore_optimizer(optimizer, state)
        return learned, optimizer, self.iteration

    def save(self, learned: Learned, optimizer: torch.optim.Adam, iteration: int) -> None:
        """Checkpoint after `iteration` iterations: training continues from it bit for bit."""
        self.iteration = iteration
        if self.world.is_main:
            progress = {"iteration": iteration}
            save(self.checkpoint, learned, optimizer_tensors(optimizer), progress)

    def log(self, iteration: int, scalars: dict[str, float]) -> None:
        """Append a row to metrics.csv and to TensorBoard."""
        if self._log:
            self._log.add(iteration, scalars)

    def write_rows(self, name: str, rows: list[dict[str, Any]]) -> None:
        """Write a small table NAME.csv."""
        if not self.world.is_main:
            return
        write_whole(self.folder / f"{name}.csv", csv_text(list(rows[0]), rows))

    def close(self) -> None:
        """Flush TensorBoard, and leave the folder to others."""
        if self._log:
            self._log.close()
        if self._hold:
            self._hold.release()

    def _found(self, fresh: Learned) -> tuple[Learned, dict[str, Tensor], int]:
        """What is trained, the optimiser's state, and iterations: from the checkpoint, if any."""
        if not self.resumed:
            return fresh, {}, 0
        learned, state, progress = load(self.checkpoint)
        for name, what in _OF_DEMOS.items():
            if getattr(learned, name) not in ("", getattr(fresh, name)):
                raise DemokitError(
                    f"{self.folder} was started with other demonstrations (other {what}): resume "
                    "with those, or start another run."
                )
        assert self._log is not None
        self._log.drop_from(progress["iteration"])
        return learned, state, progress["iteration"]

    def _prepare(self, resume: bool, overwrite: bool) -> bool:
        """Make the folder ready; returns whether there is a checkpoint to continue from."""
        exists = self.checkpoint.exists() or self.metrics.exists()
        if exists and not (resume or overwrite):
            raise DemokitError(
                f"{self.folder} already holds a run: continue it with --resume, replace it with "
                "--overwrite, or name another --output-dir."
            )
        self._hold = Hold(self.folder)
        if exists and resume:
            self._require_same_config()
            if self.checkpoint.exists():
                return True
        self._forget()
        return False

    def _forget(self) -> None:
        """Remove what is said about an earlier run in this folder."""
        for name in (CHECKPOINT, FACTS, f"{STEP_SIZES}.csv", AGGREGATED):
            (self.folder / name).unlink(missing_ok=True)
        shutil.rmtree(self.folder / CURVES, ignore_errors=True)

    def _require_same_config(self) -> None:
        try:
            before = read_json(self.folder / CONFIG)["config"]
        except (OSError, ValueError, KeyError) as error:
            raise DemokitError(
                f"{self.folder / CONFIG} cannot be read ({error}): start again with --overwrite."
            ) from None
        # An option that the run did not know yet had the effect of its default.
        before = asdict(TrainConfig()) | before
        changed = [
            name
            for name, value in self._options.items()
            if before[name] != value and name != "device"
        ]
        if changed:
            raise DemokitError(
                f"{self.folder} was started with another {changed[0]} "
                f"({before[changed[0]]}): resume with that value, or start another run."
            )


@dataclass(frozen=True)
class RunSummary:
    """A run as a line of a table; what its last logged iteration measured, NaN where nothing."""

    folder: Path
    family: str
    config: TrainConfig
    iteration: int
    finished: bool
    env_steps: int
    scalars: Mapping[str, float]


def demos_of(folder: Path) -> str | None:
    """The demonstrations that a run was started with; None where its folder does not say."""
    try:
        return str(read_json(folder / CONFIG)["demos"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def find_runs(root: Path) -> list[Path]:
    """The run folders at or below `root`, in the order of their names; no trainings of experts."""
    folders = sorted(path.parent for path in root.rglob(CHECKPOINT))
    return [folder for folder in folders if not _trains_an_expert(folder)]


def _trains_an_expert(folder: Path) -> bool:
    """Whether config.json is one of `train-expert`."""
    try:
        content = read_json(folder / CONFIG)
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and "task_set" in content


def summarise(folder: Path) -> RunSummary:
    """What a run has come to; raises DemokitError when its checkpoint cannot be read."""
    learned, _, progress = load(folder)
    return RunSummary(
        folder,
        learned.family_name,
        learned.config,
        progress["iteration"],
        learned.later_lr is not None,
        learned.env_steps,
        _last_scalars(folder / METRICS),
    )


def _last_scalars(metrics: Path) -> dict[str, float]:
    """The last value of every scalar that was measured at all; raises DemokitError."""
    found: dict[str, float] = {}
    if not metrics.exists():
        return found
    try:
        with metrics.open(newline="") as file:
            for row in csv.DictReader(file):
                found |= {n: float(v) for n, v in row.items() if v and not math.isnan(float(v))}
    except (ValueError, TypeError, csv.Error) as error:
        raise DemokitError(f"{metrics} cannot be read ({error}): mend it.") from None
    return found
