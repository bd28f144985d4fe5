"""Losses and advantages by worked numbers."""

import math

import pytest
import torch

from demokit.learning.distributions import Gaussian
from gmps.steps.advantage import Advantage, paid_alike, spread_centers
from gmps.steps.losses import (
    behaviour_cloning,
    discounted_returns,
    inner_surrogate,
    mean_weights,
)


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def gaussian(mean, std=1.0):
    return Gaussian(torch.tensor(mean), torch.tensor(std))


def test_log_prob_sums_over_action_dimensions():
    # Two standard normals at distance 1 and 2: -(1 + 4) / 2 - 2 * log(sqrt(2 pi)).
    log_prob = gaussian([0.0, 0.0]).log_prob(torch.tensor([1.0, 2.0]))
    assert log_prob.item() == pytest.approx(-2.5 - math.log(2 * math.pi))


def test_surrogate_of_one_sample():
    # Ratio e^(log 2) = 2, advantage 3: loss -2 * log pi * 3.
    dist, action = gaussian([[0.0]]), torch.tensor([[0.0]])
    log_prob = dist.log_prob(action)
    loss = inner_surrogate(
        dist,
        action,
        log_prob - math.log(2),
        torch.tensor([3.0]),
        ratio_clip=10.0,
        ratio_gradient=False,
    )
    assert loss.item() == pytest.approx(-6 * log_prob.item())


@pytest.mark.parametrize(("clip", "expected"), [(10.0, -6.0), (1.5, -4.5)])
def test_surrogate_through_the_ratio_and_its_clip(clip, expected):
    dist, action = gaussian([[0.0]]), torch.tensor([[0.0]])
    behaviour = dist.log_prob(action) - math.log(2)
    loss = inner_surrogate(
        dist, action, behaviour, torch.tensor([3.0]), ratio_clip=clip, ratio_gradient=True
    )
    assert loss.item() == pytest.approx(expected)


@pytest.mark.parametrize("ratio_gradient", [False, True])
def test_importance_weights_are_one_at_theta_init(ratio_gradient):
    """There the gradient is the plain policy gradient, - mean(grad log pi * A)."""
    mean = torch.randn(6, 2, generator=torch.Generator().manual_seed(0)).requires_grad_()
    action, advantage = mean.detach() + 0.5, torch.arange(6.0)
    behaviour = Gaussian(mean.detach(), torch.tensor(0.7)).log_prob(action)
    loss = inner_surrogate(
        Gaussian(mean, torch.tensor(0.7)),
        action,
        behaviour,
        advantage,
        ratio_clip=10.0,
        ratio_gradient=ratio_gradient,
    )
    loss.backward()
    expected = -advantage[:, None] * (0.5 / 0.7**2) / 6
    torch.testing.assert_close(mean.grad, expected.expand(6, 2))


def test_surrogate_refuses_shapes_that_would_broadcast():
    dist, action = gaussian([[0.0], [0.0]]), torch.zeros(2, 1)
    with pytest.raises(ValueError, match="shapes differ"):
        inner_surrogate(
            dist, action, torch.zeros(2), torch.zeros(2, 1), ratio_clip=1.0, ratio_gradient=False
        )


def test_behaviour_cloning_losses():
    dist, expert = gaussian([[1.0, 2.0]], 2.0), torch.tensor([[0.0, 0.0]])
    one = torch.ones(1)
    assert behaviour_cloning(dist, expert, one, kind="squared").item() == pytest.approx(5.0)
    assert behaviour_cloning(dist, expert, one, kind="log_likelihood").item() == pytest.approx(
        5 / 8 + 2 * math.log(2) + math.log(2 * math.pi)
    )


def test_steps_after_the_end_do_not_count():
    # Squared errors 1, 4 and, after the end, 100: the mean is that of the first two.
    weight = mean_weights(torch.tensor([True, True, False]))
    assert weight.tolist() == [1.5, 1.5, 0.0]
    dist = gaussian([[1.0], [2.0], [10.0]])
    assert behaviour_cloning(dist, torch.zeros(3, 1), weight, kind="squared").item() == 2.5
    assert mean_weights(torch.ones(7, dtype=torch.bool)).tolist() == [1.0] * 7


def test_discounted_returns():
    returns = discounted_returns(torch.tensor([[1.0, 2.0, 4.0]]), 0.5)
    torch.testing.assert_close(returns, torch.tensor([[3.0, 4.0, 4.0]]))


ALWAYS = torch.ones(8, 12, dtype=torch.bool)


def rollouts(seed=0):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(8, 12, 3, generator=rng), torch.randn(8, 12, generator=rng), ALWAYS


def test_advantage_without_baseline_is_the_normalised_return():
    observation, reward, alive = rollouts()
    advantage = Advantage(0.9, 1.0, "zero")(observation, reward, alive)
    returns = discounted_returns(reward.double(), 0.9)
    expected = (returns - returns.mean()) / returns.std(correction=0)
    torch.testing.assert_close(advantage, expected.float())


@pytest.mark.parametrize("baseline", ["linear", "radial", "zero"])
def test_advantages_have_zero_mean_and_unit_variance(baseline):
    observation, reward, alive = rollouts()
    centers, width = spread_centers(observation[..., :2].flatten(0, 1), 16)
    estimator = Advantage(0.99, 0.95, baseline, centers, slice(0, 2), width)
    advantage = estimator(observation, reward, alive)
    assert advantage.mean().abs() < 1e-6
    assert advantage.square().mean().item() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("baseline", ["linear", "radial", "zero"])
def test_advantages_see_nothing_after_an_episode_ends(baseline):
    observation, reward, _ = rollouts()
    alive = torch.arange(12) < torch.tensor([12, 3, 7, 12, 1, 9, 12, 5])[:, None]
    reward = reward * alive
    centers, width = spread_centers(observation[alive][:, :2], 4)
    estimator = Advantage(0.99, 0.95, baseline, centers, slice(0, 2), width)
    advantage = estimator(observation, reward, alive)
    elsewhere = torch.where(alive[..., None], observation, 100.0)
    torch.testing.assert_close(estimator(elsewhere, reward, alive), advantage)
    assert (advantage[~alive] == 0).all()
    assert advantage[alive].mean().abs() < 1e-6
    assert advantage[alive].square().mean().item() == pytest.approx(1, abs=1e-5)


def test_an_early_end_is_worth_what_was_paid_until_then():
    # Undiscounted, no baseline, returns 2, 1 and 5: their mean is 8/3.
    reward = torch.tensor([[1.0, 1.0], [5.0, 0.0]])
    alive = torch.tensor([[True, True], [True, False]])
    advantage = Advantage(1.0, 1.0, "zero")(torch.zeros(2, 2, 1), reward, alive)
    expected = torch.tensor([[-2 / 3, -5 / 3], [7 / 3, 0.0]]) / math.sqrt(26 / 9)
    torch.testing.assert_close(advantage, expected)


def test_linear_baseline_explains_what_is_linear_in_time():
    """A constant reward, undiscounted, has returns linear in time: it changes no advantage."""
    observation, _, alive = rollouts()
    noise = 0.1 * torch.randn(8, 12, generator=torch.Generator().manual_seed(1))
    shifted = Advantage(1.0, 1.0)(observation, 1 + noise, alive)
    plain = Advantage(1.0, 1.0)(observation, noise, alive)
    assert torch.corrcoef(torch.stack((shifted.flatten(), plain.flatten())))[0, 1] > 0.99


def test_spread_centers_reach_the_ends_of_a_line():
    line = torch.linspace(0, 1, 101)[:, None]
    centers, width = spread_centers(line, 5)
    assert sorted(round(float(c), 2) for c in centers) == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert width == pytest.approx(0.25, abs=0.01)


def test_roll_outs_that_were_paid_alike_have_no_advantages():
    """Where rewards are sparse and nobody was paid: the baseline's errors are no reason to act."""
    observation, alive = torch.randn(4, 20, 3), torch.ones(4, 20, dtype=torch.bool)
    alike, one_differs = torch.full((4, 20), -0.3), torch.full((4, 20), -0.3)
    one_differs[2, -1] = 1.0
    estimate = Advantage(0.99, 1.0)
    assert (estimate(observation, alike, alive) == 0).all()
    assert estimate(observation, one_differs, alive).square().mean() == pytest.approx(1.0)


def test_of_a_task_whose_roll_outs_were_paid_alike_nothing_is_known():
    reward = torch.zeros(3, 4, 5)
    reward[0, 2, 3] = 1.0
    reward[2] = torch.arange(5.0)
    assert paid_alike(reward).tolist() == [False, True, True]


@pytest.mark.usefixtures("two_threads")
def test_the_baseline_of_many_features_is_right_with_several_threads():
    """As many as the Ant's: one task's advantages do not change when there are more tasks."""
    rng = torch.Generator().manual_seed(0)
    observation = torch.randn(3, 20, 50, 122, generator=rng)
    reward = torch.randn(3, 20, 50, generator=rng)
    alive = torch.ones(3, 20, 50, dtype=torch.bool)
    estimate = Advantage(0.99, 1.0)
    together = torch.func.vmap(estimate)(observation, reward, alive)
    for i in range(3):
        torch.testing.assert_close(together[i], estimate(observation[i], reward[i], alive[i]))
