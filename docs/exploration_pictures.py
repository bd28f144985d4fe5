"""The picture of docs/exploration.md, from runs that explore by latents:

    python docs/exploration_pictures.py RUN...

A row per run: where the roll-outs of one training task bring the object before adaptation, the
darker the better paid, and where the policy's mean brings it after one step.
"""

import sys
from functools import partial
from pathlib import Path

import matplotlib
import numpy as np
import torch

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from demokit.random import stream
from gmps.evaluation import stages
from gmps.experience.rollouts import Rollouts
from gmps.problem import Problem
from gmps.runs.checkpoint import Trained, load

PICTURE = Path(__file__).parent / "pictures" / "exploration.png"
MEAN_EPISODES = 3
SHADES = matplotlib.colormaps["viridis_r"]


def before_and_after(trained: Trained, task: int) -> tuple[Rollouts, Rollouts]:
    """Roll-outs before adaptation and after one step."""
    problem, k = trained.problem, trained.learner.episodes_per_step
    sampler = problem.sampler(problem.tasks[task : task + 1], explore=k, mean=MEAN_EPISODES)
    streams = partial(stream, 0, "exploration picture")
    before, after = stages(trained.learner, sampler, streams, 1)
    return before.sampled.explored.rollouts, after.sampled.judged.rollouts


def trace(axes: plt.Axes, problem: Problem, rollouts: Rollouts, shade: torch.Tensor) -> None:
    """Lines of the object, in the plane or, where it has one coordinate, over time."""
    start, columns = 0, slice(0)
    for term in problem.family.observation_terms:
        if term.name == problem.family.object_term:
            columns = slice(start, start + min(term.width, 2))
        start += term.width
    for path, share in zip(rollouts.observation[0][..., columns], shade, strict=True):
        line = path.T if path.shape[1] == 2 else (torch.arange(len(path)), path[:, 0])
        axes.plot(*line, color=SHADES(float(share)), lw=1 + share, alpha=0.8)


def row(panels: list[plt.Axes], trained: Trained) -> None:
    """Before and after, for one run."""
    problem = trained.problem
    family, task = problem.family, len(problem.tasks) // 2
    before, after = before_and_after(trained, task)
    paid = before.reward[0].sum(1)
    trace(panels[0], problem, before, (paid - paid.min()) / (paid.max() - paid.min() + 1e-6))
    trace(panels[1], problem, after, torch.ones(MEAN_EPISODES))
    context = problem.tasks[task].context
    goal = family.goal_marker(np.array(context))["goal"]
    for axes in panels:
        if family.name == "door":
            axes.axhline(context[0], color="#d1495b", ls="--", lw=1)
            axes.set(xlabel="step", ylabel="angle, rad", ylim=(-0.05, 1.15))
        else:
            axes.plot(*goal[:2], "x", color="#d1495b", ms=10, mew=2)
            axes.set(xlabel="x, m", ylabel="y, m")
    for axes in panels[1:]:
        axes.set(xlim=panels[0].get_xlim(), ylim=panels[0].get_ylim())
    panels[0].set_title(f"{family.name} ({problem.reward}): roll-outs before", fontsize=10)
    panels[1].set_title("the policy's mean after one step", fontsize=10)


def main(runs: list[str]) -> None:
    """Draw the runs, one below the other."""
    figure, panels = plt.subplots(
        len(runs), 2, figsize=(8, 2.9 * len(runs)), layout="constrained", squeeze=False
    )
    for line, run in zip(panels, runs, strict=True):
        row(list(line), load(Path(run))[0])
    figure.savefig(PICTURE, dpi=110)
    print(PICTURE)


if __name__ == "__main__":
    main(sys.argv[1:])
