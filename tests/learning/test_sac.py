"""SAC's equations against numbers worked out by hand, torch's distributions and differences."""

import math

import pytest
import torch
from torch.distributions import Normal, TanhTransform
from torch.func import grad

from demokit.learning.networks import init_mlp, mlp
from demokit.learning.sac import (
    Networks,
    actor_loss,
    bellman_target,
    critic_loss,
    polyak,
    soft_value,
    squashed_sample,
    temperature_loss,
    value_loss,
)

TASKS, BATCH, STATE, ACTION, LATENT = 3, 5, 4, 2, 2
ALPHA = torch.tensor([0.3], dtype=torch.float64)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=rng(seed), dtype=torch.float64)


def layers(params):
    num = len(params) // 2
    return tuple((params[f"{i}.weight"], params[f"{i}.bias"]) for i in range(num))


def made(seed, *widths):
    return {name: p.double() for name, p in init_mlp(rng(seed), widths).items()}


def actor(theta, states):
    mean, log_std = mlp(layers(theta), states).chunk(2, -1)
    return mean, log_std.clamp(-2, 1)


def critic(phi, states, actions):
    return mlp(layers(phi), torch.cat([states, actions], -1)).movedim(-1, 0)


NETS = Networks(actor, critic)
WIDTH = STATE + LATENT
THETA, PHI = made(1, WIDTH, 8, 2 * ACTION), made(2, WIDTH + ACTION, 8, 2)


def test_actions_and_densities_are_those_of_a_squashed_gaussian():
    mean, log_std, noise = (normal(TASKS, BATCH, ACTION, seed=i) for i in range(3))
    action, log_prob = squashed_sample(mean, log_std, noise)
    u = mean + log_std.exp() * noise
    torch.testing.assert_close(action, u.tanh())
    density = Normal(mean, log_std.exp()).log_prob(u)
    stretch = TanhTransform().log_abs_det_jacobian(u, action)
    torch.testing.assert_close(log_prob, (density - stretch).sum(-1))


def test_densities_far_out_are_finite():
    # log(1 - tanh(u)^2) -> 2 log 2 - 2 u, where tanh(u) is 1 in floating point.
    _, log_prob = squashed_sample(torch.tensor([40.0]), torch.zeros(1), torch.zeros(1))
    expected = -0.5 * math.log(2 * math.pi) - (2 * math.log(2) - 80)
    assert float(log_prob) == pytest.approx(expected)


def test_the_soft_value_by_hand():
    # Actions are tanh(0) = 0 with log-density log N(0; 0, 1) each; the critics say 3 and 2.
    nets = Networks(
        lambda _, s: (torch.zeros(*s.shape[:-1], 2), torch.zeros(*s.shape[:-1], 2)),
        lambda _, s, a: torch.stack([a.sum(-1) + 3, a.sum(-1) + 2]),
    )
    states, noise = torch.zeros(4, 1), torch.zeros(4, 2)
    value, log_prob = soft_value(nets, {}, {}, torch.tensor([0.5]), states, noise)
    assert log_prob.tolist() == pytest.approx([-math.log(2 * math.pi)] * 4)
    assert value.tolist() == pytest.approx([2 + 0.5 * math.log(2 * math.pi)] * 4)
    loss, mean_log_prob = actor_loss({}, nets, {}, torch.tensor([0.5]), states, noise)
    assert float(loss) == pytest.approx(-2 - 0.5 * math.log(2 * math.pi))
    assert float(mean_log_prob) == pytest.approx(-math.log(2 * math.pi))


def test_targets_and_squared_errors_by_hand():
    rewards, factors = torch.tensor([1.0, 2.0]), torch.tensor([0.9, 0.0])
    wanted = bellman_target(rewards, factors, torch.tensor([10.0, 10.0]))
    assert wanted.tolist() == [10.0, 2.0]
    values = torch.tensor([[11.0, 2.0], [10.0, 5.0]])  # errors 1, 0 and 0, 3
    nets = Networks(actor, lambda *_: values)
    assert float(critic_loss({}, nets, wanted, wanted, wanted)) == 0.5 * (1 / 2 + 9 / 2)
    assert float(value_loss({}, lambda *_: values[1], wanted, wanted)) == 0.5 * 9 / 2


def test_the_temperature_follows_the_entropy():
    # Entropy 0.5, wanted -2: the gradient of log alpha is the surplus, 2.5.
    gradient = grad(temperature_loss)(torch.tensor([-1.0]), torch.tensor(-0.5), -2.0)
    assert gradient.tolist() == [2.5]


def test_targets_follow_slowly():
    target = {"w": torch.tensor([1.0, 2.0])}
    polyak(target, {"w": torch.tensor([3.0, 2.0])}, 0.25)
    assert target["w"].tolist() == [1.5, 2.0]


def losses(states, actions, wanted, noise, theta=THETA, phi=PHI):
    """Of the critics, of the actor, and of a network of values: here, the first critic's."""
    return (
        critic_loss(phi, NETS, states, actions, wanted),
        actor_loss(theta, NETS, phi, ALPHA, states, noise)[0],
        value_loss(phi, lambda psi, s: critic(psi, s, actions)[0], states, wanted),
    )


def drawn():
    """States, actions, wanted values and noise of some tasks."""
    return (
        normal(TASKS, BATCH, WIDTH, seed=1),
        normal(TASKS, BATCH, ACTION, seed=2).tanh(),
        normal(TASKS, BATCH, seed=3),
        normal(TASKS, BATCH, ACTION, seed=4),
    )


def test_a_batch_of_tasks_is_the_mean_of_its_tasks():
    together = torch.stack(losses(*drawn()))
    alone = [torch.stack(losses(*parts)) for parts in zip(*drawn(), strict=True)]
    torch.testing.assert_close(together, torch.stack(alone).mean(0))


@pytest.mark.parametrize(("index", "name"), [(0, "phi"), (1, "theta"), (2, "phi")])
def test_gradients_are_those_of_finite_differences(index, name):
    params = {"theta": THETA, "phi": PHI}[name]
    gradient = grad(lambda p: losses(*drawn(), **{name: p})[index])(params)
    towards = {n: normal(*p.shape, seed=7) for n, p in params.items()}

    def moved(by):
        return {n: p + by * towards[n] for n, p in params.items()}

    up, down = (losses(*drawn(), **{name: moved(by)})[index] for by in (1e-6, -1e-6))
    slope = sum((gradient[n] * towards[n]).sum() for n in params)
    torch.testing.assert_close(slope, (up - down) / 2e-6, rtol=1e-5, atol=1e-7)


def test_a_context_learns_where_the_caller_lets_it():
    states, actions, wanted, noise = drawn()
    z = normal(TASKS, 1, LATENT, seed=5).requires_grad_()

    def seen(context):
        return torch.cat([states[..., :STATE], context.expand(-1, BATCH, -1)], -1)

    through = losses(seen(z), actions, wanted, noise)
    for each in through:
        (slope,) = torch.autograd.grad(each, z, retain_graph=True)
        assert slope.abs().min() > 0
    for each in losses(seen(z.detach()), actions, wanted, noise):
        assert not each.requires_grad


def test_the_entropy_that_moves_the_temperature_carries_no_gradient():
    theta = {name: p.clone().requires_grad_() for name, p in THETA.items()}
    states, _, _, noise = drawn()
    loss, log_prob = actor_loss(theta, NETS, PHI, ALPHA, states, noise)
    assert loss.requires_grad
    assert not log_prob.requires_grad
