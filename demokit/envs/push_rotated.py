"""PushRotated: as Push, by a hand whose axes are turned by an angle that nobody tells.

A camera and a robot that were not calibrated to each other: what is seen is right, and a move goes
another way than it was meant. Goal and angle are both hidden; rewards tell the one, the hand's
moves the other. Everything else is `push`'s, the task set `dynamics` included.

Choices of ours: the angle is uniform within 90 degrees, out of distribution within 135. Mass and
friction of the block, the task set `dynamics`, are no such task: the hand is moved by position and
the fingers keep the block, so that the script's actions for one block solve the task with another
in 97 of 100 cases; for one angle, they solve it with another in 9.
"""

from __future__ import annotations

import mujoco
import numpy as np
from mujoco.batch import Batch
from numpy.typing import NDArray

from demokit.envs.family import ContextSpace, Views
from demokit.envs.push import Push
from demokit.envs.rotation import add_rotation, rotated, rotation_rad, turned
from demokit.types import FloatArray

HEADING_M = 0.15  # how far from the hand's start people see where the angle points


class PushRotated(Push):
    """Push the block; context: the block's goal (x, y) in metres, the angle in radians."""

    name = "push-rotated"
    context = ContextSpace(
        names=(*Push.context.names, "rotation"),
        units=(*Push.context.units, "rad"),
        low=(*Push.context.low, -np.pi / 2),
        high=(*Push.context.high, np.pi / 2),
        ood_low=(*Push.context.ood_low, -0.75 * np.pi),
        ood_high=(*Push.context.ood_high, 0.75 * np.pi),
    )
    actions = (
        "dx / 0.01 m, before the rotation",
        "dy / 0.01 m, before the rotation",
        "dz / 0.01 m",
    )

    def spec(self) -> mujoco.MjSpec:
        """Push's model with the angle as a number of its own."""
        spec = super().spec()
        add_rotation(spec)
        return spec

    def views(self, sims: Batch) -> Views:
        """See `Family`."""
        return {**super().views(sims), "rotation_rad": rotation_rad(sims)}

    def set_task(self, sims: Batch, ids: NDArray[np.int64], context: FloatArray) -> None:
        """The angle, for `control`, and the dynamics where there are any."""
        super().set_task(sims, ids, context)
        rotation_rad(sims)[ids] = context[:, 2]

    def nominal(self, context: FloatArray) -> FloatArray:
        """As Push, by a hand that goes where it is told."""
        found = super().nominal(context)
        found[:, 2] = 0
        return found

    def control(self, views: Views, action: FloatArray) -> Views:
        """As Push, the action turned by the hidden angle, counter-clockwise from above."""
        return super().control(views, turned(action, views["rotation_rad"]))

    def goal_marker(self, context: FloatArray) -> dict[str, FloatArray]:
        """As Push; and where the action (0, 1, 0) leads from the hand's start."""
        ahead = rotated(np.array([[0.0, HEADING_M]]), context[2:3])[0]
        return {
            **super().goal_marker(context),
            "heading": np.array([*(ahead + self.hand_start_w_m[:2]), 0.01]),
        }
