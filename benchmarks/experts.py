"""Print how good the scripted experts are: return, success and final error, next to targets.

    python benchmarks/experts.py

Targets: Push, the mean return (669.7) and final distance (0.031 m) of the experts released with
GMPS, dense reward, horizon 50, first ten training tasks. Door, 98% of episodes within 0.05 rad.
Point, none published.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from demokit.envs import make_family
from demokit.envs.batch import SimBatch
from demokit.envs.tasks import make_tasks
from demokit.types import Array, FloatArray
from recorders.noise import NoisyExpert
from recorders.scripted import make_scripted

EPISODES_PER_TASK = 20
NOISE_STD = (0.0, 0.2)
_Error = Callable[[dict[str, Array]], FloatArray]
FINAL_ERROR: dict[str, _Error] = {
    "point": lambda p: np.linalg.norm(p["point_pos_w_m"] - p["context"], axis=1),
    "push": lambda p: np.linalg.norm(p["block_pos_w_m"][:, :2] - p["context"], axis=1),
    "door": lambda p: np.abs(p["door_angle_rad"] - p["context"])[:, 0],
}
ROWS = (
    ("point", "uniform", "train", 20, ""),
    ("push", "paper", "train", 10, "return > 669.7, error < 0.031 m"),
    ("push", "paper", "validation", 20, ""),
    ("push", "ood", "ood", 20, ""),
    ("door", "paper", "train", 20, "98% within 0.05 rad"),
    ("door", "paper", "validation", 20, "98% within 0.05 rad"),
    ("door", "uniform", "train", 20, "98% within 0.05 rad"),
    ("door", "ood", "ood", 20, ""),
)


def roll_out(
    family_name: str, contexts: FloatArray, noise_std: float, seed: int = 0
) -> tuple[FloatArray, dict[str, Array]]:
    """Returns (N,) and the final privileged terms of one episode per context (N, C)."""
    family = make_family(family_name)
    sims = SimBatch(family, len(contexts))
    source = NoisyExpert(make_scripted(family_name), noise_std, np.random.default_rng(seed))
    observation = sims.reset(contexts, np.arange(seed, seed + len(contexts)))
    returns = np.zeros(len(contexts))
    for _ in range(family.horizon):
        step = sims.step(source.decide(observation, sims.privileged()).action)
        observation, returns = step.observation, returns + step.reward
    return returns, sims.privileged()


def main() -> None:
    """Print the table."""
    print(f"{'family':7}{'tasks':20}{'noise':>6}{'episodes':>9}{'return':>9}{'success':>9}"
          f"{'error':>9}{'worst':>9}{'<0.05':>8}  target")  # fmt: skip
    for name, task_set, split, num_tasks, target in ROWS:
        tasks = make_tasks(make_family(name), task_set, split, num_tasks=num_tasks)
        contexts = np.repeat([task.context for task in tasks], EPISODES_PER_TASK, axis=0)
        for noise_std in NOISE_STD:
            returns, final = roll_out(name, contexts, noise_std)
            error = FINAL_ERROR[name](final)
            print(f"{name:7}{f'{task_set}/{split}':20}{noise_std:6.1f}{len(contexts):9}"
                  f"{returns.mean():9.1f}{final['success'].mean():9.3f}{error.mean():9.4f}"
                  f"{error.max():9.4f}{(error < 0.05).mean():8.3f}  {target}")  # fmt: skip


if __name__ == "__main__":
    main()
