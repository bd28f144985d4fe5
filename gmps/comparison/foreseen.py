"""Runs of a plan as evaluation will see them: what cannot be evaluated is not trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from demokit.data import open_dataset
from gmps.comparison.asked import Asked
from gmps.comparison.evaluated_run import EvaluatedRun, Facts
from gmps.comparison.measure import require_possible
from gmps.comparison.plan import PlannedRun
from gmps.comparison.protocol import Protocol
from gmps.method import find_method
from gmps.options import RECORDED
from gmps.problem import Spent
from gmps.sources import problem_of_dataset


class Foreseen(EvaluatedRun):
    """A run that is not trained."""

    @property
    def has_checkpoint(self) -> bool:
        """No."""
        return False

    @property
    def learner_kind(self) -> type | None:
        """The class that its method's `load` says it returns, if it says one."""
        code = find_method(self.facts.method).code
        said = getattr(code.load, "__annotations__", {}).get("return")
        kind = getattr(code, said, None) if isinstance(said, str) else said
        return kind if isinstance(kind, type) else None


def require_evaluation(
    protocol: Protocol, asked: Asked, trainings: Mapping[str, PlannedRun]
) -> None:
    """Raise DemokitError where runs could not be evaluated so, whatever they learn.

    Args:
        protocol: how.
        asked: what they learn; where nobody can say of which family, less is seen beforehand.
        trainings: name of a run -> its training.
    """
    for run, planned in trainings.items():
        protocol.require_a_step(run.rpartition("-")[0], planned.options.rollouts_per_task)
    if asked.family:
        runs = [Foreseen(Path(run), _facts(asked, each)) for run, each in trainings.items()]
        require_possible(runs, protocol)


def with_what_is_there(asked: Asked) -> Asked:
    """What a dataset that is somebody's own says itself, if it is there."""
    if asked.family or not Path(asked.source).exists():
        return asked
    problem = problem_of_dataset(asked.source, RECORDED)
    problem.require_simulation()
    with open_dataset(asked.source) as dataset:
        expert = dataset.metadata.provenance.expert
    task_set, seed = problem.task_set
    return asked._replace(
        family=problem.family_name,
        reward=problem.reward,
        expert=expert,
        task_set=task_set,
        task_seed=seed,
    )


def _facts(asked: Asked, planned: PlannedRun) -> Facts:
    """What is to be known about a run before it is trained."""
    options = planned.options
    return Facts(
        planned.method,
        asdict(options),
        asked.family,
        asked.reward if options.reward == RECORDED else options.reward,
        Spent(),
        finished=False,
        episodes_per_step=options.rollouts_per_task,
        step_size=None,
        ready_steps=None,
        checkpoint="",
        task_set=asked.task_set,
        task_seed=asked.task_seed,
        expert=asked.expert,
    )
