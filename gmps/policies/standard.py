"""The policy of a run: what it sees, and in which units."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from demokit.envs.schema import Schema
from demokit.envs.vision import Vision
from demokit.learning.checkpoint import check_tensors
from gmps.experience.demos import DemoSet
from gmps.options import GaussianOptions, PolicyOptions
from gmps.policies.encoder import Encoder
from gmps.policies.gaussian import AdaptSpec, GaussianPolicy
from gmps.policies.meta_params import MetaParams

_POINT_SCALE = 3**-0.5  # of coordinates that are uniform in [-1, 1]


def make_policy(
    options: PolicyOptions,
    schema: Schema,
    sees: str | Vision,
    statistics: tuple[Tensor, Tensor],
    bias_transform_width: int = 0,
) -> GaussianPolicy:
    """The policy whose features have these statistics, a mean and a scale (F,).

    Raises:
        ValueError: so many features are not seen.
    """
    mean, scale = statistics
    learned = options if isinstance(options, GaussianOptions) else GaussianOptions()
    encoder, seen = None, schema.width
    if isinstance(sees, Vision):
        encoder = make_encoder(sees, schema)
        vectors = [term for term in schema.terms if term.name in encoder.vectors]
        seen = encoder.num_points + sum(term.width for term in vectors)
    object_width = len(mean) - seen
    if object_width < 0 or (object_width and encoder is None):
        raise ValueError(f"{len(mean)} features, and {seen} are seen of {schema.name}")
    return GaussianPolicy(
        mean,
        scale,
        len(schema.actions),
        options.hidden_width,
        bias_transform_width,
        learned.initial_std,
        learned.min_std,
        encoder,
        object_width,
    )


def make_encoder(sees: Vision, schema: Schema) -> Encoder:
    """The eyes for these images of a family."""
    return Encoder(tuple(sees.image_names().values()), schema.vision_terms)


def demo_statistics(demos: DemoSet, object_weight: float) -> tuple[Tensor, Tensor]:
    """Mean and scale (F,) of features; points in images have those of uniform ones.

    Args:
        demos: the demonstrations.
        object_weight: 0 leaves out the features that say where the object is.
    """
    if isinstance(demos.observation, Tensor):
        return demos.statistics(demos.observation)
    assert isinstance(demos.sees, Vision)
    encoder = make_encoder(demos.sees, demos.family.schema)
    parts = [(torch.zeros(encoder.num_points), torch.full((encoder.num_points,), _POINT_SCALE))]
    parts += [demos.statistics(demos.observation[key]) for key in encoder.vectors]
    if object_weight:
        mean, scale = demos.statistics(demos.object_position)
        # One scale for all axes: where the object never moves there is nothing to see.
        parts.append((mean, scale.max().expand_as(scale)))
    means, scales = zip(*parts, strict=True)
    return torch.cat(means), torch.cat(scales)


def policy_tensors(policy: GaussianPolicy) -> dict[str, Tensor]:
    """The constants of a policy, for a checkpoint."""
    return {"observation_mean": policy.feature_mean, "observation_scale": policy.feature_scale}


def statistics_of(tensors: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The inverse of `policy_tensors`."""
    return tensors["observation_mean"], tensors["observation_scale"]


def require_params(
    policy: GaussianPolicy, meta: MetaParams, spec: AdaptSpec, *, step_sizes: bool
) -> None:
    """Raise ValueError unless theta and, with `step_sizes`, alpha are the policy's."""
    check_tensors(meta.theta, lambda: policy.init(None), "parameters")
    if step_sizes:
        adapts = partial(spec.init_step_sizes, meta.theta, 0.0)
        check_tensors(meta.step_sizes, adapts, "step sizes")
