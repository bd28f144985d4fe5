"""Check of a family of another package, once, when it is loaded.

What would otherwise end in a traceback somewhere in the middle of a recording, or be recorded
without a word, is one sentence here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

import numpy as np
from mujoco.batch import Batch

from demokit.envs.family import (
    ContextSpace,
    Family,
    Term,
    Terms,
    Views,
    checked_name,
    reward_term,
)
from demokit.envs.vision import is_image
from demokit.errors import DemokitError
from demokit.random import stream
from demokit.types import FloatArray

_ATTRIBUTES = ("horizon", "frame_skip", "terms", "context", "actions", "object_term")
_WHOLE_NUMBERS = {"horizon": 1, "frame_skip": 1, "start_noise_width": 0, "settle_steps": 0}
_TAKEN = ("state", "context", "success", "by_expert", "expert_action")
_PAPER_SPLITS = ("train", "validation")
_NUM_SIMS = 2
_SCENE = "scene"


def check_family(family: Family) -> None:
    """Check what a family defines, and step two simulations of it once.

    Raises:
        DemokitError: something is missing, or does not fit the rest of it.
    """
    checked_name(getattr(family, "name", None))
    _check_attributes(family)
    _check_terms(family)
    _check_context(family)
    if not family.restorable:
        return  # there is no model, and who made it has stepped it
    own_batch = _call(family, "make_sims", _NUM_SIMS) is not None
    _check_model(family, own_batch=own_batch)
    if not own_batch:
        _check_functions(family)


def _refuse(family: Family, what: str) -> NoReturn:
    kind = type(family)
    raise DemokitError(f"Family '{family.name}' ({kind.__module__}.{kind.__qualname__}): {what}.")


def _call(family: Family, function: str, *args: Any) -> Any:
    """What a function of the family returns; raises DemokitError where it fails."""
    try:
        return getattr(family, function)(*args)
    except Exception as error:  # code of others raises anything
        kind = type(family)
        raise DemokitError(
            f"Family '{family.name}' ({kind.__module__}.{kind.__qualname__}): its {function} "
            f"fails with {type(error).__name__}: {error}."
        ) from error


def _check_attributes(family: Family) -> None:
    missing = [name for name in _ATTRIBUTES if not hasattr(family, name)]
    if missing:
        _refuse(family, f"it must define {', '.join(missing)}")
    for name, least in _WHOLE_NUMBERS.items():
        value = getattr(family, name)
        if type(value) is not int or value < least:
            _refuse(family, f"{name} must be a whole number of at least {least}, not {value!r}")
    if not _all(family.actions, str):
        _refuse(family, "actions must be a tuple of strings, one for each action component")
    if not _all(family.terms, Term):
        _refuse(family, "terms must be a tuple of Term")
    if not isinstance(family.context, ContextSpace):
        _refuse(family, "context must be a ContextSpace")


def _all(values: object, kind: type) -> bool:
    """Whether it is a tuple or list, not empty, of values of that kind."""
    return (
        isinstance(values, tuple | list)
        and bool(values)
        and all(isinstance(v, kind) for v in values)
    )


def _check_terms(family: Family) -> None:
    names = [term.name for term in family.terms]
    seen = [term.name for term in family.observation_terms]
    if len(set(names)) < len(names):
        _refuse(family, "two of its terms have the same name")
    taken = [name for name in names if name in _TAKEN or name.startswith(reward_term(""))]
    if taken:
        _refuse(family, f"its term {_listed(taken)} is what demokit adds itself: rename it")
    if not all(type(term.width) is int and term.width > 0 for term in family.terms):
        _refuse(family, "the width of a term must be a whole number of at least 1")
    if not seen:
        _refuse(family, "none of its terms has the group 'observation'")
    if family.object_term not in seen:
        _refuse(
            family,
            f"object_term '{family.object_term}' is none of its observation terms "
            f"({', '.join(seen)})",
        )
    unknown = set(family.vision_terms) - set(names)
    if unknown:
        _refuse(family, f"vision_terms names {_listed(unknown)}, which terms does not have")
    images = [name for name in family.vision_terms if is_image(name)]
    if images:
        _refuse(family, f"its term {_listed(images)} is called as an image is: rename it")


def _check_context(family: Family) -> None:
    """Further distributions have the width of the first, and sizes are of sets that there are."""
    for name, space in family.published.items():
        if not isinstance(space, ContextSpace) or space.width != family.context.width:
            _refuse(family, f"published '{name}' must be a ContextSpace as wide as context")
    dynamics = family.dynamics
    if dynamics is not None and not isinstance(dynamics, ContextSpace):
        _refuse(family, "dynamics must be a ContextSpace, or None")
    if len(family.nominal_dynamics) != (dynamics.width if dynamics else 0):
        _refuse(family, "nominal_dynamics must have a number for each name of dynamics")
    for split, size in family.paper_sizes.items():
        if split not in _PAPER_SPLITS or type(size) is not int or size < 1:
            _refuse(
                family,
                f"paper_sizes has {split!r}: {size!r}, and must say how many tasks "
                f"{_listed(_PAPER_SPLITS)} have",
            )


def _check_model(family: Family, *, own_batch: bool) -> None:
    """The camera for people, and the start state where demokit steps the simulations."""
    try:
        model = family.model
    except Exception as error:  # MuJoCo's compiler, or code of others
        _refuse(family, f"its model does not compile: {' '.join(str(error).split())}")
    cameras = {model.camera(i).name for i in range(model.ncam)} | set(family.viewpoints)
    if _SCENE not in cameras:
        _refuse(
            family,
            f"its model must have a camera named '{_SCENE}', or viewpoints one of that name, to "
            "show it to people",
        )
    if not own_batch and model.nkey < 1:
        _refuse(
            family,
            "its model has no keyframe, and keyframe 0 is the start state: add "
            "<keyframe><key .../></keyframe>",
        )
    sites = {model.site(i).name for i in range(model.nsite)}
    strange = set(_call(family, "goal_marker", _context(family)[0])) - sites
    if strange:
        _refuse(family, f"goal_marker names {_listed(strange)}, which is no site of its model")


def _check_functions(family: Family) -> None:
    """Start, control and read two simulations."""
    sims = Batch(family.model, _NUM_SIMS, 1)
    sims.reset(np.arange(_NUM_SIMS), keyframe=0)
    views = _call(family, "views", sims)
    noise = np.zeros((_NUM_SIMS, family.start_noise_width))
    action = np.zeros((_NUM_SIMS, len(family.actions)))
    for context in (_context(family), family.with_dynamics(_context(family))):
        _call(family, "set_task", sims, np.arange(_NUM_SIMS), context)
    _write(family, views, "start", _call(family, "start", noise))
    sims.forward(np.arange(_NUM_SIMS))
    _write(family, views, "control", _call(family, "control", views, action))
    sims.step(nstep=family.frame_skip)
    _write(family, views, "carry", _call(family, "carry", views))
    terms = _call(family, "read", views)
    _check_read(family, terms)
    _check_outcomes(family, terms, action)


def _write(family: Family, views: Views, function: str, values: Views) -> None:
    """Write what a function returned into the views, where they have it in that shape."""
    _check_mapping(family, function, values)
    for name, rows in values.items():
        if name not in views:
            _refuse(family, f"{function} returns '{name}', but views has {_listed(views)} only")
        try:
            views[name][:] = rows
        except (ValueError, TypeError):
            _refuse(
                family,
                f"{function} returns '{name}' of shape {np.shape(rows)}, but that view has shape "
                f"{views[name].shape}",
            )


def _check_read(family: Family, terms: Terms) -> None:
    _check_mapping(family, "read", terms)
    declared = {term.name: term.width for term in family.terms}
    if set(terms) != set(declared):
        _refuse(family, f"read returns {_listed(terms)}, but terms declares {_listed(declared)}")
    for name, width in declared.items():
        if np.shape(terms[name]) != (_NUM_SIMS, width):
            _refuse(
                family,
                f"read returns '{name}' of shape {np.shape(terms[name])} for {_NUM_SIMS} "
                f"simulations, but its term needs {(_NUM_SIMS, width)}",
            )


def _check_outcomes(family: Family, terms: Terms, action: FloatArray) -> None:
    """Rewards, success and end are one number per simulation."""
    context = _context(family)
    outcomes = {
        **{reward_term(kind): (terms, context, action) for kind in family.rewards},
        "success": (terms, context),
        "terminated": (terms,),
    }
    for function, args in outcomes.items():
        found = np.asarray(_call(family, function, *args))
        if found.shape != (_NUM_SIMS,):
            _refuse(
                family,
                f"{function} returns shape {found.shape} for {_NUM_SIMS} simulations, not "
                f"{(_NUM_SIMS,)}: one value for each",
            )
        paid = function.startswith(reward_term(""))
        if found.dtype.kind not in ("fiub" if paid else "b"):
            wanted = "real numbers" if paid else "booleans"
            _refuse(family, f"{function} returns {found.dtype}, and must return {wanted}")


def _check_mapping(family: Family, function: str, values: object) -> None:
    if not isinstance(values, Mapping):
        _refuse(family, f"{function} must return a dict of arrays, not {type(values).__name__}")


def _context(family: Family) -> FloatArray:
    """Contexts (N, C) of two tasks."""
    return family.context.sample(stream(0, "check"), _NUM_SIMS)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in sorted(names))
