"""matplotlib's figure for texts from files: they are shown as they are."""

from __future__ import annotations

from matplotlib import figure, rc_context
from matplotlib.backend_bases import RendererBase
from matplotlib.text import Text

from demokit.text import printable


class Figure(figure.Figure):
    """A figure in which "$" begins no formula, which could fail, and nothing unseen is written."""

    def draw(self, renderer: RendererBase) -> None:
        """Draw it."""
        for text in self.findobj(Text):
            text.set_parse_math(False)
            text.set_text("\n".join(map(printable, text.get_text().split("\n"))))
        # Labels of ticks are made while drawing.
        with rc_context({"text.parse_math": False}):
            super().draw(renderer)
