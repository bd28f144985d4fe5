"""ArmTorque: an arm of two links must bring its fingertip to a place that it is not told.

The family for control by torques: between an action and a place stand the arm's inertia and its
speed. Ours, after the planar reachers of Gymnasium and the DeepMind Control Suite, which have the
same two joints in a plane without gravity.

Links of 0.5 m and 1 kg, thin rods; a payload of 0.2 kg at the fingertip; motors of 4 and 2 N m;
actions at 25 Hz, horizon 50 (2 s). The elbow bends to one side only, so that a place has one
posture. Goals are uniform in a box in front of the arm, whose middle is the fingertip's start;
out of distribution, they lie nearer to the base, or farther to the sides. The dense reward is the
negative distance; the sparse one pays `1 - distance / 0.2` within 0.2 m of the goal, and 0
elsewhere; success within 0.05 m. As dynamics, tasks may set the payload and the gain of the motors.
"""

from __future__ import annotations

import mujoco
import numpy as np
from mujoco.batch import Batch
from numpy.typing import NDArray

from demokit.envs.family import ContextSpace, Reaching, Term, Terms, Views
from demokit.envs.sawyer import distance_m
from demokit.types import FloatArray

LINK_M = 0.5
LINK_KG = 1.0
PAYLOAD_KG = 0.2
PAYLOAD_RADIUS_M = 0.04
TORQUE_N_M = (4.0, 2.0)
DAMPING = 0.1  # N m s
ELBOW_RANGE_RAD = (0.1, 2.9)
START_RAD = (-np.pi / 3, 2 * np.pi / 3)
START_NOISE_RAD = 0.1
SPARSE_RADIUS_M = 0.2
SUCCESS_RADIUS_M = 0.05
ROD_INERTIA = LINK_KG * LINK_M**2 / 12
PAYLOAD_INERTIA_PER_KG = 0.4 * PAYLOAD_RADIUS_M**2

_XML = f"""
<mujoco model="arm-torque">
  <compiler angle="radian"/>
  <option timestep="0.01" gravity="0 0 0" integrator="implicitfast"/>
  <visual><headlight ambient="0.5 0.5 0.5"/></visual>
  <default>
    <geom contype="0" conaffinity="0" rgba="0.35 0.4 0.5 1"/>
    <joint type="hinge" axis="0 0 1" limited="true" damping="{DAMPING}"/>
  </default>
  <worldbody>
    <geom name="floor" type="plane" size="2 2 0.1" rgba="0.9 0.9 0.88 1"/>
    <camera name="scene" pos="0.35 0 1.8" fovy="50"/>
    <site name="goal" group="4" pos="0.5 0 0.05" size="{SUCCESS_RADIUS_M}"
          rgba="0.1 0.7 0.2 0.5"/>
    <geom type="cylinder" size="0.06 0.04" pos="0 0 0.04"/>
    <body name="upper" pos="0 0 0.1">
      <joint name="shoulder" range="-2.5 2.5"/>
      <inertial pos="{LINK_M / 2} 0 0" mass="{LINK_KG}"
                diaginertia="0.0004 {ROD_INERTIA} {ROD_INERTIA}"/>
      <geom type="capsule" fromto="0 0 0 {LINK_M} 0 0" size="0.03"/>
      <body name="lower" pos="{LINK_M} 0 0">
        <joint name="elbow" range="{ELBOW_RANGE_RAD[0]} {ELBOW_RANGE_RAD[1]}"/>
        <inertial pos="{LINK_M / 2} 0 0" mass="{LINK_KG}"
                  diaginertia="0.0004 {ROD_INERTIA} {ROD_INERTIA}"/>
        <geom type="capsule" fromto="0 0 0 {LINK_M} 0 0" size="0.025" rgba="0.5 0.55 0.65 1"/>
        <body name="payload" pos="{LINK_M} 0 0">
          <geom type="sphere" size="{PAYLOAD_RADIUS_M}" mass="{PAYLOAD_KG}" rgba="0.8 0.2 0.15 1"/>
          <site name="fingertip" group="4" size="0.005" rgba="0 0 0 0"/>
        </body>
      </body>
    </body>
  </worldbody>
  <actuator>
    <motor name="shoulder" joint="shoulder" gear="{TORQUE_N_M[0]}"/>
    <motor name="elbow" joint="elbow" gear="{TORQUE_N_M[1]}"/>
  </actuator>
  <keyframe><key name="start" qpos="{START_RAD[0]} {START_RAD[1]}"/></keyframe>
</mujoco>
"""


class ArmTorque(Reaching):
    """Reach with two links; context: where the fingertip must go (x, y), in metres."""

    name = "arm-torque"
    horizon = 50
    sparse_radius_m = SPARSE_RADIUS_M
    success_radius_m = SUCCESS_RADIUS_M
    frame_skip = 4
    terms = (
        Term("joint_pos_rad", 2, "rad", "joint", "observation"),
        Term("joint_vel", 2, "rad/s", "joint", "observation"),
        Term("fingertip_pos_w_m", 2, "m", "world", "observation"),
    )
    context = ContextSpace(
        names=("goal_x", "goal_y"),
        units=("m", "m"),
        low=(0.3, -0.6),
        high=(0.7, 0.6),
        ood_low=(0.2, -0.65),
        ood_high=(0.7, 0.65),
    )
    dynamics = ContextSpace(
        names=("payload", "motor_gain"),
        units=("kg", "1"),
        low=(0.05, 0.5),
        high=(1.0, 1.5),
        ood_low=(0.02, 0.35),
        ood_high=(1.5, 2.0),
        positive=True,
    )
    nominal_dynamics = (PAYLOAD_KG, 1.0)
    actions = tuple(
        f"{joint} torque / {torque:g} N m"
        for joint, torque in zip(("shoulder", "elbow"), TORQUE_N_M, strict=True)
    )
    object_term = "fingertip_pos_w_m"
    start_noise_width = 2
    reads_positions = False

    def spec(self) -> mujoco.MjSpec:
        """See `Family`."""
        return mujoco.MjSpec.from_string(_XML)

    def set_dynamics(self, sims: Batch, ids: NDArray[np.int64], values: FloatArray) -> None:
        """Mass of the payload, inertia in proportion; the factor on both motors' torques."""
        payload = self.model.body("payload").id
        sims.expand("body_mass")[ids, payload] = values[:, 0]
        sims.expand("body_inertia")[ids, payload] = values[:, :1] * PAYLOAD_INERTIA_PER_KG
        sims.expand("actuator_gear")[ids, :, 0] = values[:, 1:] * np.array(TORQUE_N_M)
        sims.set_const(ids)

    def views(self, sims: Batch) -> Views:
        """See `Family`."""
        return {"qpos": sims.qpos, "qvel": sims.qvel, "ctrl": sims.ctrl}

    def start(self, noise: FloatArray) -> Views:
        """The start posture within START_NOISE_RAD, at rest."""
        return {"qpos": np.array(START_RAD) + START_NOISE_RAD * noise}

    def control(self, views: Views, action: FloatArray) -> Views:  # noqa: ARG002
        """Motor torques, TORQUE_N_M per unit action."""
        return {"ctrl": action}

    def read(self, views: Views) -> Terms:
        """See `Family`."""
        qpos = views["qpos"].copy()
        return {
            "joint_pos_rad": qpos,
            "joint_vel": views["qvel"].copy(),
            "fingertip_pos_w_m": fingertip_w_m(qpos),
        }

    def distance_m(self, terms: Terms, context: FloatArray) -> FloatArray:
        """The fingertip's; see `Reaching`."""
        return distance_m(terms["fingertip_pos_w_m"], context[:, :2])

    def goal_marker(self, context: FloatArray) -> dict[str, FloatArray]:
        """See `Family`."""
        return {"goal": np.array([*context[:2], 0.1])}


def fingertip_w_m(joints_rad: FloatArray) -> FloatArray:
    """Where the fingertip is, (N, 2), at angles (N, 2) of shoulder and elbow."""
    upper, lower = joints_rad[:, 0], joints_rad.sum(axis=1)
    place: FloatArray = LINK_M * np.column_stack(
        [np.cos(upper) + np.cos(lower), np.sin(upper) + np.sin(lower)]
    )
    return place
