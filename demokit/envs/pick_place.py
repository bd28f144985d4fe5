"""PickPlace: the gripper must lift a block to a goal in the air that it cannot see.

Sources. The Sawyer environments of GMPS's release (Mendonca et al., 2019): four action values, the
fourth opens and closes the gripper; workspace, control and time steps as in `push`. The paper
reports no such family, so the rest is ours, after Push.

Choices of ours. The block is an upright box (4 cm x 4 cm x 5 cm, 0.1 kg) at (0, 0.52); goals are
7.5 to 25 cm high over the region of Push's goals; horizon 80. The dense reward is Push's in space.
The finger pads are grippier than Push's (friction 1.5 with torsion, elliptic cones) and their
drive is softer (10 N on the block), so that they hold the block and do not crush it. The gripper
state is observed, as in the paper's door: without it, open and closed look alike.
"""

from __future__ import annotations

from typing import ClassVar

import mujoco
import numpy as np

from demokit.envs.family import ContextSpace, Term, Terms, Viewpoint
from demokit.envs.sawyer import BLOCK_TERMS, HAND_TERMS, SawyerBlockFamily, distance_m
from demokit.types import Array, FloatArray

BLOCK_START_W_M = (0.0, 0.52, 0.025)
BLOCK_HALF_WIDTH_M = 0.02
BLOCK_MASS_KG = 0.1
PAD_FRICTION = (1.5, 0.02, 0.0001)
FINGER_STIFFNESS = 500.0  # N/m: 10 N on the block
FINGER_DAMPING = 50.0  # N s/m: reaches the block in 0.15 s, three actions
IMPRATIO = 10.0  # with elliptic cones: what is held does not slip
SUCCESS_RADIUS_M = 0.05
PROGRESS_WEIGHT = 100.0


class PickPlace(SawyerBlockFamily):
    """Lift the block to the goal; context: the goal (x, y, z) of the block's middle in metres."""

    name = "pick-place"
    horizon = 80
    actions: ClassVar[tuple[str, ...]] = (
        *SawyerBlockFamily.actions,
        "gripper: -1 open, 1 closed",
    )
    hand_start_w_m = (0.0, 0.4, 0.1)
    home_rad = (1.147322, -1.413821, -0.071181, 2.530996, 0.02535, 0.454126, 1.228755)
    object_term = "block_pos_w_m"
    viewpoints = {  # noqa: RUF012
        "policy": Viewpoint((0.0, 0.62, 0.12), 0.9, -90.0, -35.0)
    }
    vision_terms = ("hand_pos_w_m", "finger_pos_m")
    gripper = -1.0
    terms = (
        *(
            term if term.name != "finger_pos_m" else Term(term.name, 2, "m", "hand", "observation")
            for term in HAND_TERMS
        ),
        *BLOCK_TERMS,
    )
    context = ContextSpace(
        names=("goal_x", "goal_y", "goal_z"),
        units=("m", "m", "m"),
        low=(-0.1, 0.7, 0.075),
        high=(0.1, 0.8, 0.25),
        ood_low=(-0.15, 0.65, 0.05),
        ood_high=(0.15, 0.85, 0.3),
    )
    paper_sizes = {"train": 20, "validation": 20}  # noqa: RUF012

    def add_objects(self, spec: mujoco.MjSpec) -> list[float]:
        """The block, the goal's marker, and fingers that hold."""
        block = spec.worldbody.add_body(name="block", pos=list(BLOCK_START_W_M))
        block.add_freejoint(name="block")
        block.add_geom(
            name="block",
            type=mujoco.mjtGeom.mjGEOM_BOX,
            size=[BLOCK_HALF_WIDTH_M, BLOCK_HALF_WIDTH_M, BLOCK_START_W_M[2]],
            mass=BLOCK_MASS_KG,
            friction=[0.8, 0.005, 0.0001],
            contype=1,
            conaffinity=2,
            material="",
            rgba=[0.95, 0.55, 0.10, 1],
        )
        spec.worldbody.add_site(
            name="goal",
            group=4,
            pos=[0, 0.75, 0.2],
            size=[0.02, 0, 0],
            rgba=[0.1, 0.7, 0.25, 0.8],
        )
        _make_fingers_hold(spec)
        return [*BLOCK_START_W_M, 1, 0, 0, 0]

    def reward_dense(self, terms: Terms, context: FloatArray, action: FloatArray) -> FloatArray:  # noqa: ARG002
        """`-|hand - block| + 100 max(0, d0 - |block - goal|)`; d0 is |start - goal|."""
        block = terms["block_pos_w_m"]
        progress_m = distance_m(np.array(BLOCK_START_W_M), context) - distance_m(block, context)
        reward: FloatArray = PROGRESS_WEIGHT * np.maximum(0, progress_m)
        return reward - distance_m(terms["hand_pos_w_m"], block)

    def reward_sparse(self, terms: Terms, context: FloatArray, action: FloatArray) -> FloatArray:
        """As dense with the block within 0.05 m of the goal, else the value of the start state."""
        at_start = -np.linalg.norm(np.array(self.hand_start_w_m) - BLOCK_START_W_M)
        near = self.success(terms, context)
        return np.where(near, self.reward_dense(terms, context, action), at_start)

    def success(self, terms: Terms, context: FloatArray) -> Array:
        """The block within SUCCESS_RADIUS_M of the goal, in space."""
        return distance_m(terms["block_pos_w_m"], context) < SUCCESS_RADIUS_M

    def goal_marker(self, context: FloatArray) -> dict[str, FloatArray]:
        """See `Family`."""
        return {"goal": context}


def _make_fingers_hold(spec: mujoco.MjSpec) -> None:
    spec.option.cone, spec.option.impratio = mujoco.mjtCone.mjCONE_ELLIPTIC, IMPRATIO
    for name in ("right_pad", "left_pad"):
        pad = spec.geom(name)
        pad.friction, pad.condim = list(PAD_FRICTION), 4
    for name in ("r_close", "l_close"):
        spec.joint(name).damping = [FINGER_DAMPING, 0, 0]
        drive = spec.actuator(name)
        drive.gainprm[0], drive.biasprm[1] = FINGER_STIFFNESS, -FINGER_STIFFNESS
