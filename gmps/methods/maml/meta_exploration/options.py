"""The options of meta-exploration; its ablations are values of them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import ClassVar

from demokit.errors import DemokitError
from demokit.options import AUTO, LABELS, option
from gmps.methods.maml.options import OnPolicyOptions
from gmps.options import OUTER_LOSSES, SQUARED, TAUGHT, LabelOptions

RETURN, REWARD, POLICY_GRADIENT = "return", "reward", "policy-gradient"
ADVANTAGE, DICE, EMAML = "advantage", "dice", "e-maml"


@dataclass(frozen=True, kw_only=True)
class ImitatingOptions(LabelOptions):
    """Of imitating experts in place of being paid."""

    HEADING: ClassVar[str] = "Imitation"

    imitate: bool = option(
        False,
        "The adapted policy imitates each task's expert, in place of being paid; needs --demos.",
        tells="demonstrations by task",
    )
    demos_per_task: int = option(
        0,
        "Demonstrations used per task; 0: as many as every task has.",
        zero=True,
        needs="imitate",
    )
    labels: str = option(AUTO, TAUGHT, LABELS, needs="imitate")
    outer_loss: str = option(
        SQUARED, "Behaviour-cloning loss of both policies.", OUTER_LOSSES, needs="imitate"
    )
    outer_demos_per_task: int = option(
        10,
        "Demonstrations per task in one outer step; drawn anew when there are more.",
        needs="imitate",
    )
    explorer_weight: float = option(
        1.0,
        "Weight of the loss of imitating all experts at once, of the policy that explores.",
        zero=True,
        needs="imitate",
    )


@dataclass(frozen=True, kw_only=True)
class ExplorationOptions(ImitatingOptions, OnPolicyOptions):
    """Of meta-exploration.

    Step sizes, discount, clip and epochs are those of its authors' code; its layers, roll-outs and
    scale of actions are in the preset `meta_exploration`.
    """

    hidden_width: int = option(100, "Units in each hidden layer.")
    activation: str = option("relu", "Between layers.", ("relu", "tanh"))
    action_scale: float = option(1.0, "Which outputs of the policies span the range of actions.")
    latent_width: int = option(32, "Dimensions of the latent.")
    discount: float = option(0.95, "Discount of returns and of advantages.", zero=True, at_most=1)
    inner_lr: float = option(0.5, "Step size of the latent.")
    inner: str = option(
        RETURN,
        "What the latent descends on. return, reward: the squared error of a network that predicts "
        "it; policy-gradient: of the policy that exploits, on what the other one did.",
        (RETURN, REWARD, POLICY_GRADIENT),
    )
    credit: str = option(
        ADVANTAGE,
        "What the policy that explores gains by. advantage: what each step did for adaptation, "
        "over a baseline; dice: the same without; e-maml: what adapted policies are paid.",
        (ADVANTAGE, DICE, EMAML),
    )
    shared: bool = option(
        False, "One policy explores and exploits, under the latent before and after adaptation."
    )
    outer_epochs: int = option(5, "Steps of Adam on a set of roll-outs.")
    clip: float = option(0.2, "Policies gain by ratios within 1 +- this.", at_most=1)
    outer_lr: float = option(7e-4, "Step size of Adam.")
    latent_lr: float = option(3.5e-5, "The same for the latent before adaptation.")
    explorer_lr: float = option(
        7e-5, "The same for the policy that explores alone.", needs="!shared"
    )
    max_grad_norm: float = option(
        0.05, "The gradient of each of these three groups is clipped to this norm."
    )

    def __post_init__(self) -> None:
        """See `RunOptions`."""
        super().__post_init__()
        if self.imitate and self.credit == EMAML:
            raise DemokitError(
                "Option --credit e-maml credits what adapted policies are paid, and with --imitate "
                "nobody pays them: choose another, or leave --imitate out."
            )
        if self.imitate and self.credit == DICE:
            self._require_no_advantages()

    def _require_no_advantages(self) -> None:
        """Raise DemokitError for an option of advantages, by which no policy gains.

        The inner step may go by them all the same, and by returns.
        """
        idle = ["clip"]
        if self.inner != POLICY_GRADIENT:
            idle += ["gae_lambda", "baseline"]
        if self.inner == REWARD:
            idle.append("discount")
        for each in fields(self):
            if each.name in idle and getattr(self, each.name) != each.default:
                raise DemokitError(
                    f"Option --{each.name.replace('_', '-')} has no effect with --imitate and "
                    "--credit dice: leave it out."
                )

    @property
    def imitates(self) -> bool:
        """See `RunOptions`."""
        return self.imitate
