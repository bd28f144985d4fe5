"""Imitation of all demonstrations by theta itself: before meta-training, or instead of it."""

from __future__ import annotations

import numpy as np
import torch

from gmps.distributed import Part
from gmps.experience.demos import DemoSet
from gmps.experience.observation import thinned
from gmps.methods.gmps.learner import Learned
from gmps.methods.gmps.objective import Demos
from gmps.progress import IMITATION, Report, unheard
from gmps.steps.losses import behaviour_cloning


def imitation_step(
    learned: Learned, optimizer: torch.optim.Adam, demos: Demos, part: Part
) -> float:
    """One step on L_BC of theta and, of images, on the loss of the object's position.

    Returns L_BC. The demonstrations are those of this process's tasks, the step that of all.
    """
    policy, theta, config = learned.policy, learned.meta.theta, learned.config
    features = policy.encode(theta, demos.observation)
    dist = policy.dist(theta, features)
    loss = behaviour_cloning(dist, demos.action, demos.weight, kind=config.outer_loss)
    place = policy.place_loss(features, demos.place, demos.weight)
    optimizer.zero_grad()
    (loss + config.place_weight * place).backward()  # type: ignore[no-untyped-call]
    (mean,) = part.averaged(learned.meta.leaves(), loss.detach()[None])
    torch.nn.utils.clip_grad_norm_(learned.meta.leaves(), config.max_grad_norm)
    optimizer.step()
    return float(mean)


def pretrain(
    learned: Learned,
    optimizer: torch.optim.Adam,
    demos: DemoSet,
    part: Part,
    report: Report = unheard,
) -> None:
    """`pretrain_steps` of imitation, in place: a start for the eyes of image policies."""
    config, everything = learned.config, demos.of_tasks(part.own).all()
    for step in range(config.pretrain_steps):
        rng = np.random.default_rng([config.seed, 0, step])
        shown = thinned(everything, config.outer_stride, rng).pooled()
        imitation_step(learned, optimizer, shown, part)
        report(IMITATION, step + 1, config.pretrain_steps)
