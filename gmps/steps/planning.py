"""Model-predictive control: sequences of actions that a model says will earn most.

Random shooting, and the cross-entropy method where there are several rounds (de Boer et al., 2005;
as Nagabandi et al., 2019, use them, "Learning to adapt in dynamic, real-world environments").
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

_LEAST_STD = 1e-3


class Search(NamedTuple):
    """How sequences are sought.

    Attributes:
        candidates: N, sequences of a round.
        horizon: H, their actions.
        rounds: 1 is random shooting; in later ones candidates are drawn around the elites.
        elites: how many of the best candidates the next round is drawn around.
    """

    candidates: int
    horizon: int
    rounds: int
    elites: int


def plan(
    earned: Callable[[Tensor], Tensor],
    search: Search,
    num: int,
    width: int,
    rngs: Sequence[torch.Generator],
) -> Tensor:
    """The best sequences (B, H, A) that were found for B problems, actions in [-1, 1].

    What one finds depends on no other.

    Args:
        earned: returns (B, N) of sequences (B, N, H, A).
        search: how.
        num: B.
        width: A.
        rngs: one of all problems, or of so many in a row each that all have one; problems of one
            have the same random numbers. Where they compute, everything does.
    """
    shape = search.candidates, search.horizon, width

    def drawn(of: Callable[..., Tensor]) -> Tensor:
        own = torch.stack([of(shape, generator=rng, device=rng.device) for rng in rngs])
        return own.repeat_interleave(num // len(rngs), 0)

    found = 2 * drawn(torch.rand) - 1
    value = earned(found)
    best, paid = _best(found, value, 1)
    for _ in range(search.rounds - 1):
        elites, _ = _best(found, value, search.elites)
        mean, std = elites.mean(1, keepdim=True), elites.std(1, keepdim=True, correction=0)
        found = (mean + std.clamp_min(_LEAST_STD) * drawn(torch.randn)).clamp(-1, 1)
        value = earned(found)
        new, more = _best(found, value, 1)
        best = torch.where((more > paid)[..., None, None], new, best)
        paid = torch.maximum(paid, more)
    return best[:, 0]


def _best(found: Tensor, paid: Tensor, num: int) -> tuple[Tensor, Tensor]:
    """The `num` best of sequences (B, N, H, A) and what they earn (B, num)."""
    top = paid.topk(num, dim=1)
    rows = torch.arange(len(paid), device=paid.device)[:, None]
    return found[rows, top.indices], top.values
