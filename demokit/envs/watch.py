"""What a batch does not go on with: a simulation that diverged, and numbers that are none.

MuJoCo answers a bad state with a warning, and resets the simulation by itself: from outside, an
episode that diverged looks like one that stands at its start. So its warnings are read after
every call, and the state is held to the bound that MuJoCo holds it to at the next one.
"""

from __future__ import annotations

import mujoco
import numpy as np
from mujoco.batch import Batch

from demokit.errors import DemokitError
from demokit.types import Array, as_rows

STATE_LIMIT = float(mujoco.mjMAXVAL)
"""What MuJoCo calls a huge number in positions, velocities, accelerations and controls."""

FLOAT32_LIMIT = float(np.finfo(np.float32).max)
"""What policies and learners can still hold."""

_FIRST, _LAST = mujoco.mjtWarning.mjWARN_BADQPOS, mujoco.mjtWarning.mjWARN_BADCTRL
BAD = slice(int(_FIRST), int(_LAST) + 1)
"""The warnings of bad positions, velocities, accelerations and controls, which MuJoCo replaces."""

ADVICE = "take a smaller timestep, weaker actuators or smaller actions"


class SimulationFaultError(DemokitError):
    """A simulation that cannot go on.

    Attributes:
        simulation: its index in the batch.
        step: the step it happened in, counted from 1; 0 is its start.
    """

    def __init__(self, simulation: int, who: str, step: int, what: str) -> None:
        when = f"in step {step}" if step else "at its start"
        super().__init__(f"Simulation {simulation} ({who}) {when}: {what}.")
        self.simulation, self.step = simulation, step


def outside(values: Array, limit: float) -> tuple[int, int] | None:
    """Row and component of the first number of (N, ...) that is NaN or beyond +-limit, if any."""
    # NaN is neither. No products: the threads of BLAS spin on, and MuJoCo waits for the CPUs.
    if values.max(initial=0) <= limit and values.min(initial=0) >= -limit:
        return None
    rows = as_rows(values)
    bad = np.argwhere(~(np.abs(rows) <= limit))
    return (int(bad[0, 0]), int(bad[0, 1])) if len(bad) else None


def diverged(sims: Batch) -> Array:
    """Which simulations (N,) bool MuJoCo had to warn of, or will at the next step."""
    warned: Array = sims.warning[:, BAD, 1].any(axis=1)
    unsound: Array = ~(np.abs(sims.state) <= STATE_LIMIT).all(axis=1)
    return warned | unsound


def why_diverged(sims: Batch, sim: int) -> str:
    """What became of a simulation that diverged."""
    counts = sims.warning[sim, BAD, 1]
    if counts.any():
        kind = BAD.start + int(counts.argmax())
        return in_words(kind, int(sims.warning[sim, kind, 0]))
    bad = outside(sims.state[sim : sim + 1], STATE_LIMIT)
    assert bad is not None
    return f"it diverged: number {bad[1]} of its state is {sims.state[sim, bad[1]]:g}; {ADVICE}"


def in_words(kind: int, place: int) -> str:
    """A warning of MuJoCo's about a bad number, in its own words."""
    said = mujoco.mju_warningText(kind, place).partition(".")[0]
    return f"it diverged, and MuJoCo would reset it ({said}); {ADVICE}"
