"""Does GMPS's step help on top of task inference? On fresh tasks, from runs of task inference:

    python docs/step_on_top.py RUN...

After some episodes of inference the policy under the most likely code is rolled out twenty times,
and a step of policy gradient (GMPS, Eq. 3) moves all of its parameters, the latent among them. In
the same row: what twenty more episodes make of it when inference goes on with them.
"""

import sys
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from demokit.learning.networks import Params
from demokit.random import stream
from gmps.evaluation import Stage, stage_of, stages
from gmps.gradient import GradientLearner
from gmps.methods.inference.learner import TaskInference
from gmps.policies.gaussian import LATENT, AdaptSpec, replicate
from gmps.policies.meta_params import MetaParams
from gmps.problem import Problem
from gmps.steps.advantage import Advantage
from gmps.steps.inner import InnerStep
from inference_runs import fresh_tasks, inference_run

TASKS, SEED, BEFORE, ROLLOUTS, JUDGED = 20, 11, (1, 3), 20, 5
STD = 0.1  # of the actions of these roll-outs
STEP_SIZES = (0.0003, 0.001, 0.003, 0.01, 0.03)
DISCOUNT, GAE_LAMBDA = 0.99, 0.95


def gradient_learner(learner: TaskInference) -> GradientLearner:
    """One that takes steps from any parameters of the same policy."""
    policy, theta = learner.policy, learner.theta
    spec = AdaptSpec((*AdaptSpec.of_policy(theta).names, LATENT))
    meta, advantage = MetaParams(theta, {}), Advantage(DISCOUNT, GAE_LAMBDA)
    return GradientLearner(policy, meta, InnerStep(policy, spec), advantage, ROLLOUTS)


def success(stage: Stage) -> float:
    """Of the mean policy."""
    return float(stage.sampled.judged.success.float().mean())


def earned(stage: Stage) -> float:
    """Its return, a mean."""
    return float(stage.sampled.judged.rollouts.reward.sum(-1).mean())


def started(learner: TaskInference, latent: Tensor) -> Params:
    """The parameters (M, ...) from which a step is taken."""
    theta = {**learner.theta, "log_std": torch.full_like(learner.theta["log_std"], STD).log()}
    return {**replicate(theta, len(latent)), LATENT: latent}


def measure(learner: TaskInference, problem: Problem) -> None:
    """The rows of a run."""
    streams, tasks = partial(stream, 0, "step on top"), fresh_tasks(problem, TASKS, SEED)
    one = problem.sampler(tasks, explore=1, mean=JUDGED)
    many = problem.sampler(tasks, explore=ROLLOUTS, mean=JUDGED)
    above = gradient_learner(learner)
    inferred = list(stages(learner, one, streams, max(BEFORE) + ROLLOUTS))
    for episodes in BEFORE:
        belief = inferred[episodes].belief
        theta = started(learner, learner.space.latent(belief.code))
        first = stage_of(above, many, streams, 0, theta)
        stepped = [
            list(stages(above.with_step_size(size), many, streams, 1, first))[1]
            for size in STEP_SIZES
        ]
        found = inferred[episodes], inferred[episodes + ROLLOUTS], *stepped
        cells = [f"{success(stage):.2f} ({earned(stage):.1f})" for stage in found]
        print("| " + " | ".join((problem.family_name, str(episodes), *cells)) + " |", flush=True)


def main(runs: list[Path]) -> None:
    """A table: success, and the return in brackets."""
    sizes = [f"a step of {size:g}" for size in STEP_SIZES]
    print("| " + " | ".join(("family", "episodes", "so far", "inference goes on", *sizes)) + " |")
    print("|---" * (4 + len(sizes)) + "|")
    for run in runs:
        trained = inference_run(run)
        measure(trained.learner, trained.problem)


if __name__ == "__main__":
    main(list(map(Path, sys.argv[1:])))
