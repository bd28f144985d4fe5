"""The options of MAML and those akin to it: what they share, then what is each one's own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from demokit.options import option
from gmps.options import PolicyOptions, RunOptions, require_several
from gmps.steps.ppo import adapted_weight
from gmps.steps.trust_region import Region

TRPO, VPG = "trpo", "vpg"
_TRUST_REGION = f"outer={TRPO}"


class Form(NamedTuple):
    """What a method descends on.

    Attributes:
        inner_ratio: the inner loss goes through the ratio of likelihoods; else their logarithm.
        outer_ratio: the outer loss, too.
        clip: of the outer ratio.
        exploration: weight of E-MAML's term.
        kl_weights: of the KLs from the policies that sampled before each inner step.
        kl_target: of each of these KLs, by which its weight adapts; 0: none does.
    """

    inner_ratio: bool = False
    outer_ratio: bool = True
    clip: float = math.inf
    exploration: float = 0.0
    kl_weights: tuple[float, ...] = ()
    kl_target: float = 0.0

    @property
    def looks_before(self) -> bool:
        """Whether the policies before adaptation are in the loss by what they do there."""
        return bool(self.exploration or self.kl_weights)

    def after(self, kls: Sequence[float]) -> Form:
        """The form of the next iteration, after one that has led to these KLs."""
        if not self.kl_target:
            return self
        own = zip(self.kl_weights, kls, strict=True)
        return self._replace(kl_weights=tuple(adapted_weight(*o, self.kl_target) for o in own))


@dataclass(frozen=True, kw_only=True)
class OnPolicyOptions(PolicyOptions, RunOptions):
    """Of learning from one's own roll-outs alone.

    Defaults are the ProMP authors' but for the number of iterations and of tasks in each.
    """

    iterations: int = option(
        200, "Iterations: sets of roll-outs, and outer steps on them.", length=True
    )
    meta_batch: int = option(
        0, "Training tasks drawn for each iteration; 0: all of them.", zero=True
    )
    hidden_width: int = option(64, "Units in each hidden layer.")
    hidden_layers: int = option(2, "Hidden layers.")
    activation: str = option("tanh", "Between layers.", ("relu", "tanh"))
    action_scale: float = option(
        10.0,
        "Which outputs of the policy span the range of actions. Step sizes and standard deviations "
        "are in the outputs' unit: published ones mostly mean 10.",
    )
    initial_std: float = option(1.0, "Standard deviation of the outputs before training.")
    min_std: float = option(1e-6, "Floor of the standard deviation, which adapts as all else.")
    discount: float = option(0.99, "Discount of advantages.", zero=True, at_most=1)
    gae_lambda: float = option(
        1.0, "Lambda of generalised advantage estimation.", zero=True, at_most=1
    )
    baseline: str = option(
        "linear", "Features of the value baseline, refitted per task.", ("linear", "zero")
    )


@dataclass(frozen=True, kw_only=True)
class RewardOptions(OnPolicyOptions):
    """Of policy gradients that adapt."""

    def __post_init__(self) -> None:
        """See `RunOptions`."""
        super().__post_init__()
        require_several(self)

    @property
    def form(self) -> Form:
        """The losses."""
        raise NotImplementedError

    @property
    def trained_steps(self) -> int:
        """Inner steps in training."""
        return 0

    @property
    def region(self) -> Region | None:
        """Of a natural gradient; None for Adam."""
        return None

    @property
    def adam_lr(self) -> float:
        """Step size of Adam, without a region."""
        raise NotImplementedError

    @property
    def epochs(self) -> int:
        """Steps of Adam on a set of roll-outs."""
        return 1


@dataclass(frozen=True, kw_only=True)
class InnerOptions(RewardOptions):
    """Of learning through inner steps."""

    inner_lr: float = option(0.1, "Inner step size.")
    inner_steps: int = option(1, "Inner steps in training, each on roll-outs of its own.")
    later_decay: float = option(
        0.5, "Factor on the inner step size of steps beyond those of training.", at_most=1
    )
    second_order: bool = option(True, "Let the outer gradient flow through the inner gradient.")

    @property
    def trained_steps(self) -> int:
        """See `RewardOptions`."""
        return self.inner_steps


@dataclass(frozen=True, kw_only=True)
class MAESNOptions(RewardOptions):
    """Of MAESN."""

    hidden_width: int = option(100, "Units in each hidden layer.")
    activation: str = option("relu", "Between layers.", ("relu", "tanh"))
    action_scale: float = option(
        1.0, "Which outputs of the policy span the range of actions; that of its authors' release."
    )
    latent_width: int = option(2, "Dimensions of the latent.")
    inner_lr: float = option(0.5, "Step sizes of the latents' Gaussians before they are learned.")
    later_decay: float = option(
        0.5, "Factor on the step sizes after every step on a new task.", at_most=1
    )
    prior_weight: float = option(
        0.1, "Weight of the KL of the training tasks' Gaussians from the prior.", zero=True
    )
    max_kl: float = option(0.01, "Bound of the mean KL of the adapted policies.")
    cg_iterations: int = option(10, "Of conjugate gradients.")
    cg_damping: float = option(1e-5, "Added to the KL's second derivative.", zero=True)

    @property
    def region(self) -> Region:
        """See `RewardOptions`."""
        return Region(self.max_kl, self.cg_iterations, self.cg_damping)


@dataclass(frozen=True, kw_only=True)
class OuterOptions(RewardOptions):
    """Of an outer step that has two kinds."""

    outer: str = option(
        TRPO,
        "The outer step. trpo: a trust region; vpg: one of Adam, by log-likelihood.",
        (TRPO, VPG),
    )
    max_kl: float = option(
        0.01, "trpo: bound of the mean KL of the policies that sampled last.", needs=_TRUST_REGION
    )
    cg_iterations: int = option(10, "trpo: of conjugate gradients.", needs=_TRUST_REGION)
    cg_damping: float = option(
        1e-5, "trpo: added to the KL's second derivative.", zero=True, needs=_TRUST_REGION
    )
    outer_lr: float = option(1e-3, "vpg: step size of Adam.", needs=f"outer={VPG}")

    @property
    def form(self) -> Form:
        """See `RewardOptions`."""
        return Form(outer_ratio=self.outer == TRPO)

    @property
    def adam_lr(self) -> float:
        """See `RewardOptions`."""
        return self.outer_lr

    @property
    def region(self) -> Region | None:
        """See `RewardOptions`."""
        if self.outer == VPG:
            return None
        return Region(self.max_kl, self.cg_iterations, self.cg_damping)


@dataclass(frozen=True, kw_only=True)
class MultiTaskOptions(OuterOptions):
    """Of learning all training tasks by one policy, which is fine-tuned on a new one."""

    iterations: int = option(
        200,
        "Iterations: sets of roll-outs, and outer steps on them; 0: a policy of random parameters "
        "is fine-tuned.",
        length=True,
        zero=True,
    )
    oracle: bool = option(
        False,
        "Tell the policy the task, in training and of a new one: what knowing it is worth.",
        tells="contexts of training tasks; of a new task its context",
    )

    step_size: float = option(
        0.0, "Scalar step size of fine-tuning; 0: the best on training tasks.", zero=True
    )
    later_decay: float = option(
        1.0, "Factor on the step size of fine-tuning after every step.", at_most=1
    )
    tuning_tasks: int = option(
        20,
        "Training tasks that choose the fine-tuning step size; 0: all of them.",
        zero=True,
        needs="!step_size",
    )

    def told(self, *, images: bool) -> str:
        """See `RunOptions`."""
        learns = self.iterations or self.step_size
        chosen_by = "" if learns else "of these alone to choose its step size"
        return "; ".join(filter(None, (chosen_by, super().told(images=images))))


@dataclass(frozen=True, kw_only=True)
class MAMLOptions(OuterOptions, InnerOptions):
    """Of MAML."""


@dataclass(frozen=True, kw_only=True)
class EMAMLOptions(MAMLOptions):
    """Of E-MAML."""

    exploration_weight: float = option(
        1.0, "Weight of the roll-outs' likelihood, times what the adapted policies are paid."
    )

    @property
    def form(self) -> Form:
        """See `RewardOptions`."""
        return super().form._replace(exploration=self.exploration_weight)


@dataclass(frozen=True, kw_only=True)
class ProMPOptions(InnerOptions):
    """Of ProMP."""

    outer_lr: float = option(1e-3, "Step size of Adam.")
    outer_epochs: int = option(5, "Steps of Adam on a set of roll-outs.")
    clip: float = option(0.3, "Adapted policies gain by ratios within 1 +- this.", at_most=1)
    kl_weight: float = option(
        5e-4, "Weight of the KL from the policies that sampled before adaptation.", zero=True
    )
    kl_target: float = option(
        0.0,
        "Double that weight after an iteration whose KL is above 1.5 times this, halve it where it "
        "is below two thirds, for each inner step its own; 0: it stays. Its authors' is 0.01 where "
        "they have one.",
        zero=True,
        needs="kl_weight",
    )

    @property
    def form(self) -> Form:
        """See `RewardOptions`."""
        weights = self.inner_steps * (self.kl_weight,) if self.kl_weight else ()
        return Form(inner_ratio=True, clip=self.clip, kl_weights=weights, kl_target=self.kl_target)

    @property
    def adam_lr(self) -> float:
        """See `RewardOptions`."""
        return self.outer_lr

    @property
    def epochs(self) -> int:
        """See `RewardOptions`."""
        return self.outer_epochs
