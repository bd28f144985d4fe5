"""Algorithm 1 of the paper, from demonstrations, with expert queries or without."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch

from gmps.distributed import Part
from gmps.evaluation import (
    MEAN_EPISODES,
    Curve,
    adaptation_curve,
    choose_step_size,
    with_step_size,
)
from gmps.experience.demos import DemoSet
from gmps.experience.sampler import Rollouts, Sampler, replicate
from gmps.methods.gmps.dagger import Aggregation, is_round
from gmps.methods.gmps.learner import Learned
from gmps.methods.gmps.material import Material
from gmps.methods.gmps.objective import MetaLosses, outer_step
from gmps.methods.gmps.pretrain import pretrain
from gmps.methods.gmps.start import start
from gmps.progress import ITERATIONS, Report, unheard
from gmps.runs.folder import STEP_SIZES, Run


def train(demos: DemoSet, run: Run, report: Report = unheard) -> Learned:
    """Meta-train from demonstrations; returns what was learned, its step size chosen.

    Numbers at the margin are the lines of the paper's Algorithm 1 (A1) and Algorithm 2 (A2).
    The experts and their demonstrations (A1: 1-2) come with `demos`. The roll-outs of theta
    serve both algorithms; with `dagger` off, A1: 8-10 are left out.
    """
    learned, optimizer, first = run.restore(start(run.config, demos))  # A1: 3
    if learned.later_lr is not None:
        return learned
    config, meta = learned.config, learned.meta
    demos, part = demos.to(run.device), run.world.part(len(demos.tasks))
    objective = learned.objective(demos.tasks[part.own])
    if first == 0:
        pretrain(learned, optimizer, demos, part, report)
    sampler = _sampler(demos, part, config.rollouts_per_task)
    pre_actions = demos.of_tasks(part.own).all()
    queries = _queries(demos, run, learned, part, first)
    if queries and first:
        demos = queries.restored(demos, first)
    report(ITERATIONS, first, config.iterations)
    for iteration in range(first, config.iterations):  # A1: 4
        if learned.has_stopped:
            break
        rng = np.random.default_rng([config.seed, iteration])
        params = replicate(meta.theta, sampler.num_tasks)
        latents = learned.latents(params, sampler.explore, 0, rng, part)
        rollouts = sampler(learned.policy, params, rng, latents)  # A1: 7, A2: 3
        spent = sampler.num_steps
        learned.learn_critic(rollouts, part)
        if queries and is_round(iteration, config.dagger_every):
            before = demos.num_steps
            demos = queries.round(learned, demos, rollouts, iteration, rng)  # A1: 8-10
            spent += demos.num_steps - before
        optimizer.param_groups[0]["lr"] = config.outer_lr_in(iteration)
        shown = learned.inner_batch(rollouts)
        material = Material(shown, demos.of_tasks(part.own), pre_actions)
        for step in range(config.outer_steps):  # A1: 5, A2: 5-10
            drawn = material.drawn(step, learned, rng)  # A2: 8
            losses = outer_step(objective, meta, optimizer, *drawn, config.max_grad_norm, part)
        meta.require_finite(iteration)
        last = iteration == config.iterations - 1
        adapted = None
        if last or iteration % config.eval_every == 0:
            adapted, steps = _evaluate_on_training_tasks(learned, demos, part, rng)
            learned = learned.judged(_earned(adapted))
            spent += steps
        learned = replace(learned, env_steps=learned.env_steps + spent)
        scalars = _scalars(losses, rollouts, part, adapted, learned.env_steps)
        run.log(iteration, scalars)
        report(ITERATIONS, iteration + 1, config.iterations)
        if last or learned.has_stopped or (iteration + 1) % config.checkpoint_every == 0:
            run.save(learned, optimizer, iteration + 1)
    if queries:
        queries.finish()
    return settle_step_size(learned.at_best(), optimizer, run, report)


def settle_step_size(
    learned: Learned, optimizer: torch.optim.Adam, run: Run, report: Report = unheard
) -> Learned:
    """Choose the scalar step size on the training tasks, once, and keep the search as a table."""
    if learned.later_lr is not None:
        return learned
    if learned.exploration is not None:
        settled = replace(learned, later_lr=1.0)  # its step sizes serve every step
        run.save(settled, optimizer, run.iteration)
        return settled
    tuning = choose_step_size(learned, learned.config.seed, world=run.world, report=report)
    run.write_rows(
        STEP_SIZES,
        [{"step_size": lr, "mean_return": score} for lr, score in tuning.scores.items()],
    )
    settled = with_step_size(learned, tuning)
    run.save(settled, optimizer, run.iteration)
    return settled


def _sampler(demos: DemoSet, part: Part, explore: int, mean: int = 0) -> Sampler:
    return Sampler(
        demos.family,
        demos.tasks,
        demos.reward,
        explore=explore,
        mean=mean,
        sees=demos.sees,
        part=part,
    )


def _queries(
    demos: DemoSet, run: Run, learned: Learned, part: Part, first: int
) -> Aggregation | None:
    if not learned.config.dagger:
        return None
    return Aggregation(demos, run.folder, learned, part, resume=first > 0)


def _evaluate_on_training_tasks(
    learned: Learned, demos: DemoSet, part: Part, rng: np.random.Generator
) -> tuple[Curve, int]:
    """What one adaptation step earns on the training tasks; and the steps it took to know."""
    sampler = _sampler(demos, part, learned.config.rollouts_per_task, MEAN_EPISODES)
    return adaptation_curve(learned, sampler, rng, num_steps=1), 2 * sampler.num_steps


def _earned(adapted: Curve) -> float:
    """The mean return on all tasks after one adaptation step."""
    return float(adapted.mean.episode_return[1].mean())


def _success(adapted: Curve) -> float:
    """The success rate on all tasks after one adaptation step."""
    return float(adapted.mean.success[1].mean())


def _scalars(
    losses: MetaLosses, before: Rollouts, part: Part, adapted: Curve | None, env_steps: int
) -> dict[str, float]:
    """A row of metrics.csv, of all tasks; what this iteration did not measure is NaN."""
    earned, succeeded = before.reward.sum(-1), before.success.float()
    return {
        "loss_post": float(losses.post),
        "loss_pre": float(losses.pre),
        "loss_place": float(losses.place),
        "return_pre": float(part.gathered(earned.cpu()).mean()),
        "success_pre": float(part.gathered(succeeded.cpu()).mean()),
        "return_post": _earned(adapted) if adapted is not None else math.nan,
        "success_post": _success(adapted) if adapted is not None else math.nan,
        "env_steps": float(env_steps),
    }
