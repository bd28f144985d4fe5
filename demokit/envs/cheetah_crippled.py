"""CheetahCrippled: the two-legged runner runs forward with one motor that does not work.

Which one is hidden: tasks differ in their dynamics alone, and what is paid depends on what is seen.

Sources. HalfCheetah with a disabled joint of GrBAL (Nagabandi et al., 2019), as its authors' code
has it (github iclavera/learning_to_adapt): one of the six motors gives no torque, trained with each
but that of the back thigh, which is held out; reward `v - 0.05 |a|^2`. Here that motor is the task
of validation. Robot, start, frame skip and what else is observed are those of `cheetah-vel`.

Deviations. Horizon 200 (theirs 1000), as in the other cheetahs here. The velocity is the mean over
the last action and observed, so that the reward can be computed from what is seen; they observe the
centre of mass for that, and pay its velocity. A torque that a disabled motor does not give costs
what the others do. Success (ours): SUCCESS_M from the start at the end. Theirs has no sparse
reward: ours pays the dense one from there on, and 0 before.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np
from mujoco.batch import Batch
from numpy.typing import NDArray

from demokit.envs.cheetah_vel import CheetahFamily, control_cost
from demokit.envs.family import ContextSpace, Term, Terms
from demokit.types import Array, FloatArray

SUCCESS_M = 5.0
MOTORS = ("bthigh", "bshin", "bfoot", "fthigh", "fshin", "ffoot")
HELD_OUT = "bthigh"


def _without(motor: str) -> tuple[float, ...]:
    """What share of its torque each motor gives where one gives none."""
    return tuple(float(name != motor) for name in MOTORS)


def _seen(term: Term) -> Term:
    """The mean velocity is seen here."""
    return replace(term, group="observation") if term.name == "mean_vel_x_w" else term


class CheetahCrippled(CheetahFamily):
    """Run forward; context: the share of its torque that each motor gives, 0 of one of them."""

    name = "cheetah-crippled"
    terms = tuple(_seen(term) for term in CheetahFamily.terms)
    context = ContextSpace(
        names=tuple(f"{motor}_gain" for motor in MOTORS),
        units=("1",) * len(MOTORS),
        low=(0.0,) * len(MOTORS),
        high=(1.0,) * len(MOTORS),
        regions=tuple((_without(motor),) * 2 for motor in MOTORS if motor != HELD_OUT),
        held_out=(_without(HELD_OUT),),
    )
    seen_rewards = ("dense",)
    paper_sizes: ClassVar = {"train": len(MOTORS) - 1, "validation": 1}

    def set_task(self, sims: Batch, ids: NDArray[np.int64], context: FloatArray) -> None:
        """The gears of the motors, each times its share."""
        sims.expand("actuator_gear")[ids, :, 0] = context * self.model.actuator_gear[:, 0]

    def nominal(self, context: FloatArray) -> FloatArray:
        """All motors give all of it."""
        return np.ones_like(context)

    def reward_dense(self, terms: Terms, context: FloatArray, action: FloatArray) -> FloatArray:  # noqa: ARG002
        """`v - 0.05 |a|^2`, GrBAL's."""
        reward: FloatArray = terms["mean_vel_x_w"][:, 0] - control_cost(action)
        return reward

    def reward_sparse(self, terms: Terms, context: FloatArray, action: FloatArray) -> FloatArray:
        """As dense once SUCCESS_M ahead, else 0."""
        there = self.success(terms, context)
        return np.where(there, self.reward_dense(terms, context, action), 0.0)

    def goal_marker(self, context: FloatArray) -> dict[str, FloatArray]:  # noqa: ARG002
        """SUCCESS_M ahead, whichever motor it is."""
        return {"goal": np.array([SUCCESS_M, 0.0, 1.3])}

    def success(self, terms: Terms, context: FloatArray) -> Array:  # noqa: ARG002
        """SUCCESS_M ahead of the origin."""
        ahead: Array = terms["root_x_w_m"][:, 0] > SUCCESS_M
        return ahead
