"""The update against numbers worked out by hand, by torch's distributions and by its Adam."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from stable_baselines3 import SAC
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from torch.distributions import Independent, Normal, TanhTransform, TransformedDistribution
from torch.func import grad

from demokit.envs import make_family
from demokit.envs.tasks import make_tasks
from demokit.random import stream
from recorders.sac.config import SacConfig
from recorders.sac.train import has_bf16, make_agent
from recorders.sac.update import (
    Learned,
    actor_loss,
    adam,
    critic_loss,
    soft_value,
    squashed_sample,
    temperature_loss,
    update,
)
from recorders.sac.vec_env import TaskVecEnv

ALPHA = torch.tensor([0.3])
CONFIG = SacConfig(compile=False, hidden_width=16, num_envs=4, batch_size=32, warmup_steps=80)


def fresh(**options):
    torch.manual_seed(0)
    family = make_family("point")
    tasks = make_tasks(family, "uniform", "train", num_tasks=3)
    return make_agent(TaskVecEnv(family, tasks, 4, stream(0, "test")), replace(CONFIG, **options))


@pytest.fixture
def agent():
    return fresh(precision="float32")


def normal(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(2))


def batch(width, size=32):
    rng = torch.Generator().manual_seed(1)
    return ReplayBufferSamples(
        torch.randn(size, width, generator=rng),
        torch.rand(size, 2, generator=rng) * 2 - 1,
        torch.randn(size, width, generator=rng),
        torch.zeros(size),
        torch.randn(size, generator=rng),
        torch.full((size,), 0.9),
    )


def test_log_densities_are_those_of_a_squashed_gaussian(agent):
    seen = batch(6).observations
    action, log_prob = squashed_sample(
        *agent._networks.actor(agent.state.actor.params, seen), normal(32, 2)
    )
    mean, log_std, _ = agent.actor.get_action_dist_params(seen)
    squashed = TransformedDistribution(Normal(mean, log_std.exp()), TanhTransform(cache_size=1))
    expected = Independent(squashed, 1).log_prob(action)
    torch.testing.assert_close(log_prob, expected, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(action, (mean + log_std.exp() * normal(32, 2)).tanh())


def test_the_critics_loss_is_the_equation(agent):
    x, nets, state = batch(6), agent._networks, agent.state
    wanted = soft_value(nets, state, ALPHA, x, normal(32, 2))
    action, log_prob = squashed_sample(
        *nets.actor(state.actor.params, x.next_observations), normal(32, 2)
    )
    first, second = agent.critic_target(x.next_observations, action)
    by_hand = x.rewards + 0.9 * (torch.minimum(first, second) - 0.3 * log_prob)
    torch.testing.assert_close(wanted, by_hand)
    q = agent.critic(x.observations, x.actions)
    by_hand = 0.5 * ((q[0] - wanted) ** 2).mean() + 0.5 * ((q[1] - wanted) ** 2).mean()
    torch.testing.assert_close(critic_loss(state.critic.params, nets, x, wanted), by_hand)


def test_the_actors_loss_is_the_equation_and_so_is_its_gradient(agent):
    seen, nets, state = batch(6).observations, agent._networks, agent.state
    arguments = (nets, state.critic.params, ALPHA, seen, normal(32, 2))
    found, log_prob = actor_loss(state.actor.params, *arguments)
    action, each = squashed_sample(*agent._gaussian(seen), normal(32, 2))
    by_hand = (0.3 * each - torch.minimum(*agent.critic(seen, action))).mean()
    torch.testing.assert_close(found, by_hand.detach())
    torch.testing.assert_close(log_prob, each.mean().detach())
    by_hand.backward()
    gradient, _ = grad(actor_loss, has_aux=True)(state.actor.params, *arguments)
    for name, p in agent._gaussian.named_parameters():
        torch.testing.assert_close(gradient[name], p.grad)


def test_the_temperature_follows_the_entropy():
    # Entropy 0.5, wanted -2: the gradient of log alpha is the surplus, 2.5.
    log_alpha = {"log_alpha": torch.tensor([-1.0])}
    gradient = grad(temperature_loss)(log_alpha, torch.tensor(-0.5), -2.0)
    assert gradient["log_alpha"].tolist() == [2.5]


def test_adam_is_torchs():
    params = {"w": normal(3, 4), "b": normal(4)}
    theirs = [p.clone().requires_grad_() for p in params.values()]
    optimizer = torch.optim.Adam(theirs, lr=0.01)
    ours, count = Learned.fresh(params), torch.zeros(1, dtype=torch.float64)
    rng = torch.Generator().manual_seed(3)
    for _ in range(20):
        for p in theirs:
            p.grad = torch.randn(p.shape, generator=rng)
        optimizer.step()
        adam(ours, dict(zip(params, [p.grad for p in theirs], strict=True)), count.add_(1), 0.01)
    for p, now in zip(theirs, params.values(), strict=True):
        torch.testing.assert_close(now, p.detach(), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(ours.second["w"], optimizer.state[theirs[0]]["exp_avg_sq"])


def updated(precision, how):
    """Every tensor after three updates on the same batch."""
    agent = fresh(precision=precision)
    for step in range(3):
        noise = torch.randn(2, 32, 2, generator=torch.Generator().manual_seed(step))
        with torch.no_grad():
            how(agent._networks, agent.state, batch(6), noise, agent._settings)
    return agent.state.named()


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiled_updates_are_the_same(backend):
    plain = updated("float32", update)
    compiled = updated("float32", torch.compile(update, backend=backend))
    assert float(plain["count"]) == 3
    torch.testing.assert_close(compiled, plain, rtol=1e-3, atol=1e-5)


@pytest.mark.skipif(not has_bf16("cpu"), reason="this processor has no bfloat16")
def test_bfloat16_is_used_and_close():
    exact, rounded = (updated(each, update) for each in ("float32", "bf16"))
    for name, tensor in rounded.items():
        assert tensor.dtype == exact[name].dtype
    moments = [torch.cat([t[n].flatten() for n in t if ".first/" in n]) for t in (exact, rounded)]
    assert not torch.equal(*moments)
    assert (moments[0] - moments[1]).norm() < 0.05 * moments[0].norm()


def test_updates_move_the_target_slowly_and_the_temperature_the_right_way(agent):
    agent.learn(400)
    before = [p.detach().clone() for p in agent.critic_target.parameters()]
    critic = [p.detach().clone() for p in agent.critic.parameters()]
    alpha = float(agent.state.alpha)
    agent.train(1, 32)
    after = list(agent.critic.parameters())
    for old, new, now in zip(before, after, agent.critic_target.parameters(), strict=True):
        torch.testing.assert_close(now, old + CONFIG.tau * (new - old))
    assert any(not torch.equal(a, b) for a, b in zip(critic, after, strict=True))
    # Entropy is above its target of -2 at the start: the temperature falls.
    assert float(agent.state.alpha) < alpha


def test_it_is_the_librarys_sac(agent):
    assert isinstance(agent, SAC)
    agent.learn(100)
    assert agent.num_timesteps == 100
    action, _ = agent.predict(np.zeros((5, 6), np.float32))
    assert action.shape == (5, 2)
