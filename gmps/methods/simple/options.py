"""Options of the simplest methods. One episode is a step: what is tried next depends on it."""

from __future__ import annotations

from dataclasses import dataclass

from demokit.options import option
from gmps.options import CloningOptions, DemoOptions, RunOptions

SEARCHES = ("best-of-k", "mean", "cem", "bayes")


@dataclass(frozen=True, kw_only=True)
class ReplayOptions(DemoOptions, RunOptions):
    """Of replaying demonstrations."""

    iterations: int = option(1, "Nothing is learned: one says all.")
    rollouts_per_task: int = option(
        1, "K, episodes of a step, each another demonstration.", at_most=10_000
    )


@dataclass(frozen=True, kw_only=True)
class OracleOptions(CloningOptions):
    """Of imitation that is told the context."""

    rollouts_per_task: int = option(
        1, "K, episodes of a step, which teach it nothing.", at_most=10_000
    )


@dataclass(frozen=True, kw_only=True)
class SearchOptions(CloningOptions):
    """Of imitation that is told the context, and looks for that of a new task."""

    search: str = option(
        "bayes",
        "How to look for it, among what the training tasks span. best-of-k: their contexts, the "
        "one that was paid best; mean: the same, and the mean of those weighed by what they were "
        "paid; cem: the cross-entropy method; bayes: a Gaussian process and expected improvement.",
        SEARCHES,
    )
    rollouts_per_task: int = option(
        1, "K, episodes of a step, each under another context.", at_most=10_000
    )
