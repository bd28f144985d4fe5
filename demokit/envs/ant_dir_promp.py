"""AntDirProMP: `ant-dir` with the reward of ProMP.

Source. AntRandDirec of ProMP (Rothfuss et al., 2019, and its code), which PEARL takes over:
survival 1 and control cost 0.5 |a|^2, where MAML has 0.05 and 0.005. The episode ends when the
torso leaves z in [0, 1]. Returns of the two cannot be compared. Deviations: those of `ant-dir`.
"""

from __future__ import annotations

from demokit.envs.ant import effort
from demokit.envs.ant_dir import AntDir, along
from demokit.envs.family import Terms
from demokit.types import FloatArray


class AntDirProMP(AntDir):
    """Walk in the direction; context: its angle in radians, 0 (forward) or pi (back)."""

    name = "ant-dir-promp"
    healthy_z_m = (0.0, 1.0)

    def reward_dense(self, terms: Terms, context: FloatArray, action: FloatArray) -> FloatArray:
        """`v . direction - 0.5 |a|^2 - 0.0005 |contact|^2 + 1`, ProMP's."""
        paid = along(terms["torso_vel_w"], context)
        reward: FloatArray = paid + effort(terms, action, control=0.5, survival=1.0)
        return reward
