"""Milliseconds per outer step of GMPS, split, and against the per-task loop of MAML libraries.

    python benchmarks/meta_update.py

The setting is that of Push: 20 tasks x 20 roll-outs x 50 steps in the inner loop, 10
demonstrations of 50 steps per task in the outer loss, 20 outer steps per set of roll-outs. The
peer does the same update in a Python loop over tasks with `torch.autograd.grad(create_graph=True)`.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

import numpy as np
import torch

from demokit.envs import make_family
from demokit.envs.tasks import make_tasks
from gmps.adapt import InnerBatch, InnerStep
from gmps.advantage import Advantage
from gmps.losses import behaviour_cloning
from gmps.meta import Demos, MetaObjective, MetaParams, outer_step
from gmps.policy import AdaptSpec, GaussianPolicy
from gmps.rollout import Sampler, replicate

NUM_TASKS, ROLLOUTS, DEMOS, OUTER_STEPS, REPEATS = 20, 20, 10, 20, 3
MAX_GRAD_NORM = 10.0


@dataclass
class Problem:
    """Parameters, demonstrations and roll-outs of the benchmark."""

    meta: MetaParams
    objective: MetaObjective
    optimizer: torch.optim.Optimizer
    demos: Demos
    batches: InnerBatch | None = None

    def ours(self) -> None:
        """An outer step of demokit."""
        args = self.demos, self.demos.pooled(), MAX_GRAD_NORM
        outer_step(self.objective, self.meta, self.optimizer, self.batches, *args)

    def per_task_loop(self) -> torch.Tensor:
        """The same loss, one task after the other."""
        inner, losses = self.objective.inner, []
        for i in range(NUM_TASKS):
            batch, demos = (type(b)(*(x[i] for x in b)) for b in (self.batches, self.demos))
            adapted, frozen = inner.spec.split(self.meta.theta)
            loss = inner.loss(adapted, frozen, batch)
            gradient = torch.autograd.grad(loss, list(adapted.values()), create_graph=True)
            phi = {
                name: value - self.meta.step_sizes[name] * g
                for (name, value), g in zip(adapted.items(), gradient, strict=True)
            }
            dist = inner.policy.dist({**frozen, **phi}, demos.observation)
            losses.append(behaviour_cloning(dist, demos.action, demos.weight, kind="squared"))
        pooled = self.demos.pooled()
        before = inner.policy.dist(self.meta.theta, pooled.observation)
        pre = behaviour_cloning(before, pooled.action, pooled.weight, kind="squared")
        return torch.stack(losses).mean() + self.objective.pre_weight * pre

    def peer(self) -> None:
        """An outer step of the loop."""
        self.optimizer.zero_grad()
        self.per_task_loop().backward()
        torch.nn.utils.clip_grad_norm_(self.meta.leaves(), MAX_GRAD_NORM)
        self.optimizer.step()


def make_problem(policy: GaussianPolicy, horizon: int) -> Problem:
    theta = policy.init(torch.Generator().manual_seed(0))
    spec = AdaptSpec.all_but(theta, "log_std")
    meta = MetaParams(theta, spec.init_step_sizes(theta, 0.1))
    for leaf in meta.leaves():
        leaf.requires_grad_(True)
    samples = NUM_TASKS, DEMOS * horizon
    demos = Demos(
        torch.randn(*samples, len(policy.observation_mean)),
        torch.randn(*samples, policy.action_width),
        torch.ones(samples),
    )
    objective = MetaObjective(policy, InnerStep(policy, spec), "squared", 0.1)
    return Problem(meta, objective, torch.optim.Adam(meta.leaves(), lr=1e-3), demos)


def main() -> None:
    family = make_family("push")
    tasks = make_tasks(family, "paper", "train", num_tasks=NUM_TASKS)
    sampler = Sampler(family, tasks, "dense", explore=ROLLOUTS)
    zeros = torch.zeros(family.observation_width)
    policy = GaussianPolicy(zeros, zeros + 1, len(family.actions))
    problem = make_problem(policy, family.horizon)
    for threads in (1, 2):
        torch.set_num_threads(threads)
        times: dict[str, list[float]] = {"sample": [], "advantage": [], "ours": [], "peer": []}
        for repeat in range(REPEATS):
            params = replicate(problem.meta.theta, NUM_TASKS)
            rng = np.random.default_rng(repeat)
            marks = [time.perf_counter()]
            rollouts = sampler(policy, params, rng)
            marks.append(time.perf_counter())
            problem.batches = rollouts.inner_batch(Advantage(0.99, 1.0))
            marks.append(time.perf_counter())
            for step in (problem.ours, problem.peer):
                for _ in range(OUTER_STEPS):
                    step()
                marks.append(time.perf_counter())
            for name, spent in zip(times, np.diff(marks), strict=True):
                times[name].append(1e3 * spent / OUTER_STEPS)
        report(threads, {name: statistics.median(values) for name, values in times.items()})


def report(threads: int, ms: dict[str, float]) -> None:
    total = ms["sample"] + ms["advantage"] + ms["ours"]
    print(
        f"torch threads {threads}: {total:6.1f} ms per outer step = sampling {ms['sample']:.1f} + "
        f"advantages {ms['advantage']:.1f} + optimisation {ms['ours']:.1f}; per-task loop "
        f"{ms['peer']:.1f} ms for the optimisation: {ms['peer'] / ms['ours']:.2f} x ours"
    )


if __name__ == "__main__":
    main()
