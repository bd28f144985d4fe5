"""CheetahDir: the two-legged runner must run forward or back, whichever it is not told.

Sources. HalfCheetahFwdBack of the meta-exploration report (Gurumurthy et al., 2019), which takes
it from MAML (Finn et al., 2017): reward `direction * v - 0.05 |a|^2`, horizon 200. ProMP's has a
horizon of 100: `cheetah-dir-100`.

Deviations. Robot, start and observation are those of `cheetah-vel`. Success (ours): 1 m from the
start in the direction at the end. The papers have no sparse reward: ours pays the dense one from
there on, and 0 before. With two directions, train and validation tasks are the same, and nothing
is out of distribution.
"""

from __future__ import annotations

import numpy as np

from demokit.envs.cheetah_vel import CheetahFamily, control_cost
from demokit.envs.family import ContextSpace, Terms
from demokit.types import Array, FloatArray

SUCCESS_M = 1.0


class CheetahDir(CheetahFamily):
    """Run in the direction; context: 1 (forward) or -1 (back)."""

    name = "cheetah-dir"
    context = ContextSpace(
        names=("direction",),
        units=("1",),
        low=(-1.0,),
        high=(1.0,),
        regions=(((-1.0,), (-1.0,)), ((1.0,), (1.0,))),
    )
    paper_sizes = {"train": 2, "validation": 2}  # noqa: RUF012

    def reward_dense(self, terms: Terms, context: FloatArray, action: FloatArray) -> FloatArray:
        """`direction * v - 0.05 |a|^2`, MAML's."""
        reward: FloatArray = (context * terms["mean_vel_x_w"])[:, 0] - control_cost(action)
        return reward

    def reward_sparse(self, terms: Terms, context: FloatArray, action: FloatArray) -> FloatArray:
        """As dense once 1 m in the direction, else 0."""
        return np.where(
            self.success(terms, context), self.reward_dense(terms, context, action), 0.0
        )

    def success(self, terms: Terms, context: FloatArray) -> Array:
        """SUCCESS_M from the origin in the direction."""
        ahead: Array = (context * terms["root_x_w_m"])[:, 0] > SUCCESS_M
        return ahead

    def goal_marker(self, context: FloatArray) -> dict[str, FloatArray]:
        """One metre in the direction."""
        return {"goal": np.array([context[0], 0.0, 1.3])}
