"""The terminal that the program was started from, where a person answers when the device cannot."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING

from recorders.teleop.device import Command, DeviceLost
from recorders.teleop.keys import Bindings

if TYPE_CHECKING:
    from recorders.teleop.terminal import Terminal


class Desk:
    """A terminal as usual, until it is read; after `rest` it is one again.

    Args:
        bindings: what the keys do.
        handle: file descriptor of the terminal; None takes the standard input.
    """

    name = "desk"

    def __init__(self, bindings: Bindings, handle: int | None = None) -> None:
        self._bindings, self._handle = bindings, handle
        self._terminal: Terminal | None = None
        self._closed = False

    def read(self) -> Command:
        """See `Device`; raises DeviceLost where nobody can answer."""
        if self._closed or not self._is_ours():
            raise DeviceLost("Nobody is at the terminal.")
        if self._terminal is None:
            from recorders.teleop.terminal import Terminal

            self._terminal = Terminal(self._bindings, self._handle)
        return self._terminal.read()

    def rest(self) -> None:
        """See `Device`: gives the terminal back."""
        if self._terminal is not None:
            self._terminal.close()
            self._terminal = None

    def close(self) -> None:
        """See `Device`: nobody is heard from now on."""
        self._closed = True
        self.rest()

    def _is_ours(self) -> bool:
        """Whether there is a terminal, and we are no job in its background."""
        if sys.platform == "win32" or (self._handle is None and sys.stdin is None):
            return False
        handle = sys.stdin.fileno() if self._handle is None else self._handle
        if not os.isatty(handle):
            return False
        with contextlib.suppress(OSError):  # it does not control us: nor does it stop us
            return os.tcgetpgrp(handle) == os.getpgrp()
        return True
