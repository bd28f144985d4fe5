"""What a person says of a source that does not say it itself."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, fields

import numpy as np

from demokit.data.metadata import ActionRange
from demokit.errors import DemokitError

DROP = "drop"
LAST_OBSERVATION = ("repeat", DROP)


@dataclass(frozen=True)
class Stated:
    """Fields are options of `demokit convert`; columns are those of a table, or arrays by name.

    Attributes:
        observation_columns, action_columns: what is observed, and the actions.
        reward_column, success_column: a reward per step; whether the task was solved.
        episode_column: what tells the episodes of a table apart.
        task_column: the task's name.
        context_columns: the numbers that describe the task.
        action_low, action_high: what stands at -1 and 1, per component or one for all.
        last_observation: of T observations of T actions, "repeat" the last one, or "drop" the
            last action.
    """

    observation_columns: tuple[str, ...] = ()
    action_columns: tuple[str, ...] = ()
    reward_column: str | None = None
    success_column: str | None = None
    episode_column: str | None = None
    task_column: str | None = None
    context_columns: tuple[str, ...] = ()
    action_low: tuple[float, ...] = ()
    action_high: tuple[float, ...] = ()
    last_observation: str | None = None

    def __post_init__(self) -> None:
        """Check that a range has both ends; raises DemokitError."""
        if bool(self.action_low) != bool(self.action_high):
            raise DemokitError("The action range has one end: state its low and its high.")
        if self.last_observation not in (None, *LAST_OBSERVATION):
            raise DemokitError(
                f"The last observation is '{self.last_observation}': it is one of "
                f"{', '.join(LAST_OBSERVATION)}."
            )

    @property
    def action_range(self) -> ActionRange | None:
        """The range of the actions; None when nobody stated it."""
        if not self.action_low:
            return None
        return ActionRange(np.array(self.action_low), np.array(self.action_high))

    def require_used(self, used: Collection[str], why: str) -> None:
        """Raise DemokitError for a field, other than those used, that would have no effect."""
        for field in fields(self):
            if field.name not in used and getattr(self, field.name) != field.default:
                option = f"--{field.name.replace('_', '-')}"
                raise DemokitError(f"{option} means nothing {why}: leave it out.")
