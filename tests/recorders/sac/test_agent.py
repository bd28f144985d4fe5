"""The losses against numbers worked out by hand or by torch's own distributions."""

import numpy as np
import pytest
import torch
from stable_baselines3 import SAC
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from torch.distributions import Independent, Normal, TanhTransform, TransformedDistribution

from demokit.envs import make_family
from demokit.envs.tasks import make_tasks
from recorders.sac.agent import actor_loss, critic_loss, squashed_sample
from recorders.sac.config import SacConfig
from recorders.sac.train import make_agent
from recorders.sac.vec_env import TaskVecEnv

CONFIG = SacConfig(compile=False, hidden_width=16, num_envs=4, batch_size=32, warmup_steps=80)


@pytest.fixture
def agent():
    torch.manual_seed(0)
    family = make_family("point")
    tasks = make_tasks(family, "uniform", "train", num_tasks=3)
    return make_agent(TaskVecEnv(family, tasks, 4, seed=0), CONFIG)


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
    action, log_prob = squashed_sample(agent.actor, seen)
    mean, log_std, _ = agent.actor.get_action_dist_params(seen)
    squashed = TransformedDistribution(Normal(mean, log_std.exp()), TanhTransform(cache_size=1))
    expected = Independent(squashed, 1).log_prob(action)
    torch.testing.assert_close(log_prob, expected, atol=1e-3, rtol=1e-3)


def test_the_critics_loss_is_the_equation(agent):
    x, temperature = batch(6), torch.tensor([0.3])
    torch.manual_seed(7)
    loss = critic_loss(agent.actor, agent.critic, agent.critic_target, temperature, x)
    torch.manual_seed(7)
    action, log_prob = squashed_sample(agent.actor, x.next_observations)
    first, second = agent.critic_target(x.next_observations, action)
    wanted = x.rewards + 0.9 * (torch.minimum(first, second) - 0.3 * log_prob)
    q = agent.critic(x.observations, x.actions)
    by_hand = 0.5 * ((q[0] - wanted) ** 2).mean() + 0.5 * ((q[1] - wanted) ** 2).mean()
    torch.testing.assert_close(loss, by_hand)


def test_no_gradient_reaches_the_target_through_the_loss(agent):
    critic_loss(
        agent.actor, agent.critic, agent.critic_target, torch.tensor([0.3]), batch(6)
    ).backward()
    assert all(p.grad is None for p in agent.critic_target.parameters())
    assert all(p.grad is None for p in agent.actor.parameters())
    assert all(p.grad is not None for p in agent.critic.parameters())


def test_compiled_losses_are_the_same(agent):
    x, temperature = batch(6), torch.tensor([0.3])
    for plain, arguments in (
        (critic_loss, (agent.actor, agent.critic, agent.critic_target, temperature, x)),
        (actor_loss, (agent.actor, agent.critic, temperature, x.observations)),
    ):
        found = []
        for function in (plain, torch.compile(plain, backend="aot_eager")):
            torch.manual_seed(3)
            out = function(*arguments)
            found.append(out[0] if isinstance(out, tuple) else out)
        torch.testing.assert_close(*found)


def test_updates_move_the_target_slowly_and_the_temperature_the_right_way(agent):
    agent.learn(400)
    before = [p.detach().clone() for p in agent.critic_target.parameters()]
    critic = [p.detach().clone() for p in agent.critic.parameters()]
    temperature = float(agent.temperature.detach())
    agent.train(1, 32)
    after = list(agent.critic.parameters())
    for old, new, now in zip(before, after, agent.critic_target.parameters(), strict=True):
        torch.testing.assert_close(now, old + CONFIG.tau * (new - old))
    assert any(not torch.equal(a, b) for a, b in zip(critic, after, strict=True))
    # Entropy is above its target of -2 at the start: the temperature falls.
    assert float(agent.temperature.detach()) < temperature


def test_it_is_the_librarys_sac(agent):
    assert isinstance(agent, SAC)
    agent.learn(100)
    assert agent.num_timesteps == 100
    action, _ = agent.predict(np.zeros((5, 6), np.float32))
    assert action.shape == (5, 2)
