"""How far a training is, said to whoever shows it."""

from collections.abc import Mapping
from math import isfinite, nan
from typing import Protocol

IMITATION, ITERATIONS, STEP_SIZES = "imitation first", "iterations", "step sizes tried"
DIMENSIONS = "numbers of dimensions tried"


class Report(Protocol):
    """Told a stage of the training, and how much of it is done, of how much in all.

    `note` is what to show beside it from now on; None leaves what is shown.
    """

    def __call__(self, stage: str, done: int, total: int, /, note: str | None = None) -> None:
        """Show it."""
        ...


def unheard(stage: str, done: int, total: int, /, note: str | None = None) -> None:
    """The report of a training that nobody watches."""


def in_words(scalars: Mapping[str, float]) -> str:
    """What the held-out tasks said: after an adaptation step, or before where none was possible.

    Empty where nothing was measured.
    """
    for when in ("after", "before"):
        earned, solved = (scalars.get(f"{what}_{when}", nan) for what in ("return", "success"))
        if isfinite(earned):
            return f"return {earned:.1f}, success {solved:.0%} {when} adaptation"
    return ""
