"""Outer steps of GMPS a second, and their memory, against the per-task loop of MAML libraries.

    python benchmarks/meta_update.py

Settings: Push (20 tasks x 20 roll-outs x 50 steps) and the paper's Ant (40 x 50 x 200) with 10
demonstrations per task in the outer loss; Push from images as `gmps/presets/vision.toml` has it:
every fifth outer step sees every fifth step of 20 roll-outs and of 5 demonstrations, and its
convolutions learn; the four between see all of them ("kept" is one of these, with a quarter of
what it takes to compute the features that are kept). The peer does the update with the same policy
on the same samples in a Python loop over tasks with `torch.autograd.grad(create_graph=True)`; its
convolutions always learn. "products" are the float32 matrix products of an outer step on states and
nothing else: no step in float32 is faster. Each contender runs in a process of its own, so that its
peak memory is its own; seconds are CPU time of one torch thread, which other load on the machine
disturbs less than wall-clock.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import torch

from demokit.random import torch_stream
from gmps.experience.demos import DemoBatch
from gmps.experience.observation import Observation, each
from gmps.methods.gmps.objective import MetaObjective, outer_step
from gmps.policies.encoder import Encoder
from gmps.policies.gaussian import AdaptSpec, GaussianPolicy
from gmps.policies.meta_params import MetaParams
from gmps.steps.inner import InnerBatch, InnerStep
from gmps.steps.losses import behaviour_cloning

MAX_GRAD_NORM, REPEATS, SECONDS = 10.0, 3, 4.0
BLOCK = 4_000  # rows


class Setting(NamedTuple):
    """Sizes of an outer step; vectors and actions are those of the family."""

    num_tasks: int
    rollouts: int
    horizon: int
    vector: int
    action: int
    demos: int = 10
    encoder: Encoder | None = None
    contenders: tuple[str, ...] = ("loop", "fp32", "bf16", "products")

    @property
    def object_width(self) -> int:
        """Image policies say where the object is."""
        return 3 if self.encoder else 0

    @property
    def num_features(self) -> int:
        """What the first layer sees, without the bias transformation."""
        return self.vector + self.object_width + (self.encoder.num_points if self.encoder else 0)


EYES = Encoder(("image",), ("vector",))
SETTINGS = {
    "push": Setting(20, 20, 50, 6, 3),
    "ant": Setting(40, 50, 200, 122, 8),
    "push-vision, each fifth step": Setting(20, 20, 10, 3, 3, 5, EYES, ("loop", "fp32", "bf16")),
    "push-vision, between": Setting(20, 20, 50, 3, 3, 5, EYES, ("loop", "kept")),
}


class Problem(NamedTuple):
    """Parameters, roll-outs and demonstrations: random, of the true sizes."""

    inner: InnerStep
    objective: MetaObjective
    meta: MetaParams
    optimizer: torch.optim.Optimizer
    batches: InnerBatch
    demos: DemoBatch


def make_problem(setting: Setting, *, bf16: bool) -> Problem:
    rng = torch_stream(0, "problem")

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=rng)

    zeros = torch.zeros(setting.num_features)
    policy = GaussianPolicy(
        zeros, zeros + 1, setting.action, encoder=setting.encoder, object_width=setting.object_width
    )
    theta = policy.init(rng)
    spec = AdaptSpec.of_policy(theta)
    meta = MetaParams(theta, spec.init_step_sizes(theta, 0.1))
    samples = setting.num_tasks, setting.rollouts * setting.horizon
    seen = observed(setting, rng, *samples)
    with torch.no_grad():
        dist = policy.dist(theta, seen)
    action = dist.sample(normal(*samples, setting.action))
    batches = InnerBatch(seen, action, dist.log_prob(action), normal(*samples))
    shown = setting.num_tasks, setting.demos * setting.horizon
    demos = DemoBatch(
        observed(setting, rng, *shown),
        normal(*shown, setting.action),
        normal(*shown, setting.object_width),
        torch.ones(shown),
    )
    for leaf in meta.leaves():
        leaf.requires_grad_(True)
    inner, dtype = InnerStep(policy, spec), torch.bfloat16 if bf16 else None
    objective = MetaObjective(
        policy,
        lambda meta, own: inner.for_tasks(*meta, own, dtype),
        "squared",
        0.1,
        bf16=bf16,
        object_weight=1.0 if setting.encoder else 0.0,
    )
    return Problem(inner, objective, meta, torch.optim.Adam(meta.leaves(), lr=1e-3), batches, demos)


def observed(setting: Setting, rng: torch.Generator, *samples: int) -> Observation:
    """Random observations (*samples, ...): vectors, or images beside them."""
    vector = torch.randn(*samples, setting.vector, generator=rng)
    if setting.encoder is None:
        return vector
    image = torch.randint(256, (*samples, 48, 64, 3), dtype=torch.uint8, generator=rng)
    return {"image": image, "vector": vector}


def ours(problem: Problem) -> None:
    """An outer step of demokit."""
    _, objective, meta, optimizer, batches, demos = problem
    outer_step(objective, meta, optimizer, batches, demos, demos.pooled(), MAX_GRAD_NORM)


def kept(problem: Problem) -> None:
    """Four outer steps of demokit on features that are computed once."""
    encode, theta = problem.objective.policy.encode, problem.meta.theta
    with torch.no_grad():
        seen, shown = (encode(theta, part.observation) for part in (problem.batches, problem.demos))
    batches = problem.batches._replace(observation=seen)
    problem = problem._replace(batches=batches, demos=problem.demos._replace(observation=shown))
    for _ in range(4):
        ours(problem)


class Products:
    """The matrix products of an outer step, in blocks of rows that stay in the cache."""

    def __init__(self, problem: Problem) -> None:
        rows, outer = problem.batches.advantage.numel(), problem.demos.weight.numel()
        shapes = [weight.shape for weight, _ in problem.objective.policy.layers(problem.meta.theta)]
        first = True
        self._all: list[tuple[torch.Tensor, ...]] = []
        for fan_in, fan_out in shapes:
            # Inner: forward, tangents, and, behind the first layer, three times back; the gradient
            # and its derivative. Outer, for the losses after and before: forward and back.
            self._add(rows, fan_in, fan_out, *((2, 2) if first else (6, 3)))
            self._add(2 * outer, fan_in, fan_out, *((1, 1) if first else (2, 1)))
            first = False

    def _add(self, rows: int, fan_in: int, fan_out: int, straight: int, turned: int) -> None:
        x, w, d = (
            torch.randn(shape) for shape in ((BLOCK, fan_in), (fan_in, fan_out), (BLOCK, fan_out))
        )
        blocks = rows // BLOCK
        self._all += [(x, w, torch.empty_like(d))] * straight * blocks
        self._all += [(d.T, x, torch.empty(fan_out, fan_in))] * turned * blocks

    def __call__(self, _: Problem) -> None:
        """Compute them."""
        for left, right, out in self._all:
            torch.mm(left, right, out=out)


def loop(problem: Problem) -> None:
    """An outer step of the loop."""
    problem.optimizer.zero_grad()
    loop_loss(problem).backward()
    torch.nn.utils.clip_grad_norm_(problem.meta.leaves(), MAX_GRAD_NORM)
    problem.optimizer.step()


def loop_loss(problem: Problem) -> torch.Tensor:
    """The same loss, one task after the other."""
    (theta, step_sizes), inner, losses = problem.meta, problem.inner, []
    for i in range(len(problem.demos.action)):
        batch = InnerBatch(*(each(lambda values, i=i: values[i], part) for part in problem.batches))
        demos = DemoBatch(*(each(lambda values, i=i: values[i], part) for part in problem.demos))
        adapted, frozen = inner.spec.split(theta)
        loss = inner.loss(adapted, frozen, batch)
        gradient = torch.autograd.grad(loss, list(adapted.values()), create_graph=True)
        phi = {
            name: value - step_sizes[name] * g
            for (name, value), g in zip(adapted.items(), gradient, strict=True)
        }
        losses.append(imitation(inner.policy, {**frozen, **phi}, demos))
    everything = problem.demos.pooled()
    before = imitation(inner.policy, theta, everything)
    features = inner.policy.encode(theta, everything.observation)
    position = inner.policy.object_loss(features, everything.object_position, everything.weight)
    weights = problem.objective.pre_weight, problem.objective.object_weight
    return torch.stack(losses).mean() + weights[0] * before + weights[1] * position


def imitation(policy: GaussianPolicy, params: dict[str, torch.Tensor], demos: DemoBatch):
    dist = policy.dist(params, demos.observation)
    return behaviour_cloning(dist, demos.action, demos.weight, kind="squared")


def timed(step: Callable[[Problem], None], problem: Problem) -> float:
    """The least CPU seconds of a step: what disturbs it only adds."""
    seconds: list[float] = []
    while len(seconds) < 1 + REPEATS or sum(seconds) < SECONDS:
        start = time.process_time()
        step(problem)
        seconds.append(time.process_time() - start)
    return min(seconds[1:])


def measure(setting: str, contender: str) -> None:
    """Print seconds per outer step, and the MB of memory that the steps added at the peak."""
    torch.set_num_threads(1)
    problem = make_problem(SETTINGS[setting], bf16=contender == "bf16")
    before = peak_mb()
    other: dict[str, Callable[[Problem], None]] = {"loop": loop, "kept": kept}
    step, steps = other.get(contender, ours), 4 if contender == "kept" else 1
    if contender == "products":
        step = Products(problem)
    print(timed(step, problem) / steps, peak_mb() - before)


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    for name, setting in SETTINGS.items():
        print(f"{name}: {setting.num_tasks} x {setting.rollouts} x {setting.horizon}")
        reference = None
        for contender in setting.contenders:
            command = [sys.executable, __file__, name, contender]
            found = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            seconds, memory = map(float, found.split())
            reference = reference or seconds
            print(
                f"  {contender:8} {1 / seconds:8.2f} outer steps/s  {memory:7,.0f} MB"
                f"  {reference / seconds:5.2f} x the loop"
            )


if __name__ == "__main__":
    measure(*sys.argv[1:]) if sys.argv[1:] else main()
