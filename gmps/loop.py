"""The training of any method: resume, log, evaluate, stop, checkpoint, choose a step size."""

from __future__ import annotations

import math
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial

from demokit.envs.tasks import make_tasks
from demokit.errors import DemokitError
from demokit.types import Task
from gmps.distributed import World
from gmps.evaluation import MEAN_EPISODES, Curve, meta_test
from gmps.experience.demos import DemoSet
from gmps.method import HasStepSize, Iteration, MetaLearner, Method, find_method, ready_steps
from gmps.options import RunOptions
from gmps.problem import Problem, Spent, Training
from gmps.progress import ITERATIONS, Report, in_words, unheard
from gmps.runs.checkpoint import Trained
from gmps.runs.folder import Run, last_scalars
from gmps.runs.stopping import Best
from gmps.tuning import choose_step_size

STEP_SIZES = "step_sizes"


def train(
    run: Run, problem: Problem, demos: DemoSet | None = None, report: Report = unheard
) -> Trained:
    """Carry out a run, from where it is to its end; returns what it has come to.

    Args:
        run: its folder, method and options.
        problem: what is learned.
        demos: the demonstrations, for methods that imitate.
        report: told how far it is.
    """
    method, options = find_method(run.method), run.options
    problem.require_effect(options)
    training = Training(
        problem,
        options,
        demos and demos.to(run.device),
        run.device,
        run.world.part(len(problem.tasks)),
        run.path,
        report := run.telling(report),
    )
    fresh = _fresh(method, run, training, demos)
    trained = run.restore(fresh)
    if trained.finished:
        return trained
    monitor = Monitor.of(training, run.world)
    return _settled(run, _iterate(method, run, training, trained, monitor), monitor, report)


def _fresh(
    method: Method, run: Run, training: Training[RunOptions], demos: DemoSet | None
) -> Trained:
    """The run before its first iteration."""
    learner = method.code.start(training)
    fresh = Trained(run.method, run.options, training.problem, learner)
    if demos is None:
        return fresh
    spent = Spent(demos.num_steps, experts=dict(demos.experts))
    return replace(fresh, spent=spent, demos=demos.digest(), expert=demos.expert)


def _iterate(
    method: Method,
    run: Run,
    training: Training[RunOptions],
    trained: Trained,
    monitor: Monitor,
) -> Trained:
    """The iterations that are left; returns the run with its best learner."""
    options, num = run.options, run.options.iterations
    measured = in_words(last_scalars(run.metrics)) or None
    training.report(ITERATIONS, trained.iteration, num, note=measured)
    if has_stopped(trained):
        return at_best(trained)
    iterations = method.code.train(training, trained.learner, run.state, trained.iteration)
    with closing(iterations):
        for found in iterations:
            last = trained.iteration == num - 1
            curve = None
            due = last or trained.iteration % options.eval_every == 0
            if due and training.problem.simulated:
                curve = monitor.curve(found.learner, trained.iteration)
            trained = _after(trained, found, curve, monitor)
            watched = _scalars(trained, curve)
            run.log(trained.iteration - 1, {**found.scalars, **watched})
            training.report(ITERATIONS, trained.iteration, num, note=in_words(watched) or None)
            stopped = has_stopped(trained)
            if last or stopped or trained.iteration % options.checkpoint_every == 0:
                run.save(trained, found.state)
            if stopped:
                break
    return at_best(trained)


def _after(trained: Trained, found: Iteration, curve: Curve | None, monitor: Monitor) -> Trained:
    """The run with one iteration more."""
    spent = replace(
        trained.spent,
        meta_training=trained.spent.meta_training + found.env_steps,
        monitoring=trained.spent.monitoring + (monitor.num_steps(found.learner) if curve else 0),
        experts={**trained.spent.experts, **found.experts},
    )
    best = trained.best
    if curve and trained.options.patience:
        best = Best.of(best, found.learner, float(curve.mean.episode_return[-1].mean()))
    done = trained.iteration + 1
    return replace(trained, learner=found.learner, iteration=done, spent=spent, best=best)


def _settled(run: Run, trained: Trained, monitor: Monitor, report: Report) -> Trained:
    """With a step size, where the learner needs one: chosen once, the search kept as a table."""
    learner = trained.learner
    chooses = trained.problem.simulated
    if chooses and isinstance(learner, HasStepSize) and learner.step_size is None:
        problem, seed = trained.problem, trained.options.seed
        tuning = choose_step_size(
            learner, problem, seed, world=run.world, device=run.device, report=report
        )
        scores = tuning.scores.items()
        run.write_rows(STEP_SIZES, [{"step_size": lr, "mean_return": s} for lr, s in scores])
        spent = replace(trained.spent, tuning=trained.spent.tuning + tuning.env_steps)
        trained = replace(trained, learner=learner.with_step_size(tuning.best), spent=spent)
        if not learner.num_learned_steps:  # the first time that it can adapt
            curve = monitor.curve(trained.learner, trained.iteration)
            spent = replace(spent, monitoring=spent.monitoring + monitor.num_steps(trained.learner))
            trained = replace(trained, spent=spent)
            run.log(trained.iteration, _scalars(trained, curve))
    trained = replace(trained, finished=True)
    run.save(trained, {})  # nothing goes on from here
    return trained


def has_stopped(trained: Trained) -> bool:
    """Whether training has waited long enough for a better learner."""
    best, patience = trained.best, trained.options.patience
    return bool(patience) and best is not None and best.waited >= patience


def at_best(trained: Trained) -> Trained:
    """With the best learner in place of the last."""
    best = trained.best
    return trained if best is None else replace(trained, learner=best.learner, best=None)


@dataclass(frozen=True, eq=False)
class Monitor:
    """Watches a training learn to learn, on tasks that it does not see; for no choice but when to
    stop.

    Attributes:
        training: what is watched.
        world: its processes.
        tasks: drawn like the training tasks and apart from them; the training tasks themselves
            where no more can be drawn.
    """

    training: Training[RunOptions]
    world: World
    tasks: tuple[Task, ...]

    @classmethod
    def of(cls, training: Training[RunOptions], world: World) -> Monitor:
        """Of a training."""
        problem = training.problem
        return cls(training, world, monitor_tasks(problem) if problem.simulated else ())

    def curve(self, learner: MetaLearner, iteration: int) -> Curve:
        """Adaptation of the learner as it is."""
        streams = partial(self.training.stream, "monitor", iteration)
        with self.training.problem.sampler(
            self.tasks,
            explore=learner.episodes_per_step,
            mean=MEAN_EPISODES,
            part=self.world.part(len(self.tasks)),
            device=self.training.device,
        ) as sampler:
            return meta_test(learner, sampler, streams, _steps_within(learner, 1))

    def num_steps(self, learner: MetaLearner) -> int:
        """Environment steps of a curve."""
        episodes = (learner.episodes_per_step + MEAN_EPISODES) * (1 + _steps_within(learner, 1))
        return len(self.tasks) * episodes * self.training.problem.family.horizon


def monitor_tasks(problem: Problem) -> tuple[Task, ...]:
    """Held-out tasks of the training distribution, or the training tasks where there are none."""
    task_set, seed = problem.task_set
    try:
        return make_tasks(problem.family, task_set, "monitor", seed=seed)
    except DemokitError:
        return problem.tasks


def _steps_within(learner: MetaLearner, num: int) -> int:
    """So many adaptation steps, or as many as the learner can take."""
    ready = ready_steps(learner)
    return num if ready is None else min(num, ready)


def _scalars(trained: Trained, curve: Curve | None) -> dict[str, float]:
    """What the monitor tasks say, for metrics.csv; what was not measured is NaN."""
    found = dict.fromkeys(
        (f"{measure}_{when}" for measure in ("return", "success") for when in ("before", "after")),
        math.nan,
    )
    if curve:
        measured = {"return": curve.mean.episode_return, "success": curve.mean.success}
        for name, values in measured.items():
            found[f"{name}_before"] = float(values[0].mean())
            if len(values) > 1:
                found[f"{name}_after"] = float(values[-1].mean())
    return {**found, "env_steps": float(trained.spent.needed)}
