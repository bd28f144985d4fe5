"""Task inference: the space, the models, the posterior, and how episodes follow it."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from short_run import DEMOS, NUM_TASKS, Stops, learner_of, options_of, trained_in

from demokit.envs.tasks import make_tasks
from demokit.errors import DemokitError
from demokit.learning.checkpoint import load_checkpoint, save_checkpoint
from demokit.random import stream
from gmps.evaluation import evaluate, stages
from gmps.experience.demos import Demonstrations, load_demos
from gmps.experience.transitions import Transitions
from gmps.method import find_method
from gmps.methods.inference.models import MEMBERS, fit
from gmps.methods.inference.policy import Imitation, Shown, first_guess
from gmps.methods.inference.posterior import PRIOR_STD, Evidence, Likelihood, infer
from gmps.methods.inference.space import TaskSpace
from gmps.policies.gaussian import GaussianPolicy
from gmps.problem import Problem, Training
from gmps.runs.checkpoint import Trained, load, save


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed))


def left_over(values, of):
    """The share of the variance of values (M, A) that no linear map of (M, B) gives."""
    values, of = values - values.mean(0), of - of.mean(0)
    found = of @ torch.linalg.lstsq(of, values).solution
    return float((values - found).square().sum() / values.square().sum())


# The task space


def linear_policies(numbers):
    """Features, actions and weights of tasks whose linear policies differ by `numbers` (M, 2)."""
    features = normal(300, 4).expand(len(numbers), -1, -1)
    shared, *two = normal(3, 4, 2, seed=1)
    own = shared + sum(n[:, None, None] * each for n, each in zip(numbers.T, two, strict=True))
    return features, features @ own, torch.ones(len(numbers), 300)


def test_the_first_guess_are_the_numbers_in_which_linear_policies_differ():
    numbers = normal(12, 2, seed=2)
    found = first_guess(*linear_policies(numbers), 2)
    assert left_over(numbers, found) < 1e-6
    assert left_over(numbers, found[:, :1]) > 0.1  # both are needed
    spread = found.std(0, unbiased=False)
    torch.testing.assert_close(spread[0], torch.tensor(0.5))
    assert 0.01 < spread[1] < spread[0]
    torch.testing.assert_close(found.mean(0), torch.zeros(2), atol=1e-5, rtol=0)


def test_the_first_guess_of_tasks_that_do_not_differ_is_nothing():
    found = first_guess(*linear_policies(torch.ones(5, 2)), 3)
    torch.testing.assert_close(found, torch.zeros(5, 3), atol=0.02, rtol=0)


def test_fewer_tasks_than_latents_leave_the_others_at_zero():
    found = first_guess(*linear_policies(torch.tensor([[1.0, 0.0], [0.0, 1.0]])), 5)
    torch.testing.assert_close(found[:, 0].abs(), torch.full((2,), 0.5))
    torch.testing.assert_close(found[:, 1:], torch.zeros(2, 4), atol=1e-4, rtol=0)


def test_codes_are_latents_in_units_of_how_they_spread():
    latents = normal(30, 3) @ torch.tensor([[2.0, 0.3, 0], [0, 0.5, 0.4], [0, 0, 1.0]]) + 7
    space = TaskSpace.of(latents)
    torch.testing.assert_close(space.codes.mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(space.codes.T @ space.codes / 30, torch.eye(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(space.latent(space.codes), latents)
    torch.testing.assert_close(space.latent(torch.zeros(3)), latents.mean(0))


def test_a_direction_in_which_tasks_do_not_differ_has_no_code():
    plane = normal(30, 2) @ normal(2, 3, seed=1)
    space = TaskSpace.of(plane + 1)
    assert (space.width, space.codes.shape) == (2, (30, 2))
    torch.testing.assert_close(space.latent(space.codes), plane + 1)
    little = plane.clone()
    little[:, 2] += 1e-3 * normal(30, seed=2)
    assert TaskSpace.of(little).width == 2


@pytest.mark.slow
def test_as_many_dimensions_as_tasks_differ_in(tmp_path, invoke):
    """Point's goals are places in the plane; Door's targets are angles."""
    for family, width in (("point", 2), ("door", 1)):
        demos = tmp_path / f"{family}.hdf5"
        invoke("record", "--env", family, "--tasks", 20, "--noise", 0.2, "--out", demos)
        short = ("--iterations", 2, "--method", "task-inference", "--eval-every", 9)
        folder = tmp_path / family
        invoke("meta-train", "--demos", demos, *short, "--output-dir", folder)
        assert load(folder)[0].learner.space.width == width


def test_the_number_of_dimensions_that_is_chosen_stays(point_demos, tmp_path):
    learner, problem = trained(load_demos(point_demos, DEMOS), steps=6, model_steps=6)
    width = learner.policy.bias_transform_width
    assert width in (1, 2, 3, 4, 6, 8)
    path = tmp_path / "checkpoint.safetensors"
    save(path, Trained("task-inference", learner.options, problem, learner), {})
    found = load(path)[0].learner
    assert found.policy.bias_transform_width == width
    assert torch.equal(found.space.codes, learner.space.codes)


def test_a_number_of_dimensions_that_is_asked_for_is_kept(point_demos):
    demos = load_demos(point_demos, DEMOS)
    learner, _ = trained(demos, latent_width=3, steps=6, model_steps=6)
    assert len(learner.space.mean) == learner.policy.bias_transform_width == 3


# Models of tasks


STEPS, NOISE = 250, 0.1


def family(num_tasks, num_rows=40, seed=0):
    """x (M, N, 1), y = x e with noise, and codes e (M, 1)."""
    codes = normal(num_tasks, 1, seed=seed)
    x = normal(num_tasks, num_rows, 1, seed=seed + 1)
    return x, x * codes[:, None] + NOISE * normal(*x.shape, seed=seed + 2), codes


def fitted(x, y, codes, weight=None, steps=STEPS, on_all=0):
    weight = torch.ones(x.shape[:2]) if weight is None else weight
    return fit(x, y, codes, weight, steps=(steps, on_all), rng=seeded(5))


def test_the_error_on_tasks_that_a_member_never_met_is_near_the_noise():
    x, y, codes = family(60)
    ensemble = fitted(x, y, codes)
    error = ensemble.variance * ensemble.y_scale.square()
    assert NOISE**2 < error < 4 * NOISE**2 < 0.05 * y.var()
    x, y, codes = family(20, seed=50)
    mean, variance = ensemble.predicted(x, codes[:, None])
    assert (variance >= ensemble.variance).all()
    wrong = (mean[:, 0] - (y - ensemble.y_mean) / ensemble.y_scale).square()
    assert 0.2 < wrong.mean() / variance.mean() < 5


def members(ensemble, x, codes):
    """What each member predicts, (B, N, Y), in the units of y."""
    found = []
    for i in range(MEMBERS):
        own = {name: value[i : i + 1] for name, value in ensemble.network.items()}
        mean, _ = replace(ensemble, network=own).predicted(x[None], codes[None])
        found.append(mean[0, 0] * ensemble.y_scale + ensemble.y_mean)
    return torch.stack(found)


def test_a_member_never_sees_the_tasks_that_it_leaves_out():
    """Tasks without codes to tell them apart; one is paid 1000, the five others 1."""
    x, codes = normal(6, 40, 2), torch.zeros(6, 1)
    y = torch.ones(6, 40, 1)
    y[2] = 1000
    ensemble = fitted(x, y, codes)
    predicted = members(ensemble, x[0], codes[:1]).mean((1, 2)).sort().values
    assert -50 < predicted[0] < 50  # not told of it
    assert (predicted[1:] > 150).all()  # one of its four tasks
    # Far from what it left out: (1000 - 1)^2 on one of six tasks.
    expected = 999**2 / 6 / ensemble.y_scale.square()
    assert expected < ensemble.variance < 3 * expected


def test_in_the_end_members_know_all_tasks_and_errors_stay_those_on_left_out_ones():
    x, codes = normal(6, 40, 2), torch.zeros(6, 1)
    y = torch.ones(6, 40, 1)
    y[2] = 1000
    first, ensemble = (fitted(x, y, codes, on_all=num) for num in (0, STEPS))
    assert torch.equal(first.variance, ensemble.variance)
    predicted = members(ensemble, x[0], codes[:1]).mean((1, 2))
    assert (predicted > 100).all()  # 167.5 is the mean of all


def test_rows_of_weight_zero_are_never_seen():
    x, y, codes = family(6)
    weight = torch.ones(6, 40)
    weight[1, 10:] = weight[4] = 0
    found = []
    for rubbish in (1e6, torch.nan):
        hidden = [torch.where(weight[..., None] > 0, part, rubbish) for part in (x, y)]
        found.append(fitted(*hidden, codes, weight, steps=20).tensors())
    assert all(torch.equal(found[0][name], value) for name, value in found[1].items())
    assert all(value.isfinite().all() for value in found[1].values())


def test_where_next_to_nothing_was_met_next_to_nothing_is_learned():
    x, y, codes = family(3)
    weight = torch.zeros(3, 40)
    untaught = fitted(x, y, codes, weight)
    assert (untaught.variance == 1).all()
    weight[1, 7] = 1
    taught = fitted(x, y, codes, weight, steps=5)
    torch.testing.assert_close(taught.y_mean, y[1, 7])
    for ensemble in (untaught, taught):
        assert all(value.isfinite().all() for value in ensemble.tensors().values())


# The posterior


def behaviour(codes, num, seed=0):
    """Transitions of tasks: paid by the first number of a code, moved by the second."""
    shape = len(codes), num
    before, action = normal(*shape, 2, seed=seed), normal(*shape, 1, seed=seed + 1)
    after = before + 0.5 * codes[:, None, 1:] * action
    after = after + 0.05 * normal(*shape, 2, seed=seed + 2)
    reward = codes[:, None, 0] * after[..., 0] + 0.05 * normal(*shape, seed=seed + 3)
    return Transitions(before, action, after, reward, torch.ones(shape))


@pytest.fixture(scope="module")
def likelihood():
    """Of the models of `behaviour`."""
    codes = normal(100, 2, seed=9)
    met = behaviour(codes, 40)
    paid, moved = (fitted(*part, codes) for part in (met.paid(), met.moved()))
    return Likelihood(paid, moved, linear_imitation(), temper=0.3, ascent=15)


def linear_imitation():
    """A policy that acts by a code's second number, minus its first."""
    policy = GaussianPolicy(torch.zeros(2), torch.ones(2), 1, 2, bias_transform_width=2)
    theta = {name: torch.zeros_like(value) for name, value in policy.init(seeded()).items()}
    theta |= {"0.weight": torch.tensor([[0.0, 0], [0, 0], [-1, 1], [1, -1]])}  # u, -u of codes
    theta |= {"1.weight": torch.eye(2), "2.weight": torch.tensor([[1.0], [-1.0]])}
    space = TaskSpace(torch.zeros(2), torch.eye(2), torch.zeros(1, 2))
    return Imitation(policy, theta, space, torch.tensor([0.04]))


def nothing_shown(tasks, steps=0):
    return Shown(*(torch.zeros(tasks, steps, *shape) for shape in ((2,), (1,), ())))


def posterior(likelihood, met, seed=3, shown=None):
    tasks = len(met.weight)
    seen = Evidence(met, shown or nothing_shown(tasks))
    candidates = PRIOR_STD * normal(tasks, 120, 2, seed=seed)
    noise = torch.rand(tasks, 120, generator=seeded(seed))
    return infer(likelihood, seen, candidates, -(-noise.log()).log())


def deviation(found):
    """Standard deviation (T,) of the code under a posterior."""
    weight = (found.log_likelihood + found.log_prior).softmax(1)[..., None]
    mean = (weight * found.codes).sum(1, keepdim=True)
    return (weight * (found.codes - mean).square()).sum((1, 2)).sqrt()


def test_the_most_likely_code_is_near_the_true_one(likelihood):
    truth = normal(12, 2, seed=20)
    found = posterior(likelihood, behaviour(truth, 40, seed=30))
    assert found.codes.shape == (12, 128, 2)
    assert (found.best - truth).norm(dim=1).median() < 0.15
    assert (found.best - truth).norm(dim=1).max() < 0.5
    likely = (found.log_likelihood + found.log_prior).max(1).values
    seen = Evidence(behaviour(truth, 40, seed=30), nothing_shown(12))
    again = likelihood(seen, found.best[:, None])[:, 0]
    torch.testing.assert_close(again - 0.5 * (found.best / PRIOR_STD).square().sum(1), likely)


def test_what_counts_nothing_leaves_the_prior(likelihood):
    met = behaviour(normal(3, 2, seed=20), 40)
    found = posterior(likelihood, met._replace(weight=torch.zeros(3, 40)))
    torch.testing.assert_close(found.best, torch.zeros(3, 2), atol=0.1, rtol=0)
    assert not found.log_likelihood.any()


def test_every_transition_narrows_it(likelihood):
    truth = normal(8, 2, seed=20)
    met = behaviour(truth, 60, seed=30)
    wide, narrow, narrowest = (
        deviation(posterior(likelihood, Transitions(*(part[:, :num] for part in met)))).mean()
        for num in (1, 4, 60)
    )
    assert wide > 1.5 * narrow > 1.5**2 * narrowest


def test_more_transitions_than_are_looked_at_weigh_as_much_as_all(likelihood):
    """300 times the same one: as if it were one of 300 times the weight."""
    once = behaviour(normal(2, 2, seed=20), 1, seed=30)
    often = Transitions(*(part.repeat_interleave(300, 1) for part in once))
    weighed = once._replace(weight=300 * once.weight)
    one, other = posterior(likelihood, often), posterior(likelihood, weighed)
    torch.testing.assert_close(one.log_likelihood, other.log_likelihood, rtol=1e-3, atol=1e-2)


def test_a_demonstration_tells_what_the_policy_needs_to_act_so(likelihood):
    """Worked: e2 - e1 under N(0, 1.5^2) each, observed as 1, 0.3 * 20 times with variance 0.04."""
    shown = Shown(normal(1, 20, 2), torch.ones(1, 20, 1), torch.ones(1, 20))
    met = Transitions(*(part[:, :0] for part in behaviour(torch.zeros(1, 2), 1)))
    found = posterior(likelihood, met, shown=shown)
    expected = 2 / (2 + 0.04 / (0.3 * 20) / PRIOR_STD**2)
    told = found.best[:, 1] - found.best[:, 0]
    torch.testing.assert_close(told, torch.tensor([expected]), atol=0.05, rtol=0)
    away = likelihood(Evidence(met, shown), torch.tensor([[[0.0, 0.0]]]))
    torch.testing.assert_close(away, torch.tensor([[-0.5 * 0.3 * 20 * 1 / 0.04]]))


def test_a_demonstration_and_transitions_count_together(likelihood):
    truth = torch.tensor([[0.5, 1.0]])
    met, shown = behaviour(truth, 30, seed=4), Shown(normal(1, 9, 2), *(torch.ones(1, 9, 1),) * 2)
    shown = shown._replace(weight=torch.ones(1, 9))
    codes = normal(1, 7, 2, seed=8)
    alone = likelihood(Evidence(met, nothing_shown(1)), codes)
    none = Transitions(*(part[:, :0] for part in met))
    both = alone + likelihood(Evidence(none, shown), codes)
    torch.testing.assert_close(likelihood(Evidence(met, shown), codes), both)


# The learner

SHORT = {"iterations": 2, "steps": 60, "model_steps": 60, "training_rollouts": 4}


def trained(demos, **changes):
    """The learner after training, and its problem."""
    options = options_of("task-inference", **{**SHORT, **changes})
    training = Training(Problem.of(demos), options, demos)
    code = find_method("task-inference").code
    *_, last = code.train(training, code.start(training), {}, 0)
    return last.learner, training.problem


@pytest.fixture(scope="module", autouse=True)
def _few_candidates():
    """64 instead of 240: they are most of a tiny run's time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gmps.methods.inference.learner.CANDIDATES", 64)
        yield


@pytest.fixture(scope="module")
def short(point_demos):
    return trained(load_demos(point_demos, DEMOS), latent_width=2)


class Watched:
    """An actor, and the latents (M, K, Z) that it followed step by step."""

    def __init__(self, actor):
        self.memory, self.followed, self._actor = actor.memory, [], actor

    def __call__(self, memory, seen):
        dist, after = self._actor(memory, seen)
        self.followed.append(after.latent)
        return dist, after


def explored(learner, problem, belief, num=1, tasks=None, seed=0):
    """What episodes of the training tasks met, and what they followed."""
    sampler = problem.sampler(tasks or problem.tasks, explore=num)
    rngs = sampler.streams(np.random.default_rng(seed))
    actor = Watched(learner.explorer(belief, 0, num, rngs))
    return sampler(actor, rngs).explored, torch.stack(actor.followed)


def moved_at(followed):
    """The steps at which any latent (steps, M, K, Z) is another than the step before."""
    moved = (followed[1:] != followed[:-1]).any(-1)
    return [t + 1 for t in range(len(moved)) if moved[t].any()]


def test_an_episode_looks_when_it_should_and_never_else(short):
    learner, problem = short
    learner = replace(learner, options=replace(learner.options, moves=4))
    gathered, followed = explored(learner, problem, learner.begin(NUM_TASKS), num=2)
    codes = learner.space.latent(learner.space.codes)
    assert (followed[0][..., None, :] == codes).all(-1).any(-1).all()  # a training task's
    assert moved_at(followed) == [4, 8, 12, 16]
    belief = learner.adapt(learner.begin(NUM_TASKS), 0, *gathered[:2])
    _, followed = explored(learner, problem, belief, num=2, seed=1)
    assert not torch.equal(followed[0, :, 0], followed[0, :, 1])  # a draw of each episode's own
    assert moved_at(followed) == [4, 8, 12, 16]


def test_no_moves_where_none_are_wanted(short):
    learner, problem = short
    still = replace(learner, options=replace(learner.options, moves=0))
    gathered, followed = explored(still, problem, still.begin(NUM_TASKS))
    assert (followed == followed[0]).all()
    belief = still.adapt(still.begin(NUM_TASKS), 0, *gathered[:2])
    _, followed = explored(still, problem, belief)
    assert (followed == followed[0]).all()


def test_of_all_that_is_drawn_what_would_earn_most_is_tried(short):
    learner, problem = short
    gathered, _ = explored(learner, problem, learner.begin(NUM_TASKS))
    posterior = learner.adapt(learner.begin(NUM_TASKS), 0, *gathered[:2]).posterior
    size = posterior.codes.shape[1]
    every = replace(learner, options=replace(learner.options, optimism=size))
    found = every._tried(posterior, 1, torch.zeros(NUM_TASKS, size))[:, 0]
    best = learner.models.earned(posterior.codes).argmax(1)
    assert torch.equal(found, posterior.codes[torch.arange(NUM_TASKS), best])


@pytest.mark.parametrize(("num", "optimism"), [(40, 8), (3, 100), (300, 8)])
def test_any_number_of_episodes_is_tried_at_once(short, num, optimism):
    """Even more than there are candidates."""
    learner, problem = short
    learner = replace(learner, options=replace(learner.options, optimism=optimism))
    gathered, _ = explored(learner, problem, learner.begin(NUM_TASKS))
    belief = learner.adapt(learner.begin(NUM_TASKS), 0, *gathered[:2])
    codes = learner._first(belief, num, stream(0, "test").spawn(NUM_TASKS))
    assert codes.shape == (NUM_TASKS, num, learner.space.width)
    candidates = belief.posterior.codes
    assert all((candidates[0] == code).all(-1).any() for code in codes[0])


def test_an_episode_looks_at_most_as_often_as_it_has_steps(short):
    learner, _ = short
    assert learner._moves(1000) == list(range(1, 20))
    assert learner._moves(4) == [4, 8, 12, 16]


def test_what_is_believed_depends_on_what_was_paid(short):
    learner, problem = short
    (rollouts, memory, _), _ = explored(learner, problem, learner.begin(NUM_TASKS))
    fresh = learner.begin(NUM_TASKS)
    found = [
        learner.adapt(fresh, 0, replace(rollouts, reward=reward), memory)
        for reward in (rollouts.reward, rollouts.reward.clone(), rollouts.reward.flip(2))
    ]
    assert torch.equal(found[0].code, found[1].code)
    assert not torch.equal(found[0].posterior.log_likelihood, found[2].posterior.log_likelihood)
    torch.testing.assert_close(found[2].seen.met.reward[:, :19], rollouts.reward.flip(2)[:, 0, :19])
    assert fresh.is_fresh
    assert not found[0].is_fresh
    assert not fresh.code.any()


def test_later_episodes_are_believed_together_with_earlier_ones(short):
    learner, problem = short
    belief, steps = learner.begin(NUM_TASKS), []
    for seed in range(3):
        gathered, _ = explored(learner, problem, belief, seed=seed)
        belief = learner.adapt(belief, seed, *gathered[:2])
        steps.append(belief.seen.met.weight.shape[1])
    assert steps == [19, 2 * 19, 3 * 19]


def test_a_task_is_inferred_alike_alone_and_among_others(short):
    learner, problem = short
    found = []
    for num in (NUM_TASKS, 1):
        belief = learner.begin(num)
        for seed in range(2):
            gathered, _ = explored(learner, problem, belief, tasks=problem.tasks[:num], seed=seed)
            belief = learner.adapt(belief, seed, *gathered[:2])
        found.append((belief.code[0], gathered.rollouts.action[0], belief.seen.met.reward[0]))
    for together, alone in zip(*found, strict=True):
        torch.testing.assert_close(together, alone, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("tasks_at_once", [3, 20])
def test_tasks_are_inferred_alike_however_many_at_once(likelihood, tasks_at_once):
    truth = normal(20, 2, seed=20)
    seen, candidates = Evidence(behaviour(truth, 10), nothing_shown(20, 3)), normal(20, 50, 2)
    noise = normal(20, 50, seed=1)
    whole = infer(likelihood, seen, candidates, noise)
    some = slice(tasks_at_once)
    own = infer(likelihood, seen.map(lambda part: part[some]), candidates[some], noise[some])
    torch.testing.assert_close(own.best, whole.best[some], atol=1e-3, rtol=1e-3)


@pytest.fixture(scope="module")
def ten_tasks(tmp_path_factory, invoke):
    path = tmp_path_factory.mktemp("ten") / "demos.hdf5"
    asked = ("--env", "point", "--tasks", 10, "--episodes-per-task", 2, "--noise", 0.2)
    invoke("record", *asked, "--out", path)
    return load_demos(path)


def test_new_tasks_are_found_in_few_episodes(ten_tasks):
    learner, problem = trained(ten_tasks, steps=200, model_steps=150, training_rollouts=20, moves=1)
    held_out = make_tasks(problem.family, "uniform", "validation", num_tasks=3)
    curve = evaluate(learner, problem, held_out, num_steps=1, seed=0, episodes_per_step=5)
    earned = curve.mean.episode_return.mean(1)
    assert earned[1] > earned[0] + 2


def test_a_demonstration_tells_the_task_without_reward(ten_tasks):
    learner, problem = trained(ten_tasks, steps=300, model_steps=20, training_rollouts=4)
    observation, action, alive = ten_tasks.observation, ten_tasks.action, ten_tasks.alive
    one = Demonstrations(*(part[:, :1] for part in (observation, action, action, action, alive)))
    rngs = [stream(0, "shown", i) for i in range(10)]
    before = learner.begin(10)
    belief = learner.demonstrated(before, one, rngs)
    assert before.is_fresh
    assert not belief.is_fresh
    assert belief.seen.shown.weight.shape == (10, 20)
    nearest = torch.cdist(belief.code, learner.space.codes).argmin(1)
    assert (nearest == torch.arange(10)).float().mean() >= 0.9
    # The first episode begins with it: no training task's code is drawn.
    _, followed = explored(learner, problem, belief)
    codes = learner.space.latent(learner.space.codes)
    assert not (followed[0][..., None, :] == codes).all(-1).any()
    both = learner.demonstrated(belief, one, rngs)
    assert both.seen.shown.weight.shape == (10, 40)


def test_it_trains_and_acts_from_images(tmp_path, invoke):
    path = tmp_path / "push_vision.hdf5"
    asked = ("record", "--env", "push", "--observation", "vision", "--tasks", 2)
    invoke(*asked, "--episodes-per-task", 2, "--noise", "0.2", "--out", path)
    demos = load_demos(path, 2)
    tiny = {"iterations": 1, "steps": 5, "model_steps": 5, "training_rollouts": 2}
    learner, problem = trained(demos, **tiny, outer_stride=10, pretrain_steps=2, moves=1)
    before, _ = learner_of(demos, "task-inference", learner.options)
    eyes = [each.theta["encoder.0.weight"] for each in (before, learner)]
    assert not torch.equal(*eyes)
    # Models see the hand and where the object seems to be, no points of the image.
    assert learner.models.changes.variance.shape == (6,)
    sampler = problem.sampler(problem.tasks[:1], explore=1, mean=1)
    one, other = stages(learner, sampler, partial(stream, 0), 1)
    assert not torch.equal(one.belief.code, other.belief.code)
    assert other.sampled.judged.rollouts.action.isfinite().all()


# Files of strangers

REWARDS = "learner.models.rewards."


def resized(name, *shape):
    return lambda tensors: tensors.update({name: torch.zeros(shape)})


WRONG = {
    "codes of other tasks": resized("learner.space.codes", NUM_TASKS + 1, 2),
    "codes of other width": resized("learner.space.codes", NUM_TASKS, 1),
    "axes of other width": resized("learner.space.axes", 2, 1),
    "axes without width": resized("learner.space.axes", 2),
    "axes of other latents": resized("learner.space.axes", 3, 2),
    "huge codes": resized("learner.space.axes", 0, 10**15),
    "no variance of actions": lambda tensors: tensors.pop("learner.action_variance"),
    "variance of other actions": resized("learner.action_variance", 3),
    "no mean": lambda tensors: tensors.pop("learner.space.mean"),
    "models of other inputs": resized(f"{REWARDS}network.0.weight", 3, 5, 64),
    "models with other members": resized(f"{REWARDS}network.1.weight", 2, 64, 64),
    "a layer too many": resized(f"{REWARDS}network.3.weight", 3, 1, 1),
    "a layer too few": lambda tensors: tensors.pop(f"{REWARDS}network.2.bias"),
    "no variance": lambda tensors: tensors.pop(f"{REWARDS}variance"),
    "units of other outputs": resized("learner.models.changes.y_scale", 1),
    "other numbers": lambda tensors: tensors.update(
        {f"{REWARDS}variance": torch.ones(1, dtype=torch.int64)}
    ),
    "a policy of other latents": resized("learner.theta.0.weight", 5, 100),
}


@pytest.mark.parametrize("damage", WRONG.values(), ids=WRONG)
def test_parts_that_do_not_belong_together_are_one_sentence(short, tmp_path, damage):
    learner, problem = short
    path = tmp_path / "checkpoint.safetensors"
    save(path, Trained("task-inference", learner.options, problem, learner), {})
    tensors, header = load_checkpoint(path)
    damage(tensors)
    save_checkpoint(path, tensors, header)
    with pytest.raises(DemokitError, match="train again"):
        load(path)


@pytest.mark.parametrize("option", ["--outer-stride", "--max-grad-norm", "--pretrain-steps"])
def test_what_teaches_the_eyes_is_refused_without_images(point_demos, tmp_path, invoke, option):
    args = ("meta-train", "--demos", point_demos, "--method", "task-inference", option, 3)
    said = invoke(*args, "--output-dir", tmp_path / "run", exit_code=1).output
    assert f"Option {option} has no effect without images: leave it out." in said


def test_a_round_that_is_done_is_kept(point_demos, tmp_path):
    usual = find_method("task-inference").options().checkpoint_every
    changed = {"iterations": 2, "latent_width": 2, "moves": 0, "ascent": 0, "optimism": 1}
    demos, options = (
        load_demos(point_demos, DEMOS),
        options_of("task-inference", checkpoint_every=usual, **changed),
    )
    with pytest.raises(KeyboardInterrupt):
        trained_in(tmp_path / "run", demos, "task-inference", options, report=Stops(1))
    assert load(tmp_path / "run")[0].iteration == 1


def test_what_it_cannot_do_is_refused():
    with pytest.raises(DemokitError, match="device: task inference computes on the CPU"):
        options_of("task-inference", device="cuda")
