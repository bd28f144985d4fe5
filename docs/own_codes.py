"""How a policy of task inference does the training tasks themselves, under their own codes:

    python docs/own_codes.py RUN...

Nothing is inferred here: where this fails, imitation has failed.
"""

import sys
from functools import partial
from pathlib import Path

from demokit.random import stream
from gmps.evaluation import stage_of
from gmps.methods.inference.learner import TaskInference
from gmps.methods.inference.posterior import Posterior
from gmps.problem import Problem
from inference_runs import inference_run

EPISODES = 5  # of each task, by the mean


def success(learner: TaskInference, problem: Problem) -> float:
    """Over all training tasks."""
    codes = learner.space.codes[:, None]
    nothing = codes[..., 0] * 0
    belief = learner.begin(len(codes))._replace(posterior=Posterior(codes, nothing, nothing))
    sampler = problem.sampler(problem.tasks, explore=1, mean=EPISODES)
    stage = stage_of(learner, sampler, partial(stream, 0, "own codes"), 0, belief)
    return float(stage.sampled.judged.success.float().mean())


def main(runs: list[Path]) -> None:
    """A line of each run."""
    for run in runs:
        trained = inference_run(run)
        print(f"{run}: {success(trained.learner, trained.problem):.2f}", flush=True)


if __name__ == "__main__":
    main(list(map(Path, sys.argv[1:])))
