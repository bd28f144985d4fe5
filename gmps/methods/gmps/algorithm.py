"""Algorithm 1 of the paper, from demonstrations, with expert queries or without."""

from __future__ import annotations

from collections.abc import Generator, Mapping

import torch
from torch import Tensor

from demokit.learning.optimizer import optimizer_tensors, restore_optimizer
from gmps.experience.rollouts import Gathered
from gmps.method import Iteration
from gmps.methods.gmps.dagger import Queries
from gmps.methods.gmps.guided import Guided
from gmps.methods.gmps.objective import MetaLosses, outer_step
from gmps.methods.gmps.options import GuidedOptions
from gmps.methods.gmps.outer_samples import OuterSamples
from gmps.problem import Training
from gmps.steps.imitation import pretrain


def train(
    training: Training[GuidedOptions], learner: Guided, state: Mapping[str, Tensor], first: int
) -> Generator[Iteration]:
    """Meta-train from demonstrations, an iteration at a time.

    Numbers at the margin are the lines of the paper's Algorithm 1 (A1) and Algorithm 2 (A2).
    The experts and their demonstrations (A1: 1-2) come with the training. The roll-outs of theta
    serve both algorithms; without `dagger`, A1: 8-10 are left out.
    """
    options, part, demos = training.options, training.part, training.demonstrations
    tasks, policy = training.problem.tasks, learner.policy
    meta = learner.meta.learnable(step_sizes=options.learn_step_sizes)  # A1: 3
    optimizer = torch.optim.Adam(meta.leaves(), lr=options.outer_lr)
    restore_optimizer(optimizer, state)
    if first == 0:
        kind = options.outer_loss
        learner = learner.with_meta(pretrain(training, policy, meta, optimizer, kind=kind))
    pre_demos = demos.of_tasks(part.own).all()
    explore = options.rollouts_per_task
    with Queries(training, first) as queries, training.sampler(explore=explore) as sampler:
        demos = queries.restored(demos)
        for iteration in range(first, options.iterations):  # A1: 4
            rng = training.stream("iteration", iteration)
            rngs = sampler.streams(rng)
            belief = learner.begin(sampler.num_tasks)
            explorer = learner.explorer(belief, 0, sampler.explore, rngs)
            explored, _ = sampler(explorer, rngs)  # A1: 7, A2: 3
            learner = learner.taught(explored, tasks, part)
            before = demos.num_steps
            if queries.asks_in(iteration):
                demos = queries.round(learner, demos, explored, iteration)  # A1: 8-10
            optimizer.param_groups[0]["lr"] = options.outer_lr_in(iteration)
            objective = learner.objective(options, tasks[part.own])
            own = demos.of_tasks(part.own)
            samples = OuterSamples(learner.shown(explored), own, pre_demos, policy, options)
            for step in range(options.outer_steps):  # A1: 5, A2: 5-10
                drawn = samples.drawn(step, meta.theta, rng)  # A2: 8
                losses = outer_step(objective, meta, optimizer, *drawn, options.max_grad_norm, part)
            meta.require_finite(iteration)
            learner = learner.with_meta(meta.frozen())
            spent = sampler.num_steps + demos.num_steps - before
            scalars = _scalars(training, losses, explored)
            state = optimizer_tensors(optimizer)
            yield Iteration(learner, scalars, spent, state, queries.asked)


def _scalars(
    training: Training[GuidedOptions], losses: MetaLosses, explored: Gathered
) -> dict[str, float]:
    """Losses, and what theta earns on the training tasks before adaptation."""
    part = training.part
    earned, succeeded = explored.rollouts.reward.sum(-1), explored.success.float()
    return {
        "loss_post": float(losses.post),
        "loss_pre": float(losses.pre),
        "loss_position": float(losses.position),
        "return_pre": float(part.gathered(earned.cpu()).mean()),
        "success_pre": float(part.gathered(succeeded.cpu()).mean()),
    }
