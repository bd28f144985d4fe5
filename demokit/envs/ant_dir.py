"""AntDir: the ant must walk forward or back, whichever it is not told.

Sources. AntRandDir of the meta-exploration report (Gurumurthy et al., 2019), which takes it from
MAML (Finn et al., 2017): the torso's velocity along the direction, control cost 0.005 |a|^2 (a
scaled to +-1), contact cost 0.0005 |contact|^2, survival 0.05 (MAML's; ProMP's 0.5 and 1 are
`ant-dir-promp`), horizon 200.

Deviations. Robot, start, observation and end are those of `ant`. The direction is an angle, so
that sideways directions are out of distribution. Success (ours): 0.5 m from the start along the
direction at the end. The papers have no sparse reward: ours pays the dense one from there on, and
0 before. With two directions, train and validation tasks are the same.
"""

from __future__ import annotations

import numpy as np

from demokit.envs.ant import AntFamily, effort
from demokit.envs.family import ContextSpace, Terms
from demokit.types import Array, FloatArray

SUCCESS_M = 0.5
_DIRECTIONS = (0.0, np.pi)


class AntDir(AntFamily):
    """Walk in the direction; context: its angle in radians, 0 (forward) or pi (back)."""

    name = "ant-dir"
    context = ContextSpace(
        names=("direction_angle",),
        units=("rad",),
        low=(0.0,),
        high=(np.pi,),
        ood_low=(np.pi / 4,),
        ood_high=(3 * np.pi / 4,),
        regions=tuple(((angle,), (angle,)) for angle in _DIRECTIONS),
    )
    paper_sizes = {"train": 2, "validation": 2}  # noqa: RUF012

    def reward_dense(self, terms: Terms, context: FloatArray, action: FloatArray) -> FloatArray:
        """`v . direction - 0.005 |a|^2 - 0.0005 |contact|^2 + 0.05`, MAML's."""
        reward: FloatArray = along(terms["torso_vel_w"], context) + effort(terms, action)
        return reward

    def reward_sparse(self, terms: Terms, context: FloatArray, action: FloatArray) -> FloatArray:
        """As dense once 0.5 m along the direction, else 0."""
        return np.where(
            self.success(terms, context), self.reward_dense(terms, context, action), 0.0
        )

    def success(self, terms: Terms, context: FloatArray) -> Array:
        """SUCCESS_M from the start along the direction."""
        return along(terms["torso_pos_w_m"], context) > SUCCESS_M

    def goal_marker(self, context: FloatArray) -> dict[str, FloatArray]:
        """One metre along the direction."""
        return {"goal": np.array([np.cos(context[0]), np.sin(context[0]), 0.3])}


def along(vector_w: FloatArray, angle_rad: FloatArray) -> FloatArray:
    """Components (N,) of vectors (N, 3) along directions (N, 1) in the plane."""
    cos, sin = np.cos(angle_rad[:, 0]), np.sin(angle_rad[:, 0])
    along: FloatArray = vector_w[:, 0] * cos + vector_w[:, 1] * sin
    return along
