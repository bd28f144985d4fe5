"""Exploration by latents: the space, the draws, the step, and what a policy learns by it."""

import numpy as np
import pytest
import torch
from short_run import DEMOS, SHORT, learner_of, options_of, roll_outs

from demokit.envs import make_family
from demokit.envs.tasks import make_tasks
from demokit.types import Task
from gmps.evaluation import evaluate
from gmps.experience.demos import DemoBatch, load_demos
from gmps.experience.sampler import Sampler
from gmps.methods.gmps.critic import Critic
from gmps.methods.gmps.latent import Followed, LatentActor, LatentLearner
from gmps.methods.gmps.latents import (
    LatentBatch,
    LatentSpace,
    LatentStep,
    count_segments,
    latent_surrogate,
    segment_bounds,
)
from gmps.methods.gmps.objective import MetaObjective
from gmps.policies.gaussian import LATENT, GaussianActor, GaussianPolicy, replicate
from gmps.policies.meta_params import MetaParams
from gmps.runs.checkpoint import load


def tasks_at(*contexts):
    return [Task("point", f"t/{i}", context, "train") for i, context in enumerate(contexts)]


LINE = tasks_at(*((float(x), 0.5) for x in range(5)))  # mean 2, standard deviation 1.58


def space(segments=1, temperature=0.25, tasks=LINE):
    return LatentSpace.over(tasks, segments, temperature)


def test_a_step_of_size_one_leads_to_the_weighted_mean():
    theta = {LATENT: torch.tensor([5.0, -3.0]), "other": torch.ones(3)}
    batch = LatentBatch(
        torch.tensor([[0.0, 0.0], [1.0, 2.0], [4.0, 4.0]]), torch.tensor([0.5, 0.25, 0.25])
    )
    phi = LatentStep()(theta, {LATENT: torch.ones(2)}, batch)
    torch.testing.assert_close(phi[LATENT], torch.tensor([1.25, 1.5]))
    assert torch.equal(phi["other"], theta["other"])
    half = LatentStep()(theta, {LATENT: torch.full((2,), 0.5)}, batch)
    torch.testing.assert_close(half[LATENT], torch.tensor([3.125, -0.75]))


def test_the_surrogate_is_the_weighted_negative_log_density():
    rng = torch.Generator().manual_seed(0)
    latent, weight = torch.randn(6, 2, generator=rng), torch.rand(6, generator=rng)
    weight = weight / weight.sum()
    one, other = torch.randn(2, generator=rng), torch.randn(2, generator=rng)

    def negative_log_density(center):
        normal = torch.distributions.Normal(center, 1.0)
        return -(weight * normal.log_prob(latent).sum(-1)).sum()

    torch.testing.assert_close(
        latent_surrogate(one, latent, weight) - latent_surrogate(other, latent, weight),
        negative_log_density(one) - negative_log_density(other),
    )


def test_latents_of_tasks_are_the_standardised_contexts():
    latents = space().tasks
    expected = (np.arange(5) - 2) / np.std(np.arange(5), ddof=1)
    np.testing.assert_allclose(latents[:, 0], expected, rtol=1e-6)
    assert (latents[:, 1] == 0).all()  # all tasks agree: no division by zero
    np.testing.assert_allclose(space().of(LINE[1:3]), latents[1:3])


def test_the_unit_of_a_context_does_not_matter():
    small = tasks_at(*((1e-6 * x, 0.5) for x in range(5)))
    torch.testing.assert_close(space(tasks=small).tasks, space().tasks)


def test_as_many_latents_as_tasks_lie_around_every_one():
    exploration = space()
    drawn = exploration.drawn(5, 0, np.random.default_rng(0).spawn(3))
    assert drawn.shape == (3, 5, 1, 2)
    gap = float(exploration.tasks[1, 0] - exploration.tasks[0, 0])
    for latents in drawn[:, :, 0, 0]:
        # Each is moved by at most half of the way to one of the three nearest.
        off = torch.cdist(latents[:, None], exploration.tasks[:, :1]).min(0).values
        assert (off < 2 * gap).all()
    assert not torch.equal(drawn[0], drawn[1])


def test_fewer_latents_than_tasks_are_spread_over_all_of_them():
    """Two groups of tasks, far apart: two latents, one in the middle of each."""
    groups = tasks_at((0.0, 0.5), (0.5, 0.5), (1.0, 0.5), (10.0, 0.5), (11.0, 0.5))
    exploration = space(tasks=groups)
    drawn = exploration.drawn(2, 0, [np.random.default_rng(0)])[0, :, 0]
    units = exploration.units
    found = drawn[drawn[:, 0].argsort()] * units.scale + units.mean
    torch.testing.assert_close(found, torch.tensor([[0.5, 0.5], [10.5, 0.5]]))


def test_tasks_of_one_context_count_once():
    """Twenty tasks in two directions: half of ten latents are of either, and none is another's."""
    exploration = space(tasks=tasks_at(*[(-1.0, 0.5), (1.0, 0.5)] * 10))
    for rng in np.random.default_rng(0).spawn(5):
        drawn = exploration.drawn(10, 0, [rng])[0, :, 0, 0]
        assert (drawn < 0).sum() == (drawn > 0).sum() == 5
        assert len(drawn.unique()) == 10


def test_later_steps_draw_nearer_and_nearer():
    steps = [space().drawn(2000, n, [np.random.default_rng(7)]) for n in range(4)]
    spread = torch.stack([latents[..., 0].abs().mean() for latents in steps])
    torch.testing.assert_close(spread / spread[0], 1 / torch.arange(1.0, 5.0), atol=0.02, rtol=0)


def test_the_end_of_a_segment_is_what_is_judged():
    exploration = space(segments=2, temperature=0.5)
    reward = torch.zeros(1, 2, 16)
    reward[0, 0, :6] = 1.0  # early in the first segment: on the way, a tenth counts
    reward[0, 1, 6:8] = 1.0  # the last quarter of the first segment
    expected = torch.tensor([[0.1 * 6 / 8, 0.0, 1 + 0.1 * 2 / 8, 0.0]])
    torch.testing.assert_close(exploration.score(reward), expected)


def test_without_critic_the_latents_that_were_paid_best_weigh_most():
    score, latent = torch.tensor([[0.0, 1.0, 5.0]]), torch.randn(1, 3, 2)
    batch = space(temperature=0.5).by_score(latent, score)
    assert torch.equal(batch.latent, latent)
    expected = ((score - score.mean()) / score.std() / 0.5).softmax(1)
    torch.testing.assert_close(batch.weight, expected)


def test_without_differences_no_latent_is_preferred():
    batch = space().by_score(torch.zeros(1, 4, 2), torch.full((1, 4), 3.0))
    torch.testing.assert_close(batch.weight, torch.full((1, 4), 0.25))


def test_what_was_paid_after_an_episodes_end_does_not_count(point_demos):
    """Episode 0 earns nothing before its end, and much after it."""
    options = options_of("gmps-latent", critic=False)
    learner, problem = learner_of(load_demos(point_demos, DEMOS), "gmps-latent", options)
    explored = roll_outs(problem.sampler(problem.tasks[:1], explore=3), learner).explored
    explored.rollouts.reward[:] = torch.tensor([9.0, 1.0, 2.0]).view(1, 3, 1)
    explored.rollouts.alive[0, 0] = False
    weight = learner.shown(explored).weight[0]
    best, nothing, little = (
        weight[i :: len(weight) // 3][0] for i in (2 * len(weight) // 3, 0, len(weight) // 3)
    )
    assert best > little > nothing


def paid(latent, place):
    """Scores that fall with the distance, and are nothing beyond 1."""
    return (1 - (latent - place).norm(dim=-1)).clamp_min(0)


def critic_of(exploration, rounds=30, num=40):
    """A critic that has seen `rounds` of roll-outs paid by `paid`."""
    rngs = np.random.default_rng(0).spawn(len(exploration.tasks))
    critic = Critic.init(torch.Generator().manual_seed(0), 2)
    task = exploration.tasks[:, None].expand(-1, num, -1).flatten(0, 1)
    for _ in range(rounds):
        latent = exploration.drawn(num, 0, rngs)[:, :, 0].flatten(0, 1)
        critic = critic.taught(latent, task, 100 + 7 * paid(latent, task))
    return critic


def test_the_critic_finds_a_goal_between_the_roll_outs():
    """A goal that no roll-out reached: what they were paid says how far away it is."""
    square = tasks_at(*((float(x), float(y)) for x in range(4) for y in range(4)))
    exploration = space(tasks=square)
    critic, origin = critic_of(exploration), torch.tensor([0.5, -0.5])
    rng, goal = np.random.default_rng(1), torch.tensor([0.15, -0.3])
    latent = origin + exploration.drawn(8, 0, [rng])[:, :, 0]
    score = 100 + 7 * paid(latent - origin, goal)
    noise = torch.from_numpy(rng.standard_normal((1, 1000, 2), np.float32))
    found = exploration.by_critic(critic, latent, score, origin, noise)
    by_critic = (found.weight[..., None] * found.latent).sum(1) - origin
    best = exploration.by_score(latent, score)
    by_score = (best.weight[..., None] * best.latent).sum(1) - origin
    assert (by_critic - goal).norm() < 0.2
    assert (by_critic - goal).norm() < 0.5 * (by_score - goal).norm()


def test_scores_without_differences_teach_no_differences():
    exploration = space()
    critic = Critic.init(torch.Generator().manual_seed(0), 2)
    latent = exploration.drawn(8, 0, np.random.default_rng(0).spawn(5))[:, :, 0]
    task = exploration.tasks[:, None].expand_as(latent)
    for _ in range(20):
        critic = critic.taught(latent.flatten(0, 1), task.flatten(0, 1), torch.zeros(40))
    assert critic.predicted(latent, task).abs().max() < 0.1


def test_a_critic_that_learns_is_another_one():
    critic = Critic.init(torch.Generator().manual_seed(0), 2)
    before = {name: value.clone() for name, value in critic.tensors().items()}
    critic.taught(torch.randn(9, 2), torch.randn(9, 2), torch.randn(9))
    assert all(torch.equal(before[name], value) for name, value in critic.tensors().items())


@pytest.mark.parametrize(("arrival", "segments"), [(5, 10), (10, 5), (16, 3), (17, 2), (60, 1)])
def test_as_many_segments_as_the_experts_have_time_for_there_and_back(arrival, segments):
    """Objects that are nine tenths of their way after `arrival` of 100 steps."""
    steps = torch.arange(100) / arrival
    way = torch.where(steps < 1, 0.9 * steps, 1.0)
    place = torch.stack((way, -2 * way), -1).expand(4, -1, -1)
    assert count_segments(place, torch.ones(4, 100, dtype=torch.bool), 100) == segments


def test_where_nothing_moves_an_episode_is_one_segment():
    place, alive = torch.zeros(2, 50, 3), torch.ones(2, 50, dtype=torch.bool)
    assert count_segments(place, alive, 50) == 1


def test_segments_cover_the_episode():
    assert segment_bounds(100, 3) == [0, 33, 67, 100]
    assert segment_bounds(20, 1) == [0, 20]


def test_roll_outs_follow_their_latents():
    """A policy whose action is its latent: the point goes where each segment's latent says."""
    family = make_family("point")
    zeros = torch.zeros(2)
    policy = GaussianPolicy(zeros, zeros + 1, 2, hidden_width=4, bias_transform_width=2)
    theta = {name: torch.zeros_like(v) for name, v in policy.init(torch.Generator()).items()}
    # relu(z) - relu(-z) = z, through both hidden layers.
    theta["0.weight"][2:] = torch.tensor([[1.0, -1, 0, 0], [0, 0, 1, -1]])
    theta["1.weight"] = torch.eye(4)
    theta["2.weight"] = torch.tensor([[1.0, 0], [-1, 0], [0, 1], [0, -1]])
    theta[LATENT] = torch.tensor([0.0, -0.5])
    theta["log_std"] -= 2  # a standard deviation of 0.135
    tasks = make_tasks(family, "uniform", "train", num_tasks=2)
    sampler = Sampler(family, tasks, "dense", explore=2, mean=1)
    latents = torch.tensor([[1.0, 0], [0, 1.0]]).expand(2, 2, 2, 2)  # right, then up
    params = replicate(theta, 2)
    explorer = LatentActor(policy, params, Followed(latents, torch.zeros(0)), [0, 10, 20])
    rngs = sampler.streams(np.random.default_rng(0))
    explored, judged = sampler(explorer, rngs, GaussianActor(policy, params))
    noise = explored.rollouts.action - torch.cat(
        (latents[:, :, :1].expand(-1, -1, 10, -1), latents[:, :, 1:].expand(-1, -1, 10, -1)), 2
    )
    assert noise.abs().max() < 0.135 * 5  # nothing but the noise around the latents
    assert noise.mean().abs() < 0.05
    own = theta[LATENT].expand(2, 1, 20, 2)
    torch.testing.assert_close(judged.rollouts.action, own)
    assert torch.equal(explored.memory.latents, latents)


def test_the_meta_gradient_goes_through_the_latent_step():
    """Against finite differences, for theta and the step size."""
    rng = torch.Generator().manual_seed(0)
    zeros = torch.zeros(3).double()
    policy = GaussianPolicy(zeros, zeros + 1, 2, hidden_width=6, bias_transform_width=2)
    theta = {n: v.double().requires_grad_(True) for n, v in policy.init(rng).items()}
    alpha = {LATENT: torch.tensor([0.8, 1.1]).double().requires_grad_(True)}
    places = torch.randn(3, 2, generator=rng).double()
    batch = LatentBatch(
        torch.randn(3, 5, 2, generator=rng).double(),
        torch.rand(3, 5, generator=rng).double().softmax(1),
    )
    demos = DemoBatch(
        torch.randn(3, 7, 3, generator=rng).double(),
        torch.randn(3, 7, 2, generator=rng).double(),
        torch.zeros(3, 7, 0).double(),
        torch.ones(3, 7).double(),
    )
    step = torch.func.vmap(LatentStep(), in_dims=(None, None, 0))
    objective = MetaObjective(
        policy, lambda meta, shown: step(*meta, shown), "squared", 0.5, places
    )
    names = list(theta)

    def loss(step_size, *values):
        meta = MetaParams(dict(zip(names, values, strict=True)), {LATENT: step_size})
        losses = objective.losses(meta, batch, demos, demos)
        return losses.post + objective.pre_weight * losses.pre

    assert torch.autograd.gradcheck(loss, (alpha[LATENT], *theta.values()))


def test_only_the_latent_adapts(point_demos):
    learner, problem = learner_of(load_demos(point_demos, DEMOS), "gmps-latent")
    assert learner.meta.step_sizes.keys() == {LATENT}
    assert (learner.meta.theta[LATENT] == 0).all()
    assert learner.meta.theta[LATENT].shape == (2,)  # a goal in the plane
    explored = roll_outs(problem.sampler(problem.tasks, explore=3), learner).explored
    belief = learner.begin(len(problem.tasks))
    after = learner.adapt(belief, 0, explored.rollouts, explored.memory)
    moved = {name for name, value in after.items() if not torch.equal(value, belief[name])}
    assert moved == {LATENT}


@pytest.mark.slow
def test_one_step_finds_a_goal_that_pays_only_nearby(tmp_path, invoke):
    demos, folder = tmp_path / "point.hdf5", tmp_path / "latent-0"
    invoke("record", "--env", "point", "--tasks", 10, "--episodes-per-task", DEMOS, "--out", demos)
    options = ("--method", "gmps-latent", "--reward", "sparse", *SHORT, "--rollouts-per-task", 10)
    length = ("--iterations", 12, "--outer-steps", 100, "--outer-lr", 0.01)
    invoke("meta-train", "--demos", demos, "--output-dir", folder, *options, *length)
    trained, _ = load(folder)
    assert isinstance(trained.learner, LatentLearner)
    found = evaluate(trained.learner, trained.problem, trained.problem.tasks, num_steps=1, seed=0)
    before, after = found.mean.success.mean(1)
    assert before < 0.3
    assert after > before + 0.4


def test_no_step_size_is_searched_for(point_demos, tmp_path, invoke):
    folder = tmp_path / "latent-0"
    found = invoke(
        *("meta-train", "--demos", point_demos, "--output-dir", folder),
        *("--method", "gmps-latent", *SHORT),
    )
    assert "step size" not in found.output
    assert not (folder / "step_sizes.csv").exists()
