"""Meta-test: who teaches, who is judged, and what counts, by actors of known actions."""

import weakref
from functools import partial
from itertools import islice

import numpy as np
import pytest
import torch

from demokit.envs import make_family
from demokit.envs.tasks import make_tasks
from demokit.learning.distributions import Gaussian
from demokit.random import stream
from demokit.types import Step, Task
from gmps.evaluation import evaluate, meta_test, num_trials, stages
from gmps.experience.replay import Episodes
from gmps.experience.sampler import Sampler
from gmps.experience.trials import Trials
from gmps.problem import Problem

K, E, T = 3, 2, 20
TASKS = tuple(Task("point", f"t/{i}", (0.5, 0.1 * i), "validation") for i in range(4))
REACHED = tuple(
    Task("point", str(goal), goal, "validation") for goal in ((0.05, 0.0), (1.0, 1.0))
)  # by some of those who stay where they start, and by some of the explorers
PROBLEM = Problem(make_family("point").schema, "dense", "state", TASKS)


class Still:
    """Acts by one number in all components; without noise worth the name."""

    memory = "remembered"

    def __init__(self, value):
        self.value = value

    def __call__(self, memory, seen):
        mean = self.value[:, None, None].expand(*seen.reward.shape, 2)
        return Gaussian(mean, torch.full_like(mean, 1e-6)), memory


class Counter:
    """A belief counts the steps; explorers act by it plus one half, exploiters by it."""

    episodes_per_step = K

    def __init__(self):
        self.taught = []

    def begin(self, num_tasks):
        return torch.zeros(num_tasks)

    def explorer(self, belief, step, _num, rngs):
        assert (belief == 0.1 * step).all()
        assert len(rngs) == len(belief)
        return Still(belief + 0.5)

    def exploiter(self, belief, num):
        assert num > 0
        return Still(belief)

    def adapt(self, belief, step, gathered, memory):
        self.taught.append((step, gathered, memory))
        return belief + 0.1


def streams(step):
    return stream(0, "test", step)


def sampler_of(tasks=TASKS, **options):
    return PROBLEM.sampler(tasks, explore=K, mean=E, **options)


def test_the_explorer_teaches_and_the_exploiter_is_judged():
    learner = Counter()
    found = list(stages(learner, sampler_of(), streams, 2))
    assert [stage.step for stage in found] == [0, 1, 2]
    for stage, (step, gathered, memory) in zip(found, learner.taught, strict=False):
        assert (step, memory) == (stage.step, "remembered")
        assert gathered.reward.shape == (len(TASKS), K, T)
        torch.testing.assert_close(
            gathered.action, torch.full((len(TASKS), K, T, 2), 0.5 + 0.1 * step), atol=1e-4, rtol=0
        )
        judged = stage.sampled.judged.rollouts
        assert judged.action.shape == (len(TASKS), E, T, 2)
        torch.testing.assert_close(judged.action, torch.full_like(judged.action, 0.1 * step))
    assert len(learner.taught) == 2


def test_a_curve_is_of_what_was_judged():
    curve = meta_test(Counter(), sampler_of(REACHED), streams, 1)
    found = list(stages(Counter(), sampler_of(REACHED), streams, 1))
    for step, stage in enumerate(found):
        judged, explored = stage.sampled.judged, stage.sampled.explored
        for outcome, own in ((curve.mean, judged), (curve.stochastic, explored)):
            earned = own.rollouts.reward.sum(-1).mean(1)
            np.testing.assert_allclose(outcome.episode_return[step], earned, rtol=1e-6)
            np.testing.assert_array_equal(outcome.success[step], own.success.float().mean(1))
    assert not np.array_equal(curve.mean.episode_return, curve.stochastic.episode_return)
    assert curve.episodes_per_step == K


def test_roll_outs_are_not_kept_longer_than_a_stage():
    class Forgets(Counter):
        def __init__(self):
            self.met = []

        def adapt(self, belief, _step, gathered, _memory):
            self.met.append(weakref.ref(gathered.observation))
            return belief + 0.1

    learner, kept = Forgets(), []

    def count(_step):
        kept.append(sum(observation() is not None for observation in learner.met))

    meta_test(learner, sampler_of(), streams, 4, on_step=count)
    assert kept == [0, 1, 1, 1, 1]


def test_a_later_start_goes_on_as_the_whole_does():
    whole = meta_test(Counter(), sampler_of(), streams, 3)
    *_, start = stages(Counter(), sampler_of(), streams, 1)
    rest = meta_test(Counter(), sampler_of(), streams, 3, start)
    np.testing.assert_array_equal(rest.mean.episode_return, whole.mean.episode_return[1:])
    [only] = islice(stages(Counter(), sampler_of(), streams, 0, start), 2)
    assert only is start  # it is farther than was asked for


def test_where_no_episode_is_judged_no_exploiter_is_asked_for():
    [stage] = stages(Counter(), PROBLEM.sampler(TASKS, explore=K), streams, 0)
    assert stage.sampled.explored.success.shape == (len(TASKS), K)
    assert stage.sampled.judged.success.shape == (len(TASKS), 0)


def test_who_is_told_the_tasks_is_told_before_it_begins():
    class Told(Counter):
        def told(self, contexts):
            self.contexts = contexts
            return self

        def begin(self, num_tasks):
            assert self.contexts.tolist() == [[0.5, pytest.approx(0.1 * i)] for i in range(4)]
            return super().begin(num_tasks)

    assert len(list(stages(Told(), sampler_of(), streams, 0))) == 1


def test_what_is_judged_pays_the_reward_that_is_asked_for():
    sparse = evaluate(Counter(), PROBLEM, TASKS, num_steps=0, seed=0, reward="sparse")
    dense = evaluate(Counter(), PROBLEM, TASKS, num_steps=0, seed=0)
    assert (sparse.mean.episode_return >= 0).all()
    assert (dense.mean.episode_return < 0).all()


def test_few_episodes_a_step_are_several_trials():
    assert [num_trials(k) for k in (1, 4, 5, 20)] == [5, 5, 1, 1]


@pytest.mark.parametrize(("episodes", "trials", "run"), [(2, 5, {"run_seed": 2}), (5, 1, {})])
def test_what_is_evaluated_is_the_mean_over_the_trials_of_a_task(episodes, trials, run):
    steps = []
    found = evaluate(
        Counter(),
        PROBLEM,
        REACHED,
        num_steps=1,
        seed=3,
        **run,
        episodes_per_step=episodes,
        on_step=steps.append,
    )
    sampler = PROBLEM.sampler(
        tuple(task for task in REACHED for _ in range(trials)), explore=episodes, mean=5
    )
    numbers = partial(stream, 3, "evaluation", run.get("run_seed", 0))
    every = meta_test(Counter(), sampler, numbers, 1)
    for outcome, single in ((found.mean, every.mean), (found.stochastic, every.stochastic)):
        for values, of_trials in zip(outcome, single, strict=True):
            means = [of_trials[:, own].mean(1) for own in (slice(trials), slice(trials, None))]
            np.testing.assert_allclose(values, np.stack(means, 1), rtol=1e-6)
    assert found.episodes_per_step == episodes
    assert steps == [0, 1]


class Ending:
    """Simulations of a task that end when the test says, and succeed when it says."""

    def __init__(self, sims, ends, succeeds):
        self._sims, self._ends, self._succeeds, self._t = sims, ends, succeeds, 0

    def __getattr__(self, name):
        return getattr(self._sims, name)

    def reset(self, *args, **named):
        self._t = 0
        return self._sims.reset(*args, **named)

    def step(self, action):
        found = self._sims.step(action)._asdict()
        num = len(found["reward"])
        found["terminated"] = np.full(num, self._t == self._ends)
        found["success"] = np.full(num, self._succeeds(self._t))
        found["reward"] = np.full(num, 1.0)
        self._t += 1
        return Step(**found)


@pytest.mark.parametrize(
    ("ends", "succeeds", "earned", "success"),
    [
        (4, lambda t: t <= 4, 5, 1.0),  # what comes after the end takes nothing away
        (4, lambda t: t > 4, 5, 0.0),  # and gives nothing
        (T - 1, lambda t: t == T - 1, T, 1.0),
        (T, lambda t: t == 3, T, 0.0),  # only the end counts
    ],
)
def test_success_and_return_are_those_until_the_end(ends, succeeds, earned, success):
    sampler = sampler_of()
    sampler._sims = Ending(sampler._sims, ends, succeeds)
    curve = meta_test(Counter(), sampler, streams, 0)
    assert (curve.mean.episode_return == earned).all()
    assert (curve.mean.success == success).all()
    [stage] = stages(Counter(), sampler, streams, 0)
    alive = stage.sampled.explored.rollouts.alive
    assert alive[..., : ends + 1].all()
    assert not alive[..., ends + 1 :].any()


@pytest.mark.parametrize("by_itself", [True, False])
def test_a_time_limit_of_the_environment_ends_an_episode_and_terminates_nothing(by_itself):
    class Cut(Ending):
        def step(self, action):
            found = super().step(action)
            if by_itself:
                return found
            return found._replace(terminated=~found.terminated & False, truncated=found.terminated)

    sampler = sampler_of()
    sampler._sims = Cut(sampler._sims, 4, lambda t: True)
    [stage] = stages(Counter(), sampler, streams, 0)
    rollouts = stage.sampled.explored.rollouts
    assert (rollouts.alive.sum(-1) == 5).all()
    assert (rollouts.terminated.sum(-1) == by_itself).all()
    assert (rollouts.terminated[..., 4] == by_itself).all()
    paid, final = rollouts.reward, sampler.final[:, : rollouts.reward.shape[1]]
    assert (Episodes.of(rollouts, final, paid).ended == by_itself).all()
    assert (Trials.of([rollouts.episodes(slice(1))]).ended == by_itself).all()


def test_what_an_actor_sees_of_an_end():
    seen = []

    class Watching(Still):
        def __call__(self, memory, what):
            seen.append(what)  # and reads it when all is over
            return super().__call__(memory, what)

    sampler = Sampler(make_family("point"), TASKS, "dense", explore=K)
    sampler._sims = Ending(sampler._sims, 4, lambda t: True)
    sampler(Watching(torch.zeros(len(TASKS))), sampler.streams(streams(0)))
    # Paid in the step before, up to and with the one that ended the episode.
    found = [(what.alive.all().item(), what.reward.max().item()) for what in seen]
    assert found == [(True, 0.0), *[(True, 1.0)] * 4, (False, 1.0), *[(False, 0.0)] * (T - 6)]


def test_tasks_beside_it_change_nothing_of_a_task():
    tasks = make_tasks(make_family("point"), "uniform", "validation", num_tasks=4)
    whole, fewer = (
        meta_test(Counter(), sampler_of(tasks[:num]), partial(stream, 0, "t"), 1) for num in (4, 2)
    )
    np.testing.assert_array_equal(whole.mean.episode_return[:, :2], fewer.mean.episode_return)
