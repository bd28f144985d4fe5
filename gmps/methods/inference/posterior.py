"""Which task is it? The posterior over codes, given all that was seen of it so far."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from gmps.experience.transitions import Transitions
from gmps.methods.inference.models import Ensemble
from gmps.methods.inference.policy import Imitation, Shown

CANDIDATES = 240
NEAR_TRAINED = 48  # of the candidates lie around training tasks
PRIOR_STD = 1.5  # wider than the training tasks: a new one may lie outside
PARTICLES = 8
_LR = 0.12
NEAR = 0.1  # of them
_MOST_STEPS = 64  # that are looked at, evenly over all
_AT_ONCE = 4  # tasks whose codes move uphill
_ROWS_AT_ONCE = 2048  # steps under candidates: what is computed of them stays in the cache


class Evidence(NamedTuple):
    """All that was seen of T tasks: transitions (T, N, ...), and demonstrated steps (T, D, ...)."""

    met: Transitions
    shown: Shown

    @property
    def is_nothing(self) -> bool:
        """Whether nothing was seen."""
        return not self.met.weight.shape[1] and not self.shown.weight.shape[1]

    def thinned(self) -> Evidence:
        """So many steps of each that they can be looked at, weighing as much as all."""
        return Evidence(_thinned(self.met), _thinned(self.shown))

    def map(self, change: Callable[[Tensor], Tensor]) -> Evidence:
        """The same with all tensors changed."""
        met, shown = self
        return Evidence(Transitions(*map(change, met)), Shown(*map(change, shown)))

    def split(self, num: int) -> list[Evidence]:
        """Of so many tasks each."""
        met, shown = ([torch.split(v, num) for v in part] for part in self)
        return [
            Evidence(Transitions(*own), Shown(*its))
            for own, its in zip(zip(*met, strict=True), zip(*shown, strict=True), strict=True)
        ]


@dataclass(frozen=True, eq=False)
class Likelihood:
    """What was learned of tasks, asked the other way round.

    Attributes:
        rewards, changes: the models of rewards and of changes of state.
        imitation: the policy as a model of who demonstrates.
        temper: weight of a step.
        ascent: steps uphill of the codes that move, for every two dimensions.
    """

    rewards: Ensemble
    changes: Ensemble
    imitation: Imitation
    temper: float
    ascent: int

    def __call__(self, seen: Evidence, codes: Tensor) -> Tensor:
        """Log-likelihood (T, C) of codes (T, C, R)."""
        found = codes.new_zeros(codes.shape[:2])
        if seen.met.weight.shape[1]:
            weight = self.temper * seen.met.weight
            found = found + self.rewards.log_likelihood(*seen.met.paid(), codes, weight)
            found = found + self.changes.log_likelihood(*seen.met.moved(), codes, weight)
        if seen.shown.weight.shape[1]:
            weight = self.temper * seen.shown.weight
            found = found + self.imitation.log_likelihood(seen.shown, codes, weight)
        return found


class Posterior(NamedTuple):
    """Codes (T, C, R) and how likely they are: log-likelihood (T, C), and under the prior."""

    codes: Tensor
    log_likelihood: Tensor
    log_prior: Tensor

    @property
    def best(self) -> Tensor:
        """The most likely codes (T, R)."""
        likely = (self.log_likelihood + self.log_prior).argmax(1)
        return self.codes[torch.arange(len(likely)), likely]


def log_prior(codes: Tensor) -> Tensor:
    """Of codes (..., R)."""
    return -0.5 * (codes / PRIOR_STD).square().sum(-1)


def infer(likelihood: Likelihood, seen: Evidence, candidates: Tensor, gumbel: Tensor) -> Posterior:
    """Candidates (T, C, R), and the best of them moved uphill.

    Half of those that move are the most likely ones, half are drawn by `gumbel` noise (T, C), so
    that more than one explanation is followed.
    """
    several = (torch.split(values, _AT_ONCE) for values in (candidates, gumbel))
    parts = zip(seen.thinned().split(_AT_ONCE), *several, strict=True)
    found = [_inferred(likelihood, *part) for part in parts]
    return Posterior(*(torch.cat(values) for values in zip(*found, strict=True)))


def _inferred(
    likelihood: Likelihood, seen: Evidence, candidates: Tensor, gumbel: Tensor
) -> Posterior:
    """Of a few tasks."""
    with torch.no_grad():
        found = _scored(likelihood, seen, candidates)
    prior = log_prior(candidates)
    chosen = _chosen(found + prior, gumbel)
    moved = candidates.gather(1, chosen[..., None].expand(-1, -1, candidates.shape[-1]))
    moved = _uphill(likelihood, seen, moved)
    with torch.no_grad():
        again = likelihood(seen, moved)
    return Posterior(
        torch.cat((moved, candidates), 1),
        torch.cat((again, found), 1),
        torch.cat((log_prior(moved), prior), 1),
    )


def _scored(likelihood: Likelihood, seen: Evidence, codes: Tensor) -> Tensor:
    """Log-likelihood (T, C) of codes (T, C, R), so few at once that it is fast."""
    num = max(1, _ROWS_AT_ONCE // max(1, seen.met.weight.shape[1], seen.shown.weight.shape[1]))
    parts = zip(seen.split(1), torch.split(codes, 1), strict=True)
    found = [[likelihood(own, some) for some in torch.split(its, num, 1)] for own, its in parts]
    return torch.cat([torch.cat(row, 1) for row in found])


def _chosen(log_posterior: Tensor, gumbel: Tensor) -> Tensor:
    """Candidates that shall move (T, P)."""
    half = PARTICLES // 2
    top = log_posterior.topk(half, 1).indices
    drawn = (log_posterior + gumbel).topk(PARTICLES - half, 1).indices
    return torch.cat((top, drawn), 1)


def _uphill(likelihood: Likelihood, seen: Evidence, codes: Tensor) -> Tensor:
    """Codes after some steps of Adam on the log-posterior: the farther, the more dimensions."""
    codes = codes.clone().requires_grad_()
    optimizer = torch.optim.Adam([codes], _LR)
    steps = likelihood.ascent * ceil(codes.shape[-1] / 2)
    with torch.enable_grad():
        for step in range(steps):
            optimizer.param_groups[0]["lr"] = _LR * (1 - step / steps)
            loss = -(likelihood(seen, codes) + log_prior(codes)).sum()
            (codes.grad,) = torch.autograd.grad(loss, [codes])
            optimizer.step()
    return codes.detach()


_Steps = TypeVar("_Steps", Transitions, Shown)


def _thinned(steps: _Steps) -> _Steps:
    """Evenly over all, weighing as much as all."""
    num = steps.weight.shape[1]
    if num <= _MOST_STEPS:
        return steps
    rows = torch.linspace(0, num - 1, _MOST_STEPS).round().long()
    thin = type(steps)(*(values[:, rows] for values in steps))
    scale = steps.weight.sum(1, keepdim=True) / thin.weight.sum(1, keepdim=True).clamp_min(1)
    return thin._replace(weight=thin.weight * scale)
