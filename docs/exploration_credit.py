"""What stands between meta-exploration and the four corners; the figures are in docs/methods.md.

    python docs/exploration_credit.py walks     pi and M learn beside a hand-written explorer
    python docs/exploration_credit.py learned   they learn beside mu; then others explore for them
    python docs/exploration_credit.py signal    ... and mu's gradient: how much of it is noise
    python docs/exploration_credit.py larger    ... and go on with 16 roll-outs of each

Four tasks, four roll-outs of each an iteration where nothing else is said. Return and success are
of the mean policy on the four corners, which are all there are, before and after one phase of
exploration.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import torch
from torch import Tensor

from demokit.envs import make_family
from demokit.learning.distributions import Gaussian
from gmps.evaluation import evaluate
from gmps.experience.actor import Seen
from gmps.method import find_method
from gmps.methods.maml.meta_exploration.learner import ExplorationLearner
from gmps.methods.maml.meta_exploration.networks import EXPLORER, groups
from gmps.methods.maml.meta_exploration.options import ExplorationOptions
from gmps.problem import Training
from gmps.sources import problem_of_family

ROUND, TOWARDS = "round", "towards"
CORNERS_M = 2.0 * torch.tensor([[1.0, 1.0], [-1.0, 1.0], [-1.0, -1.0], [1.0, -1.0]])
STEP_M, NEAR_M, STD = 0.2, 0.25, 0.3
EPISODES, ITERATIONS, WALKED = 4, 60, 50
MANY, FURTHER, SEEDS, REPORTED_LR, TRIALS = 16, 30, (5, 6), 7e-4, 8
BATCHES = {EPISODES: 32, MANY: 16, 64: 8}
"""Roll-outs of a task -> gradients that are compared."""


class Walker:
    """Goes from corner to corner, or in each episode to one of them; with some noise."""

    memory = None

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __call__(self, memory: Tensor | None, seen: Seen) -> tuple[Gaussian, Tensor]:
        """See `Actor`; the memory is the number of the corner (M, K) that it goes to."""
        at = seen.observation
        assert isinstance(at, Tensor)
        if memory is None:
            memory = (torch.arange(at.shape[1]) % 4).expand(at.shape[:2])
        if self.kind == ROUND:
            there = (CORNERS_M[memory] - at).abs().amax(-1) < NEAR_M
            memory = torch.where(there, (memory + 1) % 4, memory)
        action = ((CORNERS_M[memory] - at) / STEP_M).clamp(-1, 1)
        return Gaussian(action, torch.full((2,), STD)), memory


@dataclass(frozen=True, eq=False)
class Guided(ExplorationLearner):
    """A hand-written explorer in place of mu."""

    kind: str = ROUND

    def explorer(self, *_: object) -> Walker:
        """See `MetaLearner`."""
        return Walker(self.kind)


def guided(learner: ExplorationLearner, kind: str) -> Guided:
    """The same, led."""
    own = {each.name: getattr(learner, each.name) for each in fields(ExplorationLearner)}
    return Guided(**own, kind=kind)


def training(**options: object) -> Training[ExplorationOptions]:
    """On the four corners."""
    problem = problem_of_family(make_family("point-corner-2m"), None, None, "sparse", "state")
    return Training(problem, ExplorationOptions(threads=1, **options))


def learned(kind: str | None, iterations: int) -> ExplorationLearner:
    """What is learned beside mu, or beside a hand-written explorer."""
    given = training(iterations=iterations, rollouts_per_task=EPISODES)
    learner = find_method("meta-exploration").code.start(given)
    return further(given, guided(learner, kind) if kind else learner)


def further(
    given: Training[ExplorationOptions], learner: ExplorationLearner, trials: int = 1
) -> ExplorationLearner:
    """What it is after all iterations; it is judged by trials of each corner on the way."""
    code, episodes = find_method("meta-exploration").code, given.options.rollouts_per_task
    for done, each in enumerate(code.train(given, learner, {}, 0), 1):
        learner = each.learner
        if done % 10 == 0:
            print(
                f"{done:4d} iterations: {judged(learner, episodes, trials)}, "
                f"mu itself is paid {each.scalars['return_pre']:.0f}",
                flush=True,
            )
    return learner


def judged(learner: ExplorationLearner, episodes: int, trials: int = 1) -> str:
    """Before and after one phase; of fewer than five episodes, five trials each are made anyway."""
    problem = training().problem
    found = evaluate(
        learner, problem, trials * problem.tasks, num_steps=1, seed=0, episodes_per_step=episodes
    ).mean
    paid, succeeded = found.episode_return.mean(1), found.success.mean(1)
    return (
        f"return {paid[0]:.0f} -> {paid[1]:.0f}, success {succeeded[0]:.2f} -> {succeeded[1]:.2f}"
    )


class Signal(NamedTuple):
    """Of gradients of independent batches.

    `ratio` is the norm of their mean over its standard error, about 1 where all is noise; `of_one`
    the norm of what is expected over the deviation of one of them.
    """

    ratio: float
    of_one: float

    @classmethod
    def of(cls, gradients: Tensor) -> Signal:
        """Of gradients (N, P)."""
        num, mean = len(gradients), gradients.mean(0)
        noise, power = float(gradients.var(0).sum()), float(mean.square().sum())
        return cls((power * num / noise) ** 0.5, (max(0.0, power - noise / num) / noise) ** 0.5)


def mu_gradient(learner: ExplorationLearner, seed: int, episodes: int, credit: str) -> Tensor:
    """Mu's gradient (P,) on fresh roll-outs of the trained learner, unclipped.

    One step of Adam from nothing leaves a tenth of it as the running mean.
    """
    given = training(
        iterations=1,
        rollouts_per_task=episodes,
        outer_epochs=1,
        seed=seed,
        credit=credit,
        max_grad_norm=1e9,
    )
    (only,) = find_method("meta-exploration").code.train(given, learner, {}, 0)
    num = len(groups(learner.meta.theta)[EXPLORER])
    means = {int(n.split(".")[0]): v for n, v in only.state.items() if n.endswith(".exp_avg")}
    return torch.cat([10 * means[i].flatten() for i in sorted(means)[-num:]]).double()


def walks() -> None:
    """Can the inner step tell pi the corner at all?"""
    for kind in (ROUND, TOWARDS):
        print(kind)
        learned(kind, WALKED)


def beside_mu() -> ExplorationLearner:
    """What ideal explorers are worth to a pi and an M that have learned beside mu."""
    learner = learned(None, ITERATIONS)
    for episodes in (EPISODES, MANY):
        for kind in (ROUND, TOWARDS):
            print(f"{kind}, {episodes} episodes: {judged(guided(learner, kind), episodes)}")
        print(f"mu, {episodes} episodes: {judged(learner, episodes)}", flush=True)
    return learner


def signal(learner: ExplorationLearner) -> None:
    """Of mu's gradient by roll-outs of a task, and whether batches agree on its direction."""
    for credit in ("advantage", "dice", "e-maml"):
        for episodes, num in BATCHES.items():
            drawn = [mu_gradient(learner, 1 + seed, episodes, credit) for seed in range(num)]
            halves = torch.stack(drawn).view(2, num // 2, -1).mean(1)
            agree = torch.cosine_similarity(*halves, dim=0)
            found = Signal.of(torch.stack(drawn))
            print(
                f"{credit}, {episodes} episodes, {num} batches: ratio {found.ratio:.2f}, "
                f"of one {found.of_one:.3f}, cosine of halves {agree:.2f}",
                flush=True,
            )


def larger(learner: ExplorationLearner) -> None:
    """Four times as many roll-outs, at the rate that the report states and at the default one."""
    many = {"iterations": FURTHER, "rollouts_per_task": MANY}
    learner = replace(learner, episodes_per_step=MANY)
    print(f"mu learns at {REPORTED_LR:g}")
    further(training(**many, explorer_lr=REPORTED_LR, seed=SEEDS[0]), learner)
    print("mu learns at the default rate")
    for seed in SEEDS:
        learner = further(training(**many, seed=seed), learner, 1 if seed == SEEDS[0] else TRIALS)
        print(f"in {TRIALS} trials: {judged(learner, MANY, TRIALS)}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    wanted = sys.argv[1:]
    if wanted == ["walks"]:
        walks()
    elif wanted == ["learned"]:
        beside_mu()
    elif wanted == ["signal"]:
        signal(beside_mu())
    elif wanted == ["larger"]:
        larger(beside_mu())
    else:
        sys.exit(__doc__)
