"""Losses and advantages by worked numbers."""

import math

import numpy as np
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


@pytest.mark.parametrize(("clip", "ratio"), [(10.0, 2.0), (1.5, 1.5)])
def test_surrogate_of_one_sample_and_its_clip(clip, ratio):
    # Ratio e^(log 2) = 2, advantage 3: loss -2 * log pi * 3.
    dist, action = gaussian([[0.0]]), torch.tensor([[0.0]])
    log_prob = dist.log_prob(action)
    loss = inner_surrogate(
        dist,
        action,
        log_prob - math.log(2),
        torch.tensor([3.0]),
        ratio_clip=clip,
        ratio_gradient=False,
    )
    assert loss.item() == pytest.approx(-ratio * log_prob.item() * 3)


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


@pytest.mark.parametrize("behaviour", [(1,), (2,), (2, 1)])
@pytest.mark.parametrize("advantage", [(1,), (2, 1)])
def test_surrogate_refuses_shapes_that_would_broadcast(behaviour, advantage):
    dist, action = gaussian([[0.0], [0.0]]), torch.zeros(2, 1)
    given = torch.zeros(behaviour), torch.zeros(advantage)
    with pytest.raises(ValueError, match="shapes differ"):
        inner_surrogate(dist, action, *given, ratio_clip=1.0, ratio_gradient=False)


def test_behaviour_cloning_losses():
    dist, expert = gaussian([[1.0, 2.0]], 2.0), torch.tensor([[2.0, 4.0]])
    one = torch.ones(1)
    assert behaviour_cloning(dist, expert, one, kind="squared").item() == pytest.approx(5.0)
    assert behaviour_cloning(dist, expert, one, kind="log_likelihood").item() == pytest.approx(
        5 / 8 + 2 * math.log(2) + math.log(2 * math.pi)
    )


def test_steps_after_the_end_do_not_count():
    weight = mean_weights(torch.tensor([[True, True, False], [True, False, False]]))
    assert weight.tolist() == [[1.5, 1.5, 0.0], [3.0, 0.0, 0.0]]
    # Squared errors 1 and 4, and 9, but for those after the end: means 2.5 and 9.
    dist = gaussian([[[1.0], [2.0], [10.0]], [[3.0], [10.0], [10.0]]])
    given = torch.zeros(2, 3, 1), weight
    assert behaviour_cloning(dist, *given, kind="squared").item() == (2.5 + 9) / 2
    likelihood = behaviour_cloning(dist, *given, kind="log_likelihood")
    assert likelihood.item() == pytest.approx((2.5 + 9) / 4 + math.log(2 * math.pi) / 2)
    assert mean_weights(torch.ones(7, dtype=torch.bool)).tolist() == [1.0] * 7


def test_discounted_returns():
    assert discounted_returns(torch.tensor([1.0, 2.0, 4.0]), 0.5).tolist() == [3.0, 4.0, 4.0]
    assert discounted_returns(torch.tensor([[[2.0], [3.0]]]), 0.5).tolist() == [[[2.0], [3.0]]]


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


def explained(features, returns):
    """Least squares with the ridge of Duan et al.'s code, 1e-5, as rows of their own."""
    rows = np.concatenate((features, np.sqrt(1e-5) * np.eye(features.shape[-1])))
    padded = np.concatenate((returns, np.zeros(len(rows) - len(returns))))
    return features @ np.linalg.lstsq(rows, padded, rcond=None)[0]


@pytest.mark.parametrize("baseline", ["linear", "radial"])
def test_advantages_are_gae_over_a_baseline_fitted_to_the_same_roll_outs(baseline):
    """Equation 16 of Schulman et al. (2016), as a sum, over the features that are written out."""
    observation, reward, _ = rollouts()
    ends = torch.tensor([12, 3, 7, 12, 1, 9, 12, 5])[:, None]
    alive, centers = torch.arange(12) < ends, observation[0, :4, 1:].double()
    reward = reward * alive
    radial = ("radial", centers, slice(1, 3), 0.7) if baseline == "radial" else ()
    found = Advantage(0.9, 0.8, *radial)(observation, reward, alive)

    seen, paid, kept = observation.double().numpy(), reward.double().numpy(), alive.numpy()
    time = np.broadcast_to(np.arange(12) / 100, (8, 12))[..., None]
    features = [seen, seen**2, time, time**2, time**3, np.ones((8, 12, 1))]
    if radial:
        squared = ((seen[:, :, None, 1:] - centers.numpy()) ** 2).sum(-1)
        features.append(np.exp(-squared / (2 * 0.7**2)))
    steps_later = np.arange(12) - np.arange(12)[:, None]
    returns = paid @ np.triu(0.9 ** np.abs(steps_later)).T
    value = np.zeros((8, 13))
    value[:, :12][kept] = explained(np.concatenate(features, -1)[kept], returns[kept])
    errors = paid + 0.9 * value[:, 1:] - value[:, :12]
    advantage = (errors @ np.triu((0.9 * 0.8) ** np.abs(steps_later)).T)[kept]
    expected = torch.zeros(8, 12)
    expected[alive] = torch.from_numpy((advantage - advantage.mean()) / advantage.std()).float()
    torch.testing.assert_close(found, expected)


def test_centers_follow_to_a_device():
    elsewhere, plain = torch.device("meta"), Advantage(0.9, 0.8)
    moved = Advantage(0.9, 0.8, "radial", torch.zeros(4, 2), slice(1, 3), 0.7).to(elsewhere)
    assert (moved.centers.device, moved.radial_width) == (elsewhere, 0.7)
    assert plain.to(elsewhere) is plain


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


@pytest.mark.parametrize("unit", [1e3, 1e4])
def test_large_observations_that_depend_on_each_other_have_the_baseline_of_small_ones(unit):
    rng = torch.Generator().manual_seed(0)
    hand, block = 0.05 * torch.randn(2, 20, 50, 3, generator=rng).cumsum(2)
    observation, reward = torch.cat((hand, block, hand), -1), -(hand - block).norm(dim=-1)
    alive = torch.ones(20, 50, dtype=torch.bool)
    small, large = (Advantage(0.99, 1.0)(k * observation, reward, alive) for k in (1, unit))
    torch.testing.assert_close(large, small, atol=1e-3, rtol=0)


def test_spread_centers_reach_the_ends_of_a_line():
    line = torch.linspace(0, 1, 101)[:, None]
    centers, width = spread_centers(line, 5)
    assert sorted(round(float(c), 2) for c in centers) == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert width == pytest.approx(0.25, abs=0.01)


def test_spread_centers_begin_in_the_middle_and_go_to_the_farthest():
    # The mean is (0.75, 11.25). Nearest neighbours are 5, 1, 5 and 1 away.
    points = torch.tensor([[0.0, 0.0], [0.0, 20.0], [0.0, 21.0], [3.0, 4.0]])
    centers, width = spread_centers(points, 4)
    assert centers.tolist() == [[3.0, 4.0], [0.0, 21.0], [0.0, 0.0], [0.0, 20.0]]
    assert centers.dtype == torch.float64
    assert width == pytest.approx(3.0)
    assert spread_centers(points[:1].expand(3, 2), 2)[1] == 1e-6


def test_roll_outs_that_were_paid_alike_have_no_advantages():
    """Where rewards are sparse and nobody was paid: the baseline's errors are no reason to act."""
    observation, alive = torch.randn(4, 20, 3), torch.ones(4, 20, dtype=torch.bool)
    alike, one_differs = torch.full((4, 20), -0.3), torch.full((4, 20), -0.3)
    one_differs[2, -1] = 1.0
    estimate = Advantage(0.99, 1.0)
    assert (estimate(observation, alike, alive) == 0).all()
    assert estimate(observation, one_differs, alive).square().mean() == pytest.approx(1.0)


def test_of_a_task_whose_roll_outs_were_paid_alike_nothing_is_known():
    reward = torch.zeros(4, 4, 5)
    reward[0, 2, 3] = 1.0
    reward[2] = torch.arange(5.0)
    reward[3, 2, 3] = -1.0
    assert paid_alike(reward).tolist() == [False, True, True, False]


def test_one_roll_out_alone_is_judged_by_its_own_steps():
    """There is no other to be like; never paid, it says nothing."""
    assert paid_alike(torch.tensor([[[1.0, 2.0]], [[0.0, 0.0]]])).tolist() == [False, True]
    observation, alive = torch.randn(1, 20, 3), torch.ones(1, 20, dtype=torch.bool)
    reward = torch.randn(1, 20, generator=torch.Generator().manual_seed(0))
    estimate = Advantage(0.9, 1.0)
    assert estimate(observation, reward, alive).square().mean() == pytest.approx(1.0)
    assert not estimate(observation, 0 * reward, alive).any()


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
