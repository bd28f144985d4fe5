"""Runs of task inference, and the fresh tasks that the scripts beside it measure them on."""

import sys
from pathlib import Path

from demokit.envs.tasks import make_tasks
from demokit.errors import DemokitError
from demokit.types import Task
from gmps.problem import Problem
from gmps.runs.checkpoint import Trained, load


def inference_run(path: Path) -> Trained:
    """What was trained, if by task inference; the script ends otherwise."""
    try:
        trained = load(path)[0]
    except DemokitError as error:
        sys.exit(str(error))
    if trained.method != "task-inference":
        sys.exit(f"{path} is no run of task inference.")
    return trained


def fresh_tasks(problem: Problem, num: int, seed: int) -> tuple[Task, ...]:
    """Tasks that nothing is trained, validated or chosen on: drawn as training tasks are."""
    return tuple(make_tasks(problem.family, "uniform", "monitor", num_tasks=num, seed=seed))
