"""Drawing without repetition, as long as there is something new."""

import numpy as np
from numpy.typing import NDArray


def rarest(times: NDArray[np.int64], rng: np.random.Generator) -> int:
    """One of those with the smallest count, at random."""
    return int(rng.choice(np.flatnonzero(times == times.min())))
