"""Early stopping: training ends when adaptation earns no more on the training tasks."""

from __future__ import annotations

import math
from typing import NamedTuple

from gmps.methods.gmps.objective import MetaParams


class Best(NamedTuple):
    """The parameters that earned most so far.

    `score` is the mean return on the training tasks after one adaptation step; `waited` counts the
    evaluations since.
    """

    meta: MetaParams
    score: float
    waited: int = 0

    @classmethod
    def of(cls, earlier: Best | None, meta: MetaParams, score: float) -> Best:
        """The better of `earlier` and a copy of `meta` with its score; NaN is the worst score."""
        score = -math.inf if math.isnan(score) else score
        if earlier is not None and score <= earlier.score:
            return earlier._replace(waited=earlier.waited + 1)
        return cls(meta.copied(), score)
