"""Task families, and the batches, Gymnasium faces and task sets made of them."""

from __future__ import annotations

from functools import cache
from importlib import import_module

from demokit.envs.family import Family
from demokit.errors import unknown_name

# A new family is one new file and one line here; it is imported when it is asked for.
_FAMILIES = {
    "point": "demokit.envs.point:Point",
    "push": "demokit.envs.push:Push",
    "door": "demokit.envs.door:Door",
    "pick-place": "demokit.envs.pick_place:PickPlace",
    "ant": "demokit.envs.ant:Ant",
    "ant-dir": "demokit.envs.ant_dir:AntDir",
    "cheetah-vel": "demokit.envs.cheetah_vel:CheetahVel",
    "cheetah-dir": "demokit.envs.cheetah_dir:CheetahDir",
    "point-corner": "demokit.envs.point_corner:PointCorner",
}


def family_names() -> tuple[str, ...]:
    """Names of the families, in the order of the documentation."""
    return tuple(_FAMILIES)


@cache
def make_family(name: str) -> Family:
    """The family of that name; raises DemokitError with a suggestion when there is none."""
    if name not in _FAMILIES:
        raise unknown_name("environment", name, family_names())
    module, _, attribute = _FAMILIES[name].partition(":")
    family: Family = getattr(import_module(module), attribute)()
    return family
