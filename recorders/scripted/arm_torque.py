"""The expert of ArmTorque: inverse kinematics, then computed torques."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from demokit.envs.arm_torque import (
    DAMPING,
    ELBOW_RANGE_RAD,
    LINK_KG,
    LINK_M,
    PAYLOAD_INERTIA_PER_KG,
    ROD_INERTIA,
    TORQUE_N_M,
    ArmTorque,
)
from demokit.types import Array, FloatArray

FREQUENCY = 6.0  # rad/s, of the critically damped way to the goal's posture


class ArmTorqueExpert:
    """Accelerates towards the posture of the goal; knows payload and motors where tasks set them.

    Computed torques (Craig, Introduction to Robotics, chapter 10): the accelerations of a
    critically damped spring, times the mass matrix, plus what the arm's speed takes.
    """

    name = "scripted"

    def act(self, observation: FloatArray, privileged: Mapping[str, Array]) -> FloatArray:  # noqa: ARG002
        """Actions (N, 2) from "joint_pos_rad", "joint_vel" and "context" (N, 2) or (N, 4)."""
        context, joints = privileged["context"], privileged["joint_pos_rad"]
        speed = privileged["joint_vel"]
        nominal = np.tile(ArmTorque.nominal_dynamics, (len(context), 1))
        payload_kg, gain = (context[:, 2:] if context.shape[1] > 2 else nominal).T
        error = posture_rad(context[:, :2]) - joints
        wanted = FREQUENCY**2 * error - 2 * FREQUENCY * speed
        inertia = mass_matrix(joints[:, 1], payload_kg)
        torque = np.einsum("nij,nj->ni", inertia, wanted) + _drag(joints[:, 1], speed, payload_kg)
        action: FloatArray = torque / (gain[:, None] * np.array(TORQUE_N_M))
        return np.clip(action, -1, 1).astype(np.float32)


def posture_rad(goal_w_m: FloatArray) -> FloatArray:
    """Angles (N, 2) of shoulder and elbow that bring the fingertip to goals (N, 2)."""
    reach_m = np.linalg.norm(goal_w_m, axis=1)
    elbow = np.clip(2 * np.arccos(np.clip(reach_m / (2 * LINK_M), 0, 1)), *ELBOW_RANGE_RAD)
    # The links are of one length: the goal lies in the middle of the elbow's angle.
    return np.column_stack([np.arctan2(goal_w_m[:, 1], goal_w_m[:, 0]) - elbow / 2, elbow])


def mass_matrix(elbow_rad: FloatArray, payload_kg: FloatArray) -> FloatArray:
    """The arm's inertia (N, 2, 2) in kg m^2 at elbow angles (N,) with payloads (N,)."""
    tip = payload_kg * (LINK_M**2 + PAYLOAD_INERTIA_PER_KG)
    lower = ROD_INERTIA + LINK_KG * LINK_M**2 / 4 + tip
    upper = ROD_INERTIA + LINK_KG * LINK_M**2 / 4 + (LINK_KG + payload_kg) * LINK_M**2
    cross = _coupling(payload_kg) * np.cos(elbow_rad)
    rows = upper + lower + 2 * cross, lower + cross, lower + cross, lower
    inertia: FloatArray = np.stack(rows, axis=1).reshape(-1, 2, 2)
    return inertia


def _drag(elbow_rad: FloatArray, speed: FloatArray, payload_kg: FloatArray) -> FloatArray:
    """Torques (N, 2) that keep the joints' speeds: Coriolis, centrifugal and damping."""
    turning = _coupling(payload_kg) * np.sin(elbow_rad)
    shoulder, elbow = speed.T
    coriolis = [-turning * elbow * (2 * shoulder + elbow), turning * shoulder**2]
    torques: FloatArray = np.column_stack(coriolis) + DAMPING * speed
    return torques


def _coupling(payload_kg: FloatArray) -> FloatArray:
    """Kg m^2 (N,): what the links' inertia shares, times the cosine of the elbow's angle."""
    shared: FloatArray = (LINK_KG / 2 + payload_kg) * LINK_M**2
    return shared
