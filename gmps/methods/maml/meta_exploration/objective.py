"""What the three networks learn by: what adaptation comes to, and what each step did for it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from demokit.learning.distributions import Gaussian
from demokit.learning.networks import Params
from gmps.experience.demos import DemoBatch
from gmps.methods.maml.meta_exploration.networks import ORIGIN, Networks, Shown
from gmps.methods.maml.meta_exploration.options import ADVANTAGE, DICE
from gmps.methods.maml.objective import SAMPLES_AT_ONCE
from gmps.policies.meta_params import MetaParams
from gmps.steps.advantage import Advantage
from gmps.steps.dice import dice, step_costs
from gmps.steps.inner import InnerBatch
from gmps.steps.losses import behaviour_cloning
from gmps.steps.ppo import clipped_surrogate


class Goal(Protocol):
    """What adapted policies are to do in M tasks: a named tuple of tensors (M, ...), constants."""

    @property
    def observation(self) -> Tensor:
        """States as features (M, ..., O)."""
        ...

    def loss(self, dist: Gaussian) -> Tensor:
        """L of the policies in these states, a mean over the tasks."""
        ...


class Paid(NamedTuple):
    """To be paid more than the policies that sampled `seen`, by PPO's surrogate."""

    seen: InnerBatch
    clip: float

    @property
    def observation(self) -> Tensor:
        """See `Goal`."""
        assert isinstance(self.seen.observation, Tensor)
        return self.seen.observation

    def loss(self, dist: Gaussian) -> Tensor:
        """See `Goal`."""
        seen = self.seen
        log_prob = dist.log_prob(seen.action)
        return clipped_surrogate(log_prob, seen.behaviour_log_prob, seen.advantage, self.clip)


class Imitated(NamedTuple):
    """To do what each task's expert did: the meta-objective of GMPS, Eq. 2."""

    demos: DemoBatch
    kind: str

    @property
    def observation(self) -> Tensor:
        """See `Goal`."""
        assert isinstance(self.demos.observation, Tensor)
        return self.demos.observation

    def loss(self, dist: Gaussian) -> Tensor:
        """See `Goal`."""
        return behaviour_cloning(dist, self.demos.action, self.demos.weight, kind=self.kind)


class Losses(NamedTuple):
    """Means over tasks: of pi's goal, of mu's credit, and of mu's imitation of all experts."""

    exploiting: Tensor
    exploring: Tensor
    imitating: Tensor


class Batch(NamedTuple):
    """What an outer step is made from, of M tasks.

    Attributes:
        shown: what the inner step sees of the roll-outs of mu.
        log_prob: log mu of their actions when they were sampled, (M, K, T).
        alive: (M, K, T) bool.
        goal: of the adapted policies.
        paid: R, what adapted policies were paid in units of how the tasks differ, (M,).
        experts: whom mu imitates, if anybody.
    """

    shown: Shown
    log_prob: Tensor
    alive: Tensor
    goal: Goal
    paid: Tensor
    experts: Imitated | None = None

    def parts(self) -> Iterator[Batch]:
        """Some tasks at a time."""
        num_tasks = len(self.alive)
        samples = max(self.alive[0].numel(), self.goal.observation[0][..., 0].numel())
        at_once = max(1, SAMPLES_AT_ONCE[self.alive.device.type] // samples)
        for first in range(0, num_tasks, at_once):
            yield rows(self, slice(first, first + at_once))


def rows(batch: Any, chosen: slice | Tensor) -> Any:
    """Some tasks of named tuples of tensors (M, ...), in one another; constants stay."""
    if isinstance(batch, Tensor):
        return batch[chosen]
    if isinstance(batch, tuple):
        return type(batch)(*(rows(part, chosen) for part in batch))
    return batch


@dataclass(frozen=True, eq=False)
class Objective:
    r"""$L(z'_i)$, a mean over tasks i, and what mu loses by; z'_i is computed anew from theta.

    Pi, M and the latent before adaptation learn by the derivative of L through the inner step
    (Algorithm 1, line 9). Mu has sampled what that step is made of: its derivative is DiCE's,

    $$ \sum_t \nabla \log \mu(a_t|s_t) \sum_{t' \ge t} c_{t'},
       c_t = - w_t \langle \partial L / \partial z', \partial l_t / \partial z \rangle $$

    as it stands with the credit "dice". With "advantage" -c is a reward like any other: its
    discounted returns over a baseline, standardised in each task, in PPO's surrogate; with "e-maml"
    every step of a task is credited with what its adapted policies were paid.

    Attributes:
        networks: the pure functions.
        alpha: the inner step size.
        credit: which of these.
        advantage: the estimator, of the credit "advantage".
        clip: of ratios, see `clipped_surrogate`.
        explorer_weight: of mu's imitation of the experts.
    """

    networks: Networks
    alpha: float
    credit: str
    advantage: Advantage
    clip: float
    explorer_weight: float = 0.0

    def backward(self, meta: MetaParams, batch: Batch) -> Losses:
        """Add the gradient to the leaves; returns the losses."""
        total = torch.zeros(len(Losses._fields), device=batch.alive.device)
        for part in batch.parts():
            losses = self.losses(meta.theta, part)
            share = len(part.alive) / len(batch.alive)
            exploiting, exploring, imitating = losses
            whole = exploiting + exploring + self.explorer_weight * imitating
            (share * whole).backward()  # type: ignore[no-untyped-call]
            total += share * torch.stack(losses).detach()
        return Losses(*total)

    def losses(self, params: Params, batch: Batch) -> Losses:
        """Of some tasks; parameters or the latents among them require gradients."""
        networks, goal, experts = self.networks, batch.goal, batch.experts
        latents = networks.adapted(params, self.alpha, batch.shown)
        exploiting = goal.loss(networks.exploiting(params, latents, goal.observation))
        (slope,) = torch.autograd.grad(exploiting, latents, retain_graph=True)
        log_prob = networks.exploring(params, batch.shown.observation).log_prob(batch.shown.action)
        exploring = self._exploring(log_prob, self.costs(params, slope, batch.shown), batch)
        imitating = exploring.new_zeros(())
        if experts is not None and self.explorer_weight:
            imitating = experts.loss(networks.exploring(params, experts.observation))
        return Losses(exploiting, exploring, imitating)

    @torch.no_grad()
    def costs(self, params: Params, slope: Tensor, shown: Shown) -> Tensor:
        """The c (M, K, T), of the derivatives of L by z' (M, Z)."""
        constants = {name: value.detach() for name, value in params.items()}
        latents = constants[ORIGIN].repeat(len(slope), 1)

        def losses(at: Tensor) -> Tensor:
            return self.networks.losses(constants, at, shown)

        return step_costs(losses, latents, slope, self.alpha * shown.weight)

    def _exploring(self, log_prob: Tensor, costs: Tensor, batch: Batch) -> Tensor:
        """What mu loses by, from log mu (M, K, T) as it is now."""
        old = batch.log_prob
        if self.credit == DICE:
            return (dice(log_prob, old) * costs).sum()
        if self.credit == ADVANTAGE:
            gained = self._advantages(costs, batch)
        else:
            gained = batch.paid[:, None, None].expand_as(costs)
        weight = batch.shown.weight * batch.alive[0].numel()  # in a mean over all steps
        return clipped_surrogate(log_prob, old, gained * weight, self.clip)

    def _advantages(self, costs: Tensor, batch: Batch) -> Tensor:
        """Of rewards -c, first brought to a size where nothing else is large beside them."""
        size = costs.abs().amax((1, 2), keepdim=True)
        reward = -costs / torch.where(size > 0, size, 1.0)
        given = batch.shown.observation, reward, batch.alive
        found: Tensor = torch.func.vmap(self.advantage)(*given)
        return found
