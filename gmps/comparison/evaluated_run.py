"""A run that takes part in comparisons: what it took, its measured curves, and itself if need be.

What is measured about a run stays in its folder: facts.json, learning.csv and curves/. A folder
with these alone, without the checkpoint, still takes part in every comparison that asks for what
was measured.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property, lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from demokit.envs import make_family
from demokit.envs.family import Family
from demokit.errors import DemokitError
from demokit.learning.folder import METRICS, versions
from demokit.lock import lock_of_turns
from demokit.policies import CHECKPOINT
from demokit.reading import MALFORMED, read_json
from demokit.types import Task
from demokit.writing import write_whole
from gmps.comparison.learning import Monitored, logged, read_learning, write_learning
from gmps.comparison.rows import (
    TOLD,
    Row,
    Variant,
    check_whole,
    label_of,
    read_about,
    read_rows,
    write_rows,
)
from gmps.method import HasStepSize, IsTold, find_method, ready_steps
from gmps.options import differing_options
from gmps.problem import PARTS, Spent
from gmps.runs.checkpoint import Trained, load_with_digest
from gmps.runs.folder import CURVES, FACTS, LEARNING
from gmps.runs.older import modern_facts, still_asked

NEEDED = "needed to learn"
"""The environment steps that a method could not have done without, see `Spent.needed`."""

_KINDS: dict[str, Any] = {
    "str": str,
    "int": int,
    "bool": bool,
    "Spent": Spent,
    "int | None": int | None,
    "float | None": float | int | None,
    "dict[str, Any]": dict,
    "dict[str, str]": dict,
}


@dataclass(frozen=True)
class Facts:
    """What is to be known about a trained run besides its parameters.

    Attributes:
        method, options: how it learned.
        family_name, reward: what it was trained on.
        spent: environment steps, by what they were for.
        finished: whether training has come to its end.
        episodes_per_step: K in training.
        step_size: the scalar of adaptation steps that take one, where it has been chosen.
        ready_steps: adaptation steps that it can take; None: as many as one likes.
        checkpoint: SHA-256 of the checkpoint.
        task_set, task_seed: what the training tasks are of; empty where they are of none.
        tasks, sees, demos, expert: digest of its training tasks, what it acts from, `Trained.demos`
            and `Trained.expert`; empty in archives that are older than these.
        is_told: whether it is told the contexts of new tasks, see `IsTold`.
        versions: of the libraries that measured it, in archives whose curves do not say.
        num_tasks: of training; 0 in archives that are older than this.
        recorded: how its demonstrations were recorded, in archives of plans that say it; empty in
            those that are older than this, and in runs that are no archive.
    """

    method: str
    options: dict[str, Any]
    family_name: str
    reward: str
    spent: Spent
    finished: bool
    episodes_per_step: int
    step_size: float | None
    ready_steps: int | None
    checkpoint: str
    task_set: str = ""
    task_seed: int = 0
    tasks: str = ""
    sees: str = ""
    demos: str = ""
    expert: str = ""
    is_told: bool = False
    versions: dict[str, str] = field(default_factory=dict)
    num_tasks: int = 0
    recorded: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, path: Path) -> Facts:
        """Read a run folder or a checkpoint file; raises DemokitError."""
        checkpoint = path / CHECKPOINT if path.is_dir() else path
        if checkpoint.exists() or not (path / FACTS).exists():
            return _read_once(cls._of_checkpoint, checkpoint, _stamp(checkpoint))
        return _read_once(cls._of_archive, path / FACTS, _stamp(path / FACTS))

    @classmethod
    def _of_archive(cls, path: Path) -> Facts:
        try:
            content = read_json(path)
            if "config" in content:
                content = modern_facts(content)
            asked = still_asked(content["method"], content["options"])
            found = cls(**{**content, "options": asked, "spent": Spent.of(content["spent"])})
            found._check()
        except (OSError, *MALFORMED) as error:
            raise DemokitError(f"{path} cannot be read ({error}): remove it.") from None
        return found

    def _check(self) -> None:
        """Check what a file says; raises as `MALFORMED` content does."""
        for each in fields(self):
            if not isinstance(getattr(self, each.name), _KINDS[str(each.type)]):
                raise TypeError(f"{each.name} is no {each.type}")
        if not all(isinstance(version, str) for version in self.versions.values()):
            raise TypeError("versions are no words")
        if self.episodes_per_step < 1 or min(self.seed, self.task_seed, self.num_tasks) < 0:
            raise ValueError("its numbers are none of a run")

    @classmethod
    def _of_checkpoint(cls, path: Path) -> Facts:
        trained, digest = load_with_digest(path)
        problem, learner = trained.problem, trained.learner
        problem.require_simulation()
        step_size = learner.step_size if isinstance(learner, HasStepSize) else None
        task_set, task_seed = problem.task_set
        return cls(
            trained.method,
            asdict(trained.options),
            problem.family_name,
            problem.reward,
            trained.spent,
            trained.finished,
            learner.episodes_per_step,
            step_size,
            ready_steps(learner),
            digest,
            task_set,
            task_seed,
            digest_of(problem.tasks),
            str(problem.sees),
            trained.demos,
            trained.expert,
            isinstance(learner, IsTold),
            num_tasks=len(problem.tasks),
        )

    def write(self, path: Path) -> None:
        """Keep them where there is no checkpoint to read them from."""
        write_whole(path, json.dumps(asdict(self), indent=1) + "\n")

    @property
    def seed(self) -> int:
        """Of the training."""
        return int(self.options["seed"])

    @property
    def told(self) -> str:
        """What its method is told, in words; empty where the method is not installed."""
        try:
            method = find_method(self.method)
            options = method.options(**self.options)
            return method.told_with(options, images=self.sees not in ("", "state"))
        except (DemokitError, TypeError):
            return ""

    def differing(self) -> dict[str, Any]:
        """Options that are not the method's defaults; all, of one that is not installed."""
        try:
            return differing_options(find_method(self.method).options(**self.options))
        except (DemokitError, TypeError):
            return {name: value for name, value in self.options.items() if name != "seed"}


def digest_of(tasks: tuple[Task, ...]) -> str:
    """SHA-256 of training tasks."""
    return sha256(repr(tasks).encode()).hexdigest()


def _stamp(path: Path) -> tuple[int, ...]:
    """What changes where a file does; empty where there is none."""
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_mtime_ns, found.st_size, found.st_ino


@lru_cache(1024)
def _read_once(read: Callable[[Path], Facts], path: Path, _: tuple[int, ...]) -> Facts:
    """What `read` finds in a file, which is read again where the last, its stamp, is another."""
    return read(path)


class Measured(NamedTuple):
    """The rows of a curve, and the versions of the libraries that measured it."""

    rows: list[Row]
    versions: dict[str, str]


@dataclass(frozen=True, eq=False)
class EvaluatedRun:
    """A run that takes part.

    Attributes:
        path: its folder, or its checkpoint file.
        facts: what is known about it.
    """

    path: Path
    facts: Facts

    @property
    def label(self) -> str:
        """Its method; see `label_of`. One that is told the new task says so."""
        return label_of(self.path) + (TOLD if self.facts.is_told else "")

    @property
    def family(self) -> Family:
        """The task family."""
        return make_family(self.facts.family_name)

    @property
    def has_checkpoint(self) -> bool:
        """Whether it can be rolled out."""
        return not self.path.is_dir() or (self.path / CHECKPOINT).exists()

    @property
    def learner_kind(self) -> type | None:
        """The class of its learner; None where only its measurements are left."""
        return type(self.trained.learner) if self.has_checkpoint else None

    @cached_property
    def trained(self) -> Trained:
        """The run itself, as `facts` tell of it.

        Raises:
            DemokitError: only its measurements are left, or another checkpoint.
        """
        if not self.has_checkpoint:
            raise DemokitError(
                f"{self.path} keeps measurements and no checkpoint, and what is asked for was not "
                "measured: ask for what is there, or remove that folder and train again."
            )
        trained, digest = load_with_digest(self.path)
        if digest != self.facts.checkpoint:
            raise DemokitError(f"{self.path} has been trained further meanwhile: evaluate again.")
        return trained

    def budget(self) -> dict[str, Any]:
        """What it took, as a row of the report; empty where a run of demokit 0.1 does not say."""
        facts = self.facts
        differing = ", ".join(f"{name}={value}" for name, value in facts.differing().items())
        return {
            "run": self.path.name,
            "label": self.label,
            "method": facts.method,
            "seed": facts.seed,
            "training tasks": facts.num_tasks or "",
            **dict.fromkeys(PARTS, ""),
            **facts.spent.parts(),
            NEEDED: "" if facts.spent.undivided else facts.spent.needed,
            "step size": f"{facts.step_size:.3g}" if facts.step_size else "-",
            "options other than default": differing or "none",
            "checkpoint": facts.checkpoint,
        }

    def learning(self) -> list[Monitored]:
        """What was logged of its training, and is kept beside its facts; raises DemokitError."""
        if not self.path.is_dir():
            return logged(self.path.with_name(METRICS), self.label, self.facts.seed)
        kept, metrics = self.path / LEARNING, self.path / METRICS
        if self.has_checkpoint and metrics.exists():
            found = logged(metrics, self.label, self.facts.seed)
            with lock_of_turns(kept):
                write_learning(kept, found)
            return found
        label, seed = self.label, self.facts.seed
        return [replace(point, label=label, seed=seed) for point in read_learning(kept)]

    def require_steps(self, num: int) -> None:
        """Raise DemokitError unless the run can take so many adaptation steps."""
        ready = self.facts.ready_steps
        if ready is not None and num > ready:
            fewer = f"; or evaluate it as it is, with --adapt-steps {ready}" if ready else ""
            raise DemokitError(
                f"{self.path} is not finished, its step size has not been chosen: continue it with "
                f"meta-train --resume, which fewer --iterations and --tuning-tasks shorten{fewer}."
            )

    def read_curve(
        self, keys: Sequence[str], variant: Variant, tasks: Sequence[Task], num_steps: int
    ) -> Measured | None:
        """A curve that was measured before under one of these keys, if it was.

        What other versions of the libraries have measured, or nobody knows which, counts where
        there is no checkpoint to measure again.

        Args:
            keys: its names; the first that holds such a curve counts.
            variant: how the run was fine-tuned.
            tasks: those that it is of.
            num_steps: of adaptation.
        """
        for key in keys:
            path = self._curve(key)
            try:
                rows, said = read_rows(path), read_about(path).get("versions", {})
                by = {str(name): str(value) for name, value in said.items()}
                check_whole(rows, self.facts.seed, variant, tasks, num_steps)
            except (EOFError, OSError, zlib.error, *MALFORMED):
                continue  # none, or a damaged one: it is measured again
            if self.has_checkpoint and by != versions():
                continue
            own = {"label": self.label, "sweep": variant.sweep}
            named = [Row(**{**asdict(row), **own}) for row in rows]
            return Measured(named, by or self.facts.versions)
        return None

    def keep_curve(self, key: str, rows: Sequence[Row]) -> None:
        """Write the rows of a measured curve, and the facts beside them."""
        path = self._curve(key)
        if self.path.is_dir():
            with lock_of_turns(self.path / FACTS):  # others may measure it, too
                self.facts.write(self.path / FACTS)
        with lock_of_turns(path):
            write_rows(path, rows, {"versions": versions()})

    def _curve(self, key: str) -> Path:
        folder = self.path if self.path.is_dir() else self.path.parent
        return folder / CURVES / f"{key}.csv.gz"


def evaluated_runs(paths: Sequence[Path]) -> list[EvaluatedRun]:
    """The runs at these paths; raises DemokitError unless they are of one family."""
    found = [EvaluatedRun(path, Facts.of(path)) for path in paths]
    for other in found[1:]:
        if other.facts.family_name != found[0].facts.family_name:
            raise DemokitError(
                f"{other.path} was trained on {other.facts.family_name}, {found[0].path} on "
                f"{found[0].facts.family_name}: compare runs of one family."
            )
    _check_seeds(found)
    return found


def _check_seeds(runs: Sequence[EvaluatedRun]) -> None:
    """Raise DemokitError unless runs of one name are one method, each with a seed of its own."""
    seen: dict[str, EvaluatedRun] = {}
    seeds: dict[tuple[str, int], EvaluatedRun] = {}
    for run in runs:
        first = seen.setdefault(run.label, run)
        if what := _difference(run.facts, first.facts):
            raise DemokitError(
                f"{first.path} and {run.path} are both called {run.label}, as seeds of one method "
                f"are, but their {what} differ: rename a folder."
            )
        if seeds.setdefault((run.label, run.facts.seed), run) is not run:
            raise DemokitError(
                f"Seed {run.facts.seed} of {run.label} is there twice, the second time as "
                f"{run.path}: it would count as another training."
            )


def _difference(one: Facts, other: Facts) -> str:
    """In what two runs differ that seeds of one method share; nothing where in nothing known."""
    shared = {
        "method": "methods",
        "reward": "rewards",
        "tasks": "training tasks",
        "sees": "observations",
        "demos": "demonstrations",
    }
    for name, what in shared.items():
        pair = {getattr(one, name), getattr(other, name)} - {""}
        if len(pair) > 1:
            return what
    return "options" if one.differing() != other.differing() else ""
