"""The learner: what it believes of a task are its last transitions, and it plans anew each step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from demokit.errors import DemokitError
from demokit.learning.checkpoint import check_tensors
from demokit.random import torch_stream
from gmps.experience.actor import Certain, Seen
from gmps.experience.rollouts import Rollouts
from gmps.experience.transitions import (
    Transitions,
    flat,
    joined,
    latest,
    met_in,
    newly_met,
    none_met,
    repeated,
)
from gmps.methods.model_based.model import AdaptiveModel, Paid, Units, model_of
from gmps.methods.model_based.options import ModelBasedOptions
from gmps.policies.meta_params import MetaParams, section
from gmps.problem import Problem, Training
from gmps.steps.planning import Search, plan

_UNITS = "units."


class Met(NamedTuple):
    """What is remembered of B simulations: the last transitions, and what was seen last."""

    window: Transitions
    observation: Tensor
    alive: Tensor


class PlanningActor:
    """Plans ahead at every step in a model that has adapted to the last transitions.

    Args:
        learner: the model.
        window: the last transitions (M, N, ...) of M tasks, before the episode.
        num: K, episodes of each.
        seeds: of the candidates that it tries in each of the M tasks; or one of all.
    """

    def __init__(
        self, learner: ModelBased, window: Transitions, num: int, seeds: Sequence[int]
    ) -> None:
        own = repeated(window, num)
        self.memory = Met(own, own.before[:, -1], own.counts[:, -1])
        self._learner, self._seeds = learner, seeds

    def __call__(self, memory: Met, seen: Seen) -> tuple[Certain, Met]:
        """See `Actor`."""
        assert isinstance(seen.observation, Tensor)
        now, window = seen.observation.flatten(0, 1), memory.window
        if seen.t:
            last = newly_met(memory.observation, memory.alive, seen)
            window = latest(joined(window, last), window.weight.shape[1])
        rngs = [torch_stream(s, "candidates", seen.t, device=now.device) for s in self._seeds]
        action = self._learner.planned(window, now, rngs)
        return Certain(action.view(*seen.alive.shape, -1)), Met(window, now, seen.alive.flatten())


@dataclass(frozen=True, eq=False)
class ModelBased:
    """Plans in a model that adapts to what was met last.

    Attributes:
        model: the pure functions.
        meta: their parameters.
        search: how it plans.
        window: N, transitions that it adapts to.
        episodes_per_step: K.
        seed: of the run, and of the candidates that are tried where it is judged.
        paid: the rewards of states that it plans by; None: those that it foresees.
    """

    model: AdaptiveModel
    meta: MetaParams
    search: Search
    window: int
    episodes_per_step: int
    seed: int
    paid: Paid | None = None

    def begin(self, num_tasks: int) -> Transitions:
        """Nothing was met."""
        widths = self.model.state_width, self.model.action_width
        return none_met((num_tasks, self.window), *widths, self.model.units.state_mean.device)

    def explorer(
        self, belief: Transitions, step: int, num: int, rngs: Sequence[np.random.Generator]
    ) -> PlanningActor:
        """The planner: it explores as it acts, but tries other candidates every time."""
        return PlanningActor(self, belief, num, [int(rng.integers(2**63)) for rng in rngs])

    def exploiter(self, belief: Transitions, num: int) -> PlanningActor:
        """The planner."""
        return PlanningActor(self, belief, num, [self.seed])

    def adapt(self, belief: Transitions, step: int, gathered: Rollouts, memory: Met) -> Transitions:
        """The last transitions, of all episodes as if they had come one after the other."""
        return latest(joined(belief, flat(met_in(gathered))), self.window)

    @torch.no_grad()
    def planned(
        self, window: Transitions, state: Tensor, rngs: Sequence[torch.Generator]
    ) -> Tensor:
        """Actions (B, A) in states (B, F) after the last transitions (B, N, ...).

        The same candidates are tried in all simulations of a task.
        """
        network = self.model.adapted(self.meta, window)
        found = plan(
            lambda actions: self.model.earned(network, state, actions, self.paid),
            self.search,
            len(state),
            self.model.action_width,
            rngs,
        )
        return found[:, 0]

    def with_model(self, model: AdaptiveModel, meta: MetaParams) -> Self:
        """With what was learned since."""
        return replace(self, model=model, meta=meta)

    def tensors(self) -> dict[str, Tensor]:
        """See `MetaLearner`."""
        units = {f"{_UNITS}{name}": value for name, value in self.model.units.tensors().items()}
        return {**self.meta.tensors(), **units}

    def header(self) -> dict[str, Any]:
        """See `MetaLearner`."""
        return {}

    def to(self, device: torch.device) -> Self:
        """See `MetaLearner`."""
        model = self.model.with_units(self.model.units.to(device))
        return self.with_model(model, self.meta.to(device))


def start(training: Training[ModelBasedOptions]) -> ModelBased:
    """One that has learned nothing; raises DemokitError where images are seen."""
    training.problem.require_states()
    training.require_batch(training.options.meta_batch)
    if training.options.nominal:
        nominal(training)
    learner = _empty(training.problem, training.options)
    rng = torch_stream(training.options.seed, "theta")
    meta = learner.model.init(rng, training.options.inner_lr)
    return replace(learner, meta=meta).to(training.device)


def nominal(training: Training[ModelBasedOptions]) -> Training[ModelBasedOptions]:
    """The same in the family's nominal dynamics; raises DemokitError where none of it changes."""
    problem = training.problem
    contexts = np.array([task.context for task in problem.tasks])
    found = problem.family.nominal(contexts)
    if (found == contexts).all():
        raise DemokitError(
            f"Option --nominal has no effect: these tasks of {problem.family_name} do not differ "
            "in their dynamics: leave it out."
        )
    pairs = zip(problem.tasks, found.tolist(), strict=True)
    tasks = tuple(replace(task, context=tuple(context)) for task, context in pairs)
    return replace(training, problem=replace(problem, tasks=tasks))


def load(
    problem: Problem,
    options: ModelBasedOptions,
    tensors: Mapping[str, Tensor],
    header: Mapping[str, Any],  # noqa: ARG001
) -> ModelBased:
    """The learner of a checkpoint."""
    check_tensors(tensors, lambda: _empty(problem, options).tensors(), "parameters")
    learner = _empty(problem, options)
    model = learner.model.with_units(Units.of_tensors(section(tensors, _UNITS)))
    return learner.with_model(model, MetaParams.of_tensors(tensors))


def _empty(problem: Problem, options: ModelBasedOptions) -> ModelBased:
    units = Units.fresh(problem.schema.width)
    model = model_of(options, units, len(problem.schema.actions))
    meta = model.init(None, options.inner_lr)
    num, paid = options.rollouts_per_task, _known(problem) if options.known_reward else None
    return ModelBased(model, meta, options.search, options.window, num, options.seed, paid)


def _known(problem: Problem) -> Paid:
    """The family's own rewards; raises DemokitError where they do not follow from what is seen."""
    family, kind = problem.family, problem.reward
    if kind not in family.seen_rewards:
        raise DemokitError(
            f"Option --known-reward: the {kind} reward of {family.name} does not follow from what "
            "is seen and done alone: leave it out."
        )

    def paid(state: Tensor, action: Tensor) -> Tensor:
        reached, done = (values.flatten(0, 1).cpu().numpy() for values in (state, action))
        found = torch.from_numpy(family.seen_reward(kind, reached, done))
        return found.to(state).view(state.shape[:-1])

    return paid
