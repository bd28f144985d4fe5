"""Adaptation by policy gradient: the learner of GMPS, MultiTask Imitation and MAML's family."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from demokit.errors import DemokitError
from demokit.learning.networks import Params
from gmps.experience.demos import Demonstrations, DemoSet
from gmps.experience.rollouts import Rollouts
from gmps.options import GradientOptions
from gmps.policies.gaussian import AdaptSpec, GaussianActor, GaussianPolicy, replicate
from gmps.policies.meta_params import MetaParams
from gmps.policies.standard import policy_tensors, require_params
from gmps.steps.advantage import Advantage, spread_centers
from gmps.steps.imitation import fine_tuned
from gmps.steps.inner import InnerBatch, InnerStep

_NUM_CENTERS = 16


@dataclass(frozen=True, eq=False)
class GradientLearner:
    """phi <- phi - alpha * grad L_RL(phi) on K roll-outs of phi, from phi = theta.

    Its belief are the parameters phi (M, ...). The first step takes the learned step sizes, where
    there are any; they are for theta, and used again where they were not learned they diverge.
    Every other step takes one scalar. Steps are counted by roll-outs alone: the first after
    demonstrations of a task takes the learned sizes, too, though phi is no longer theta but was
    fine-tuned. That is a choice, and was not measured against the scalar.

    Attributes:
        policy: the pure functions; `meta` its parameters theta and step sizes alpha, none where
            none were learned.
        inner: the step, and what adapts in it.
        advantage: its estimator.
        episodes_per_step: K.
        step_size: the scalar; None until it is chosen.
        later_decay: factor on the scalar after every step that takes it.
        tuning_tasks: how many training tasks choose it; 0: all.
        scale: factor on all step sizes.
    """

    policy: GaussianPolicy
    meta: MetaParams
    inner: InnerStep
    advantage: Advantage
    episodes_per_step: int
    step_size: float | None = None
    later_decay: float = 1.0
    tuning_tasks: int = 0
    scale: float = 1.0

    @classmethod
    def of(
        cls,
        options: GradientOptions,
        policy: GaussianPolicy,
        meta: MetaParams,
        advantage: Advantage,
        episodes_per_step: int,
        step_size: float | None = None,
        **inner: Any,
    ) -> Self:
        """The learner with these options; `inner` are those of `InnerStep`."""
        return cls(
            policy,
            meta,
            InnerStep(policy, AdaptSpec.of_policy(meta.theta), **inner),
            advantage,
            episodes_per_step,
            step_size,
            options.later_decay,
            options.tuning_tasks,
        )

    @property
    def num_learned_steps(self) -> int:
        """See `HasStepSize`."""
        return 1 if self.meta.step_sizes else 0

    def with_step_size(self, value: float) -> Self:
        """See `HasStepSize`."""
        return replace(self, step_size=value)

    def scaled(self, factor: float) -> Self:
        """See `HasStepScale`."""
        return replace(self, scale=self.scale * factor)

    def with_meta(self, meta: MetaParams) -> Self:
        """The same with other parameters."""
        return replace(self, meta=meta)

    def begin(self, num_tasks: int) -> Params:
        """Theta for every task."""
        return replicate(self.meta.theta, num_tasks)

    def explorer(
        self, belief: Params, step: int, num: int, rngs: Sequence[np.random.Generator]
    ) -> GaussianActor:
        """The policy with the parameters so far: it samples."""
        return GaussianActor(self.policy, belief)

    def exploiter(self, belief: Params, num: int) -> GaussianActor:
        """The same policy."""
        return GaussianActor(self.policy, belief)

    @torch.no_grad()
    def adapt(self, belief: Params, step: int, gathered: Rollouts, memory: Any) -> Params:
        """One policy-gradient step on the tasks' roll-outs."""
        phi: Params = torch.func.vmap(self.inner, in_dims=(0, None, 0))(
            belief, self.step_sizes(step), self.inner_batch(gathered)
        )
        return phi

    def demonstrated(
        self, belief: Params, demonstrations: Demonstrations, rngs: Sequence[np.random.Generator]
    ) -> Params:
        """Fine-tuned on the tasks' demonstrations: imitation, of the parameters that adapt."""
        return fine_tuned(self.policy, belief, self.inner.spec.names, demonstrations)

    def step_sizes(self, step: int) -> Params:
        """Step sizes of adaptation step 0, 1, ...: the learned ones first, then the scalar."""
        if step < self.num_learned_steps:
            return {name: self.scale * size for name, size in self.meta.step_sizes.items()}
        if self.step_size is None:
            raise DemokitError("This run has no step size yet: let meta-train finish (--resume).")
        taken = step - self.num_learned_steps
        scalar = self.scale * self.step_size * self.later_decay**taken
        return self.inner.spec.init_step_sizes(self.meta.theta, scalar)

    def inner_batch(self, rollouts: Rollouts) -> InnerBatch:
        """What the inner step sees of the roll-outs, with a leading axis M, as features."""
        features = self.policy.encode(self.meta.theta, rollouts.observation)
        return self.seen_batch(replace(rollouts, observation=features), features)

    @torch.no_grad()
    def seen_batch(self, rollouts: Rollouts, features: Tensor) -> InnerBatch:
        """The same with the roll-outs' own observations; `features` are for the baseline."""
        seen = self.policy.baseline_features(features)
        advantage = torch.func.vmap(self.advantage)(seen, rollouts.reward, rollouts.alive)
        return InnerBatch.of(rollouts, advantage)

    def tensors(self) -> dict[str, Tensor]:
        """See `MetaLearner`."""
        centers = self.advantage.centers
        own = {} if centers is None else {"centers": centers}
        return {**self.meta.tensors(), **policy_tensors(self.policy), **own}

    def header(self) -> dict[str, Any]:
        """See `MetaLearner`."""
        columns = self.advantage.radial_columns
        return {
            "step_size": self.step_size,
            "radial_columns": [columns.start, columns.stop] if columns else None,
            "radial_width": self.advantage.radial_width,
        }

    def to(self, device: torch.device) -> Self:
        """See `MetaLearner`."""
        policy = self.policy.to(device)
        return replace(
            self,
            policy=policy,
            meta=self.meta.to(device),
            inner=replace(self.inner, policy=policy),
            advantage=self.advantage.to(device),
        )


def make_advantage(options: GradientOptions, demos: DemoSet, policy: GaussianPolicy) -> Advantage:
    """The estimator; radial centres spread over where the demonstrations moved the object."""
    plain = Advantage(options.discount, options.gae_lambda, options.baseline)
    if options.baseline != "radial":
        return plain
    centers, width = spread_centers(demos.object_position[demos.alive], _NUM_CENTERS)
    columns = _radial_columns(demos, policy)
    return replace(plain, centers=centers, radial_columns=columns, radial_width=width)


def loaded_advantage(
    options: GradientOptions, tensors: dict[str, Tensor], header: dict[str, Any]
) -> Advantage:
    """The estimator of a checkpoint."""
    columns = header["radial_columns"]
    return Advantage(
        options.discount,
        options.gae_lambda,
        options.baseline,
        tensors.get("centers"),
        slice(*columns) if columns else None,
        float(header["radial_width"]),
    )


def loaded_meta(
    policy: GaussianPolicy, tensors: dict[str, Tensor], *, step_sizes: bool
) -> MetaParams:
    """The parameters of a checkpoint; raises ValueError where they are not the policy's."""
    meta = MetaParams.of_tensors(tensors)
    require_params(policy, meta, AdaptSpec.of_policy(meta.theta), step_sizes=step_sizes)
    return meta


def loaded_step_size(header: dict[str, Any]) -> float | None:
    """The scalar of a checkpoint."""
    return None if header["step_size"] is None else float(header["step_size"])


def _radial_columns(demos: DemoSet, policy: GaussianPolicy) -> slice:
    """The columns of the baseline's features that say where the object is."""
    if policy.encoder is None:
        return demos.object_columns()
    if not policy.object_width:
        raise DemokitError("A radial baseline of images needs an object_weight above 0.")
    first = policy.object_columns.start - policy.encoder.num_points
    return slice(first, first + policy.object_width)
