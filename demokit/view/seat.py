"""Whose page drives: one at a time, and nobody takes that away from it."""

from __future__ import annotations

import time
from collections.abc import Callable

RELOAD_S = 15.0


class Seat:
    """The first page that comes takes it; who asks for it gets it when it is free.

    Args:
        now: a steady clock, in seconds.

    Attributes:
        driver: the page that drives, None for no page.
        asking: who asked, in order.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self.driver: str | None = None
        self.asking: list[str] = []
        self._now, self._last, self._left_s = now, "", -RELOAD_S

    def take(self, page: str) -> bool:
        """Drive, if no other page does."""
        if self.driver not in (None, page):
            return False
        self.driver = page
        self.forget(page)
        return True

    def leave(self, page: str) -> None:
        """Drive no more."""
        if self.driver == page:
            self.driver, self._last, self._left_s = None, page, self._now()

    def ask(self, page: str) -> None:
        """Want to drive once nobody does."""
        if page != self.driver and page not in self.asking:
            self.asking.append(page)

    def forget(self, page: str) -> None:
        """Want it no more."""
        if page in self.asking:
            self.asking.remove(page)

    def next(self) -> str | None:
        """Who may take it now, and is struck off: a page that reloads comes back to its own."""
        if self.driver is not None or not self.asking:
            return None
        if self._last in self.asking:
            page = self._last
        elif self._now() - self._left_s >= RELOAD_S:
            page = self.asking[0]
        else:
            return None
        self.forget(page)
        return page
