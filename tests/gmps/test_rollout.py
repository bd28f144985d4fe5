"""Roll-outs: parameters per task, and nothing but observations for the policy."""

import numpy as np
import pytest
import torch
from short_run import acted

from demokit.envs import make_family
from demokit.envs.batch import SimBatch
from demokit.envs.tasks import make_tasks
from demokit.errors import DemokitError
from demokit.learning.distributions import Gaussian
from demokit.types import Task
from gmps.distributed import World
from gmps.experience.sampler import Sampler
from gmps.policies.gaussian import AdaptSpec, GaussianPolicy, replicate
from gmps.steps.advantage import Advantage
from gmps.steps.inner import InnerBatch, InnerStep


class Spy:
    """An actor that keeps what it is shown, and stands still."""

    memory = 0

    def __init__(self, width):
        self.width, self.seen = width, []

    def __call__(self, memory, seen):
        self.seen.append((memory, seen))
        still = torch.zeros(*seen.reward.shape, self.width)
        return Gaussian(still, torch.full_like(still, 0.1)), memory + 1


def policy_for(family):
    zeros = torch.zeros(family.observation_width)
    return GaussianPolicy(zeros, zeros + 1, len(family.actions))


def tasks_with(family, contexts):
    return [Task(family.name, f"t/{i}", tuple(c), "train") for i, c in enumerate(contexts)]


@pytest.mark.parametrize("name", ["point", "push", "door"])
def test_no_privileged_term_reaches_a_policy(name):
    """Other goals, the same seeds: bit for bit the same inputs and actions, other rewards."""
    family = make_family(name)
    policy = policy_for(family)
    theta = policy.init(torch.Generator().manual_seed(0))
    low, high = (tasks_with(family, [c]) for c in (family.context.low, family.context.high))
    found = [
        acted(Sampler(family, tasks, "dense", explore=2, mean=1), policy, replicate(theta, 1))
        for tasks in (low, high)
    ]
    of_both = ([gathered.rollouts for gathered in each] for each in found)
    for rollouts in zip(*of_both, strict=True):
        same(name, rollouts)


def same(name, rollouts):
    assert torch.equal(rollouts[0].observation, rollouts[1].observation)
    assert torch.equal(rollouts[0].action, rollouts[1].action)
    if name == "point":  # the robots are paid for what an untrained policy does not do
        assert not torch.equal(rollouts[0].reward, rollouts[1].reward)


@pytest.mark.parametrize("name", ["point", "push", "door"])
def test_an_actor_is_shown_the_observation_terms_and_nothing_else(name):
    family = make_family(name)
    spy, width = Spy(len(family.actions)), len(family.actions)
    tasks = tasks_with(family, [family.context.low, family.context.high])
    sampler = Sampler(family, tasks, "dense", explore=2)
    explored, _ = sampler(spy, sampler.streams(np.random.default_rng(3)))
    observed = [term for term in family.terms if term.group == "observation"]
    _, first = spy.seen[0]
    assert first._fields == ("t", "observation", "action", "reward", "alive")
    assert first.observation.shape == (2, 2, sum(term.width for term in observed))
    assert (first.action == 0).all()
    assert (first.reward == 0).all()
    assert first.action.shape == (2, 2, width)
    sims = SimBatch(family, 1)
    sims.reset(np.array([family.context.low]), [7])
    parts = [sims.privileged()[term.name] for term in observed]
    np.testing.assert_array_equal(sims.observe(), np.concatenate(parts, 1).astype(np.float32))
    # What it remembers and sees of the step before is its own, and that of the step before.
    rollouts = explored.rollouts
    for t, (memory, seen) in enumerate(spy.seen):
        assert (memory, seen.t) == (t, t)
        assert torch.equal(seen.observation, rollouts.observation[:, :, t])
        if t:
            assert torch.equal(seen.action, rollouts.action[:, :, t - 1])
            assert torch.equal(seen.reward, rollouts.reward[:, :, t - 1])
    assert explored.memory == family.horizon


def test_two_actors_share_the_simulations_and_nothing_else():
    family = make_family("point")
    one, other = Spy(2), Spy(2)
    sampler = Sampler(family, tasks_with(family, [(0.5, 0.5)]), "dense", explore=3, mean=2)
    explored, judged = sampler(one, sampler.streams(np.random.default_rng(0)), other)
    assert one.seen[0][1].reward.shape == (1, 3)
    assert other.seen[0][1].reward.shape == (1, 2)
    assert explored.rollouts.reward.shape == (1, 3, 20)
    assert judged.success.shape == (1, 2)
    assert (judged.rollouts.action == 0).all()
    assert (explored.rollouts.action != 0).all()


def test_how_many_episodes_a_task_has_changes_no_others():
    """Each task has random numbers of its own."""
    family = make_family("point")
    policy = policy_for(family)
    theta = policy.init(torch.Generator().manual_seed(0))
    tasks = make_tasks(family, "uniform", "train", num_tasks=3)
    whole = acted(Sampler(family, tasks, "dense", explore=2), policy, replicate(theta, 3))
    fewer = acted(Sampler(family, tasks[:2], "dense", explore=2), policy, replicate(theta, 2))
    torch.testing.assert_close(whole.explored.rollouts.action[:2], fewer.explored.rollouts.action)


def test_a_process_rolls_out_its_own_tasks_and_counts_the_steps_of_all():
    """The other process's tasks are the first two: this one's is what it is among all three."""
    family = make_family("point")
    tasks = tasks_with(family, [(0.0, 0.1), (0.2, 0.3), (0.4, 0.5)])
    whole, own = (
        Sampler(family, tasks, "dense", explore=4, mean=3, part=part)
        for part in (World().part(3), World(1, 2).part(3))
    )
    assert torch.equal(whole.contexts, torch.tensor([[0.0, 0.1], [0.2, 0.3], [0.4, 0.5]]))
    assert torch.equal(own.contexts, torch.tensor([[0.4, 0.5]]))
    assert own.num_steps == whole.num_steps == 3 * (4 + 3) * 20
    assert own.steps_of(5) == whole.steps_of(5) == 3 * 5 * 20
    policy = policy_for(family)
    theta = policy.init(torch.Generator().manual_seed(0))
    of_whole = acted(whole, policy, replicate(theta, 3)).explored.rollouts
    of_own = acted(own, policy, replicate(theta, 1)).explored.rollouts
    torch.testing.assert_close(of_own.reward[0], of_whole.reward[2])
    torch.testing.assert_close(of_own.action[0], of_whole.action[2])


def test_what_is_recorded_is_what_the_simulations_show_before_each_step():
    family, looked = make_family("point"), []
    tasks = tasks_with(family, [(0.5, 0.5), (-0.5, 0.5)])
    sampler = Sampler(
        family,
        tasks,
        "dense",
        explore=49,
        mean=1,
        watch=lambda sims: looked.append(sims.observe().reshape(2, 50, -1).copy()),
    )
    policy = policy_for(family)
    theta = policy.init(torch.Generator().manual_seed(0))
    params = {name: value.requires_grad_() for name, value in replicate(theta, 2).items()}
    rollouts = [found.rollouts for found in acted(sampler, policy, params)]
    observation = torch.cat([found.observation for found in rollouts], 1)
    assert len(looked) == 1 + family.horizon
    np.testing.assert_array_equal(observation.numpy(), np.stack(looked[:-1], 2))
    assert len(observation[:, :, 0].flatten(0, 1).unique(dim=0)) == 100  # each has its own start
    assert not any(found.action.requires_grad for found in rollouts)


def test_each_task_acts_by_its_own_parameters():
    family = make_family("point")
    policy = policy_for(family)
    theta = policy.init(torch.Generator().manual_seed(0))
    params = {name: value.clone() for name, value in replicate(theta, 2).items()}
    params["2.bias"][1] += 1.0
    tasks = tasks_with(family, [family.context.low, family.context.low])
    sampler = Sampler(family, tasks, "dense", explore=1, mean=1)
    rollouts = acted(sampler, policy, params).judged.rollouts
    alone = policy.dist({name: value[1] for name, value in params.items()}, rollouts.observation[1])
    torch.testing.assert_close(rollouts.action[1], alone.mean)
    assert not torch.allclose(rollouts.action[0], rollouts.action[1])


def test_an_action_that_is_no_number_names_the_task():
    """Of the second task: simulations 3, 4 and 5."""
    family = make_family("point")
    policy = policy_for(family)
    params = replicate(policy.init(torch.Generator().manual_seed(0)), 2)
    params = {name: value.clone() for name, value in params.items()}
    params["2.bias"][1] = torch.nan
    tasks = tasks_with(family, [(0.5, 0.5), (-0.5, 0.5)])
    sampler = Sampler(family, tasks, "dense", explore=2, mean=1)
    with pytest.raises(DemokitError, match=r"Simulation 3 \(task t/1\) in step 1: action 0"):
        acted(sampler, policy, params)


def test_recorded_log_probabilities_are_the_policys():
    family = make_family("point")
    policy = policy_for(family)
    theta = policy.init(torch.Generator().manual_seed(0))
    tasks = make_tasks(family, "uniform", "train", num_tasks=2)
    sampler = Sampler(family, tasks, "dense", explore=2)
    rollouts = acted(sampler, policy, replicate(theta, 2)).explored.rollouts
    again = policy.dist(theta, rollouts.observation).log_prob(rollouts.action)
    torch.testing.assert_close(rollouts.log_prob, again)


def test_mean_episodes_have_no_action_noise():
    family = make_family("point")
    policy = policy_for(family)
    theta = policy.init(torch.Generator().manual_seed(0))
    sampler = Sampler(family, tasks_with(family, [(0.5, 0.5)]), "dense", explore=1, mean=1)
    explored, judged = (found.rollouts for found in acted(sampler, policy, replicate(theta, 1)))
    torch.testing.assert_close(judged.action, policy.dist(theta, judged.observation).mean)
    assert not torch.allclose(explored.action, policy.dist(theta, explored.observation).mean)


@pytest.mark.usefixtures("frail_ants")
def test_the_inner_step_ignores_what_follows_an_episodes_end():
    """The gradient is that of the steps until then and of no others."""
    family = make_family("ant")
    policy = policy_for(family)
    theta = policy.init(torch.Generator().manual_seed(0))
    tasks = tasks_with(family, [(0.1,), (1.2,)])
    sampler = Sampler(family, tasks, "dense", explore=6)
    rollouts = acted(sampler, policy, replicate(theta, 2)).explored.rollouts
    alive = rollouts.alive
    assert alive[:, :, 0].all()
    assert len(alive.sum(-1).unique()) > 1
    assert (alive[:, :, 1:] <= alive[:, :, :-1]).all()
    assert (rollouts.reward[~alive] == 0).all()

    spec = AdaptSpec.all_but(theta, "log_std")
    inner, sizes = InnerStep(policy, spec), spec.init_step_sizes(theta, 0.1)
    estimate = torch.func.vmap(Advantage(0.99, 1.0))
    advantage = estimate(rollouts.observation, rollouts.reward, rollouts.alive)
    batch = InnerBatch.of(rollouts, advantage)
    batch = InnerBatch(*(values[0] for values in batch))
    kept = alive[0].flatten()
    cut = InnerBatch(*(values[kept] for values in batch))
    cut = cut._replace(advantage=cut.advantage * kept.float().mean())
    phi, expected = inner(theta, sizes, batch), inner(theta, sizes, cut)
    assert not torch.equal(phi["0.weight"], theta["0.weight"])
    for name, value in expected.items():
        torch.testing.assert_close(phi[name], value)
