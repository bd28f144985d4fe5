"""Runs of demokit 0.1, which knew one flat set of options, and of later ones: as they read today.

Its checkpoints, and the facts about runs that an archive holds, stay readable.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

import torch
from torch import Tensor

from demokit.options import is_there
from gmps.beliefs import tensors_of
from gmps.method import find_method
from gmps.policies.meta_params import section

KIND = "gmps"
_RENAMED = {"place_weight": "object_weight"}
_EXPLORING = {("gmps", "latent"): "gmps-latent"}
# By squared errors a policy learns no standard deviation, and these act without noise of it.
_NOTHING = dict.fromkeys(
    ("context-search", "oracle", "task-inference"), ("initial_std", "min_std", "outer_loss")
)
# Acting does without; who adapts on roll-outs of its own alone never bounds their ratio, 1.
_GONE = {"task-inference": ("heat",), "imitation": ("ratio_clip",)}
_WAS = {"task-inference": {"leave_out": True}}  # before it was asked
_STEPS = {"imitation": 100}  # gradient steps of an iteration, where they were counted instead


def options_of(config: Mapping[str, Any], family: str) -> tuple[str, dict[str, Any]]:
    """The method and its options that a flat configuration stands for.

    Options that had no effect are left out.

    Raises:
        KeyError: it is no such configuration.
    """
    method = str(config["method"])
    method = _EXPLORING.get((method, config.get("explore", "")), method)
    given = {_RENAMED.get(name, name): value for name, value in config.items()}
    given["reward"] = _reward(family, str(config["reward"]))
    if method in _STEPS:
        given["iterations"] = -(-int(given["imitation_steps"]) // _STEPS[method])
        given |= {"rollouts_per_task": given["rollouts_per_task"], "eval_every": 10, "patience": 0}
    own = {each.name: each for each in fields(find_method(method).options)}
    kept = {name: value for name, value in given.items() if name in own}
    present = {**dict.fromkeys(own), **kept}
    unneeded = [name for name in kept if not is_there(own[name].metadata["needs"], present)]
    return method, {name: value for name, value in kept.items() if name not in unneeded}


def still_asked(method: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a run: without those that act no more, with what others were before."""
    nothing = _NOTHING.get(method, ()) if options.get("outer_loss") == "squared" else ()
    gone = (*nothing, *_GONE.get(method, ()))
    every = {**_WAS.get(method, {}), **options}
    return {name: value for name, value in every.items() if name not in gone}


def belief_tensors(tensors: Mapping[str, Tensor], like: Any, episodes: int) -> dict[str, Tensor]:
    """The tensors of a belief (M = 1); those of before did not count their episodes."""
    missing = tensors_of(like).keys() - tensors.keys()
    counted = {"episodes": torch.tensor([episodes])} if missing == {"episodes"} else {}
    return {**tensors, **counted}


def _reward(family: str, reward: str) -> str:
    """The name that a reward has today: the Ant's sparse one was the paper's formula."""
    return "sparse-paper" if (family, reward) == ("ant", "sparse") else reward


def modern_facts(content: Mapping[str, Any]) -> dict[str, Any]:
    """What an archive says about an old run, as today's `Facts` by name.

    Raises:
        KeyError, TypeError, ValueError: it says something else.
    """
    method, options = options_of(content["config"], content["family_name"])
    chosen = content["later_lr"]
    learned = {"imitation": 0, "gmps": 1}.get(method)
    steps, experts = int(content["env_steps"]), int(content["expert_steps"])
    return {
        "method": method,
        "options": asdict(find_method(method).options(**options)),
        "family_name": content["family_name"],
        "reward": _reward(content["family_name"], content["reward"]),
        "spent": {"undivided": steps, "experts": {"all": experts} if experts else {}},
        "finished": chosen is not None,
        "episodes_per_step": options["rollouts_per_task"],
        "step_size": chosen if learned is not None else None,
        "ready_steps": learned if chosen is None else None,
        "checkpoint": content["checkpoint"],
        "versions": content["versions"],
        **{name: content.get(name, "") for name in ("tasks", "sees", "demos")},
    }


def modernised(
    tensors: Mapping[str, Tensor], header: Mapping[str, Any]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and header of an old checkpoint as today's.

    Raises:
        KeyError, TypeError, ValueError: it is none.
    """
    method, options = options_of(header["config"], header["family"])
    own = {
        "step_size": header["later_lr"],
        "radial_columns": header["radial_columns"],
        "radial_width": header["radial_width"],
        "segments": header["segments"],
    }
    shared = {n: tensors[n] for n in ("observation_mean", "observation_scale")}
    shared |= {n: tensors[n] for n in ("centers",) if n in tensors}
    renamed = {f"state.{n}": value for n, value in section(tensors, "extra.").items()}
    renamed |= _learner("learner.", "", tensors, shared)
    iteration = -(-int(header["progress"]["iteration"]) // _STEPS.get(method, 1))
    modern = {
        **{name: header[name] for name in ("family", "model_hash", "tasks")},
        "reward": _reward(header["family"], header["reward"]),
        "method": method,
        "options": options,
        "vision": header.get("vision"),
        "learner": own,
        "spent": {"undivided": int(header["env_steps"]), "experts": header.get("experts", {})},
        "iteration": iteration,
        "finished": header["later_lr"] is not None,
        "demos": header.get("demos", ""),
    }
    if "best" in header:
        renamed |= _learner("best.", "best_", tensors, shared)
        modern["best"] = {**header["best"], "learner": own}
    return renamed, modern


def _learner(
    prefix: str, old: str, tensors: Mapping[str, Tensor], shared: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """A learner's tensors under their names of today; the critic stood among theta's."""
    theta = section(tensors, f"{old}theta.")
    alpha = section(tensors, f"{old}alpha.")
    named = {n if n.startswith("critic.") else f"theta.{n}": v for n, v in theta.items()}
    named |= {f"alpha.{n}": value for n, value in alpha.items()}
    return {f"{prefix}{n}": value for n, value in {**named, **shared}.items()}
