"""How far a training is, said to whoever shows it."""

from collections.abc import Callable

Report = Callable[[str, int, int], None]
"""Called with a stage of the training, and how much of it is done, of how much in all."""

IMITATION, ITERATIONS, STEP_SIZES = "imitation first", "iterations", "step sizes tried"


def unheard(stage: str, done: int, total: int) -> None:
    """The report of a training that nobody watches."""
