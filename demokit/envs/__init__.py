"""Task families, and the batches, Gymnasium faces and task sets made of them."""

from __future__ import annotations

import sys
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points

from demokit.envs.family import Family
from demokit.errors import DemokitError, unknown_name

GYM = "gym:"

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
    "point-rotated": "demokit.envs.point_rotated:PointRotated",
    "point-coded": "demokit.envs.point_coded:PointCoded",
    "point-squared": "demokit.envs.point_squared:PointSquared",
    "point-corner-2m": "demokit.envs.point_corner_2m:PointCorner2m",
    "cheetah-dir-100": "demokit.envs.cheetah_dir_100:CheetahDir100",
    "sliders": "demokit.envs.sliders:Sliders",
    "arm-torque": "demokit.envs.arm_torque:ArmTorque",
    "push-rotated": "demokit.envs.push_rotated:PushRotated",
}


def family_names() -> tuple[str, ...]:
    """Names of the families, in the order of the documentation; then those of other packages."""
    return (*_FAMILIES, *sorted(set(_foreign()) - set(_FAMILIES)))


def is_known(name: str) -> bool:
    """Whether a family of that name can be made here, or is Gymnasium's to make."""
    return name.startswith(GYM) or name in family_names()


@cache
def make_family(name: str) -> Family:
    """The family of that name, whoever names it: a file of a stranger may.

    So only what is installed is imported, and no module because the name holds it: `gym:ID` adapts
    an environment that is registered with Gymnasium, `gym:MODULE:ID` one that MODULE has
    registered, where it is imported already. See `family_named_by_user`.

    Raises:
        DemokitError: there is none, with a suggestion; or it cannot be loaded.
    """
    if name.startswith(GYM):
        _require_imported(name)
        from demokit.envs.adapter import GymFamily

        return GymFamily(name)
    if name in _FAMILIES:
        module, _, attribute = _FAMILIES[name].partition(":")
        family: Family = getattr(import_module(module), attribute)()
        return family
    if name in _foreign():
        return _load(_foreign()[name])
    raise unknown_name("environment", name, family_names())


def family_named_by_user(name: str) -> Family:
    """The family of a name that a person typed: `gym:MODULE:ID` imports MODULE, which is code.

    Never give it a name that comes from a file; that is what `make_family` is for.

    Raises:
        DemokitError: as `make_family`, or the module cannot be imported.
    """
    module = _gym_module(name)
    if module:
        import_for_user(module)
    return make_family(name)


def import_for_user(module: str) -> None:
    """Import a module that a person named; raises DemokitError where that fails."""
    try:
        import_module(module)
    except Exception as error:  # code of others raises anything
        raise DemokitError(
            f"The module '{module}' cannot be imported ({type(error).__name__}: {error})."
        ) from error


def _gym_module(name: str) -> str:
    """MODULE of `gym:MODULE:ID`; empty where there is none."""
    return name.removeprefix(GYM).rpartition(":")[0] if name.startswith(GYM) else ""


def _require_imported(name: str) -> None:
    """Raise DemokitError for `gym:MODULE:ID` whose module nobody has imported."""
    module = _gym_module(name)
    if module and module not in sys.modules:
        raise DemokitError(
            f"The environment '{name}' belongs to the module '{module}', and no module is imported "
            f"because a file names it. If you trust it: demokit --import {module} COMMAND ..., or "
            f"in Python import {module}."
        )


@cache
def _foreign() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group="demokit.envs")}


def _load(point: EntryPoint) -> Family:
    """A family of another package, checked.

    Raises:
        DemokitError: it cannot be loaded, or does not define what a family must.
    """
    try:
        family = point.load()()
    except Exception as error:
        raise DemokitError(f"The environment '{point.name}' cannot be loaded: {error}") from error
    from demokit.envs.check import check_family  # it simulates

    if not isinstance(family, Family) or getattr(family, "name", None) != point.name:
        raise DemokitError(
            f"The entry point '{point.name}' of demokit.envs must name a Family of that name."
        )
    check_family(family)
    return family
