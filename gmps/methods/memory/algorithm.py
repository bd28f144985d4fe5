"""RL2: PPO over trials of several episodes, by a policy that remembers them."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from demokit.learning.checkpoint import check_state
from demokit.learning.networks import Params
from demokit.learning.optimizer import optimizer_tensors, restore_optimizer
from gmps.distributed import Part
from gmps.experience.rollouts import Rollouts
from gmps.experience.trials import Trials
from gmps.method import Iteration
from gmps.methods.memory.learner import MemoryLearner, load, start
from gmps.methods.memory.options import MemoryOptions
from gmps.policies.memory import MemoryPolicy
from gmps.policies.meta_params import MetaParams
from gmps.problem import Training
from gmps.steps.advantage import trial_advantages
from gmps.steps.losses import discounted_returns
from gmps.steps.ppo import clipped_surrogate, clipped_value_loss

__all__ = ["load", "start", "train"]

_PAID = "paid"
_EPSILON = 1e-8
_MOST_REWARD = 10.0  # in its scale, as in VariBAD's code


def train(
    training: Training[MemoryOptions],
    learner: MemoryLearner,
    state: Mapping[str, Tensor],
    first: int,
) -> Generator[Iteration]:
    """Meta-train over trials, an iteration at a time.

    A trial is a task and some episodes of it; what is remembered of one reaches the next (Duan et
    al., 2016, section 2.2). Policy and value are improved on whole trials by PPO.
    """
    options = training.options
    meta = learner.meta.learnable()
    optimizer = torch.optim.Adam(meta.leaves(), lr=options.outer_lr, eps=_EPSILON)
    paid = _restored(optimizer, state)
    for iteration in range(first, options.iterations):
        rng = training.stream("iteration", iteration)
        with training.sampler_of(drawn_tasks(training, rng), explore=1) as sampler:
            belief, gathered = learner.begin(sampler.num_tasks), list[Rollouts]()
            for episode in range(options.trial_episodes):
                rngs = sampler.streams(rng)
                explorer = learner.explorer(belief, episode, 1, rngs)
                rollouts, memory, _ = sampler(explorer, rngs).explored
                gathered.append(rollouts)
                belief = learner.adapt(belief, episode, rollouts, memory)
        trials = Trials.of(gathered)
        paid = paid + _paid(trials, options.discount, sampler.part)
        goal = targets(learner, trials, _scale(paid), options, sampler.part)
        scalars = _improve(learner.policy, meta, optimizer, trials, goal, rng, options)
        meta.require_finite(iteration)
        learner = learner.with_meta(meta.frozen())
        scalars |= _returns(gathered, sampler.part)
        spent = options.trial_episodes * sampler.num_steps
        yield Iteration(learner, scalars, spent, {_PAID: paid, **optimizer_tensors(optimizer)})


def drawn_tasks(training: Training[MemoryOptions], rng: np.random.Generator) -> list[int]:
    """The training tasks of an iteration's trials: each as often as any other, but for one."""
    every, num = len(training.problem.tasks), training.options.trials
    rounds = [rng.permutation(every) for _ in range(-(-num // every))]
    return sorted(np.concatenate(rounds)[:num].tolist())


class Targets(NamedTuple):
    """What PPO goes by, all (B, L): advantages, of mean 0 and deviation 1 over all steps of all
    processes; values before, and what they should have been.

    `steps` (M,) of each trial in all processes, `part` which are this one's.
    """

    advantage: Tensor
    value: Tensor
    returns: Tensor
    steps: Tensor
    part: Part


@torch.no_grad()
def targets(
    learner: MemoryLearner, trials: Trials, scale: Tensor, options: MemoryOptions, part: Part
) -> Targets:
    """Of trials that this learner has sampled; rewards are divided by a scale."""
    _, value = learner.policy.unroll(learner.meta.theta, trials)
    advantage = trial_advantages(
        (trials.reward / scale.to(trials.reward.dtype)).clamp(-_MOST_REWARD, _MOST_REWARD),
        value,
        trials.alive,
        trials.ended,
        discount=options.discount,
        gae_lambda=options.gae_lambda,
    )
    alive = trials.alive
    sums = torch.stack((alive, advantage.double(), advantage.double().square()), 1).sum(2)
    steps, total, squared = part.gathered(sums).T
    mean = total.sum() / steps.sum()
    deviation = (squared.sum() / steps.sum() - mean.square()).clamp_min(0).sqrt()
    standard = alive * (advantage - mean) / (deviation + _EPSILON)
    return Targets(standard.to(value.dtype), value, advantage + value, steps, part)


@dataclass(frozen=True, eq=False)
class TrialLoss:
    """PPO's loss of some of the trials, a mean over their steps.

    Attributes:
        policy: the pure functions.
        trials: this process's, with `goal`.
        weight: (B, L), of each step in a mean over B L steps; zero for what does not count.
        options: clip and weights.
    """

    policy: MemoryPolicy
    trials: Trials
    goal: Targets
    weight: Tensor
    options: MemoryOptions

    @classmethod
    def of(
        cls,
        policy: MemoryPolicy,
        trials: Trials,
        goal: Targets,
        chosen: Tensor,
        options: MemoryOptions,
    ) -> TrialLoss:
        """Of the trials `chosen` (M,) bool, this process's among them."""
        own = chosen[goal.part.own]
        count = goal.steps[chosen].sum()
        rows = own.nonzero().squeeze(1) if own.any() else own.new_zeros(1, dtype=torch.long)
        some = trials.rows(rows)
        share = own[rows][:, None] * some.alive.numel() / (count * (goal.part.weight or 1))
        weight = (some.alive * share).to(trials.reward.dtype)
        goal = goal._replace(
            **{n: getattr(goal, n)[rows] for n in ("advantage", "value", "returns")}
        )
        return cls(policy, some, goal, weight, options)

    def __call__(self, theta: Params) -> tuple[Tensor, Tensor, Tensor]:
        """PPO's loss, and of what it is made: the surrogate's and the value's."""
        options, trials, goal = self.options, self.trials, self.goal
        dist, value = self.policy.unroll(theta, trials)
        old = trials.log_prob
        log_prob = torch.where(trials.alive, dist.log_prob(trials.action), old)
        surrogate = clipped_surrogate(log_prob, old, goal.advantage * self.weight, options.clip)
        errors = clipped_value_loss(value, goal.value, goal.returns, options.clip)
        value_loss = (self.weight * errors).mean()
        entropy = self.weight.mean() * dist.std.log().sum()
        whole = surrogate + options.value_weight * value_loss - options.entropy_weight * entropy
        return whole, surrogate, value_loss


def _improve(
    policy: MemoryPolicy,
    meta: MetaParams,
    optimizer: torch.optim.Adam,
    trials: Trials,
    goal: Targets,
    rng: np.random.Generator,
    options: MemoryOptions,
) -> dict[str, float]:
    """The epochs of PPO, in place; returns its losses, means over them."""
    leaves, found = meta.leaves(), []
    for chosen in _minibatches(len(goal.steps), rng, options):
        optimizer.zero_grad()
        losses = TrialLoss.of(policy, trials, goal, chosen.to(goal.steps.device), options)(
            meta.theta
        )
        losses[0].backward()  # type: ignore[no-untyped-call]
        found.append(goal.part.averaged(leaves, torch.stack(losses).detach()))
        torch.nn.utils.clip_grad_norm_(leaves, options.max_grad_norm)
        optimizer.step()
    loss, surrogate, value_loss = torch.stack(found).mean(0).tolist()
    std = float(policy.std(meta.theta).detach().mean())
    return {"loss": loss, "surrogate": surrogate, "value_loss": value_loss, "std": std}


def _minibatches(num: int, rng: np.random.Generator, options: MemoryOptions) -> Iterator[Tensor]:
    """Which of `num` trials (num,) make each step of Adam."""
    for _ in range(options.outer_epochs):
        share = torch.from_numpy(rng.permutation(num) % options.minibatches)
        for i in range(options.minibatches):
            yield share == i


def _paid(trials: Trials, discount: float, part: Part) -> Tensor:
    """Number, sum and sum of squares (3,) of the discounted rewards up to each step."""
    so_far = discounted_returns(trials.reward.double().flip(1), discount).flip(1)
    counted = trials.alive * so_far
    sums = torch.stack((trials.alive, counted, counted.square()), 1).sum(2)
    return part.gathered(sums).sum(0)


def _scale(paid: Tensor) -> Tensor:
    """What rewards are divided by: the deviation of what was `paid` so far, as VariBAD does."""
    count, total, squared = paid
    variance = squared / count - (total / count).square()
    return variance.clamp_min(0).sqrt() + _EPSILON if variance > 0 else torch.ones_like(count)


def _restored(optimizer: torch.optim.Adam, state: Mapping[str, Tensor]) -> Tensor:
    """What was `_paid` so far; the optimiser's own is put back in place."""
    own = {name: value for name, value in state.items() if name == _PAID}
    restore_optimizer(optimizer, {n: value for n, value in state.items() if n not in own})
    fresh = {_PAID: torch.zeros(3, dtype=torch.float64)}
    check_state(own or fresh, lambda: {_PAID: torch.zeros(3, dtype=torch.float64)})
    device = optimizer.param_groups[0]["params"][0].device
    return (own or fresh)[_PAID].to(device)


def _returns(gathered: list[Rollouts], part: Part) -> dict[str, float]:
    """What training tasks have paid in the first episode and in the last."""
    first, last = (
        float(part.gathered(each.reward.sum(-1).cpu()).mean())
        for each in (gathered[0], gathered[-1])
    )
    return {"return_first": first, "return_last": last}
