"""The options of the decision-pretrained transformer."""

from __future__ import annotations

from dataclasses import dataclass

from demokit.errors import DemokitError
from demokit.options import SIMULATION, option
from gmps.options import ExpertOptions, LabelOptions, RunOptions


@dataclass(frozen=True, kw_only=True)
class DPTOptions(ExpertOptions, LabelOptions, RunOptions):
    """Of the network, of what its contexts are made of, and of imitation given contexts."""

    iterations: int = option(
        20, "Iterations: trials of all training tasks, then `steps` gradient steps.", length=True
    )
    rollouts_per_task: int = option(1, "K, episodes of a new task that join the context together.")
    eval_every: int = option(
        5,
        "Adapt to the monitor tasks every so many iterations, for the learning curve.",
        needs=SIMULATION,
    )
    checkpoint_every: int = option(1, "Write a checkpoint every so many iterations.")
    threads: int = option(1, "Torch threads: what is computed is small.")
    context_episodes: int = option(
        3, "Episodes that a context holds beside the one under way: the newest.", at_most=1000
    )
    context_transitions: int = option(
        25, "Transitions of an episode that stand in a context, at most: evenly over it."
    )
    replays: int = option(
        8,
        "Roll-outs per training task in the first iteration: demonstrations of any training task, "
        "replayed with noise.",
    )
    width: int = option(64, "Numbers of a token.", at_most=4096)
    layers: int = option(3, "Layers of the transformer.", at_most=100)
    heads: int = option(2, "Heads of attention.")
    steps: int = option(200, "Gradient steps of an iteration.")
    batch: int = option(16, "Contexts of a gradient step.")
    queries: int = option(64, "States that are asked about behind parts of a context.")
    outer_lr: float = option(1e-3, "Step size of AdamW at the start; it falls to zero.")
    weight_decay: float = option(1e-4, "Weight decay of AdamW.", zero=True)
    max_grad_norm: float = option(1.0, "The gradient is clipped to this norm.")
    exploring_std: float = option(
        0.1, "Standard deviation of actions in episodes that join the context."
    )
    kept_episodes: int = option(
        40, "Episodes of a training task that contexts are drawn from: the newest."
    )

    def __post_init__(self) -> None:
        """See `RunOptions`."""
        super().__post_init__()
        gathered = max(self.replays, self.context_episodes + 1)
        if self.kept_episodes < gathered:
            raise DemokitError(
                f"Option kept_episodes: {gathered} episodes of a task are gathered at once, and "
                f"{self.kept_episodes} are kept: keep more."
            )
        if self.width % self.heads:
            raise DemokitError(
                f"Option heads: {self.width} numbers of --width are not {self.heads} equal parts: "
                "take another number of heads."
            )

    @property
    def scheduled(self) -> bool:
        """See `RunOptions`: AdamW's step size falls to zero."""
        return True

    def stride(self, horizon: int) -> int:
        """Every so many transitions of an episode stand in a context."""
        return -(-(horizon - 1) // self.context_transitions)
