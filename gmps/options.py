"""Every option of a training run, declared and documented once.

The command line, the TOML files and the checkpoints are all made from these fields. Defaults
that leave the published code's are the ones a trial on Push showed to work (PAPER: section 4.3
and the authors' release; see docs/gmps.md).
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from demokit.errors import DemokitError
from demokit.options import AUTO, DEVICES, LABELS, check_options
from demokit.options import REWARDS as PAID
from demokit.options import option as _option

METHODS = ("gmps", "imitation")
BASELINES = ("linear", "radial", "zero")
EXPLORATIONS = ("policy", "latent")
SCHEDULES = ("constant", "linear")
OUTER_LOSSES = ("squared", "log_likelihood")
PRECISIONS = ("fp32", "bf16")
RECORDED = "recorded"
REWARDS = (RECORDED, *PAID)
_MOST_ROLLOUTS = 10_000


@dataclass(frozen=True)
class TrainConfig:
    """The configuration of one run; see the fields' help."""

    method: str = _option(
        "gmps", "gmps: meta-learn; imitation: MultiTask Imitation, the comparison.", METHODS
    )
    seed: int = _option(0, "Seed of initialisation, roll-outs and demonstration batches.")
    reward: str = _option(
        RECORDED, "What the inner loop is paid; recorded: what the demonstrations were.", REWARDS
    )
    # Policy.
    hidden_width: int = _option(100, "Units in each of the two hidden layers.")
    bias_transform_width: int = _option(4, "Width of the bias transformation.")
    initial_std: float = _option(0.2, "Standard deviation of the policy before training.")
    min_std: float = _option(0.135, "Floor of the standard deviation.")
    # Inner loop: one policy-gradient step on the task's reward.
    inner_lr: float = _option(0.1, "Initial inner step size, of every adapted parameter.")
    later_decay: float = _option(
        1.0, "Factor on the scalar step size of fine-tuning after every step that takes it."
    )
    discount: float = _option(0.99, "Discount of the inner advantage.")
    gae_lambda: float = _option(1.0, "Lambda of generalised advantage estimation.")
    baseline: str = _option(
        "linear", "Features of the value baseline, refitted per task.", BASELINES
    )
    ratio_clip: float = _option(10.0, "Upper bound of the importance ratio per time step.")
    ratio_gradient: bool = _option(
        False, "Let the outer gradient flow through the importance ratio."
    )
    # Outer loop: imitation by the adapted policy.
    outer_loss: str = _option("squared", "Behaviour-cloning loss of Eq. 2.", OUTER_LOSSES)
    outer_lr: float = _option(1e-3, "Step size of Adam.")
    outer_schedule: str = _option(
        "constant",
        "Adam's step size; linear: it falls to zero over the iterations (gmps).",
        SCHEDULES,
    )
    post_weight: float = _option(
        1.0, "Weight of the imitation loss after adaptation; 0 leaves meta-learning out."
    )
    learn_step_sizes: bool = _option(True, "Meta-learn the inner step sizes with the policy.")
    second_order: bool = _option(
        True, "Let the outer gradient flow through the inner gradient (explore=policy)."
    )
    max_grad_norm: float = _option(10.0, "The outer gradient is clipped to this norm.")
    pre_update_weight: float = _option(
        0.1, "Weight of the imitation loss of the policy before adaptation."
    )
    # Exploration: what the roll-outs of the policy before adaptation follow.
    explore: str = _option(
        "policy",
        "policy: the paper's, roll-outs sample from the policy itself; latent: each follows "
        "another training task's expert (gmps).",
        EXPLORATIONS,
    )
    critic: bool = _option(
        True,
        "A learned critic judges latents by what all roll-outs were paid; without, each by "
        "its own roll-out's (latent).",
    )
    temperature: float = _option(
        0.25, "Of the weights of roll-outs, in standard deviations of their scores (latent)."
    )
    expert_weight: float = _option(
        1.0, "Weight of imitating every training task's expert under its latent (latent)."
    )
    precision: str = _option(
        "fp32",
        "Matrix products of the outer steps; bf16 is faster where the hardware has it (AMX, tensor "
        "cores), and right to about two digits.",
        PRECISIONS,
    )
    iterations: int = _option(40, "Meta-iterations: sets of roll-outs (gmps).")
    outer_steps: int = _option(20, "Outer steps per set of roll-outs (gmps).")
    rollouts_per_task: int = _option(20, "K, roll-outs per task and adaptation step.")
    demos_per_task: int = _option(0, "Demonstrations used per task; 0: as many as every task has.")
    outer_demos_per_task: int = _option(
        10, "Demonstrations per task in one outer step; drawn anew when there are more."
    )
    outer_stride: int = _option(
        1, "Every so many steps of roll-outs and demonstrations, drawn anew, make an outer step."
    )
    labels: str = _option(
        AUTO,
        "What demonstrations teach. auto: the action of whoever acted, the person's by hand, the "
        "expert's without the noise on it, or its advice where a policy acted (DAgger); executed: "
        "the executed action, noise and all; expert: the expert's advice, whoever acted. What "
        "--dagger adds has the expert's labels.",
        LABELS,
    )
    # DAgger: the expert labels what the adapted policies visit.
    dagger: bool = _option(False, "Ask the expert about the adapted policies' states (gmps).")
    expert: str = _option(
        "scripted", "Who answers the queries of --dagger: a name or a file of train-expert."
    )
    dagger_every: int = _option(2, "Query every so many iterations.")
    dagger_episodes: int = _option(2, "Labelled roll-outs per task and round.")
    dagger_share: float = _option(
        1.0, "At most this share of an outer step's demonstrations are labelled roll-outs."
    )
    dagger_mixing: float = _option(
        0.0, "Share of steps that the expert takes in round 1; its r-th power in round r."
    )
    imitation_steps: int = _option(3000, "Gradient steps of MultiTask Imitation.")
    tuning_tasks: int = _option(
        0, "Training tasks that choose the fine-tuning step size; 0: all of them."
    )
    # Images.
    place_weight: float = _option(
        1.0,
        "Images: weight of the loss of the object's position, which features shall say; it is "
        "privileged, and known in training only.",
    )
    encode_every: int = _option(
        1,
        "Images: the convolutions learn in every so many outer steps; those between see by "
        "features that are kept.",
    )
    pretrain_steps: int = _option(0, "Imitation steps of theta before meta-training (gmps).")
    # Book-keeping.
    eval_every: int = _option(10, "Roll out adapted policies every so many iterations.")
    patience: int = _option(
        0,
        "Stop when so many of these evaluations in a row earned no more than the best before them, "
        "whose policy is kept; 0: never (gmps).",
    )
    checkpoint_every: int = _option(5, "Write a checkpoint every so many iterations.")
    threads: int = _option(2, "Torch threads of the optimisation, in each process.")
    device: str = _option(
        "cpu", "Where policies and outer steps are computed; simulations stay on the CPU.", DEVICES
    )

    def __post_init__(self) -> None:
        """Check choices and ranges; raises DemokitError naming the option."""
        zero = (
            *("seed", "pre_update_weight", "post_weight"),
            *("bias_transform_width", "dagger_mixing"),
            *("place_weight", "pretrain_steps", "tuning_tasks", "patience", "demos_per_task"),
        )
        check_options(self, may_be_zero=zero)
        if not 2 <= self.rollouts_per_task <= _MOST_ROLLOUTS:
            raise DemokitError(
                f"Option rollouts_per_task: 2, for adaptation compares them, to {_MOST_ROLLOUTS}."
            )
        shares = ("discount", "gae_lambda", "dagger_mixing", "dagger_share", "later_decay")
        if max(getattr(self, name) for name in shares) > 1:
            raise DemokitError(f"Options {', '.join(shares)}: at most 1.")

    @property
    def is_meta(self) -> bool:
        """Whether the policy is meta-learned, not merely pre-trained."""
        return self.method == "gmps"

    @property
    def explores_latents(self) -> bool:
        """Whether roll-outs follow latents instead of sampling from the policy."""
        return self.is_meta and self.explore == "latent"

    def outer_lr_in(self, iteration: int) -> float:
        """Adam's step size in meta-iteration 0, 1, ..."""
        if self.outer_schedule == "constant":
            return self.outer_lr
        return self.outer_lr * (1 - iteration / self.iterations)

    @property
    def total_iterations(self) -> int:
        """Iterations of the whole run, as its metrics count them."""
        return self.iterations if self.is_meta else self.imitation_steps


def differing_options(config: TrainConfig) -> str:
    """The options whose values are not the defaults, but for seed, method and the hardware's."""
    return ", ".join(
        f"{each.name}={getattr(config, each.name)}"
        for each in fields(config)
        if getattr(config, each.name) != each.default
        and each.name not in ("seed", "method", "threads", "device")
    )
