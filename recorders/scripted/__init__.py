"""Scripted experts: one per task family, each a function of the privileged state alone."""

from __future__ import annotations

from importlib import import_module

from demokit.envs import family_names
from demokit.errors import DemokitError, unknown_name
from demokit.protocols import Expert

# Imported when it is asked for, as the families are.
_EXPERTS = {
    "point": "recorders.scripted.point:PointExpert",
    "push": "recorders.scripted.push:PushExpert",
    "door": "recorders.scripted.door:DoorExpert",
    "pick-place": "recorders.scripted.pick_place:PickPlaceExpert",
    "point-corner": "recorders.scripted.point:PointExpert",
    "point-squared": "recorders.scripted.point:PointExpert",
    "point-corner-2m": "recorders.scripted.point:PointCorner2mExpert",
    "point-rotated": "recorders.scripted.point:PointRotatedExpert",
    "point-coded": "recorders.scripted.point:PointCodedExpert",
    "sliders": "recorders.scripted.sliders:SlidersExpert",
    "arm-torque": "recorders.scripted.arm_torque:ArmTorqueExpert",
    "push-rotated": "recorders.scripted.push:PushRotatedExpert",
}


def has_script(family_name: str) -> bool:
    """Whether there is a scripted expert for a family."""
    return family_name in _EXPERTS


def make_scripted(family_name: str) -> Expert:
    """The scripted expert of a family.

    Raises:
        DemokitError: there is no such family, or it has no scripted expert.
    """
    if not has_script(family_name):
        if family_name in family_names() or family_name.startswith("gym:"):
            raise DemokitError(
                f"'{family_name}' has no scripted expert: give --expert a file that train-expert "
                f"wrote, or the name of your own (scripted ones exist for {', '.join(_EXPERTS)})."
            )
        raise unknown_name("environment", family_name, family_names())
    module, _, attribute = _EXPERTS[family_name].partition(":")
    expert: Expert = getattr(import_module(module), attribute)()
    return expert
