"""Ants and cheetahs: worked rewards, contact forces, early ends, and what follows from them."""

import gymnasium
import mujoco
import numpy as np
import pytest
import torch

import demokit.envs.gym  # noqa: F401
from demokit.envs import make_family
from demokit.envs.ant import START_QPOS
from demokit.envs.ant_goal import disc_goal_w_m
from demokit.envs.batch import SimBatch
from demokit.envs.tasks import make_tasks
from gmps.experience.sampler import Sampler
from gmps.policies.gaussian import GaussianActor, GaussianPolicy, replicate

STILL = np.zeros((1, 8))


def ant_terms(x=0.0, y=0.0, vel=(0.0, 0.0, 0.0), forces=0):
    return {
        "torso_pos_w_m": np.array([[x, y, 0.5]]),
        "torso_vel_w": np.array([vel]),
        "contact_force": np.pad(np.ones((1, forces)), ((0, 0), (0, 84 - forces))),
    }


def upturned(sims):
    """The ant of simulation 0 thrown above its healthy height."""
    state = sims.get_state()
    probe = mujoco.MjData(sims.family.model)
    kind = mujoco.mjtState.mjSTATE_INTEGRATION
    mujoco.mj_setState(sims.family.model, probe, state.physics[0], kind)
    probe.qpos[2] = 1.5
    mujoco.mj_getState(sims.family.model, probe, state.physics[0], kind)
    sims.set_state(state)


def test_ant_rewards():
    family, goal = make_family("ant"), np.array([[np.pi / 6]])  # at (1.732, 1.0)
    assert family.reward_dense(ant_terms(), goal, STILL) == pytest.approx(4 - 2.7320508 + 0.05)
    paid = family.reward_dense(ant_terms(1.5, 0.8, forces=10), goal, np.full((1, 8), 0.5))
    assert paid == pytest.approx(4 - 0.2320508 - 0.2 - 0.01 - 0.005 + 0.05)
    near, start = ant_terms(1.5, 0.8), ant_terms()
    assert family.reward("sparse", start, goal, STILL) == 0
    paid = family.reward("sparse", near, goal, STILL)
    assert paid == pytest.approx(2.7320508 - 0.4320508 + 0.05)
    paper = "sparse-paper"
    assert family.reward(paper, start, goal, STILL) == pytest.approx(4 - 2.7320508)
    assert family.reward(paper, near, goal, STILL) == family.reward_dense(near, goal, STILL)
    assert family.success(near, goal)[0]
    assert not family.success(ant_terms(1.2, 0.9), goal)[0]


def test_ant_direction_rewards():
    family, back = make_family("ant-dir"), np.array([[np.pi]])
    moving = ant_terms(x=-0.6, vel=(-0.4, 0.3, 0.0))
    assert family.reward_dense(moving, back, STILL) == pytest.approx(0.4 + 0.05)
    assert family.success(moving, back)[0]
    assert not family.success(moving, np.array([[0.0]]))[0]
    assert family.reward_sparse(moving, np.array([[0.0]]), STILL) == 0


def test_promps_direction_pays_survival_and_effort_more_and_ends_at_other_heights():
    family, back = make_family("ant-dir-promp"), np.array([[np.pi]])
    moving = ant_terms(x=-0.6, vel=(-0.4, 0.3, 0.0), forces=10)
    paid = family.reward_dense(moving, back, np.full((1, 8), 0.5))
    assert paid == pytest.approx(0.4 - 0.5 * 8 * 0.25 - 0.005 + 1)
    heights = {"torso_pos_w_m": np.array([[0, 0, -0.1], [0, 0, 0.1], [0, 0, 0.9], [0, 0, 1.1]])}
    assert family.terminated(heights).tolist() == [True, False, False, True]
    assert make_family("ant-dir").terminated(heights).tolist() == [True, True, False, True]


def test_goals_of_ant_goal_are_spread_evenly_over_the_disc_and_nothing_ends():
    family = make_family("ant-goal")
    goals = disc_goal_w_m(family.context.sample(np.random.default_rng(0), 4000))
    away = np.linalg.norm(goals, axis=1)
    assert away.max() < 3
    np.testing.assert_allclose((away < 1.5).mean(), 0.25, atol=0.03)
    np.testing.assert_allclose(goals.mean(0), 0, atol=0.1)
    context = np.array([[np.pi / 2, 0.25]])  # at (0, 1.5)
    np.testing.assert_allclose(disc_goal_w_m(context), [[0, 1.5]], atol=1e-12)
    near = ant_terms(0.3, 1.2, forces=10)
    paid = family.reward_dense(near, context, np.full((1, 8), 0.5))
    assert paid == pytest.approx(-0.6 - 0.1 * 2 - 0.005)
    assert family.reward_sparse(near, context, STILL) == pytest.approx(0.8 - 0.6 - 0.005)
    assert family.reward_sparse(ant_terms(), context, STILL) == 0
    assert family.success(near, context)[0]
    fallen = {"torso_pos_w_m": np.array([[0.0, 0.0, 0.0]])}
    assert not family.terminated(fallen)[0]


def test_maesns_ring_is_half_a_circle():
    angles = [
        task.context[0] for task in make_tasks(make_family("ant"), "maesn", "train", num_tasks=100)
    ]
    assert 0 < min(angles) < 0.1
    assert np.pi - 0.1 < max(angles) < np.pi


def test_cheetah_rewards():
    terms = {"mean_vel_x_w": np.array([[2.0]]), "root_x_w_m": np.array([[1.2]])}
    action, target = np.full((1, 6), 0.5), np.array([[2.2]])
    vel, direction = make_family("cheetah-vel"), make_family("cheetah-dir")
    assert vel.reward_dense(terms, target, action) == pytest.approx(-0.2 - 0.075)
    assert vel.reward_sparse(terms, target, action) == pytest.approx(0.3 - 0.2 - 0.075)
    assert vel.reward_sparse(terms, target + 1, action) == 0
    assert direction.reward_dense(terms, np.array([[-1.0]]), action) == pytest.approx(-2.075)
    assert direction.success(terms, np.array([[1.0]]))[0]
    assert not direction.success(terms, np.array([[-1.0]]))[0]


def test_the_cheetah_is_gymnasiums_and_its_speed_the_mean_over_the_step():
    family = make_family("cheetah-vel")
    theirs = gymnasium.make("HalfCheetah-v5").unwrapped
    np.testing.assert_allclose(family.model.body_mass, theirs.model.body_mass, rtol=1e-12)
    sims = SimBatch(family, 1)
    sims.reset(np.array([[1.0]]), [3])
    qpos, qvel = sims.terms["root_x_w_m"], sims.terms["body_vel"]
    theirs.reset()
    theirs.set_state(np.concatenate([qpos, sims.terms["body_pos"]], axis=1)[0], qvel[0])
    for action in np.random.default_rng(0).uniform(-1, 1, (20, 6)).astype(np.float32):
        observation = sims.step(action[None]).observation[0]
        expected, *_, info = theirs.step(action)
        np.testing.assert_allclose(observation, expected, atol=1e-4)
        assert sims.terms["mean_vel_x_w"][0, 0] == pytest.approx(info["x_velocity"], abs=1e-5)


def test_a_crippled_cheetah_is_one_whose_motor_gives_nothing():
    family, plain = make_family("cheetah-crippled"), make_family("cheetah-vel")
    actions = np.random.default_rng(0).uniform(-1, 1, (20, 6)).astype(np.float32)
    contexts = np.ones((7, 6))
    contexts[np.arange(1, 7), np.arange(6)] = 0
    sims, theirs = SimBatch(family, 7), SimBatch(plain, 7)
    sims.reset(contexts, [3] * 7)
    theirs.reset(np.ones((7, 1)), [3] * 7)
    for action in actions:
        given = action * contexts
        step = sims.step(np.tile(action, (7, 1)))
        expected = theirs.step(given).observation
        np.testing.assert_allclose(step.observation[:, :17], expected, atol=1e-5)
        # What is paid can be computed from what is seen, and an idle torque costs as well.
        paid = step.observation[:, 17] - 0.05 * np.square(action).sum()
        np.testing.assert_allclose(step.reward, paid, atol=1e-5)
    np.testing.assert_array_equal(family.nominal(contexts), np.ones((7, 6)))
    # The green ball that people see is where success begins.
    (marker,) = family.goal_marker(contexts[1]).values()
    assert not family.success({"root_x_w_m": marker[:1][None]}, contexts[:1])[0]
    assert family.success({"root_x_w_m": marker[:1][None] + 1e-9}, contexts[:1])[0]
    state = sims.get_state()
    again = SimBatch(family, 7)
    again.set_state(state)
    np.testing.assert_array_equal(
        again.step(contexts - 0.5).observation, sims.step(contexts - 0.5).observation
    )


def test_ant_observation_has_the_papers_width_and_forces():
    family = make_family("ant")
    assert family.observation_width == 122
    assert family.model.actuator_gear[:, 0].tolist() == [30.0] * 8
    sims = SimBatch(family, 3)
    sims.reset(family.context.sample(np.random.default_rng(0), 3), range(3))
    assert (sims.terms["contact_force"] == 0).all()
    start = sims.privileged()["torso_pos_w_m"]
    assert np.abs(start - START_QPOS[:3]).max() <= 0.1
    for _ in range(60):
        sims.step(np.zeros((3, 8)))
    forces = sims.terms["contact_force"]
    assert np.abs(forces).max() == 1  # standing: the feet carry more than 1 N
    data = sims.data(1)
    mujoco.mj_kinematics(family.model, data)
    np.testing.assert_allclose(
        sims.terms["torso_frame_w"][1], data.body("torso").xmat, rtol=1e-9, atol=1e-9
    )


def test_forces_are_those_of_a_plain_mujoco_loop():
    family = make_family("ant")
    sims = SimBatch(family, 1)
    sims.reset(np.array([[0.3]]), [1])
    model, data = family.model, mujoco.MjData(family.model)
    kind = mujoco.mjtState.mjSTATE_INTEGRATION
    mujoco.mj_setState(model, data, sims.get_state().physics[0], kind)
    for action in np.random.default_rng(0).uniform(-1, 1, (60, 1, 8)).astype(np.float32):
        sims.step(action)
        data.ctrl[:] = action[0]
        mujoco.mj_step(model, data)
    expected = np.clip(data.cfrc_ext.ravel(), -1, 1)
    assert np.array_equal(sims.terms["contact_force"][0], expected)
    assert np.abs(expected).max() > 0


def test_an_ant_off_its_feet_ends_its_episode_alone():
    sims = SimBatch(make_family("ant"), 2)
    sims.reset(np.array([[0.1], [0.2]]), [0, 1])
    upturned(sims)
    step = sims.step(np.zeros((2, 8)))
    assert step.terminated.tolist() == [True, False]
    assert not step.truncated.any()


def test_the_vector_env_restarts_an_ended_episode():
    env = gymnasium.make_vec(
        "demokit/Ant-v0", num_envs=2, vectorization_mode="vector_entry_point"
    ).unwrapped
    env.reset(seed=0)
    upturned(env.sims)
    idle = np.zeros((2, 8), np.float32)
    _, _, terminated, _, _ = env.step(idle)
    assert terminated.tolist() == [True, False]
    observation, reward, terminated, _, _ = env.step(idle)
    assert not terminated.any()
    assert reward[0] == 0
    assert observation[0, 2] < 0.9
    assert env.sims.get_state().step_index.tolist() == [0, 2]


def test_the_sampler_pays_nothing_after_the_end(monkeypatch):
    family = make_family("ant")
    tasks = make_tasks(family, "paper", "train", num_tasks=1)
    policy = GaussianPolicy(torch.zeros(122), torch.ones(122), 8)
    actor = GaussianActor(policy, replicate(policy.init(torch.Generator().manual_seed(0)), 1))
    sampler = Sampler(family, tasks, "dense", explore=2)

    def run():
        return sampler(actor, sampler.streams(np.random.default_rng(0))).explored.rollouts

    whole = run()
    calls = []

    def ends_at_ten(*_):
        calls.append(1)
        return np.array([len(calls) == 10, False])

    monkeypatch.setattr(type(family), "terminated", ends_at_ten)
    cut = run()
    assert torch.equal(cut.reward[0, 1], whole.reward[0, 1])
    assert torch.equal(cut.reward[0, 0, :10], whole.reward[0, 0, :10])
    assert (cut.reward[0, 0, 10:] == 0).all()
    assert torch.equal(cut.observation, whole.observation)
