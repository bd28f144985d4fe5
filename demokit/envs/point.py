"""Point: a disc in the plane must go to a goal it cannot see.

The fast family for tests and first steps, through the same interface as the robots.

Sources. The meta-exploration report (Gurumurthy et al., 2019) navigates a 2-D point to goals
around the origin; MAML's point uses actions of at most 0.1 per step and the negative squared
distance as reward (`point-squared`), here it is the distance. Deviation: MuJoCo moves the point
(two slide joints, a mocap body as its target), so that it runs through the same code as every other
family. Horizon 20; the sparse reward pays `1 - distance / 0.5` within 0.5 m of the goal and nothing
elsewhere; success within 0.1 m.
"""

from __future__ import annotations

from typing import ClassVar

import mujoco
import numpy as np
from mujoco.batch import Batch

from demokit.envs.family import ContextSpace, Reaching, Term, Terms, Views
from demokit.envs.sawyer import distance_m
from demokit.types import FloatArray

STEP_M = 0.1
START_NOISE_M = 0.1
SPARSE_RADIUS_M = 0.5
SUCCESS_RADIUS_M = 0.1

_XML = """
<mujoco model="point">
  <option timestep="0.02" gravity="0 0 0" integrator="implicitfast"/>
  <visual><headlight ambient="0.5 0.5 0.5"/></visual>
  <worldbody>
    <geom name="floor" type="plane" size="2 2 0.1" rgba="0.9 0.9 0.88 1" contype="0"
          conaffinity="0"/>
    <camera name="scene" pos="0 0 3.2" fovy="50"/>
    <site name="goal" group="4" pos="0 0 0.02" size="0.1" rgba="0.1 0.7 0.2 0.5"/>
    <body name="target" mocap="true"/>
    <body name="point" pos="0 0 0">
      <joint name="x" type="slide" axis="1 0 0"/>
      <joint name="y" type="slide" axis="0 1 0"/>
      <geom type="cylinder" size="0.05 0.03" mass="1" rgba="0.8 0.2 0.15 1" contype="0"
            conaffinity="0"/>
    </body>
  </worldbody>
  <equality><connect body1="point" body2="target" anchor="0 0 0" solref="0.04 1"/></equality>
  <keyframe><key name="start" qpos="0 0"/></keyframe>
</mujoco>
"""


class Point(Reaching):
    """A point in the plane; context: the goal (x, y) in metres."""

    name = "point"
    horizon = 20
    sparse_radius_m = SPARSE_RADIUS_M
    success_radius_m = SUCCESS_RADIUS_M
    frame_skip = 5
    terms: ClassVar[tuple[Term, ...]] = (
        Term("point_pos_w_m", 2, "m", "world", "observation"),
        Term("point_vel_w", 2, "m/s", "world", "privileged"),
    )
    context = ContextSpace(
        names=("goal_x", "goal_y"),
        units=("m", "m"),
        low=(-1.0, -1.0),
        high=(1.0, 1.0),
        ood_low=(-1.4, -1.4),
        ood_high=(1.4, 1.4),
    )
    actions = ("dx / 0.1 m", "dy / 0.1 m")
    object_term = "point_pos_w_m"
    start_noise_width = 2
    reads_positions = False

    def spec(self) -> mujoco.MjSpec:
        """See `Family`."""
        return mujoco.MjSpec.from_string(_XML)

    def views(self, sims: Batch) -> Views:
        """See `Family`."""
        return {"qpos": sims.qpos, "qvel": sims.qvel, "target": sims.mocap_pos[:, 0]}

    def start(self, noise: FloatArray) -> Views:
        """The point within START_NOISE_M of the origin, its target on it."""
        xy = START_NOISE_M * noise
        return {"qpos": xy, "target": np.pad(xy, ((0, 0), (0, 1)))}

    def control(self, views: Views, action: FloatArray) -> Views:
        """Move the target by at most STEP_M along each axis from where the point is."""
        return {"target": np.pad(views["qpos"] + STEP_M * action, ((0, 0), (0, 1)))}

    def read(self, views: Views) -> Terms:
        """See `Family`."""
        return {"point_pos_w_m": views["qpos"].copy(), "point_vel_w": views["qvel"].copy()}

    def goal_w_m(self, terms: Terms, context: FloatArray) -> FloatArray:  # noqa: ARG002
        """Where the points must go, (N, 2): here the context itself."""
        return context

    def distance_m(self, terms: Terms, context: FloatArray) -> FloatArray:
        """See `Reaching`."""
        return distance_m(terms["point_pos_w_m"], self.goal_w_m(terms, context))

    def goal_marker(self, context: FloatArray) -> dict[str, FloatArray]:
        """See `Family`."""
        return {"goal": np.array([*self.goal_w_m({}, context[None])[0], 0.02])}
