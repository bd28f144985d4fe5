"""The options of PEARL; algorithm and weights are its authors', sizes those of two CPU cores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from demokit.errors import DemokitError
from demokit.options import REWARDS, option
from gmps.options import DemoOptions, PolicyOptions, RunOptions

if TYPE_CHECKING:
    from gmps.problem import Problem

SAME = "same"


@dataclass(frozen=True, kw_only=True)
class PearlOptions(DemoOptions, PolicyOptions, RunOptions):
    """Of PEARL: collecting, the posterior, and soft actor-critic."""

    iterations: int = option(
        200, "Iterations: some tasks are rolled out, then gradient steps.", length=True
    )
    rollouts_per_task: int = option(
        1, "K, episodes of a new task from one look at the posterior to the next."
    )
    prior_episodes: int = option(
        2, "Episodes of a new task that follow latents of the prior, whatever was seen.", zero=True
    )
    collect_tasks: int = option(
        5, "Training tasks rolled out in an iteration; all of them where there are fewer."
    )
    initial_rollouts: int = option(
        5, "Roll-outs of every training task before the first gradient step, under the prior."
    )
    prior_rollouts: int = option(
        2, "Roll-outs of a task under latents of the prior: what contexts are drawn from then."
    )
    posterior_rollouts: int = option(
        3, "Roll-outs of a task under latents of the posterior, given those.", zero=True
    )
    posterior_contexts: bool = option(
        False, "Draw contexts from them, too, as the authors do where rewards are sparse."
    )
    buffer_rollouts: int = option(
        100, "Newest roll-outs of every training task that are kept to learn from."
    )
    warm_start: bool = option(
        False,
        "Actor and critics learn from demonstrations, too, in the buffers from the start; "
        "needs --demos.",
        tells="demonstrations by task",
    )
    demos_per_task: int = option(
        0,
        "Demonstrations used per task; 0: as many as every task has.",
        zero=True,
        needs="warm_start",
    )
    gradient_steps: int = option(1000, "Gradient steps of an iteration.")
    meta_batch: int = option(
        16, "Training tasks of a gradient step, each of which may be drawn twice."
    )
    batch: int = option(32, "Transitions of a task in a gradient step.")
    context: int = option(64, "Transitions of a task that the posterior is inferred from there.")
    latent_width: int = option(5, "Dimensions of the latent.", at_most=1000)
    next_observations: bool = option(
        False, "The encoder sees the next observations, too: for tasks that differ in dynamics."
    )
    hidden_width: int = option(128, "Units in each hidden layer of actor, critics and value.")
    hidden_layers: int = option(2, "Hidden layers of these.", at_most=100)
    encoder_width: int = option(64, "Units in each of the encoder's three hidden layers.")
    critic_reward: str = option(
        SAME,
        "What critics learn from, where it is not what the encoder sees: dense, where --reward is "
        "sparse, as the authors do.",
        (SAME, *REWARDS),
    )
    reward_scale: float = option(5.0, "Factor on rewards for the critics: the inverse temperature.")
    discount: float = option(0.99, "Discount.", zero=True, at_most=1)
    kl_weight: float = option(
        0.1, "Weight of the posteriors' divergence from the prior, summed over tasks.", zero=True
    )
    outer_lr: float = option(3e-4, "Step size of Adam.")
    tau: float = option(5e-3, "Share of the state values that their slow copy takes.", at_most=1)
    output_weight: float = option(
        1e-3, "Weight of the squares of the actor's outputs, means and log deviations.", zero=True
    )

    def __post_init__(self) -> None:
        """See `RunOptions`."""
        super().__post_init__()
        gathered = max(self.initial_rollouts, self.prior_rollouts + self.posterior_rollouts)
        if self.buffer_rollouts < gathered:
            raise DemokitError(
                f"Option buffer_rollouts: {gathered} roll-outs of a task are gathered at once, and "
                f"{self.buffer_rollouts} are kept: keep more."
            )
        if self.posterior_contexts and not self.posterior_rollouts:
            raise DemokitError(
                "Option --posterior-contexts has no effect without --posterior-rollouts: leave it "
                "out."
            )

    @property
    def imitates(self) -> bool:
        """See `RunOptions`: whether it takes demonstrations."""
        return self.warm_start

    def told(self, *, images: bool) -> str:
        """See `RunOptions`."""
        dense = "" if self.critic_reward == SAME else f"its critics the {self.critic_reward} reward"
        return "; ".join(filter(None, (dense, super().told(images=images))))

    def require_reward(self, problem: Problem) -> None:
        """Raise DemokitError unless critics can learn from their reward, and it is another."""
        if self.critic_reward == problem.reward:
            raise DemokitError(
                f"Option --critic-reward has no effect: the encoder sees the {problem.reward} "
                "reward, too; leave it out, or name another --reward."
            )
        if self.critic_reward != SAME:
            problem.family.checked_reward(self.critic_reward)

    def require_room(self, demos: int) -> None:
        """Raise DemokitError unless so many demonstrations of a task are kept, and more."""
        if demos + self.initial_rollouts > self.buffer_rollouts:
            raise DemokitError(
                f"Option buffer_rollouts: {demos} demonstrations of a task and "
                f"{self.initial_rollouts} roll-outs begin, {self.buffer_rollouts} are kept: keep "
                "more, or take fewer --demos-per-task."
            )
