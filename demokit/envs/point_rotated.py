"""PointRotated: the goal is seen; what an action does is not, for a hidden angle turns it.

The tasks differ in their dynamics alone: the same states, goals and rewards, another map from
actions to moves. A policy has to find the angle out from what its actions do.

Sources. Hidden rotations of the actions are how motor adaptation is studied (visuomotor rotation:
Krakauer et al., 2000) and how meta-learners are tested on dynamics. Model, step, horizon, rewards
and success are `point`'s. Choices of ours: the goal is drawn anew for every episode, from `point`'s
distribution, and observed: with one goal for all, an angle would be a place on a ring. The angles
go all the way round, so that no task is out of distribution.
"""

from __future__ import annotations

import mujoco
import numpy as np
from mujoco.batch import Batch
from numpy.typing import NDArray

from demokit.envs.family import ContextSpace, Term, Terms, Views
from demokit.envs.point import SUCCESS_RADIUS_M, Point
from demokit.envs.rotation import add_rotation, rotated, rotation_rad, turned
from demokit.types import FloatArray

GOAL_RANGE_M = 1.0
HEADING_M = 0.2  # how far from the origin people see where the angle points


class PointRotated(Point):
    """A point in the plane; context: the angle in radians by which its actions are turned."""

    name = "point-rotated"
    terms = (*Point.terms, Term("goal_pos_w_m", 2, "m", "world", "observation"))
    context = ContextSpace(names=("rotation",), units=("rad",), low=(-np.pi,), high=(np.pi,))
    actions = ("dx / 0.1 m, before the rotation", "dy / 0.1 m, before the rotation")
    start_noise_width = 4
    seen_rewards = ("dense", "sparse")

    def spec(self) -> mujoco.MjSpec:
        """Point's model with a goal that everybody sees, and the angle as a number of its own."""
        spec = super().spec()
        spec.modelname = self.name
        goal = spec.worldbody.add_body(name="goal", mocap=True)
        goal.add_geom(
            type=mujoco.mjtGeom.mjGEOM_CYLINDER,
            size=[SUCCESS_RADIUS_M, 0.002, 0],
            rgba=[0.1, 0.7, 0.2, 0.5],
            contype=0,
            conaffinity=0,
        )
        spec.delete(spec.site("goal"))
        add_rotation(spec)
        return spec

    def views(self, sims: Batch) -> Views:
        """See `Family`."""
        return {
            **super().views(sims),
            "goal": sims.mocap_pos[:, 1],
            "rotation_rad": rotation_rad(sims),
        }

    def set_task(self, sims: Batch, ids: NDArray[np.int64], context: FloatArray) -> None:
        """The angle, for `control`."""
        rotation_rad(sims)[ids] = context[:, 0]

    def nominal(self, context: FloatArray) -> FloatArray:
        """Actions go where they point."""
        return np.zeros_like(context)

    def start(self, noise: FloatArray) -> Views:
        """As Point; the goal within GOAL_RANGE_M of the origin along each axis."""
        goal = np.pad(GOAL_RANGE_M * noise[:, 2:], ((0, 0), (0, 1)))
        return {**super().start(noise[:, :2]), "goal": goal}

    def control(self, views: Views, action: FloatArray) -> Views:
        """As Point, the action turned by the hidden angle, counter-clockwise."""
        return super().control(views, turned(action, views["rotation_rad"]))

    def read(self, views: Views) -> Terms:
        """See `Family`."""
        return {**super().read(views), "goal_pos_w_m": views["goal"][:, :2].copy()}

    def goal_w_m(self, terms: Terms, context: FloatArray) -> FloatArray:  # noqa: ARG002
        """The goal that is seen."""
        return terms["goal_pos_w_m"]

    def goal_marker(self, context: FloatArray) -> dict[str, FloatArray]:
        """Where the action (1, 0) leads from the origin; the goal is a part of the scene."""
        heading = rotated(np.array([[HEADING_M, 0.0]]), context)[0]
        return {"heading": np.array([*heading, 0.02])}
