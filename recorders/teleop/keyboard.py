"""The keyboard of a desktop, read with pynput: keys can be held, and are known to be released."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from demokit.errors import DemokitError
from recorders.teleop.detect import INSTALL
from recorders.teleop.device import Command, DeviceLost
from recorders.teleop.keys import NAMED_KEYS, PLAIN_KEYS, Bindings, HeldKeys

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
        self._names: dict[int | str, str] = {}  # by place, of keys that are down
        try:
            from pynput import keyboard

            self._places = Places()
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
        self._places.close()

    def _pressed(self, key: Any) -> None:
        if self._focused():
            name = key_name(key)
            if name not in (*NAMED_KEYS, *PLAIN_KEYS):
                name = self._places.digit(key) or name
            self._names[self._places.of(key) or name] = name
            self._keys.press(name)

    def _released(self, key: Any) -> None:
        """By its place: its name is another one where Shift went down or up since."""
        name = key_name(key)
        self._keys.release(self._names.pop(self._places.of(key) or name, name))


class Places:
    """Where pynput's keys are: the name of a key depends on the modifiers, its place does not."""

    def __init__(self) -> None:
        self._display: Any = None
        if sys.platform == "linux":
            from Xlib.display import Display

            self._display = Display()

    def of(self, key: Any) -> int:
        """The number of the place; 0 where it is not known."""
        number = getattr(getattr(key, "value", key), "vk", None) or 0
        # X11 alone has another one for every name.
        return self._display.keysym_to_keycode(number) if self._display else number

    def digit(self, key: Any) -> str:
        """What stands on the key where that is a digit, as on one typed with Shift; else ''."""
        number = self.of(key)
        if self._display is not None:
            number = self._display.keycode_to_keysym(number, 0)
        elif sys.platform != "win32":
            number = 0
        return chr(number) if ord("0") <= number <= ord("9") else ""

    def close(self) -> None:
        """Ask no more; may be called twice."""
        if self._display is not None:
            self._display.close()
            self._display = None


def key_name(key: Any) -> str:
    """A key of pynput by the name that bindings use; '' for keys without one."""
    name = getattr(key, "name", None) or getattr(key, "char", None) or ""
    return _SAME.get(name, name.lower())
