"""Roll-outs: parameters per task, and nothing but observations for the policy."""

import numpy as np
import pytest
import torch

from demokit.envs import make_family
from demokit.envs.batch import SimBatch
from demokit.envs.tasks import make_tasks
from demokit.types import Task
from gmps.experience.sampler import Sampler, replicate
from gmps.policies.gaussian import AdaptSpec, GaussianPolicy
from gmps.steps.advantage import Advantage
from gmps.steps.inner import InnerBatch, InnerStep


class Spy(GaussianPolicy):
    """Keeps what it is shown."""

    seen: list[torch.Tensor]

    def dist(self, params, observation):
        self.seen.append(observation)
        return super().dist(params, observation)


def policy_for(family, kind=GaussianPolicy):
    zeros = torch.zeros(family.observation_width)
    return kind(zeros, zeros + 1, len(family.actions))


def tasks_with(family, contexts):
    return [Task(family.name, f"t/{i}", tuple(c), "train") for i, c in enumerate(contexts)]


@pytest.mark.parametrize("name", ["point", "push", "door"])
def test_no_privileged_term_reaches_a_policy(name):
    """Other goals, the same seeds: bit for bit the same inputs and actions, other rewards."""
    family = make_family(name)
    policy = policy_for(family)
    theta = policy.init(torch.Generator().manual_seed(0))
    low, high = (tasks_with(family, [c]) for c in (family.context.low, family.context.high))
    rollouts = [
        Sampler(family, tasks, "dense", explore=2, mean=1)(
            policy, replicate(theta, 1), np.random.default_rng(3)
        )
        for tasks in (low, high)
    ]
    assert torch.equal(rollouts[0].observation, rollouts[1].observation)
    assert torch.equal(rollouts[0].action, rollouts[1].action)
    if name == "point":  # the robots are paid for what an untrained policy does not do
        assert not torch.equal(rollouts[0].reward, rollouts[1].reward)


@pytest.mark.parametrize("name", ["point", "push", "door"])
def test_a_policy_is_shown_the_observation_terms_and_nothing_else(name):
    family = make_family(name)
    policy = policy_for(family, Spy)
    object.__setattr__(policy, "seen", [])
    theta = policy.init(torch.Generator().manual_seed(0))
    tasks = tasks_with(family, [family.context.low])
    Sampler(family, tasks, "dense", explore=1)(
        policy, replicate(theta, 1), np.random.default_rng(3)
    )
    observed = [term for term in family.terms if term.group == "observation"]
    assert {tuple(x.shape) for x in policy.seen} == {(1, sum(term.width for term in observed))}
    sims = SimBatch(family, 1)
    sims.reset(np.array([family.context.low]), [7])
    parts = [sims.privileged()[term.name] for term in observed]
    np.testing.assert_array_equal(sims.observe(), np.concatenate(parts, 1).astype(np.float32))


def test_each_task_acts_by_its_own_parameters():
    family = make_family("point")
    policy = policy_for(family)
    theta = policy.init(torch.Generator().manual_seed(0))
    params = {name: value.clone() for name, value in replicate(theta, 2).items()}
    params["2.bias"][1] += 1.0
    tasks = tasks_with(family, [family.context.low, family.context.low])
    sampler = Sampler(family, tasks, "dense", explore=1, mean=1)
    rollouts = sampler(policy, params, np.random.default_rng(0))
    alone = policy.dist({name: value[1] for name, value in params.items()}, rollouts.observation[1])
    torch.testing.assert_close(rollouts.action[1, 1], alone.mean[1])
    assert not torch.allclose(rollouts.action[0], rollouts.action[1])


def test_recorded_log_probabilities_are_the_policys():
    family = make_family("point")
    policy = policy_for(family)
    theta = policy.init(torch.Generator().manual_seed(0))
    tasks = make_tasks(family, "uniform", "train", num_tasks=2)
    rollouts = Sampler(family, tasks, "dense", explore=2)(
        policy, replicate(theta, 2), np.random.default_rng(0)
    )
    again = policy.dist(theta, rollouts.observation).log_prob(rollouts.action)
    torch.testing.assert_close(rollouts.log_prob, again)


def test_mean_episodes_have_no_action_noise():
    family = make_family("point")
    policy = policy_for(family)
    theta = policy.init(torch.Generator().manual_seed(0))
    sampler = Sampler(family, tasks_with(family, [(0.5, 0.5)]), "dense", explore=1, mean=1)
    rollouts = sampler(policy, replicate(theta, 1), np.random.default_rng(0))
    expected = policy.dist(theta, rollouts.observation).mean
    torch.testing.assert_close(rollouts.action[:, 1], expected[:, 1])
    assert not torch.allclose(rollouts.action[:, 0], expected[:, 0])


@pytest.mark.usefixtures("frail_ants")
def test_the_inner_step_ignores_what_follows_an_episodes_end():
    """The gradient is that of the steps until then and of no others."""
    family = make_family("ant")
    policy = policy_for(family)
    theta = policy.init(torch.Generator().manual_seed(0))
    tasks = tasks_with(family, [(0.1,), (1.2,)])
    rollouts = Sampler(family, tasks, "dense", explore=6)(
        policy, replicate(theta, 2), np.random.default_rng(0)
    )
    alive = rollouts.alive
    assert alive[:, :, 0].all()
    assert len(alive.sum(-1).unique()) > 1
    assert (alive[:, :, 1:] <= alive[:, :, :-1]).all()
    assert (rollouts.reward[~alive] == 0).all()

    spec = AdaptSpec.all_but(theta, "log_std")
    inner, sizes = InnerStep(policy, spec), spec.init_step_sizes(theta, 0.1)
    estimate = torch.func.vmap(Advantage(0.99, 1.0))
    batch = rollouts.inner_batch(estimate(rollouts.observation, rollouts.reward, rollouts.alive))
    batch = InnerBatch(*(values[0] for values in batch))
    kept = alive[0].flatten()
    cut = InnerBatch(*(values[kept] for values in batch))
    cut = cut._replace(advantage=cut.advantage * kept.float().mean())
    phi, expected = inner(theta, sizes, batch), inner(theta, sizes, cut)
    assert not torch.equal(phi["0.weight"], theta["0.weight"])
    for name, value in expected.items():
        torch.testing.assert_close(phi[name], value)
