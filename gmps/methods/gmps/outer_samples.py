"""What outer steps are made from: roll-outs and demonstrations, as images or as kept features."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import torch

from demokit.learning.networks import Params
from gmps.experience.demos import DemoBatch, DemoSet
from gmps.experience.observation import thinned
from gmps.methods.gmps.objective import ShownBatch
from gmps.methods.gmps.options import GuidedOptions
from gmps.policies.gaussian import GaussianPolicy

Drawn = tuple[ShownBatch, DemoBatch, DemoBatch]


class OuterSamples:
    """One set of roll-outs, and the demonstrations.

    Args:
        shown: what the inner step sees of the roll-outs, for this process's tasks.
        demos: of the same tasks, imitated by the adapted policies.
        pre_demos: of the same tasks, imitated by theta.
        policy: encodes images.
        options: how much is drawn.
    """

    def __init__(
        self,
        shown: ShownBatch,
        demos: DemoSet,
        pre_demos: DemoBatch,
        policy: GaussianPolicy,
        options: GuidedOptions,
    ) -> None:
        self._shown, self._demos, self._pre_demos = shown, demos, pre_demos
        self._policy, self._options = policy, options
        self._kept: OuterSamples | None = None

    def drawn(self, step: int, theta: Params, rng: np.random.Generator) -> Drawn:
        """What outer step 0, 1, ... is made from (Alg. 2, line 8).

        In every `encode_every`-th step the observations themselves, each `outer_stride`-th of
        them: what encodes them learns. In the steps between, all of them as features.
        """
        if step % self._options.encode_every == 0:
            self._kept, stride = None, self._options.outer_stride
            return (
                self._shown.thinned(stride, rng),
                thinned(self._sample(rng), stride, rng),
                thinned(self._pre_demos, stride, rng).pooled(),
            )
        self._kept = kept = self._kept or self._encoded(theta)
        return kept._shown, kept._sample(rng), kept._pre_demos.pooled()

    def _sample(self, rng: np.random.Generator) -> DemoBatch:
        options = self._options
        return self._demos.sample(rng, options.outer_demos_per_task, options.dagger_share)

    @torch.no_grad()
    def _encoded(self, theta: Params) -> OuterSamples:
        """The same as features under theta as it is now."""
        encode = partial(self._policy.encode, theta)
        demos, pre = self._demos, self._pre_demos
        return OuterSamples(
            self._shown.encoded(encode),
            replace(demos, observation=encode(demos.observation)),
            pre._replace(observation=encode(pre.observation)),
            self._policy,
            self._options,
        )
