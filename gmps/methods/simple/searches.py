"""Ways to look for the best of a box of contexts, one task at a time: pure functions.

`propose(tried, num, rng)` gives contexts (num, C) to be tried next, `recommend(tried)` the one (C,)
to act under, once something was tried. The box is what the training tasks' contexts span.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gmps.methods.simple.turns import rarest
from gmps.steps.gaussian_process import GaussianProcess, expected_improvement

_TEMPERATURE = 0.25  # of the weighted mean, in standard deviations of what was paid
_POPULATION, _ELITES = 5, 3
_NARROWEST = 0.25  # of the training contexts' deviation
_CANDIDATES = 1024


class Tried(NamedTuple):
    """Contexts (n, C) that were tried on a task, and what they were paid (n,).

    `space` (N, C) are the contexts of the training tasks; all are standardised.
    """

    space: Tensor
    context: Tensor
    paid: Tensor


class Search(NamedTuple):
    """See the module."""

    propose: Callable[[Tried, int, np.random.Generator], Tensor]
    recommend: Callable[[Tried], Tensor]


def contexts_of_tasks(tried: Tried, num: int, rng: np.random.Generator) -> Tensor:
    """Training tasks' contexts, in random order, none again before all were tried."""
    times = (tried.context[:, None] == tried.space).all(-1).sum(0).numpy()
    chosen = []
    for _ in range(num):
        chosen.append(rarest(times, rng))
        times[chosen[-1]] += 1
    return tried.space[chosen]


def best_paid(tried: Tried) -> Tensor:
    """The context that was paid best."""
    return tried.context[tried.paid.argmax()]


def weighted_mean(tried: Tried) -> Tensor:
    """The mean of contexts, weighed by exp(return / temperature), the returns standardised."""
    spread = tried.paid.std(correction=0)
    standard = (tried.paid - tried.paid.mean()) / (spread + 1e-6)
    return (standard / _TEMPERATURE).softmax(0) @ tried.context


def by_cross_entropy(tried: Tried, num: int, rng: np.random.Generator) -> Tensor:
    """Draws from a Gaussian around the best of all whole generations, a generation of five.

    The first lies as the training tasks do. Source: Rubinstein and Kroese, 2004.
    """
    space, whole = tried.space, len(tried.paid) // _POPULATION * _POPULATION
    around = space
    if whole:
        around = tried.context[tried.paid[:whole].topk(_ELITES).indices]
    narrowest = _NARROWEST * space.std(0, correction=0)
    deviation = around.std(0, correction=0).maximum(narrowest)
    noise = torch.from_numpy(rng.standard_normal((num, space.shape[1]), np.float32))
    return (around.mean(0) + deviation * noise).clamp(space.amin(0), space.amax(0))


def by_improvement(tried: Tried, num: int, _rng: np.random.Generator) -> Tensor:
    """Where a Gaussian process expects the largest improvement; the mean context at first.

    Of several at once each believes that those before it were paid what the process expects of them
    (Ginsbourger et al., 2010).
    """
    candidates, proposed = _candidates(tried.space), []
    for _ in range(num):
        if len(tried.paid):
            process = GaussianProcess.fit(tried.context, tried.paid)
            best = expected_improvement(process.predict(candidates), tried.paid.max()).argmax()
            context, believed = candidates[best], process.predict(candidates[best][None]).mean
        else:
            context, believed = tried.space.mean(0), tried.paid.new_zeros(1)
        proposed.append(context)
        tried = Tried(
            tried.space,
            torch.cat((tried.context, context[None])),
            torch.cat((tried.paid, believed)),
        )
    return torch.stack(proposed)


def best_expected(tried: Tried) -> Tensor:
    """The best of what was tried, and of all candidates, as a Gaussian process expects it."""
    candidates = torch.cat((tried.context, _candidates(tried.space)))
    process = GaussianProcess.fit(tried.context, tried.paid)
    return candidates[process.predict(candidates).mean.argmax()]


def _candidates(space: Tensor) -> Tensor:
    """Contexts (C, ...) that fill the box evenly, and those of the training tasks."""
    engine: Any = torch.quasirandom.SobolEngine
    unit = engine(space.shape[1]).draw(_CANDIDATES)
    low, high = space.amin(0), space.amax(0)
    return torch.cat((space, low + (high - low) * unit))


SEARCH_BY_NAME = {
    "best-of-k": Search(contexts_of_tasks, best_paid),
    "mean": Search(contexts_of_tasks, weighted_mean),
    "cem": Search(by_cross_entropy, best_paid),
    "bayes": Search(by_improvement, best_expected),
}
