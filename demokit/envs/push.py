"""Push: the hand must push a block to a goal it cannot see.

Sources. Table of GMPS (Mendonca et al., 2019, appendix) and its released environments: block at
(0, 0.52), hand at (0, 0.4, 0.05), goal uniform in a 20 cm x 10 cm region, horizon 50, rewards,
success within 5 cm of the goal.

Choices of ours. As dynamics (ours), tasks may set the block's mass and the friction between
block and table: half to three times, and half to one and a half times the nominal values.
The block is an upright cylinder (radius 3 cm, height 5 cm, 0.1 kg), so that the
six observed numbers describe it fully; the fingers stand 5 cm apart and cradle it: they keep it
while the push stays within 38 degrees of the line between the fingers' middle and the block.
"""

from __future__ import annotations

import mujoco
import numpy as np
from mujoco.batch import Batch
from numpy.typing import NDArray

from demokit.envs.family import ContextSpace, Terms
from demokit.envs.sawyer import BLOCK_TERMS, HAND_TERMS, SawyerBlockFamily, distance_m
from demokit.types import Array, FloatArray

BLOCK_START_W_M = (0.0, 0.52)
BLOCK_RADIUS_M = 0.03
BLOCK_HALF_HEIGHT_M = 0.025
BLOCK_MASS_KG = 0.1
TABLE_FRICTION = 0.8
SUCCESS_RADIUS_M = 0.05
SPARSE_RADIUS_M = 0.05
PROGRESS_WEIGHT = 100.0


class Push(SawyerBlockFamily):
    """Push the block; context: the block's goal (x, y) in metres."""

    name = "push"
    horizon = 50
    hand_start_w_m = (0.0, 0.4, 0.05)
    home_rad = (1.037378, -1.24105, 0.087269, 2.551003, -0.108566, 0.263477, 1.399336)
    object_term = "block_pos_w_m"
    gripper = 0.25  # fingers 5 cm apart
    terms = (
        *HAND_TERMS,
        *BLOCK_TERMS,
    )
    context = ContextSpace(
        names=("goal_x", "goal_y"),
        units=("m", "m"),
        low=(-0.1, 0.7),
        high=(0.1, 0.8),
        ood_low=(-0.15, 0.65),
        ood_high=(0.15, 0.85),
    )
    dynamics = ContextSpace(
        names=("block_mass", "block_friction"),
        units=("kg", "1"),
        low=(0.05, 0.4),
        high=(0.3, 1.2),
        ood_low=(0.03, 0.2),
        ood_high=(0.5, 1.6),
        positive=True,
    )
    nominal_dynamics = (BLOCK_MASS_KG, TABLE_FRICTION)

    def add_objects(self, spec: mujoco.MjSpec) -> list[float]:
        """The block and the goal's marker."""
        start = [*BLOCK_START_W_M, BLOCK_HALF_HEIGHT_M]
        block = spec.worldbody.add_body(name="block", pos=start)
        block.add_freejoint(name="block")
        block.add_geom(
            name="block",
            type=mujoco.mjtGeom.mjGEOM_CYLINDER,
            size=[BLOCK_RADIUS_M, BLOCK_HALF_HEIGHT_M, 0],
            mass=BLOCK_MASS_KG,
            friction=[TABLE_FRICTION, 0.005, 0.0001],
            contype=1,
            conaffinity=2,
            material="",
            rgba=[0.10, 0.45, 0.95, 1],
        )
        spec.worldbody.add_site(
            name="goal",
            group=4,
            type=mujoco.mjtGeom.mjGEOM_CYLINDER,
            pos=[0, 0.75, 0.001],
            size=[SUCCESS_RADIUS_M, 0.001, 0],
            rgba=[0.1, 0.7, 0.25, 0.6],
        )
        return [*start, 1, 0, 0, 0]

    def set_dynamics(self, sims: Batch, ids: NDArray[np.int64], values: FloatArray) -> None:
        """Mass of the block, inertia in proportion; sliding friction of block and table."""
        block = self.model.body("block").id
        sims.expand("body_mass")[ids, block] = values[:, 0]
        inertia = self.model.body_inertia[block] / BLOCK_MASS_KG
        sims.expand("body_inertia")[ids, block] = values[:, :1] * inertia
        # The greater friction of the two counts.
        for geom in ("block", "table_plane"):
            sims.expand("geom_friction")[ids, self.model.geom(geom).id, 0] = values[:, 1]
        sims.set_const(ids)

    def reward_dense(self, terms: Terms, context: FloatArray, action: FloatArray) -> FloatArray:  # noqa: ARG002
        """`-|hand - block| + 100 max(0, d0 - |block - goal|)`, GMPS's; d0 is |start - goal|.

        The distance from hand to block is taken in space, that from block to goal in the plane.
        """
        block, goal = terms["block_pos_w_m"], context[:, :2]
        return _reward(terms["hand_pos_w_m"], block, _goal_distance_m(block, goal), goal)

    def reward_sparse(self, terms: Terms, context: FloatArray, action: FloatArray) -> FloatArray:
        """As dense with the block within 0.05 m of the goal, else the value of the start state."""
        block = terms["block_pos_w_m"]
        near = _goal_distance_m(block, context[:, :2]) < SPARSE_RADIUS_M
        start = np.array([*BLOCK_START_W_M, BLOCK_HALF_HEIGHT_M])
        at_start = -np.linalg.norm(np.array(self.hand_start_w_m) - start)
        return np.where(near, self.reward_dense(terms, context, action), at_start)

    def success(self, terms: Terms, context: FloatArray) -> Array:
        """The block within SUCCESS_RADIUS_M of the goal, in the plane."""
        return _goal_distance_m(terms["block_pos_w_m"], context[:, :2]) < SUCCESS_RADIUS_M

    def goal_marker(self, context: FloatArray) -> dict[str, FloatArray]:
        """See `Family`."""
        return {"goal": np.array([*context[:2], 0.001])}


def _goal_distance_m(block_w_m: FloatArray, goal_w_m: FloatArray) -> FloatArray:
    return distance_m(block_w_m[:, :2], goal_w_m)


def _reward(
    hand_w_m: FloatArray, block_w_m: FloatArray, to_goal_m: FloatArray, goal_w_m: FloatArray
) -> FloatArray:
    progress_m = distance_m(np.array([BLOCK_START_W_M]), goal_w_m) - to_goal_m
    return -distance_m(hand_w_m, block_w_m) + PROGRESS_WEIGHT * np.maximum(0, progress_m)
