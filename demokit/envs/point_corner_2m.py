"""PointCorner2m: the corner task of the meta-exploration report with its authors' numbers.

Source. The point environment of Gurumurthy et al. (2019) in their code (github swami1995/exp_maml,
commit 01ffc6d): goals at exactly (+-2, +-2), start uniform in +-0.2, actions of at most 0.2 along
each axis, positions within +-4, horizon 100, and a reward of `max(2 - distance, 0)`, here "sparse".

It is much easier than `point-corner`: a corner pays from about three diagonal steps on.

As in `point-squared`, the point is where its action leads. The dense reward is `point`'s; success
(ours): within 0.2 m. With four corners, train and validation tasks are the same, and nothing is out
of distribution; the report's curves are of training tasks, too.
"""

from __future__ import annotations

import mujoco
import numpy as np

from demokit.envs.family import ContextSpace, Terms, Views
from demokit.envs.point_squared import ExactPoint
from demokit.types import FloatArray

CORNER_M = 2.0
STEP_M = 0.2
START_NOISE_M = 0.2
LIMIT_M = 4.0


class PointCorner2m(ExactPoint):
    """A point in the plane; context: the goal (x, y) in metres, a corner."""

    name = "point-corner-2m"
    horizon = 100
    sparse_radius_m = 2.0
    success_radius_m = 0.2
    context = ContextSpace(
        names=("goal_x", "goal_y"),
        units=("m", "m"),
        low=(-CORNER_M,) * 2,
        high=(CORNER_M,) * 2,
        regions=tuple(((x * CORNER_M, y * CORNER_M),) * 2 for x in (-1, 1) for y in (-1, 1)),
    )
    actions = ("dx / 0.2 m", "dy / 0.2 m")
    paper_sizes = {"train": 4, "validation": 4}  # noqa: RUF012

    def spec(self) -> mujoco.MjSpec:
        """Point's model, seen from twice as far."""
        spec = super().spec()
        spec.modelname = self.name
        spec.camera("scene").pos = [0, 0, 6.4]
        spec.geom("floor").size = [4, 4, 0.1]
        spec.site("goal").size = [0.2, 0, 0]
        return spec

    def start(self, noise: FloatArray) -> Views:
        """The point within START_NOISE_M of the origin along each axis, its target on it."""
        xy = START_NOISE_M * noise
        return {"qpos": xy, "target": np.pad(xy, ((0, 0), (0, 1)))}

    def control(self, views: Views, action: FloatArray) -> Views:
        """Move the target by at most STEP_M along each axis, within LIMIT_M."""
        target = np.clip(views["qpos"] + STEP_M * action, -LIMIT_M, LIMIT_M)
        return {"target": np.pad(target, ((0, 0), (0, 1)))}

    def reward_sparse(self, terms: Terms, context: FloatArray, action: FloatArray) -> FloatArray:
        """`max(2 - distance, 0)`."""
        return self.sparse_radius_m * super().reward_sparse(terms, context, action)
