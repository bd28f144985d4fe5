"""A run that takes part in comparisons: what it took, its measured curves, and itself if need be.

What is measured about a run stays in its folder: facts.json and curves/. A folder with these alone,
without the checkpoint, still takes part in every comparison that asks for what was measured.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

from demokit.envs import make_family
from demokit.envs.family import Family
from demokit.errors import DemokitError
from demokit.learning.runs import versions
from demokit.reading import MALFORMED, read_json
from demokit.writing import write_whole
from gmps.comparison.outcomes import Row, Variant, label_of, read_rows, write_rows
from gmps.methods.gmps.learner import Learned
from gmps.options import TrainConfig, differing_options
from gmps.runs.checkpoint import CHECKPOINT, load
from gmps.runs.folder import CURVES, FACTS


@dataclass(frozen=True)
class Facts:
    """What is to be known about a trained run besides its parameters.

    Attributes:
        config: its options.
        family_name, reward: what it was trained on.
        env_steps: environment steps that it took, see `Learned`.
        expert_steps: those of its experts' training.
        later_lr: its step size; None until it has been chosen: the run is not finished.
        checkpoint: SHA-256 of the checkpoint.
        versions: of the libraries that measured it.
        tasks, sees, demos: digest of its training tasks, what it acts from, and `Learned.demos`;
            empty in archives that are older than these.
    """

    config: TrainConfig
    family_name: str
    reward: str
    env_steps: int
    expert_steps: int
    later_lr: float | None
    checkpoint: str
    versions: dict[str, str]
    tasks: str = ""
    sees: str = ""
    demos: str = ""

    @classmethod
    def of(cls, path: Path) -> Facts:
        """Read a run folder or a checkpoint file; raises DemokitError."""
        checkpoint = path / CHECKPOINT if path.is_dir() else path
        if checkpoint.exists() or not (path / FACTS).exists():
            learned = load(checkpoint)[0]
            return cls(
                learned.config,
                learned.family_name,
                learned.reward,
                learned.env_steps,
                learned.expert_steps,
                learned.later_lr,
                sha256(checkpoint.read_bytes()).hexdigest(),
                versions(),
                sha256(repr(learned.tasks).encode()).hexdigest(),
                str(learned.sees),
                learned.demos,
            )
        try:
            content = read_json(path / FACTS)
            return cls(**{**content, "config": TrainConfig(**content["config"])})
        except (OSError, *MALFORMED) as error:
            raise DemokitError(f"{path / FACTS} cannot be read ({error}): remove it.") from None


@dataclass(frozen=True, eq=False)
class Contender:
    """A run that takes part.

    Attributes:
        path: its folder, or its checkpoint file.
        facts: what is known about it.
    """

    path: Path
    facts: Facts

    @property
    def label(self) -> str:
        """Its method; see `label_of`."""
        return label_of(self.path)

    @property
    def family(self) -> Family:
        """The task family."""
        return make_family(self.facts.family_name)

    @property
    def has_checkpoint(self) -> bool:
        """Whether it can be rolled out."""
        return not self.path.is_dir() or (self.path / CHECKPOINT).exists()

    @cached_property
    def learned(self) -> Learned:
        """The run itself; raises DemokitError where only its measurements are left."""
        if not self.has_checkpoint:
            raise DemokitError(
                f"{self.path} keeps measurements and no checkpoint, and what is asked for was not "
                "measured: ask for what is there, or remove that folder and train again."
            )
        return load(self.path)[0]

    def budget(self) -> dict[str, Any]:
        """What it took, as a row of the report."""
        facts = self.facts
        return {
            "run": self.path.name,
            "seed": facts.config.seed,
            "environment steps": facts.env_steps,
            "expert's training steps": facts.expert_steps,
            "fine-tuning step size": self._step_size(),
            "options other than default": differing_options(facts.config) or "none",
        }

    def require_steps(self, num: int) -> None:
        """Raise DemokitError unless the run has a step size for so many adaptation steps."""
        config = self.facts.config
        learned = 0 if not config.is_meta else num if config.explores_latents else 1
        if self.facts.later_lr is None and num > learned:
            advice = " or pass --adapt-steps 1," if learned else ""
            raise DemokitError(
                f"{self.path} is not finished, its step size has not been chosen:{advice} continue "
                "it with meta-train --resume."
            )

    def _step_size(self) -> str:
        if self.facts.config.explores_latents:
            return "learned"
        return f"{self.facts.later_lr:.3g}" if self.facts.later_lr else "not chosen"

    def read_curve(self, key: str, variant: Variant) -> list[Row] | None:
        """The rows of a curve that was measured before, if it was."""
        path = self._curve(key)
        if not path.exists():
            return None
        try:
            rows = read_rows(path)
        except (EOFError, OSError, ValueError, KeyError, TypeError, zlib.error):
            return None  # damaged: it is measured again
        own = {"label": self.label, "sweep": variant.sweep}
        return [Row(**{**asdict(row), **own}) for row in rows]

    def keep_curve(self, key: str, rows: Sequence[Row]) -> None:
        """Write the rows of a measured curve, and the facts beside them."""
        path = self._curve(key)
        if self.path.is_dir():
            write_whole(self.path / FACTS, json.dumps(asdict(self.facts), indent=1) + "\n")
        write_rows(path, rows)

    def _curve(self, key: str) -> Path:
        folder = self.path if self.path.is_dir() else self.path.parent
        return folder / CURVES / f"{key}.csv.gz"


def contenders(paths: Sequence[Path]) -> list[Contender]:
    """The runs at these paths; raises DemokitError unless they are of one family."""
    found = [Contender(path, Facts.of(path)) for path in paths]
    for other in found[1:]:
        if other.facts.family_name != found[0].facts.family_name:
            raise DemokitError(
                f"{other.path} was trained on {other.facts.family_name}, {found[0].path} on "
                f"{found[0].facts.family_name}: compare runs of one family."
            )
    _check_seeds(found)
    return found


def _check_seeds(runs: Sequence[Contender]) -> None:
    """Raise DemokitError unless runs of one name are one method, each with a seed of its own."""
    seen: dict[str, Contender] = {}
    seeds: dict[tuple[str, int], Contender] = {}
    for run in runs:
        first = seen.setdefault(run.label, run)
        if what := _difference(run.facts, first.facts):
            raise DemokitError(
                f"{first.path} and {run.path} are both called {run.label}, as seeds of one method "
                f"are, but their {what} differ: rename a folder."
            )
        if seeds.setdefault((run.label, run.facts.config.seed), run) is not run:
            raise DemokitError(
                f"Seed {run.facts.config.seed} of {run.label} is there twice, the second time as "
                f"{run.path}: it would count as another training."
            )


def _difference(one: Facts, other: Facts) -> str:
    """In what two runs differ that seeds of one method share; nothing where in nothing known."""
    if (differing_options(one.config), one.config.method) != (
        differing_options(other.config),
        other.config.method,
    ):
        return "options"
    shared = {"reward": "rewards", "tasks": "training tasks", "sees": "observations"}
    for name, what in shared.items():
        pair = {getattr(one, name), getattr(other, name)} - {""}
        if len(pair) > 1:
            return what
    return ""
