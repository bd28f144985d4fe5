"""Scripted experts: their figures on a small sample, and that they are pure functions."""

import mujoco
import numpy as np
import pytest

from demokit.envs import make_family
from demokit.envs.arm_torque import fingertip_w_m
from demokit.envs.batch import SimBatch
from demokit.envs.tasks import make_tasks
from demokit.errors import DemokitError
from recorders.noise import NoisyExpert
from recorders.scripted import make_scripted
from recorders.scripted.arm_torque import mass_matrix, posture_rad
from recorders.scripted.random import make_random


def roll_out(name, contexts, noise_std=0.0, seed=0):
    family = make_family(name)
    sims = SimBatch(family, len(contexts))
    source = NoisyExpert(make_scripted(name), noise_std, np.random.default_rng(seed))
    observation = sims.reset(contexts, np.arange(len(contexts)))
    returns = np.zeros(len(contexts))
    for _ in range(family.horizon):
        step = sims.step(source.decide(observation, sims.privileged()).action)
        observation, returns = step.observation, returns + step.reward
    return returns, sims.privileged()


def paper_contexts(name, num_tasks, episodes):
    tasks = make_tasks(make_family(name), "paper", "train", num_tasks=num_tasks)
    return np.repeat([task.context for task in tasks], episodes, axis=0)


def block_error_m(final):
    return np.linalg.norm(final["block_pos_w_m"][:, :2] - final["context"], axis=1)


def test_push_beats_the_released_experts():
    returns, final = roll_out("push", paper_contexts("push", 10, 4))
    assert returns.mean() > 669.7
    assert block_error_m(final).mean() < 0.031
    assert final["success"].mean() >= 0.97


@pytest.mark.parametrize("noise_std", [0.0, 0.2])
def test_push_knows_how_its_hand_is_turned(noise_std):
    tasks = make_tasks(make_family("push-rotated"), "uniform", "train", num_tasks=60)
    _, final = roll_out("push-rotated", np.array([task.context for task in tasks]), noise_std)
    assert final["success"].mean() >= 0.95


def test_push_survives_action_noise():
    _, final = roll_out("push", paper_contexts("push", 10, 4), noise_std=0.2)
    assert final["success"].mean() >= 0.95


def test_push_recovers_from_states_it_would_not_visit():
    """The hand drifts away from, onto or past the block; the expert brings the block home."""
    family = make_family("push")
    rng = np.random.default_rng(0)
    num = 48
    sims, expert = SimBatch(family, num), make_scripted("push")
    observation = sims.reset(family.context.sample(rng, num), np.arange(num))
    drift = rng.uniform(-1, 1, (num, 3))
    for _ in range(20):
        observation = sims.step(drift + np.array([0, 0.7, -0.3])).observation
    for _ in range(75):
        step = sims.step(expert.act(observation, sims.privileged()))
        observation = step.observation
    assert step.success.mean() >= 0.9


@pytest.mark.parametrize("noise_std", [0.0, 0.2])
def test_door_reaches_every_angle(noise_std):
    targets = np.linspace(0.04, np.pi / 3, 40)[:, None]
    _, final = roll_out("door", targets, noise_std)
    error = np.abs(final["door_angle_rad"] - targets)
    assert (error < 0.05).mean() >= 0.97
    assert final["success"].all()


def test_point_goes_straight_to_the_goal():
    contexts = make_family("point").context.sample(np.random.default_rng(0), 40)
    _, final = roll_out("point", contexts)
    assert np.abs(final["point_pos_w_m"] - contexts).max() < 1e-3


def test_an_expert_knows_what_the_codes_stand_for():
    family = make_family("point-coded")
    contexts = family.context.sample(np.random.default_rng(0), 40)
    _, final = roll_out("point-coded", contexts)
    assert np.abs(final["point_pos_w_m"] - family.goal_w_m({}, contexts)).max() < 1e-3


def test_sliders_go_to_their_places():
    family = make_family("sliders")
    rng = np.random.default_rng(0)
    contexts = np.concatenate([family.context.sample(rng, 40), family.context.sample_ood(rng, 40)])
    _, final = roll_out("sliders", contexts)
    assert np.abs(final["slider_pos_m"] - contexts).max() < 1e-3


@pytest.mark.parametrize("task_set", ["uniform", "ood", "dynamics"])
def test_the_arm_reaches_its_goals_whatever_it_carries(task_set):
    split = "ood" if task_set == "ood" else "train"
    tasks = make_tasks(make_family("arm-torque"), task_set, split, num_tasks=60)
    contexts = np.array([task.context for task in tasks])
    _, final = roll_out("arm-torque", contexts)
    assert np.linalg.norm(final["fingertip_pos_w_m"] - contexts[:, :2], axis=1).max() < 2e-3
    assert roll_out("arm-torque", contexts, noise_std=0.2)[1]["success"].mean() >= 0.95


def test_postures_bring_the_fingertip_to_the_goal():
    space = make_family("arm-torque").context
    rng = np.random.default_rng(0)
    goals = np.concatenate([space.sample(rng, 200), space.sample_ood(rng, 200)])
    np.testing.assert_allclose(fingertip_w_m(posture_rad(goals)), goals, atol=1e-9)


@pytest.mark.parametrize("payload_kg", [0.05, 0.2, 1.0])
def test_the_mass_matrix_is_mujocos(payload_kg):
    spec = make_family("arm-torque").spec()
    (ball,) = spec.body("payload").geoms
    ball.mass = payload_kg
    model = spec.compile()
    data, full = mujoco.MjData(model), np.zeros((2, 2))
    for elbow in (0.3, 1.4, 2.6):
        data.qpos[:] = (0.7, elbow)
        mujoco.mj_forward(model, data)
        mujoco.mj_fullM(model, data, full)
        got = mass_matrix(np.array([elbow]), np.array([payload_kg]))[0]
        np.testing.assert_allclose(got, full, rtol=1e-9)


def test_an_expert_that_knows_the_rotation_goes_straight_too():
    contexts = make_family("point-rotated").context.sample(np.random.default_rng(0), 40)
    _, final = roll_out("point-rotated", contexts)
    assert np.abs(final["point_pos_w_m"] - final["goal_pos_w_m"]).max() < 1e-3
    _, final = roll_out("point-rotated", contexts, noise_std=0.2)
    assert final["success"].mean() >= 0.95


SCRIPTED = (
    *("point", "point-corner", "point-rotated", "point-coded", "point-squared", "point-corner-2m"),
    *("push", "push-rotated", "door", "pick-place", "sliders", "arm-torque"),
)


@pytest.mark.parametrize("noise_std", [0.0, 0.2])
def test_pick_place_lifts_the_block_to_its_goal(noise_std):
    _, final = roll_out("pick-place", paper_contexts("pick-place", 20, 3), noise_std)
    error = np.linalg.norm(final["block_pos_w_m"] - final["context"], axis=1)
    assert final["success"].mean() >= 0.95
    assert np.median(error) < 0.01


@pytest.mark.parametrize("name", ["ant", "cheetah-vel", "push"])
def test_random_actions_are_spread_and_depend_on_the_state_alone(name):
    family, expert = make_family(name), make_random(name)
    sims = SimBatch(family, 200)
    sims.reset(family.context.sample(np.random.default_rng(0), 200), range(200))
    privileged = sims.privileged()
    action = expert.act(sims.observe(), privileged)
    assert action.shape == (200, len(family.actions))
    assert np.abs(action.mean()) < 0.05
    assert action.std() == pytest.approx(3**-0.5, abs=0.03)
    alone = expert.act(np.zeros((1, 1)), {"state": privileged["state"][7:8]})
    assert np.array_equal(alone[0], action[7])


@pytest.mark.parametrize("name", SCRIPTED)
def test_experts_are_pure_functions_of_the_privileged_state(name):
    family, expert = make_family(name), make_scripted(name)
    sims = SimBatch(family, 5)
    sims.reset(family.context.sample(np.random.default_rng(0), 5), np.arange(5))
    for _ in range(10):
        privileged = sims.privileged()
        kept = {key: values.copy() for key, values in privileged.items()}
        action = expert.act(sims.observe(), privileged)
        assert action.dtype == np.float32
        assert np.abs(action).max() <= 1
        assert np.array_equal(action, make_scripted(name).act(np.zeros((5, 1)), privileged))
        for row in range(5):
            one = {key: values[row : row + 1] for key, values in kept.items()}
            assert np.array_equal(expert.act(np.zeros((1, 1)), one)[0], action[row])
        assert all(np.array_equal(kept[key], privileged[key]) for key in kept)
        sims.step(action)


@pytest.mark.parametrize("name", ["push", "door"])
def test_before_anything_has_moved_the_tasks_look_alike(name):
    family, expert = make_family(name), make_scripted(name)
    contexts = family.context.sample(np.random.default_rng(0), 20)
    sims = SimBatch(family, 20)
    sims.reset(contexts, [4] * 20)
    for _ in range(6):
        action = expert.act(sims.observe(), sims.privileged())
        assert np.ptp(action, axis=0).max() < 1e-6
        sims.step(action)


def test_noise_keeps_the_label_and_the_bounds():
    privileged = {"point_pos_w_m": np.zeros((500, 2)), "context": np.full((500, 2), 0.05)}
    source = NoisyExpert(make_scripted("point"), 0.2, np.random.default_rng(0))
    decision = source.decide(np.zeros((500, 2)), privileged)
    assert np.allclose(decision.label, 0.5)
    assert np.abs(decision.action).max() <= 1
    assert decision.action.dtype == np.float32
    assert (decision.action - decision.label).std() == pytest.approx(0.2, abs=0.02)
    with pytest.raises(DemokitError, match="at least 0"):
        NoisyExpert(make_scripted("point"), -1.0, np.random.default_rng(0))


def test_random_actions_label_nothing():
    source = NoisyExpert(make_random("point"), 0.2, np.random.default_rng(0))
    sims = SimBatch(make_family("point"), 3)
    decision = source.decide(sims.reset(np.zeros((3, 2)), range(3)), sims.privileged())
    assert decision.label is None
    assert decision.by_expert.all()
    assert decision.action.shape == (3, 2)


def test_families_without_an_expert_say_what_to_do():
    with pytest.raises(DemokitError, match="did you mean 'push'"):
        make_scripted("puush")
    with pytest.raises(
        DemokitError, match=r"give --expert a file that train-expert wrote, or the name of your own"
    ):
        make_scripted("ant")
