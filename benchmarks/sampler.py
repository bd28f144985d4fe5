"""Closed-loop sampling against bare simulation, in one run.

    python benchmarks/sampler.py [family]

Ours: 20 tasks x 20 episodes, a policy with parameters of its own per task, observations,
log-probabilities and rewards of every step kept. The limit: `mujoco.batch` stepping the same
model through the same physics (the same start and controls) with nothing around it.
"""

from __future__ import annotations

import statistics
import sys
import time

import numpy as np
import torch
from mujoco.batch import Batch

from demokit.envs import make_family
from demokit.envs.batch import SimBatch
from demokit.envs.tasks import make_tasks, task_sets
from demokit.learning.networks import Params
from demokit.random import stream, torch_stream
from gmps.experience.sampler import Sampler
from gmps.policies.gaussian import GaussianActor, GaussianPolicy, replicate

NUM_TASKS, EPISODES, REPEATS = 20, 20, 7
CONTROLS = ("ctrl", "mocap_pos")
Controls = list[dict[str, np.ndarray]]


def main() -> None:
    torch.set_num_threads(1)
    family = make_family(sys.argv[1] if len(sys.argv) > 1 else "push")
    tasks = make_tasks(family, next(iter(task_sets(family))), "train", num_tasks=NUM_TASKS)
    sampler = Sampler(family, tasks, "dense", explore=EPISODES)
    zeros = torch.zeros(family.observation_width)
    policy = GaussianPolicy(zeros, zeros + 1, len(family.actions))
    theta = replicate(policy.init(torch_stream(0, "policy")), NUM_TASKS)

    states = record_states(family, len(tasks) * EPISODES)
    bare = Batch(family.model, NUM_TASKS * EPISODES, 0)
    ours_s, bare_s = [], []
    for _ in range(REPEATS):
        ours_s.append(timed(lambda: roll_out(sampler, policy, theta)))
        bare_s.append(timed(lambda: step_bare(bare, family, states)))
    steps = sampler.num_steps
    ours, limit = steps / statistics.median(ours_s), steps / statistics.median(bare_s)
    print(f"{family.name}: {NUM_TASKS} tasks x {EPISODES} episodes x {family.horizon} steps")
    print(f"  closed loop, all arrays filled  {ours:10,.0f} control steps/s")
    print(f"  mujoco.batch alone              {limit:10,.0f} control steps/s")
    print(f"  ratio                           {ours / limit:10.2f}   (target >= 0.70)")


def roll_out(sampler: Sampler, policy: GaussianPolicy, params: Params) -> None:
    sampler(GaussianActor(policy, params), sampler.streams(stream(0, "rollouts")))


def record_states(family, num_sims: int) -> tuple[np.ndarray, Controls]:
    """The start state and every step's controls of a random closed-loop run."""
    sims = SimBatch(family, num_sims)
    rng = stream(0, "actions")
    sims.reset(np.tile(family.context.low, (num_sims, 1)), range(num_sims))
    start, controls = sims.get_state().physics, []
    probe = Batch(family.model, num_sims, 0)
    for _ in range(family.horizon):
        sims.step(rng.uniform(-1, 1, (num_sims, len(family.actions))))
        probe.state[:] = sims.get_state().physics
        controls.append({field: getattr(probe, field).copy() for field in CONTROLS})
    return start, controls


def step_bare(bare: Batch, family, states: tuple[np.ndarray, Controls]) -> None:
    start, controls = states
    bare.state[:] = start
    for control in controls:
        for field, values in control.items():
            getattr(bare, field)[:] = values
        bare.step(nstep=family.frame_skip)


def timed(work) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
