"""Learning to adapt (Nagabandi et al., 2019): planning, and a model that is to be adapted.

It is trained to predict what comes next after it has adapted to what came last.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from demokit.errors import DemokitError
from demokit.learning.checkpoint import check_state
from demokit.learning.optimizer import optimizer_tensors, restore_optimizer
from demokit.random import torch_stream
from gmps.distributed import Part
from gmps.experience.actor import Seen
from gmps.experience.rollouts import Rollouts
from gmps.experience.transitions import Transitions
from gmps.method import Iteration
from gmps.methods.model_based.learner import ModelBased, load, nominal, start
from gmps.methods.model_based.model import AdaptiveModel, Units
from gmps.methods.model_based.options import ModelBasedOptions
from gmps.policies.meta_params import MetaParams, section
from gmps.problem import Training

__all__ = ["load", "start", "train"]

_EPISODES = "episodes."
_JUDGED = 256
"""Windows of the newest episodes that say how well it predicts."""


class Episodes(NamedTuple):
    """All episodes so far, (N, T, ...).

    `observation` (N, T, F), `action` (N, T, A), `reward` and `alive` (N, T).
    """

    observation: Tensor
    action: Tensor
    reward: Tensor
    alive: Tensor

    @classmethod
    def of(cls, rollouts: Rollouts, part: Part) -> Episodes:
        """Those of all processes."""
        seen = rollouts.observation
        assert isinstance(seen, Tensor)
        alive = rollouts.alive.to(seen.dtype)
        every = seen, rollouts.action.clamp(-1, 1), rollouts.reward, alive
        return cls(*(part.gathered(values).flatten(0, 1) for values in every))

    @property
    def num(self) -> int:
        """N."""
        return len(self.reward)

    def with_new(self, new: Episodes) -> Episodes:
        """And more."""
        return Episodes(*(torch.cat(both) for both in zip(self, new, strict=True)))

    def transitions(self, rows: Tensor, steps: Tensor) -> Transitions:
        """Of episodes (B,) at steps (B, N); those outside have no weight."""
        inside = (steps >= 0) & (steps < self.reward.shape[1] - 1)
        rows, at = rows[:, None], steps.clamp(0, max(0, self.reward.shape[1] - 2))
        return Transitions(
            self.observation[rows, at],
            self.action[rows, at],
            self.observation[rows, at + 1],
            self.reward[rows, at],
            self.alive[rows, at] * inside,
        )

    def windows(self, num: int, length: int, rng: torch.Generator) -> tuple[Transitions, ...]:
        """The last transitions before `num` steps that are drawn, and the next ones: (B, N, ...).

        The first steps of an episode have fewer before them, or none. Every step that is drawn was
        alive: all are as likely.
        """
        counts = self.alive[:, :-1].sum(1)
        chances = torch.rand(num, generator=rng, dtype=torch.float64).to(counts.device)
        ends = counts.cumsum(0)
        drawn = (chances * ends[-1]).long()
        rows = torch.searchsorted(ends, drawn, right=True)
        starts = (drawn - (ends - counts)[rows].long())[:, None]
        span = torch.arange(length, device=starts.device)
        before, after = starts - length + span, starts + span
        return self.transitions(rows, before), self.transitions(rows, after)

    def units(self) -> Units:
        """Of all transitions; raises DemokitError where there is none."""
        rows = torch.arange(self.num, device=self.reward.device)
        steps = torch.arange(self.reward.shape[1] - 1, device=self.reward.device)
        every = self.transitions(rows, steps.expand(self.num, -1))
        kept = Transitions(*(values[every.weight > 0] for values in every))
        if not len(kept.weight):
            raise DemokitError("Every episode ended with its first step: nothing can be modelled.")
        return Units.of(kept)


class Uniform(NamedTuple):
    """Actions that are all as likely in [-1, 1], like `like` (M, K, A)."""

    like: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """See `ActionDistribution`."""
        return torch.erf(noise / 2**0.5)

    def log_prob(self, action: Tensor) -> Tensor:
        """See `ActionDistribution`."""
        return action.new_full(action.shape[:-1], -action.shape[-1] * float(np.log(2)))


class RandomActor:
    """Acts at random: what the first model is learned from."""

    memory = None

    def __call__(self, memory: None, seen: Seen) -> tuple[Uniform, None]:
        """See `Actor`."""
        return Uniform(seen.action), None


def train(
    training: Training[ModelBasedOptions],
    learner: ModelBased,
    state: Mapping[str, Tensor],
    first: int,
) -> Generator[Iteration]:
    """Gather by planning, then learn from everything so far, an iteration at a time."""
    options = training.options
    training = nominal(training) if options.nominal else training
    meta = learner.meta.learnable(step_sizes=options.learn_inner_lr)
    optimizer = torch.optim.Adam(meta.leaves(), lr=options.outer_lr)
    episodes = _restored(training, optimizer, state)
    for iteration in range(first, options.iterations):
        rng = training.stream("iteration", iteration)
        chosen = training.some_tasks(rng, options.meta_batch)
        with training.sampler_of(chosen, explore=options.rollouts_per_task) as sampler:
            rngs, belief = sampler.streams(rng), learner.begin(sampler.num_tasks)
            planner = learner.explorer(belief, 0, sampler.explore, rngs)
            gathered = sampler(planner if iteration else RandomActor(), rngs).explored
        new = Episodes.of(gathered.rollouts, sampler.part)
        draws = torch_stream(options.seed, "windows", iteration)
        scalars = _predicted(learner, new, draws)
        episodes = episodes.with_new(new) if episodes else new
        model = learner.model.with_units(episodes.units())
        scalars["loss"] = _learn(model, meta, optimizer, episodes, options, draws)
        meta.require_finite(iteration)
        learner = learner.with_model(model, meta.frozen())
        scalars["return_training"] = float(new.reward.sum(1).mean())
        kept = {f"{_EPISODES}{name}": value for name, value in episodes._asdict().items()}
        yield Iteration(
            learner, scalars, sampler.num_steps, {**optimizer_tensors(optimizer), **kept}
        )


def window_loss(
    model: AdaptiveModel, meta: MetaParams, before: Transitions, after: Transitions
) -> Tensor:
    """The error on what comes next, after adapting to what came last.

    Source: Eq. 3 of Nagabandi et al., 2019.
    """
    return model.error(model.adapted(meta, before, learning=True), after).mean()


def _learn(
    model: AdaptiveModel,
    meta: MetaParams,
    optimizer: torch.optim.Adam,
    episodes: Episodes,
    options: ModelBasedOptions,
    rng: torch.Generator,
) -> float:
    """Steps of Adam, in place; returns the mean loss of the last tenth of them."""
    losses = []
    for _ in range(options.steps):
        optimizer.zero_grad()
        drawn = episodes.windows(options.windows, options.window, rng)
        loss = window_loss(model, meta, *drawn)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(meta.leaves(), options.max_grad_norm)
        optimizer.step()
        losses.append(loss.detach())
    return float(torch.stack(losses[-max(1, options.steps // 10) :]).mean())


@torch.no_grad()
def _predicted(learner: ModelBased, new: Episodes, rng: torch.Generator) -> dict[str, float]:
    """How wrong it is about episodes that it has not learned from, before and after adapting."""
    before, after = new.windows(_JUDGED, learner.window, rng)
    model, meta = learner.model, learner.meta
    adapted = model.error(model.adapted(meta, before), after)
    nothing = before._replace(weight=torch.zeros_like(before.weight))
    prior = model.error(model.adapted(meta, nothing), after)
    return {"error_before": float(prior.mean()), "error_after": float(adapted.mean())}


def _restored(
    training: Training[ModelBasedOptions], optimizer: torch.optim.Adam, state: Mapping[str, Tensor]
) -> Episodes | None:
    """The episodes so far, none before the first; the optimiser's state is put back in place."""
    kept = section(state, _EPISODES)
    restore_optimizer(optimizer, {n: v for n, v in state.items() if not n.startswith(_EPISODES)})
    if not kept:
        return None
    schema, reward = training.problem.schema, kept.get("reward", torch.zeros(0, 0))
    num = len(reward), schema.horizon
    widths = {"observation": (schema.width,), "action": (len(schema.actions),)}
    check_state(kept, lambda: {n: torch.zeros(*num, *widths.get(n, ())) for n in Episodes._fields})
    device = training.device
    return Episodes(**{name: value.to(device) for name, value in kept.items()})
