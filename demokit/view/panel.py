"""What a page shows over the picture, and what a person presses on it, whatever its frames do."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from types import MappingProxyType
from typing import Any, TypeAlias

from demokit.text import printable
from demokit.view.scene import Hands

Pairs: TypeAlias = Sequence[tuple[str, str]]
NO_KEYS: frozenset[str] = frozenset()
NOTHING_ASKED: Mapping[str, str] = MappingProxyType({})
MOST_LETTERS = 200
"""Of an answer."""
WATCHES = ("", "This page watches. To drive, ask for the controls below.")
_PHONE = '<meta name="viewport" content="width=device-width, initial-scale=1"></head>'


class Panel:
    """Words, buttons and keys of several pages, one of which drives.

    A page says which keys are down, all of them, whenever that changes: nothing depends on how
    often it draws, and what is down stays down until the page says otherwise, or is gone.

    Args:
        buttons: what stands on the buttons.
        keys: the keys that are watched; no name contains a space.
        hands: who is told; None for pages that only show.
        guide: (keys, what they do), which a person may look up.
        pad: (name, key) of the buttons that a touch screen has, held as the key is.
        asks: button -> the question whose answer is told with it.
        title: what the page is called.

    Attributes:
        words: (name, value) pairs over the picture.
    """

    def __init__(
        self,
        buttons: Sequence[str],
        keys: Sequence[str],
        hands: Hands | None,
        *,
        guide: Pairs = (),
        pad: Pairs = (),
        asks: Mapping[str, str] = NOTHING_ASKED,
        title: str = "demokit",
    ) -> None:
        self.words: Pairs = ()
        self._guide, self._pad, self._title = tuple(guide), tuple(pad), printable(title)
        self._asks = dict(asks)
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
        """What a page says, a line.

        `held KEY ...`: these keys are down, all others up; `push BUTTON`: it was clicked; `push
        BUTTON` and a second line: the answer to what it asks.
        """
        line, _, answer = message.partition("\n")
        what, _, rest = line.partition(" ")
        if what == "held":
            self._held[page] = self._keys.intersection(rest.split(" "))
            self._update()
        elif what == "push" and page == self._driver and rest in self._buttons and self._hands:
            if rest in self._asks:
                self._hands.push(rest, answer[:MOST_LETTERS])
            else:
                self._hands.push(rest)

    def tell(self, page: str) -> str:
        """What a page shows, as JSON: the words, and for the one that drives all it can press."""
        drives = page == self._driver
        watches = self._hands is not None and self.driven and not drives
        shown: dict[str, Any] = {
            "title": self._title,
            "words": shown_pairs([*self.words, *([WATCHES] if watches else [])]),
            "keys": sorted(self._keys) if drives else [],
            "buttons": self._buttons if drives else [],
            "asks": self._asks if drives else {},
            "guide": self._guide if drives else [],
            "pad": self._pad if drives else [],
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


def shown_pairs(pairs: Pairs) -> list[tuple[str, str]]:
    """(name, value) pairs whose text, of files too, is a line each, and fit to be shown."""
    return [(printable(name), printable(value)) for name, value in pairs]


def page_with_panel(page: str) -> str:
    """An HTML page with the panel at its end; a phone shows it at its own size."""
    panel = (files("demokit.view") / "panel.html").read_text()
    return page.replace("</head>", _PHONE).replace("</body>", f"{panel}</body>")
