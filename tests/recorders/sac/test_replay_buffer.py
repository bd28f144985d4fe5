"""The replay buffer against worked numbers: n-step sums, ends, factors, statistics."""

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box

from recorders.sac.replay import MIN_SCALE, RunningNorm, TorchReplay

SPACES = Box(-np.inf, np.inf, (1,), np.float32), Box(-1, 1, (1,), np.float32)


def filled(steps, *, n_steps, slots=10, ends=None):
    """One simulation whose state at step t is t and whose reward is 10**t."""
    buffer = TorchReplay(slots, *SPACES, n_steps=n_steps, gamma=0.5)
    for t in range(steps):
        kind = (ends or {}).get(t)
        buffer.add(
            np.array([[t]], np.float32),
            np.array([[t + 1]], np.float32),
            np.array([[t / 100]], np.float32),
            np.array([10.0**t]),
            np.array([kind is not None]),
            [{"TimeLimit.truncated": kind == "horizon"}],
        )
    return buffer


def look_ahead(buffer, slot):
    reward, last, factor = buffer._look_ahead(torch.tensor([slot]), torch.tensor([0]))
    return float(reward), int(last), float(factor)


def test_rewards_are_summed_and_discounted():
    # 1 + 0.5 * 10 + 0.25 * 100, and the value after three steps counts 0.125.
    assert look_ahead(filled(6, n_steps=3), 0) == (31.0, 2, 0.125)


def test_nothing_is_summed_past_an_end():
    terminated = filled(6, n_steps=3, ends={1: "fallen"})
    assert look_ahead(terminated, 0) == (6.0, 1, 0.0)
    assert look_ahead(terminated, 1) == (10.0, 1, 0.0)
    assert look_ahead(terminated, 2) == (100 + 500 + 2500, 4, 0.125)


def test_the_horizon_is_no_end_of_the_value():
    truncated = filled(6, n_steps=3, ends={1: "horizon"})
    assert look_ahead(truncated, 0) == (6.0, 1, 0.25)
    assert look_ahead(truncated, 1) == (10.0, 1, 0.5)


@pytest.mark.parametrize("steps", [4, 10, 13, 27])
def test_samples_are_whole_even_where_the_buffer_wraps(steps):
    torch.manual_seed(0)
    buffer = filled(steps, n_steps=3)
    buffer.norm = lambda rows: rows
    batch = buffer.sample(500)
    start, after = batch.observations[:, 0], batch.next_observations[:, 0]
    assert (after == start + 3).all()
    assert torch.allclose(batch.actions[:, 0], start / 100)
    oldest = max(0, steps - 10)
    assert sorted(set(start.tolist())) == list(range(oldest, steps - 2))


def test_statistics_are_those_of_everything_seen():
    rows = torch.randn(700, 3, generator=torch.Generator().manual_seed(0)) * 4 + 2
    norm = RunningNorm(3)
    for part in rows.split(64):
        norm.update(part)
    assert torch.allclose(norm.mean, rows.mean(0), atol=1e-5)
    assert torch.allclose(norm.scale, rows.std(0, correction=0), atol=1e-4)


def test_what_hardly_varies_is_not_blown_up():
    norm = RunningNorm(1)
    norm.update(torch.full((50, 1), 0.52))
    assert float(norm.scale) == pytest.approx(MIN_SCALE)
    assert float(norm(torch.tensor([[0.53]]))) == pytest.approx(0.2, abs=1e-4)
