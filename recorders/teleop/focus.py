"""Which window has the keyboard's focus, where that can be known."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

VIEWER_TITLE = "MuJoCo"
ASK_AGAIN_S = 0.1


def viewer_has_focus() -> Callable[[], bool]:
    """A function that says whether MuJoCo's window has the focus; true where nobody knows.

    Only X11 is asked. It is called from several threads, so the answer is kept for a moment.
    """
    if sys.platform != "linux":
        return lambda: True
    from Xlib import display

    connection = display.Display()
    answer = [True, float("-inf")]

    def focused() -> bool:
        if time.monotonic() - answer[1] > ASK_AGAIN_S:
            answer[:] = [_is_viewer(connection), time.monotonic()]
        return bool(answer[0])

    return focused


def _is_viewer(connection: Any) -> bool:
    """Whether the focused window, or one it stands in, is the viewer's; or none is focused."""
    try:
        window = connection.get_input_focus().focus
        if isinstance(window, int):
            return True
        while window:
            if VIEWER_TITLE in str(window.get_wm_name() or ""):
                return True
            if window == connection.screen().root:
                return True
            window = window.query_tree().parent
    except Exception:  # windows come and go while they are asked
        return True
    return False
