"""An iteration of MAML with TRPO, sampling and outer step apart, against MAML libraries' loop.

    python benchmarks/maml.py

HalfCheetahVel, 20 tasks x 20 roll-outs x 200 steps before one inner step and as many behind it,
100-100 ReLU, 10 iterations of conjugate gradients. The peer makes the outer step with the same
policy on the same samples as tristandeleu/pytorch-maml-rl does: task by task in Python, the KL's
Hessian-vector products by differentiating its gradient again. Its line search is left out on both
sides: how often it halves is chance. Seconds are CPU time of one torch thread, which other load on
the machine disturbs less than wall-clock; sampling is wall-clock on all cores.

A KL product is then taken apart: its floating-point operations against the least (through the inner
step, a pass of tangents there, one of the adapted policies', and both back), and its time against
that of these matrix products and nothing else, in blocks that stay in the cache.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from demokit.envs import make_family
from demokit.envs.tasks import make_tasks
from demokit.learning.networks import Params
from demokit.random import stream
from gmps.distributed import WHOLE
from gmps.gradient import GradientLearner
from gmps.methods.maml.learner import start
from gmps.methods.maml.objective import MetaSurrogate, OverTasks, Stage
from gmps.methods.maml.options import MAMLOptions
from gmps.problem import Problem, Training
from gmps.steps.losses import policy_gradient
from gmps.steps.ppo import clipped_surrogate
from gmps.steps.trust_region import conjugate_gradient, mean_kl

NUM_TASKS, CG = 20, 10
REPEATS, BLOCK = 3, 4_000  # rows
OPTIONS = MAMLOptions(hidden_width=100, activation="relu")


def main() -> None:
    torch.set_num_threads(1)
    family = make_family("cheetah-vel")
    tasks = make_tasks(family, "uniform", "train", num_tasks=NUM_TASKS)
    problem = Problem.in_family(family, "dense", "state", tasks)
    learner = start(Training(problem, OPTIONS))
    sampler = problem.sampler(tasks, explore=OPTIONS.rollouts_per_task)
    roll_out(learner, sampler)
    began = time.perf_counter()
    stages = roll_out(learner, sampler)
    sampling_s = time.perf_counter() - began
    ours, theirs = natural_gradient(learner, stages), loop(learner, stages)
    ours_s, theirs_s = race(
        lambda: natural_gradient(learner, stages), lambda: loop(learner, stages)
    )
    off = max(float((ours[n] - v).norm() / v.norm()) for n, v in theirs.items() if v.numel())
    steps = 2 * sampler.num_steps
    print(f"MAML-TRPO, {family.name}: {NUM_TASKS} x {OPTIONS.rollouts_per_task} x {family.horizon}")
    print(f"  sampling           {sampling_s:8.2f} s   {steps / sampling_s:10,.0f} steps/s")
    print(f"  outer step, ours   {ours_s:8.2f} s")
    print(f"  outer step, loop   {theirs_s:8.2f} s")
    print(f"  ratio of outer steps {theirs_s / ours_s:6.2f}   (target >= 5.00)")
    take_apart(learner, stages)
    print(f"  largest difference of the natural gradients {off:.1e}")


def roll_out(learner: GradientLearner, sampler) -> tuple:
    belief, stages = learner.begin(NUM_TASKS), []
    for step in range(2):
        rngs = sampler.streams(stream(0, "rollouts", step))
        explorer = learner.explorer(belief, step, sampler.explore, rngs)
        rollouts = sampler(explorer, rngs).explored.rollouts
        stages.append(Stage.of(rollouts, learner.inner_batch(rollouts)))
        belief = learner.adapt(belief, step, rollouts, None)
    return tuple(stages)


def natural_gradient(learner: GradientLearner, stages: tuple) -> Params:
    over, theta = over_tasks(learner, stages), learner.meta.theta
    return conjugate_gradient(damped(over.kl_product(theta)), over.gradient(theta), CG)


def take_apart(learner: GradientLearner, stages: tuple) -> None:
    theta = learner.meta.theta
    product = over_tasks(learner, stages).kl_product(theta)
    with FlopCounterMode(display=False) as counted:
        product(theta)
    products = least_products(learner, stages)
    least = sum(2 * x.shape[0] * x.shape[1] * y.shape[1] for x, y in products)
    whole_s, alone_s = race(lambda: product(theta), lambda: multiplied(products))
    print(f"  a KL product         {counted.get_total_flops() / least:6.2f} x the least operations")
    print(f"  its products alone   {alone_s / whole_s:6.2f} of its time ({whole_s:.2f} s)")


def least_products(learner: GradientLearner, stages: tuple) -> list[tuple[Tensor, Tensor]]:
    """Of a KL product: twice a Hessian-vector product before, J and J^T behind the inner step."""
    found: list[tuple[Tensor, Tensor]] = []
    blocks = stages[0].weight.numel() // BLOCK
    for i, (weight, _) in enumerate(learner.policy.layers(learner.meta.theta)):
        fan_in, fan_out = weight.shape
        x, w, d = (torch.randn(s) for s in ((BLOCK, fan_in), weight.shape, (BLOCK, fan_out)))
        straight, turned = (2 * 1 + 1, 2 * 1 + 1) if i == 0 else (2 * 4 + 3, 2 * 2 + 1)
        found += blocks * (straight * [(x, w)] + turned * [(d.T, x)])
    return found


def multiplied(products: list[tuple[Tensor, Tensor]]) -> Params:
    for left, right in products:
        torch.mm(left, right)
    return {}


def over_tasks(learner: GradientLearner, stages: tuple) -> OverTasks:
    theta, alpha = learner.meta.theta, learner.step_sizes(0)
    paid = torch.zeros(NUM_TASKS)

    def of_some(own: slice) -> MetaSurrogate:
        rows = tuple(stage.rows(own) for stage in stages)
        return MetaSurrogate.at(theta, OPTIONS.form, learner.inner, alpha, rows, paid[own])

    return OverTasks.of(of_some, stages[0].weight, WHOLE)


def loop(learner: GradientLearner, stages: tuple) -> Params:
    """The same, task by task, by reverse over reverse."""
    policy, theta = learner.policy, {n: v.clone() for n, v in learner.meta.theta.items()}
    leaves = [value.requires_grad_() for value in theta.values()]
    losses, kls = [], []
    for i in range(NUM_TASKS):
        before, after = (stage.rows(slice(i, i + 1)) for stage in stages)
        log_prob = policy.dist(theta, before.seen.observation).log_prob(before.seen.action)
        loss = policy_gradient(log_prob, before.seen.advantage)
        gradient = torch.autograd.grad(loss, leaves, create_graph=True)
        phi = {
            name: value - OPTIONS.inner_lr * moved
            for (name, value), moved in zip(theta.items(), gradient, strict=True)
        }
        adapted = policy.dist(phi, after.seen.observation)
        log_prob = adapted.log_prob(after.seen.action)
        seen = after.seen
        losses.append(clipped_surrogate(log_prob, seen.behaviour_log_prob, seen.advantage))
        old = type(adapted)(*(part.detach() for part in adapted))
        kls.append(mean_kl(old, adapted, after.weight))
    loss, kl = torch.stack(losses).mean(), torch.stack(kls).mean()
    gradient = torch.autograd.grad(loss, leaves, retain_graph=True)
    slopes = torch.autograd.grad(kl, leaves, create_graph=True)

    def product(vector: Params) -> Params:
        along = sum((s * vector[n]).sum() for n, s in zip(theta, slopes, strict=True))
        return named(theta, torch.autograd.grad(along, leaves, retain_graph=True))

    return conjugate_gradient(damped(product), named(theta, gradient), CG)


def damped(product: Callable[[Params], Params]) -> Callable[[Params], Params]:
    def by(vector: Params) -> Params:
        return {n: v + OPTIONS.cg_damping * vector[n] for n, v in product(vector).items()}

    return by


def named(theta: Params, values: tuple[Tensor, ...]) -> Params:
    return dict(zip(theta, values, strict=True))


def timed(work: Callable[[], Params]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def race(*works: Callable[[], Params]) -> list[float]:
    """The shortest time of each, taken in turns."""
    rounds = [[timed(work) for work in works] for _ in range(REPEATS)]
    return [min(times) for times in zip(*rounds, strict=True)]


if __name__ == "__main__":
    main()
