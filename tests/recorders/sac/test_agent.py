"""The agent's networks in the equations, and its updates: compiled, in bfloat16, over time."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from stable_baselines3 import SAC
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from torch.func import grad

from demokit.envs import make_family
from demokit.envs.tasks import make_tasks
from demokit.learning.sac import actor_loss, critic_loss, soft_value, squashed_sample
from demokit.random import stream
from recorders.sac.config import SacConfig
from recorders.sac.train import has_bf16, make_agent
from recorders.sac.update import update
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


def test_the_wanted_values_are_the_equation(agent):
    x, nets, state = batch(6), agent._networks, agent.state
    arguments = nets, state.actor.params, state.target, ALPHA, x.next_observations, normal(32, 2)
    action, log_prob = squashed_sample(*agent._gaussian(x.next_observations), normal(32, 2))
    value = torch.minimum(*agent.critic_target(x.next_observations, action)) - 0.3 * log_prob
    torch.testing.assert_close(soft_value(*arguments)[0], value)


def test_the_critics_gradient_is_the_equations(agent):
    x, wanted = batch(6), normal(32)
    arguments = agent._networks, x.observations, x.actions, wanted
    first, second = agent.critic(x.observations, x.actions)
    (0.5 * ((first - wanted) ** 2).mean() + 0.5 * ((second - wanted) ** 2).mean()).backward()
    gradient = grad(critic_loss)(agent.state.critic.params, *arguments)
    for name, p in agent.critic.named_parameters():
        torch.testing.assert_close(gradient[name], p.grad)


def test_the_actors_gradient_is_the_equations(agent):
    seen, nets, state = batch(6).observations, agent._networks, agent.state
    action, log_prob = squashed_sample(*agent._gaussian(seen), normal(32, 2))
    (0.3 * log_prob - torch.minimum(*agent.critic(seen, action))).mean().backward()
    arguments = nets, state.critic.params, ALPHA, seen, normal(32, 2)
    gradient, _ = grad(actor_loss, has_aux=True)(state.actor.params, *arguments)
    for name, p in agent._gaussian.named_parameters():
        torch.testing.assert_close(gradient[name], p.grad)


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
