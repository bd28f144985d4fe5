"""AntGoal: the ant must walk to a goal anywhere around it that it cannot see.

Source. AntRandGoal of ProMP (Rothfuss et al., 2019, and its code), which PEARL takes over: goals
drawn evenly from a disc of 3 m, reward `-|x - gx| - |y - gy| - 0.1 |a|^2 - 0.0005 |contact|^2`,
never done, horizon 200.

Deviations. Robot, start and observation are those of `ant`. Success (ours): within 0.5 m of the
goal at the end. The papers have no sparse reward: ours pays the dense one plus 0.8 within 0.8 m of
the goal, and 0 elsewhere; aslant to the axes |x - gx| + |y - gy| is up to 1.13 m there, and at the
rim arriving may pay less than 0. Out of distribution (ours): a ring from 3 m to 3.67 m.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from demokit.envs.ant import SPARSE_RADIUS_M, SUCCESS_RADIUS_M, AntFamily, effort
from demokit.envs.family import ContextSpace, Terms
from demokit.envs.sawyer import distance_m
from demokit.types import Array, FloatArray

RADIUS_M = 3.0
CONTROL_WEIGHT = 0.1


class AntGoal(AntFamily):
    """Walk to the goal; context: its angle, and the share of the disc that is nearer than it."""

    name = "ant-goal"
    context = ContextSpace(
        names=("goal_angle", "goal_nearer"),
        units=("rad", "1"),
        low=(-np.pi, 0.0),
        high=(np.pi, 1.0),
        ood_low=(-np.pi, 1.0),
        ood_high=(np.pi, 1.5),
    )
    paper_sizes = {"train": 40, "validation": 20}  # noqa: RUF012

    def reward_dense(self, terms: Terms, context: FloatArray, action: FloatArray) -> FloatArray:
        """`-|x - gx| - |y - gy| - 0.1 |a|^2 - 0.0005 |contact|^2`, ProMP's."""
        apart = np.abs(terms["torso_pos_w_m"][:, :2] - disc_goal_w_m(context)).sum(axis=1)
        reward: FloatArray = effort(terms, action, control=CONTROL_WEIGHT, survival=0.0) - apart
        return reward

    def reward_sparse(self, terms: Terms, context: FloatArray, action: FloatArray) -> FloatArray:
        """As dense plus 0.8 within 0.8 m of the goal, else 0."""
        near = self._away_m(terms, context) < SPARSE_RADIUS_M
        return np.where(near, self.reward_dense(terms, context, action) + SPARSE_RADIUS_M, 0.0)

    def success(self, terms: Terms, context: FloatArray) -> Array:
        """The torso within SUCCESS_RADIUS_M of the goal, in the plane."""
        return self._away_m(terms, context) < SUCCESS_RADIUS_M

    def terminated(self, terms: Terms) -> NDArray[np.bool_]:
        """Never."""
        return np.zeros(len(terms["torso_pos_w_m"]), np.bool_)

    def goal_marker(self, context: FloatArray) -> dict[str, FloatArray]:
        """See `Family`."""
        return {"goal": np.array([*disc_goal_w_m(context[None])[0], 0.3])}

    @staticmethod
    def _away_m(terms: Terms, context: FloatArray) -> FloatArray:
        return distance_m(terms["torso_pos_w_m"][:, :2], disc_goal_w_m(context))


def disc_goal_w_m(context: FloatArray) -> FloatArray:
    """Goals (N, 2) in the plane for contexts (N, 2)."""
    angle, radius = context[:, :1], RADIUS_M * np.sqrt(context[:, 1:])
    goal: FloatArray = radius * np.concatenate([np.cos(angle), np.sin(angle)], axis=1)
    return goal
