"""PEARL: the posterior, what learns from what, what is kept of roll-outs, and what it refuses."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from short_run import options_of, roll_outs, trained_in
from torch.distributions import Normal, TanhTransform, TransformedDistribution

import demokit
from demokit.data import open_dataset
from demokit.envs.point import Point
from demokit.envs.tasks import make_tasks
from demokit.errors import DemokitError
from demokit.learning.checkpoint import load_checkpoint, save_checkpoint
from demokit.random import torch_stream
from demokit.types import Task
from gmps.distributed import WHOLE
from gmps.experience.demos import load_demos
from gmps.experience.replay import Episodes, Replay, Steps
from gmps.experience.rollouts import Rollouts
from gmps.loop import train
from gmps.method import find_method
from gmps.methods.pearl.algorithm import Gathering, demonstrated, restored
from gmps.methods.pearl.learner import Squashed
from gmps.methods.pearl.networks import ACTOR, CRITIC, ENCODER, VALUE, named, under
from gmps.methods.pearl.posterior import Evidence, divergence
from gmps.methods.pearl.update import Batch, update
from gmps.problem import Problem, Training
from gmps.runs.checkpoint import Adapted, Trained, load, save
from gmps.runs.folder import Run, read_scalars

TASKS, K, T = 3, 4, 6
NEAR = {"rtol": 1e-4, "atol": 1e-5}


def problem_of(reward="dense", num=TASKS):
    return Problem.in_family(
        Point(), reward, "state", make_tasks(Point(), "uniform", "train")[:num]
    )


def fresh(reward="dense", **changes):
    """A training, and a learner whose encoder and actor have something to say."""
    training = Training(problem_of(reward), options_of("pearl", **changes))
    learner = find_method("pearl").code.start(training)
    rng = torch.Generator().manual_seed(7)
    theta = {
        part: {n: v + 0.3 * torch.randn(v.shape, generator=rng) for n, v in own.items()}
        for part, own in learner.theta.items()
    }
    return training, learner.with_theta(theta)


def rollouts_of(seed=0, length=T):
    """Episodes of each task; the first one of each ends after so many steps."""
    rng = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(TASKS, K, T, *shape, generator=rng)

    lengths = torch.full((TASKS, K, 1), T)
    lengths[:, 0] = length
    alive = torch.arange(T) < lengths
    ended = alive & ~torch.nn.functional.pad(alive[..., 1:], (0, 1), value=True)
    return Rollouts(normal(2), normal(2).tanh(), normal(), normal() * alive, alive, ended)


def test_a_product_of_gaussians_is_the_one_of_their_densities():
    """Against the product of densities, normalised on a grid; and two by hand."""
    mean, variance = torch.tensor([0.5, -1.0, 0.2]), torch.tensor([0.5, 2.0, 1.0])
    found, spread = Evidence.of(mean[:, None], variance[:, None]).gaussian()
    grid = torch.linspace(-8, 8, 20_001, dtype=torch.float64)
    density = Normal(mean.double()[:, None], variance.double().sqrt()[:, None]).log_prob(grid)
    density = density.sum(0).softmax(0)
    assert float(found) == pytest.approx(float((density * grid).sum()), abs=1e-5)
    second = float((density * grid.square()).sum())
    assert float(spread) == pytest.approx(second - float(found) ** 2, abs=1e-5)
    by_hand, its = Evidence.of(
        torch.tensor([[1.0], [4.0]]), torch.tensor([[1.0], [2.0]])
    ).gaussian()
    assert (float(by_hand), float(its)) == pytest.approx((2.0, 2 / 3))


@pytest.mark.parametrize("sees_next", [False, True])
def test_the_posterior_does_not_depend_on_the_order(sees_next):
    """Of transitions, of episodes, and of what comes in one step or in several."""
    _, learner = fresh(next_observations=sees_next)
    whole, nothing = rollouts_of(), learner.begin(TASKS)
    wanted = learner.adapt(nothing, 0, whole, None)
    order = torch.tensor([2, 0, 3, 1])
    names = Rollouts.__dataclass_fields__
    mixed = Rollouts(*(getattr(whole, n)[:, order] for n in names))
    one_by_one = nothing
    for i in order.tolist():
        one_by_one = learner.adapt(one_by_one, i, whole.episodes(slice(i, i + 1)), None)
    for found in (learner.adapt(nothing, 0, mixed, None), one_by_one):
        for value, own in zip(found, wanted, strict=True):
            torch.testing.assert_close(value, own, **NEAR)
    if not sees_next:
        steps = torch.randperm(T, generator=torch.Generator().manual_seed(0))
        mixed = Rollouts(*(getattr(whole, n)[:, :, steps] for n in names))
        for value, own in zip(learner.adapt(nothing, 0, mixed, None), wanted, strict=True):
            torch.testing.assert_close(value, own, **NEAR)


def test_without_context_it_is_the_prior():
    _, learner = fresh()
    mean, variance = learner.begin(TASKS).evidence.gaussian()
    assert torch.equal(mean, torch.zeros(TASKS, 5))
    assert torch.equal(variance, torch.ones(TASKS, 5))
    assert torch.equal(divergence(mean, variance), torch.zeros(TASKS))
    unseen = replace(rollouts_of(), alive=torch.zeros(TASKS, K, T, dtype=torch.bool))
    for value in learner.adapt(learner.begin(TASKS), 0, unseen, None).evidence:
        assert not value.any()


def test_dead_steps_say_nothing():
    _, learner = fresh()
    cut = rollouts_of(length=2)
    noise = replace(cut, observation=cut.observation + 9 * ~cut.alive[..., None])
    one, other = (learner.adapt(learner.begin(TASKS), 0, each, None) for each in (cut, noise))
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    first = Rollouts(*(getattr(cut, n)[:, :1, :2] for n in Rollouts.__dataclass_fields__))
    alone = learner.adapt(learner.begin(TASKS), 0, first, None)
    own = learner.adapt(learner.begin(TASKS), 0, cut.episodes(slice(1)), None)
    assert all(torch.allclose(a, b) for a, b in zip(alone, own, strict=True))
    assert own.episodes.tolist() == [1] * TASKS


def first_task(rollouts):
    return Rollouts(*(getattr(rollouts, n)[:1] for n in Rollouts.__dataclass_fields__))


def test_the_first_episodes_follow_the_prior_and_later_ones_the_posterior():
    """Latents are drawn for every episode; the two first ones know nothing, whatever was seen."""
    _, learner = fresh()
    seen = learner.adapt(learner.begin(TASKS), 0, rollouts_of(), None)
    mean, variance = seen.evidence.gaussian()

    def drawn(before, num=1):
        rngs = [np.random.default_rng(i) for i in range(TASKS)]
        noise = [
            np.random.default_rng(i).standard_normal((num, 5), np.float32) for i in range(TASKS)
        ]
        known = seen._replace(episodes=torch.full((TASKS,), before))
        return learner.explorer(known, 0, num, rngs)._latent, torch.from_numpy(np.stack(noise))

    for before in (0, 1):
        latent, noise = drawn(before)
        assert torch.equal(latent, noise)
    latent, noise = drawn(2)
    torch.testing.assert_close(latent, mean[:, None] + variance.sqrt()[:, None] * noise)
    latent, noise = drawn(0, num=3)  # the third of three episodes at once
    assert torch.equal(latent[:, :2], noise[:, :2])
    torch.testing.assert_close(latent[:, 2], mean + variance.sqrt() * noise[:, 2])
    assert torch.equal(learner.exploiter(seen, 2)._latent, mean[:, None].expand(-1, 2, -1))


def test_episodes_are_counted_whatever_the_steps_that_took_them():
    """Four in the first step: one more in the second follows the posterior."""
    _, learner = fresh()
    seen = learner.adapt(learner.begin(1), 0, first_task(rollouts_of()), None)
    (latent,) = learner.explorer(seen, 1, 1, [np.random.default_rng(0)])._latent[0]
    mean, variance = seen.evidence.gaussian()
    noise = torch.from_numpy(np.random.default_rng(0).standard_normal(5, np.float32))
    torch.testing.assert_close(latent, mean[0] + variance[0].sqrt() * noise)


def test_a_kept_belief_of_before_has_as_many_episodes_as_its_file_says(tmp_path):
    training, learner = fresh()
    belief = learner.adapt(learner.begin(1), 0, first_task(rollouts_of()), None)
    adapted = Adapted(belief, steps=1, episodes=K)
    path = tmp_path / "kept.safetensors"
    trained = Trained("pearl", training.options, training.problem, learner, adapted=adapted)
    save(path, trained, {})
    tensors, header = load_checkpoint(path)
    assert tensors.pop("belief.episodes").tolist() == [K]
    save_checkpoint(path, tensors, header)
    found = load(path, adapted=True)[0].adapted.belief
    assert all(torch.equal(a, b) for a, b in zip(found, belief, strict=True))


def test_what_explores_on_a_new_task_acts_by_its_mean():
    training, learner = fresh()
    sampler = training.sampler(explore=2, mean=1)
    explored = roll_outs(sampler, learner).explored.rollouts
    assert not explored.log_prob.any()
    assert float(explored.action.abs().max()) <= 1


def test_densities_are_those_of_a_squashed_gaussian():
    mean, log_std, noise = (
        torch.randn(3, 2, generator=torch.Generator().manual_seed(i)) for i in range(3)
    )
    dist = Squashed(mean.double(), log_std.double() - 1)
    action = dist.sample(noise.double())
    peer = TransformedDistribution(Normal(dist.mean, dist.log_std.exp()), [TanhTransform()])
    torch.testing.assert_close(dist.log_prob(action), peer.log_prob(action).sum(-1))
    assert bool(dist.log_prob(torch.ones_like(action)).isfinite().all())


def learning_of(**changes):
    """What learns, with outputs that differ, and a batch of roll-outs of two kinds of episodes."""
    training, learner = fresh(batch=8, context=5, meta_batch=4, **changes)
    replay, learning = restored(training, learner, {})
    gather = Gathering(training, replay, np.random.default_rng(0))
    gather(learner, range(TASKS), 2, of_prior=True)
    rng = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for own in (learning.parts[CRITIC], learning.parts[VALUE], learning.slow):
            for value in own.values():
                value += 0.2 * torch.randn(value.shape, generator=rng)
    draws = torch_stream(0, "draws")
    batch = Batch.drawn(replay, learning.nets, training.options, draws, WHOLE)
    ended = torch.rand(batch.steps.ended.shape, generator=rng) < 0.3
    return learning, batch._replace(steps=batch.steps._replace(ended=ended)), training.options


def by_hand(learning, batch, options):
    """What critics and encoder learn from, task by task."""
    nets, parts, found = learning.nets, learning.parts, []
    num = len(batch.latent_noise)
    for i in range(num):
        context, steps = (Steps(*(v[i] for v in part)) for part in batch[:2])
        mean, variance = nets.evidence(parts[ENCODER], *context[:4]).gaussian()
        kl = (
            variance / 2 - Normal(0.0, 1.0).log_prob(mean) - Normal(mean, variance.sqrt()).entropy()
        )
        z = mean + variance.sqrt() * batch.latent_noise[i]
        behind = nets.value(learning.slow, under(z, steps.next_observation)).detach()
        wanted = options.reward_scale * steps.paid + options.discount * behind * ~steps.ended
        states = under(z, steps.observation)
        critics = nets.critic(parts[CRITIC], states, steps.action)
        error = sum((q - wanted).square().mean() for q in critics) / num
        found.append(error + options.kl_weight * kl.sum())
    return sum(found)


def test_the_encoder_learns_from_critics_and_divergence_alone():
    """Its gradient after a step is theirs: nothing of actor and state values has been added."""
    learning, batch, options = learning_of()
    leaves = {n: v for n, v in named(learning.parts).items() if n.startswith((ENCODER, CRITIC))}
    wanted = torch.autograd.grad(by_hand(learning, batch, options), list(leaves.values()))
    update(learning, batch, options, WHOLE)
    for (name, leaf), own in zip(leaves.items(), wanted, strict=True):
        torch.testing.assert_close(leaf.grad, own, **NEAR, msg=name)
        assert float(own.abs().max()) > 0


def test_actor_and_state_values_learn_by_the_updated_critics():
    """Their gradients are those of the equations, with the latent and the critics fixed."""
    learning, batch, options = learning_of()
    nets, steps = learning.nets, batch.steps
    with torch.no_grad():
        mean, variance = nets.evidence(learning.parts[ENCODER], *batch.context[:4]).gaussian()
        states = under(mean + variance.sqrt() * batch.latent_noise, steps.observation)
    leaves = {n: v for n, v in named(learning.parts).items() if n.startswith((ACTOR, VALUE))}
    before = {n: v.detach().clone().requires_grad_() for n, v in leaves.items()}
    update(learning, batch, options, WHOLE)
    theta = {n.removeprefix("actor."): v for n, v in before.items() if n.startswith(ACTOR)}
    psi = {n.removeprefix("value."): v for n, v in before.items() if n.startswith(VALUE)}
    mean, log_std = nets.actor(theta, states)
    u = mean + log_std.exp() * batch.action_noise
    action = u.tanh()
    slope = TanhTransform().log_abs_det_jacobian(u, action)
    log_prob = (Normal(mean, log_std.exp()).log_prob(u) - slope).sum(-1)
    worth = nets.critic(learning.parts[CRITIC], states, action).amin(0) - log_prob
    small = mean.square().mean() + log_std.square().mean()
    loss = options.output_weight * small - worth.mean()
    loss = loss + 0.5 * (nets.value(psi, states) - worth.detach()).square().mean()
    wanted = torch.autograd.grad(loss, list(before.values()))
    for (name, leaf), own in zip(leaves.items(), wanted, strict=True):
        torch.testing.assert_close(leaf.grad, own, rtol=1e-3, atol=1e-5, msg=name)


def test_state_values_are_followed_slowly():
    learning, batch, options = learning_of(tau=0.25)
    before = {n: v.clone() for n, v in learning.slow.items()}
    update(learning, batch, options, WHOLE)
    for n, value in learning.slow.items():
        torch.testing.assert_close(
            value, 0.75 * before[n] + 0.25 * learning.parts[VALUE][n].detach()
        )


def episodes_of(*marks, lengths=None):
    """Episodes of TASKS tasks in which everything says task, episode and step."""
    lengths = lengths or [T] * len(marks)
    shape = TASKS, len(marks)
    task = 100 * torch.arange(TASKS)[:, None, None]
    at = task + 10 * torch.tensor(marks)[:, None] + torch.arange(T + 1)
    step = at[..., :T].float()
    return Episodes(
        at[..., None].float(),
        step[..., None],
        step,
        -step,
        torch.tensor(lengths).expand(shape),
        (torch.tensor(lengths) < T).expand(shape),
    )


def met_in(replay, kind="transitions", tasks=(0, 2)):
    """What is drawn where every step is drawn once, by even chances: a set of each task."""
    steps = [
        int((replay.kept.length * (replay.is_context | (kind != "contexts")))[i].sum())
        for i in tasks
    ]
    assert len(set(steps)) == 1
    chances = (torch.arange(steps[0], dtype=torch.float64) + 0.5) / steps[0]
    found = getattr(replay, kind)(torch.tensor(tasks), chances.expand(len(tasks), -1))
    return found, [sorted(row) for row in found.reward.int().tolist()]


def test_every_step_that_counts_is_as_likely_as_any_other():
    replay = Replay.empty(TASKS, 5, T, 1, 1)
    replay.add(torch.arange(TASKS), episodes_of(1, 2, lengths=[3, T]), as_context=True)
    found, steps = met_in(replay)
    assert steps[1] == [210, 211, 212, *range(220, 220 + T)]
    assert torch.equal(found.observation[..., 0], found.reward)
    assert torch.equal(found.next_observation[..., 0], found.reward + 1)  # the last step's, too
    assert torch.equal(found.paid, -found.reward)
    assert found.reward[found.ended].tolist() == [12.0, 212.0]  # by itself; no time limit is an end


def test_the_newest_episodes_are_kept():
    replay = Replay.empty(TASKS, 3, T, 1, 1)
    size = replay.num_bytes
    every = torch.arange(TASKS)
    for mark in (1, 3, 5):
        replay.add(every, episodes_of(mark, mark + 1), as_context=False)
    assert met_in(replay)[1][0] == [*range(40, 40 + T), *range(50, 50 + T), *range(60, 60 + T)]
    assert replay.num_bytes == size == TASKS * 3 * (4 * (T + 1) + 12 * T + 8 + 1 + 1) + 8 * TASKS


def test_contexts_are_what_was_gathered_last_as_such():
    """The buffer of contexts is emptied when its task is gathered again, that of all is not."""
    replay = Replay.empty(TASKS, 8, T, 1, 1)
    every, some = torch.arange(TASKS), torch.tensor([0, 2])
    replay.add(every, episodes_of(1, 2), as_context=True)
    replay.forget_contexts(some)
    own = Episodes(*(v[some] for v in episodes_of(3)))
    replay.add(some, own, as_context=True)
    replay.add(some, Episodes(*(v[some] for v in episodes_of(4))), as_context=False)
    assert met_in(replay, "contexts")[1] == [list(range(30, 30 + T)), list(range(230, 230 + T))]
    assert len(met_in(replay)[1][0]) == 4 * T
    assert met_in(replay, "contexts", (1, 1))[1][0] == [*range(110, 110 + T), *range(120, 120 + T)]


def test_what_is_kept_goes_through_a_file():
    replay = Replay.empty(TASKS, 5, T, 1, 1)
    replay.add(torch.arange(TASKS), episodes_of(1, 2, lengths=[3, T]), as_context=True)
    said = replay.tensors()
    assert said["observation"].shape == (TASKS, 2, T + 1, 1)
    assert all(v.data_ptr() == replay._all()[n].data_ptr() for n, v in said.items())  # no copies
    again = Replay.empty(TASKS, 5, T, 1, 1).filled(said)
    assert all(torch.equal(v, again._all()[n]) for n, v in replay._all().items())
    bad = {
        "length": said["length"] + T,
        "is_context": said["is_context"] & False,
        "count": said["count"] - 2,
        "reward": said["reward"].double(),
    }
    for name, value in bad.items():
        with pytest.raises(DemokitError, match="is damaged"):
            Replay.empty(TASKS, 5, T, 1, 1).filled({**said, name: value})


@pytest.mark.parametrize("reward", ["dense", "sparse"])
def test_gathering_keeps_what_was_met(reward):
    """Observations in a row, the last ones among them, and what critics are paid."""
    training, learner = fresh(reward, **({"critic_reward": "dense"} if reward == "sparse" else {}))
    replay, _ = restored(training, learner, {})
    gather = Gathering(training, replay, np.random.default_rng(0))
    gather(learner, range(TASKS), 2, of_prior=True)
    returned = gather(learner, [0, 2], 3, of_prior=False)
    assert replay.count.tolist() == [5, 2, 5]
    assert replay.is_context.sum(1).tolist() == [2, 2, 2]
    kept, steps = replay.kept, Point.horizon
    assert gather.env_steps == (TASKS * 2 + 2 * 3) * steps
    assert returned == pytest.approx(float(kept.reward[[0, 2], 2:5].sum(-1).mean()), rel=1e-5)
    moved = (kept.observation[:, :2, 1:] - kept.observation[:, :2, :-1]) - 0.1 * kept.action[:, :2]
    assert float(moved.abs().max()) < 0.03  # a step is 0.1 m
    goals = torch.tensor([task.context for task in training.problem.tasks])[:, None, None]
    away = (kept.observation[:, :2, 1:] - goals).norm(dim=-1)
    torch.testing.assert_close(kept.paid[:, :2], -away, rtol=1e-4, atol=1e-4)
    wanted = -away if reward == "dense" else (1 - away / 0.5).clamp_min(0)
    torch.testing.assert_close(kept.reward[:, :2], wanted, rtol=1e-4, atol=1e-4)


def test_demonstrations_are_kept_beside_roll_outs(point_demos):
    """Whole, with what they would have been paid; contexts are never drawn from them."""
    demos = load_demos(point_demos, 2, "sparse")
    options = options_of("pearl", warm_start=True, critic_reward="dense", initial_rollouts=1)
    training = Training(Problem.of(demos), options, demos)
    code = find_method("pearl").code
    found = demonstrated(training)
    with open_dataset(point_demos) as dataset:
        episodes = sorted(dataset, key=lambda episode: episode.task.id)
    for i, episode in enumerate(episodes):
        at, length = divmod(i, 2), len(episode)
        assert int(found.length[at]) == length
        kept = found.observation[at][: length + 1].numpy(), found.action[at][:length].numpy()
        assert np.array_equal(kept[0], episode.observations)
        assert np.array_equal(kept[1], episode.actions)
        for name, values in (("sparse", found.reward), ("dense", found.paid)):
            paid = episode.privileged[f"reward_{name}"][1:]
            np.testing.assert_allclose(values[at][:length], paid, rtol=1e-6, atol=1e-6)
    state = next(code.train(training, code.start(training), {}, 0)).state
    assert state["replay.count"].min() >= 2 + 1
    assert torch.equal(state["replay.action"][:, :2], found.action)
    assert not state["replay.is_context"][:, :2].any()


def test_a_warm_start_needs_demonstrations(tmp_path, invoke):
    asked = ("meta-train", "--method", "pearl", "--env", "point", "--warm-start")
    said = invoke(*asked, "--output-dir", tmp_path / "run", exit_code=1).output
    assert "Missing option --demos, for so pearl learns from demonstrations" in said


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"buffer_rollouts": 4},
            "Option buffer_rollouts: 5 roll-outs of a task are gathered at once",
        ),
        ({"posterior_rollouts": 0, "posterior_contexts": True}, "no effect without --posterior-"),
        ({"demos_per_task": 2}, "Option --demos-per-task has no effect without --warm-start"),
        ({"critic_reward": "much"}, "Option critic_reward: 'much' is none of"),
        ({"tau": 1.5}, "Option tau: at most 1"),
    ],
)
def test_options_that_cannot_be(changes, said):
    with pytest.raises(DemokitError, match=said):
        options_of("pearl", **changes)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--env", "push", "--observation", "vision"), "acts from states, not from images"),
        (("--env", "point", "--tasks", "1"), "has one training task, and pearl learns from what"),
        (("--env", "point", "--critic-reward", "dense"), "the encoder sees the dense reward, too"),
        (
            ("--env", "point", "--critic-reward", "sparse-paper"),
            "Unknown reward of point 'sparse-paper'",
        ),
    ],
)
def test_wrong_input_is_one_sentence(args, said, tmp_path, invoke):
    asked = ("meta-train", "--method", "pearl", *args, "--output-dir", tmp_path / "run")
    assert said in invoke(*asked, exit_code=1).output


def test_rewards_that_are_no_numbers_are_one_sentence(tmp_path, invoke, monkeypatch):
    monkeypatch.setattr(Point, "reward", lambda *given: np.full(len(given[3]), np.nan))
    asked = ("meta-train", "--method", "pearl", "--env", "point", "--output-dir", tmp_path / "run")
    said = invoke(*asked, exit_code=1).output
    assert "its dense reward is nan, and only finite numbers" in said


def test_tables_say_which_reward_critics_were_told(point_demos, tmp_path, invoke):
    asked = ("--demos", point_demos, "--reward", "sparse", "--critic-reward", "dense")
    short = ("--iterations", "1", "--gradient-steps", "2", "--threads", "1")
    invoke("meta-train", "--method", "pearl", *asked, *short, "--output-dir", tmp_path / "pearl-0")
    small = ("--num-tasks", 2, "--adapt-steps", 1, "--output-dir", tmp_path / "c")
    shown = invoke("evaluate", tmp_path / "pearl-0", *small).output
    assert "rewards of roll-outs; its critics the dense reward" in " ".join(shown.split())


def test_a_checkpoint_of_another_shape_is_one_sentence(point_demos, tmp_path):
    trained_in(tmp_path, load_demos(point_demos, 2), "pearl", options_of("pearl", iterations=1))
    path = tmp_path / "checkpoint.safetensors"
    tensors, header = load_checkpoint(path)
    name = "learner.encoder.0.weight"
    save_checkpoint(path, {**tensors, name: tensors[name].mT}, header)
    with pytest.raises(DemokitError, match="its parameters are not those of its configuration"):
        demokit.load_policy(path)


def test_an_adapted_policy_is_kept_and_goes_on(point_demos, tmp_path):
    """What is known of a task, in a file and back: the same actions."""
    trained_in(
        tmp_path / "run", load_demos(point_demos, 2), "pearl", options_of("pearl", iterations=1)
    )
    agent = demokit.load_policy(tmp_path / "run")
    trial = agent.new_task(steps=2, rollouts=1)
    while trial.gathering:
        trial.act(np.zeros(2))
        trial.record(1.0, terminated=trial.episode == 0)
    adapted = trial.adapted()
    adapted.save(tmp_path / "adapted.safetensors")
    again, seen = demokit.load_policy(tmp_path / "adapted.safetensors"), np.array([0.2, -0.1])
    np.testing.assert_array_equal(again.act(seen), adapted.act(seen))
    assert not np.array_equal(agent.act(seen), adapted.act(seen))
    tensors, header = load_checkpoint(tmp_path / "adapted.safetensors")
    for bad in (torch.full((1, 5), -1.0), torch.zeros(1, 4)):
        save_checkpoint(tmp_path / "bad.safetensors", {**tensors, "belief.precision": bad}, header)
        with pytest.raises(DemokitError, match="another version of demokit or by hand"):
            demokit.load_policy(tmp_path / "bad.safetensors")


@pytest.mark.slow
def test_it_learns_which_way_pays(tmp_path, monkeypatch):
    """Two tasks, told apart by what is paid only: right or left."""
    tasks = tuple(Task("point", f"t/{x}", (x, 0.0), "train") for x in (-1.0, 1.0))
    monkeypatch.setattr(
        Point,
        "reward",
        lambda _, kind, terms, *others: np.sign(others[0][:, 0]) * terms["point_pos_w_m"][:, 0],
    )
    problem = Problem.in_family(Point(), "dense", "state", tasks)
    short = {"iterations": 8, "gradient_steps": 100, "eval_every": 8, "threads": 1, "meta_batch": 4}
    fast = {"outer_lr": 3e-3, "discount": 0.9, "reward_scale": 20.0, "tau": 0.02}
    options = find_method("pearl").options(**short, **fast)
    run = Run(tmp_path / "run", "pearl", options, "tasks")
    try:
        train(run, problem)
    finally:
        run.close()
    rows = read_scalars(tmp_path / "run" / "metrics.csv")
    assert rows[-1]["return_after"] > max(rows[-1]["return_before"] + 5, 8)
    assert load(tmp_path / "run")[0].finished
