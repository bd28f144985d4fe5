"""From nothing to the first action of a trained policy, and what an action costs.

    python benchmarks/startup.py [runs/gmps-0]

Without a run, a short one of Push is trained first. New processes: `demokit.load_policy` and one
action, beside `import torch` alone, in turns. In this process: `Agent.act` of one observation,
checked, and the action as an array, beside the network alone, which is the same actor asked for its
distribution of a tensor that is ready; `Trial.act` and `record` of an exploring episode.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

import demokit
from gmps.experience.actor import Seen

CALLS, REPEATS, PROCESSES = 1000, 9, 7
MOST_COLD_S, MOST_OVER_US = 1.5, 100


def main() -> None:
    torch.set_num_threads(1)
    with TemporaryDirectory() as folder:
        run = sys.argv[1] if sys.argv[1:] else trained(Path(folder))
        agent = demokit.load_policy(run)
        print(f"{agent.method} on {agent.family}, one thread")
        starting(agent, run)
        acting(agent)


def trained(folder: Path) -> str:
    """A run of a few seconds."""
    demos, run = str(folder / "push.hdf5"), str(folder / "run")
    few = ("--tasks", "3", "--episodes-per-task", "2")
    quick = ("--iterations", "1", "--outer-steps", "1", "--rollouts-per-task", "2")
    for command in (
        ("record", "--env", "push", *few, "--out", demos),
        ("meta-train", "--demos", demos, *quick, "--output-dir", run),
    ):
        code = "from demokit.cli import main; main()"
        subprocess.run([sys.executable, "-c", code, *command], check=True, capture_output=True)
    return run


def starting(agent, run: str) -> None:
    """New processes, in turns."""
    seen = f"numpy.zeros({len(zeros(agent))})"
    ours = f"import numpy, demokit; demokit.load_policy({run!r}).act({seen})"
    pairs = [(cold(ours), cold("import torch")) for _ in range(PROCESSES)]
    began, alone = (statistics.median(times) for times in zip(*pairs, strict=True))
    ratio = statistics.median(ours / torch_s for ours, torch_s in pairs)
    print(f"new processes, medians of {PROCESSES}")
    print(f"  import torch               {alone:8.2f} s")
    print(f"  to the first action        {began:8.2f} s    (limit {MOST_COLD_S} s)")
    print(f"  ratio                      {ratio:8.2f}")


def acting(agent) -> None:
    """One observation after the other."""
    given = zeros(agent)
    ours, limit = fastest(lambda: agent.act(given)), network(agent, given)
    print(f"one observation, fastest of {REPEATS} rounds")
    print(f"  the network alone          {limit:8.1f} us")
    print(f"  act                        {ours:8.1f} us, {ours / limit:.1f} times that")
    print(f"  over the network           {ours - limit:8.1f} us   (limit {MOST_OVER_US} us)")
    print(f"  a trial's act and record   {exploring(agent, given):8.1f} us")


def zeros(agent) -> np.ndarray:
    """An observation of a state."""
    return np.zeros(agent.observation_shapes[""], np.float32)


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
    """Seconds of a new process."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
