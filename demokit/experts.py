"""Experts by name. Packages offer them through entry points of group `demokit.experts`."""

from __future__ import annotations

from importlib.metadata import entry_points

from demokit.errors import unknown_name
from demokit.protocols import Expert


def expert_names() -> tuple[str, ...]:
    """Names of the kinds of experts that are installed."""
    return tuple(sorted(point.name for point in entry_points(group="demokit.experts")))


def load_expert(name: str, family: str) -> Expert:
    """The expert of that name for a family.

    Raises:
        DemokitError: there is no such expert, or it does not know the family.
    """
    for point in entry_points(group="demokit.experts"):
        if point.name == name:
            expert: Expert = point.load()(family)
            return expert
    raise unknown_name("expert", name, expert_names())
