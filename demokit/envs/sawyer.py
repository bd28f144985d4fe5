"""What the Sawyer families share: the arm, its control, the hand and its start.

Sources. Arm: published offsets, axes, limits, masses and damping of the Rethink Sawyer, drawn
with primitives (`assets/sawyer.xml`). Control, workspace, time steps and the mocap weld: the
environments of GMPS (Mendonca et al., 2019).

Deviations. The hand starts within 1 cm (x and y) of the paper's start, which has no start noise:
identical starts would let a policy count steps instead of looking. Link inertias are those of
solids of the links' size; gravity is compensated. Arm joints have an armature of 0.1 kg m^2 and
the weld solimp 0.99 0.999: without them the hand tilts by up to 0.3 rad while it moves; with
them by 0.001 rad, and the hand trails its target by 3 mm. The left finger travels 4 cm, as the
right one (published: 3 cm), so that they meet in the middle; finger armature and gains are ours.
The target of the hand stays within `REACH_M` of the shoulder: the far corners of the workspace are
out of the arm's reach, and the weld would pull it apart there.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from importlib.resources import files
from typing import ClassVar

import mujoco
import numpy as np
from mujoco.batch import Batch

from demokit.envs.family import Family, Term, Terms, Viewpoint, Views
from demokit.types import FloatArray

STEP_M = 0.01
WORKSPACE_LOW_W_M = np.array([-0.5, 0.4, 0.05])
WORKSPACE_HIGH_W_M = np.array([0.5, 1.0, 0.5])
SHOULDER_W_M = np.array([0.0, 0.05, 0.317])
REACH_M = 1.0
START_NOISE_M = 0.01
FINGER_TRAVEL_M = 0.04
# Fingers point down, they open along world x. Hand frame: x down, y = -x_w, z = y_w.
HAND_QUAT_W = (0.5, -0.5, 0.5, 0.5)
NUM_ARM_JOINTS = 7
HAND_TERMS = (
    Term("hand_pos_w_m", 3, "m", "world", "observation"),
    Term("hand_target_w_m", 3, "m", "world", "privileged"),
    Term("finger_pos_m", 2, "m", "hand", "privileged"),
)
BLOCK_TERMS = (
    Term("block_pos_w_m", 3, "m", "world", "observation"),
    Term("block_quat_w", 4, "1", "world", "privileged"),
    Term("block_vel_w", 3, "m/s", "world", "privileged"),
    Term("block_angvel", 3, "rad/s", "block", "privileged"),
)


class SawyerFamily(Family):
    """A Sawyer whose hand follows position increments; subclasses add the objects.

    An action is (dx, dy, dz), each in [-1, 1] and worth `STEP_M`; the hand's target stays in the
    workspace and within the arm's reach. A family whose actions have a fourth component, the
    gripper, closes its fingers from it (-1 open, 1 closed); for the others `gripper` is the fixed
    command.

    Attributes:
        hand_start_w_m: where the hand starts, world frame.
        home_rad: arm joints (7,) that put the hand there, pointing down with the elbow up.
        gripper: finger command in [-1, 1] of families without a gripper action.
    """

    frame_skip = 5
    start_noise_width = 2
    settle_steps = 25
    # From behind the table towards the robot: what is pushed away from it never hides.
    viewpoints: ClassVar[Mapping[str, Viewpoint]] = {
        "policy": Viewpoint((0.0, 0.62, 0.05), 0.75, -90.0, -45.0)
    }
    vision_terms: ClassVar[tuple[str, ...]] = ("hand_pos_w_m",)
    actions: ClassVar[tuple[str, ...]] = ("dx / 0.01 m", "dy / 0.01 m", "dz / 0.01 m")
    hand_start_w_m: ClassVar[tuple[float, float, float]]
    home_rad: ClassVar[tuple[float, ...]]
    gripper: ClassVar[float]

    @abstractmethod
    def add_objects(self, spec: mujoco.MjSpec) -> list[float]:
        """Add the family's bodies to the model; returns their joint positions at the start."""

    def spec(self) -> mujoco.MjSpec:
        """See `Family`."""
        xml = (files("demokit.envs") / "assets" / "sawyer.xml").read_text()
        spec = mujoco.MjSpec.from_string(xml)
        spec.modelname = self.name
        objects_qpos = self.add_objects(spec)
        fingers = finger_command(np.array([self.gripper]))[0].tolist()
        spec.add_key(
            name="start",
            qpos=[*self.home_rad, *fingers, *objects_qpos],
            ctrl=fingers,
            mpos=list(self.hand_start_w_m),
            mquat=list(HAND_QUAT_W),
        )
        return spec

    def views(self, sims: Batch) -> Views:
        """The hand's and fingers' arrays; subclasses add those of their objects."""
        return {
            "hand": sims.site("hand").xpos,
            "hand_target": sims.mocap_pos[:, 0],
            "fingers": sims.qpos[:, NUM_ARM_JOINTS : NUM_ARM_JOINTS + 2],
            "finger_command": sims.ctrl,
        }

    def start(self, noise: FloatArray) -> Views:
        """The hand's target within START_NOISE_M of the start in x and y.

        That may be as far behind the workspace's edge; `control` lets it be there. The arm follows
        during `settle_steps`. Objects start where keyframe 0 puts them.
        """
        offset = START_NOISE_M * np.pad(noise, ((0, 0), (0, 1)))
        return {"hand_target": np.array(self.hand_start_w_m) + offset}

    def control(self, views: Views, action: FloatArray) -> Views:
        """Move the hand's target by STEP_M per unit action, within workspace and reach."""
        target = views["hand_target"] + STEP_M * action[:, :3].astype(np.float64)
        # Start noise may lie behind the workspace's edge: the edge never throws the hand forward.
        low = np.minimum(WORKSPACE_LOW_W_M, views["hand_target"])
        gripper = action[:, 3] if action.shape[1] > 3 else np.full(len(action), self.gripper)
        return {
            "hand_target": within_reach(np.clip(target, low, WORKSPACE_HIGH_W_M)),
            "finger_command": finger_command(gripper),
        }

    def read(self, views: Views) -> Terms:
        """The hand's terms; subclasses add those of their objects."""
        return {
            "hand_pos_w_m": views["hand"].copy(),
            "hand_target_w_m": views["hand_target"].copy(),
            "finger_pos_m": views["fingers"].copy(),
        }


class SawyerBlockFamily(SawyerFamily):
    """A Sawyer with a free body named "block"."""

    def views(self, sims: Batch) -> Views:
        """See `Family`."""
        block = sims.joint("block")
        return {**super().views(sims), "block_qpos": block.qpos, "block_qvel": block.qvel}

    def read(self, views: Views) -> Terms:
        """See `Family`."""
        qpos, qvel = views["block_qpos"].copy(), views["block_qvel"].copy()
        return {
            **super().read(views),
            "block_pos_w_m": qpos[:, :3],
            "block_quat_w": qpos[:, 3:],
            "block_vel_w": qvel[:, :3],
            "block_angvel": qvel[:, 3:],
        }


def within_reach(target_w_m: FloatArray) -> FloatArray:
    """Targets (N, 3), those that the arm cannot reach moved straight to where it can."""
    offset = target_w_m - SHOULDER_W_M
    away = np.linalg.norm(offset, axis=1, keepdims=True)
    reachable: FloatArray = np.where(
        away > REACH_M, SHOULDER_W_M + REACH_M * offset / np.maximum(away, REACH_M), target_w_m
    )
    return reachable


def finger_command(gripper: FloatArray) -> FloatArray:
    """Positions (N, 2) of the right and left finger for gripper values (N,): -1 open, 1 closed."""
    travel = FINGER_TRAVEL_M * (np.asarray(gripper, np.float64) + 1) / 2
    return np.stack([travel, -travel], axis=1)


def distance_m(a: FloatArray, b: FloatArray) -> FloatArray:
    """Euclidean distances (N,) between points (N, D)."""
    distance: FloatArray = np.linalg.norm(a - b, axis=1)
    return distance
