"""Runs measured side by side on the same held-out tasks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from demokit.envs.family import Family
from demokit.envs.tasks import make_tasks, task_sets
from demokit.errors import DemokitError
from demokit.learning.runs import versions
from demokit.types import Task
from gmps.comparison.outcomes import (
    BY_ROLLOUTS,
    BY_STEP_SCALE,
    MAIN,
    Row,
    Variant,
    label_of,
    place_of,
    read_rows,
    rows_of,
    write_rows,
)
from gmps.comparison.references import DEFAULT_EXPERT, reference_rows
from gmps.comparison.report import Comparison
from gmps.comparison.videos import Film, film, spread
from gmps.config import differing_options
from gmps.evaluate import MEAN_EPISODES, evaluate
from gmps.learned import CHECKPOINT, Learned, load

_CURVES = "curves"


@dataclass(frozen=True)
class Protocol:
    """How runs are evaluated: the options of `demokit evaluate`.

    Attributes:
        task_set: None takes the first set of the family that has the split.
        split: splits, each measured and shown.
        num_tasks: the first so many tasks of each split; None takes all.
        reward: None takes that of the training.
        adapt_steps: policy-gradient steps on each task.
        rollouts: K; several values are a sweep beside the main curve, which has the run's own K.
        step_scale: factors on the run's step sizes; several values are a sweep, as with K.
        expert: the reference, a name or a checkpoint; None: the scripted one where there is one.
        seed: of the roll-outs.
    """

    task_set: str | None = None
    split: tuple[str, ...] = ("validation",)
    num_tasks: int | None = None
    reward: str | None = None
    adapt_steps: int = 5
    rollouts: tuple[int, ...] = ()
    step_scale: tuple[float, ...] = ()
    expert: str | None = None
    seed: int = 0

    def variants(self, own_rollouts: int) -> list[Variant]:
        """The ways a run whose K in training was `own_rollouts` is fine-tuned."""
        rollouts = self.rollouts[0] if len(self.rollouts) == 1 else own_rollouts
        scale = self.step_scale[0] if len(self.step_scale) == 1 else 1.0
        return [
            Variant(MAIN, rollouts, scale),
            *(Variant(BY_ROLLOUTS, k, scale) for k in self.rollouts if len(self.rollouts) > 1),
            *(
                Variant(BY_STEP_SCALE, rollouts, factor)
                for factor in self.step_scale
                if len(self.step_scale) > 1
            ),
        ]

    def tasks(self, family: Family) -> dict[str, tuple[Task, ...]]:
        """Split -> its tasks; raises DemokitError where the family has no such split."""
        return {
            split: make_tasks(family, self._set_of(family, split), split, num_tasks=self.num_tasks)
            for split in self.split
        }

    def _set_of(self, family: Family, split: str) -> str:
        known = task_sets(family)
        found = [name for name, has in known.items() if split in has]
        if self.task_set is None and not found:
            raise DemokitError(f"{family.name} has no tasks of the split '{split}'.")
        return self.task_set or found[0]


@dataclass(frozen=True, eq=False)
class Contender:
    """A run that takes part."""

    folder: Path
    learned: Learned

    @property
    def label(self) -> str:
        """Its method; see `label_of`."""
        return label_of(self.folder)


def contenders(folders: Sequence[Path]) -> list[Contender]:
    """The runs in these folders; raises DemokitError unless they are of one family."""
    found = [Contender(folder, load(folder)[0]) for folder in folders]
    for other in found[1:]:
        if other.learned.family_name != found[0].learned.family_name:
            raise DemokitError(
                f"{other.folder} was trained on {other.learned.family_name}, {found[0].folder} on "
                f"{found[0].learned.family_name}: compare runs of one family."
            )
    return found


def compare(
    runs: Sequence[Contender],
    protocol: Protocol,
    folder: Path,
    report: Callable[[int], None] = lambda done: None,
) -> Comparison:
    """Everything that is known about the runs on these tasks; see `measure`."""
    learned = runs[0].learned
    tasks = protocol.tasks(learned.family)
    every = [task for of_split in tasks.values() for task in of_split]
    counts = " and ".join(f"{len(found)} {split} tasks" for split, found in tasks.items())
    reward = protocol.reward or learned.reward
    return Comparison(
        title=f"{learned.family_name}, {reward} reward, {counts}",
        rows=measure(runs, protocol, folder, report),
        places=[place_of(learned.family, task) for task in every],
        runs=[_budget(run) for run in runs],
        facts=_facts(runs, protocol, tasks),
        options={
            run.label: {name: str(value) for name, value in asdict(run.learned.config).items()}
            for run in reversed(runs)
        },
    )


def _budget(run: Contender) -> dict[str, Any]:
    """What a run took, as a row of the report."""
    learned = run.learned
    return {
        "run": run.folder.name,
        "seed": learned.config.seed,
        "environment steps": learned.env_steps,
        "expert's training steps": learned.expert_steps,
        "fine-tuning step size": f"{learned.later_lr:.3g}" if learned.later_lr else "not chosen",
        "options other than default": differing_options(learned.config) or "none",
    }


def _facts(
    runs: Sequence[Contender], protocol: Protocol, tasks: dict[str, tuple[Task, ...]]
) -> dict[str, str]:
    """How the comparison was made."""
    learned = runs[0].learned
    sets = dict.fromkeys(task.id.rsplit("/", 1)[0] for found in tasks.values() for task in found)
    own = dict.fromkeys(run.learned.config.rollouts_per_task for run in runs)
    return {
        "family": f"{learned.family_name}, horizon {learned.family.horizon} steps",
        "reward in adaptation": protocol.reward or learned.reward,
        "tasks": ", ".join(sets),
        "adaptation steps": str(protocol.adapt_steps),
        "roll-outs per task and step": ", ".join(map(str, protocol.rollouts or own)),
        "environment steps of one roll-out": f"{learned.family.horizon} at most",
        "episodes by the mean that measure": str(MEAN_EPISODES),
        "factors on step sizes": ", ".join(map(str, protocol.step_scale or (1.0,))),
        "expert": protocol.expert or DEFAULT_EXPERT,
        "seed of the roll-outs": str(protocol.seed),
        **versions(),
    }


def measure(
    runs: Sequence[Contender],
    protocol: Protocol,
    folder: Path,
    report: Callable[[int], None] = lambda done: None,
) -> list[Row]:
    """Measure every run in every way on every split; the references come last.

    Every finished curve is kept below `folder` and read again by a later call that asks for the
    same: an interrupted evaluation continues, a longer one measures what is new.

    Args:
        runs: of one family.
        protocol: how.
        folder: of the comparison.
        report: called with the adaptation steps done, of `num_steps`.
    """
    tasks = protocol.tasks(runs[0].learned.family)
    wanted = list(_wanted(runs, protocol, tasks))
    per_curve = protocol.adapt_steps + 1
    rows: list[Row] = []
    for place, (run, split, variant) in enumerate(wanted):

        def on_step(step: int, before: int = place * per_curve) -> None:
            report(before + step + 1)

        rows += _curve(run, tasks[split], variant, protocol, folder / _CURVES, on_step)
        on_step(protocol.adapt_steps)
    return rows + _references(runs[0].learned, tasks, protocol)


def num_steps(runs: Sequence[Contender], protocol: Protocol) -> int:
    """How many sets of roll-outs `measure` takes or reads."""
    curves = [protocol.variants(run.learned.config.rollouts_per_task) for run in runs]
    return sum(map(len, curves)) * len(protocol.split) * (protocol.adapt_steps + 1)


def _wanted(
    runs: Sequence[Contender], protocol: Protocol, tasks: dict[str, tuple[Task, ...]]
) -> Iterator[tuple[Contender, str, Variant]]:
    for run in runs:
        for split in tasks:
            for variant in protocol.variants(run.learned.config.rollouts_per_task):
                yield run, split, variant


def _curve(
    run: Contender,
    tasks: Sequence[Task],
    variant: Variant,
    protocol: Protocol,
    folder: Path,
    on_step: Callable[[int], None],
) -> list[Row]:
    """The rows of one adaptation curve, measured or read."""
    kept = folder / f"{run.folder.resolve().name}-{_key(run, tasks, variant, protocol)}.csv"
    if kept.exists():
        return [replace(row, sweep=variant.sweep) for row in read_rows(kept)]
    measured = evaluate(
        run.learned,
        tasks,
        num_steps=protocol.adapt_steps,
        rollouts_per_task=variant.rollouts,
        seed=protocol.seed,
        reward=protocol.reward,
        step_scale=variant.step_scale,
        on_step=on_step,
    )
    rows = rows_of(run.label, run.learned.config.seed, variant, tasks, measured)
    folder.mkdir(parents=True, exist_ok=True)
    aside = kept.with_suffix(".tmp")
    write_rows(aside, rows)
    aside.replace(kept)
    return rows


def _key(run: Contender, tasks: Sequence[Task], variant: Variant, protocol: Protocol) -> str:
    """Names a curve by everything that decides it."""
    checkpoint = run.folder / CHECKPOINT if run.folder.is_dir() else run.folder
    decisive = (
        sha256(checkpoint.read_bytes()).hexdigest(),
        [asdict(task) for task in tasks],
        (variant.rollouts, variant.step_scale),
        (protocol.adapt_steps, protocol.seed, protocol.reward),
        versions(),
    )
    return sha256(json.dumps(decisive).encode()).hexdigest()[:16]


def _references(
    learned: Learned, tasks: dict[str, tuple[Task, ...]], protocol: Protocol
) -> list[Row]:
    rows: list[Row] = []
    for split in tasks.values():
        rng = np.random.default_rng(protocol.seed)
        reward = protocol.reward or learned.reward
        rows += reference_rows(learned.family, split, reward, rng, protocol.expert)
    return rows


def films(
    runs: Sequence[Contender],
    protocol: Protocol,
    num: int,
    folder: Path,
    report: Callable[[int], None] = lambda done: None,
) -> list[Film]:
    """Film the first run of every method on `num` tasks of every split; see `film`."""
    made: list[Film] = []
    for run in _first_of_each(runs):
        main = protocol.variants(run.learned.config.rollouts_per_task)[0]
        for tasks in protocol.tasks(run.learned.family).values():
            made += film(
                run.label,
                run.learned,
                spread(tasks, num),
                folder,
                rollouts=main.rollouts,
                reward=protocol.reward or run.learned.reward,
                seed=protocol.seed,
                expert=protocol.expert,
            )
            report(len(made))
    return sorted(made, key=lambda film: film.task)


def num_films(runs: Sequence[Contender], protocol: Protocol, num: int) -> int:
    """How many films `films` makes."""
    tasks = protocol.tasks(runs[0].learned.family).values()
    return len(_first_of_each(runs)) * sum(min(num, len(of_split)) for of_split in tasks)


def _first_of_each(runs: Sequence[Contender]) -> list[Contender]:
    return list({run.label: run for run in reversed(runs)}.values())[::-1]
