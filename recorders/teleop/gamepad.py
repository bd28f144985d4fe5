"""A gamepad, read with pygame: sticks move the hand in proportion, buttons do the rest."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from typing import Any

from demokit.errors import DemokitError, not_installed
from recorders.teleop.device import Command, DeviceLost, Press
from recorders.teleop.keys import Bindings

_STICKS = ("left_right", "forward_back", "up_down")


class Gamepad:
    """The first gamepad that is plugged in; where it is unplugged, the next one that comes.

    Args:
        bindings: which axes and buttons do what.
        pads: what finds gamepads, as `pygame.joystick` does; None takes that.
        refresh: makes their values current, and says the instance ids of those that were
            unplugged since; None asks pygame.

    Raises:
        DemokitError: pygame is missing, or no gamepad is there.
    """

    name = "gamepad"

    def __init__(
        self,
        bindings: Bindings,
        pads: Any = None,
        refresh: Callable[[], Collection[int]] | None = None,
    ) -> None:
        if pads is None or refresh is None:
            pads, refresh = _pygame()
        self._bindings, self._pads, self._refresh = bindings, pads, refresh
        self._beside: set[int] = set()  # instance ids of pads that are there, and not driven with
        self._buttons = {press: int(bindings.gamepad[press]) for press in _pressable(bindings)}
        self._down: set[Press] = set()
        self._pad = self._found()
        if self._pad is None:
            raise DemokitError("There is no gamepad: plug one in, or use another --device.")

    def read(self) -> Command:
        """See `Device`."""
        gone = self._refresh()
        if self._pad is not None and self._pad.get_instance_id() in gone:
            self._pad = None
        if self._pad is None:
            self._pad = self._found()
        if self._pad is None:
            raise DeviceLost("The gamepad is gone: plug it in.")
        pressed = {p for p, n in self._buttons.items() if self._button(n)}
        new, self._down = pressed - self._down, pressed
        right, back, down = (self._axis(int(self._bindings.gamepad[s])) for s in _STICKS)
        # Sticks count downwards and towards the person.
        return Command((right, -back, -down), tuple(p for p in Press if p in new))

    def rest(self) -> None:
        """See `Device`: a stick that is held goes on, a person sees that."""

    def close(self) -> None:
        """See `Device`."""
        self._pads.quit()

    def _found(self) -> Any:
        """The first pad that was not there beside the last one; None where there is none."""
        there = [self._pads.Joystick(number) for number in range(self._pads.get_count())]
        pad = next((each for each in there if each.get_instance_id() not in self._beside), None)
        if pad is not None:
            self._beside = {each.get_instance_id() for each in there if each is not pad}
        return pad

    def _button(self, number: int) -> bool:
        return number < self._pad.get_numbuttons() and bool(self._pad.get_button(number))

    def _axis(self, number: int) -> float:
        """A stick in [-1, 1], as fast as `fast` at its end, zero within the dead zone."""
        value = float(self._pad.get_axis(number)) if number < self._pad.get_numaxes() else 0.0
        dead = float(self._bindings.gamepad["dead_zone"])
        size = max(0.0, abs(value) - dead) / (1 - dead)
        share = min(1.0, size) * self._bindings.speed["fast"]
        return share if value > 0 else -share


def _pressable(bindings: Bindings) -> list[Press]:
    return [press for press in Press if press in bindings.gamepad]


def _pygame() -> tuple[Any, Callable[[], Collection[int]]]:
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    # Only the gamepad is wanted: no window, which would need a display.
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    os.environ.setdefault("SDL_JOYSTICK_ALLOW_BACKGROUND_EVENTS", "1")
    try:
        import pygame
    except ImportError as error:
        raise not_installed("A gamepad needs", "pygame-ce") from error
    pygame.display.init()
    pygame.joystick.init()
    removed = pygame.JOYDEVICEREMOVED
    return pygame.joystick, lambda: {
        event.instance_id for event in pygame.event.get() if event.type == removed
    }
