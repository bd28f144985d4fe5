"""Roll-outs with images against the bare renderer on the same scenes, in one run.

    python benchmarks/rendering.py [family]

Ours: simulations stepped by random actions, every observation filled: 48x64 RGB and the hand. The
limit: MuJoCo's renderer with the same settings, as many contexts and threads, drawing the same
states (kinematics, scene, picture, pixels) with nothing around it. Repeats alternate.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import mujoco
import numpy as np

from demokit.envs import make_family
from demokit.envs.batch import SimBatch
from demokit.envs.render import Canvas, make_camera
from demokit.random import stream

NUM_SIMS, STEPS, REPEATS = 100, 8, 7


def main() -> None:
    family = make_family(sys.argv[1] if len(sys.argv) > 1 else "push")
    sims = SimBatch(family, NUM_SIMS, observation="vision")
    contexts = family.context.sample(stream(0, "contexts"), NUM_SIMS)
    sims.reset(contexts, range(NUM_SIMS))
    start, states = sims.get_state(), []
    actions = stream(0, "actions").uniform(-1, 1, (STEPS, NUM_SIMS, len(family.actions)))
    for action in actions:
        sims.step(action)
        states.append(sims.get_state().physics)
    bare = [ThreadPoolExecutor(1) for _ in range(os.cpu_count() or 1)]
    painters = [thread.submit(Bare, family).result() for thread in bare]
    ours_s, bare_s = [], []
    for _ in range(REPEATS):
        sims.set_state(start)
        ours_s.append(timed(lambda: [sims.step(action) for action in actions]))
        bare_s.append(timed(lambda: draw_all(bare, painters, np.concatenate(states))))
    frames = NUM_SIMS * STEPS
    ours, limit = frames / statistics.median(ours_s), frames / statistics.median(bare_s)
    print(f"{family.name}: 48x64 RGB, {NUM_SIMS} simulations, {len(bare)} threads")
    print(f"  roll-out, all arrays filled  {ours:8,.0f} frames/s   (target >= 1,500 on 2 cores)")
    print(f"  bare renderer                {limit:8,.0f} frames/s")
    print(f"  ratio                        {ours / limit:8.2f}            (target >= 0.85)")
    sims.close()


class Bare:
    """MuJoCo's renderer in one thread."""

    def __init__(self, family) -> None:
        self.canvas = Canvas(family.model, width=64, height=48, quick=True)
        self.camera, self.options = make_camera(family, "policy"), mujoco.MjvOption()
        self.data = mujoco.MjData(self.canvas.model)

    def draw(self, states: np.ndarray) -> None:
        """Draw every state and drop the picture."""
        kind = mujoco.mjtState.mjSTATE_INTEGRATION
        for state in states:
            mujoco.mj_setState(self.canvas.model, self.data, state, kind)
            mujoco.mj_kinematics(self.canvas.model, self.data)
            mujoco.mj_camlight(self.canvas.model, self.data)
            self.canvas.draw(self.data, self.camera, self.options)


def draw_all(threads: list[ThreadPoolExecutor], painters: list[Bare], states: np.ndarray) -> None:
    shares = np.array_split(states, len(threads))
    work = zip(threads, painters, shares, strict=True)
    for job in [thread.submit(painter.draw, share) for thread, painter, share in work]:
        job.result()


def timed(work) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
