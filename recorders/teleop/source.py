"""Who acts: the person, or the expert once it took over; each step says which."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from demokit.data.labels import TELEOP
from demokit.envs.family import Family
from demokit.errors import DemokitError
from demokit.experts import NOBODY, advises
from demokit.protocols import Decision, Expert
from demokit.types import Array, FloatArray
from recorders.teleop.device import Command

GRIPPER_INDEX = 3


def check_hand(family: Family) -> None:
    """Raise DemokitError where the family's actions are no motion of a hand."""
    if not family.actions[0].startswith("dx"):
        raise DemokitError(
            f"{family.name} cannot be driven by hand: its actions ({family.actions[0]}, ...) "
            "are no motion of a hand (dx, dy, dz); leave out --device and give an --expert."
        )


class Nobody:
    """In the place of an expert, where nobody advises the person."""

    name = NOBODY

    def act(self, observation: FloatArray, privileged: Mapping[str, Array]) -> FloatArray:  # noqa: ARG002
        """Raises DemokitError: nobody acts."""
        raise DemokitError(f"Expert {NOBODY} does not act: give another.")


class HandSource:
    """An action source for one simulation, driven by commands.

    It says what the expert would do, whoever acts; what a step teaches is decided by who acted,
    see `demokit.data.labels`.

    Args:
        family: what is driven.
        expert: advises, and takes over when it is told to; one that knows nothing does neither.

    Attributes:
        command: what the person wants now.
        closed: whether the gripper is to be closed, where there is one.
        by_expert: whether the expert acts.

    Raises:
        DemokitError: the family's actions are no motion of a hand.
    """

    name = TELEOP

    def __init__(self, family: Family, expert: Expert) -> None:
        check_hand(family)
        self._expert = expert if advises(expert) else None
        self._width = len(family.actions)
        self.rest()

    @property
    def has_gripper(self) -> bool:
        """Whether one of the actions opens and closes the gripper."""
        return self._width > GRIPPER_INDEX

    @property
    def has_expert(self) -> bool:
        """Whether somebody can take over."""
        return self._expert is not None

    def rest(self) -> None:
        """As an episode begins: nobody moves, the gripper is open, the person acts."""
        self.command = Command()
        self.closed = self.by_expert = False

    def decide(self, observation: FloatArray, privileged: Mapping[str, Array]) -> Decision:
        """The action (1, A) of whoever acts, and the expert's (1, A) where there is one."""
        label = None
        if self._expert is not None:
            label = np.asarray(self._expert.act(observation, privileged), np.float32)
        action = label if self.by_expert and label is not None else self._by_hand()
        return Decision(action, label, np.array([self.by_expert]))

    def _by_hand(self) -> FloatArray:
        values = [*self.command.move, 1.0 if self.closed else -1.0]
        return np.array([values[: self._width]], np.float32)
