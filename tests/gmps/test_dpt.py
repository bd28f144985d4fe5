"""The decision-pretrained transformer: what reads what, what contexts hold, what is asked."""

import numpy as np
import pytest
import torch
from short_run import DEMOS, NUM_TASKS, learner_of, options_of, trained_in

import demokit
from demokit.envs.tasks import make_tasks
from demokit.errors import DemokitError
from demokit.experts import load_expert
from demokit.learning.checkpoint import load_checkpoint, save_checkpoint
from demokit.random import stream
from gmps.evaluation import evaluate
from gmps.experience.actor import Seen
from gmps.experience.demos import load_demos
from gmps.experience.rollouts import Rollouts
from gmps.experience.transitions import Transitions, flat, joined, met_in, newest, none_met
from gmps.method import find_method
from gmps.methods.dpt.algorithm import Shown, drawn
from gmps.methods.dpt.gathering import Asked, Gathering
from gmps.methods.dpt.learner import ContextLearner
from gmps.methods.dpt.policy import ContextPolicy, Units
from gmps.policies.meta_params import MetaParams
from gmps.policies.transformer import Transformer
from gmps.problem import Problem, Training
from gmps.runs.checkpoint import load

B, N, Q, T, A = 3, 11, 5, 12, 2
SEEN = 2
NEAR = {"rtol": 1e-4, "atol": 1e-5}


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def policy():
    units = Units(
        normal(SEEN), 1 + normal(SEEN).abs(), torch.full((SEEN,), 0.5), torch.tensor([0.3, 2.0])
    )
    return ContextPolicy(Transformer(16, 3, 2), units, A)


@pytest.fixture
def theta(policy):
    """Parameters all of which have something to say."""
    fresh = policy.init(torch.Generator().manual_seed(1))
    return {n: v + 0.2 * normal(*v.shape, seed=i) for i, (n, v) in enumerate(fresh.items())}


def context_of(seed=0, num=N, met=None):
    weight = torch.ones(B, num) if met is None else met.float()
    parts = normal(B, num, SEEN, seed=seed), normal(B, num, A, seed=seed + 1)
    after, reward = normal(B, num, SEEN, seed=seed + 3), normal(B, num, seed=seed + 2)
    return Transitions(*parts, after, reward, weight)


def test_a_query_sees_what_stands_before_it_and_nothing_else(policy, theta):
    context, other, seen = context_of(), context_of(seed=50), normal(B, Q, SEEN, seed=9)
    for place in (0, 4, N):
        places = torch.full((B, Q), place)
        found = policy.unroll(theta, context, seen, places)
        later = Transitions(
            *(
                torch.cat((v[:, :place], w[:, place:]), 1)
                for v, w in zip(context, other, strict=True)
            )
        )
        torch.testing.assert_close(policy.unroll(theta, later, seen, places), found, **NEAR)
        for t in range(place):
            changed = context._replace(reward=context.reward.clone())
            changed.reward[:, t] += 3
            assert not torch.allclose(policy.unroll(theta, changed, seen, places), found, **NEAR)


def test_queries_do_not_see_each_other(policy, theta):
    context, seen = context_of(), normal(B, Q, SEEN, seed=9)
    place = torch.randint(N + 1, (B, Q), generator=torch.Generator().manual_seed(0))
    together = policy.unroll(theta, context, seen, place)
    for q in range(Q):
        alone = policy.unroll(theta, context, seen[:, [q]], place[:, [q]])
        torch.testing.assert_close(alone[:, 0], together[:, q], **NEAR)


def test_an_empty_context_is_one_of_which_nothing_is_read(policy, theta):
    seen, nowhere = normal(B, Q, SEEN, seed=9), torch.zeros(B, Q, dtype=torch.long)
    empty = none_met((B, 0), SEEN, A)
    found = policy.unroll(theta, empty, seen, nowhere)
    assert bool(found.isfinite().all())
    torch.testing.assert_close(policy.unroll(theta, context_of(), seen, nowhere), found, **NEAR)
    assert not torch.allclose(found[:, 0], found[:, 1])


def test_what_was_not_met_is_as_if_it_were_not_there(policy, theta):
    met = torch.ones(B, N, dtype=torch.bool)
    met[:, 3], met[:, 7:9] = False, False
    context, seen = context_of(met=met), normal(B, Q, SEEN, seed=9)
    places = torch.full((B, Q), N)
    without = Transitions(*(v[:, met[0]] for v in context))
    fewer = torch.full((B, Q), int(met[0].sum()))
    wanted = policy.unroll(theta, without, seen, fewer)
    torch.testing.assert_close(policy.unroll(theta, context, seen, places), wanted, **NEAR)
    noise = context._replace(reward=torch.where(met, context.reward, torch.full((), 1e6)))
    torch.testing.assert_close(policy.unroll(theta, noise, seen, places), wanted, **NEAR)


def test_every_parameter_learns(policy, theta):
    leaves = {name: value.requires_grad_() for name, value in theta.items()}
    place = torch.arange(Q).expand(B, Q) * 2
    policy.unroll(leaves, context_of(), normal(B, Q, SEEN, seed=9), place).square().sum().backward()
    assert all(value.grad.abs().max() > 1e-4 for value in leaves.values())


# Acting


@pytest.mark.parametrize(("paid", "unit"), [([0, 0, 0], (0, 1)), ([0, 0, 6], (2, 12**0.5))])
def test_rewards_keep_their_unit_until_they_differ(policy, theta, paid, unit):
    learner = learner_with(policy, theta).with_rewards(torch.tensor(paid).double())
    torch.testing.assert_close(learner.policy.units.reward, torch.tensor(unit).double())


def rollouts_of(seed, lengths):
    """An episode of each task, which ends after so many steps."""
    alive = torch.arange(T) < torch.tensor(lengths)[:, None, None]
    shape = len(lengths), 1, T
    parts = normal(*shape, SEEN, seed=seed), normal(*shape, A, seed=seed + 1)
    reward = normal(*shape, seed=seed + 2) * alive
    return Rollouts(*parts, normal(*shape), reward, alive, torch.zeros_like(alive))


def learner_with(policy, theta, **changes):
    return ContextLearner(policy, MetaParams(theta, {}), T, options_of("dpt", **changes))


@pytest.mark.parametrize("transitions", [25, 4])
def test_acting_step_by_step_is_one_unroll(policy, theta, transitions):
    """Through episodes that end early, and all or every third of their transitions."""
    changes = {"context_transitions": transitions, "context_episodes": 2}
    learner = learner_with(policy, theta, **changes)
    assert learner.stride == (1 if transitions == 25 else 3)
    belief, met = learner.begin(B), none_met((B, 0), SEEN, A)
    for step, lengths in enumerate(((T, 4, T), (T, 2, 3), (5, T, T), (T, T, T))):
        own = rollouts_of(10 * step, lengths)
        actor = learner.explorer(belief, step, 1, [])
        memory, action, reward = actor.memory, torch.zeros(B, 1, A), torch.zeros(B, 1)
        means = []
        for t in range(T):
            seen = Seen(t, own.observation[:, :, t], action, reward, own.alive[:, :, t])
            dist, memory = actor(memory, seen)
            means.append(dist.mean[:, 0])
            action, reward = own.action[:, :, t], own.reward[:, :, t]
        whole = joined(met, flat(met_in(own, learner.stride)))
        before = met.weight.shape[1]
        steps = torch.arange(T).expand(B, T)
        places = before + (steps + learner.stride - 1) // learner.stride
        found = policy.unroll(theta, whole, own.observation[:, 0], places)
        alive = own.alive[:, 0]
        torch.testing.assert_close(torch.stack(means, 1)[alive], found[alive], **NEAR)
        belief = learner.adapt(belief, step, own, memory)
        met = newest(whole, 2 * learner.places)
        assert all(torch.equal(v, w) for v, w in zip(belief, met, strict=True))


def test_a_context_holds_transitions_as_they_were_executed():
    own = rollouts_of(0, (T, 4, T))
    found = met_in(own, 5)
    assert found.reward.shape == (B, 1, 3)
    met = torch.tensor([[True] * 3, [True, False, False], [True] * 3])[:, None]
    assert torch.equal(found.counts, met)
    assert torch.equal(found.before, own.observation[:, :, [0, 5, 10]] * met[..., None])
    assert torch.equal(found.after, own.observation[:, :, [1, 6, 11]] * met[..., None])
    assert torch.equal(found.action, own.action[:, :, [0, 5, 10]].clamp(-1, 1) * met[..., None])
    assert torch.equal(found.reward, own.reward[:, :, [0, 5, 10]] * met)


def test_several_episodes_of_a_task_share_what_is_known(policy, theta):
    """Each reads its own way beside it; what is known stays as it was."""
    learner = learner_with(policy, theta)
    belief = learner.adapt(learner.begin(B), 0, rollouts_of(0, (T,) * B), None)
    copies = [value.clone() for value in belief]
    seen = normal(B, 4, T, SEEN, seed=3)
    means = []
    for chosen in (slice(4), slice(1, 2)):
        num = len(range(4)[chosen])
        actor = learner.exploiter(belief, num)
        memory = actor.memory
        for t in range(T):
            zeros = torch.zeros(B, num, A)
            now = Seen(t, seen[:, chosen, t], zeros, zeros[..., 0], torch.ones(B, num).bool())
            dist, memory = actor(memory, now)
        means.append(dist.mean)
    torch.testing.assert_close(means[0][:, 1], means[1][:, 0], **NEAR)
    assert all(torch.equal(v, w) for v, w in zip(belief, copies, strict=True))


def test_behind_the_horizon_it_acts_on(point_demos, tmp_path):
    trained_in(tmp_path, load_demos(point_demos, DEMOS), "dpt", options_of("dpt", iterations=1))
    agent = demokit.load_policy(tmp_path)
    acted = [agent.act(np.zeros(2), reward=0.1) for _ in range(agent.horizon + 5)]
    assert np.isfinite(acted).all()
    told = agent.act(np.zeros(2), reward=0.1)
    agent.reset()
    assert not np.array_equal(agent.act(np.zeros(2)), told)  # what it was paid counts


# Training


@pytest.fixture(scope="module")
def demos(point_demos):
    return load_demos(point_demos, DEMOS)


def training_of(demos, **changes):
    return Training(Problem.of(demos), options_of("dpt", **changes), demos)


def test_a_lesson_is_of_one_task_a_row(demos):
    """States, labels and contexts are all of the task that a row is about."""
    training = training_of(demos, batch=40, queries=30, context_episodes=2)
    episodes, transitions = 4, 6
    number = torch.arange(NUM_TASKS).float()[:, None, None].expand(-1, episodes, transitions)
    place = torch.arange(transitions).expand(NUM_TASKS, episodes, transitions)
    state = number[..., None].expand(*number.shape, SEEN)
    met = Transitions(
        state, state, place[..., None].expand_as(state), number, torch.ones(number.shape)
    )
    asked = Asked(*(values[:, :0] for values in (state, state, number >= 0)))
    shown = Shown.of(training, asked)
    lesson = drawn(met, shown, stream(0, "lesson"), training.options)
    task = lesson.context.reward[:, 0].long()
    assert torch.equal(lesson.context.reward.long(), task[:, None].expand(-1, 18))
    assert torch.equal(lesson.context.after[0, :, 0].long(), torch.arange(6).repeat(3))
    assert sorted(task.unique().tolist()) == list(range(NUM_TASKS))
    assert (int(lesson.place.min()), int(lesson.place.max())) == (0, 18)
    everything = demos.all()
    for row in range(40):
        known = torch.cat((everything.observation, everything.action), -1)[task[row]]
        queries = torch.cat((lesson.seen[row], lesson.label[row]), -1)
        assert _apart(queries, known) < 1e-6


def _apart(rows, known):
    """How far the farthest of some rows is from the nearest that are known."""
    exactly = "donot_use_mm_for_euclid_dist"
    return float(torch.cdist(rows, known, compute_mode=exactly).amin(1).max())


def test_replays_are_demonstrations_of_any_task_and_are_counted(demos):
    training = training_of(demos, replays=5, exploring_std=1e-9)
    gathering = Gathering(training)
    found = gathering.replays(stream(0, "replays"))
    assert gathering.num_steps == NUM_TASKS * 5 * 20
    assert found.met.action.shape == (NUM_TASKS, 5, 19, 2)
    assert found.asked.action.shape == (NUM_TASKS, 0, 20, 2)
    known = demos.executed.flatten(0, 1)[:, :19].clamp(-1, 1).flatten(1)
    done = found.met.action.flatten(2).flatten(0, 1)
    assert _apart(done, known) < 1e-5
    assert len(torch.cdist(done, known).argmin(1).unique()) > DEMOS  # not those of one task


def test_the_expert_says_what_it_does_in_the_states_of_roll_outs(demos):
    training = training_of(demos, dagger=True, context_episodes=2)
    learner, _ = learner_of(demos, "dpt", training.options)
    gathering = Gathering(training)
    found, returns = gathering.trials(learner, stream(0, "trials"))
    assert (len(returns), gathering.num_steps) == (3, NUM_TASKS * 3 * 20)
    assert found.asked.action.shape == (NUM_TASKS, 3, 20, 2)
    torch.testing.assert_close(found.asked.observation[:, :, :19], found.met.before)
    expert = load_expert("scripted", "point")
    for task, of_task in enumerate(training.problem.tasks):
        seen = found.asked.observation[task].flatten(0, 1).double().numpy()
        told = {"point_pos_w_m": seen, "context": np.tile(of_task.context, (len(seen), 1))}
        wanted = torch.from_numpy(np.asarray(expert.act(seen, told), np.float32))
        said = found.asked.action[task].flatten(0, 1)
        torch.testing.assert_close(said, wanted, atol=1e-4, rtol=1e-4)


def test_half_of_the_queries_are_states_that_were_asked_about(demos):
    training = training_of(demos)
    seven = torch.full((NUM_TASKS, 1, 3, SEEN), 7.0)
    alive = torch.tensor([True, True, False]).expand(NUM_TASKS, 1, 3)
    shown = Shown.of(training, Asked(seven, seven, alive))
    rows = shown.drawn((100, 100), stream(0, "rows"))
    is_asked = shown.observation[0, :, 0][rows] == 7
    assert 0.45 < is_asked.float().mean() < 0.55
    assert torch.equal(shown.weight[0, -3:], torch.tensor([1.5, 1.5, 0]))


def test_environment_steps_and_memory_are_bounded(demos):
    options = options_of("dpt", iterations=3, replays=4, context_episodes=1, kept_episodes=5)
    learner, problem = learner_of(demos, "dpt", options)
    training = Training(problem, options, demos)
    found = list(find_method("dpt").code.train(training, learner, {}, 0))
    assert sum(each.env_steps for each in found) == NUM_TASKS * 20 * (4 + 2 * 2)
    assert found[-1].state["met.reward"].shape == (NUM_TASKS, 5, 19)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--heads", 5), "64 numbers of --width are not 5 equal parts"),
        (("--expert", "own.safetensors"), "--expert has no effect without --dagger"),
        (("--kept-episodes", 7), "8 episodes of a task are gathered at once, and 7 are kept"),
    ],
)
def test_options_that_cannot_be(point_demos, tmp_path, invoke, options, said):
    args = ("meta-train", "--demos", point_demos, "--method", "dpt", *options)
    assert said in invoke(*args, "--output-dir", tmp_path / "run", exit_code=1).output
    assert not (tmp_path / "run").exists()


def test_images_are_refused(tmp_path, invoke):
    path = tmp_path / "push_vision.hdf5"
    asked = ("record", "--env", "push", "--observation", "vision", "--tasks", 2)
    invoke(*asked, "--episodes-per-task", 1, "--out", path)
    args = ("meta-train", "--demos", path, "--method", "dpt")
    said = invoke(*args, "--output-dir", tmp_path / "run", exit_code=1).output
    assert "dpt reads states, not images" in said


def test_a_checkpoint_of_another_shape_is_one_sentence(demos, tmp_path):
    trained_in(tmp_path, demos, "dpt", options_of("dpt", iterations=1))
    path = tmp_path / "checkpoint.safetensors"
    tensors, header = load_checkpoint(path)
    for name in ("learner.theta.body.0.attend.weight", "learner.units.change"):
        save_checkpoint(path, {**tensors, name: torch.zeros(3)}, header)
        with pytest.raises(DemokitError, match="by hand"):
            load(path)


@pytest.mark.slow
def test_what_was_met_tells_the_task(tmp_path, invoke):
    """New goals of Point: whoever reads rewards comes near, whoever imitates everybody does not."""
    path = tmp_path / "point.hdf5"
    asked = ("--env", "point", "--tasks", 20, "--episodes-per-task", 5, "--noise", 0.2)
    invoke("record", *asked, "--out", path)
    demos = load_demos(path)
    options = find_method("dpt").options(width=32, iterations=3, eval_every=9)
    learner = trained_in(tmp_path / "run", demos, "dpt", options).learner
    problem = Problem.of(demos)
    held_out = make_tasks(problem.family, "uniform", "validation", num_tasks=10)
    curve = evaluate(learner, problem, held_out, num_steps=2, seed=0)
    earned = curve.mean.episode_return.mean(1)
    assert earned[1:].min() > earned[0] + 2
