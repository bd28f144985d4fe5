"""The checkpoint of a run: what was learned, and everything needed to go on bit for bit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from demokit.envs.vision import Vision
from demokit.errors import DemokitError
from demokit.learning.checkpoint import explain_content, load_checkpoint, save_checkpoint
from demokit.types import Task
from gmps.method import MetaLearner, Method, find_method
from gmps.options import RunOptions
from gmps.policies.meta_params import section
from gmps.problem import Problem, Spent
from gmps.runs.older import KIND as OLDER
from gmps.runs.older import modernised
from gmps.runs.stopping import Best

CHECKPOINT = "checkpoint.safetensors"
KIND = "meta-learner"
_LEARNER, _BEST, _STATE = "learner.", "best.", "state."


@dataclass(frozen=True, eq=False)
class Trained:
    """What a run has come to.

    Attributes:
        method: its name.
        options: the method's.
        problem: what it was trained on.
        learner: what it has learned so far.
        spent: environment steps, by what they were for.
        iteration: how many are done.
        finished: whether training has come to its end, all choices made.
        best: the best learner so far, of training that may stop early.
        demos: `DemoSet.digest` of the demonstrations; empty where there were none, or where an old
            checkpoint does not say.
        expert: name of the expert behind the demonstrations, where there was one.
    """

    method: str
    options: RunOptions
    problem: Problem
    learner: MetaLearner
    spent: Spent = field(default_factory=Spent)
    iteration: int = 0
    finished: bool = False
    best: Best | None = None
    demos: str = ""
    expert: str = ""

    def to(self, device: torch.device) -> Trained:
        """The same on a device."""
        best = self.best and self.best._replace(learner=self.best.learner.to(device))
        return replace(self, learner=self.learner.to(device), best=best)


def save(path: Path, trained: Trained, state: Mapping[str, Tensor]) -> None:
    """Write a checkpoint; `state`, of the method's training, comes back from `load`."""
    best = trained.best
    kept = best.learner.tensors() if best else {}
    tensors = {
        **_named(_LEARNER, trained.learner.tensors()),
        **_named(_BEST, {n: value.clone() for n, value in kept.items()}),  # no memory is shared
        **_named(_STATE, state),
    }
    problem = trained.problem
    header = {
        "kind": KIND,
        "method": trained.method,
        "options": asdict(trained.options),
        "family": problem.family_name,
        "model_hash": problem.family.model_hash,
        "reward": problem.reward,
        "tasks": [asdict(task) for task in problem.tasks],
        "vision": asdict(problem.sees) if isinstance(problem.sees, Vision) else None,
        "learner": trained.learner.header(),
        "spent": asdict(trained.spent),
        "iteration": trained.iteration,
        "finished": trained.finished,
        "demos": trained.demos,
        "expert": trained.expert,
    }
    if best:
        scores = {"score": best.score, "waited": best.waited}
        header["best"] = {**scores, "learner": best.learner.header()}
    save_checkpoint(path, tensors, header)


def load(path: Path) -> tuple[Trained, dict[str, Tensor]]:
    """Read a run folder or a checkpoint file: what was learned, and the training's state.

    Raises:
        DemokitError: no checkpoint, a damaged one, one of a method that is not installed, or of
            another physics.
    """
    path = path / CHECKPOINT if path.is_dir() else path
    tensors, header = load_checkpoint(path)
    if header.get("kind") not in (KIND, OLDER):
        raise DemokitError(f"{path} is a checkpoint of '{header.get('kind')}', not of meta-train.")
    with explain_content(path):
        if header["kind"] == OLDER:
            tensors, header = modernised(tensors, header)
        trained = _from_parts(path, tensors, header)
        problem = trained.problem
        is_same = problem.family.model_hash == header["model_hash"]
    if not is_same:
        raise DemokitError(
            f"{path} was trained on another model of {problem.family_name}: train again."
        )
    return trained, section(tensors, _STATE)


def _from_parts(path: Path, tensors: dict[str, Tensor], header: dict[str, Any]) -> Trained:
    method = _method(path, str(header["method"]))
    options = method.options(**header["options"])
    problem = _problem(header)

    def learner(prefix: str, own: dict[str, Any]) -> MetaLearner:
        return method.code.load(problem, options, section(tensors, prefix), own)

    best = None
    if "best" in header:
        held = header["best"]
        own = learner(_BEST, held["learner"])
        best = Best(own, float(held["score"]), int(held["waited"]))
    return Trained(
        str(header["method"]),
        options,
        problem,
        learner(_LEARNER, header["learner"]),
        Spent.of(header["spent"]),
        int(header["iteration"]),
        bool(header["finished"]),
        best,
        str(header["demos"]),
        str(header.get("expert", "")),
    )


def _problem(header: Mapping[str, Any]) -> Problem:
    images = header["vision"]
    sees = Vision(**{**images, "cameras": tuple(images["cameras"])}) if images else "state"
    tasks = (Task(**{**task, "context": tuple(task["context"])}) for task in header["tasks"])
    return Problem(str(header["family"]), str(header["reward"]), sees, tuple(tasks))


def _method(path: Path, name: str) -> Method:
    try:
        return find_method(name)
    except DemokitError as error:
        raise DemokitError(f"{path} is of a method that is not installed here. {error}") from None


def _named(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}{name}": value for name, value in tensors.items()}
