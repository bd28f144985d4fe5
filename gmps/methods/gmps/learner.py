"""What training leaves: a policy that can adapt, and everything needed to go on or to judge it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from demokit.envs import make_family
from demokit.envs.family import Family
from demokit.envs.vision import Vision
from demokit.errors import DemokitError
from demokit.learning.networks import Params
from demokit.types import Task
from gmps.distributed import WHOLE, Part
from gmps.experience.sampler import Rollouts
from gmps.methods.gmps.critic import learn
from gmps.methods.gmps.latents import Exploration, LatentBatch, LatentStep
from gmps.methods.gmps.objective import MetaObjective, MetaParams
from gmps.options import TrainConfig
from gmps.policies.gaussian import LATENT, AdaptSpec, GaussianPolicy
from gmps.runs.stopping import Best
from gmps.steps.advantage import Advantage
from gmps.steps.inner import InnerBatch, InnerStep


@dataclass(frozen=True, eq=False)
class Learned:
    """A meta-learned (or merely pre-trained) policy and how it fine-tunes.

    Attributes:
        config: the run's configuration.
        family_name, reward, tasks: what it was trained on.
        sees: "state", or the images it acts from.
        policy: the pure functions; `meta` its parameters theta and step sizes alpha. MultiTask
            Imitation has no learned step sizes: `meta.step_sizes` is empty.
        advantage: the estimator of the inner loop.
        exploration: the latents that roll-outs follow; None where they sample from the policy.
        later_lr: scalar step size of every step without learned step sizes; None until it has
            been chosen on training tasks.
        env_steps: environment steps spent so far: demonstrations, and roll-outs.
        experts: hash of each trained expert that demonstrated or answered queries -> environment
            steps of its training, which come on top.
        best: the best parameters so far, of training that stops early.
        demos: `DemoSet.digest` of the demonstrations; empty where an old checkpoint does not say.
    """

    config: TrainConfig
    family_name: str
    reward: str
    tasks: tuple[Task, ...]
    sees: str | Vision
    policy: GaussianPolicy
    meta: MetaParams
    advantage: Advantage
    exploration: Exploration | None = None
    later_lr: float | None = None
    env_steps: int = 0
    experts: Mapping[str, int] = field(default_factory=dict)
    best: Best | None = None
    demos: str = ""

    def to(self, device: torch.device) -> Learned:
        """The same on a device, with fresh leaves; latents are drawn on the CPU all the same."""
        policy, centers = self.policy, self.advantage.centers
        return replace(
            self,
            policy=replace(
                policy,
                feature_mean=policy.feature_mean.to(device),
                feature_scale=policy.feature_scale.to(device),
            ),
            meta=self.meta.copied(device),
            advantage=replace(
                self.advantage, centers=centers if centers is None else centers.to(device)
            ),
            best=self.best and self.best._replace(meta=self.best.meta.copied(device)),
        )

    def judged(self, score: float) -> Learned:
        """After an evaluation in training, with the best parameters so far, if they are kept."""
        if not self.config.patience:
            return self
        return replace(self, best=Best.of(self.best, self.meta, score))

    @property
    def has_stopped(self) -> bool:
        """Whether training has waited long enough for better parameters."""
        return self.best is not None and self.best.waited >= self.config.patience

    def at_best(self) -> Learned:
        """With the best parameters in place of the last."""
        return self if self.best is None else replace(self, meta=self.best.meta, best=None)

    @property
    def expert_steps(self) -> int:
        """Environment steps that the training of all experts took."""
        return sum(self.experts.values())

    @property
    def family(self) -> Family:
        """The task family."""
        return make_family(self.family_name)

    @property
    def spec(self) -> AdaptSpec:
        """What adapts."""
        return adapted_part(self.config, self.meta.theta)

    @property
    def inner(self) -> Callable[[Params, Params, Any], Params]:
        """The inner step: theta, step sizes and what one task's roll-outs showed to phi."""
        if self.exploration is not None:
            return LatentStep()
        config = self.config
        return InnerStep(
            self.policy, self.spec, config.ratio_clip, config.ratio_gradient, config.second_order
        )

    def step_sizes(self, step: int, later_lr: float | None = None) -> dict[str, Tensor]:
        """Step sizes of adaptation step 0, 1, ...: the learned ones first, then the scalar.

        The learned ones are for theta; used again where they were not learned they diverge. The
        scalar shrinks by `later_decay` with every step that takes it.
        """
        if self.meta.step_sizes and (step == 0 or self.exploration is not None):
            return self.meta.step_sizes
        scalar = self.later_lr if later_lr is None else later_lr
        if scalar is None:
            raise DemokitError("This run has no step size yet: let meta-train finish (--resume).")
        taken = step - bool(self.meta.step_sizes)
        scalar *= self.config.later_decay**taken
        return self.spec.init_step_sizes(self.meta.theta, scalar)

    def objective(self, tasks: Sequence[Task]) -> MetaObjective:
        """The meta-objective over these training tasks."""
        config, places = self.config, None
        if self.exploration is not None:
            places = self.exploration.of(tasks).to(self.meta.theta[LATENT].device)
        return MetaObjective(
            self.policy,
            self.inner,
            config.outer_loss,
            config.pre_update_weight if places is None else config.expert_weight,
            places,
            config.precision == "bf16",
            config.post_weight,
            config.place_weight,
        )

    def latents(
        self,
        params: Params,
        num_rollouts: int,
        step: int,
        rng: np.random.Generator,
        part: Part = WHOLE,
    ) -> Tensor | None:
        """What K roll-outs of params (M, ...) follow before adaptation step 0, 1, ...

        M counts the tasks of `part`; numbers are drawn for all of them, on the CPU.
        """
        if self.exploration is None:
            return None
        centers = part.spread(params[LATENT].cpu())
        drawn = self.exploration.latents(centers, num_rollouts, step, rng)
        return drawn[part.own].to(params[LATENT].device)

    def inner_batch(self, rollouts: Rollouts) -> InnerBatch | LatentBatch:
        """What the inner step sees of the roll-outs, with a leading axis M."""
        if self.exploration is None:
            return rollouts.inner_batch(self.advantages(rollouts))
        latent, score = self._scored(rollouts)
        if self.config.critic:
            return self.exploration.by_critic(self.meta.theta, latent, score)
        return self.exploration.by_score(latent, score)

    def learn_critic(self, rollouts: Rollouts, part: Part = WHOLE) -> None:
        """What roll-outs of theta on the training tasks teach the critic of latents, if any."""
        if self.exploration is None or not self.config.critic:
            return
        latent, score = (part.gathered(own) for own in self._scored(rollouts))
        place = self.exploration.of(self.tasks).to(latent.device)[:, None].expand_as(latent)
        latent = latent - self.meta.theta[LATENT].detach()
        learn(self.meta.theta, latent.flatten(0, 1), place.flatten(0, 1), score.flatten())

    def _scored(self, rollouts: Rollouts) -> tuple[Tensor, Tensor]:
        """Latents (M, E, Z) of all segments of all roll-outs, and what they were paid (M, E)."""
        assert self.exploration is not None
        score = self.exploration.score(rollouts.reward * rollouts.alive)
        return rollouts.latent.flatten(1, 2), score

    def encoded(self, rollouts: Rollouts) -> Rollouts:
        """The roll-outs with features in place of observations."""
        features = self.policy.encode(self.meta.theta, rollouts.observation)
        return replace(rollouts, observation=features)

    @torch.no_grad()
    def advantages(self, rollouts: Rollouts) -> Tensor:
        """Advantages (M, K, T) for the inner step."""
        features = self.policy.encode(self.meta.theta, rollouts.observation)
        seen = self.policy.baseline_features(features)
        return torch.func.vmap(self.advantage)(seen, rollouts.reward, rollouts.alive)


def adapted_part(config: TrainConfig, theta: Params) -> AdaptSpec:
    """What of theta adapts: the latent, or what the architecture of the policy says."""
    return AdaptSpec((LATENT,)) if config.explores_latents else AdaptSpec.of_policy(theta)
