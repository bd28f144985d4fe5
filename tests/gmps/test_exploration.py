"""Exploration by latents: the space, the draws, the step, and what a policy learns by it."""

import numpy as np
import pytest
import torch
from short_run import DEMOS, SHORT

from demokit.envs import make_family
from demokit.envs.tasks import make_tasks
from demokit.types import Task
from gmps.evaluation import evaluate
from gmps.experience.demos import load_demos
from gmps.experience.sampler import Sampler, replicate
from gmps.methods.gmps.critic import init_critic, learn, predicted
from gmps.methods.gmps.latents import (
    Exploration,
    LatentBatch,
    LatentStep,
    count_segments,
    segment_bounds,
)
from gmps.methods.gmps.objective import Demos, MetaObjective, MetaParams
from gmps.methods.gmps.start import start
from gmps.options import TrainConfig
from gmps.policies.gaussian import LATENT, GaussianPolicy
from gmps.runs.checkpoint import load
from gmps.steps.losses import latent_surrogate


def tasks_at(*contexts):
    return [Task("point", f"t/{i}", context, "train") for i, context in enumerate(contexts)]


LINE = tasks_at(*((float(x), 0.5) for x in range(5)))  # mean 2, standard deviation 1.58


def space(segments=1, temperature=0.25, tasks=LINE):
    return Exploration.over(tasks, segments, temperature)


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


def test_places_are_the_standardised_contexts():
    places = space().places
    expected = (np.arange(5) - 2) / np.std(np.arange(5), ddof=1)
    np.testing.assert_allclose(places[:, 0], expected, rtol=1e-6)
    assert (places[:, 1] == 0).all()  # all tasks agree: no division by zero
    np.testing.assert_allclose(space().of(LINE[1:3]), places[1:3])


def test_as_many_latents_as_tasks_lie_around_every_place():
    exploration = space()
    drawn = exploration.latents(torch.zeros(3, 2), 5, 0, np.random.default_rng(0))
    assert drawn.shape == (3, 5, 1, 2)
    gap = float(exploration.places[1, 0] - exploration.places[0, 0])
    for latents in drawn[:, :, 0, 0]:
        # Each is moved by at most half of the way to one of the three nearest.
        off = torch.cdist(latents[:, None], exploration.places[:, :1]).min(0).values
        assert (off < 2 * gap).all()
    assert not torch.equal(drawn[0], drawn[1])


def test_fewer_latents_than_tasks_are_spread_over_all_of_them():
    """Two groups of tasks, far apart: two latents, one in the middle of each."""
    groups = tasks_at((0.0, 0.5), (0.5, 0.5), (1.0, 0.5), (10.0, 0.5), (11.0, 0.5))
    exploration = space(tasks=groups)
    drawn = exploration.latents(torch.zeros(1, 2), 2, 0, np.random.default_rng(0))[0, :, 0]
    found = drawn[drawn[:, 0].argsort()] * exploration.scale + exploration.mean
    torch.testing.assert_close(found, torch.tensor([[0.5, 0.5], [10.5, 0.5]]))


def test_later_steps_draw_nearer_and_nearer_to_their_center():
    center = torch.tensor([[3.0, -1.0]])
    steps = [space().latents(center, 2000, n, np.random.default_rng(7)) - center for n in range(4)]
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
    learned = start(TrainConfig(explore="latent", critic=False), load_demos(point_demos, DEMOS))
    tasks = learned.tasks[:1]
    sampler = Sampler(learned.family, tasks, learned.reward, explore=3)
    theta, rng = replicate(learned.meta.theta, 1), np.random.default_rng(0)
    rollouts = sampler(learned.policy, theta, rng, learned.latents(theta, 3, 0, rng))
    rollouts.reward[:] = torch.tensor([9.0, 1.0, 2.0]).view(1, 3, 1)
    rollouts.alive[0, 0] = False
    weight = learned.inner_batch(rollouts).weight[0]
    best, nothing, little = (
        weight[i :: len(weight) // 3][0] for i in (2 * len(weight) // 3, 0, len(weight) // 3)
    )
    assert best > little > nothing


def paid(latent, place):
    """Scores that fall with the distance, and are nothing beyond 1."""
    return (1 - (latent - place).norm(dim=-1)).clamp_min(0)


def critic_of(exploration, rounds=30, num=40):
    """Parameters with a critic that has seen `rounds` of roll-outs paid by `paid`."""
    rng, center = np.random.default_rng(0), torch.tensor([0.5, -0.5])
    theta = {LATENT: center, **init_critic(torch.Generator().manual_seed(0), 2)}
    place = exploration.places[:, None].expand(-1, num, -1).flatten(0, 1)
    for _ in range(rounds):
        latent = exploration.latents(exploration.places * 0, num, 0, rng)[:, :, 0].flatten(0, 1)
        learn(theta, latent, place, 100 + 7 * paid(latent, place))
    return theta


def test_the_critic_finds_a_goal_between_the_roll_outs():
    """A goal that no roll-out reached: what they were paid says how far away it is."""
    square = tasks_at(*((float(x), float(y)) for x in range(4) for y in range(4)))
    exploration = space(tasks=square)
    theta = critic_of(exploration)
    rng, goal = np.random.default_rng(1), torch.tensor([0.15, -0.3])
    center = theta[LATENT][None]
    latent = exploration.latents(center, 8, 0, rng)[:, :, 0]
    score = 100 + 7 * paid(latent - center, goal)
    found = exploration.by_critic(theta, latent, score)
    by_critic = (found.weight[..., None] * found.latent).sum(1) - center
    best = exploration.by_score(latent, score)
    by_score = (best.weight[..., None] * best.latent).sum(1) - center
    assert (by_critic - goal).norm() < 0.2
    assert (by_critic - goal).norm() < 0.5 * (by_score - goal).norm()


def test_scores_without_differences_teach_no_differences():
    exploration = space()
    theta = {LATENT: torch.zeros(2), **init_critic(torch.Generator().manual_seed(0), 2)}
    latent = exploration.latents(torch.zeros(5, 2), 8, 0, np.random.default_rng(0))[:, :, 0]
    places = exploration.places[:, None].expand_as(latent)
    for _ in range(20):
        learn(theta, latent.flatten(0, 1), places.flatten(0, 1), torch.zeros(40))
    assert predicted(theta, latent, places).abs().max() < 0.1


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
    found = sampler(policy, replicate(theta, 2), np.random.default_rng(0), latents)
    noise = found.action[:, :2] - torch.cat(
        (latents[:, :, :1].expand(-1, -1, 10, -1), latents[:, :, 1:].expand(-1, -1, 10, -1)), 2
    )
    assert noise.abs().max() < 0.135 * 5  # nothing but the noise around the latents
    assert noise.mean().abs() < 0.05
    torch.testing.assert_close(found.action[:, 2], theta[LATENT].expand(2, 20, 2))
    assert found.latent.shape == (2, 3, 2, 2)
    assert torch.equal(found.latent[:, 2, 0], theta[LATENT].expand(2, 2))


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
    demos = Demos(
        torch.randn(3, 7, 3, generator=rng).double(),
        torch.randn(3, 7, 2, generator=rng).double(),
        torch.zeros(3, 7, 0).double(),
        torch.ones(3, 7).double(),
    )
    objective = MetaObjective(policy, LatentStep(), "squared", 0.5, places)
    names = list(theta)

    def loss(step_size, *values):
        meta = MetaParams(dict(zip(names, values, strict=True)), {LATENT: step_size})
        losses = objective.losses(meta, batch, demos, demos)
        return losses.post + objective.pre_weight * losses.pre

    assert torch.autograd.gradcheck(loss, (alpha[LATENT], *theta.values()))


def test_only_the_latent_adapts(point_demos):
    learned = start(TrainConfig(explore="latent"), load_demos(point_demos, DEMOS))
    assert learned.spec.names == (LATENT,)
    assert learned.meta.step_sizes.keys() == {LATENT}
    assert (learned.meta.theta[LATENT] == 0).all()
    assert learned.meta.theta[LATENT].shape == (2,)  # a goal in the plane


def test_one_step_finds_a_goal_that_pays_only_nearby(tmp_path, invoke):
    demos, folder = tmp_path / "point.hdf5", tmp_path / "latent-0"
    invoke("record", "--env", "point", "--tasks", 10, "--episodes-per-task", DEMOS, "--out", demos)
    options = ("--explore", "latent", "--reward", "sparse", *SHORT, "--rollouts-per-task", 10)
    length = ("--iterations", 8, "--outer-steps", 100, "--outer-lr", 0.01)
    invoke("meta-train", "--demos", demos, "--output-dir", folder, *options, *length)
    learned, _, _ = load(folder)
    assert learned.exploration.segments == load_demos(demos, DEMOS).segments()
    curve = evaluate(learned, learned.tasks, num_steps=1, rollouts_per_task=10, seed=0)
    before, after = curve.mean.success.mean(1)
    assert before < 0.3
    assert after > before + 0.4


def test_the_command_says_what_the_step_is(point_demos, tmp_path, invoke):
    folder = tmp_path / "latent-0"
    found = invoke(
        *("meta-train", "--demos", point_demos, "--output-dir", folder),
        *("--explore", "latent", *SHORT),
    )
    assert "learned" in found.output
    assert not (folder / "step_sizes.csv").exists()
