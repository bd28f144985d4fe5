"""Batches: the same numbers at any thread count and batch size, and from any saved moment."""

import subprocess
import sys

import numpy as np
import pytest

from demokit.envs import family_names, make_family
from demokit.envs.batch import SimBatch
from demokit.errors import DemokitError

STEPS = 12
FAMILIES = family_names()


def context_of(family, num, seed=0):
    return family.context.sample(np.random.default_rng(seed), num)


def actions_for(family, num, steps=STEPS, seed=1):
    """Random actions that move the hand onto the block or the handle, so that contacts count."""
    actions = np.random.default_rng(seed).uniform(-1, 1, (steps, num, len(family.actions)))
    actions[:, :, 1] = 1
    return actions.astype(np.float32)


def roll_out(sims, context, seeds, actions):
    rows = [sims.reset(context, seeds)]
    rewards = []
    for action in actions:
        step = sims.step(action)
        rows.append(step.observation)
        rewards.append(step.reward)
    return np.array(rows), np.array(rewards), sims.get_state().physics


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("num_threads", [2, 4])
def test_threads_do_not_change_a_bit(name, num_threads):
    family = make_family(name)
    context, actions = context_of(family, 7), actions_for(family, 7)
    one = roll_out(SimBatch(family, 7, num_threads=1), context, range(7), actions)
    more = roll_out(SimBatch(family, 7, num_threads=num_threads), context, range(7), actions)
    for a, b in zip(one, more, strict=True):
        assert np.array_equal(a, b)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_simulation_does_not_depend_on_its_neighbours(name):
    family = make_family(name)
    context, actions = context_of(family, 7), actions_for(family, 7)
    together = roll_out(SimBatch(family, 7), context, range(7), actions)
    for i in (0, 3, 6):
        alone = roll_out(SimBatch(family, 1), context[i : i + 1], [i], actions[:, i : i + 1])
        assert np.array_equal(alone[0][:, 0], together[0][:, i])
        assert np.array_equal(alone[1][:, 0], together[1][:, i])
        assert np.array_equal(alone[2][0], together[2][i])


@pytest.mark.parametrize("name", FAMILIES)
def test_four_hundred_are_the_same_as_one(name):
    family = make_family(name)
    context, actions = context_of(family, 400), actions_for(family, 400, steps=3)
    together = roll_out(SimBatch(family, 400), context, range(400), actions)
    for i in (0, 399):
        alone = roll_out(SimBatch(family, 1), context[i : i + 1], [i], actions[:, i : i + 1])
        assert np.array_equal(alone[0][:, 0], together[0][:, i])
        assert np.array_equal(alone[1][:, 0], together[1][:, i])
        assert np.array_equal(alone[2][0], together[2][i])


@pytest.mark.parametrize("name", FAMILIES)
def test_other_processes_compute_the_same(name):
    family = make_family(name)
    here = roll_out(SimBatch(family, 2), context_of(family, 2), range(2), actions_for(family, 2))
    code = (
        f"from tests.envs.test_batch import *; family = make_family({name!r}); "
        "print(roll_out(SimBatch(family, 2), context_of(family, 2), range(2), "
        "actions_for(family, 2))[2].tobytes().hex())"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == here[2].tobytes().hex()


@pytest.mark.parametrize("name", FAMILIES)
def test_resuming_from_a_saved_state_repeats_the_episode(name):
    family = make_family(name)
    context, actions = context_of(family, 3), actions_for(family, 3, 2 * STEPS)
    sims = SimBatch(family, 3)
    roll_out(sims, context, range(3), actions[:STEPS])
    middle, seen = sims.get_state(), sims.observe()
    expected = [sims.step(action) for action in actions[STEPS:]]
    other = SimBatch(family, 3, num_threads=1)
    other.reset(context_of(family, 3, seed=9), [7, 8, 9])
    assert np.array_equal(other.set_state(middle), seen)
    for action, before in zip(actions[STEPS:], expected, strict=True):
        again = other.step(action)
        for a, b in zip(again, before, strict=True):
            assert np.array_equal(a, b)
    assert np.array_equal(other.get_state().physics, sims.get_state().physics)


@pytest.mark.parametrize("name", FAMILIES)
def test_resetting_some_leaves_the_others_alone(name):
    family = make_family(name)
    context, actions = context_of(family, 4), actions_for(family, 4)
    sims = SimBatch(family, 4)
    roll_out(sims, context, range(4), actions)
    before = sims.get_state()
    observation = sims.reset(context[:2], [10, 11], ids=np.array([1, 3]))
    after = sims.get_state()
    assert np.array_equal(after.physics[[0, 2]], before.physics[[0, 2]])
    assert after.step_index.tolist() == [STEPS, 0, STEPS, 0]
    fresh = SimBatch(family, 1).reset(context[:1], [10])
    assert np.array_equal(observation[1], fresh[0])


@pytest.mark.parametrize("name", FAMILIES)
def test_seeds_decide_the_start(name):
    family = make_family(name)
    starts = SimBatch(family, 3).reset(context_of(family, 3), [5, 5, 6])
    assert np.array_equal(starts[0], starts[1])
    assert np.array_equal(starts[0], starts[2]) == (family.start_noise_width == 0)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_horizon_truncates_and_nobody_idle_terminates(name):
    family = make_family(name)
    sims = SimBatch(family, 1)
    sims.reset(context_of(family, 1), [0])
    idle = np.zeros((1, len(family.actions)))
    ends = [sims.step(idle) for _ in range(family.horizon)]
    assert [bool(step.truncated[0]) for step in ends] == [False] * (family.horizon - 1) + [True]
    assert not any(step.terminated[0] for step in ends)


def test_bad_actions_are_refused_and_change_nothing():
    family = make_family("push")
    sims = SimBatch(family, 2)
    sims.reset(context_of(family, 2), [0, 1])
    before = sims.get_state().physics
    with pytest.raises(DemokitError, match=r"in step 1: action 1 .* is nan, so it was not"):
        sims.step(np.array([[0, 0, 0], [0, np.nan, 0]]))
    with pytest.raises(DemokitError, match=r"push needs \(2, 3\)"):
        sims.step(np.zeros((2, 4)))
    assert np.array_equal(sims.get_state().physics, before)


def test_unknown_rewards_and_states_of_another_size_are_refused():
    family = make_family("point")
    with pytest.raises(DemokitError, match="did you mean 'sparse'"):
        SimBatch(family, 1, reward="sparce")
    with pytest.raises(DemokitError, match="at least one"):
        SimBatch(family, 0)
    two = SimBatch(family, 2)
    two.reset(context_of(family, 2), [0, 1])
    with pytest.raises(DemokitError, match="State has shape"):
        SimBatch(family, 1).set_state(two.get_state())


def test_actions_are_clipped():
    family = make_family("point")
    far, near = SimBatch(family, 1), SimBatch(family, 1)
    for sims in (far, near):
        sims.reset(context_of(family, 1), [0])
    clipped = near.step(np.array([[1.0, -1.0]])).observation
    assert np.array_equal(far.step(np.array([[30.0, -2.0]])).observation, clipped)


def test_each_simulation_has_a_task_and_a_seed_of_its_own():
    sims = SimBatch(make_family("point"), 3)
    for contexts in (np.zeros((1, 2)), np.zeros((2, 2)), np.zeros(2)):
        with pytest.raises(DemokitError, match=r"have the shape \(3, 2\)"):
            sims.reset(contexts, range(3))
    with pytest.raises(DemokitError, match="3 simulations start with a seed each, and 1"):
        sims.reset(np.zeros((3, 2)), [0])
    with pytest.raises(DemokitError, match=r"from 0 to .*, not -1"):
        sims.reset(np.zeros((3, 2)), [0, -1, 2])
    sims.reset(np.zeros((3, 2)), range(3))
    state = sims.get_state()
    with pytest.raises(DemokitError, match=r"have the shape \(3, 2\)"):
        sims.set_state(state._replace(context=np.zeros((4, 2))))
