"""Which window has the keyboard's focus, where `detect.knows_focus`."""

from __future__ import annotations

import threading
from typing import Any

VIEWER_TITLE = "MuJoCo : "
ASK_AGAIN_S = 0.1


class Focus:
    """Whether MuJoCo's window has the focus, as the X server says; true while it does not say.

    It asks in a thread of its own: a connection to the X server is for one thread only.
    """

    def __init__(self) -> None:
        self._focused = True
        self._stop = threading.Event()
        threading.Thread(target=self._ask, daemon=True).start()

    def __call__(self) -> bool:
        """The latest answer."""
        return self._focused

    def close(self) -> None:
        """Ask no more."""
        self._stop.set()

    def _ask(self) -> None:
        from Xlib import display

        connection = display.Display()
        while not self._stop.wait(ASK_AGAIN_S):
            self._focused = _is_viewer(connection)
        connection.close()


def _is_viewer(connection: Any) -> bool:
    """Whether the focused window, or one it stands in, is the viewer's; or none is focused."""
    try:
        window, root = connection.get_input_focus().focus, connection.screen().root
        if isinstance(window, int) or window == root:
            return True
        while window and window != root:  # the root holds every window
            if VIEWER_TITLE in str(window.get_wm_name() or ""):
                return True
            window = window.query_tree().parent
    except Exception:  # windows come and go while they are asked
        return True
    return False
