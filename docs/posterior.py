"""The picture of docs/inference.md, from a run of task inference on Point:

    python docs/posterior.py RUN OUT

What is believed of a held-out task after 0, 1, 2 and 3 episodes: above in the task space, below in
the plane, where a code stands for where the policy under it ends up.
"""

import sys
from functools import partial
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
import torch
from torch import Tensor

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from demokit.envs.tasks import make_tasks
from demokit.random import stream
from gmps.evaluation import Stage, stages
from gmps.experience.rollouts import Rollouts
from gmps.methods.inference.actor import PlannedActor
from gmps.methods.inference.learner import TaskInference
from gmps.methods.inference.posterior import PARTICLES, infer, log_prior
from gmps.problem import Problem
from inference_runs import inference_run

TASK = 1  # of the held-out ones
SIDE, REACH = 61, 2.5  # codes along each axis, and how far they reach
STILL_STD = 1e-3
GOAL, EXPLORED, JUDGED, TRAINED = "#d1495b", "#e08e00", "#111111", "#1f2937"
TITLES = ("before the first episode", "after one episode", "after two", "after three")
SHADES = {"cmap": "Blues", "vmin": 0, "vmax": 1.3}


class Grid(NamedTuple):
    """Codes (C, 2), where the policy under them ends up (C, 2), and under training tasks'."""

    codes: Tensor
    ends: Tensor
    trained: Tensor


def path(rollouts: Rollouts) -> Tensor:
    """Where the point was (K, T, 2) in the episodes of the only task."""
    return rollouts.observation[0][..., :2]


def ends(learner: TaskInference, problem: Problem, codes: Tensor) -> Tensor:
    """Where episodes (C, 2) end whose policy follows codes (C, R)."""
    sampler = problem.sampler(problem.tasks[:1], explore=len(codes))
    latents = learner.space.latent(codes)[None, :, None]
    actor = PlannedActor(learner.eyes, latents, torch.zeros(1, len(codes), 1), STILL_STD)
    explored = sampler(actor, sampler.streams(stream(0, "ends"))).explored
    return path(explored.rollouts)[:, -1]


def grid_of(learner: TaskInference, problem: Problem) -> Grid:
    """Codes at equal distances."""
    line = torch.linspace(-REACH, REACH, SIDE)
    codes = torch.cartesian_prod(line, line)
    ended = partial(ends, learner, problem)
    return Grid(codes, ended(codes), ended(learner.space.codes))


def darkness_of(learner: TaskInference, stage: Stage, codes: Tensor) -> Tensor:
    """The fourth root of the posterior (C,) of codes (C, R), 1 for the best: less is seen, too."""
    log_posterior = log_prior(codes)
    if not stage.belief.is_fresh:
        noise = torch.zeros(1, len(codes))
        found = infer(learner.likelihood, stage.belief.seen, codes[None], noise)
        log_posterior = log_posterior + found.log_likelihood[0, PARTICLES:]
    return ((log_posterior - log_posterior.max()) / 4).exp()


def draw_space(axes: plt.Axes, learner: TaskInference, stage: Stage, dark: Tensor) -> None:
    """The posterior over codes."""
    extent = (-REACH, REACH, -REACH, REACH)
    axes.imshow(dark.view(SIDE, SIDE).T, origin="lower", extent=extent, **SHADES)
    axes.plot(*learner.space.codes.T, "+", color=TRAINED, ms=6)
    axes.plot(*stage.belief.code[0], "*", color=JUDGED, ms=8)
    axes.set(xlim=extent[:2], ylim=extent[2:], xlabel="code 1")


def draw_plane(axes: plt.Axes, seen: list[Stage], grid: Grid, dark: Tensor) -> None:
    """Where codes lead; the episodes so far, and what is judged."""
    order = dark.argsort()
    axes.scatter(*grid.ends[order].T, c=dark[order], s=11, lw=0, **SHADES)
    axes.plot(*grid.trained.T, "+", color=TRAINED, ms=6)
    for before in seen[:-1]:
        (met,) = path(before.sampled.explored.rollouts)
        latest = before is seen[-2]
        axes.plot(*met.T, ".-", color=EXPLORED, lw=1.5, ms=4, alpha=1 if latest else 0.35)
    axes.plot(*path(seen[-1].sampled.judged.rollouts)[0].T, color=JUDGED, lw=2)
    axes.set(xlim=(-1.35, 1.35), ylim=(-1.35, 1.35), xlabel="x, m", aspect="equal")


def legend(figure: plt.Figure) -> None:
    """What the marks are, below all panels."""
    marks = {
        "training tasks": {"marker": "+", "color": TRAINED, "ls": ""},
        "most likely code": {"marker": "*", "color": JUDGED, "ls": "", "ms": 8},
        "the policy under it": {"color": JUDGED, "lw": 2},
        "exploring episodes (the last: dark)": {"marker": ".", "color": EXPLORED},
        "goal, which nobody sees": {"marker": "x", "color": GOAL, "ls": "", "mew": 2, "ms": 9},
    }
    lines = [plt.Line2D([], [], label=label, **style) for label, style in marks.items()]
    figure.legend(handles=lines, loc="outside lower center", ncols=len(lines), frameon=False)


def draw(learner: TaskInference, problem: Problem, out: Path) -> None:
    """Four columns, one more episode in each."""
    (task,) = make_tasks(problem.family, "uniform", "validation", num_tasks=TASK + 1)[TASK:]
    sampler = problem.sampler((task,), explore=1, mean=1)
    grid = grid_of(learner, problem)
    figure, panels = plt.subplots(2, len(TITLES), figsize=(12.5, 6.8), layout="constrained")
    streams = partial(stream, 0, "posterior picture")
    found = list(stages(learner, sampler, streams, len(TITLES) - 1))
    goal = problem.family.goal_marker(np.array(task.context))["goal"]
    for i, (above, below) in enumerate(panels.T):
        dark = darkness_of(learner, found[i], grid.codes)
        draw_space(above, learner, found[i], dark)
        draw_plane(below, found[: i + 1], grid, dark)
        below.plot(*goal[:2], "x", color=GOAL, ms=10, mew=2)
        above.set_title(TITLES[i], fontsize=11)
    panels[0, 0].set_ylabel("code 2")
    panels[1, 0].set_ylabel("y, m")
    legend(figure)
    figure.savefig(out, dpi=110)
    print(out)


if __name__ == "__main__":
    run, picture = map(Path, sys.argv[1:])
    found = inference_run(run)
    if found.problem.family_name != "point" or found.learner.space.width != len("xy"):
        sys.exit(f"{run} is no run of task inference on point with two codes.")
    draw(found.learner, found.problem, picture)
