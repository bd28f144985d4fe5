"""Print how good experts are: return, success and final error, next to targets.

    python benchmarks/experts.py                                 # the scripted ones
    python benchmarks/experts.py datasets/experts/*.safetensors  # those that train-expert wrote

Targets: Push and Ant, the mean return and final distance of the experts released with GMPS, dense
reward, ten training tasks (Push: 669.7 and 0.031 m; Ant: 539 and 0.33 m). Door, 98% of episodes
within 0.05 rad when scripted, 95% of them solved (within 0.1 rad) when learned. Point, none
published.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from demokit.envs import make_family
from demokit.envs.ant import goal_w_m
from demokit.envs.batch import SimBatch
from demokit.envs.sawyer import distance_m
from demokit.envs.tasks import make_tasks
from demokit.errors import DemokitError
from demokit.experts import load_expert
from demokit.learning.checkpoint import load_checkpoint
from demokit.protocols import Expert
from demokit.random import stream
from demokit.types import SPLITS, Array, FloatArray
from recorders.noise import NoisyExpert
from recorders.scripted import make_scripted

EPISODES_PER_TASK = 20
NOISE_STD = (0.0, 0.2)
_Error = Callable[[dict[str, Array]], FloatArray]
HIDDEN = ("point-rotated", "point-coded", "sliders", "arm-torque", "push-rotated")
FINAL_ERROR: dict[str, _Error] = {
    "point": lambda p: np.linalg.norm(p["point_pos_w_m"] - p["context"], axis=1),
    "push": lambda p: np.linalg.norm(p["block_pos_w_m"][:, :2] - p["context"], axis=1),
    "door": lambda p: np.abs(p["door_angle_rad"] - p["context"])[:, 0],
    "ant": lambda p: np.linalg.norm(p["torso_pos_w_m"][:, :2] - goal_w_m(p["context"]), axis=1),
    "cheetah-vel": lambda p: np.abs(p["mean_vel_x_w"] - p["context"])[:, 0],
    "pick-place": lambda p: np.linalg.norm(p["block_pos_w_m"] - p["context"], axis=1),
    **dict.fromkeys(HIDDEN, lambda p: -p["reward_dense"]),
    "push-rotated": lambda p: distance_m(p["block_pos_w_m"][:, :2], p["context"][:, :2]),
}
ROWS = (
    ("point", "uniform", "train", 20, ""),
    ("push", "paper", "train", 10, "return > 669.7, error < 0.031 m"),
    ("push", "paper", "validation", 20, ""),
    ("push", "ood", "ood", 20, ""),
    ("door", "paper", "train", 20, "98% within 0.05 rad; learned: success > 0.95"),
    ("door", "paper", "validation", 20, "98% within 0.05 rad"),
    ("door", "uniform", "train", 20, "98% within 0.05 rad"),
    ("door", "ood", "ood", 20, ""),
    ("ant", "paper", "train", 10, "return > 539, error < 0.33 m"),
    ("ant", "paper", "validation", 20, ""),
    ("cheetah-vel", "paper", "train", 20, ""),
    ("pick-place", "paper", "train", 20, ""),
    *((name, "uniform", split, 100, "success > 0.95") for name in HIDDEN for split in SPLITS[:2]),
)


def roll_out(
    family_name: str, expert: Expert, contexts: FloatArray, noise_std: float, seed: int = 0
) -> tuple[FloatArray, dict[str, Array]]:
    """Returns (N,) and the privileged terms at the end of an episode per context (N, C)."""
    family = make_family(family_name)
    sims = SimBatch(family, len(contexts))
    source = NoisyExpert(expert, noise_std, stream(seed, "action noise"))
    observation = sims.reset(contexts, np.arange(seed, seed + len(contexts)))
    returns, running = np.zeros(len(contexts)), np.ones(len(contexts), np.bool_)
    final = sims.privileged()
    for _ in range(family.horizon):
        step = sims.step(source.decide(observation, sims.privileged()).action)
        observation, returns = step.observation, returns + running * step.reward
        now = sims.privileged()
        final = {n: np.where(_rows(running, v), v, final[n]) for n, v in now.items()}
        running &= ~step.terminated
    return returns, final


def _rows(running: Array, values: Array) -> Array:
    """Which simulations still run, to choose among values (N, ...)."""
    return running.reshape(-1, *[1] * (values.ndim - 1))


def chosen_experts(paths: list[str]) -> dict[str, Expert]:
    """Family -> expert: those of the files, else the scripted ones."""
    if paths:
        families = [load_checkpoint(Path(path))[1].get("family", "push") for path in paths]
        return {name: load_expert(path, name) for name, path in zip(families, paths, strict=True)}
    scripted = {}
    for name in dict.fromkeys(row[0] for row in ROWS):
        try:
            scripted[name] = make_scripted(name)
        except DemokitError:
            continue
    return scripted


def main() -> None:
    """Print the table."""
    print(f"{'family':14}{'expert':20}{'tasks':18}{'noise':>6}{'episodes':>9}{'return':>9}{'success':>9}"
          f"{'error':>9}{'worst':>9}{'<0.05':>8}  target")  # fmt: skip
    experts = chosen_experts(sys.argv[1:])
    for name, task_set, split, num_tasks, target in (row for row in ROWS if row[0] in experts):
        tasks = make_tasks(make_family(name), task_set, split, num_tasks=num_tasks)
        contexts = np.repeat([task.context for task in tasks], EPISODES_PER_TASK, axis=0)
        for noise_std in NOISE_STD:
            returns, final = roll_out(name, experts[name], contexts, noise_std)
            error = FINAL_ERROR[name](final)
            print(f"{name:14}{experts[name].name:20}{f'{task_set}/{split}':18}{noise_std:6.1f}{len(contexts):9}"
                  f"{returns.mean():9.1f}{final['success'].mean():9.3f}{error.mean():9.4f}"
                  f"{error.max():9.4f}{(error < 0.05).mean():8.3f}  {target}")  # fmt: skip


if __name__ == "__main__":
    main()
