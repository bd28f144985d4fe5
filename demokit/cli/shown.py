"""rich's console and tables, letting through only what can be seen; see `demokit.text`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table

from demokit.text import printable


class ShownConsole(Console):
    """A console that spells out whatever would steer the terminal, whoever passes it in."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """What is drawn, in parts; rich's own control codes are parts of their own."""
        for part in super().render(renderable, options):
            yield part if part.control else Segment(_lines(part.text), part.style)


def _lines(text: str) -> str:
    return "\n".join(map(printable, text.split("\n")))


class ShownTable(Table):
    """A table whose cells are one line of text each, or renderables."""

    def __init__(self, title: str, **options: Any) -> None:
        super().__init__(title=printable(title), **options)

    def add_row(self, *cells: RenderableType | None, **options: Any) -> None:
        """Add a row."""
        shown = (printable(cell) if isinstance(cell, str) else cell for cell in cells)
        super().add_row(*shown, **options)
