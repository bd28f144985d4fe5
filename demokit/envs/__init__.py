"""Task families, and the batches, Gymnasium faces and task sets made of them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

from demokit.envs.family import ContextSpace, Family
from demokit.errors import DemokitError, unknown_name

if TYPE_CHECKING:
    from gymnasium.spaces import Box

    from demokit.envs.own import OwnFamily, Tell

GYM = "gym:"
TASKS = "task_space"
"""Where a class says the distribution of its tasks, as `from_gymnasium` takes it."""

# A new family is one new file and one line here; it is imported when it is asked for.
_FAMILIES = {
    "point": "demokit.envs.point:Point",
    "push": "demokit.envs.push:Push",
    "door": "demokit.envs.door:Door",
    "pick-place": "demokit.envs.pick_place:PickPlace",
    "ant": "demokit.envs.ant:Ant",
    "ant-dir": "demokit.envs.ant_dir:AntDir",
    "ant-dir-promp": "demokit.envs.ant_dir_promp:AntDirProMP",
    "ant-goal": "demokit.envs.ant_goal:AntGoal",
    "cheetah-vel": "demokit.envs.cheetah_vel:CheetahVel",
    "cheetah-dir": "demokit.envs.cheetah_dir:CheetahDir",
    "point-corner": "demokit.envs.point_corner:PointCorner",
    "point-rotated": "demokit.envs.point_rotated:PointRotated",
    "point-coded": "demokit.envs.point_coded:PointCoded",
    "point-squared": "demokit.envs.point_squared:PointSquared",
    "point-corner-2m": "demokit.envs.point_corner_2m:PointCorner2m",
    "cheetah-dir-100": "demokit.envs.cheetah_dir_100:CheetahDir100",
    "cheetah-crippled": "demokit.envs.cheetah_crippled:CheetahCrippled",
    "sliders": "demokit.envs.sliders:Sliders",
    "arm-torque": "demokit.envs.arm_torque:ArmTorque",
    "push-rotated": "demokit.envs.push_rotated:PushRotated",
}


# What this process was told in Python, or by a name that a person typed.
_registered: dict[str, Family] = {}


def family_names() -> tuple[str, ...]:
    """Names of the families, in the order of the documentation; then those of other packages."""
    return (*installed_names(), *sorted({family.name for family in _registered.values()}))


def installed_names() -> tuple[str, ...]:
    """Those of `family_names` that every process here knows."""
    return (*_FAMILIES, *sorted(set(_foreign()) - set(_FAMILIES)))


def from_gymnasium(
    name: str,
    make: str | Callable[..., Any],
    tasks: Box | ContextSpace,
    *,
    horizon: int | None = None,
    tell: Tell = "reset",
    vectorized: str = "sync",
) -> OwnFamily:
    """A Gymnasium environment of your own as a family: recorded, meta-trained and evaluated.

    It needs no MuJoCo. Its environments step one after another, slower than families that step on
    all cores. In this process, and nowhere else, files
    that name the family mean this one. Another one of the same name takes its place.

    Args:
        name: of the family, letters, digits and `-`, `_`, `.`; what datasets of it state.
        make: the class, or a function that makes an environment, or its id in Gymnasium. It
            observes one vector, takes one vector with bounds, which stand at -1 and 1, and says in
            its info under "is_success" or "success" whether the task is solved.
        tasks: the distribution of the tasks: uniform in a Box (C,), or a `ContextSpace`.
        horizon: T, the most steps of an episode; by default that of the id.
        tell: how an environment learns its task, an array (C,): "reset" calls
            `reset(options={"task": task})`, "constructor" makes one by `make(task)` for each
            episode, and a function is called with environment and task before each reset.
        vectorized: "sync", or "async" for a process of each environment, which pays where a step
            takes milliseconds.

    Raises:
        DemokitError: what it observes or takes does not fit, or it fails when it is tried.
    """
    from demokit.envs.own import OwnFamily  # it simulates

    _require_free(name)
    family = OwnFamily(name, make, tasks, horizon=horizon, tell=tell, vectorized=vectorized)
    _register(family)
    return family


def _register(family: Family) -> None:
    _require_free(family.name)
    _registered[family.name] = family
    make_family.cache_clear()


def _require_free(name: object) -> None:
    if _is_installed(name):
        raise DemokitError(f"'{name}' is the name of an installed family: choose another one.")


def _is_installed(name: object) -> bool:
    return name in installed_names() or str(name).startswith(GYM)


def is_known(name: str) -> bool:
    """Whether a family of that name can be made here, or is Gymnasium's to make."""
    return name.startswith(GYM) or name in family_names()


@cache
def make_family(name: str) -> Family:
    """The family of that name, whoever names it: a file of a stranger may.

    So only what is installed is imported, and no module because the name holds it: `gym:ID` adapts
    an environment that is registered with Gymnasium, `gym:MODULE:ID` one that MODULE has
    registered, where it is imported already; a family of a person's own is known once they have
    made it (`from_gymnasium`) or typed it. See `family_named_by_user`.

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
    if name in _registered:
        return _registered[name]
    raise _unknown(name)


def family_named_by_user(name: str) -> Family:
    """The family of a name that a person typed: it imports MODULE, which is code.

    That is so of `gym:MODULE:ID`, of an environment that MODULE registers, and of `MODULE:NAME`,
    a class of environments there that states its `task_space`, or a family.

    Never give it a name that comes from a file; that is what `make_family` is for.

    Raises:
        DemokitError: as `make_family`, or the module cannot be imported.
    """
    if name.startswith(GYM):
        module = _gym_module(name)
        if module:
            import_for_user(module)
    elif ":" in name and name not in _registered:
        return _named(name)
    return make_family(name)


def given_family(given: str | Family) -> Family:
    """A family, or that of a name, as a person's program gives it: its name means it from here on.

    Raises:
        DemokitError: as `family_named_by_user`; it is no sound family, or its name is that of an
            installed one that it is not.
    """
    if isinstance(given, str):
        return family_named_by_user(given)
    if _is_installed(given.name) and type(make_family(given.name)) is type(given):
        return given
    if _registered.get(given.name) is not given:
        from demokit.envs.check import check_family  # it simulates

        _require_free(given.name)
        check_family(given)
        _register(given)
    return given


def import_for_user(module: str) -> None:
    """Import a module that a person named, or make the family of `MODULE:NAME`.

    Raises:
        DemokitError: that fails.
    """
    if ":" in module:
        family_named_by_user(module)
        return
    try:
        _import_here(module)
    except Exception as error:  # code of others raises anything
        raise DemokitError(
            f"The module '{module}' cannot be imported ({type(error).__name__}: {error})."
        ) from error


def _import_here(module: str) -> Any:
    """Import a module, which may lie in the working folder."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        here = os.getcwd()
        if error.name != module.partition(".")[0] or here in sys.path:
            raise
        sys.path.append(here)  # and it stays there: modules import others, and processes them
        try:
            return import_module(module)
        except BaseException:
            sys.path.remove(here)
            raise


def _named(name: str) -> Family:
    """The family of `MODULE:NAME`, which a person typed."""
    module, _, attribute = name.partition(":")
    import_for_user(module)
    found = getattr(sys.modules[module], attribute, None)
    if found is None:
        raise DemokitError(f"The module '{module}' has no '{attribute}': check its name.")
    family = _as_family(name, found)
    _register(family)
    _registered[name] = family  # who typed it so may do it again
    return family


def _as_family(name: str, found: Any) -> Family:
    """What somebody's code gives as a family: one, what makes one, or a class of environments."""
    import gymnasium

    if isinstance(found, type) and issubclass(found, gymnasium.Env):
        from demokit.envs.own import OwnFamily

        if not hasattr(found, TASKS):
            raise DemokitError(
                f"'{name}' does not say its tasks: give the class {TASKS} = Box(low, high, (C,)), "
                "or name what demokit.envs.from_gymnasium gives."
            )
        return OwnFamily(
            name, found, getattr(found, TASKS), horizon=getattr(found, "horizon", None)
        )
    try:
        family = found if isinstance(found, Family) else found()
    except DemokitError:
        raise
    except Exception as error:  # code of others raises anything
        raise DemokitError(f"The environment '{name}' cannot be loaded: {error}") from error
    if not isinstance(family, Family):
        raise DemokitError(f"'{name}' is neither a family nor a gymnasium.Env: name one.")
    from demokit.envs.check import check_family  # it simulates

    check_family(family)
    return family


def _unknown(name: str) -> DemokitError:
    """The error for a name that means nothing here; perhaps somebody else's."""
    if ":" in name:
        return DemokitError(
            f"The environment '{name}' is somebody's own, and nothing is imported because a file "
            f"names it. If you trust it: demokit --import {name} COMMAND ..."
        )
    said = unknown_name("environment", name, family_names())
    return DemokitError(f"{said} Where a module of yours makes it: demokit --import MODULE.")


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
        found = point.load()
    except Exception as error:
        raise DemokitError(f"The environment '{point.name}' cannot be loaded: {error}") from error
    family = _as_family(point.name, found)
    if not isinstance(family, Family) or getattr(family, "name", None) != point.name:
        raise DemokitError(
            f"The entry point '{point.name}' of demokit.envs must name a Family of that name."
        )
    return family
