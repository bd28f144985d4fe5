"""Before training: what a configuration and the demonstrations make of a policy."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from demokit.envs import make_family
from demokit.envs.family import Family
from demokit.envs.vision import Vision
from demokit.errors import DemokitError
from demokit.experts import load_adviser, training_of
from gmps.experience.demos import DemoSet
from gmps.methods.gmps.critic import init_critic
from gmps.methods.gmps.latents import Exploration
from gmps.methods.gmps.learner import Learned, adapted_part
from gmps.methods.gmps.objective import MetaParams
from gmps.options import TrainConfig
from gmps.policies.encoder import Encoder
from gmps.policies.gaussian import LATENT, GaussianPolicy
from gmps.steps.advantage import Advantage, spread_centers

_NUM_CENTERS = 16
_POINT_SCALE = 3**-0.5  # of coordinates that are uniform in [-1, 1]


def start(config: TrainConfig, demos: DemoSet) -> Learned:
    """Before training: fresh parameters, and constants taken from the demonstrations."""
    mean, scale = _statistics(config, demos)
    exploration = None
    if config.explores_latents:
        exploration = Exploration.over(demos.tasks, demos.segments(), config.temperature)
    acts, sees = demos.action.shape[-1], demos.sees
    policy = make_policy(config, demos.family.name, sees, acts, mean, scale, exploration)
    rng = torch.Generator().manual_seed(config.seed)
    theta = policy.init(rng)
    if exploration is not None:
        theta[LATENT] = torch.zeros_like(theta[LATENT])
    inner_lr = 1.0 if exploration else config.inner_lr  # 1: to the weighted mean of the latents
    adapts = adapted_part(config, theta)
    alpha = adapts.init_step_sizes(theta, inner_lr) if config.is_meta else {}
    for tensor in theta.values():
        tensor.requires_grad_(True)
    for tensor in alpha.values():
        tensor.requires_grad_(config.learn_step_sizes)
    if exploration is not None and config.critic:
        theta |= init_critic(rng, len(theta[LATENT]))
    return Learned(
        config,
        demos.family.name,
        demos.reward,
        demos.tasks,
        demos.sees,
        policy,
        MetaParams(theta, alpha),
        _advantage(config, demos, policy),
        exploration,
        env_steps=demos.num_steps,
        experts={**demos.experts, **_queried(config, demos.family.name)},
        demos=demos.digest(),
    )


def _queried(config: TrainConfig, family_name: str) -> dict[str, int]:
    """The trained expert that answers the queries of DAgger, if there is one."""
    training = training_of(load_adviser(config.expert, family_name)) if config.dagger else {}
    return {training["sha256"]: training["env_steps"]} if training else {}


def make_policy(
    config: TrainConfig,
    family: str,
    sees: str | Vision,
    action_width: int,
    mean: Tensor,
    scale: Tensor,
    exploration: Exploration | None,
) -> GaussianPolicy:
    """The policy whose features have this mean and scale (F,)."""
    width = config.bias_transform_width if exploration is None else exploration.places.shape[1]
    encoder, place_width = None, 0
    if isinstance(sees, Vision):
        encoder = _encoder(sees, make_family(family))
        vectors = [term for term in make_family(family).terms if term.name in encoder.vectors]
        place_width = len(mean) - encoder.num_points - sum(term.width for term in vectors)
    return GaussianPolicy(
        mean,
        scale,
        action_width,
        config.hidden_width,
        width,
        config.initial_std,
        config.min_std,
        encoder,
        place_width,
    )


def _encoder(sees: Vision, family: Family) -> Encoder:
    return Encoder(tuple(sees.image_names().values()), family.vision_terms)


def _statistics(config: TrainConfig, demos: DemoSet) -> tuple[Tensor, Tensor]:
    """Mean and scale (F,) of the features; points in images have those of uniform ones."""
    if isinstance(demos.observation, Tensor):
        return demos.statistics(demos.observation)
    assert isinstance(demos.sees, Vision)
    encoder = _encoder(demos.sees, demos.family)
    parts = [(torch.zeros(encoder.num_points), torch.full((encoder.num_points,), _POINT_SCALE))]
    parts += [demos.statistics(demos.observation[key]) for key in encoder.vectors]
    if config.place_weight:
        mean, scale = demos.statistics(demos.place)
        # One scale for all axes: where the object never moves there is nothing to see.
        parts.append((mean, scale.max().expand_as(scale)))
    means, scales = zip(*parts, strict=True)
    return torch.cat(means), torch.cat(scales)


def base_advantage(config: TrainConfig) -> Advantage:
    """The estimator before demonstrations have told it anything."""
    return Advantage(config.discount, config.gae_lambda, config.baseline)


def _advantage(config: TrainConfig, demos: DemoSet, policy: GaussianPolicy) -> Advantage:
    """The estimator; radial centres spread over where the demonstrations moved the object."""
    if config.baseline != "radial":
        return base_advantage(config)
    places = demos.place[demos.alive]
    centers, width = spread_centers(places, _NUM_CENTERS)
    columns = _radial_columns(demos, policy)
    return replace(
        base_advantage(config), centers=centers, radial_columns=columns, radial_width=width
    )


def _radial_columns(demos: DemoSet, policy: GaussianPolicy) -> slice:
    """The columns of the baseline's features that say where the object is."""
    if policy.encoder is None:
        return demos.object_columns()
    if not policy.place_width:
        raise DemokitError("A radial baseline of images needs a place_weight above 0.")
    first = policy.place_columns.start - policy.encoder.num_points
    return slice(first, first + policy.place_width)
