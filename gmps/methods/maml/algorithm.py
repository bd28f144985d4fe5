"""Algorithm 3 of MAML, and what E-MAML and ProMP have in place of its losses and its last line."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from demokit.learning.checkpoint import check_state
from demokit.learning.optimizer import optimizer_tensors, restore_optimizer
from gmps.distributed import Part
from gmps.experience.rollouts import Gathered, Rollouts
from gmps.gradient import GradientLearner
from gmps.method import Iteration, informed
from gmps.methods.maml.learner import RewardOracle, load, start
from gmps.methods.maml.objective import MetaSurrogate, OverTasks, Stage
from gmps.methods.maml.options import Form, RewardOptions
from gmps.policies.meta_params import MetaParams
from gmps.problem import Training
from gmps.steps.trust_region import Judged

__all__ = ["load", "start", "train"]

_KL_WEIGHTS = "kl_weights"


def train(
    training: Training[RewardOptions],
    learner: GradientLearner,
    state: Mapping[str, Tensor],
    first: int,
) -> Generator[Iteration]:
    """Meta-train from reward alone, an iteration at a time.

    Numbers at the margin are the lines of Algorithm 3 of MAML (Finn et al., 2017). Line 10 is a
    step of TRPO on theta, or of Adam; ProMP makes several of Adam on the same roll-outs. MultiTask
    leaves out lines 6 to 8: theta itself is to be paid more.
    """
    options = training.options
    meta = learner.meta.learnable()
    optimizer = torch.optim.Adam(meta.leaves(), lr=options.adam_lr)  # idle beside TRPO
    restore_optimizer(optimizer, {n: value for n, value in state.items() if n != _KL_WEIGHTS})
    form = _weighted(options.form, state)
    for iteration in range(first, options.iterations):  # 2
        rng = training.stream("iteration", iteration)
        chosen = training.some_tasks(rng, options.meta_batch)  # 3
        with training.sampler_of(chosen, explore=options.rollouts_per_task) as sampler:
            learner = informed(learner, sampler.contexts)
            gathered: list[Gathered] = []
            belief = learner.begin(sampler.num_tasks)
            for step in range(options.trained_steps + 1):  # 4
                rngs = sampler.streams(rng)
                explorer = learner.explorer(belief, step, sampler.explore, rngs)
                gathered.append(sampler(explorer, rngs).explored)  # 5, 8
                if step < options.trained_steps:
                    belief = learner.adapt(belief, step, gathered[-1].rollouts, None)  # 6, 7
        objective = _objective(learner, options, form, gathered, sampler.part)
        moved = _outer_step(objective, meta, optimizer, options)  # 10
        form = form.after(moved.judged.drift.tolist())
        meta.require_finite(iteration)
        learner = learner.with_meta(meta.frozen())
        paid = paid_in(gathered, sampler.part)
        scalars = {**moved.scalars, **_weights_of(form), **paid, "std": _mean_std(learner)}
        spent = len(gathered) * sampler.num_steps
        yield Iteration(learner, scalars, spent, {**optimizer_tensors(optimizer), **_kept(form)})


def _weighted(form: Form, state: Mapping[str, Tensor]) -> Form:
    """With the weights that a training had come to, where they adapt."""
    if not (form.kl_target and state):
        return form
    found = {n: value for n, value in state.items() if n == _KL_WEIGHTS}
    check_state(found, lambda: _kept(form))
    return form._replace(kl_weights=tuple(found[_KL_WEIGHTS].tolist()))


def _kept(form: Form) -> dict[str, Tensor]:
    """What a training needs of weights that adapt, to go on."""
    weights = torch.tensor(form.kl_weights, dtype=torch.float64)
    return {_KL_WEIGHTS: weights} if form.kl_target else {}


def _weights_of(form: Form) -> dict[str, float]:
    """For the log: their mean over inner steps."""
    return {"kl_weight": sum(form.kl_weights) / len(form.kl_weights)} if form.kl_target else {}


def _objective(
    learner: GradientLearner,
    options: RewardOptions,
    form: Form,
    gathered: Sequence[Gathered],
    part: Part,
) -> OverTasks:
    """Of the roll-outs before every inner step, and behind the last one."""
    sampled = [each.rollouts for each in gathered]
    stages = tuple(Stage.of(each, learner.inner_batch(each)) for each in sampled)
    paid, theta = standard_pay(sampled[-1], part), learner.meta.theta
    alpha = learner.step_sizes(0) if options.trained_steps else {}
    told = learner.contexts if isinstance(learner, RewardOracle) else None

    def of_some(own: slice) -> MetaSurrogate:
        rows = tuple(stage.rows(own) for stage in stages)
        contexts = None if told is None else told[own].to(paid.device)
        parts = form, learner.inner, alpha, rows, paid[own], contexts
        return MetaSurrogate.at(theta, *parts)

    return OverTasks.of(of_some, stages[0].weight, part)


def standard_pay(rollouts: Rollouts, part: Part) -> Tensor:
    """Mean reward of a step in each task (M,), in standard deviations over all tasks' steps."""
    reward, alive = rollouts.reward.double(), rollouts.alive
    sums = torch.stack([alive, reward, reward.square()], 1).sum((2, 3))
    count, total, squared = part.gathered(sums).sum(0)
    mean = total / count
    deviation = (squared / count - mean.square()).clamp_min(0).sqrt()
    own: Tensor = (sums[:, 1] / sums[:, 0] - mean) / (deviation + 1e-8)
    return own.to(rollouts.reward.dtype)


class Moved(NamedTuple):
    """An outer step: for the log, and what speaks for where it has led."""

    scalars: dict[str, float]
    judged: Judged


def _outer_step(
    objective: OverTasks,
    meta: MetaParams,
    optimizer: torch.optim.Adam,
    options: RewardOptions,
) -> Moved:
    """Line 10, in place."""
    before = objective.judged(meta.frozen().theta)
    share = {}
    if options.region is None:
        for _ in range(options.epochs):
            gradient = objective.gradient(meta.frozen().theta)
            for name, leaf in meta.theta.items():
                leaf.grad = gradient[name]
            optimizer.step()
        after = objective.judged(meta.frozen().theta)
    else:
        taken = objective.step(meta.frozen().theta, options.region)
        for name, leaf in meta.theta.items():
            leaf.data.copy_(taken.params[name])
        after, share = taken.judged, {"step_share": taken.length}
    moved = {"loss_before": before.loss, "loss_after": after.loss, "kl": after.kl}
    scalars = {name: float(value) for name, value in moved.items()}
    return Moved({**scalars, **share}, after)


def paid_in(gathered: Sequence[Gathered], part: Part) -> dict[str, float]:
    """What training tasks have paid before adaptation and, where anybody did, after it."""
    names = ("return_pre", "return_post") if len(gathered) > 1 else ("return_pre",)
    return {
        name: float(part.gathered(each.rollouts.reward.sum(-1).cpu()).mean())
        for name, each in zip(names, (gathered[0], gathered[-1]), strict=False)
    }


def _mean_std(learner: GradientLearner) -> float:
    """How widely theta explores, in actions."""
    return float(learner.policy.std(learner.meta.theta).mean())
