"""Is the posterior of task inference as sure of itself as it may be? On tasks that it never met:

    python docs/calibration.py OUT RUN...

A task's own code is the one under which the policy acts as its expert does, found from ten
demonstrations that inference does not see. Of many tasks it should lie in the region that holds
half of the posterior, after one, two or three episodes, half of the time. The picture has a panel
of each run, the table what share of the tasks lies within the regions of 50%, 80% and 95%, how far
the own code lies from the posterior's mean, and how wide the posterior is: medians over the tasks,
of root mean squares over dimensions, where training tasks have a standard deviation of 1.
"""

import math
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
import torch
from torch import Tensor

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from demokit.random import stream, torch_stream
from demokit.types import Task
from gmps.comparison.references import choose_reference, demonstrated
from gmps.evaluation import stages
from gmps.methods.inference.learner import TaskInference
from gmps.methods.inference.posterior import NEAR, PARTICLES, PRIOR_STD, Evidence, log_prior
from gmps.problem import Problem
from inference_runs import fresh_tasks, inference_run

TASKS, SEED, EPISODES, SHOWN = 40, 7, 3, 10
ROUNDS, CODES, WIDE, LEAST_WIDTH = 4, 600, 0.1, 1e-4
_AT_ONCE = 60  # codes
TEMPERS = (0.03, 1.0)  # beside the learner's own
INNER = (0.5, 0.8, 0.95)


def own_codes(learner: TaskInference, problem: Problem, tasks: tuple[Task, ...]) -> Tensor:
    """The codes (M, R) under which the policy acts as the experts do."""
    expert = choose_reference(problem.family_name, None, ()).expert
    rng = stream(0, "calibration", "demonstrations")
    shown = demonstrated(problem, expert, tasks, SHOWN, rng)
    return learner.demonstrated(learner.begin(len(tasks)), shown, rng.spawn(len(tasks))).code


def log_posterior(learner: TaskInference, seen: Evidence, codes: Tensor, temper: float) -> Tensor:
    """(C,), of codes (C, R) of one task, whatever temper the learner has."""
    likelihood = replace(learner.likelihood, temper=temper)
    some = torch.split(codes[None], _AT_ONCE, 1)
    return torch.cat([likelihood(seen, part) for part in some], 1)[0] + log_prior(codes)


class Proposal(NamedTuple):
    """A mixture: the prior, and kernels of one width (R,) about codes (N, R)."""

    about: Tensor
    width: Tensor

    def draw(self, num: int, rng: torch.Generator) -> Tensor:
        """Codes (num, R)."""
        noise = torch.randn(num, len(self.width), generator=rng)
        rows = torch.randint(len(self.about), (num,), generator=rng)
        wide = torch.rand(num, 1, generator=rng) < WIDE
        return torch.where(wide, PRIOR_STD * noise, self.about[rows] + self.width * noise)

    def log_density(self, codes: Tensor) -> Tensor:
        """(C,), up to a constant."""
        apart = (codes[:, None] - self.about) / self.width
        near = (-0.5 * apart.square().sum(-1)).logsumexp(1) - math.log(len(self.about))
        near = near - self.width.log().sum() + math.log(1 - WIDE)
        wide = log_prior(codes) - len(self.width) * math.log(PRIOR_STD) + math.log(WIDE)
        return torch.logaddexp(near, wide)


def narrowed(codes: Tensor, weights: Tensor, rng: torch.Generator) -> Proposal:
    """Kernels about codes (C, R) drawn by their weights (C,), as wide as Silverman's rule says."""
    rows = weights.multinomial(len(codes), replacement=True, generator=rng)
    mean = weights @ codes
    std = (weights @ (codes - mean).square()).sqrt().clamp_min(LEAST_WIDTH)
    factor = float(1 / weights.square().sum()) ** (-1 / (codes.shape[1] + 4))
    return Proposal(codes[rows], 2 * factor * std)


class Region(NamedTuple):
    """Of a task's posterior: how much of it is likelier than the own code; see `table`."""

    inner: float
    off: float
    width: float


def region(
    learner: TaskInference,
    seen: Evidence,
    likely: Tensor,
    own: Tensor,
    temper: float,
    rng: torch.Generator,
) -> Region:
    """Where in the posterior the task's own code (R,) lies.

    By importance sampling, from the prior and about `likely` codes (N, R) first, then from where
    the posterior was found (Cappe et al., "Population Monte Carlo", 2004): it may be far narrower
    than the prior.
    """
    proposal = Proposal(likely, torch.full_like(own, NEAR))
    at_own = log_posterior(learner, seen, own[None], temper)
    for _ in range(ROUNDS):
        codes = proposal.draw(CODES, rng)
        found = log_posterior(learner, seen, codes, temper)
        weights = (found - proposal.log_density(codes)).softmax(0)
        proposal = narrowed(codes, weights, rng)
    mean = weights @ codes
    width = (weights @ (codes - mean).square()).mean().sqrt()
    off = (own - mean).square().mean().sqrt()
    return Region(float(weights @ (found > at_own).float()), float(off), float(width))


@torch.no_grad()
def measured(learner: TaskInference, problem: Problem) -> dict[tuple[int, float], Tensor]:
    """Regions (M, 3) of fresh tasks, by episodes and temper: its own, and others in the end."""
    tasks, usual = fresh_tasks(problem, TASKS, SEED), learner.options.temper
    own, sampler = own_codes(learner, problem, tasks), problem.sampler(tasks, explore=1)
    rng, found = torch_stream(0, "calibration"), {}
    for stage in stages(learner, sampler, partial(stream, 0, "calibration"), EPISODES):
        seen = stage.belief.seen.thinned().split(1)
        tempers = {0: (), EPISODES: sorted({usual, *TEMPERS})}.get(stage.step, (usual,))
        for temper in tempers:
            parts = zip(seen, stage.belief.posterior.codes[:, :PARTICLES], own, strict=True)
            each = [region(learner, *part, temper, rng) for part in parts]
            found[stage.step, temper] = torch.tensor(each)
    return found


def draw(panel: plt.Axes, found: dict[tuple[int, float], Tensor], usual: float, title: str) -> None:
    """Share of tasks within a region, against how much of the posterior it holds."""
    nominal = np.linspace(0, 1, 101)
    panel.plot([0, 1], [0, 1], color="0.7", lw=1)
    for (episodes, temper), of in found.items():
        if episodes == EPISODES:
            shares = [(of[:, 0].numpy() <= level).mean() for level in nominal]
            panel.plot(nominal, shares, label=f"temper {temper:g}", lw=1 + (temper == usual))
    panel.set(title=title, xlabel="of the posterior", aspect="equal", xlim=(0, 1), ylim=(0, 1))


def table(name: str, found: dict[tuple[int, float], Tensor]) -> None:
    """One row of each number of episodes, and temper."""
    for (episodes, temper), of in found.items():
        shares = [f"{(of[:, 0] <= level).float().mean():.2f}" for level in INNER]
        medians = [f"{value:.3f}" for value in of[:, 1:].median(0).values]
        cells = (name, str(episodes), f"{temper:g}", *shares, *medians)
        print(f"| {' | '.join(cells)} |", flush=True)


def main(out: Path, runs: list[Path]) -> None:
    """All panels."""
    figure, panels = plt.subplots(1, len(runs), figsize=(3.6 * len(runs), 4), layout="constrained")
    head = ("family", "episodes", "temper", *(f"{level:.0%}" for level in INNER), "off", "width")
    print(f"| {' | '.join(head)} |\n{'|---' * len(head)}|")
    for run, panel in zip(runs, np.atleast_1d(panels), strict=True):
        trained = inference_run(run)
        found = measured(trained.learner, trained.problem)
        draw(panel, found, trained.learner.options.temper, trained.problem.family_name)
        table(trained.problem.family_name, found)
    np.atleast_1d(panels)[0].set_ylabel(f"of {TASKS} tasks, after {EPISODES} episodes")
    np.atleast_1d(panels)[-1].legend(frameon=False)
    figure.savefig(out, dpi=110)
    print(out)


if __name__ == "__main__":
    picture, *given = map(Path, sys.argv[1:])
    main(picture, given)
