"""The checkpoint of a run: what was learned, and everything needed to go on bit for bit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from demokit.envs import make_family
from demokit.envs.recorded import RecordedFamily, Shapes
from demokit.envs.schema import Schema
from demokit.envs.vision import Vision
from demokit.errors import DemokitError
from demokit.learning.checkpoint import (
    explain_content,
    parse_checkpoint,
    read_checkpoint,
    save_checkpoint,
)
from demokit.policies import CHECKPOINT
from demokit.random import stream
from demokit.reading import MALFORMED
from demokit.types import Task
from gmps.beliefs import belief_of, tensors_of
from gmps.experience.actor import Seen
from gmps.experience.observation import each
from gmps.experience.sight import Sight
from gmps.method import IsTold, MetaLearner, Method, find_method
from gmps.options import RunOptions
from gmps.policies.meta_params import section
from gmps.problem import Problem, Spent
from gmps.runs.older import KIND as OLDER
from gmps.runs.older import belief_tensors, modernised, still_asked
from gmps.runs.stopping import Best

KIND = "meta-learner"
_LEARNER, _BEST, _STATE, _BELIEF = "learner.", "best.", "state.", "belief."


@dataclass(frozen=True, eq=False)
class Adapted:
    """What a learner has come to know of one task.

    Attributes:
        belief: about it, M = 1.
        steps: adaptation steps that led there.
        episodes: that these have taken.
        context: of the task, for a learner that is told it; else None.
    """

    belief: Any
    steps: int
    episodes: int
    context: tuple[float, ...] | None = None

    @classmethod
    def begun(cls, learner: MetaLearner, context: tuple[float, ...] | None) -> Adapted:
        """What it believes of a task that nobody has met."""
        fresh = cls(None, 0, 0, context)
        return replace(fresh, belief=fresh.told(learner).begin(1))

    def told(self, learner: MetaLearner) -> MetaLearner:
        """The learner, told the task if it is one that is told."""
        if self.context is None or not isinstance(learner, IsTold):
            return learner
        return learner.told(torch.tensor([self.context]))


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
        adapted: what is known of one task, where the learner was adapted to one and kept so.
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
    adapted: Adapted | None = None

    def to(self, device: torch.device) -> Trained:
        """The same on a device."""
        best = self.best and self.best._replace(learner=self.best.learner.to(device))
        return replace(self, learner=self.learner.to(device), best=best)


def save(path: Path, trained: Trained, state: Mapping[str, Tensor], advice: str = "") -> None:
    """Write a checkpoint; `state`, of the method's training, comes back from `load`.

    `advice` says what to do when it cannot be written, where no training writes it.
    """
    best, known = trained.best, trained.adapted
    kept = best.learner.tensors() if best else {}
    tensors = {
        **_named(_LEARNER, trained.learner.tensors()),
        **_named(_BEST, {n: value.clone() for n, value in kept.items()}),  # no memory is shared
        **_named(_STATE, state),
        **(_named(_BELIEF, tensors_of(known.belief)) if known else {}),
    }
    problem = trained.problem
    header = {
        "kind": KIND,
        "method": trained.method,
        "options": asdict(trained.options),
        "schema": asdict(problem.schema),
        "recorded": problem.recorded and asdict(problem.recorded),
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
    if known:
        told = {"steps": known.steps, "episodes": known.episodes, "context": known.context}
        header["adapted"] = told
    save_checkpoint(path, tensors, header, advice)


def load(
    path: Path, *, adapted: bool = False, options: RunOptions | None = None
) -> tuple[Trained, dict[str, Tensor]]:
    """Read a run folder or a checkpoint file: what was learned, and the training's state.

    Args:
        path: of the folder or file.
        adapted: whether a policy that was adapted to one task will do, and a family that nothing
            here simulates.
        options: those that a training goes on with, in place of its own.

    Raises:
        DemokitError: no checkpoint, a damaged one, one of a method that is not installed, or of
            another physics.
    """
    path = _file(path)
    return _parsed(path, read_checkpoint(path), adapted, options)


def load_with_digest(path: Path) -> tuple[Trained, str]:
    """What was learned, see `load`, and SHA-256 of the very bytes that say so, in hexadecimal."""
    path = _file(path)
    data = read_checkpoint(path)
    return _parsed(path, data)[0], sha256(data).hexdigest()


def _file(path: Path) -> Path:
    return path / CHECKPOINT if path.is_dir() else path


def _parsed(
    path: Path, data: bytes, adapted: bool = False, options: RunOptions | None = None
) -> tuple[Trained, dict[str, Tensor]]:
    tensors, header = parse_checkpoint(path, data)
    if header.get("kind") not in (KIND, OLDER):
        raise DemokitError(f"{path} is a checkpoint of '{header.get('kind')}', not of meta-train.")
    with explain_content(path):
        if header["kind"] == OLDER:
            tensors, header = modernised(tensors, header)
        trained = _from_parts(path, tensors, header, options)
    if trained.adapted and not adapted:
        raise DemokitError(
            f"{path} is a policy that was adapted to one task, which demokit.load_policy reads: "
            "name the run that it came from."
        )
    if not adapted:
        _require_family(path, trained.problem)
    return trained, section(tensors, _STATE)


def _from_parts(
    path: Path, tensors: dict[str, Tensor], header: dict[str, Any], options: RunOptions | None
) -> Trained:
    method = _method(path, str(header["method"]))
    options = options or method.options(**still_asked(str(header["method"]), header["options"]))
    problem = _problem(header)

    def learner(prefix: str, own: dict[str, Any]) -> MetaLearner:
        return method.code.load(problem, options, section(tensors, prefix), own)

    best = None
    if "best" in header:
        held = header["best"]
        own = learner(_BEST, held["learner"])
        best = Best(own, float(held["score"]), int(held["waited"]))
    whole, known = learner(_LEARNER, header["learner"]), None
    if "adapted" in header:
        known = _adapted(whole, problem, section(tensors, _BELIEF), header["adapted"])
    return Trained(
        str(header["method"]),
        options,
        problem,
        whole,
        Spent.of(header["spent"]),
        int(header["iteration"]),
        bool(header["finished"]),
        best,
        str(header["demos"]),
        str(header.get("expert", "")),
        known,
    )


def _adapted(
    learner: MetaLearner, problem: Problem, tensors: dict[str, Tensor], told: dict[str, Any]
) -> Adapted:
    """What is known of a task; raises as `explain_content` expects unless one can act by it."""
    context = told["context"] and tuple(map(float, told["context"]))
    known = problem.tasks[0].context if isinstance(learner, IsTold) else ()
    if len(context or ()) != len(known) or not all(map(isfinite, context or ())):
        raise ValueError("the context that it was told is none of its tasks'")
    begun = Adapted.begun(learner, context)
    steps, episodes = int(told["steps"]), int(told["episodes"])
    if not 0 <= steps <= episodes:
        raise ValueError(f"{steps} steps of {episodes} episodes")
    belief = belief_of(belief_tensors(tensors, begun.belief, episodes), begun.belief)
    adapted = replace(begun, belief=belief, steps=steps, episodes=episodes)
    _act_once(adapted, learner, problem)
    return adapted


def require_acts(known: Adapted, learner: MetaLearner, problem: Problem) -> None:
    """Raise DemokitError for what a file may not hold, as `load` would refuse it."""
    try:
        belief_of(tensors_of(known.belief), known.belief)
        _act_once(known, learner, problem)
    except MALFORMED as error:
        raise DemokitError(
            f"This policy has diverged ({error}): it is not saved, adapt again."
        ) from None


@torch.no_grad()
def _act_once(known: Adapted, learner: MetaLearner, problem: Problem) -> None:
    """Explore and exploit a moment: a belief may have the right shape and lead nowhere."""
    learner = known.told(learner)
    zeros = Sight.of(problem.schema, problem.sees).zeros()
    action = torch.zeros(1, 1, len(problem.schema.actions))
    alive = torch.ones(1, 1, dtype=torch.bool)
    seen = Seen(0, each(lambda v: v[None], zeros), action, action[..., 0], alive)
    explorer = learner.explorer(known.belief, known.steps, 1, [stream(0, "trial")])
    for actor in (explorer, learner.exploiter(known.belief, 1)):
        done = actor(actor.memory, seen)[0].sample(action)
        if done.shape != action.shape or not bool(done.isfinite().all()):
            raise ValueError("its belief leads to no action")


def _problem(header: Mapping[str, Any]) -> Problem:
    images = header["vision"]
    sees = Vision(**{**images, "cameras": tuple(images["cameras"])}) if images else "state"
    tasks = (Task(**{**task, "context": tuple(task["context"])}) for task in header["tasks"])
    shapes = header.get("recorded")
    recorded = Shapes(**shapes) if shapes else None
    schema = _schema(header, recorded)
    return Problem(schema, str(header["reward"]), sees, tuple(tasks), recorded)


def _schema(header: Mapping[str, Any], recorded: Shapes | None) -> Schema:
    """What a run keeps of its family; once that was a name and a hash."""
    if "schema" in header:
        return Schema.of(header["schema"])
    name = str(header["family"])
    family = RecordedFamily(name, recorded) if recorded else make_family(name)
    return replace(family.schema, model_hash=str(header["model_hash"]))


def _require_family(path: Path, problem: Problem) -> None:
    """Raise DemokitError unless the family is here, as it was."""
    try:
        _ = problem.family
    except DemokitError as error:
        raise DemokitError(f"{path}: {error}") from None


def _method(path: Path, name: str) -> Method:
    try:
        return find_method(name)
    except DemokitError as error:
        raise DemokitError(f"{path} is of a method that is not installed here. {error}") from None


def _named(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}{name}": value for name, value in tensors.items()}
