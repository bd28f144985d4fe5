"""Conjugate gradients, the KL's Hessian, the trust region's step and PPO's clip."""

import math

import pytest
import torch

from demokit.learning.distributions import Gaussian
from demokit.learning.networks import init_mlp, mlp
from gmps.steps.losses import mean_weights
from gmps.steps.ppo import clipped_surrogate
from gmps.steps.trust_region import (
    Judged,
    Region,
    conjugate_gradient,
    kl_product,
    mean_kl,
    trust_region_step,
)

DOUBLE = torch.float64


def matrix(seed=0, size=12):
    rng = torch.Generator().manual_seed(seed)
    root = torch.randn(size, size, generator=rng, dtype=DOUBLE)
    return root @ root.T + torch.eye(size), torch.randn(size, generator=rng, dtype=DOUBLE)


def halves(vector):
    return {"a": vector[:5].view(1, 5), "b": vector[5:]}


def whole(params):
    return torch.cat([params["a"].flatten(), params["b"]])


def times(full):
    return lambda vector: halves(full @ whole(vector))


def test_conjugate_gradients_solve_a_known_system():
    full, right = matrix()
    found = whole(conjugate_gradient(times(full), halves(right), iterations=24))
    torch.testing.assert_close(found, torch.linalg.solve(full, right), rtol=1e-5, atol=1e-7)
    # In exact arithmetic as many iterations as there are distinct eigenvalues.
    scaled = conjugate_gradient(times(3 * torch.eye(12).double()), halves(right), iterations=1)
    torch.testing.assert_close(whole(scaled), right / 3)


def test_conjugate_gradients_of_nothing_or_of_no_numbers_end():
    full, right = matrix()
    assert not whole(conjugate_gradient(times(full), halves(0 * right), 10)).any()
    assert not whole(conjugate_gradient(times(full), halves(right * torch.nan), 10)).any()


def quadratic(full, right):
    """(theta - theta*) H (theta - theta*) / 2, with H theta* = right; the KL's is half as steep."""

    def judge(params):
        at = whole(params)
        return Judged(0.5 * at @ full @ at - right @ at, 0.25 * at @ full @ at)

    return judge


def test_a_quadratic_is_left_at_its_optimum_on_the_bound():
    """KL theta' H theta / 4 <= delta: the optimum is along H^-1 g, as far as delta goes."""
    full, right = matrix()
    zeros, delta = halves(0 * right), 0.01
    judge = quadratic(full, right)
    region = Region(delta, iterations=24, damping=0.0)
    taken = trust_region_step(zeros, halves(-right), times(full / 2), judge, region)
    solved = torch.linalg.solve(full, right)
    best = solved * (4 * delta / (solved @ full @ solved)).sqrt()
    torch.testing.assert_close(whole(taken.params), best, rtol=1e-5, atol=1e-7)
    assert taken.length in (1.0, 0.8)  # rounding may say that the bound is passed
    assert taken.judged.kl.item() == pytest.approx(delta, rel=1e-5)


def test_a_step_stays_within_the_bound_where_the_model_of_it_is_too_bold():
    full, right = matrix()

    def judge(params):
        judged = quadratic(full, right)(params)
        return judged._replace(kl=9 * judged.kl)

    taken = trust_region_step(
        halves(0 * right), halves(-right), times(full / 2), judge, Region(0.01, 24, 0.0)
    )
    # 9 length^2 <= 1: the first power of 0.8 below 1/3.
    assert taken.length == pytest.approx(0.8**5)
    assert 0 < taken.judged.kl <= 0.01
    assert taken.judged.loss < 0


@pytest.mark.parametrize(
    "spoilt",
    [
        lambda judged: Judged(-judged.loss, judged.kl),
        lambda judged: Judged(judged.loss, judged.kl + 1),
        lambda judged: Judged(judged.loss * torch.nan, judged.kl),
    ],
    ids=["no better", "too far", "no number"],
)
def test_without_a_good_step_nothing_moves(spoilt):
    full, right = matrix()
    start = halves(0 * right)

    def judge(params):
        judged = quadratic(full, right)(params)
        return spoilt(judged) if whole(params).any() else judged

    taken = trust_region_step(start, halves(-right), times(full / 2), judge, Region(0.01))
    assert taken.params is start
    assert taken.length == 0


def test_without_a_gradient_nothing_is_tried():
    full, right = matrix()
    tried = []

    def judge(params):
        tried.append(params)
        return quadratic(full, right)(params)

    start = halves(0 * right)
    assert trust_region_step(start, start, times(full), judge, Region(0.01)).params is start
    assert len(tried) == 1


@pytest.fixture
def policy():
    """A Gaussian policy at the states of 3 tasks, one of which ended early."""
    rng = torch.Generator().manual_seed(0)
    theta = {n: v.double() for n, v in init_mlp(rng, (4, 8, 2)).items()}
    theta["log_std"] = torch.tensor([-0.5, 0.3], dtype=DOUBLE)
    states = torch.randn(3, 20, 4, generator=rng, dtype=DOUBLE)
    weight = mean_weights(torch.arange(20) < torch.tensor([[20], [20], [7]])).double()

    def dist(params):
        layers = tuple((params[f"{i}.weight"], params[f"{i}.bias"]) for i in range(2))
        return Gaussian(mlp(layers, states, "tanh"), params["log_std"].exp())

    return dist, theta, weight


def test_mean_kl_of_worked_numbers():
    # N(0, 1) from N(1, 2): log 2 + (1 + 1) / 8 - 1/2, twice for two dimensions.
    old = Gaussian(torch.zeros(1, 2), torch.ones(2))
    new = Gaussian(torch.ones(1, 2), torch.full((2,), 2.0))
    assert mean_kl(old, new, torch.ones(1)).item() == pytest.approx(2 * (math.log(2) - 0.25))
    assert mean_kl(old, old, torch.ones(1)).item() == 0


def test_the_kl_product_agrees_with_finite_differences(policy):
    dist, theta, weight = policy
    old = Gaussian(*(part.detach() for part in dist(theta)))
    gradient = torch.func.grad(lambda params: mean_kl(old, dist(params), weight))
    rng, epsilon = torch.Generator().manual_seed(1), 1e-6
    for _ in range(5):
        along = {n: torch.randn(v.shape, generator=rng, dtype=DOUBLE) for n, v in theta.items()}
        forward, backward = (
            gradient({n: v + sign * epsilon * along[n] for n, v in theta.items()})
            for sign in (1, -1)
        )
        found = kl_product(dist, theta, weight)(along)
        for name, value in found.items():
            numeric = (forward[name] - backward[name]) / (2 * epsilon)
            torch.testing.assert_close(value, numeric, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("ratio", "advantage", "paid"),
    [
        (2.0, 3.0, 3.9),  # gains are bounded
        (2.0, -3.0, -6.0),  # losses are not
        (0.5, 3.0, 1.5),
        (0.5, -3.0, -2.1),
        (1.2, 3.0, 3.6),
    ],
)
def test_clipped_surrogate_of_one_sample(ratio, advantage, paid):
    log_prob, given = torch.tensor([math.log(ratio)]), torch.tensor([advantage])
    assert clipped_surrogate(log_prob, torch.zeros(1), given, 0.3).item() == pytest.approx(-paid)
    bare = clipped_surrogate(log_prob, torch.zeros(1), given)
    assert bare.item() == pytest.approx(-ratio * advantage)


def test_shapes_that_would_broadcast_are_refused():
    with pytest.raises(ValueError, match="shapes differ"):
        clipped_surrogate(torch.zeros(3, 1), torch.zeros(3), torch.zeros(3))
