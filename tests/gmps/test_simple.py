"""The simplest methods: replay, search for the context, and the oracle."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from short_run import DEMOS, NUM_TASKS, learner_of, options_of, roll_outs, trained_in

from demokit.data import open_dataset
from demokit.envs.tasks import make_tasks
from demokit.errors import DemokitError
from demokit.learning.checkpoint import load_checkpoint, save_checkpoint
from demokit.types import Task
from gmps.beliefs import belief_of, tensors_of
from gmps.evaluation import evaluate
from gmps.experience.contexts import ContextUnits
from gmps.experience.demos import load_demos, stacked
from gmps.method import find_method
from gmps.methods.simple.options import SEARCHES
from gmps.methods.simple.searches import SEARCH_BY_NAME, Tried
from gmps.problem import Problem, Training
from gmps.runs.checkpoint import Trained, load, save
from gmps.steps.gaussian_process import GaussianProcess, expected_improvement

HORIZON = 20


@pytest.fixture
def demos(point_demos):
    return load_demos(point_demos, DEMOS)


# Replay


def test_replay_executes_what_was_executed_action_for_action(demos, point_demos):
    """Noise and all, though what the demonstrations teach is without it."""
    learner, problem = learner_of(demos, "replay")
    explored, judged = roll_outs(problem.sampler(problem.tasks, explore=2, mean=1), learner)
    with open_dataset(point_demos) as dataset:
        executed = {name: dataset.window(0, 0, HORIZON, [name])[name] for name in ["actions"]}
        recorded = [dataset[i] for i in range(len(dataset.episodes))]
    by_task = {task.id: [e for e in recorded if e.task.id == task.id] for task in problem.tasks}
    flat = [e.actions for task in problem.tasks for e in by_task[task.id][:DEMOS]]
    np.testing.assert_array_equal(flat[0], executed["actions"])
    for i, j in np.ndindex(NUM_TASKS, 2):
        chosen = int(explored.memory[i, j])
        np.testing.assert_array_equal(explored.rollouts.action[i, j], flat[chosen])
    assert not torch.equal(demos.executed, demos.action)
    # Before any episode: the one that is nearest to all.
    mean = np.mean(flat, 0)
    medoid = min(range(len(flat)), key=lambda d: np.square(flat[d] - mean).sum())
    np.testing.assert_array_equal(judged.rollouts.action[0, 0], flat[medoid])


def test_replay_in_its_own_task_earns_what_was_recorded(demos, point_demos):
    """From the same start the same actions are paid the same."""
    with open_dataset(point_demos) as dataset:
        episode = dataset[0]
    learner, problem = learner_of(demos, "replay")
    acting = learner.exploiter(learner.begin(1)._replace(best=torch.tensor([0])), 1)
    sampler = problem.sampler((episode.task,), explore=1)
    sampler._seeds = lambda rngs: np.array([episode.seed])
    explored = sampler(acting, sampler.streams(np.random.default_rng(0))).explored
    np.testing.assert_allclose(explored.rollouts.reward[0, 0], episode.rewards, rtol=1e-5)


def test_replay_keeps_what_was_paid_best(demos):
    learner, problem = learner_of(demos, "replay")
    belief, kept = learner.begin(1), []
    for step, paid in enumerate((3.0, 5.0, 4.0, 5.0, 6.0)):
        explored, _ = roll_outs(problem.sampler(problem.tasks[:1], explore=1), learner, seed=step)
        reward = torch.zeros_like(explored.rollouts.reward)
        reward[..., -1] = paid
        memory = torch.tensor([[step]])
        belief = learner.adapt(belief, step, replace(explored.rollouts, reward=reward), memory)
        kept.append((int(belief.best), float(belief.paid)))
    assert kept == [(0, 3.0), (1, 5.0), (1, 5.0), (1, 5.0), (4, 6.0)]


def test_replay_draws_every_task_and_every_demonstration_before_one_again(demos):
    learner, problem = learner_of(demos, "replay")
    rng, belief, drawn = np.random.default_rng(0), learner.begin(1), []
    explored, _ = roll_outs(problem.sampler(problem.tasks[:1], explore=1), learner)
    for step in range(2 * NUM_TASKS * DEMOS):
        memory = learner.explorer(belief, step, 1, [rng]).memory
        belief = learner.adapt(belief, step, explored.rollouts, memory)
        drawn.append(int(memory))
    rounds = np.array(drawn).reshape(-1, NUM_TASKS) // DEMOS
    assert all(sorted(each) == list(range(NUM_TASKS)) for each in rounds)
    for half in (drawn[: NUM_TASKS * DEMOS], drawn[NUM_TASKS * DEMOS :]):
        assert sorted(half) == list(range(NUM_TASKS * DEMOS))


def test_replay_of_a_task_that_was_shown_tries_what_was_shown_first(demos, point_demos):
    learner, problem = learner_of(demos, "replay")
    with open_dataset(point_demos) as dataset:
        episode = dataset[0]
    own = stacked(problem.family, [episode], [episode.actions], 1)
    rngs = [np.random.default_rng(0)]
    belief = learner.demonstrated(learner.begin(1), own, rngs)
    sampler = problem.sampler((episode.task,), explore=2, mean=1)
    sampler._seeds = lambda rngs: np.array([episode.seed] * 3)
    explored, judged = sampler(
        learner.explorer(belief, 0, 2, rngs), rngs, learner.exploiter(belief, 1)
    )[:2]
    np.testing.assert_allclose(judged.rollouts.reward[0, 0], episode.rewards, rtol=1e-5)
    known = NUM_TASKS * DEMOS
    assert int(explored.memory[0, 0]) == known  # then those of other tasks
    assert int(explored.memory[0, 1]) < known
    belief = learner.adapt(belief, 0, explored.rollouts, explored.memory)
    paid = explored.rollouts.reward.sum(-1)[0]
    assert float(belief.paid) == float(paid.max())
    assert int(belief.best) == int(explored.memory[0, paid.argmax()])
    assert belief.shown.times.tolist() == [[1]]
    assert int(belief.times.sum()) == 1
    assert int(learner.explorer(belief, 1, 1, rngs).memory) < known
    again = belief_of(tensors_of(belief), learner.begin(1))
    assert torch.equal(again.shown.actions, belief.shown.actions)


def test_behind_its_end_a_demonstration_does_nothing(uneven_demos):
    demos = load_demos(uneven_demos, 1)
    learner, problem = learner_of(demos, "replay", options_of("replay", demos_per_task=1))
    lengths = demos.alive.sum(-1)[:, 0].tolist()
    assert lengths == [5, 10, 15]
    explored, _ = roll_outs(problem.sampler(problem.tasks, explore=1), learner)
    for i in range(NUM_TASKS):
        action, end = explored.rollouts.action[i, 0], lengths[int(explored.memory[i, 0])]
        assert action[:end].any(-1).all()
        assert not action[end:].any()


def test_replay_trains_without_an_environment_step(point_demos, tmp_path, invoke):
    asked = ("meta-train", "--demos", point_demos, "--method", "replay")
    said = invoke(*asked, "--output-dir", tmp_path / "replay-0").output
    assert "of meta-training" not in said
    refused = invoke("meta-train", "--env", "point", "--method", "replay", exit_code=2).output
    assert "replay learns from demonstrations" in refused


# Search


def smooth(context, at=(0.3, -0.4)):
    """A hill with its top of 1 `at` a place."""
    return (-(context - torch.tensor(at, dtype=torch.float32)).square().sum(-1)).exp()


SPACE = torch.tensor([[x, y] for x in (-1.0, -0.3, 0.4, 1.0) for y in (-1.0, 0.1, 1.0)])


def searched(name, value, num, seed=0, at_once=1):
    """What a search has tried after `num` episodes, one after the other or several at once."""
    rng = np.random.default_rng(seed)
    tried = Tried(SPACE, torch.zeros(0, 2), torch.zeros(0))
    for _ in range(num // at_once):
        context = SEARCH_BY_NAME[name].propose(tried, at_once, rng)
        assert context.shape == (at_once, 2)
        tried = Tried(
            SPACE,
            torch.cat((tried.context, context)),
            torch.cat((tried.paid, value(context))),
        )
    return tried


@pytest.mark.parametrize("name", SEARCHES)
@pytest.mark.parametrize("at_once", [1, 5])
def test_searches_stay_within_what_the_training_tasks_span(name, at_once):
    tried = searched(name, smooth, 15, at_once=at_once)
    found = torch.cat((tried.context, SEARCH_BY_NAME[name].recommend(tried)[None]))
    assert (found >= SPACE.amin(0) - 1e-6).all()
    assert (found <= SPACE.amax(0) + 1e-6).all()


def test_best_of_k_tries_every_training_task_once_and_keeps_the_best():
    tried = searched("best-of-k", smooth, len(SPACE))
    assert sorted(map(tuple, tried.context.tolist())) == sorted(map(tuple, SPACE.tolist()))
    recommended = SEARCH_BY_NAME["best-of-k"].recommend(tried)
    torch.testing.assert_close(recommended, SPACE[smooth(SPACE).argmax()])


def test_the_weighted_mean_of_contexts():
    context = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
    recommend = SEARCH_BY_NAME["mean"].recommend
    alike = recommend(Tried(SPACE, context, torch.ones(3)))
    torch.testing.assert_close(alike, context.mean(0))
    # Two returns of a deviation from their mean: weights in the ratio exp(2 / 0.25).
    two = recommend(Tried(SPACE, context[:2], torch.tensor([-3.0, 7.0])))
    weight = 1 / (1 + np.exp(-8))
    torch.testing.assert_close(two, torch.tensor([weight, 0.0], dtype=torch.float32))
    torch.testing.assert_close(recommend(Tried(SPACE, context[1:2], torch.ones(1))), context[1])


def best_found(name, num, at, seed):
    """What the recommended context is worth after `num` episodes."""
    tried = searched(name, lambda context: smooth(context, at), num, seed)
    return float(smooth(SEARCH_BY_NAME[name].recommend(tried), at))


def test_bayes_finds_the_optimum_of_a_smooth_function_in_fewer_trials_than_random():
    """With 8 it is nearer to the top than 16 draws at random, wherever that is."""
    rng, num = np.random.default_rng(0), 20
    places = rng.uniform(-0.9, 0.9, (num, 2))
    found = [best_found("bayes", 8, at, 0) for at in places]
    box = torch.from_numpy(rng.uniform(-1, 1, (num, 16, 2)))
    random = [float(smooth(draws, at).max()) for draws, at in zip(box, places, strict=True)]
    assert min(found) > 0.97
    assert np.mean(found) > 0.99
    assert np.mean(random) < 0.9


def test_cem_nears_the_optimum_generation_by_generation():
    found = [
        np.mean([best_found("cem", num, (0.5, 0.5), seed) for seed in range(10)])
        for num in (5, 15, 40)
    ]
    assert found == sorted(found)
    assert found[-1] > 0.95


def test_a_process_passes_through_its_values_and_is_unsure_between():
    inputs = torch.tensor([[0.0], [1.0], [3.0]])
    values = torch.tensor([10.0, 30.0, 20.0])
    process = GaussianProcess.fit(inputs, values)
    at, between = process.predict(inputs), process.predict(torch.tensor([[2.0]]))
    torch.testing.assert_close(at.mean, values, atol=0.1, rtol=0)
    assert (at.std < 0.5).all()
    assert between.std > 1
    far = process.predict(torch.tensor([[100.0]]))
    torch.testing.assert_close(far.mean, torch.tensor([20.0]))
    one = GaussianProcess.fit(inputs[:1], values[:1]).predict(inputs)
    torch.testing.assert_close(one.mean, torch.full((3,), 10.0))


def test_expected_improvement_is_that_of_draws():
    from demokit.learning.distributions import Gaussian

    predicted = Gaussian(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.5]))
    noise = torch.randn(200_000, 2, generator=torch.Generator().manual_seed(0))
    drawn = (predicted.sample(noise) - 0.7).clamp_min(0).mean(0)
    found = expected_improvement(predicted, torch.tensor(0.7))
    torch.testing.assert_close(found, drawn, atol=5e-3, rtol=0)


# What is told


@pytest.mark.parametrize("search", SEARCHES)
def test_a_search_that_has_found_the_context_acts_as_the_oracle(demos, search):
    oracle, problem = learner_of(demos, "oracle")
    seeking, _ = learner_of(demos, "context-search", options_of("context-search", search=search))
    tasks = problem.tasks[:1]
    context = seeking.units.of(tasks)[:, None]
    known = {"context": context, "paid": torch.ones(1, 1)}
    told = oracle.told(torch.tensor([tasks[0].context]))
    sampler = problem.sampler(tasks, explore=2)
    found, wanted = (
        sampler(acting, sampler.streams(np.random.default_rng(0))).explored.rollouts.action
        for acting in (
            seeking.with_meta(oracle.meta).exploiter(known, 2),
            told.exploiter(told.begin(1), 2),
        )
    )
    assert torch.equal(found, wanted)


def test_search_and_oracle_learn_the_same_policy(demos):
    found = []
    for name in ("context-search", "oracle"):
        learner, problem = learner_of(demos, name)
        training = Training(problem, options_of(name), demos)
        found.append(next(find_method(name).code.train(training, learner, {}, 0)).learner.tensors())
        assert not torch.equal(found[-1]["theta.0.weight"], learner.meta.theta["0.weight"])
    one, other = found
    assert one.keys() == other.keys()
    assert all(torch.equal(one[n], value) for n, value in other.items())


def test_before_any_episode_a_search_acts_under_the_mean_context(demos):
    seeking, problem = learner_of(demos, "context-search")
    acting = seeking.exploiter(seeking.begin(2), 3)
    assert acting.memory.shape == (2, 3, 2)
    torch.testing.assert_close(acting.memory, torch.zeros(2, 3, 2), atol=1e-6, rtol=0)
    assert len(problem.tasks) == NUM_TASKS


def test_an_oracle_acts_in_what_it_was_told_alone(demos):
    oracle, problem = learner_of(demos, "oracle")
    with pytest.raises(DemokitError, match="whose contexts it is told"):
        oracle.begin(1)
    told = oracle.told(torch.tensor([task.context for task in problem.tasks]))
    with pytest.raises(DemokitError, match="whose contexts it is told"):
        told.begin(1)
    with pytest.raises(DemokitError, match="have 3 components, those of the training tasks 2"):
        oracle.told(torch.zeros(1, 3))


def test_contexts_are_standardised_by_the_training_tasks():
    tasks = [Task("point", f"t/{i}", (x, 5.0), "train") for i, x in enumerate((1.0, 3.0))]
    units = ContextUnits.over(tasks)
    torch.testing.assert_close(units.of(tasks)[:, 0], torch.tensor([-1.0, 1.0]) / 2**0.5)
    assert not units.of(tasks)[:, 1].any()  # all agree: no division by zero
    torch.testing.assert_close(units.standard(torch.tensor([2.0, 6.0])), torch.tensor([0.0, 1.0]))


@pytest.fixture(scope="module")
def cloned(tmp_path_factory, invoke):
    """Two seconds of imitation that is told the context, on Point with 10 tasks."""
    folder = tmp_path_factory.mktemp("cloned")
    path = folder / "demos.hdf5"
    invoke(*("record", "--env", "point", "--tasks", 10, "--episodes-per-task", 2, "--out", path))
    demos = load_demos(path)
    options = find_method("oracle").options(iterations=8, steps=100, threads=1)
    return trained_in(folder / "oracle", demos, "oracle", options), demos


def test_an_oracle_masters_its_tasks_after_short_training(cloned):
    trained, _ = cloned
    problem = trained.problem
    curve = evaluate(trained.learner, problem, problem.tasks, num_steps=1, seed=0)
    assert curve.mean.success.mean() > 0.95
    np.testing.assert_allclose(curve.mean.success[0], curve.mean.success[1], atol=0.3)
    assert trained.spent.meta_training == 0


def test_a_search_finds_new_tasks_by_their_rewards(cloned):
    trained, demos = cloned
    options = find_method("context-search").options()
    fresh = find_method("context-search").code.start(Training(Problem.of(demos), options, demos))
    learner, problem = fresh.with_meta(trained.learner.meta), trained.problem
    tasks = make_tasks(problem.family, "uniform", "validation", num_tasks=5)
    curve = evaluate(learner, problem, tasks, num_steps=10, seed=0)
    earned = curve.mean.episode_return.mean(1)
    assert earned[10] > earned[5] > earned[0]
    assert curve.episodes_per_step == 1


# Files of strangers


def nothing(tensors):
    tensors["learner.actions"][:] = torch.nan


def fewer_tasks(tensors):
    tensors["learner.actions"] = tensors["learner.actions"][1:]


def no_steps(tensors):
    tensors["learner.actions"] = tensors["learner.actions"][:, :, :0]


def other_numbers(tensors):
    tensors["learner.actions"] = tensors["learner.actions"].double()


def flat(tensors):
    tensors["learner.actions"] = tensors["learner.actions"].flatten(1)


@pytest.mark.parametrize("damage", [nothing, fewer_tasks, no_steps, other_numbers, flat])
def test_demonstrations_of_a_checkpoint_that_are_none_are_one_sentence(demos, tmp_path, damage):
    learner, problem = learner_of(demos, "replay")
    path = tmp_path / "checkpoint.safetensors"
    save(path, Trained("replay", options_of("replay"), problem, learner), {})
    tensors, header = load_checkpoint(path)
    damage(tensors)
    save_checkpoint(path, tensors, header)
    with pytest.raises(DemokitError, match=r"its demonstrations are .* train again"):
        load(path)


@pytest.mark.parametrize("name", ["context-search", "oracle"])
def test_a_policy_of_other_contexts_is_one_sentence(demos, tmp_path, name):
    learner, problem = learner_of(demos, name)
    path = tmp_path / "checkpoint.safetensors"
    save(path, Trained(name, options_of(name), problem, learner), {})
    tensors, header = load_checkpoint(path)
    for task in header["tasks"]:
        task["context"] = task["context"][:1]
    save_checkpoint(path, tensors, header)
    with pytest.raises(DemokitError, match="train again"):
        load(path)
