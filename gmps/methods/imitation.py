"""MultiTask Imitation: one policy pre-trained on the demonstrations of all tasks.

Source: GMPS, section 5.3 and Fig. 6. It has the network, the demonstrations, the roll-outs per
adaptation step and the inner estimator of GMPS; only the meta-objective is missing. Fine-tuning
takes its best scalar step size, chosen on the training tasks.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from demokit.options import option
from demokit.random import torch_stream
from gmps.gradient import (
    GradientLearner,
    loaded_advantage,
    loaded_meta,
    loaded_step_size,
    make_advantage,
)
from gmps.method import Iteration, Method
from gmps.options import CloningOptions, GaussianOptions, GradientOptions, require_several
from gmps.policies.meta_params import MetaParams
from gmps.policies.standard import demo_statistics, make_policy, statistics_of
from gmps.problem import Problem, Training
from gmps.steps.imitation import clone


@dataclass(frozen=True, kw_only=True)
class MultiTaskImitationOptions(GradientOptions, GaussianOptions, CloningOptions):
    """Of MultiTask Imitation."""

    step_size: float = option(
        0.0,
        "Scalar step size of fine-tuning; 0: the best on the training tasks, or none where nothing "
        "simulates them.",
        zero=True,
    )

    def __post_init__(self) -> None:
        """See `RunOptions`."""
        super().__post_init__()
        require_several(self)


def start(training: Training[MultiTaskImitationOptions]) -> GradientLearner:
    """Fresh parameters, and constants taken from the demonstrations."""
    options, demos = training.options, training.demonstrations
    statistics = demo_statistics(demos, options.object_weight)
    schema, width = training.problem.schema, options.bias_transform_width
    policy = make_policy(options, schema, training.problem.sees, statistics, width)
    meta = MetaParams(policy.init(torch_stream(options.seed, "theta")), {})
    advantage = make_advantage(options, demos, policy)
    return GradientLearner.of(
        options, policy, meta, advantage, options.rollouts_per_task, options.step_size or None
    )


def train(
    training: Training[MultiTaskImitationOptions],
    learner: GradientLearner,
    state: Mapping[str, Tensor],
    first: int,
) -> Generator[Iteration]:
    """Behaviour cloning of one policy that is told nothing."""
    yield from clone(training, learner, state, first, kind=training.options.outer_loss)


def load(
    problem: Problem,
    options: MultiTaskImitationOptions,
    tensors: dict[str, Tensor],
    header: dict[str, Any],
) -> GradientLearner:
    """The learner of a checkpoint."""
    schema, width = problem.schema, options.bias_transform_width
    policy = make_policy(options, schema, problem.sees, statistics_of(tensors), width)
    meta = loaded_meta(policy, tensors, step_sizes=False)
    num, step_size = options.rollouts_per_task, loaded_step_size(header)
    advantage = loaded_advantage(options, tensors, header)
    return GradientLearner.of(options, policy, meta, advantage, num, step_size)


METHOD = Method(
    about="MultiTask Imitation: pre-training on all demonstrations, then fine-tuning",
    source="Mendonca et al., 2019, section 5.3",
    adapts="policy-gradient steps on all parameters, with the best step size",
    options=MultiTaskImitationOptions,
    module=__name__,
    imitates=True,
    rolls_out=False,
    fewest_tasks=1,
    told="demonstrations; to choose its step size, rewards on training tasks",
)
