"""The keyboard of a desktop, read with pynput: keys can be held, and are known to be released."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from demokit.errors import DemokitError
from recorders.teleop.detect import INSTALL
from recorders.teleop.device import Command, DeviceLost
from recorders.teleop.keys import Bindings, HeldKeys

_SAME = {
    "shift_l": "shift",
    "shift_r": "shift",
    "ctrl_l": "ctrl",
    "ctrl_r": "ctrl",
    "alt_l": "alt",
    "alt_r": "alt",
    "return": "enter",
}


class Keyboard:
    """Keys that are held, in whatever window; those that are not meant for us do nothing.

    Args:
        bindings: what the keys do.
        focused: whether keys are meant for us now.

    Raises:
        DemokitError: pynput cannot read the keyboard here.
    """

    name = "keyboard"

    def __init__(self, bindings: Bindings, focused: Callable[[], bool] = lambda: True) -> None:
        self._keys = HeldKeys(bindings)
        self._focused = focused
        try:
            from pynput import keyboard
        except Exception as error:  # without a display pynput raises what its backend raises
            why = INSTALL if isinstance(error, ModuleNotFoundError) else "is the display right?"
            raise DemokitError(
                f"The keyboard cannot be read here ({why}): use --device terminal or web."
            ) from error
        self._listener = keyboard.Listener(on_press=self._pressed, on_release=self._released)
        self._listener.start()
        self._listener.wait()

    def read(self) -> Command:
        """See `Device`."""
        if not self._listener.is_alive():
            raise DeviceLost("The keyboard cannot be read any more.")
        if not self._focused():
            self._keys.clear()
        return self._keys.command()

    def rest(self) -> None:
        """See `Device`: what is held goes on, a person sees that."""

    def close(self) -> None:
        """See `Device`."""
        self._listener.stop()

    def _pressed(self, key: Any) -> None:
        if self._focused():
            self._keys.press(key_name(key))

    def _released(self, key: Any) -> None:
        self._keys.release(key_name(key))


def key_name(key: Any) -> str:
    """A key of pynput by the name that bindings use; '' for keys without one."""
    name = getattr(key, "name", None) or getattr(key, "char", None) or ""
    return _SAME.get(name, name.lower())
