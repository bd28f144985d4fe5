"""Steps in real time, and how well that went."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

LATE_S = 0.005


class Lateness(NamedTuple):
    """How late the steps of an episode were: how many over LATE_S, and two of the extremes."""

    late_steps: int
    p99_ms: float
    max_ms: float


class Pacer:
    """Slots that follow each other at a fixed period.

    Args:
        period_s: from slot to slot.
        now: a steady clock, in seconds.
        sleep: waits for so many seconds.
    """

    def __init__(
        self,
        period_s: float,
        *,
        now: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._period_s, self._now, self._sleep = period_s, now, sleep
        self._slot_s = now()
        self._late_s: list[float] = []

    def wait(self, *, counted: bool = True) -> float:
        """Wait for the next slot; returns how late it is, in seconds; `counted` keeps that."""
        self._slot_s += self._period_s
        ahead_s = self._slot_s - self._now()
        if ahead_s > 0:
            self._sleep(ahead_s)
        late_s = max(0.0, self._now() - self._slot_s)
        if late_s > self._period_s:
            # A stall is not made up for by hurrying: a person could not follow.
            self._slot_s = self._now()
        if counted:
            self._late_s.append(late_s)
        return late_s

    def take(self) -> Lateness:
        """How late the counted slots were since the last call."""
        late_ms, self._late_s = 1e3 * np.array(self._late_s or [0.0]), []
        return Lateness(
            int((late_ms > 1e3 * LATE_S).sum()),
            round(float(np.percentile(late_ms, 99)), 3),
            round(float(late_ms.max()), 3),
        )
