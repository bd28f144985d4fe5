"""What MAML, E-MAML and ProMP descend on, as a function of theta through the inner steps.

The roll-outs stay as they were sampled; adaptation is computed anew for every theta.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from demokit.learning.distributions import Gaussian
from demokit.learning.networks import Params
from gmps.distributed import Part
from gmps.experience.observation import each
from gmps.experience.rollouts import Rollouts
from gmps.methods.maml.options import Form
from gmps.policies.gaussian import LATENT
from gmps.steps.inner import InnerBatch, InnerStep
from gmps.steps.losses import mean_weights, policy_gradient
from gmps.steps.ppo import clipped_surrogate
from gmps.steps.trust_region import (
    Judged,
    Product,
    Region,
    Taken,
    kl_product,
    mean_kl,
    trust_region_step,
)

# A few tasks at a time: their activations stay in a CPU's cache, and memory is bounded.
SAMPLES_AT_ONCE = {"cpu": 16_000, "cuda": 1_000_000}
# Of so many such parts a step keeps the graphs of its KL products; those of others are made anew
# for every product, which takes longer and no more memory.
_KEPT = 16


class Stage(NamedTuple):
    """The roll-outs of M tasks after some inner steps.

    Attributes:
        seen: samples (M, S, ...); advantages carry the weights.
        weight: (M, S), see `mean_weights`.
    """

    seen: InnerBatch
    weight: Tensor

    @classmethod
    def of(cls, rollouts: Rollouts, seen: InnerBatch) -> Stage:
        """Of roll-outs, and of what an inner step sees of them."""
        return cls(seen, mean_weights(rollouts.alive.flatten(1, 2)).to(seen.advantage.dtype))

    def rows(self, chosen: slice) -> Stage:
        """Of some of the tasks."""
        rows = each(lambda values: values[chosen], self.seen.observation)
        rest = (values[chosen] for values in self.seen[1:])
        return Stage(InnerBatch(rows, *rest), self.weight[chosen])


@dataclass(frozen=True, eq=False)
class MetaSurrogate:
    r"""A mean over M tasks of the outer loss of the policies adapted to them, and what is added.

    $L = mean_i [ L_{out}(\phi_i) - \lambda R_i\, mean \log \pi_\theta(a^0)
    + \eta\, mean_j KL(\pi_{old}^j \| \pi_{\phi_i^j}) ]$, where $\phi_i^0 = \theta$ and j counts the
    inner steps. The second term is E-MAML's (as Rothfuss et al. have it, of what theta itself did),
    the third ProMP's; see `Form`.

    Attributes:
        form: which of these.
        inner: the inner step.
        step_sizes: its alpha.
        stages: what was sampled before each inner step, and behind the last one.
        paid: R, what the adapted policies are paid, in units of how the tasks differ, (M,).
        old: the policies that sampled the stages.
        contexts: of the tasks (M, C), standardised, of a policy that is told them; else None.
    """

    form: Form
    inner: InnerStep
    step_sizes: Params
    stages: tuple[Stage, ...]
    paid: Tensor
    old: tuple[Gaussian, ...]
    contexts: Tensor | None = None

    @classmethod
    def at(
        cls,
        theta: Params,
        form: Form,
        inner: InnerStep,
        step_sizes: Params,
        stages: tuple[Stage, ...],
        paid: Tensor,
        contexts: Tensor | None = None,
    ) -> MetaSurrogate:
        """Of roll-outs that theta, and what was adapted from it, have sampled."""
        fresh = cls(form, inner, step_sizes, stages, paid, (), contexts)
        with torch.no_grad():
            return replace(fresh, old=tuple(fresh.policies(theta)))

    def loss(self, theta: Params) -> Tensor:
        """L."""
        *before, adapted = self._in_loss(theta)
        return self._outer(adapted) + self._before(before)

    def judged(self, theta: Params) -> Judged:
        """L, and the mean KL of the adapted policies."""
        *before, adapted = self._in_loss(theta)
        kl = mean_kl(self.old[-1], adapted, self.stages[-1].weight)
        return Judged(self._outer(adapted) + self._before(before), kl, self._drift(before))

    def kl_product(self, theta: Params) -> Product:
        """With the Hessian of that KL, where theta is what has sampled."""

        def adapted(at: Params) -> Gaussian:
            return self.policies(at, adapted_alone=True)[-1]

        return kl_product(adapted, theta, self.stages[-1].weight)

    def policies(self, theta: Params, *, adapted_alone: bool = False) -> list[Gaussian]:
        """Those of all stages or the last, each at the states that it has visited, (M, S, A)."""
        dist, step = self.inner.policy.dist, self.inner
        first, *later = self.stages
        found = [] if adapted_alone and later else [self._unadapted(theta, first)]
        phi, axis = theta, None
        for before, after in zip(self.stages, later, strict=False):
            phi = torch.func.vmap(step, in_dims=(axis, None, 0))(phi, self.step_sizes, before.seen)
            axis = 0
            if adapted_alone and after is not later[-1]:
                continue
            own = torch.func.vmap(dist)(phi, after.seen.observation)
            found.append(own._replace(std=own.std[:, None]))
        return found

    def _in_loss(self, theta: Params) -> list[Gaussian]:
        return self.policies(theta, adapted_alone=not self.form.looks_before)

    def _unadapted(self, theta: Params, first: Stage) -> Gaussian:
        policy, seen = self.inner.policy, first.seen.observation
        if self.contexts is None:
            found = policy.dist(theta, seen)
        else:
            found = policy.dist_under(theta, theta[LATENT] + self.contexts, seen)
        return found._replace(std=found.std.expand(len(first.weight), 1, -1))

    def _outer(self, adapted: Gaussian) -> Tensor:
        seen, form = self.stages[-1].seen, self.form
        log_prob = adapted.log_prob(seen.action)
        if not form.outer_ratio:
            return policy_gradient(log_prob, seen.advantage)
        return clipped_surrogate(log_prob, seen.behaviour_log_prob, seen.advantage, form.clip)

    def _before(self, policies: list[Gaussian]) -> Tensor:
        """What is added: of the policies that sampled before each inner step."""
        total, form = self.paid.new_zeros(()), self.form
        if form.exploration:
            first = self.stages[0]
            credit = first.weight * self.paid[:, None]
            likely = policy_gradient(policies[0].log_prob(first.seen.action), credit)
            total = total + form.exploration * likely
        if form.kl_weights:
            weights = self.paid.new_tensor(form.kl_weights)
            total = total + (weights * self._drift(policies)).mean()
        return total

    def _drift(self, policies: list[Gaussian]) -> Tensor:
        """The KLs (J,) of the policies before each inner step, where they have weights."""
        if not self.form.kl_weights:
            return self.paid.new_zeros(0)
        stages = zip(self.old, policies, self.stages, strict=False)
        return torch.stack([mean_kl(old, new, stage.weight) for old, new, stage in stages])


class Surrogate(Protocol):
    """A loss, a mean over some tasks, of parameters that a trust region moves."""

    def loss(self, theta: Params) -> Tensor:
        """The loss."""
        ...

    def judged(self, theta: Params) -> Judged:
        """The loss, and the mean KL of the adapted policies."""
        ...

    def kl_product(self, theta: Params) -> Product:
        """With the Hessian of that KL, where theta is what has sampled."""
        ...


@dataclass(frozen=True, eq=False)
class OverTasks:
    """The same over all tasks, some at a time, and over all processes.

    Attributes:
        surrogates: of some tasks each.
        shares: of these tasks in all of this process.
        part: the tasks of this process.
    """

    surrogates: tuple[Surrogate, ...]
    shares: tuple[float, ...]
    part: Part

    @classmethod
    def of(cls, make: Callable[[slice], Surrogate], weight: Tensor, part: Part) -> OverTasks:
        """`make` makes that of some of this process's tasks, of samples with weights (M, S)."""
        num_tasks, num_samples = weight.shape
        at_once = max(1, SAMPLES_AT_ONCE[weight.device.type] // num_samples)
        chosen = [slice(i, i + at_once) for i in range(0, num_tasks, at_once)]
        shares = tuple(len(weight[own]) / num_tasks for own in chosen)
        return cls(tuple(make(own) for own in chosen), shares, part)

    def step(self, theta: Params, region: Region) -> Taken:
        """The trust region's, from theta, which has sampled."""
        gradient, product = self.gradient(theta), self.kl_product(theta)
        return trust_region_step(theta, gradient, product, self.judged, region)

    def gradient(self, theta: Params) -> Params:
        """Of L."""
        return self._mean(torch.func.grad(each.loss)(theta) for each in self.surrogates)

    @torch.no_grad()
    def judged(self, theta: Params) -> Judged:
        """L and the KL of the adapted policies."""
        return Judged(**self._mean(each.judged(theta)._asdict() for each in self.surrogates))

    def kl_product(self, theta: Params) -> Product:
        """See `MetaSurrogate.kl_product`."""
        kept = [each.kl_product(theta) for each in self.surrogates[:_KEPT]]

        def product(vector: Params) -> Params:
            others = (each.kl_product(theta) for each in self.surrogates[_KEPT:])
            return self._mean(own(vector) for own in chain(kept, others))

        return product

    def _mean(self, values: Iterator[Params]) -> Params:
        total: Params = {}
        for share, found in zip(self.shares, values, strict=True):
            for name, value in found.items():
                total[name] = total[name] + share * value if name in total else share * value
        return self.part.mean(total)
