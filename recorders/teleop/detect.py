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
_NO_FOCUS = "which window keys are meant for cannot be known here"


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
    def types(self) -> bool:
        """Whether a terminal is there whose keys can be read."""
        return self.in_terminal and self.platform != "win32"

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


def knows_focus(view: str, platform: str) -> bool:
    """Whether it can be asked if keys are meant for a view: MuJoCo's window, of an X server."""
    return view == "window" and platform == "linux"


def choose_device(asked: str, here: Surroundings, view: str = "auto") -> Choice:
    """The device, beside the view that was asked for.

    Raises:
        DemokitError: the one asked for cannot work here.
    """
    if asked in ("keyboard", "mouse") and no_keyboard(here):
        raise DemokitError(
            f"--device {asked} cannot work: {no_keyboard(here)}; use --device terminal or web."
        )
    if asked == "gamepad" and not here.has("pygame"):
        raise not_installed("A gamepad needs", "pygame-ce")
    if asked == "terminal" and not here.types:
        raise DemokitError(
            "--device terminal needs a terminal of Linux or macOS: use --device web or keyboard."
        )
    return Choice(asked, "you asked for it") if asked != "auto" else _best_device(here, view)


def _best_device(here: Surroundings, view: str) -> Choice:
    """The keyboard where its keys are known to be meant for us; else the terminal, else a page."""
    problem = no_keyboard(here) or ("this is an SSH session" if here.remote else None)
    if problem is None:
        if knows_focus(choose_view(view, "keyboard", here).name, here.platform):
            return Choice("keyboard", "a display is there whose keys can be read")
        if not here.types and view not in ("auto", "web"):
            return Choice("keyboard", f"nothing else goes with --view {view} here")
        problem = _NO_FOCUS
    if here.types:
        return Choice("terminal", problem)
    return Choice("web", f"{problem}, and no terminal can be read")


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
