"""Door: the hand must open a door to an angle it cannot see.

Sources. Table of GMPS (Mendonca et al., 2019, appendix) and its released environments: hand at
(0, 0.4, 0.1), target angle in [0, 60] degrees, hinge damping 100, horizon 100, reward 10 per
radian up to the target and falling symmetrically beyond it while the fingers are within 0.1 m of
the handle, success within 0.1 rad.

Choices of ours. The door's front stands at y = 0.85 (the paper's centre: 1.0), so that reaching
takes 42 of the 100 steps, and it is low (26 cm; the paper's centre is at 0.3 m), so that the wrist
stays above it. The handle is a horizontal bar on two standoffs; the closed fingers come
down into its slot, which is 5 cm wider than they are, and there they pull and push. The observation
holds the door's angle, as the paper's does, and no gripper state, which never changes. As dynamics
(ours), tasks may set the hinge's damping, from half to twice the paper's.
"""

from __future__ import annotations

import mujoco
import numpy as np
from mujoco.batch import Batch
from numpy.typing import NDArray

from demokit.envs.family import ContextSpace, Term, Terms, Viewpoint, Views
from demokit.envs.sawyer import HAND_TERMS, SawyerFamily, distance_m
from demokit.types import Array, FloatArray

HINGE_W_M = (-0.2, 0.85, 0.13)
HINGE_DAMPING = 100.0
HINGE_RANGE_RAD = (0.0, 1.6)
PANEL_HALF_SIZE_M = (0.2, 0.01, 0.11)
# In the door's frame: origin at the hinge, x along the panel, y into the cabinet.
BAR_Y_M = -0.08
BAR_HALF_LENGTH_M = 0.075
BAR_RADIUS_M = 0.01
HANDLE_DOOR_M = (0.2, -0.035, 0.03)  # the middle of the slot, at the bar's height
HOLD_DISTANCE_M = 0.1
SUCCESS_RAD = 0.1
REWARD_PER_RAD = 10.0
# The way into the slot, for the hand: over the bar, then down between bar and panel.
OVER_M = 0.075  # above the handle, the fingertips (4.5 cm below the hand) pass over the bar
IN_SLOT_M = 0.025  # above the handle, the fingertips 2 cm below the bar's middle
SLOT_RADIUS_M = 0.03
SHAPING_PER_M = 5.0


class Door(SawyerFamily):
    """Open the door; context: the target angle in radians."""

    name = "door"
    horizon = 100
    hand_start_w_m = (0.0, 0.4, 0.1)
    home_rad = (1.147322, -1.413821, -0.071181, 2.530996, 0.02535, 0.454126, 1.228755)
    object_term = "door_angle_rad"
    # From the side: the cabinet would hide the hand from the viewpoint of the others.
    viewpoints = {  # noqa: RUF012
        "policy": Viewpoint((-0.02, 0.68, 0.14), 0.95, 205.0, -40.0)
    }
    gripper = 1.0
    terms = (
        *HAND_TERMS,
        Term("handle_pos_w_m", 3, "m", "world", "observation"),
        Term("door_angle_rad", 1, "rad", "hinge", "observation"),
        Term("door_angvel", 1, "rad/s", "hinge", "privileged"),
    )
    context = ContextSpace(
        names=("target_angle",),
        units=("rad",),
        low=(0.0,),
        high=(np.pi / 3,),
        ood_low=(np.pi / 3,),
        ood_high=(np.deg2rad(75.0),),
    )
    dynamics = ContextSpace(
        names=("hinge_damping",),
        units=("N m s",),
        low=(50.0,),
        high=(200.0,),
        ood_low=(25.0,),
        ood_high=(300.0,),
        positive=True,
    )
    nominal_dynamics = (HINGE_DAMPING,)

    def add_objects(self, spec: mujoco.MjSpec) -> list[float]:
        """The door in its frame, and the marker of the target angle."""
        door = spec.worldbody.add_body(name="door", pos=list(HINGE_W_M))
        door.add_joint(
            name="hinge",
            type=mujoco.mjtJoint.mjJNT_HINGE,
            axis=[0, 0, -1],  # positive opens towards the robot
            range=list(HINGE_RANGE_RAD),
            damping=[HINGE_DAMPING, 0, 0],
            armature=0.1,
        )
        _add_panel(door)
        _add_handle(door)
        _add_frame(spec)
        return [0.0]

    def set_dynamics(self, sims: Batch, ids: NDArray[np.int64], values: FloatArray) -> None:
        """Damping of the hinge."""
        dof = self.model.joint("hinge").dofadr[0]
        sims.expand("dof_damping")[ids, dof] = values[:, 0]

    def views(self, sims: Batch) -> Views:
        """See `Family`."""
        hinge = sims.joint("hinge")
        return {
            **super().views(sims),
            "handle": sims.site("handle").xpos,
            "angle": hinge.qpos,
            "angvel": hinge.qvel,
        }

    def read(self, views: Views) -> Terms:
        """See `Family`."""
        return {
            **super().read(views),
            "handle_pos_w_m": views["handle"].copy(),
            "door_angle_rad": views["angle"].copy(),
            "door_angvel": views["angvel"].copy(),
        }

    def reward_dense(self, terms: Terms, context: FloatArray, action: FloatArray) -> FloatArray:  # noqa: ARG002
        """`10 (target - |angle - target|)` with the hand within 0.1 m of the handle, else 0."""
        target = context[:, 0]
        progress_rad = target - np.abs(terms["door_angle_rad"][:, 0] - target)
        held = distance_m(terms["hand_pos_w_m"], terms["handle_pos_w_m"]) < HOLD_DISTANCE_M
        return np.where(held, REWARD_PER_RAD * progress_rad, 0.0)

    def reward_sparse(self, terms: Terms, context: FloatArray, action: FloatArray) -> FloatArray:
        """The dense reward: it is sparse already, nothing is paid until the handle is held."""
        return self.reward_dense(terms, context, action)

    def shaping(self, terms: Terms, context: FloatArray) -> FloatArray:  # noqa: ARG002
        """`-5` per metre of way into the handle's slot: in the plane, and to the height there."""
        offset = terms["hand_pos_w_m"] - terms["handle_pos_w_m"]
        apart = np.linalg.norm(offset[:, :2], axis=1)
        rise = np.clip((apart - SLOT_RADIUS_M) / 0.01, 0, 1)
        height = IN_SLOT_M + (OVER_M - IN_SLOT_M) * rise
        shaped: FloatArray = -SHAPING_PER_M * (apart + np.abs(offset[:, 2] - height))
        return shaped

    def success(self, terms: Terms, context: FloatArray) -> Array:
        """The angle within SUCCESS_RAD of the target."""
        return np.abs(terms["door_angle_rad"] - context[:, :1])[:, 0] < SUCCESS_RAD

    def goal_marker(self, context: FloatArray) -> dict[str, FloatArray]:
        """Where the handle is when the door stands at the target angle."""
        return {"goal": handle_at(context[:1])[0]}


def handle_at(angle_rad: FloatArray) -> FloatArray:
    """Positions (N, 3) of the handle in the world for door angles (N,)."""
    x, y, z = HANDLE_DOOR_M
    cos, sin = np.cos(angle_rad), np.sin(angle_rad)
    turned = np.stack([x * cos + y * sin, -x * sin + y * cos, np.full_like(cos, z)], axis=1)
    handle: FloatArray = np.array(HINGE_W_M) + turned
    return handle


def _add_panel(door: mujoco.MjsBody) -> None:
    half_x, half_y, _ = PANEL_HALF_SIZE_M
    door.add_geom(
        name="panel",
        type=mujoco.mjtGeom.mjGEOM_BOX,
        pos=[half_x, half_y, 0],
        size=list(PANEL_HALF_SIZE_M),
        mass=2,
        conaffinity=2,
        material="",
        rgba=[0.86, 0.87, 0.84, 1],
    )


def _add_handle(door: mujoco.MjsBody) -> None:
    x, y, z = HANDLE_DOOR_M
    left, right = x - BAR_HALF_LENGTH_M, x + BAR_HALF_LENGTH_M
    parts = {
        "bar": ([left, BAR_Y_M, z], [right, BAR_Y_M, z]),
        "standoff_a": ([left, BAR_Y_M, z], [left, 0, z]),
        "standoff_b": ([right, BAR_Y_M, z], [right, 0, z]),
    }
    for name, (start, end) in parts.items():
        door.add_geom(
            name=name,
            type=mujoco.mjtGeom.mjGEOM_CAPSULE,
            fromto=[*start, *end],
            size=[BAR_RADIUS_M, 0, 0],
            mass=0.05,
            conaffinity=2,
            material="steel",
        )
    door.add_site(name="handle", pos=[x, y, z], size=[0.008, 0, 0], rgba=[0, 0, 0, 0])


def _add_frame(spec: mujoco.MjSpec) -> None:
    """What people see: the cabinet, the target's marker, a camera in front of the door."""
    spec.worldbody.add_geom(
        name="cabinet",
        type=mujoco.mjtGeom.mjGEOM_BOX,
        pos=[0, 0.965, 0.13],
        size=[0.21, 0.09, 0.13],
        material="",
        rgba=[0.36, 0.42, 0.46, 1],
    )
    spec.worldbody.add_site(
        name="goal",
        group=4,
        pos=[0, 0.8, 0.16],
        size=[0.02, 0, 0],
        rgba=[0.1, 0.7, 0.25, 0.8],
    )
    camera = spec.camera("scene")
    camera.pos = [1.35, 0.05, 0.95]
    camera.alt.xyaxes = [0.343, 0.939, 0.0, -0.406, 0.148, 0.902]
