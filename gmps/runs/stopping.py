"""Early stopping: training ends when adaptation earns no more on the monitor tasks."""

from __future__ import annotations

import math
from typing import NamedTuple

from gmps.method import MetaLearner


class Best(NamedTuple):
    """What earned most so far.

    `score` is the mean return on the monitor tasks after the last adaptation step that the learner
    can take, before any where it has no step size yet; `waited` counts the evaluations since.
    """

    learner: MetaLearner
    score: float
    waited: int = 0

    @classmethod
    def of(cls, earlier: Best | None, learner: MetaLearner, score: float) -> Best:
        """The better of `earlier` and a learner with its score; NaN is the worst score."""
        score = -math.inf if math.isnan(score) else score
        if earlier is not None and score <= earlier.score:
            return earlier._replace(waited=earlier.waited + 1)
        return cls(learner, score)
