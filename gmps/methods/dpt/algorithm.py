"""Pre-training: imitation of the experts of all tasks, given what was met in each."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from math import nan
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from demokit.learning.checkpoint import check_state
from demokit.learning.networks import Params
from demokit.learning.optimizer import optimizer_tensors, restore_optimizer
from gmps.distributed import WHOLE, Part
from gmps.experience.transitions import Transitions, none_met
from gmps.method import Iteration
from gmps.methods.dpt.gathering import Asked, Episodes, Gathering
from gmps.methods.dpt.learner import ContextLearner, load, start
from gmps.methods.dpt.options import DPTOptions
from gmps.methods.dpt.policy import ContextPolicy
from gmps.policies.meta_params import MetaParams, section
from gmps.problem import Training
from gmps.progress import IMITATION
from gmps.steps.losses import mean_weights

__all__ = ["load", "start", "train"]

_PARTS = "met.", "asked."
_ASKED = 0.5  # share of the queries that are states of own roll-outs, where the expert was asked


def train(
    training: Training[DPTOptions], learner: ContextLearner, state: Mapping[str, Tensor], first: int
) -> Generator[Iteration]:
    """Meta-train by imitation, an iteration at a time (Lee et al., 2023, algorithm 1).

    A context is made of episodes of a task, a query is a state, its label what the expert does
    there. Contexts are to look like those that the policy itself will make: from the second
    iteration on its own trials of the training tasks join them.
    """
    options = training.options
    meta = learner.meta.learnable()
    optimizer = torch.optim.AdamW(meta.leaves(), weight_decay=options.weight_decay)
    kept = _restored(training, learner, optimizer, state)
    part = training.part.world.part(options.batch)
    for iteration in range(first, options.iterations):
        rng = training.stream("iteration", iteration)
        gathering, returns = Gathering(training), [nan]
        if iteration == 0:
            kept = gathering.replays(rng)
            learner = learner.with_rewards(kept.met.reward[kept.met.counts])
        else:
            new, returns = gathering.trials(learner, rng)
            kept = kept.and_then(new, options.kept_episodes)
        shown = Shown.of(training, kept.asked)
        for step in range(options.steps):
            done = (iteration + step / options.steps) / options.iterations
            optimizer.param_groups[0]["lr"] = options.outer_lr * (1 - done)
            lesson = drawn(kept.met, shown, rng, options, part)
            loss = _imitate(learner.policy, meta, optimizer, lesson, options.max_grad_norm, part)
            training.report(IMITATION, step + 1, options.steps)
        meta.require_finite(iteration)
        learner = learner.with_meta(meta.frozen())
        scalars = {"loss": loss, "return_first": returns[0], "return_last": returns[-1]}
        state = {**_named(kept), **optimizer_tensors(optimizer)}
        yield Iteration(learner, scalars, gathering.num_steps, state, gathering.experts)


class Shown(NamedTuple):
    """States (M, D, O), what the expert does there (M, D, A), and weights (M, D) of `mean_weights`:
    the first `num` of D were demonstrated, about the others it was asked.
    """

    observation: Tensor
    action: Tensor
    weight: Tensor
    num: int

    @classmethod
    def of(cls, training: Training[DPTOptions], asked: Asked) -> Shown:
        """Of all training tasks."""
        demos = training.demonstrations.all()
        assert isinstance(demos.observation, Tensor)
        seen, action, alive = (values.flatten(1, 2) for values in asked)
        weight = mean_weights(alive) if alive.shape[1] else alive.to(demos.weight.dtype)
        return cls(
            torch.cat((demos.observation, seen), 1),
            torch.cat((demos.action, action), 1),
            torch.cat((demos.weight, weight), 1),
            demos.weight.shape[1],
        )

    def drawn(self, shape: tuple[int, int], rng: np.random.Generator) -> Tensor:
        """Rows of D: of those that were asked about, where there are some, as many as of others."""
        rows, others = rng.integers(self.num, size=shape), self.weight.shape[1] - self.num
        if others:
            asked = self.num + rng.integers(others, size=shape)
            rows = np.where(rng.random(shape) < _ASKED, asked, rows)
        return torch.from_numpy(rows)


class Lesson(NamedTuple):
    """Contexts (B, N, ...), queries (B, Q, O), each behind `place` (B, Q) transitions of its own
    context, labels (B, Q, A), and weights (B, Q) of a mean over them.
    """

    context: Transitions
    seen: Tensor
    place: Tensor
    label: Tensor
    weight: Tensor

    def loss(self, policy: ContextPolicy, theta: Params) -> Tensor:
        """The squared error, summed over actions."""
        action = policy.unroll(theta, self.context, self.seen, self.place)
        return (self.weight * (action - self.label).square().sum(-1)).mean()


def drawn(
    met: Transitions,
    shown: Shown,
    rng: np.random.Generator,
    options: DPTOptions,
    part: Part = WHOLE,
) -> Lesson:
    """A lesson: of B tasks some episodes each, in any order, and states at any places of them."""
    shape = options.batch, options.queries
    num_tasks, episodes, transitions = met.weight.shape
    task = torch.from_numpy(rng.integers(num_tasks, size=(options.batch, 1)))
    chosen = rng.integers(episodes, size=(options.batch, options.context_episodes + 1))
    row = shown.drawn(shape, rng)
    place = torch.from_numpy(rng.integers(chosen.shape[1] * transitions + 1, size=shape))
    own = task[part.own]
    context = Transitions(*(v[own, torch.from_numpy(chosen)[part.own]].flatten(1, 2) for v in met))
    seen, label, weight = (values[own, row[part.own]] for values in shown[:3])
    return Lesson(context, seen, place[part.own].to(seen.device), label, weight)


def _imitate(
    policy: ContextPolicy,
    meta: MetaParams,
    optimizer: torch.optim.Optimizer,
    lesson: Lesson,
    max_grad_norm: float,
    part: Part,
) -> float:
    """A step of the optimiser, in place; returns the loss. The lesson is this process's part."""
    loss = lesson.loss(policy, meta.theta)
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    (mean,) = part.averaged(meta.leaves(), loss.detach()[None])
    torch.nn.utils.clip_grad_norm_(meta.leaves(), max_grad_norm)
    optimizer.step()
    return float(mean)


def _named(episodes: Episodes) -> dict[str, Tensor]:
    """For a checkpoint."""
    parts = zip(_PARTS, (episodes.met._asdict(), episodes.asked._asdict()), strict=True)
    return {f"{name}{n}": value for name, own in parts for n, value in own.items()}


def _restored(
    training: Training[DPTOptions],
    learner: ContextLearner,
    optimizer: torch.optim.Optimizer,
    state: Mapping[str, Tensor],
) -> Episodes:
    """What was gathered so far; the optimiser's own is put back in place.

    Raises DemokitError where a checkpoint does not say it.
    """
    found = {n: value for n, value in state.items() if n.startswith(_PARTS)}
    restore_optimizer(optimizer, {n: value for n, value in state.items() if n not in found})
    num, (met, asked) = len(training.problem.tasks), _PARTS
    rows = (found.get(name, torch.zeros(0)) for name in (f"{met}weight", f"{asked}alive"))
    counts = [row.shape[1] if row.ndim > 1 else 0 for row in rows]
    if not state:
        return _zeros(learner, num, 0, 0)
    check_state(found, lambda: _named(_zeros(learner, num, *counts)))
    return Episodes(Transitions(**section(found, met)), Asked(**section(found, asked)))


def _zeros(learner: ContextLearner, num_tasks: int, met: int, asked: int) -> Episodes:
    """So many episodes of every task, in which nothing happens."""
    widths = len(learner.policy.units.mean), learner.policy.action_width
    state, said = (torch.zeros(num_tasks, asked, learner.horizon, width) for width in widths)
    context = none_met((num_tasks, met, learner.places), *widths)
    return Episodes(context, Asked(state, said, torch.zeros(state.shape[:3]).bool()))
