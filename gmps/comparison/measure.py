"""Runs measured side by side on the same held-out tasks."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from hashlib import sha256
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import TypeAlias

import torch

from demokit.envs.tasks import make_tasks, task_sets
from demokit.errors import DemokitError
from demokit.learning.folder import versions
from demokit.protocols import Expert
from demokit.random import stream
from demokit.types import Task
from gmps.comparison.evaluated_run import EvaluatedRun, Measured
from gmps.comparison.processes import end_after
from gmps.comparison.references import (
    Reference,
    choose_reference,
    demonstrated,
    reference_rows,
)
from gmps.comparison.report import Comparison
from gmps.comparison.rows import (
    BY_ROLLOUTS,
    BY_STEP_SCALE,
    MAIN,
    Row,
    Variant,
    context_of,
    rows_of,
)
from gmps.comparison.videos import Film, film, spread
from gmps.evaluation import MEAN_EPISODES, Showing, evaluate, num_trials
from gmps.method import HasStepScale, LearnsFromDemonstrations, MetaLearner

_SAFE_PATH = "PYTHONSAFEPATH"
_PROTOCOL = 2  # of `evaluate`: one more where the same options measure otherwise
Wanted: TypeAlias = "tuple[EvaluatedRun, Sequence[Task], Variant, Protocol]"
"""A curve to be measured."""


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
        least = {"adapt_steps": 1, "num_tasks": 1, "demonstrations": 0, "seed": 0, "episodes": 1}
        for name, limit in least.items():
            if (value := getattr(self, name)) is not None and value < limit:
                raise DemokitError(f"{name} is at least {limit}, not {value}.")
        if any(value < 2 for value in self.rollouts):
            raise DemokitError("rollouts: every value is at least 2, for adaptation compares them.")
        if any(value <= 0 for value in self.step_scale):
            raise DemokitError("step_scale: every value is above 0.")

    def steps(self, rollouts: int) -> int:
        """Adaptation steps of a run that takes K = `rollouts` episodes for each."""
        return self.adapt_steps if self.episodes is None else self.episodes // rollouts

    def short(self, runs: Sequence[EvaluatedRun]) -> dict[str, int]:
        """Method -> K, where its steps do not fill the episodes.

        Raises:
            DemokitError: they are fewer than one step takes.
        """
        if self.episodes is None:
            return {}
        every = {
            run.label: variant.rollouts
            for run in runs
            for variant in self.variants(run.facts.episodes_per_step)[::-1]
        }
        for label, rollouts in every.items():
            if rollouts > self.episodes:
                raise DemokitError(
                    f"{self.episodes} episodes are less than one adaptation step of {label}, which "
                    f"takes {rollouts}: raise --episodes, or lower --rollouts."
                )
        return {label: k for label, k in every.items() if self.episodes % k}

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


def compare(
    runs: Sequence[EvaluatedRun],
    protocol: Protocol,
    report: Callable[[int], None] = lambda done: None,
    jobs: int = 1,
) -> Comparison:
    """Everything that is known about the runs on these tasks; see `measure`."""
    family, facts = runs[0].family, runs[0].facts
    _check(runs, protocol)
    tasks = protocol.tasks(runs)
    every = [task for of_split in tasks.values() for task in of_split]
    counts = " and ".join(f"{len(found)} {split} tasks" for split, found in tasks.items())
    reward = protocol.reward or facts.reward
    rows, by = measure(runs, protocol, report, jobs)
    return Comparison(
        title=f"{family.name}, {reward} reward, {counts}",
        rows=rows,
        contexts=[context_of(family, task) for task in every],
        runs=[run.budget() for run in runs],
        facts={**_facts(runs, protocol, tasks), **by},
        options={
            run.label: {name: str(value) for name, value in run.facts.options.items()}
            for run in reversed(runs)
        },
        learning=[point for run in runs for point in run.learning()],
        told={run.label: _told(run, protocol) for run in runs},
    )


def _told(run: EvaluatedRun, protocol: Protocol) -> str:
    """What a run is told, in words."""
    shown, trained, paid = protocol.demonstrations, run.facts.reward, protocol.reward
    several = "" if shown == 1 else "s"
    more = f"of a new task {shown} demonstration{several}" if shown else ""
    other = f"the {trained} reward in training, the {paid} one of a new task"
    differs = paid is not None and paid != trained
    return "; ".join(filter(None, (run.facts.told, other if differs else "", more)))


def _check(runs: Sequence[EvaluatedRun], protocol: Protocol) -> None:
    """Raise DemokitError for what would come to light only when all is measured."""
    rewards = {run.facts.reward: run.path for run in runs}
    if protocol.reward is None and len(rewards) > 1:
        (one, path), (other, its) = list(rewards.items())[:2]
        raise DemokitError(
            f"{path} was trained on the {one} reward, {its} on the {other} one: say with --reward "
            "which one pays all of them."
        )
    expert = protocol.reference(runs).expert
    protocol.short(runs)
    if protocol.demonstrations and expert is None:
        raise DemokitError(
            f"Nobody demonstrates the tasks of {runs[0].family.name}: name one with --expert."
        )
    for run in runs if protocol.demonstrations else ():
        if run.has_checkpoint and not isinstance(run.trained.learner, LearnsFromDemonstrations):
            raise DemokitError(
                f"{run.path} learns a new task from rewards alone ({run.facts.method}): leave out "
                "--demonstrations, or the run."
            )


def _facts(
    runs: Sequence[EvaluatedRun], protocol: Protocol, tasks: dict[str, tuple[Task, ...]]
) -> dict[str, str]:
    """How the comparison was made."""
    family, facts = runs[0].family, runs[0].facts
    sets = dict.fromkeys(task.id.rsplit("/", 1)[0] for found in tasks.values() for task in found)
    own = dict.fromkeys(run.facts.episodes_per_step for run in runs)
    demos = dict.fromkeys(run.facts.demos[:8] or "unknown" for run in runs)
    reference, shown = protocol.reference(runs), protocol.demonstrations
    return {
        "family": f"{family.name}, horizon {family.horizon} steps",
        "reward in adaptation": protocol.reward or facts.reward,
        "tasks": ", ".join(sets),
        "adaptation steps": str(protocol.adapt_steps)
        if protocol.episodes is None
        else f"as many as {protocol.episodes} episodes fill",
        "roll-outs per task and step": ", ".join(map(str, protocol.rollouts or own)),
        "environment steps of one roll-out": f"{family.horizon} at most",
        "episodes by the mean that measure": str(MEAN_EPISODES),
        **({"demonstrations of each task, shown first": str(shown)} if shown else {}),
        "factors on step sizes": ", ".join(map(str, protocol.step_scale or (1.0,))),
        "demonstrations (SHA-256)": ", ".join(demos),
        "expert": reference.note or (reference.expert.name if reference.expert else "none"),
        "seed of the roll-outs": str(protocol.seed),
    }


def _versions(found: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Library -> the versions that measured the curves."""
    names = dict.fromkeys(name for each in found for name in each)
    return {
        name: ", ".join(dict.fromkeys(each.get(name, "unknown") for each in found))
        for name in names
    }


def measure(
    runs: Sequence[EvaluatedRun],
    protocol: Protocol,
    report: Callable[[int], None] = lambda done: None,
    jobs: int = 1,
) -> tuple[list[Row], dict[str, str]]:
    """Measure every run in every way on every split; the references come last.

    Returns the rows, and by library the versions that measured them.

    Every finished curve is kept in the run's folder and read again by a later call that asks for
    the same: an interrupted evaluation continues, a longer one measures what is new.

    Args:
        runs: of one family.
        protocol: how.
        report: called with the adaptation steps done, of `num_steps`.
        jobs: processes that measure side by side.
    """
    tasks = protocol.tasks(runs)
    wanted = [
        (run, tasks[split], variant, protocol)
        for run in runs
        for split in tasks
        for variant in protocol.variants(run.facts.episodes_per_step)
    ]
    if jobs > 1:
        distinct = list({(id(curve[0]), _keys(*curve)): curve for curve in wanted}.values())
        _measure_side_by_side(distinct, jobs, report)
    found: list[Measured] = []
    before = 0
    for curve in wanted:

        def on_step(step: int, before: int = before) -> None:
            report(before + step + 1)

        found.append(_curve(*curve, on_step))
        before += _num_stages(curve)
        report(before)
    rows = [row for curve in found for row in curve.rows]
    by = _versions([curve.versions for curve in found])
    return rows + _references(runs, tasks, protocol), by


def _measure_side_by_side(
    wanted: Sequence[Wanted], jobs: int, report: Callable[[int], None]
) -> None:
    """Measure curves in processes of their own; they are kept, and read afterwards."""
    threads = max(1, (os.cpu_count() or 1) // jobs)
    context = get_context("spawn")
    with _safe_path(), ProcessPoolExecutor(jobs, context, _begin, (threads,)) as pool:
        try:
            measured = {pool.submit(_curve, *curve): _num_stages(curve) for curve in wanted}
            done = 0
            for future in as_completed(measured):
                future.result()
                done += measured[future]
                report(done)
        except BrokenProcessPool:
            raise DemokitError(
                "A process that measures was ended by the system, for want of memory perhaps: run "
                "the same command again with fewer --jobs; what is measured is kept."
            ) from None
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


@contextmanager
def _safe_path() -> Iterator[None]:
    """Processes that begin meanwhile take no module of the working folder for one of Python's."""
    before = os.environ.get(_SAFE_PATH)
    os.environ[_SAFE_PATH] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_SAFE_PATH]
        else:
            os.environ[_SAFE_PATH] = before


def _begin(threads: int) -> None:
    """In a process that measures: Ctrl-C ends it at once, and so does its parent's end."""
    parent = parent_process()
    assert parent is not None
    end_after(parent.join)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    torch.set_num_threads(threads)


def num_steps(runs: Sequence[EvaluatedRun], protocol: Protocol) -> int:
    """How many sets of roll-outs `measure` takes or reads."""
    variants = (v for run in runs for v in protocol.variants(run.facts.episodes_per_step))
    return len(protocol.split) * sum(protocol.steps(v.rollouts) + 1 for v in variants)


def _num_stages(wanted: Wanted) -> int:
    """How many sets of roll-outs a curve has."""
    _, _, variant, protocol = wanted
    return protocol.steps(variant.rollouts) + 1


def _curve(
    run: EvaluatedRun,
    tasks: Sequence[Task],
    variant: Variant,
    protocol: Protocol,
    on_step: Callable[[int], None] = lambda step: None,
) -> Measured:
    """One adaptation curve, measured or read."""
    keys = _keys(run, tasks, variant, protocol)
    kept = run.read_curve(keys, variant)
    if kept is not None:
        return kept
    trained = run.trained
    measured = evaluate(
        scaled(trained.learner, variant.step_scale, run),
        trained.problem,
        tasks,
        num_steps=protocol.steps(variant.rollouts),
        seed=protocol.seed,
        run_seed=run.facts.seed,
        episodes_per_step=variant.rollouts,
        reward=protocol.reward,
        show=_showing(run, protocol),
        on_step=on_step,
    )
    rows = rows_of(run.label, run.facts.seed, variant, tasks, measured)
    run.keep_curve(keys[0], rows)
    return Measured(rows, versions())


def _demonstrator(run: EvaluatedRun, protocol: Protocol) -> Expert | None:
    """Who shows the new tasks, if anybody does."""
    return protocol.reference([run]).expert if protocol.demonstrations else None


def _showing(run: EvaluatedRun, protocol: Protocol) -> Showing | None:
    """The demonstrations of new tasks, if there are any."""
    expert = _demonstrator(run, protocol)
    if expert is None:
        return None
    rng = stream(protocol.seed, "demonstrations of new tasks", run.facts.seed)
    problem, num = run.trained.problem, protocol.demonstrations
    return lambda tasks: demonstrated(problem, expert, tasks, num, rng)


def scaled(learner: MetaLearner, factor: float, run: EvaluatedRun) -> MetaLearner:
    """The learner with all its step sizes times a factor; raises DemokitError where it has none."""
    if factor == 1:
        return learner
    if not isinstance(learner, HasStepScale):
        raise DemokitError(
            f"{run.path} adapts without step sizes ({run.facts.method}): leave out --step-scale."
        )
    return learner.scaled(factor)


def _keys(
    run: EvaluatedRun, tasks: Sequence[Task], variant: Variant, protocol: Protocol
) -> tuple[str, str]:
    """Names of a curve, by everything that decides it; the second is that of demokit 0.1."""
    expert = _demonstrator(run, protocol)
    shown = [protocol.demonstrations, expert.name] if expert else []
    decisive = (
        run.facts.checkpoint,
        [asdict(task) for task in tasks],
        (variant.rollouts, variant.step_scale),
        (protocol.steps(variant.rollouts), protocol.seed, protocol.reward),
        *shown,
    )
    measured = (_PROTOCOL, MEAN_EPISODES, num_trials(variant.rollouts), run.family.model_hash)
    return _digest((*decisive, measured)), _digest(decisive)


def _digest(decisive: object) -> str:
    return sha256(json.dumps(decisive).encode()).hexdigest()[:16]


def _references(
    runs: Sequence[EvaluatedRun], tasks: dict[str, tuple[Task, ...]], protocol: Protocol
) -> list[Row]:
    rows: list[Row] = []
    run, expert = runs[0], protocol.reference(runs).expert
    for split in tasks.values():
        rng = stream(protocol.seed, "references")
        reward = protocol.reward or run.facts.reward
        rows += reference_rows(run.family, split, reward, rng, expert)
    return rows


def films(
    runs: Sequence[EvaluatedRun],
    protocol: Protocol,
    num: int,
    folder: Path,
    report: Callable[[int], None] = lambda done: None,
) -> list[Film]:
    """Film the first run of every method on `num` tasks of every split; see `film`."""
    made: list[Film] = []
    for run in _first_of_each(runs):
        main = protocol.variants(run.facts.episodes_per_step)[0]
        for tasks in protocol.tasks(runs).values():
            made += film(
                run.label,
                scaled(run.trained.learner, main.step_scale, run),
                run.trained.problem,
                spread(tasks, num),
                folder,
                rollouts=main.rollouts,
                reward=protocol.reward or run.facts.reward,
                seed=protocol.seed,
                expert=protocol.reference(runs).expert,
                show=_showing(run, protocol),
            )
            report(len(made))
    return sorted(made, key=lambda film: film.task)


def num_films(runs: Sequence[EvaluatedRun], protocol: Protocol, num: int) -> int:
    """How many films `films` makes."""
    tasks = protocol.tasks(runs).values()
    return len(_first_of_each(runs)) * sum(min(num, len(of_split)) for of_split in tasks)


def _first_of_each(runs: Sequence[EvaluatedRun]) -> list[EvaluatedRun]:
    """The first run of every method that can be rolled out."""
    return list({run.label: run for run in reversed(runs) if run.has_checkpoint}.values())[::-1]
