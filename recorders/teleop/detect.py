"""Which device and view are possible here, and why: found out, not assumed."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import NamedTuple

from demokit.errors import DemokitError, not_installed

DEVICES = ("auto", "keyboard", "terminal", "gamepad", "mouse", "web")
VIEWS = ("auto", "window", "web", "png", "none")
INSTALL = "pip install pynput"


class Choice(NamedTuple):
    """What was chosen, and the reason as part of a sentence."""

    name: str
    reason: str


def _mac_trusts_us() -> bool:
    """Whether macOS lets this program see keys."""
    try:
        from pynput.keyboard import Listener

        return bool(getattr(Listener, "IS_TRUSTED", False))
    except Exception:  # pynput fails in many ways where there is no session
        return False


@dataclass(frozen=True)
class Surroundings:
    """What decides; the defaults describe this process."""

    platform: str = sys.platform
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    in_terminal: bool = field(default_factory=lambda: sys.stdin is not None and sys.stdin.isatty())
    has: Callable[[str], bool] = lambda name: find_spec(name) is not None
    mac_trusts_us: Callable[[], bool] = _mac_trusts_us

    @property
    def wayland(self) -> bool:
        """Whether the desktop hides other programs' keys."""
        session = self.environment.get("XDG_SESSION_TYPE", "")
        return bool(self.environment.get("WAYLAND_DISPLAY")) or session == "wayland"

    @property
    def remote(self) -> bool:
        """Whether this is an SSH session."""
        return any(self.environment.get(name) for name in ("SSH_CONNECTION", "SSH_TTY"))

    @property
    def display(self) -> bool:
        """Whether a window can open."""
        shown = self.environment.get("DISPLAY") or self.environment.get("WAYLAND_DISPLAY")
        return self.platform != "linux" or bool(shown)


def no_keyboard(here: Surroundings) -> str | None:
    """Why pynput cannot read the keyboard here; None where it can."""
    if not here.has("pynput"):
        return f"pynput is not installed ({INSTALL})"
    if here.platform == "linux" and here.wayland:
        return "Wayland hides keys from other programs"
    if here.platform == "linux" and not here.display:
        return "there is no display"
    if here.platform == "darwin" and not here.mac_trusts_us():
        return (
            "macOS does not let this program see keys (System Settings, Privacy & Security, "
            "Input Monitoring and Accessibility)"
        )
    return None


def choose_device(asked: str, here: Surroundings) -> Choice:
    """The device; raises DemokitError when the one asked for cannot work here."""
    problem = "this is an SSH session" if here.remote else None
    problem = no_keyboard(here) or problem
    if asked in ("keyboard", "mouse") and no_keyboard(here):
        raise DemokitError(
            f"--device {asked} cannot work: {no_keyboard(here)}; use --device terminal or web."
        )
    if asked == "gamepad" and not here.has("pygame"):
        raise not_installed("A gamepad needs", "pygame-ce")
    if asked == "terminal" and not here.in_terminal:
        raise DemokitError("--device terminal needs a terminal: use --device web or keyboard.")
    if asked != "auto":
        return Choice(asked, "you asked for it")
    if problem is None:
        return Choice("keyboard", "a display is there whose keys can be read")
    if here.in_terminal:
        return Choice("terminal", problem)
    return Choice("web", f"{problem}, and this is no terminal")


def choose_view(asked: str, device: str, here: Surroundings) -> Choice:
    """The view; raises DemokitError when the one asked for cannot work here."""
    if device == "web":
        if asked not in ("auto", "web"):
            raise DemokitError(f"--device web is its own view: leave out --view {asked}.")
        return Choice("web", "the browser shows what it drives")
    if asked == "window" and (not here.display or here.platform == "darwin"):
        raise DemokitError(
            "There is no display for a window: use --view web or png."
            if here.platform != "darwin"
            else "macOS opens windows for its main thread only: use --view web."
        )
    if asked != "auto":
        return Choice(asked, "you asked for it")
    if here.platform == "darwin":
        return Choice("web", "macOS opens windows for its main thread only")
    if not here.display:
        return Choice("png", "there is no display")
    if here.remote:
        return Choice("png", "windows are slow over SSH")
    return Choice("window", "a display is there")
