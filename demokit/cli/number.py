"""The type of options that are numbers."""

from __future__ import annotations

import math
from typing import Any

import click


class Number(click.FloatRange):
    """A float within a range, such as `click.FloatRange` takes; NaN and infinity are none."""

    name = "number"

    def _describe_range(self) -> str:
        """For help; without bounds nothing, where click would say "x<=None"."""
        return "" if self.min is None and self.max is None else super()._describe_range()

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """The number; fails with a sentence that names the option."""
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number
