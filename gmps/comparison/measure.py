"""Runs measured side by side on the same held-out tasks."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import NamedTuple

from demokit.errors import DemokitError
from demokit.protocols import Expert
from demokit.random import stream
from demokit.types import Task
from gmps.comparison.evaluated_run import EvaluatedRun, Measured
from gmps.comparison.pieces import done_in_pieces
from gmps.comparison.protocol import Protocol
from gmps.comparison.references import demonstrated, reference_rows
from gmps.comparison.report import Comparison
from gmps.comparison.rows import Row, Variant, context_of, rows_of
from gmps.comparison.videos import Film, film, spread
from gmps.evaluation import MEAN_EPISODES, Curve, Showing, evaluate, joined, num_trials
from gmps.method import HasStepScale, LearnsFromDemonstrations, MetaLearner

_PROTOCOL = 2  # of `evaluate`: one more where the same options measure otherwise
_TASKS_AT_ONCE = 5


class Wanted(NamedTuple):
    """A curve to be measured, some tasks at a time."""

    run: EvaluatedRun
    tasks: Sequence[Task]
    variant: Variant
    protocol: Protocol

    @property
    def keys(self) -> tuple[str, ...]:
        """Its names: that of demokit 0.1, too, where there is no checkpoint to measure again."""
        now, older = _keys(*self)
        return (now,) if self.run.has_checkpoint else (now, older)

    @property
    def parts(self) -> list[slice]:
        """Which tasks are measured at a time."""
        num = len(self.tasks)
        return [slice(i, min(i + _TASKS_AT_ONCE, num)) for i in range(0, num, _TASKS_AT_ONCE)]

    @property
    def num_steps(self) -> int:
        """How many times some tasks' roll-outs are taken."""
        return len(self.parts) * (self.protocol.steps(self.variant.rollouts) + 1)

    def read(self) -> Measured | None:
        """What was measured before, if it was."""
        steps = self.protocol.steps(self.variant.rollouts)
        return self.run.read_curve(self.keys, self.variant, self.tasks, steps)

    def keep(self, parts: Sequence[Curve]) -> None:
        """Write what was measured of all parts, in their order."""
        run = self.run
        rows = rows_of(run.label, run.facts.seed, self.variant, self.tasks, joined(parts))
        run.keep_curve(self.keys[0], rows)


class Piece(NamedTuple):
    """Some tasks of a curve."""

    curve: Wanted
    own: slice


def compare(
    runs: Sequence[EvaluatedRun],
    protocol: Protocol,
    report: Callable[[int], None] = lambda done: None,
    jobs: int = 1,
) -> Comparison:
    """Everything that is known about the runs on these tasks; see `measure`."""
    family, facts = runs[0].family, runs[0].facts
    tasks = require_possible(runs, protocol)
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
        caveat=unlike(runs),
    )


def unlike(runs: Sequence[EvaluatedRun]) -> str:
    """In what the trainings differ that a comparison takes for granted; "" if in nothing known."""
    differing = [
        what
        for name, what in (("demos", "demonstrations"), ("tasks", "tasks"))
        if len({getattr(run.facts, name) for run in runs} - {""}) > 1
    ]
    same = " and ".join(differing)
    return f"The runs were not all trained on the same {same}." if differing else ""


def _told(run: EvaluatedRun, protocol: Protocol) -> str:
    """What a run is told, in words."""
    shown, trained, paid = protocol.demonstrations, run.facts.reward, protocol.reward
    several = "" if shown == 1 else "s"
    more = f"of a new task {shown} demonstration{several}" if shown else ""
    other = f"the {trained} reward in training, the {paid} one of a new task"
    differs = paid is not None and paid != trained
    return "; ".join(filter(None, (run.facts.told, other if differs else "", more)))


def require_possible(
    runs: Sequence[EvaluatedRun], protocol: Protocol
) -> dict[str, tuple[Task, ...]]:
    """The tasks of every split; raises DemokitError for what else would come to light late."""
    rewards = {run.facts.reward: run.path for run in runs}
    if protocol.reward is None and len(rewards) > 1:
        (one, path), (other, its) = list(rewards.items())[:2]
        raise DemokitError(
            f"{path} learns from the {one} reward, {its} from the {other} one: say with --reward "
            "which one pays all of them."
        )
    family = runs[0].family
    for reward in [*rewards] if protocol.reward is None else [protocol.reward]:
        family.checked_reward(reward)
    expert = protocol.reference(runs).expert
    protocol.short(runs)
    if protocol.demonstrations and expert is None:
        raise DemokitError(f"Nobody demonstrates the tasks of {family.name}: name an --expert.")
    for run in runs:
        _require_able(run, protocol)
    return protocol.tasks(runs)


def _require_able(run: EvaluatedRun, protocol: Protocol) -> None:
    """Raise DemokitError where a run cannot be shown, or scaled, as it is to be."""
    scaled = {*protocol.step_scale} - {1.0}
    kind = run.learner_kind if protocol.demonstrations or scaled else None
    if kind is None:
        return
    if protocol.demonstrations and not issubclass(kind, LearnsFromDemonstrations):
        raise DemokitError(
            f"{run.path} learns a new task from rewards alone ({run.facts.method}): leave out "
            "--demonstrations, or the run."
        )
    if scaled and not issubclass(kind, HasStepScale):
        raise _no_step_sizes(run)


def _no_step_sizes(run: EvaluatedRun) -> DemokitError:
    return DemokitError(
        f"{run.path} adapts without step sizes ({run.facts.method}): leave out --step-scale."
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
        jobs: processes that measure side by side; what is measured does not depend on it.
    """
    tasks = protocol.tasks(runs)
    wanted = _wanted(runs, protocol, tasks)
    _measure_missing(wanted, report, jobs)
    found = [_kept(curve) for curve in wanted]
    rows = [row for curve in found for row in curve.rows]
    by = _versions([curve.versions for curve in found])
    return rows + _references(runs, tasks, protocol), by


def _wanted(
    runs: Sequence[EvaluatedRun], protocol: Protocol, tasks: Mapping[str, Sequence[Task]]
) -> list[Wanted]:
    return [
        Wanted(run, tasks[split], variant, protocol)
        for run in runs
        for split in tasks
        for variant in protocol.variants(run.facts.episodes_per_step)
    ]


def _measure_missing(wanted: Sequence[Wanted], report: Callable[[int], None], jobs: int) -> None:
    """Measure the curves that nobody has measured, and keep each when it is whole."""
    distinct = {(id(curve.run), curve.keys): curve for curve in wanted}.values()
    missing = [curve for curve in distinct if curve.read() is None]
    pieces = [Piece(curve, own) for curve in missing for own in curve.parts]
    done = count(sum(curve.num_steps for curve in wanted) - sum(c.num_steps for c in missing))
    report(next(done))
    curves: dict[int, dict[int, Curve]] = {id(curve): {} for curve in missing}
    for i, part in done_in_pieces(measure_piece, pieces, jobs, lambda: report(next(done))):
        curve, own = pieces[i]
        parts = curves[id(curve)]
        parts[own.start] = part
        if len(parts) == len(curve.parts):
            curve.keep([part for _, part in sorted(parts.items())])


def _kept(wanted: Wanted) -> Measured:
    """A curve that is measured."""
    found = wanted.read()
    if found is None:
        raise DemokitError(f"What was measured of {wanted.run.path} is gone: evaluate again.")
    return found


def num_steps(runs: Sequence[EvaluatedRun], protocol: Protocol) -> int:
    """How many steps `measure` takes or reads: each some tasks' roll-outs."""
    wanted = _wanted(runs, protocol, protocol.tasks(runs))
    return sum(curve.num_steps for curve in wanted)


def measure_piece(piece: Piece, report: Callable[[], None] = lambda: None) -> Curve:
    """The adaptation curve of some tasks; `report` is called after each step."""
    (run, tasks, variant, protocol), own = piece
    return evaluate(
        scaled(run.trained.learner, variant.step_scale, run),
        run.trained.problem,
        tasks,
        own,
        num_steps=protocol.steps(variant.rollouts),
        seed=protocol.seed,
        run_seed=run.facts.seed,
        episodes_per_step=variant.rollouts,
        reward=protocol.reward,
        show=_showing(run, protocol),
        on_step=lambda step: report(),
    )


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
        raise _no_step_sizes(run)
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
