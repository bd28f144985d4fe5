"""Acting through `demokit.load_policy` against the network alone, in one run.

    python benchmarks/act.py runs/gmps-0

Ours: `Agent.act` of one observation, checked, and the action as an array; `Trial.act` and `record`
of an exploring episode. The limit: the same actor, asked for its distribution of a tensor that is
ready. And how long a new process takes to its first action, beside `import torch` alone.
"""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np
import torch

import demokit
from gmps.experience.actor import Seen

CALLS, REPEATS, PROCESSES = 1000, 9, 3
MOST_OVER_US = 100


def main() -> None:
    torch.set_num_threads(1)
    agent = demokit.load_policy(sys.argv[1])
    given = np.zeros(agent.observation_shapes[""], np.float32)
    ours, limit = fastest(lambda: agent.act(given)), network(agent, given)
    print(f"{agent.method} on {agent.family}, one observation, one thread")
    print(f"  the network alone          {limit:8.1f} us")
    print(f"  act                        {ours:8.1f} us, {ours / limit:.1f} times that")
    print(f"  over the network           {ours - limit:8.1f} us   (target < {MOST_OVER_US})")
    print(f"  a trial's act and record   {exploring(agent, given):8.1f} us")
    seen = f"numpy.zeros({len(given)})"
    first = f"import numpy, demokit; demokit.load_policy({sys.argv[1]!r}).act({seen})"
    began, torch_s = cold(first), cold("import torch")
    print(f"  new process to its first action {began:.2f} s, import torch {torch_s:.2f} s,")
    print(f"  ratio {began / torch_s:.2f}")


def network(agent, given) -> float:
    """Microseconds of the actor by itself."""
    with torch.no_grad():
        actor = agent.learner.exploiter(agent.belief, 1)
        observation = torch.from_numpy(given)[None, None].clone()
        action = torch.zeros(1, 1, len(agent.action_names))
        alive = torch.ones(1, 1, dtype=torch.bool)
        seen = Seen(0, observation, action, action[..., 0], alive)
        return fastest(lambda: actor(actor.memory, seen))


def exploring(agent, given) -> float:
    """Median microseconds of a step of a trial that does not end its episode."""
    trial, took = agent.new_task(), []
    while trial.gathering:
        start = time.perf_counter()
        trial.act(given)
        if not trial.record(float(len(took))):
            took.append(time.perf_counter() - start)
    return float(np.median(took)) * 1e6


def fastest(call) -> float:
    """Microseconds of a call, the fastest of several rounds."""
    rounds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        for _ in range(CALLS):
            call()
        rounds.append((time.perf_counter() - start) / CALLS * 1e6)
    return min(rounds)


def cold(code: str) -> float:
    """Seconds of a new process, the fastest of several."""
    found = []
    for _ in range(PROCESSES):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        found.append(time.perf_counter() - start)
    return min(found)


if __name__ == "__main__":
    main()
