"""What task inference earns on fresh tasks when parts of its adaptation are taken away:

    python docs/inference_variants.py RUN...

These parts need no other training, so that one run (or several, of other seeds) is tried with each.
Parts of the training are taken away by docs/inference_ablation.toml.
"""

import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from demokit.random import stream
from gmps.evaluation import stages
from gmps.methods.inference.learner import TaskInference
from gmps.problem import Problem
from inference_runs import fresh_tasks, inference_run

TASKS, SEED, EPISODES, JUDGED = 40, 13, 3, 2
VARIANTS = {
    "all of it": {},
    "posterior sampling: no optimism": {"optimism": 1},
    "a transition counts in full": {"temper": 1.0},
    "an episode follows one code": {"moves": 0},
    "no code is moved uphill": {"ascent": 0},
}


def success(learner: TaskInference, problem: Problem) -> Iterator[float]:
    """Of the mean policy on fresh tasks, drawn as training tasks are, after 0, 1, ... episodes."""
    sampler = problem.sampler(fresh_tasks(problem, TASKS, SEED), explore=1, mean=JUDGED)
    for stage in stages(learner, sampler, partial(stream, 0, "variants"), EPISODES):
        yield float(stage.sampled.judged.success.float().mean())


def main(runs: list[Path]) -> None:
    """A row of each variant: mean over runs, and the standard deviation over them."""
    trained = [inference_run(run) for run in runs]
    print("| | " + " | ".join(map(str, range(EPISODES + 1))) + " |")
    print("|---" * (EPISODES + 2) + "|")
    for name, options in VARIANTS.items():
        learners = [
            replace(found.learner, options=replace(found.learner.options, **options))
            for found in trained
        ]
        pairs = zip(learners, trained, strict=True)
        table = np.array([list(success(learner, of.problem)) for learner, of in pairs])
        cells = [
            f"{mean:.2f} ± {std:.2f}" for mean, std in zip(table.mean(0), table.std(0), strict=True)
        ]
        print("| " + " | ".join((name, *cells)) + " |", flush=True)


if __name__ == "__main__":
    main(list(map(Path, sys.argv[1:])))
