"""Trained policies by the names of their files; whoever trains them says how they are loaded."""

from __future__ import annotations

from importlib.metadata import entry_points
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from demokit.errors import DemokitError

if TYPE_CHECKING:
    from demokit.protocols import Agent

GROUP, KIND = "demokit.policies", "meta-learner"
CHECKPOINT = "checkpoint.safetensors"
"""Its name in the folder of a training."""


def load_policy(path: str | PathLike[str]) -> Agent:
    """A trained policy: the run folder of any method, its checkpoint, or what `Agent.save` wrote.

    Nothing in the file is executed or imported. The policy computes on the CPU.

    Examples:
        >>> agent = demokit.load_policy("runs/push-gmps-0")
        >>> action = agent.act(observation)

    Args:
        path: of the folder or file.

    Raises:
        DemokitError: there is no such thing, it is damaged, or of a method that is not installed.
    """
    for entry in entry_points(group=GROUP, name=KIND):
        agent: Agent = entry.load()(Path(path))
        return agent
    raise DemokitError(f"Nothing is installed that loads policies: no {KIND} of {GROUP}.")
