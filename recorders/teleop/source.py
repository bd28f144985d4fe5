"""Who acts: the person, or the expert once it took over; each step says which."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from demokit.envs.family import Family
from demokit.errors import DemokitError
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


class HandSource:
    """An action source for one simulation, driven by commands.

    The labels are the expert's, whoever acts: assisted demonstrations are DAgger's data with a
    person in the loop.

    Attributes:
        command: what the person wants now.
        closed: whether the gripper is to be closed, where there is one.
        by_expert: whether the expert acts.

    Raises:
        DemokitError: the family's actions are no motion of a hand.
    """

    name = "teleop"

    def __init__(self, family: Family, expert: Expert) -> None:
        check_hand(family)
        self._expert = expert
        self._width = len(family.actions)
        self.rest()

    @property
    def has_gripper(self) -> bool:
        """Whether one of the actions opens and closes the gripper."""
        return self._width > GRIPPER_INDEX

    def rest(self) -> None:
        """As an episode begins: nobody moves, the gripper is open, the person acts."""
        self.command = Command()
        self.closed = self.by_expert = False

    def decide(self, observation: FloatArray, privileged: Mapping[str, Array]) -> Decision:
        """The action (1, A) of whoever acts, and the expert's (1, A)."""
        label = np.asarray(self._expert.act(observation, privileged), np.float32)
        action = label if self.by_expert else self._by_hand()
        return Decision(action, label, np.array([self.by_expert]))

    def _by_hand(self) -> FloatArray:
        values = [*self.command.move, 1.0 if self.closed else -1.0]
        return np.array([values[: self._width]], np.float32)
