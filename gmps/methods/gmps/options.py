"""The options of both methods: what guides them, then what is each one's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from demokit.options import option
from gmps.options import (
    ExpertOptions,
    GaussianOptions,
    GradientOptions,
    ImitationOptions,
    RunOptions,
    require_several,
)

SCHEDULES = ("constant", "linear")
PRECISIONS = ("fp32", "bf16")


@dataclass(frozen=True, kw_only=True)
class QueryOptions(ExpertOptions):
    """Of asking the expert about what adapted policies visit."""

    HEADING: ClassVar[str] = "Expert queries (DAgger)"

    dagger_every: int = option(2, "Query every so many iterations.", needs="dagger")
    dagger_episodes: int = option(2, "Labelled roll-outs per task and round.", needs="dagger")
    dagger_share: float = option(
        1.0,
        "At most this share of an outer step's demonstrations are labelled roll-outs.",
        at_most=1,
        needs="dagger",
    )
    dagger_mixing: float = option(
        0.0,
        "Share of steps that the expert takes in round 1; its r-th power in round r.",
        zero=True,
        at_most=1,
        needs="dagger",
    )


@dataclass(frozen=True, kw_only=True)
class GuidedOptions(QueryOptions, ImitationOptions, GaussianOptions, RunOptions):
    """Of meta-learning by imitation: Algorithms 1 and 2."""

    iterations: int = option(40, "Meta-iterations: sets of roll-outs.", length=True)
    outer_steps: int = option(20, "Outer steps per set of roll-outs.")
    outer_demos_per_task: int = option(
        10, "Demonstrations per task in one outer step; drawn anew when there are more."
    )
    outer_schedule: str = option(
        "constant", "Adam's step size; linear: it falls to zero over the iterations.", SCHEDULES
    )
    post_weight: float = option(
        1.0,
        "Weight of the imitation loss after adaptation; 0 leaves meta-learning out.",
        zero=True,
    )
    learn_step_sizes: bool = option(True, "Meta-learn the inner step sizes with the policy.")
    precision: str = option(
        "fp32",
        "Matrix products of the outer steps; bf16 is faster where the hardware has it (AMX, tensor "
        "cores), and right to about two digits.",
        PRECISIONS,
    )
    pretrain_steps: int = option(
        0, "Imitation steps of theta before meta-training.", zero=True, length=True
    )
    encode_every: int = option(
        1,
        "Images: the convolutions learn in every so many outer steps; those between see by "
        "features that are kept.",
        needs="images",
    )

    def __post_init__(self) -> None:
        """See `RunOptions`."""
        super().__post_init__()
        require_several(self)

    @property
    def scheduled(self) -> bool:
        """See `RunOptions`."""
        return self.outer_schedule != "constant"

    def outer_lr_in(self, iteration: int) -> float:
        """Adam's step size in meta-iteration 0, 1, ..."""
        left = 1 - iteration / self.iterations
        return self.outer_lr * left if self.scheduled else self.outer_lr


@dataclass(frozen=True, kw_only=True)
class GMPSOptions(GradientOptions, GuidedOptions):
    """Of GMPS as the paper has it: everything adapts, by policy gradient."""

    inner_lr: float = option(0.1, "Initial inner step size, of every adapted parameter.")
    ratio_clip: float = option(10.0, "Upper bound of the importance ratio per time step.")
    ratio_gradient: bool = option(
        False,
        "Let the outer gradient flow through the importance ratio.",
        needs="second_order",
    )
    second_order: bool = option(True, "Let the outer gradient flow through the inner gradient.")
    pre_update_weight: float = option(
        0.1, "Weight of the imitation loss of the policy before adaptation.", zero=True
    )


@dataclass(frozen=True, kw_only=True)
class LatentOptions(GuidedOptions):
    """Of GMPS that explores by latents: the latent adapts."""

    critic: bool = option(
        True,
        "A learned critic judges latents by what all roll-outs were paid; without, each by "
        "its own roll-out's.",
    )
    temperature: float = option(
        0.25, "Of the weights of roll-outs, in standard deviations of their scores."
    )
    expert_weight: float = option(
        1.0, "Weight of imitating every training task's expert under its latent.", zero=True
    )
