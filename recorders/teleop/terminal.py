"""The terminal as a device: works over SSH and without a display."""

from __future__ import annotations

import contextlib
import os
import re
import select
import sys
import termios
import tty
from typing import Any

from demokit.errors import DemokitError
from recorders.teleop.device import Command, DeviceLost
from recorders.teleop.keys import Bindings, LatchedKeys

_LOCAL_MODES = 3  # index into what tcgetattr gives
_ESCAPED = re.compile(r"\x1b?\x1b(\[\[?|O)([0-?]*)[ -/]*([@-~]?)")
"""ESC [ or ESC O, parameters, one last letter or ~; another ESC before it is Alt, ESC [[ Linux'."""
_KEYS = {
    "A": "up",
    "B": "down",
    "C": "right",
    "D": "left",
    "H": "home",
    "F": "end",
    "1~": "home",
    "2~": "insert",
    "3~": "delete",
    "4~": "end",
    "5~": "page_up",
    "6~": "page_down",
    "7~": "home",
    "8~": "end",
}
"""By the last letter; before ~ a number says which key it is."""
_MODIFIERS = {"2": "shift+", "5": "ctrl+"}
_NAMES = {" ": "space", "\r": "enter", "\n": "enter", "\t": "tab", "\x7f": "backspace"}


class Terminal:
    """Keys typed into a terminal, latched.

    The terminal stops echoing and waiting for lines until `close`, which restores it; Ctrl-C and
    Ctrl-Z still work.

    Args:
        bindings: what the keys do.
        handle: file descriptor of the terminal; None takes the standard input.

    Raises:
        DemokitError: it is no terminal.
    """

    name = "terminal"

    def __init__(self, bindings: Bindings, handle: int | None = None) -> None:
        self._handle = sys.stdin.fileno() if handle is None else handle
        self._keys = LatchedKeys(bindings)
        self._pending = ""
        self._before: list[Any] | None = None
        if not os.isatty(self._handle):
            raise DemokitError("The standard input is no terminal: use --device web or keyboard.")
        self._before = termios.tcgetattr(self._handle)
        tty.setcbreak(self._handle)

    def read(self) -> Command:
        """See `Device`."""
        self._keep_modes()
        typed = self._pending + self._typed()
        keys, self._pending = split_keys(typed, ended=typed == self._pending)
        for key in keys:
            self._keys.type(key)
        return self._keys.command()

    def rest(self) -> None:
        """See `Device`."""
        self._keys.clear()

    def close(self) -> None:
        """See `Device`: gives the terminal back as it was."""
        if self._before is not None:
            # The terminal itself may be gone.
            with contextlib.suppress(termios.error):
                termios.tcsetattr(self._handle, termios.TCSADRAIN, self._before)
            self._before = None

    def _keep_modes(self) -> None:
        """After Ctrl-Z and `fg` the terminal is as the shell likes it."""
        if self._before is None:
            raise DeviceLost("The terminal was given back.")
        with contextlib.suppress(termios.error):  # it is gone, as reading it will tell
            if termios.tcgetattr(self._handle)[_LOCAL_MODES] & termios.ICANON:
                tty.setcbreak(self._handle, termios.TCSADRAIN)

    def _typed(self) -> str:
        if not select.select([self._handle], [], [], 0)[0]:
            return ""
        try:
            typed = os.read(self._handle, 4096)
        except OSError as error:
            raise DeviceLost("The terminal is gone.") from error
        if not typed:
            raise DeviceLost("The terminal was closed.")
        return typed.decode(errors="ignore")


def split_keys(typed: str, *, ended: bool) -> tuple[list[str], str]:
    """Names of the keys typed, and what may be the beginning of one more.

    With `ended` nothing follows: an escape character is the key itself. Keys without a name, and
    those typed with Alt, are left out.
    """
    keys = []
    while typed:
        if typed[0] != "\x1b":
            keys.append(_NAMES.get(typed[0], typed[0]))
            typed = typed[1:]
        elif sequence := _ESCAPED.match(typed):
            if not sequence[3] and sequence.end() == len(typed):
                return keys, typed
            keys += _named(*sequence.groups())
            typed = typed[sequence.end() :]
        elif typed in ("\x1b", "\x1b\x1b") and not ended:
            return keys, typed
        elif typed[1:2] in ("", "\x1b"):
            keys.append("esc")
            typed = typed[1:]
        else:
            typed = typed[2:]
    return keys, ""


def _named(kind: str, parameters: str, last: str) -> list[str]:
    """The key of an escape sequence, with Shift or Ctrl before it; none for one without a name."""
    number, _, modifier = parameters.partition(";")
    name = _KEYS.get(number + last if last == "~" else last)
    return [] if name is None or kind == "[[" else [_MODIFIERS.get(modifier, "") + name]
