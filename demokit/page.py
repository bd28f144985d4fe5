"""What our static pages share: one style, tables and pictures that stand in the file itself."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from importlib.resources import files
from pathlib import Path

from demokit.errors import DemokitError
from demokit.figure import Figure
from demokit.text import on_page
from demokit.writing import write_whole

DPI = 120


def style() -> str:
    """The style sheet."""
    return (files("demokit") / "page.css").read_text()


def table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; names and cells are text, not HTML."""
    head = "".join(f"<th>{on_page(name)}</th>" for name in names)
    body = "".join(
        "<tr>" + "".join(f"<td>{on_page(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def facts(values: dict[str, str]) -> str:
    """A table of names and what they are."""
    rows = (f"<tr><th>{on_page(k)}</th><td>{on_page(v)}</td></tr>" for k, v in values.items())
    return f"<table>{''.join(rows)}</table>"


def tile(label: str, value: str) -> str:
    """A figure to be seen at a glance, with what it is."""
    return f'<div class="tile"><b>{on_page(value)}</b><span>{on_page(label)}</span></div>'


def image(png: bytes, text: str) -> str:
    """A PNG; `text` stands for it where it cannot be seen."""
    return f'<img alt="{on_page(text)}" src="{data_uri(png, "image/png")}">'


def drawing(figure: Figure, text: str) -> str:
    """A figure as a picture of the page."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=DPI)
    return f"<figure>{image(stream.getvalue(), text)}</figure>"


def write_picture(figure: Figure, path: Path, advice: str, *, dpi: int = DPI) -> None:
    """Write a figure to `path`, NAME.png or any ending that matplotlib writes.

    Raises:
        DemokitError: another ending, or it cannot be written.
    """
    stream, kind = io.BytesIO(), path.suffix.removeprefix(".") or "png"
    try:
        figure.savefig(stream, format=kind, dpi=dpi)
    except ValueError as error:
        raise DemokitError(f"{path} cannot be drawn ({error}): name it NAME.png.") from error
    write_whole(path, stream.getvalue(), advice)


def data_uri(content: bytes, kind: str) -> str:
    """Content that stands in the page itself, such as "image/png"."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
