"""What a Gymnasium environment of one's own costs: its steps a second as a family and in a loop.

The peer is a plain loop over the same environments; beside it stand the family `point`, which is
the same task on MuJoCo's batch in one thread, and a process for each of a few environments.
"""

from __future__ import annotations

from functools import partial
from time import perf_counter
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box

from demokit.envs import from_gymnasium, make_family
from demokit.envs.batch import make_sims
from demokit.envs.family import Family

NUM, FEW, ROUNDS, LIMIT = 400, 8, 3, 0.35


class Reach(gymnasium.Env[Any, Any]):
    """A point in the plane that goes to its task."""

    observation_space = Box(-2, 2, (2,), np.float32)
    action_space = Box(-0.1, 0.1, (2,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """See Gymnasium."""
        super().reset(seed=seed)
        self.goal = np.asarray((options or {})["task"])
        self.position = self.np_random.uniform(-0.1, 0.1, 2)
        return self.position.astype(np.float32), {}

    def step(self, action: Any) -> Any:
        """See Gymnasium."""
        self.position = np.clip(self.position + action, -2, 2)
        distance = float(np.linalg.norm(self.position - self.goal))
        return (
            self.position.astype(np.float32),
            -distance,
            False,
            False,
            {"success": distance < 0.1},
        )


def of_family(family: Family, num: int = NUM) -> float:
    """Steps a second of a batch."""
    sims = make_sims(family, num, num_threads=1)
    contexts = np.zeros((num, 2))
    action = np.full((num, 2), 0.1, np.float32)
    begun = perf_counter()
    for number in range(ROUNDS):
        sims.reset(contexts, [number] * num)
        for _ in range(family.horizon):
            sims.step(action)
    took_s = perf_counter() - begun
    sims.close()
    return ROUNDS * family.horizon * num / took_s


def of_loop(horizon: int) -> float:
    """Steps a second of the environments in a loop."""
    envs = [Reach() for _ in range(NUM)]
    action = np.full(2, 0.01, np.float32)
    begun = perf_counter()
    for number in range(ROUNDS):
        for env in envs:
            env.reset(seed=number, options={"task": np.zeros(2)})
        for _ in range(horizon):
            for env in envs:
                env.step(action)
    return ROUNDS * horizon * NUM / (perf_counter() - begun)


def main() -> None:
    """Print the table."""
    horizon = make_family("point").horizon
    own = partial(from_gymnasium, "reach", Reach, Box(-1, 1, (2,)), horizon=horizon)
    loop, sync = of_loop(horizon), of_family(own())
    rows = {
        "a plain loop": loop,
        "as a family": sync,
        f"as a family, {FEW} processes": of_family(own(vectorized="async"), FEW),
        "the family point, on MuJoCo": of_family(make_family("point")),
    }
    for name, rate in rows.items():
        print(f"{name:<30} {rate:>12,.0f} steps/s")
    print(f"family / loop: {sync / loop:.2f} (limit {LIMIT})")


if __name__ == "__main__":
    main()
