"""Algorithm 1 of meta-exploration, paid by the tasks or guided by demonstrations."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from demokit.learning.optimizer import optimizer_tensors, restore_optimizer
from gmps.distributed import Part
from gmps.experience.rollouts import Gathered, Rollouts
from gmps.method import Iteration
from gmps.methods.maml.algorithm import paid_in, standard_pay
from gmps.methods.maml.meta_exploration.learner import (
    Belief,
    ExplorationLearner,
    load,
    start,
)
from gmps.methods.maml.meta_exploration.networks import EXPLORER, ORIGIN, POLICY, groups
from gmps.methods.maml.meta_exploration.objective import (
    Batch,
    Goal,
    Imitated,
    Losses,
    Objective,
    Paid,
    rows,
)
from gmps.methods.maml.meta_exploration.options import ExplorationOptions
from gmps.policies.meta_params import MetaParams, section
from gmps.problem import Training
from gmps.steps.inner import InnerBatch

if TYPE_CHECKING:
    from gmps.experience.sampler import Sampler

__all__ = ["load", "start", "train"]
_EPSILON = 1e-6  # of Adam; its authors have 1e-5, of losses ten times these


def train(
    training: Training[ExplorationOptions],
    learner: ExplorationLearner,
    state: Mapping[str, Tensor],
    first: int,
) -> Generator[Iteration]:
    """Meta-train, an iteration at a time.

    Numbers at the margin are the lines of Algorithm 1 (Gurumurthy et al., 2019). Line 9 is several
    steps of Adam on the same roll-outs, as its authors' code has it. With `imitate` line 7 is left
    out: the adapted policies imitate demonstrations, and nobody rolls them out.
    """
    options = training.options
    meta = learner.meta.learnable()
    optimizer = _optimizer(options, meta)
    restore_optimizer(optimizer, state)
    for iteration in range(first, options.iterations):  # 2
        rng = training.stream("iteration", iteration)
        chosen = training.some_tasks(rng, options.meta_batch)  # 3
        with training.sampler_of(chosen, explore=options.rollouts_per_task) as sampler:
            rngs = sampler.streams(rng)
            belief = learner.begin(sampler.num_tasks)
            explored = sampler(
                learner.explorer(belief, 0, sampler.explore, rngs), rngs
            ).explored  # 5
            belief = learner.adapt(belief, 0, explored.rollouts, None)  # 6
            gathered = [explored]
            if options.imitate:
                goal: Goal = _imitated(training, chosen[sampler.part.own], rng)
            else:
                gathered.append(_exploited(learner, belief, sampler, rng))  # 7
                goal = _paid(learner, gathered[-1].rollouts, options.clip)
        batch = _batch(learner, gathered, goal, sampler.part)
        objective = _objective(learner, options)
        for _ in range(options.outer_epochs):
            losses = _outer_step(objective, meta, optimizer, batch, options, sampler.part)  # 9
        meta.require_finite(iteration)
        learner = learner.with_meta(meta.frozen())
        scalars = _scalars(learner, losses, gathered, sampler.part)
        spent = len(gathered) * sampler.num_steps
        yield Iteration(learner, scalars, spent, optimizer_tensors(optimizer))


def _optimizer(options: ExplorationOptions, meta: MetaParams) -> torch.optim.Adam:
    """Adam on pi and M, on the latent, and on mu, each with its step size."""
    sizes = {POLICY: options.outer_lr, ORIGIN: options.latent_lr, EXPLORER: options.explorer_lr}
    learned = [
        {"params": [meta.theta[name] for name in names], "lr": sizes[group]}
        for group, names in groups(meta.theta).items()
    ]
    return torch.optim.Adam(learned, eps=_EPSILON)


def _exploited(
    learner: ExplorationLearner, belief: Belief, sampler: Sampler, rng: np.random.Generator
) -> Gathered:
    """Roll-outs of pi under the adapted latents, as many as there were of mu."""
    return sampler(learner.exploiter(belief, sampler.explore), sampler.streams(rng)).explored


def _paid(learner: ExplorationLearner, rollouts: Rollouts, clip: float) -> Paid:
    """The goal of being paid more than these were."""
    return Paid(InnerBatch.of(rollouts, learner.advantages(rollouts)), clip)


def _imitated(
    training: Training[ExplorationOptions], own: Sequence[int], rng: np.random.Generator
) -> Imitated:
    """The goal of doing what the experts of this process's tasks did."""
    options, demos = training.options, training.demonstrations
    drawn = demos.sample(rng, options.outer_demos_per_task)
    index = torch.tensor(own, device=training.device)
    return Imitated(rows(drawn, index), options.outer_loss)


def _batch(
    learner: ExplorationLearner, gathered: Sequence[Gathered], goal: Goal, part: Part
) -> Batch:
    """Of what mu gathered first, and of what the adapted policies are to do."""
    rollouts = gathered[0].rollouts
    return Batch(
        learner.shown(rollouts),
        rollouts.log_prob,
        rollouts.alive,
        goal,
        standard_pay(gathered[-1].rollouts, part),
        goal if isinstance(goal, Imitated) else None,
    )


def _objective(learner: ExplorationLearner, options: ExplorationOptions) -> Objective:
    return Objective(
        learner.networks,
        learner.alpha,
        options.credit,
        learner.advantage,
        options.clip,
        options.explorer_weight,
    )


def _outer_step(
    objective: Objective,
    meta: MetaParams,
    optimizer: torch.optim.Adam,
    batch: Batch,
    options: ExplorationOptions,
    part: Part,
) -> Losses:
    """One step of Adam on all networks, in place; returns the losses before it."""
    optimizer.zero_grad()
    losses = objective.backward(meta, batch)
    losses = Losses(*part.averaged(meta.leaves(), torch.stack(losses)))
    for group in optimizer.param_groups:
        torch.nn.utils.clip_grad_norm_(group["params"], options.max_grad_norm)
    optimizer.step()
    return losses


def _scalars(
    learner: ExplorationLearner, losses: Losses, gathered: Sequence[Gathered], part: Part
) -> dict[str, float]:
    """Losses, what training tasks have paid, and how widely both policies act."""
    stds = {
        f"std_{name.rstrip('.')}": float(policy.std(section(learner.meta.theta, name)).mean())
        for name, policy in learner.networks.policies()
    }
    named = {f"loss_{name}": float(value) for name, value in losses._asdict().items()}
    return {**named, **paid_in(gathered, part), **stds}
