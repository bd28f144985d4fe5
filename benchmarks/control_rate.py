"""How well recording by hand keeps its rate: Door at 20 Hz, with MuJoCo's window and without.

With a display (`xvfb-run python benchmarks/control_rate.py` gives one) the window is open, as
it is for a person; the limit is 99% of the steps within 5 ms of their slot.
"""

from __future__ import annotations

import os

import numpy as np

from demokit.envs import make_family
from demokit.envs.batch import SimBatch
from demokit.envs.tasks import make_tasks
from recorders.loop import Schedule
from recorders.scripted import make_scripted
from recorders.teleop.device import Command, Press
from recorders.teleop.pace import LATE_S, Pacer
from recorders.teleop.session import Manner, Session
from recorders.teleop.source import HandSource
from recorders.teleop.view import NoView, SceneView, View

EPISODES, RATE_HZ, LIMIT = 3, 20.0, 0.99


class Holding:
    """A key that is held; at the horizon the episode is kept."""

    name = "benchmark"

    def __init__(self, view: View) -> None:
        self._view, self.late_s = view, []

    def read(self) -> Command:
        """Forward; keep whenever that is possible."""
        return Command((0.0, 0.7, 0.0), (Press.KEEP,) if self.ended else ())

    ended = False

    def rest(self) -> None:
        """Begin again."""
        self.ended = False

    def close(self) -> None:
        """Nothing to give back."""

    def is_open(self) -> bool:
        """As the view."""
        return self._view.is_open()

    def show(self, sims, context, status) -> None:  # type: ignore[no-untyped-def]
        """See when the episode ended."""
        self.ended = status.phase == "ended"
        self._view.show(sims, context, status)


def lateness(view: View) -> np.ndarray:
    """Seconds late of every step of the episodes."""
    family = make_family("door")
    desk = Holding(view)
    pacer = Pacer(1 / RATE_HZ)
    late: list[float] = []
    wait = pacer.wait

    def noted(*, counted: bool = True) -> float:
        late_s = wait(counted=counted)
        if counted:
            late.append(late_s)
        return late_s

    pacer.wait = noted  # type: ignore[method-assign]
    Session(
        SimBatch(family, 1, num_threads=1),
        HandSource(family, make_scripted("door")),
        desk,
        desk,
        None,
        pacer,
        tasks=make_tasks(family, "uniform", "train", num_tasks=1),
        schedule=Schedule((EPISODES,)),
        save=lambda _: 0,
        kept=0,
        target=EPISODES,
        seed=0,
        manner=Manner(0.5, False, False, False, RATE_HZ),
        keys="",
    ).run()
    return np.array(late)


def report(name: str, view: View) -> None:
    late_s = lateness(view)
    share = float((late_s <= LATE_S).mean())
    print(
        f"{name}: {share:.1%} of {len(late_s)} steps within {1e3 * LATE_S:.0f} ms of their slot "
        f"at {RATE_HZ:g} Hz (limit {LIMIT:.0%}, {'met' if share >= LIMIT else 'MISSED'}); "
        f"99th percentile {1e3 * np.percentile(late_s, 99):.2f} ms, "
        f"worst {1e3 * late_s.max():.2f} ms"
    )


if __name__ == "__main__":
    report("no view", NoView())
    if os.environ.get("DISPLAY"):
        from demokit.view.window import Window

        window = SceneView("window", Window(make_family("door")))
        report("window", window)
        window.close()
