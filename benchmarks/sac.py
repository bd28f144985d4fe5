"""Our SAC against stable-baselines3's own, in one run: steps, updates, and return by wall-clock.

    python benchmarks/sac.py [family] [seconds]

All learn the same contextual task set from the same observation, with the same networks' width,
batch size, updates per environment step (one per 16) and torch threads: one for every core (ours
takes four at most). Peers are stable-baselines3's SAC as it comes, over its `DummyVecEnv` and its
`SubprocVecEnv` with 8 of our Gymnasium environments. Each learns for `seconds` (default 120) after
its first updates; what came before, compilation above all, is the column "warm-up". Then its
policy's mean is evaluated on every task. Nothing else should run: what waits for a thread that does
not run, waits long.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Box
from stable_baselines3 import SAC
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

from demokit.envs import make_family
from demokit.envs.gym import Env
from demokit.envs.tasks import make_tasks
from demokit.learning.expert import ExpertInputs
from demokit.random import stream, stream_seed
from recorders.sac.config import SacConfig
from recorders.sac.train import MAX_THREADS, Evaluator, make_agent, policy_mean, set_threads
from recorders.sac.vec_env import TaskVecEnv

STEPS_PER_UPDATE, PEER_ENVS, WARMUP, BUFFER = 16, 8, 5_000, 200_000
FIRST_UPDATES = 20
CORES = os.cpu_count() or 1
CONFIG = SacConfig(warmup_steps=WARMUP, buffer_size=BUFFER, threads=min(CORES, MAX_THREADS))


class Contextual(gymnasium.Wrapper):
    """One of our environments that shows everything, as experts see it."""

    def __init__(self, family: str) -> None:
        super().__init__(Env(family, task_set="paper"))
        self.family = self.unwrapped.family
        self.inputs = inputs_of(family)
        self.observation_space = Box(-np.inf, np.inf, (self.inputs.width,), np.float32)

    def reset(self, **options):
        """Everything, and no info."""
        _, info = super().reset(**options)
        return self.inputs.gather(one(info))[0].astype(np.float32), {}

    def step(self, action):
        """Everything; the reward with the family's shaping; no info."""
        _, reward, terminated, truncated, info = super().step(action)
        seen = one(info)
        reward += float(self.family.shaping(seen, seen["context"])[0])
        return self.inputs.gather(seen)[0].astype(np.float32), reward, terminated, truncated, {}


def one(info: dict) -> dict[str, np.ndarray]:
    """The privileged terms of an info, as a batch of one."""
    return {name: np.asarray(value)[None] for name, value in info["privileged"].items()}


def inputs_of(family: str) -> ExpertInputs:
    return ExpertInputs.of(make_family(family), make_family(family).context.width)


class Clock(BaseCallback):
    """Stops so many seconds after the first FIRST_UPDATES updates."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def _on_training_start(self) -> None:
        self.begun, self.warm = time.monotonic(), None

    def _on_step(self) -> bool:
        now = time.monotonic()
        self.end = now, self.num_timesteps, self.model._n_updates
        if self.warm is None and self.model._n_updates >= FIRST_UPDATES:
            self.warm = self.end
        return self.warm is None or now - self.warm[0] < self.seconds

    @property
    def rates(self) -> tuple[float, float]:
        """Environment steps and updates per second."""
        seconds, steps, updates = np.subtract(self.end, self.warm)
        return steps / seconds, updates / seconds


@dataclass
class Acting:
    """stable-baselines3's policy as an expert."""

    model: SAC
    inputs: ExpertInputs
    name: str = "sb3"

    def act(self, observation, privileged):  # noqa: ARG002
        """The library's deterministic prediction."""
        seen = self.inputs.gather(privileged).astype(np.float32)
        return self.model.predict(seen, deterministic=True)[0]


def ours(family: str):
    tasks = make_tasks(make_family(family), "paper", "train")
    set_threads(CONFIG)
    rng = stream(0, "tasks and starts")
    agent = make_agent(TaskVecEnv(make_family(family), tasks, CONFIG.num_envs, rng), CONFIG)
    return agent, lambda: policy_mean(agent, make_family(family))


def peer(vec_env: Callable, family: str):
    torch.set_num_threads(CORES)
    env = vec_env([lambda: Monitor(Contextual(family))] * PEER_ENVS)
    model = SAC(
        "MlpPolicy",
        env,
        learning_rate=CONFIG.learning_rate,
        batch_size=CONFIG.batch_size,
        buffer_size=BUFFER,
        learning_starts=WARMUP,
        train_freq=STEPS_PER_UPDATE // PEER_ENVS,
        gradient_steps=1,
        policy_kwargs={"net_arch": [CONFIG.hidden_width] * 2},
        seed=0,
        device="cpu",
    )
    return model, lambda: Acting(model, inputs_of(family))


def main() -> None:
    family = sys.argv[1] if len(sys.argv) > 1 else "push"
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 120.0
    evaluate = Evaluator(make_family(family), make_tasks(make_family(family), "paper", "train"), 2)
    contenders = {
        "demokit": ours,
        "sb3, DummyVecEnv": partial(peer, DummyVecEnv),
        "sb3, SubprocVecEnv": partial(peer, SubprocVecEnv),
    }
    print(f"{family}: {seconds:.0f} s each, one update per {STEPS_PER_UPDATE} environment steps")
    print(
        f"{'':20}{'steps/s':>10}{'updates/s':>11}{'ratio':>7}{'return':>9}{'success':>9}{'warm-up':>9}"
    )
    first = None
    for name, make in contenders.items():
        torch.manual_seed(stream_seed(0, "networks and updates"))
        model, expert = make(family)
        clock = Clock(seconds)
        model.learn(10**9, clock, log_interval=2**62)
        found, (steps, updates) = evaluate(expert()), clock.rates
        first = first or steps
        print(
            f"{name:20}{steps:10,.0f}{updates:11.1f}{first / steps:7.2f}"
            f"{found.mean_return:9.1f}{found.success_rate:9.2f}"
            f"{clock.warm[0] - clock.begun:8.1f}s",
            flush=True,
        )
        model.get_env().close()
    print("ratio: how many times faster demokit is (target >= 2.00)")


if __name__ == "__main__":
    main()
