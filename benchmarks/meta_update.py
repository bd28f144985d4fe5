"""Milliseconds per outer step of GMPS, split into sampling and optimisation.

    python benchmarks/meta_update.py

The setting is that of Push: 20 tasks x 20 roll-outs x 50 steps in the inner loop, 10
demonstrations of 50 steps per task in the outer loss, 20 outer steps per set of roll-outs.
"""

from __future__ import annotations

import statistics
import time

import numpy as np
import torch

from demokit.envs import make_family
from demokit.envs.tasks import make_tasks
from gmps.adapt import InnerStep
from gmps.advantage import Advantage
from gmps.meta import Demos, MetaObjective, MetaParams, outer_step
from gmps.policy import AdaptSpec, GaussianPolicy
from gmps.rollout import Sampler, replicate

NUM_TASKS, ROLLOUTS, DEMOS, OUTER_STEPS, REPEATS = 20, 20, 10, 20, 3


def main() -> None:
    family = make_family("push")
    tasks = make_tasks(family, "paper", "train", num_tasks=NUM_TASKS)
    sampler = Sampler(family, tasks, "dense", explore=ROLLOUTS)
    zeros = torch.zeros(family.observation_width)
    policy = GaussianPolicy(zeros, zeros + 1, len(family.actions))
    theta = policy.init(torch.Generator().manual_seed(0))
    spec = AdaptSpec.all_but(theta, "log_std")
    meta = MetaParams(theta, spec.init_step_sizes(theta, 0.1))
    for leaf in meta.leaves():
        leaf.requires_grad_(True)
    optimizer = torch.optim.Adam(meta.leaves(), lr=1e-3)
    objective = MetaObjective(InnerStep(policy, spec), "squared", 0.1)
    demos = Demos(
        torch.randn(NUM_TASKS, DEMOS * family.horizon, family.observation_width),
        torch.randn(NUM_TASKS, DEMOS * family.horizon, len(family.actions)),
    )
    flat = demos.pooled()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        sampling, advantages, optimising = [], [], []
        for repeat in range(REPEATS):
            params = replicate(theta, NUM_TASKS)
            start = time.perf_counter()
            rollouts = sampler(policy, params, np.random.default_rng(repeat))
            sampled = time.perf_counter()
            batches = rollouts.inner_batch(Advantage(0.99, 1.0))
            estimated = time.perf_counter()
            for _ in range(OUTER_STEPS):
                outer_step(objective, meta, optimizer, batches, demos, flat, 10.0)
            optimising.append((time.perf_counter() - estimated) / OUTER_STEPS)
            sampling.append((sampled - start) / OUTER_STEPS)
            advantages.append((estimated - sampled) / OUTER_STEPS)
        parts = [1e3 * statistics.median(part) for part in (sampling, advantages, optimising)]
        print(
            f"torch threads {threads}: {sum(parts):6.1f} ms per outer step = sampling "
            f"{parts[0]:.1f} + advantages {parts[1]:.1f} + optimisation {parts[2]:.1f}"
        )


if __name__ == "__main__":
    main()
