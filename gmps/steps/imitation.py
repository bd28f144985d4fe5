"""Imitation of all demonstrations by one policy: before meta-training, or instead of it."""

from __future__ import annotations

import torch

from gmps.distributed import Part
from gmps.experience.demos import DemoBatch
from gmps.options import ImitationOptions
from gmps.policies.gaussian import GaussianPolicy
from gmps.policies.meta_params import MetaParams
from gmps.steps.losses import behaviour_cloning


def imitation_step(
    policy: GaussianPolicy,
    meta: MetaParams,
    optimizer: torch.optim.Adam,
    demos: DemoBatch,
    options: ImitationOptions,
    part: Part,
) -> float:
    """One step on L_BC of theta and, of images, on the loss of the object's position.

    Returns L_BC. The demonstrations are those of this process's tasks, the step that of all.
    """
    features = policy.encode(meta.theta, demos.observation)
    dist = policy.dist(meta.theta, features)
    loss = behaviour_cloning(dist, demos.action, demos.weight, kind=options.outer_loss)
    position = policy.object_loss(features, demos.object_position, demos.weight)
    optimizer.zero_grad()
    (loss + options.object_weight * position).backward()  # type: ignore[no-untyped-call]
    (mean,) = part.averaged(meta.leaves(), loss.detach()[None])
    torch.nn.utils.clip_grad_norm_(meta.leaves(), options.max_grad_norm)
    optimizer.step()
    return float(mean)
