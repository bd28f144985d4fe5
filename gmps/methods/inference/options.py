"""The options of task inference."""

from __future__ import annotations

from dataclasses import dataclass

from demokit.errors import DemokitError
from demokit.options import option
from gmps.options import ImitationOptions, PolicyOptions, RunOptions


@dataclass(frozen=True, kw_only=True)
class InferenceOptions(ImitationOptions, PolicyOptions, RunOptions):
    """Of task inference: what is learned of the tasks, then how a new one is sought."""

    iterations: int = option(
        2, "Rounds: the task space is learned, then training tasks are rolled out in it."
    )
    rollouts_per_task: int = option(1, "K, episodes of a new task from one look to the next.")
    checkpoint_every: int = option(1, "Write a checkpoint every so many iterations.")
    threads: int = option(1, "Torch threads: what is computed is small.")
    training_rollouts: int = option(40, "Roll-outs per training task and round.")
    steps: int = option(
        2000, "Gradient steps on policy, latents and models in a round.", length=True
    )
    latent_width: int = option(
        0,
        "Dimensions of the task space; 0: after the first round as many as predict best what "
        "tasks do that were left out.",
        zero=True,
        at_most=64,
    )
    latent_lr: float = option(1e-2, "Step size of Adam for the latents.")
    kl_weight: float = option(1e-3, "Weight of the latents' divergence from the prior.", zero=True)
    model_weight: float = option(
        1.0, "Weight of predicting rewards and changes of state beside imitation.", zero=True
    )
    model_steps: int = option(
        2000,
        "Gradient steps on the models that judge tasks, in a round: so many without a third of the "
        "training tasks, and as many with all.",
        length=True,
    )
    leave_out: bool = option(
        False, "Models stay as they are without the third of the tasks that each leaves out."
    )
    temper: float = option(
        0.1, "Weight of a transition's log-likelihood: those of an episode are not independent."
    )
    ascent: int = option(
        15,
        "Steps of Adam that move the likeliest candidates uphill, for every two dimensions of the "
        "task space; 0: none move.",
        zero=True,
    )
    optimism: int = option(
        8, "Of so many drawn latents the one that would earn most is tried; 1: no choice."
    )
    moves: int = option(
        4,
        "How often an exploring episode looks at what it has met and takes another latent; 0: it "
        "follows one.",
        zero=True,
    )
    pretrain_steps: int = option(
        1000,
        "Imitation steps that teach the eyes, which are kept then.",
        needs="images",
        length=True,
    )
    outer_stride: int = option(
        1, "Every so many demonstrated steps, drawn anew, make one of these steps.", needs="images"
    )
    max_grad_norm: float = option(10.0, "Their gradient is clipped to this norm.", needs="images")

    def __post_init__(self) -> None:
        """See `RunOptions`."""
        super().__post_init__()
        if self.device != "cpu":
            raise DemokitError("Option device: task inference computes on the CPU: use cpu.")
