"""Random search over one action for a whole episode: a method from another package."""

from dataclasses import dataclass, replace

import numpy as np
import torch

from demokit.learning.distributions import Gaussian
from demokit.options import option
from gmps.method import Iteration, Method
from gmps.options import RunOptions


@dataclass(frozen=True, kw_only=True)
class Options(RunOptions):
    spread: float = option(1.0, "Standard deviation of the actions tried at first.")


class Holds:
    """Acts the same in every step of an episode: the actions (M, K, A) are its memory."""

    def __init__(self, actions):
        self.memory = actions

    def __call__(self, memory, seen):
        return Gaussian(memory, torch.full_like(memory, 0.01)), memory


@dataclass(frozen=True, eq=False)
class RandomSearch:
    """Tries actions around `center` (A,), `spread` (A,) wide; keeps the one that was paid best."""

    center: torch.Tensor
    spread: torch.Tensor
    episodes_per_step: int

    def begin(self, num_tasks):
        return self.center.expand(num_tasks, -1)

    def explorer(self, belief, step, num, rngs):
        drawn = [rng.standard_normal((num, belief.shape[1]), np.float32) for rng in rngs]
        return Holds(belief[:, None] + self.spread / 2**step * torch.from_numpy(np.stack(drawn)))

    def adapt(self, belief, step, gathered, memory):
        best = gathered.reward.sum(-1).argmax(1)
        return memory[torch.arange(len(best)), best]

    def exploiter(self, belief, num):
        return Holds(belief[:, None].expand(-1, num, -1))

    def tensors(self):
        return {"center": self.center, "spread": self.spread}

    def header(self):
        return {}

    def to(self, device):
        return replace(self, center=self.center.to(device), spread=self.spread.to(device))


def start(training):
    width = len(training.problem.family.actions)
    spread = torch.full((width,), training.options.spread)
    return RandomSearch(torch.zeros(width), spread, training.options.rollouts_per_task)


def train(training, learner, state, first):
    """The cross-entropy method over what was best on each training task."""
    with training.sampler(explore=learner.episodes_per_step) as sampler:
        for iteration in range(first, training.options.iterations):
            rngs = sampler.streams(training.stream("iteration", iteration))
            explorer = learner.explorer(learner.begin(sampler.num_tasks), 0, sampler.explore, rngs)
            explored, _ = sampler(explorer, rngs)
            best = training.part.gathered(learner.adapt(None, 0, *explored[:2]))
            learner = replace(learner, center=best.mean(0), spread=best.std(0))
            scalars = {"spread": float(learner.spread.mean())}
            yield Iteration(learner, scalars, sampler.num_steps, state)


def load(problem, options, tensors, header):
    return RandomSearch(tensors["center"], tensors["spread"], options.rollouts_per_task)


METHOD = Method(
    about="random search for one action",
    source="a test",
    adapts="keeping the best of K",
    options=Options,
    module=__name__,
    told="rewards of roll-outs",
)
