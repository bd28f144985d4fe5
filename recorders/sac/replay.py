"""The replay buffer: torch tensors, n-step returns, inputs normalised as they are drawn."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from torch import Tensor

from demokit.learning.expert import INPUT_CLIP
from demokit.types import FloatArray

MIN_SCALE = 0.05  # inputs that hardly vary yet (a block at rest) are not blown up


class RunningNorm:
    """Mean and variance of the inputs (D,), over everything seen; the scale is at least MIN_SCALE.

    As in Chan et al. (1979), a batch at a time.
    """

    def __init__(self, width: int) -> None:
        self.mean = torch.zeros(width)
        self.var = torch.ones(width)
        self.count = 0.0

    @property
    def scale(self) -> Tensor:
        """What normalised inputs are divided by, (D,)."""
        return self.var.sqrt().clamp(min=MIN_SCALE)

    def update(self, rows: Tensor) -> None:
        """Take in rows (n, D)."""
        share = len(rows) / (self.count + len(rows))
        delta = rows.mean(0) - self.mean
        self.mean = self.mean + share * delta
        spread = rows.var(0, correction=0) * share + self.var * (1 - share)
        self.var = spread + share * (1 - share) * delta.square()
        self.count += len(rows)

    def __call__(self, rows: Tensor) -> Tensor:
        """Normalised rows (n, D), within +-INPUT_CLIP."""
        return ((rows - self.mean) / self.scale).clamp(-INPUT_CLIP, INPUT_CLIP)


class TorchReplay(ReplayBuffer):
    """Transitions of N simulations as tensors (slots, N, ...).

    A sample is a state, its action, the discounted sum of the next n rewards (fewer where the
    episode ends), the state after them, and the factor of its value: `discount ** n`, or 0 if the
    episode terminated. One drawn index costs one gather per array: nothing loops in Python.
    """

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        device: torch.device | str = "cpu",
        n_envs: int = 1,
        *,
        n_steps: int = 1,
        gamma: float = 0.99,
        reward_scale: float = 1.0,
        **_: Any,
    ) -> None:
        self.slots = max(buffer_size // n_envs, n_steps + 1)
        width, actions = observation_space.shape[0], action_space.shape[0]  # type: ignore[index]
        self.buffer_size, self.n_envs, self.device = self.slots, n_envs, torch.device(device)
        self.observation_space, self.action_space = observation_space, action_space
        self.n_steps, self.gamma, self.reward_scale = n_steps, gamma, reward_scale
        self.norm = RunningNorm(width)
        self.pos, self.full = 0, False
        self._before = torch.empty(self.slots, n_envs, width)
        self._after = torch.empty(self.slots, n_envs, width)
        self._action = torch.empty(self.slots, n_envs, actions)
        self._reward = torch.empty(self.slots, n_envs)
        self._ended = torch.empty(self.slots, n_envs, dtype=torch.bool)
        self._terminated = torch.empty(self.slots, n_envs, dtype=torch.bool)

    def add(
        self,
        obs: FloatArray,
        next_obs: FloatArray,
        action: FloatArray,
        reward: FloatArray,
        done: FloatArray,
        infos: list[dict[str, Any]],
    ) -> None:
        """Keep one step of all simulations."""
        ended = np.asarray(done, np.bool_)
        cut = np.array([info.get("TimeLimit.truncated", False) for info in infos])
        self._before[self.pos] = torch.from_numpy(obs)
        self._after[self.pos] = torch.from_numpy(next_obs)
        self._action[self.pos] = torch.from_numpy(action)
        self._reward[self.pos] = torch.from_numpy(reward * self.reward_scale)
        self._ended[self.pos] = torch.from_numpy(ended)
        self._terminated[self.pos] = torch.from_numpy(ended & ~cut)
        self.norm.update(self._before[self.pos])
        self.pos = (self.pos + 1) % self.slots
        self.full = self.full or self.pos == 0

    def sample(self, batch_size: int, env: Any = None) -> ReplayBufferSamples:  # noqa: ARG002
        """Transitions drawn evenly from all whose n steps are known."""
        oldest, filled = (self.pos, self.slots) if self.full else (0, self.pos)
        age = torch.randint(filled - self.n_steps + 1, (batch_size,))
        slot = (oldest + age) % self.slots
        sim = torch.randint(self.n_envs, (batch_size,))
        reward, last, factor = self._look_ahead(slot, sim)
        return ReplayBufferSamples(
            self.norm(self._before[slot, sim]).to(self.device),
            self._action[slot, sim].to(self.device),
            self.norm(self._after[last, sim]).to(self.device),
            self._terminated[last, sim].float().to(self.device),
            reward.to(self.device),
            factor.to(self.device),
        )

    def _look_ahead(self, slot: Tensor, sim: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Summed rewards (B,), slot of the last step (B,), factor of the value after it (B,)."""
        ahead = (slot[:, None] + torch.arange(self.n_steps)) % self.slots
        ended = self._ended[ahead, sim[:, None]]
        runs = torch.ones_like(ended)
        runs[:, 1:] = ~ended[:, :-1].cumsum(1).bool()
        discounts = self.gamma ** torch.arange(self.n_steps)
        reward = (self._reward[ahead, sim[:, None]] * runs * discounts).sum(1)
        steps = runs.sum(1)
        last = ahead.gather(1, steps[:, None] - 1)[:, 0]
        factor = self.gamma**steps * (~self._terminated[last, sim])
        return reward, last, factor
