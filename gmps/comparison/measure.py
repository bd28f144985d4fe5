"""Runs measured side by side on the same held-out tasks."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from hashlib import sha256
from multiprocessing import get_context
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch

from demokit.envs.family import Family
from demokit.envs.tasks import make_tasks, task_sets
from demokit.errors import DemokitError
from demokit.experts import load_expert
from demokit.types import Task
from gmps.comparison.contender import Contender
from gmps.comparison.outcomes import (
    BY_ROLLOUTS,
    BY_STEP_SCALE,
    MAIN,
    Row,
    Variant,
    place_of,
    rows_of,
)
from gmps.comparison.references import DEFAULT_EXPERT, reference_rows
from gmps.comparison.report import Comparison
from gmps.comparison.videos import Film, film, spread
from gmps.evaluation import MEAN_EPISODES, evaluate

Wanted: TypeAlias = "tuple[Contender, Sequence[Task], Variant, Protocol]"
"""A curve to be measured."""


@dataclass(frozen=True)
class Protocol:
    """How runs are evaluated: the options of `demokit evaluate`.

    Attributes:
        task_set: None takes the first set of the family that has the split.
        split: splits, each measured and shown.
        num_tasks: the first so many tasks of each split; None takes all.
        reward: None takes that of the training.
        adapt_steps: policy-gradient steps on each task.
        rollouts: K, of the main curve the first; several values are a sweep. None: the run's own.
        step_scale: factors on the run's step sizes; several values are a sweep beside the main
            curve, whose factor is 1.
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
        counts = list(dict.fromkeys(self.rollouts)) or [own_rollouts]
        factors = list(dict.fromkeys(self.step_scale)) or [1.0]
        rollouts, scale = counts[0], factors[0] if len(factors) == 1 else 1.0
        return [
            Variant(MAIN, rollouts, scale),
            *(Variant(BY_ROLLOUTS, k, scale) for k in counts if len(counts) > 1),
            *(Variant(BY_STEP_SCALE, rollouts, each) for each in factors if len(factors) > 1),
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


def compare(
    runs: Sequence[Contender],
    protocol: Protocol,
    report: Callable[[int], None] = lambda done: None,
    jobs: int = 1,
) -> Comparison:
    """Everything that is known about the runs on these tasks; see `measure`."""
    family, facts = runs[0].family, runs[0].facts
    _check(runs, protocol)
    tasks = protocol.tasks(family)
    every = [task for of_split in tasks.values() for task in of_split]
    counts = " and ".join(f"{len(found)} {split} tasks" for split, found in tasks.items())
    reward = protocol.reward or facts.reward
    return Comparison(
        title=f"{family.name}, {reward} reward, {counts}",
        rows=measure(runs, protocol, report, jobs),
        places=[place_of(family, task) for task in every],
        runs=[run.budget() for run in runs],
        facts=_facts(runs, protocol, tasks),
        options={
            run.label: {name: str(value) for name, value in asdict(run.facts.config).items()}
            for run in reversed(runs)
        },
    )


def _check(runs: Sequence[Contender], protocol: Protocol) -> None:
    """Raise DemokitError for what would come to light only when all is measured."""
    rewards = {run.facts.reward: run.path for run in runs}
    if protocol.reward is None and len(rewards) > 1:
        (one, path), (other, its) = list(rewards.items())[:2]
        raise DemokitError(
            f"{path} was trained on the {one} reward, {its} on the {other} one: say with --reward "
            "which one pays all of them."
        )
    if protocol.expert is not None:
        load_expert(protocol.expert, runs[0].family.name)


def _facts(
    runs: Sequence[Contender], protocol: Protocol, tasks: dict[str, tuple[Task, ...]]
) -> dict[str, str]:
    """How the comparison was made."""
    family, facts = runs[0].family, runs[0].facts
    sets = dict.fromkeys(task.id.rsplit("/", 1)[0] for found in tasks.values() for task in found)
    own = dict.fromkeys(run.facts.config.rollouts_per_task for run in runs)
    demos = dict.fromkeys(run.facts.demos[:8] or "unknown" for run in runs)
    return {
        "family": f"{family.name}, horizon {family.horizon} steps",
        "reward in adaptation": protocol.reward or facts.reward,
        "tasks": ", ".join(sets),
        "adaptation steps": str(protocol.adapt_steps),
        "roll-outs per task and step": ", ".join(map(str, protocol.rollouts or own)),
        "environment steps of one roll-out": f"{family.horizon} at most",
        "episodes by the mean that measure": str(MEAN_EPISODES),
        "factors on step sizes": ", ".join(map(str, protocol.step_scale or (1.0,))),
        "demonstrations (SHA-256)": ", ".join(demos),
        "expert": protocol.expert or DEFAULT_EXPERT,
        "seed of the roll-outs": str(protocol.seed),
        **_versions(runs),
    }


def _versions(runs: Sequence[Contender]) -> dict[str, str]:
    """Library -> the versions that measured the runs."""
    found = [run.facts.versions for run in runs]
    return {
        name: ", ".join(dict.fromkeys(each.get(name, "unknown") for each in found))
        for name in found[0]
    }


def measure(
    runs: Sequence[Contender],
    protocol: Protocol,
    report: Callable[[int], None] = lambda done: None,
    jobs: int = 1,
) -> list[Row]:
    """Measure every run in every way on every split; the references come last.

    Every finished curve is kept in the run's folder and read again by a later call that asks for
    the same: an interrupted evaluation continues, a longer one measures what is new.

    Args:
        runs: of one family.
        protocol: how.
        report: called with the adaptation steps done, of `num_steps`.
        jobs: processes that measure side by side.
    """
    tasks = protocol.tasks(runs[0].family)
    wanted = [
        (run, tasks[split], variant, protocol)
        for run in runs
        for split in tasks
        for variant in protocol.variants(run.facts.config.rollouts_per_task)
    ]
    if jobs > 1:
        distinct = list({(id(curve[0]), _key(*curve)): curve for curve in wanted}.values())
        _measure_side_by_side(
            distinct, jobs, lambda done: report(done * (protocol.adapt_steps + 1))
        )
    rows: list[Row] = []
    for place, curve in enumerate(wanted):

        def on_step(step: int, before: int = place * (protocol.adapt_steps + 1)) -> None:
            report(before + step + 1)

        rows += _curve(*curve, on_step)
        on_step(protocol.adapt_steps)
    return rows + _references(runs[0], tasks, protocol)


def _measure_side_by_side(
    wanted: Sequence[Wanted], jobs: int, report: Callable[[int], None]
) -> None:
    """Measure curves in processes of their own; they are kept, and read afterwards."""
    threads = max(1, (os.cpu_count() or 1) // jobs)
    context = get_context("spawn")
    with ProcessPoolExecutor(jobs, context, _begin, (threads,)) as pool:
        try:
            measured = [pool.submit(_curve, *curve) for curve in wanted]
            for done, future in enumerate(as_completed(measured)):
                future.result()
                report(done + 1)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _begin(threads: int) -> None:
    """In a process that measures: Ctrl-C ends it at once."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    torch.set_num_threads(threads)


def num_steps(runs: Sequence[Contender], protocol: Protocol) -> int:
    """How many sets of roll-outs `measure` takes or reads."""
    curves = [protocol.variants(run.facts.config.rollouts_per_task) for run in runs]
    return sum(map(len, curves)) * len(protocol.split) * (protocol.adapt_steps + 1)


def _curve(
    run: Contender,
    tasks: Sequence[Task],
    variant: Variant,
    protocol: Protocol,
    on_step: Callable[[int], None] = lambda step: None,
) -> list[Row]:
    """The rows of one adaptation curve, measured or read."""
    key = _key(run, tasks, variant, protocol)
    kept = run.read_curve(key, variant)
    if kept is not None:
        return kept
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
    rows = rows_of(run.label, run.facts.config.seed, variant, tasks, measured)
    run.keep_curve(key, rows)
    return rows


def _key(run: Contender, tasks: Sequence[Task], variant: Variant, protocol: Protocol) -> str:
    """Names a curve by everything that decides it."""
    decisive = (
        run.facts.checkpoint,
        [asdict(task) for task in tasks],
        (variant.rollouts, variant.step_scale),
        (protocol.adapt_steps, protocol.seed, protocol.reward),
    )
    return sha256(json.dumps(decisive).encode()).hexdigest()[:16]


def _references(
    run: Contender, tasks: dict[str, tuple[Task, ...]], protocol: Protocol
) -> list[Row]:
    rows: list[Row] = []
    for split in tasks.values():
        rng = np.random.default_rng(protocol.seed)
        reward = protocol.reward or run.facts.reward
        rows += reference_rows(run.family, split, reward, rng, protocol.expert)
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
        main = protocol.variants(run.facts.config.rollouts_per_task)[0]
        for tasks in protocol.tasks(run.family).values():
            made += film(
                run.label,
                run.learned,
                spread(tasks, num),
                folder,
                rollouts=main.rollouts,
                reward=protocol.reward or run.facts.reward,
                seed=protocol.seed,
                step_scale=main.step_scale,
                expert=protocol.expert,
            )
            report(len(made))
    return sorted(made, key=lambda film: film.task)


def num_films(runs: Sequence[Contender], protocol: Protocol, num: int) -> int:
    """How many films `films` makes."""
    tasks = protocol.tasks(runs[0].family).values()
    return len(_first_of_each(runs)) * sum(min(num, len(of_split)) for of_split in tasks)


def _first_of_each(runs: Sequence[Contender]) -> list[Contender]:
    """The first run of every method that can be rolled out."""
    return list({run.label: run for run in reversed(runs) if run.has_checkpoint}.values())[::-1]
