"""CheetahDir100: `cheetah-dir` in episodes of 100 steps, as ProMP has it.

Source. HalfCheetahRandDirec of ProMP (Rothfuss et al., 2019, and its code): reward and tasks are
those of MAML, the horizon is 100. Deviations: those of `cheetah-dir`.
"""

from __future__ import annotations

from demokit.envs.cheetah_dir import CheetahDir


class CheetahDir100(CheetahDir):
    """Run in the direction; context: 1 (forward) or -1 (back)."""

    name = "cheetah-dir-100"
    horizon = 100
