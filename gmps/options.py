"""Options that several methods have, in groups; a method's own stand beside it.

The command line, the TOML files and the checkpoints are all made from these fields. Defaults
that leave the published code's are the ones a trial on Push showed to work (docs/methods.md).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

from demokit.errors import DemokitError
from demokit.options import AUTO, DEVICES, IMAGES, LABELS, SIMULATION, check_options, option
from demokit.options import REWARDS as PAID

RECORDED = "recorded"
MOST_ROLLOUTS = 10_000
REWARDS = (RECORDED, *PAID)
BASELINES = ("linear", "radial", "zero")
SQUARED = "squared"
OUTER_LOSSES = (SQUARED, "log_likelihood")
SAVING = "checkpoint_every"
"""The option that says how often a run is saved: what is learned does not depend on it."""
_HARDWARE = ("threads", "device")


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """The options of every run."""

    HEADING: ClassVar[str] = "Every method"

    seed: int = option(0, "Seed of initialisation, roll-outs and demonstration batches.", zero=True)
    reward: str = option(
        RECORDED, "What adaptation is paid; recorded: what the demonstrations were.", REWARDS
    )
    iterations: int = option(40, "Iterations of the method.", length=True)
    rollouts_per_task: int = option(
        20, "K, roll-outs per task and adaptation step.", at_most=MOST_ROLLOUTS
    )
    eval_every: int = option(
        10,
        "Adapt to the monitor tasks every so many iterations, for the learning curve.",
        needs=SIMULATION,
    )
    patience: int = option(
        0,
        "Stop when so many of these evaluations in a row earned no more than the best before them, "
        "which is kept; 0: never.",
        zero=True,
        needs=SIMULATION,
        tells="returns on monitor tasks, held out where more can be drawn, to stop by",
    )
    checkpoint_every: int = option(5, "Write a checkpoint every so many iterations.")
    threads: int = option(2, "Torch threads of the optimisation, in each process.")
    device: str = option(
        "cpu", "Where policies and outer steps are computed; simulations stay on the CPU.", DEVICES
    )

    def __post_init__(self) -> None:
        """Check choices, ranges and effects; raises DemokitError naming the option."""
        check_options(self)

    def told(self, *, images: bool) -> str:
        """What a method is told by these options beside what it always is, a phrase for tables.

        Args:
            images: whether it sees images.
        """
        idle = () if images else (IMAGES,)
        on = (each.metadata for each in fields(self) if getattr(self, each.name))
        return "; ".join(of["tells"] for of in on if of["tells"] and of["needs"] not in idle)

    @property
    def imitates(self) -> bool:
        """Whether a method that need not imitate shall, see `Method.needs_demos`."""
        return False

    @property
    def scheduled(self) -> bool:
        """Whether each iteration depends on how many there are to be."""
        return False


@dataclass(frozen=True, kw_only=True)
class PolicyOptions:
    """Of a policy."""

    HEADING: ClassVar[str] = "Policy"

    hidden_width: int = option(100, "Units in each of the two hidden layers.")


@dataclass(frozen=True, kw_only=True)
class GaussianOptions(PolicyOptions):
    """Of a policy whose standard deviation is learned, and explores."""

    HEADING: ClassVar[str] = "Policy"

    initial_std: float = option(0.2, "Standard deviation of the policy before training.")
    min_std: float = option(0.135, "Floor of the standard deviation.")
    outer_loss: str = option(SQUARED, "Behaviour-cloning loss of Eq. 2.", OUTER_LOSSES)


@dataclass(frozen=True, kw_only=True)
class GradientOptions:
    """Of adaptation by policy gradient."""

    HEADING: ClassVar[str] = "Adaptation"

    bias_transform_width: int = option(4, "Width of the bias transformation.", zero=True)
    later_decay: float = option(
        1.0,
        "Factor on the scalar step size of fine-tuning after every step that takes it.",
        at_most=1,
    )
    discount: float = option(0.99, "Discount of the inner advantage.", zero=True, at_most=1)
    gae_lambda: float = option(
        1.0, "Lambda of generalised advantage estimation.", zero=True, at_most=1
    )
    baseline: str = option(
        "linear", "Features of the value baseline, refitted per task.", BASELINES
    )
    tuning_tasks: int = option(
        0,
        "Training tasks that choose the fine-tuning step size; 0: all of them.",
        zero=True,
        needs="!step_size",
    )


@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """Of using demonstrations."""

    HEADING: ClassVar[str] = "Imitation"

    demos_per_task: int = option(
        0, "Demonstrations used per task; 0: as many as every task has.", zero=True
    )


TAUGHT = (
    "What demonstrations teach. auto: the action of whoever acted, the person's by hand, the "
    "expert's without the noise on it, or its advice where a policy acted (DAgger); executed: "
    "the executed action, noise and all; expert: the expert's advice, whoever acted."
)


@dataclass(frozen=True, kw_only=True)
class LabelOptions(DemoOptions):
    """Of what demonstrations teach."""

    HEADING: ClassVar[str] = "Imitation"

    labels: str = option(AUTO, TAUGHT, LABELS)


@dataclass(frozen=True, kw_only=True)
class ImitationOptions(LabelOptions):
    """Of imitating demonstrations, with Adam."""

    HEADING: ClassVar[str] = "Imitation"

    outer_lr: float = option(1e-3, "Step size of Adam.")
    outer_stride: int = option(
        1, "Every so many steps of roll-outs and demonstrations, drawn anew, make an outer step."
    )
    max_grad_norm: float = option(10.0, "The outer gradient is clipped to this norm.")
    object_weight: float = option(
        1.0,
        "Images: weight of the loss of the object's position, which features shall say; it is "
        "privileged, and known in training only.",
        zero=True,
        needs=IMAGES,
        tells="where the object is, in training, beside images",
    )


@dataclass(frozen=True, kw_only=True)
class ExpertOptions:
    """Of asking the expert."""

    HEADING: ClassVar[str] = "Expert queries (DAgger)"

    dagger: bool = option(
        False,
        "Ask the expert about the states of the method's own roll-outs.",
        tells="an expert's answers about its own roll-outs",
    )
    expert: str = option(
        "scripted",
        "Who answers the queries: a name or a file of train-expert.",
        needs="dagger",
    )


@dataclass(frozen=True, kw_only=True)
class CloningOptions(ImitationOptions, PolicyOptions, RunOptions):
    """Of one policy that is trained by imitation alone."""

    iterations: int = option(30, "Iterations of `steps` gradient steps.", length=True)
    steps: int = option(100, "Gradient steps of an iteration.")


def require_several(options: RunOptions) -> None:
    """Raise DemokitError unless adaptation has roll-outs to compare."""
    if options.rollouts_per_task < 2:
        raise DemokitError("Option rollouts_per_task: at least 2, for adaptation compares them.")


def differing_options(options: RunOptions) -> dict[str, Any]:
    """The options whose values are not the defaults, but for the seed, saving and hardware."""
    given = asdict(options)
    return {
        each.name: given[each.name]
        for each in fields(options)
        if given[each.name] != each.default and each.name not in ("seed", SAVING, *_HARDWARE)
    }
