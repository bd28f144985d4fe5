"""PointSquared: MAML's point, paid by the squared distance, which ends an episode at its goal.

Source. The 2D navigation of MAML (Finn et al., 2017, section 5.3): goals in the unit square around
the start, actions of at most 0.1 m along each axis, reward the negative squared distance, horizon
100; episodes end within 0.01 m of the goal, along each axis as its release has it.

The point is where its action leads at the end of a step, without `point`'s inertia. The sparse
reward (ours) pays within 0.2 m; out of distribution (ours): goals within 0.7 m along each axis.
"""

from __future__ import annotations

import numpy as np

from demokit.envs.family import ContextSpace, Terms, Views
from demokit.envs.point import Point
from demokit.types import Array, FloatArray

GOAL_M = 0.5
ARRIVED_M = 0.01


class ExactPoint(Point):
    """A point that is where its actions lead, at rest; of those that published ones are made of."""

    def carry(self, views: Views) -> Views:
        """What the constraint has not reached by the end of the step."""
        return {"qpos": views["target"][:, :2].copy(), "qvel": np.zeros_like(views["qvel"])}


class PointSquared(ExactPoint):
    """A point in the plane; context: the goal (x, y) in metres."""

    name = "point-squared"
    horizon = 100
    sparse_radius_m = 0.2
    ends_at_success = True
    start_noise_width = 0
    context = ContextSpace(
        names=("goal_x", "goal_y"),
        units=("m", "m"),
        low=(-GOAL_M, -GOAL_M),
        high=(GOAL_M, GOAL_M),
        ood_low=(-0.7, -0.7),
        ood_high=(0.7, 0.7),
    )

    def start(self, noise: FloatArray) -> Views:
        """At the origin."""
        xy = np.zeros((len(noise), 2))
        return {"qpos": xy, "target": np.pad(xy, ((0, 0), (0, 1)))}

    def reward_dense(self, terms: Terms, context: FloatArray, action: FloatArray) -> FloatArray:  # noqa: ARG002
        """Negative squared distance, square metres."""
        return -np.square(self.distance_m(terms, context))

    def success(self, terms: Terms, context: FloatArray) -> Array:
        """Within ARRIVED_M along each axis."""
        off_m = np.abs(terms["point_pos_w_m"] - context).max(axis=1)
        arrived: Array = off_m < ARRIVED_M
        return arrived
