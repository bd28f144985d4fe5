"""How runs are evaluated."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf
from typing import get_type_hints

from demokit.envs.tasks import make_tasks, task_sets
from demokit.errors import DemokitError, unknown_name
from demokit.types import SPLITS, Task
from gmps.comparison.evaluated_run import EvaluatedRun
from gmps.comparison.plan import fits
from gmps.comparison.references import Reference, choose_reference
from gmps.comparison.rows import BY_ROLLOUTS, BY_STEP_SCALE, MAIN, Variant


@dataclass(frozen=True)
class Protocol:
    """How runs are evaluated: the options of `demokit evaluate`.

    Attributes:
        task_set: None takes that of the training, or where it lacks the split the family's first
            one that has it.
        task_seed: of the draws of the tasks; None takes that of the training.
        split: splits, each measured and shown.
        num_tasks: the first so many tasks of each split; None takes all.
        reward: None takes that of the training.
        adapt_steps: adaptation steps on each task.
        episodes: so many on each task in place of them, in as many steps as they fill.
        demonstrations: the expert's own of each task, which are shown before the first episode.
        rollouts: K, of the main curve the first; several values are a sweep. None: the run's own.
        step_scale: factors on the run's step sizes; several values are a sweep beside the main
            curve, whose factor is 1.
        expert: the reference, a name or a checkpoint; None: see `reference`.
        seed: of the roll-outs.
    """

    task_set: str | None = None
    task_seed: int | None = None
    split: tuple[str, ...] = ("validation",)
    num_tasks: int | None = None
    reward: str | None = None
    adapt_steps: int = 5
    rollouts: tuple[int, ...] = ()
    step_scale: tuple[float, ...] = ()
    expert: str | None = None
    seed: int = 0
    episodes: int | None = None
    demonstrations: int = 0

    def __post_init__(self) -> None:
        """Check what the command line checks; raises DemokitError."""
        for name, hint in get_type_hints(Protocol).items():
            if not fits(getattr(self, name), hint):
                raise DemokitError(f"{name} cannot be {getattr(self, name)!r}: see --help.")
        for split in self.split:
            if split not in SPLITS:
                raise unknown_name("split", split, SPLITS)
        least = {"adapt_steps": 1, "num_tasks": 1, "demonstrations": 0, "seed": 0, "episodes": 1}
        for name, limit in least.items():
            if (value := getattr(self, name)) is not None and value < limit:
                raise DemokitError(f"{name} is at least {limit}, not {value}.")
        if any(value < 2 for value in self.rollouts):
            raise DemokitError("rollouts: every value is at least 2, for adaptation compares them.")
        if not all(0 < value < inf for value in self.step_scale):
            raise DemokitError("step_scale: every value is above 0, and finite.")

    def steps(self, rollouts: int) -> int:
        """Adaptation steps of a run that takes K = `rollouts` episodes for each."""
        return self.adapt_steps if self.episodes is None else self.episodes // rollouts

    def require_a_step(self, label: str, own_rollouts: int) -> None:
        """Raise DemokitError where the episodes are fewer than one step of a method takes.

        Args:
            label: of the method.
            own_rollouts: its K in training.
        """
        most = max(variant.rollouts for variant in self.variants(own_rollouts))
        if self.episodes is not None and most > self.episodes:
            raise DemokitError(
                f"{self.episodes} episodes are less than one adaptation step of {label}, which "
                f"takes {most}: raise --episodes, or lower --rollouts."
            )

    def short(self, runs: Sequence[EvaluatedRun]) -> dict[str, int]:
        """Method -> K, where its steps do not fill the episodes.

        Raises:
            DemokitError: they are fewer than one step takes.
        """
        if self.episodes is None:
            return {}
        own = {run.label: run.facts.episodes_per_step for run in runs}
        for label, rollouts in own.items():
            self.require_a_step(label, rollouts)
        main = {label: self.variants(rollouts)[0].rollouts for label, rollouts in own.items()}
        return {label: k for label, k in main.items() if self.episodes % k}

    def variants(self, own_rollouts: int) -> list[Variant]:
        """The ways a run whose K in training was `own_rollouts` is fine-tuned."""
        counts = list(dict.fromkeys(self.rollouts)) or [own_rollouts]
        factors = list(dict.fromkeys(self.step_scale)) or [1.0]
        rollouts, scale = counts[0], factors[0] if len(factors) == 1 else 1.0
        return [
            Variant(MAIN, rollouts, scale),
            *(Variant(BY_ROLLOUTS, k, scale) for k in counts if len(counts) > 1),
            *(Variant(BY_STEP_SCALE, rollouts, each) for each in factors if len(factors) > 1),
        ]

    def tasks(self, runs: Sequence[EvaluatedRun]) -> dict[str, tuple[Task, ...]]:
        """Split -> its tasks.

        Raises:
            DemokitError: there are no such tasks, the runs were trained on several task sets and
                none is named, or all tasks of a split are the same.
        """
        return {split: self._of_split(runs, split) for split in self.split}

    def reference(self, runs: Sequence[EvaluatedRun]) -> Reference:
        """The expert that runs are compared with; see `choose_reference`."""
        demonstrated = [run.facts.expert for run in runs]
        return choose_reference(runs[0].family.name, self.expert, demonstrated)

    def _of_split(self, runs: Sequence[EvaluatedRun], split: str) -> tuple[Task, ...]:
        family = runs[0].family
        name, seed = self._set_of(runs, split)
        found = make_tasks(family, name, split, num_tasks=self.num_tasks, seed=seed)
        if len(found) > 1 and len({task.context for task in found}) == 1:
            raise DemokitError(
                f"All {len(found)} {split} tasks of the task set '{name}' of {family.name} are the "
                "same: name another --task-set, or take --num-tasks 1."
            )
        # Where there are few, each counts once: copies would pass for evidence.
        return tuple({task.context: task for task in reversed(found)}.values())[::-1]

    def _set_of(self, runs: Sequence[EvaluatedRun], split: str) -> tuple[str, int]:
        """The task set and the seed of its draws: those of the training, unless they are named."""
        known = task_sets(runs[0].family)
        # Archives of earlier versions do not say which it was.
        said = [run.facts for run in runs if run.facts.tasks] or [run.facts for run in runs]
        trained = dict.fromkeys((facts.task_set, facts.task_seed) for facts in said)
        name, seed = next(iter(trained))
        if len(trained) > 1 and self.task_set is None:
            raise DemokitError(
                f"The runs were trained on several task sets ({_named(trained)}): say with "
                "--task-set on which one to judge them."
            )
        if self.task_set is not None:
            name = self.task_set
        elif split not in known.get(name, ()):
            name = next((other for other, has in known.items() if split in has), "")
        if not name:
            raise DemokitError(f"{runs[0].family.name} has no tasks of the split '{split}'.")
        return name, seed if self.task_seed is None else self.task_seed


def _named(sets: Iterable[tuple[str, int]]) -> str:
    return ", ".join(f"{name or 'tasks of their own'}, seed {seed}" for name, seed in sets)
