"""Meta-training in two processes against one, and a projection to 64.

    python benchmarks/scaling.py

Push: 20 tasks x 20 roll-outs x 50 steps, 20 outer steps per set of roll-outs. Each process has one
CPU. Measured: a set of roll-outs, the gradient of an outer step over the own tasks, the all-reduce
of that gradient between two processes of this machine (gloo), and what does not shrink: the random
numbers of all tasks, clipping and Adam.

The projection is for as many tasks as processes or more: with c seconds per task and iteration, n
processes and M tasks an iteration takes

    ceil(M / n) * c + M * d + outer_steps * (f + 2 * (n - 1) * l + 2 * (n - 1) / n * s / b)

with d to draw a task's random numbers, f for clipping and Adam, and a ring all-reduce of s bytes
with latency l and bandwidth b. Those two are measured here, within one machine; a network has
others. No process waits for a slower one in it, and evaluation is left out.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from meta_update import MAX_GRAD_NORM, SETTINGS, make_problem

from demokit.envs import make_family
from demokit.envs.tasks import make_tasks, task_sets
from demokit.random import stream, torch_stream
from gmps.distributed import Part, join
from gmps.experience.sampler import Sampler
from gmps.policies.gaussian import GaussianActor, GaussianPolicy, replicate

FAMILY, OUTER_STEPS, REPEATS = "push", 20, 7
LARGE = 4_000_000  # numbers: an all-reduce that the bandwidth bounds
PROJECTED_TASKS = 64
Measured = dict[str, float]


def measure() -> None:
    """In every process; the first prints what it measured, in seconds."""
    cpus = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cpus[int(os.environ.get("RANK", "0"))]})
    torch.set_num_threads(1)
    world = join()
    part = world.part(SETTINGS[FAMILY].num_tasks)
    measured = {**rollout_seconds(part), **outer_seconds(part)}
    if world.size > 1:
        small, large = torch.zeros(1), torch.zeros(LARGE)
        measured["all_reduce_small"] = timed(lambda: world.add_up(small), 200)
        measured["all_reduce_large"] = timed(lambda: world.add_up(large))
    if world.is_main:
        print(json.dumps(measured), flush=True)
    world.leave()


def rollout_seconds(part: Part) -> Measured:
    """A set of roll-outs, and the drawing of its random numbers alone."""
    family, setting = make_family(FAMILY), SETTINGS[FAMILY]
    task_set = next(iter(task_sets(family)))
    tasks = make_tasks(family, task_set, "train", num_tasks=setting.num_tasks)
    sampler = Sampler(family, tasks, "dense", explore=setting.rollouts, part=part)
    zeros = torch.zeros(family.observation_width)
    policy = GaussianPolicy(zeros, zeros + 1, len(family.actions))
    params = replicate(policy.init(torch_stream(0, "policy")), sampler.num_tasks)
    shape = setting.horizon, setting.num_tasks, setting.rollouts, setting.action
    rng = stream(0, "noise")

    def roll_out() -> None:
        sampler(GaussianActor(policy, params), sampler.streams(stream(0, "rollouts")))

    return {
        "rollouts": timed(roll_out),
        "draw": timed(lambda: rng.standard_normal(shape, np.float32)),
    }


def outer_seconds(part: Part) -> Measured:
    """The parts of an outer step, and the size of what is sent."""
    setting = SETTINGS[FAMILY]
    own = len(range(setting.num_tasks)[part.own])
    problem = make_problem(setting._replace(num_tasks=own), bf16=False)
    _, objective, meta, optimizer, batches, demos = problem
    leaves, losses = meta.leaves(), torch.zeros(3)

    def gradient() -> None:
        optimizer.zero_grad()
        objective.backward(meta, batches, demos, demos.pooled())

    def update() -> None:
        torch.nn.utils.clip_grad_norm_(leaves, MAX_GRAD_NORM)
        optimizer.step()

    return {
        "gradient": timed(gradient),
        "send": timed(lambda: part.averaged(leaves, losses), 50),
        "update": timed(update, 50),
        "bytes": 4.0 * sum(leaf.numel() for leaf in leaves),
    }


def timed(work: Callable[[], object], repeats: int = REPEATS) -> float:
    """The median wall-clock seconds."""
    seconds = []
    for _ in range(1 + repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


def run(size: int) -> Measured:
    """What process 0 of `size` measures."""
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(size)] if size > 1 else []
    command = [sys.executable, *launcher, str(Path(__file__)), "measure"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: Measured = json.loads(done.stdout.splitlines()[-1])
    return found


def iteration(measured: Measured) -> float:
    """Seconds of roll-outs and the outer steps on them."""
    outer = measured["gradient"] + measured["send"] + measured["update"]
    return measured["rollouts"] + OUTER_STEPS * outer


def projected(one: Measured, two: Measured, num: int) -> float:
    """Seconds of an iteration on 64 tasks in `num` processes; see the model above."""
    tasks = SETTINGS[FAMILY].num_tasks
    latency = two["all_reduce_small"] / 2
    bandwidth = 4 * LARGE / (two["all_reduce_large"] - two["all_reduce_small"])
    draw = one["draw"] / tasks
    per_task = (one["rollouts"] + OUTER_STEPS * one["gradient"]) / tasks - draw
    ring = 2 * (num - 1) * latency + 2 * (num - 1) / num * one["bytes"] / bandwidth
    fixed = PROJECTED_TASKS * draw + OUTER_STEPS * (one["update"] + ring)
    return math.ceil(PROJECTED_TASKS / num) * per_task + fixed


def main() -> None:
    one, two = run(1), run(2)
    print(f"{FAMILY}: {SETTINGS[FAMILY]}, one CPU for each process")
    print(f"{'milliseconds':32} {'1 process':>10} {'2 processes':>12}")
    for name in ("rollouts", "gradient", "send", "update", "draw"):
        print(f"  {name:30} {1e3 * one[name]:10.2f} {1e3 * two[name]:12.2f}")
    print(f"  {'iteration':30} {1e3 * iteration(one):10.1f} {1e3 * iteration(two):12.1f}")
    speed_up = iteration(one) / iteration(two)
    print(f"  speed-up {speed_up:.2f} of 2   ({one['bytes'] / 1e3:.0f} kB sent in each outer step)")
    print(f"projected, {PROJECTED_TASKS} tasks:")
    for num in (1, 2, 4, 8, 16, 32, 64):
        seconds = projected(one, two, num)
        gain = projected(one, two, 1) / seconds
        print(f"  {num:3} processes {1e3 * seconds:9.1f} ms  {gain:6.1f} times as fast")


if __name__ == "__main__":
    measure() if sys.argv[1:] else main()
