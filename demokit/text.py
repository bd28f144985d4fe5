"""Text from files and from the network, made fit to be shown.

A licence, a task's name or a file's may hold what steers a terminal, turns the order of letters
around, or breaks a line where none should. Everything that demokit shows passes `printable`: what
`say` prints, tables (`demokit.cli.console`), errors (`DemokitError`), pages (`on_page`) and cards
(`in_markdown`).
"""

from __future__ import annotations

import re
import unicodedata

_MARKUP = re.compile(r"^#|[\\`*_{}\[\]|$~]")
_MOST_LETTERS = 4000


def printable(text: object, *, whole: bool = False) -> str:
    r"""`text` in one line, with what cannot be seen spelled out, such as \x1b.

    It is cut when very long, unless the `whole` of it is needed.

    Spelled out are control characters, line breaks, marks that change the direction of writing,
    characters without width, and what no encoding can write.
    """
    shown = str(text)
    if len(shown) > _MOST_LETTERS and not whole:
        shown = shown[:_MOST_LETTERS] + "..."
    if shown.isprintable():
        return shown
    return "".join(letter if _is_seen(letter) else _spelled(letter) for letter in shown)


def _is_seen(letter: str) -> bool:
    return letter.isprintable() or unicodedata.category(letter) == "Zs"


def _spelled(letter: str) -> str:
    return letter.encode("unicode_escape").decode()


def is_storable(text: object) -> bool:
    """Whether every file can hold it: characters that UTF-8 has, and no NUL."""
    try:
        return isinstance(text, str) and b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False


def on_page(text: object) -> str:
    """`text` as HTML that shows it and does nothing else."""
    from html import escape

    return escape(printable(text))


def in_markdown(text: object) -> str:
    """`text` as Markdown that shows it and does nothing else."""
    return _MARKUP.sub(r"\\\g<0>", on_page(text))


def in_cell(text: object) -> str:
    """`text` for a table of Markdown: markup may stand out, but no HTML, link or other cell."""
    return printable(text).replace("<", "&lt;").replace("](", "]\\(").replace("|", "\\|")


def as_code(text: object) -> str:
    """`text` as a code span of Markdown, in a table too."""
    plain = printable(text).replace("`", "'").replace("|", "/")
    return f"`{plain}`"


def say(*lines: object, err: bool = False, whole: bool = False) -> None:
    """Print each of `lines` in a line of its own, to stdout or stderr; see `printable`."""
    import click

    for line in lines:
        click.echo(printable(line, whole=whole), err=err)
