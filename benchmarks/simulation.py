"""Closed-loop steps per second of every family, with policy inference, in one run.

    python benchmarks/simulation.py [family ...]

Ours: 400 simulations, a 100-100 policy network, observations, rewards, terminations and success of
every step. The limit: `mujoco.batch` stepping the same model through the same controls (or mocap
targets) with nothing around it. The peer, for ant and cheetah: Gymnasium's own AsyncVectorEnv (as
many processes as suit it best) on its Ant and HalfCheetah with the same kind of network. Control
steps are compared, and simulator steps of 0.01 s: one of ours is one of those for the ant (as the
paper has it) and five for the cheetah, one of theirs is five. Repeats alternate.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from itertools import pairwise

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AsyncVectorEnv
from mujoco.batch import Batch

from demokit.envs import family_names, make_family
from demokit.envs.batch import SimBatch
from demokit.random import stream

NUM_SIMS, STEPS, REPEATS = 400, 40, 7
PEERS = {"ant": "Ant-v5", "cheetah-vel": "HalfCheetah-v5"}
PEER_ENVS, PEER_STEPS = (2, 8, 16), 150
CONTROLS = ("ctrl", "mocap_pos")


def main() -> None:
    torch.set_num_threads(1)
    print(f"{NUM_SIMS} simulations, {os.cpu_count()} CPUs; control steps/s, inference included")
    print(f"{'family':14}{'ours':>12}{'bare':>12}{'ratio':>8}   (target >= 0.85)")
    for name in sys.argv[1:] or family_names():
        compare(name)


def compare(name: str) -> None:
    family = make_family(name)
    act = policy(family.observation_width, len(family.actions))
    sims, bare = SimBatch(family, NUM_SIMS), Batch(family.model, NUM_SIMS, 0)
    observation = sims.reset(family.context.sample(stream(0, "contexts"), NUM_SIMS), range(400))
    start, controls = sims.get_state(), []
    for _ in range(STEPS):
        observation = sims.step(act(observation)).observation
        bare.state[:] = sims.get_state().physics
        controls.append({field: getattr(bare, field).copy() for field in CONTROLS})
    ours_s, bare_s = [], []
    for _ in range(REPEATS):
        ours_s.append(timed(lambda: closed_loop(sims, start, act)))
        bare_s.append(timed(lambda: step_bare(bare, family, start.physics, controls)))
    steps = NUM_SIMS * STEPS
    ours, limit = steps / statistics.median(ours_s), steps / statistics.median(bare_s)
    print(f"{name:14}{ours:12,.0f}{limit:12,.0f}{ours / limit:8.2f}", flush=True)
    if name in PEERS:
        peer = max(peer_rate(PEERS[name], num) for num in PEER_ENVS)
        print(
            f"  AsyncVectorEnv on {PEERS[name]}: {peer:,.0f}; ours {ours / peer:.1f} x "
            f"(target >= 4), in simulator steps {ours * family.frame_skip / (5 * peer):.1f} x",
            flush=True,
        )


def policy(num_inputs: int, num_actions: int):
    sizes = (num_inputs, 100, 100, num_actions)
    layers = [torch.nn.Linear(a, b) for a, b in pairwise(sizes)]
    net = torch.nn.Sequential(
        layers[0], torch.nn.ReLU(), layers[1], torch.nn.ReLU(), layers[2], torch.nn.Tanh()
    )

    def act(observation: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return net(torch.from_numpy(observation).float()).numpy()

    return act


def closed_loop(sims: SimBatch, start, act) -> None:
    observation = sims.set_state(start)
    for _ in range(STEPS):
        observation = sims.step(act(observation)).observation


def step_bare(bare: Batch, family, start: np.ndarray, controls: list[dict]) -> None:
    bare.state[:] = start
    for values in controls:
        for field, rows in values.items():
            getattr(bare, field)[:] = rows
        bare.step(nstep=family.frame_skip)


def peer_rate(env_id: str, num: int) -> float:
    """Environment steps per second of AsyncVectorEnv with the same network, the median of three."""
    env = AsyncVectorEnv([lambda: gymnasium.make(env_id)] * num)
    observation, _ = env.reset(seed=0)
    act = policy(observation.shape[1], env.single_action_space.shape[0])

    def run() -> None:
        seen = observation
        for _ in range(PEER_STEPS):
            seen, *_ = env.step(act(seen))

    seconds = statistics.median(timed(run) for _ in range(3))
    env.close()
    return num * PEER_STEPS / seconds


def timed(work) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
