"""The picture of docs/exploration.md, from runs that explore by latents:

    python docs/exploration_pictures.py RUN...

A row per run: where the roll-outs of one training task bring the object before adaptation, the
darker the better paid, and where the policy's mean brings it after one step.
"""

import sys
from pathlib import Path

import matplotlib
import numpy as np
import torch

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from demokit.random import stream
from gmps.evaluation import adapted
from gmps.experience.sampler import Rollouts, Sampler, replicate
from gmps.methods.gmps.learner import Learned
from gmps.runs.checkpoint import load

PICTURE = Path(__file__).parent / "pictures" / "exploration.png"
MEAN_EPISODES = 3
SHADES = matplotlib.colormaps["viridis_r"]


def stages(learned: Learned, task: int) -> tuple[Rollouts, Rollouts]:
    """Roll-outs before adaptation and after one step."""
    rng = stream(0, "exploration picture")
    k = learned.config.rollouts_per_task
    tasks = learned.tasks[task : task + 1]
    sampler = Sampler(learned.family, tasks, learned.reward, explore=k, mean=MEAN_EPISODES)
    theta = replicate(learned.meta.theta, 1)
    before = sampler(learned.policy, theta, rng, learned.latents(theta, k, 0, rng))
    phi = adapted(learned, theta, learned.step_sizes(0), before.episodes(slice(k)))
    after = sampler(learned.policy, phi, rng, learned.latents(phi, k, 1, rng))
    return before.episodes(slice(k)), after.episodes(slice(k, None))


def trace(axes: plt.Axes, learned: Learned, rollouts: Rollouts, shade: torch.Tensor) -> None:
    """Lines of the object, in the plane or, where it has one coordinate, over time."""
    start, columns = 0, slice(0)
    for term in learned.family.observation_terms:
        if term.name == learned.family.object_term:
            columns = slice(start, start + min(term.width, 2))
        start += term.width
    for path, share in zip(rollouts.observation[0][..., columns], shade, strict=True):
        line = path.T if path.shape[1] == 2 else (torch.arange(len(path)), path[:, 0])
        axes.plot(*line, color=SHADES(float(share)), lw=1 + share, alpha=0.8)


def row(panels: list[plt.Axes], learned: Learned) -> None:
    """Before and after, for one run."""
    task = len(learned.tasks) // 2
    before, after = stages(learned, task)
    paid = before.reward[0].sum(1)
    trace(panels[0], learned, before, (paid - paid.min()) / (paid.max() - paid.min() + 1e-6))
    trace(panels[1], learned, after, torch.ones(MEAN_EPISODES))
    goal = learned.family.goal_marker(np.array(learned.tasks[task].context))["goal"]
    for axes in panels:
        if learned.family.name == "door":
            axes.axhline(learned.tasks[task].context[0], color="#d1495b", ls="--", lw=1)
            axes.set(xlabel="step", ylabel="angle, rad", ylim=(-0.05, 1.15))
        else:
            axes.plot(*goal[:2], "x", color="#d1495b", ms=10, mew=2)
            axes.set(xlabel="x, m", ylabel="y, m")
    for axes in panels[1:]:
        axes.set(xlim=panels[0].get_xlim(), ylim=panels[0].get_ylim())
    panels[0].set_title(f"{learned.family.name} ({learned.reward}): roll-outs before", fontsize=10)
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
