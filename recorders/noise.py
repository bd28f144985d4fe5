"""Expert with noise: demonstrations that also show how to come back from small errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from demokit.errors import DemokitError
from demokit.experts import advises
from demokit.protocols import Decision, Expert
from demokit.random import stream
from demokit.types import Array, FloatArray


class NoiseSource(Protocol):
    """Whatever draws standard normal numbers: a NumPy generator, or `EpisodeNoise`."""

    def standard_normal(self, size: tuple[int, ...], /) -> FloatArray:
        """Independent standard normal numbers of that shape."""
        ...


class EpisodeNoise:
    """Noise whose row i depends on the i-th seed alone, whatever else is in the batch.

    So an episode has the same noise in any batch, and after resuming.
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        self._rngs = [stream(seed, "action noise") for seed in seeds]

    def standard_normal(self, size: tuple[int, ...], /) -> FloatArray:
        """Numbers (N, ...), one row for each seed; raises DemokitError for another N."""
        if size[0] != len(self._rngs):
            raise DemokitError(f"Noise for {len(self._rngs)} episodes, not for {size[0]}.")
        return np.stack([rng.standard_normal(size[1:]) for rng in self._rngs])


class NoisyExpert:
    """An action source that executes the expert's action plus Gaussian noise.

    The label stays the expert's own action, as in DART (Laskey et al., 2017) without its tuned
    covariance: the noise is isotropic, `noise_std` in units of the action bounds. A random expert
    labels nothing.
    """

    def __init__(self, expert: Expert, noise_std: float, rng: NoiseSource) -> None:
        if not (np.isfinite(noise_std) and noise_std >= 0):
            raise DemokitError(f"Action noise must be a number of at least 0, not {noise_std}.")
        self.name = expert.name
        self._expert = expert
        self._noise_std = noise_std
        self._rng = rng

    def decide(self, observation: FloatArray, privileged: Mapping[str, Array]) -> Decision:
        """Executed actions clip(own + noise, -1, 1) and the expert's own, (N, A) float32 both."""
        own = self._expert.act(observation, privileged)
        noise = self._noise_std * self._rng.standard_normal(own.shape)
        action = np.clip(own + noise, -1, 1).astype(np.float32)
        label = own if advises(self._expert) else None
        return Decision(action, label, by_expert=np.ones(len(own), np.bool_))
