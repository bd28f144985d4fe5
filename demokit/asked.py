"""What to say to whoever asked: an option of a command, or an argument in Python."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

_by_command = False


@contextmanager
def in_command() -> Iterator[None]:
    """While it lasts a person at the command line is spoken to, as before it afterwards."""
    global _by_command  # who is spoken to is the same in all threads
    before, _by_command = _by_command, True
    try:
        yield
    finally:
        _by_command = before


def flag(name: str) -> str:
    """`--resume` at the command line, `resume=True` in Python."""
    return f"--{name}" if _by_command else f"{name}=True"


def saying(name: str) -> str:
    """As `flag`, with its verb: `pass --resume`, `say resume=True`."""
    return f"pass {flag(name)}" if _by_command else f"say {flag(name)}"


def other_output() -> str:
    """The end of a sentence: how to write something else."""
    return f"choose another {output()}."


def output() -> str:
    """What names the file that is written."""
    return "--out" if _by_command else "path"


def either(typed: str, python: str) -> str:
    """The words for the command line, or those for Python."""
    return typed if _by_command else python
