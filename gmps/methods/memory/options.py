"""The options of methods that remember; defaults are those of VariBAD's RL2."""

from __future__ import annotations

from dataclasses import dataclass

from demokit.errors import DemokitError
from demokit.options import SIMULATION, option
from gmps.options import PolicyOptions, RunOptions
from gmps.policies.memory import GRU, Body, Snail


@dataclass(frozen=True, kw_only=True)
class MemoryOptions(PolicyOptions, RunOptions):
    """Of a policy that remembers a trial, and of PPO over whole trials."""

    iterations: int = option(1000, "Iterations: sets of trials, and PPO on them.", length=True)
    rollouts_per_task: int = option(
        1, "K: one, for an episode leads to what the next one tries.", at_most=1
    )
    eval_every: int = option(
        50,
        "Adapt to the monitor tasks every so many iterations, for the learning curve.",
        needs=SIMULATION,
    )
    checkpoint_every: int = option(20, "Write a checkpoint every so many iterations.")
    trial_episodes: int = option(2, "Episodes of a trial in training.", at_most=1000)
    trials: int = option(
        32, "Trials of an iteration, on training tasks in turn, in random order.", at_most=100_000
    )
    observation_embedding: int = option(32, "Units of the observation's own layer.")
    action_embedding: int = option(16, "Units of the last action's own layer.")
    reward_embedding: int = option(16, "Units of the last reward's own layer.")
    hidden_width: int = option(128, "Units of the hidden layer of policy and of value.")
    action_scale: float = option(1.0, "Which outputs of the policy span the range of actions.")
    initial_std: float = option(1.0, "Standard deviation of the outputs before training.")
    min_std: float = option(1e-6, "Floor of the standard deviation.")
    discount: float = option(0.97, "Discount, across the ends of episodes.", zero=True, at_most=1)
    gae_lambda: float = option(
        0.9, "Lambda of generalised advantage estimation.", zero=True, at_most=1
    )
    clip: float = option(0.1, "PPO gains by ratios, and values move, within +- this.", at_most=1)
    outer_epochs: int = option(2, "Passes of PPO over a set of trials.")
    minibatches: int = option(4, "Steps of Adam in a pass, each on a share of the trials.")
    outer_lr: float = option(7e-4, "Step size of Adam.")
    entropy_weight: float = option(0.01, "Weight of the policy's entropy.", zero=True)
    value_weight: float = option(0.5, "Weight of the value's loss.")
    max_grad_norm: float = option(0.5, "The gradient is clipped to this norm.")

    def __post_init__(self) -> None:
        """See `RunOptions`."""
        super().__post_init__()
        if self.minibatches > self.trials:
            raise DemokitError(
                f"Option minibatches: {self.trials} --trials are not {self.minibatches} shares: "
                "take fewer shares, or more trials."
            )

    @property
    def embedded(self) -> tuple[int, int, int]:
        """Units for observation, action and reward."""
        return self.observation_embedding, self.action_embedding, self.reward_embedding

    def body(self, horizon: int) -> Body:
        """What has the memory, for episodes of so many steps."""
        raise NotImplementedError

    @property
    def seen_width(self) -> int:
        """What the body sees of a step: what is embedded, and the flag of first steps."""
        return sum(self.embedded) + 1


@dataclass(frozen=True, kw_only=True)
class RL2Options(MemoryOptions):
    """Of RL2."""

    memory_width: int = option(128, "Units of the GRU.")

    def body(self, horizon: int) -> GRU:
        """See `MemoryOptions`."""
        return GRU(self.seen_width, self.memory_width)


@dataclass(frozen=True, kw_only=True)
class SnailOptions(MemoryOptions):
    """Of SNAIL."""

    filters: int = option(16, "What each temporal convolution says, in numbers.")
    attention_width: int = option(16, "Numbers of a key, and of a value.")

    def body(self, horizon: int) -> Snail:
        """See `MemoryOptions`."""
        length = horizon * self.trial_episodes
        return Snail(self.seen_width, length, self.filters, self.attention_width)
