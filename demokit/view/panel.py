"""What a page shows over the picture, and what a person presses on it, whatever its frames do."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from demokit.view.scene import Hands

NO_KEYS: frozenset[str] = frozenset()


class Panel:
    """Words, buttons and keys of several pages, one of which drives.

    A page says which keys are down, all of them, whenever that changes: nothing depends on how
    often it draws, and what is down stays down until the page says otherwise, or is gone.

    Args:
        buttons: what stands on the buttons.
        keys: the keys that are watched; no name contains a space.
        hands: who is told; None for pages that only show.

    Attributes:
        words: (name, value) pairs over the picture.
    """

    def __init__(self, buttons: Sequence[str], keys: Sequence[str], hands: Hands | None) -> None:
        self.words: Sequence[tuple[str, str]] = ()
        self._buttons, self._keys, self._hands = tuple(buttons), frozenset(keys), hands
        self._held: dict[str, frozenset[str]] = {}
        self._driver: str | None = None
        self._down = NO_KEYS

    @property
    def driven(self) -> bool:
        """Whether the page that drives is there."""
        return self._driver in self._held

    def enter(self, page: str) -> None:
        """A page is there, with its hands off."""
        self._held[page] = NO_KEYS
        self._update()

    def leave(self, page: str) -> None:
        """A page is gone: whatever it held is up."""
        self._held.pop(page, None)
        self._update()

    def drive(self, page: str | None) -> None:
        """It is this page that drives from now on, or none."""
        self._driver = page
        self._update()

    def hear(self, page: str, message: str) -> None:
        """`held KEY ...`: these keys are down, all others up; `push BUTTON`: it was clicked."""
        what, _, rest = message.partition(" ")
        if what == "held":
            self._held[page] = self._keys.intersection(rest.split(" "))
            self._update()
        elif what == "push" and page == self._driver and rest in self._buttons and self._hands:
            self._hands.push(rest)

    def tell(self, page: str) -> str:
        """What a page shows, as JSON: the words, and for the one that drives keys and buttons."""
        drives = page == self._driver
        shown: dict[str, Any] = {
            "words": self.words,
            "keys": sorted(self._keys) if drives else [],
            "buttons": self._buttons if drives else [],
        }
        return json.dumps(shown)

    def _update(self) -> None:
        """Tell the hands what changed for the page that drives."""
        down = self._held.get(self._driver or "", NO_KEYS)
        before, self._down = self._down, down
        if self._hands is not None:
            for key in before - down:
                self._hands.release(key)
            for key in down - before:
                self._hands.press(key)


def page_with_panel(page: str) -> str:
    """An HTML page with the panel at its end."""
    panel = (files("demokit.view") / "panel.html").read_text()
    return page.replace("</body>", f"{panel}</body>")
