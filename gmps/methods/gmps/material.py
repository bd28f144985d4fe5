"""What outer steps are made from: roll-outs and demonstrations, as images or as kept features."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeAlias

import numpy as np
import torch

from gmps.experience.demos import DemoSet
from gmps.experience.observation import thinned
from gmps.methods.gmps.latents import LatentBatch
from gmps.methods.gmps.learner import Learned
from gmps.methods.gmps.objective import Demos
from gmps.options import TrainConfig
from gmps.steps.inner import InnerBatch

Shown: TypeAlias = InnerBatch | LatentBatch
Drawn: TypeAlias = tuple[Shown, Demos, Demos]


class Material:
    """One set of roll-outs, and the demonstrations.

    Args:
        batches: what the inner step sees of the roll-outs, for this process's tasks.
        demos: of the same tasks, imitated by the adapted policies.
        pre_actions: of the same tasks, imitated by theta.
    """

    def __init__(self, batches: Shown, demos: DemoSet, pre_actions: Demos) -> None:
        self._batches, self._demos, self._pre_actions = batches, demos, pre_actions
        self._kept: Material | None = None

    def drawn(self, step: int, learned: Learned, rng: np.random.Generator) -> Drawn:
        """What outer step 0, 1, ... is made from (Alg. 2, line 8).

        In every `encode_every`-th step the observations themselves, each `outer_stride`-th of
        them: what encodes them learns. In the steps between, all of them as features.
        """
        config = learned.config
        if step % config.encode_every == 0:
            self._kept, stride = None, config.outer_stride
            batches = self._batches
            if isinstance(batches, InnerBatch):
                batches = thinned(batches, stride, rng)
            return (
                batches,
                thinned(self._sample(config, rng), stride, rng),
                thinned(self._pre_actions, stride, rng).pooled(),
            )
        self._kept = kept = self._kept or self._encoded(learned)
        return kept._batches, kept._sample(config, rng), kept._pre_actions.pooled()

    def _sample(self, config: TrainConfig, rng: np.random.Generator) -> Demos:
        return self._demos.sample(rng, config.outer_demos_per_task, config.dagger_share)

    @torch.no_grad()
    def _encoded(self, learned: Learned) -> Material:
        """The same as features under theta as it is now."""
        theta, encode = learned.meta.theta, learned.policy.encode
        batches, demos, pre = self._batches, self._demos, self._pre_actions
        if isinstance(batches, InnerBatch):
            batches = batches._replace(observation=encode(theta, batches.observation))
        return Material(
            batches,
            replace(demos, observation=encode(theta, demos.observation)),
            pre._replace(observation=encode(theta, pre.observation)),
        )
