"""MAML with a model: the inner step, the outer gradient, what is foreseen, and planning."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from demokit.envs import family_names, make_family
from demokit.envs.batch import SimBatch
from demokit.errors import DemokitError
from demokit.random import stream
from gmps.experience.actor import Seen
from gmps.experience.transitions import Transitions, joined, latest, none_met
from gmps.method import find_method
from gmps.methods.model_based.algorithm import Episodes, window_loss
from gmps.methods.model_based.learner import nominal
from gmps.methods.model_based.model import ADAPTATIONS, GRADIENT, MEMORY, NONE, Units, model_of
from gmps.methods.model_based.options import ModelBasedOptions
from gmps.policies.meta_params import MetaParams
from gmps.problem import Training
from gmps.sources import problem_of_family
from gmps.steps.planning import Search, plan

STATE, ACTION, HIDDEN = 3, 2, 6


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def met(num, steps, seed=0):
    """Transitions of random numbers, in doubles; the first of the second simulation is none."""
    draw = rng(seed)

    def some(*width):
        return torch.randn(num, steps, *width, generator=draw, dtype=torch.float64)

    weight = torch.ones(num, steps, dtype=torch.float64)
    weight[1, 0] = 0
    return Transitions(some(STATE), some(ACTION), some(STATE), some(), weight)


def model(adaptation, inner_steps=2):
    """A model in units that are not 1, and its parameters, in doubles."""
    steps = {"inner_steps": inner_steps} if adaptation == GRADIENT else {}
    options = ModelBasedOptions(hidden_width=HIDDEN, adaptation=adaptation, **steps)
    units = Units(
        *(torch.rand(n, generator=rng(n), dtype=torch.float64) + 0.5 for n in 2 * [3, 3, 1])
    )
    units = Units(units.state_mean, units.state_scale, units.change_scale.new_ones(3),
                  units.state_scale.flip(0), units.change_mean.new_zeros(1) + 0.3,
                  units.change_mean.new_zeros(1) + 1.7)  # fmt: skip
    found = model_of(options, units, ACTION)
    torch.set_default_dtype(torch.float64)
    try:
        meta = found.init(rng(), 0.05)
    finally:
        torch.set_default_dtype(torch.float32)
    shaken = {
        n: v + 0.1 * torch.randn(v.shape, generator=rng(9)).double() for n, v in meta.theta.items()
    }
    return found, MetaParams(shaken, meta.step_sizes)


def network(params, i):
    """One of the adapted networks."""
    return {n: v[i : i + 1] if v.ndim == 3 else v for n, v in params.items()}


def rows(found, i):
    return Transitions(*(values[i : i + 1] for values in found))


def test_the_inner_step_descends_the_error_of_each_simulation_by_itself():
    made, meta = model(GRADIENT, inner_steps=1)
    window = met(3, 5)
    found = made.adapted(meta, window)
    name, at, eps = "1.weight", (2, 4), 1e-6

    def error(change, i):
        theta = {n: v.clone() for n, v in meta.theta.items()}
        theta[name][at] += change
        return made.error(theta, rows(window, i))

    for i in range(3):
        slope = (error(eps, i) - error(-eps, i)) / (2 * eps)
        expected = meta.theta[name][at] - meta.step_sizes[name][at] * slope
        torch.testing.assert_close(found[name][i][at], expected[0], rtol=1e-7, atol=1e-9)
    # A batch of simulations is as each alone.
    for i in range(3):
        alone = made.adapted(meta, rows(window, i))
        torch.testing.assert_close(alone[name][0], found[name][i])


@pytest.mark.parametrize("adaptation", ADAPTATIONS)
def test_the_outer_gradient_is_that_of_finite_differences(adaptation):
    made, meta = model(adaptation)
    meta = meta.learnable()
    before, after = met(3, 4, seed=1), met(3, 6, seed=2)
    window_loss(made, meta, before, after).backward()
    parts = [("theta", name) for name in meta.theta] + [("step_sizes", n) for n in meta.step_sizes]
    assert ("step_sizes", "0.bias") in parts or adaptation != GRADIENT
    for part, name in parts:
        leaf = getattr(meta, part)[name]
        direction = torch.randn(leaf.shape, generator=rng(3)).double()
        values = []
        for sign in (1, -1):
            moved = {n: v.detach().clone() for n, v in getattr(meta, part).items()}
            moved[name] += sign * 1e-5 * direction
            shifted = meta._replace(**{part: {n: v.requires_grad_() for n, v in moved.items()}})
            values.append(float(window_loss(made, shifted, before, after).detach()))
        slope = (values[0] - values[1]) / 2e-5
        assert float((leaf.grad * direction).sum()) == pytest.approx(slope, rel=1e-5, abs=1e-8)


def test_nothing_met_changes_nothing():
    made, meta = model(GRADIENT)
    nothing = Transitions(*(v.double() for v in none_met((2, 4), STATE, ACTION)))
    for name, value in made.adapted(meta, nothing).items():
        torch.testing.assert_close(value, meta.theta[name].expand_as(value), rtol=0, atol=0)
    remembering, meta = model(MEMORY)
    same, other = met(2, 4), met(2, 4)._replace(weight=torch.zeros(2, 4).double())
    biases = [remembering.adapted(meta, each)["0.bias"] for each in (same, other, nothing)]
    torch.testing.assert_close(biases[1], biases[2], rtol=0, atol=0)
    assert not torch.allclose(biases[0], biases[1])


def test_a_memory_does_not_see_what_does_not_count():
    made, meta = model(MEMORY)
    window = met(2, 4)
    padded = joined(Transitions(*(v.double() for v in none_met((2, 3), STATE, ACTION))), window)
    torch.testing.assert_close(
        made.adapted(meta, padded)["0.bias"], made.adapted(meta, window)["0.bias"]
    )


def test_what_it_foresees_is_step_after_step_of_what_it_says():
    made, meta = model(GRADIENT)
    window = met(2, 5)
    adapted = made.adapted(meta, window)
    state, actions = window.after[:, -1], torch.rand(2, 3, 4, ACTION, generator=rng()).double()
    found = made.earned(adapted, state, actions)
    for b in range(2):
        for n in range(3):
            now, total = state[b], 0.0
            for t in range(4):
                seen = torch.cat(
                    ((now - made.units.state_mean) / made.units.state_scale, actions[b, n, t])
                )
                hidden = seen
                for i in range(3):
                    hidden = hidden @ adapted[f"{i}.weight"][b] + adapted[f"{i}.bias"][b, 0]
                    hidden = hidden.relu() if i < 2 else hidden
                now = now + made.units.change_mean + made.units.change_scale * hidden[:-1]
                total += float(made.units.reward_mean + made.units.reward_scale * hidden[-1])
            assert float(found[b, n]) == pytest.approx(total)


def test_what_did_not_differ_keeps_its_own_unit():
    """Nobody was paid, and one number never moved: the first time must not outweigh all else."""
    some = torch.randn(40, 2, generator=rng()) * torch.tensor([0.1, 0.0])
    units = Units.of(Transitions(some, some, 2 * some, torch.zeros(40), torch.ones(40)))
    for scale in (units.state_scale, units.change_scale):
        assert scale[1] == 1
        assert scale[0] == pytest.approx(0.1, rel=0.3)
    assert units.reward_scale == 1


def test_more_tasks_an_iteration_than_there_are_is_one_sentence(tmp_path, invoke):
    asked = ("meta-train", "--env", "point-rotated", "--tasks", 3, "--method", "model-based")
    refused = invoke(*asked, "--meta-batch", 4, "--output-dir", tmp_path / "run", exit_code=1)
    assert "draws 4 tasks of 3: take fewer" in refused.output


def test_planning_finds_the_optimum_of_a_linear_system():
    """s' = s + a / 2, paid -(s'^2 + a^2 / 4): by the Riccati equation of its horizon."""
    horizon, gain, price, value = 5, 0.5, 0.25, 0.0
    gains = []
    for _ in range(horizon):
        worth = 1 + value
        gains.append(gain * worth / (price + gain**2 * worth))
        value = worth - (gain * worth) ** 2 / (price + gain**2 * worth)
    state = torch.tensor([0.6, -0.3])

    def earned(actions):
        now, total = state[:, None], 0
        for t in range(horizon):
            action = actions[:, :, t, 0]
            now = now + gain * action
            total = total - now**2 - price * action**2
        return total

    asked = []

    def counted(actions):
        asked.append(actions.shape)
        return earned(actions)

    found = plan(counted, Search(400, horizon, 8, 40), 2, 1, [rng()])
    assert asked == 8 * [(2, 400, horizon, 1)]  # each round's candidates once
    now = state
    for t, k in enumerate(reversed(gains)):
        torch.testing.assert_close(found[:, t, 0], -k * now, atol=0.02, rtol=0)
        now = now * (1 - gain * k)
    best = -value * state**2
    assert earned(found[:, None])[:, 0] == pytest.approx(best, abs=2e-3)
    # Random shooting takes the best of its candidates, and is no better.
    shot = plan(earned, Search(400, horizon, 1, 1), 2, 1, [rng()])
    tried = 2 * torch.rand(400, horizon, 1, generator=rng()) - 1
    paid = earned(tried.expand(2, *tried.shape))
    torch.testing.assert_close(shot, tried[paid.argmax(1)])
    assert (earned(shot[:, None])[:, 0] < best).all()


def test_windows_are_what_came_before_a_step_and_what_came_next():
    steps = torch.arange(5.0)
    observation = (10 * torch.arange(3.0)[:, None] + steps)[..., None]
    alive = torch.ones(3, 5)
    alive[2, 2:] = 0
    episodes = Episodes(observation, observation, observation[..., 0], alive)
    found = episodes.transitions(torch.tensor([1, 2]), torch.tensor([[-1, 0, 3, 4], [0, 1, 2, 3]]))
    assert found.weight.tolist() == [[0, 1, 1, 0], [1, 1, 0, 0]]
    assert found.before[0, 1:3, 0].tolist() == [10, 13]
    assert found.after[0, 1:3, 0].tolist() == [11, 14]
    before, after = episodes.windows(50, 2, rng())
    firsts = after.before[:, 0, 0]
    follows = before.weight[:, 1] > 0
    assert follows.any()
    assert not follows.all()
    torch.testing.assert_close(before.after[follows, 1, 0], firsts[follows])
    assert (after.weight[:, 0] == 1).all()  # none begins behind the end of an episode
    of_the_short = (firsts >= 20).float().mean()
    assert 0 < of_the_short < 0.35  # two of its steps count, four of the others': a fifth


def acted(actor, now):
    """What a planner does."""
    return actor(actor.memory, now)[0].sample(torch.zeros(4, 1, 2))


def test_every_seed_and_every_episode_tries_candidates_of_its_own():
    given = training("point")
    fresh = find_method("model-based").code.start(given)
    learner = replace(fresh, search=fresh.search._replace(candidates=8, horizon=2))
    belief, seen = learner.begin(4), torch.zeros(4, 1, 2)
    now = Seen(0, seen, torch.zeros(4, 1, 2), torch.zeros(4, 1), torch.ones(4, 1).bool())
    done = {}
    for seed in (0, 1):
        own = replace(learner, seed=seed)
        rngs = stream(seed, "test").spawn(4)
        done["judged", seed] = own.exploiter(belief, 1)
        done |= {(i, seed): own.explorer(belief, 0, 1, rngs) for i in range(2)}
    acts = {who: acted(actor, now) for who, actor in done.items()}
    assert torch.equal(acted(learner.exploiter(belief, 1), now), acts["judged", 0])
    every = [tuple(value.flatten().tolist()) for value in acts.values()]
    assert len(set(every)) == len(every)


def test_what_a_task_tries_depends_on_no_other():
    """In another process, or beside other tasks, it plans the same."""
    fresh = find_method("model-based").code.start(training("point"))
    learner = replace(fresh, search=Search(8, 2, 2, 2))
    now = Seen(
        0, torch.zeros(4, 1, 2), torch.zeros(4, 1, 2), torch.zeros(4, 1), torch.ones(4, 1) > 0
    )
    both = learner.explorer(learner.begin(4), 0, 1, stream(0, "test").spawn(4))
    last = learner.explorer(learner.begin(1), 0, 1, stream(0, "test").spawn(4)[3:])
    alone = Seen(0, *(value[3:] for value in now[1:]))
    found = last(last.memory, alone)[0].sample(torch.zeros(1, 1, 2))
    assert torch.equal(found[0], acted(both, now)[3])
    assert len({tuple(row.tolist()) for row in acted(both, now)[:, 0]}) == 4


def test_the_latest_transitions_are_those_that_count():
    window = met(2, 4)
    more = met(2, 3, seed=5)
    more = more._replace(weight=torch.tensor([[1, 0, 1], [0, 0, 0]]).double())
    found = latest(joined(window, more), 4)
    assert found.weight.tolist() == [[1, 1, 1, 1], [0, 1, 1, 1]]
    torch.testing.assert_close(
        found.reward[0], torch.cat((window.reward[0, 2:], more.reward[0, ::2]))
    )
    torch.testing.assert_close(found.reward[1, 1:], window.reward[1, 1:])


def training(env, task_set=None, reward="dense", **options):
    """A training on four tasks."""
    problem = problem_of_family(make_family(env), task_set, 4, reward, "state")
    return Training(problem, ModelBasedOptions(threads=1, **options))


@pytest.mark.parametrize(("name", "kind"), SEEN := [
    (name, kind) for name in family_names() for kind in make_family(name).seen_rewards
])  # fmt: skip
def test_a_known_reward_is_what_simulations_pay(name, kind):
    family, num = make_family(name), 20
    draw = np.random.default_rng(0)
    sims = SimBatch(family, num, reward=kind)
    sims.reset(family.context.sample(draw, num), range(num))
    learner = find_method("model-based").code.start(training(name, reward=kind, known_reward=True))
    for _ in range(10):
        action = draw.uniform(-1, 1, (num, len(family.actions))).astype(np.float32)
        step = sims.step(action)
        seen = torch.from_numpy(step.observation)[None]
        found = learner.paid(seen, torch.from_numpy(action)[None])
        assert found.shape == (1, num)
        np.testing.assert_allclose(found[0], step.reward, atol=1e-5)


def test_these_rewards_are_known():
    assert {name for name, _ in SEEN} == {"point-rotated", "cheetah-crippled"}


def test_it_plans_by_the_known_reward_of_what_it_foresees():
    made, meta = model(GRADIENT)
    window = met(2, 5)
    network = made.adapted(meta, window)
    state, actions = window.after[:, -1], torch.rand(2, 3, 4, ACTION, generator=rng()).double()
    reached = []

    def paid(now, action):
        reached.append(now)
        return now[..., 0] - action[..., 1]

    found = made.earned(network, state, actions, paid)
    expected = torch.stack([now[..., 0] for now in reached]).sum(0) - actions[..., 1].sum(-1)
    torch.testing.assert_close(found, expected)
    change, _ = made.units.meant(
        made.said(network, made.units.seen(state[:, None].expand(2, 3, -1), actions[:, :, 0]))
    )
    torch.testing.assert_close(reached[0], state[:, None] + change)
    assert len(reached) == 4


@pytest.mark.parametrize("env", ["push", "point"])
def test_a_reward_that_depends_on_what_is_hidden_is_not_known(env):
    with pytest.raises(DemokitError, match=f"--known-reward: the dense reward of {env} does not"):
        find_method("model-based").code.start(training(env, known_reward=True))


def test_nominal_roll_outs_are_all_of_the_same_dynamics():
    given = training("push", "dynamics", nominal=True)
    found = nominal(given)
    assert [task.context[2:] for task in found.problem.tasks] == 4 * [(0.1, 0.8)]
    before = [task.context[:2] for task in given.problem.tasks]
    assert [task.context[:2] for task in found.problem.tasks] == before
    assert len(set(before)) == 4
    with pytest.raises(DemokitError, match="Option --nominal has no effect: these tasks of push"):
        find_method("model-based").code.start(training("push", "uniform", nominal=True))


def test_what_it_learns_from_is_nominal():
    """Then nothing that is done tells one task from another, and the first move goes as meant."""
    given = training("point-rotated", nominal=True, iterations=1, adaptation=NONE, steps=1)
    method = find_method("model-based")
    (last,) = method.code.train(given, method.code.start(given), {}, 0)
    seen, action = last.state["episodes.observation"], last.state["episodes.action"]
    moved = seen[:, 1:3, :2] - seen[:, :2, :2]
    assert ((moved * action[:, :2]).sum(-1) > 0).all()
    assert last.env_steps == 4 * 20


def test_more_elites_than_candidates_is_one_sentence():
    with pytest.raises(DemokitError, match="40 --candidates have no 50 best ones"):
        ModelBasedOptions(candidates=40, rounds=2)
    assert ModelBasedOptions(candidates=40).rounds == 1


@pytest.mark.slow
def test_it_predicts_tasks_that_it_never_met_better_after_adapting_and_acts_by_it():
    """A hidden angle turns the actions: only what was met tells it."""
    problem = problem_of_family(make_family("point-rotated"), None, 20, "recorded", "state")
    earned = {}
    for adaptation in (GRADIENT, NONE):
        options = ModelBasedOptions(iterations=6, threads=1, adaptation=adaptation)
        method = find_method("model-based")
        training = Training(problem, options)
        found = list(method.code.train(training, method.code.start(training), {}, 0))
        last = found[-1].scalars
        earned[adaptation] = last["return_training"]
        if adaptation == GRADIENT:
            # Before it learns from them: these episodes are new to it.
            assert last["error_after"] < 0.5 * last["error_before"]
        else:
            assert last["error_after"] == last["error_before"]
    assert earned[GRADIENT] > earned[NONE] + 1
