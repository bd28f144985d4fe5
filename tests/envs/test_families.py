"""Families: worked numbers for rewards and success, starts, workspace, and no goal to be seen."""

from itertools import product

import mujoco
import numpy as np
import pytest

from demokit.envs import family_names, make_family
from demokit.envs.batch import SimBatch
from demokit.envs.door import HINGE_DAMPING, Door, handle_at
from demokit.envs.point import Point
from demokit.envs.point_coded import PointCoded
from demokit.envs.push import Push
from demokit.envs.sawyer import (
    REACH_M,
    SHOULDER_W_M,
    WORKSPACE_HIGH_W_M,
    WORKSPACE_LOW_W_M,
    finger_command,
    within_reach,
)
from demokit.errors import DemokitError
from recorders.scripted import make_scripted
from recorders.scripted.arm_torque import mass_matrix

NO_ACTION = np.zeros((1, 3))


def push_terms(hand, block):
    return {"hand_pos_w_m": np.array([hand]), "block_pos_w_m": np.array([block])}


def door_terms(hand, angle):
    handle = handle_at(np.array([angle]))
    return {
        "hand_pos_w_m": handle + np.array([hand]),
        "handle_pos_w_m": handle,
        "door_angle_rad": np.array([[angle]]),
    }


# Families whose tasks differ in their physics: what actions do tells the task, nothing else does.
PHYSICAL = ("point-rotated", "push-rotated", "cheetah-crippled")
SEEN_GOAL = ("point-rotated",)


@pytest.mark.parametrize("name", family_names())
def test_the_context_never_reaches_the_observation(name):
    family = make_family(name)
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1, 1, (15, len(family.actions)))
    actions[:, 1] = 1
    contexts = family.context.sample(rng, 4)
    if family.context.ood_low:
        contexts[2:] = family.context.sample_ood(rng, 2)
    sims = SimBatch(family, 4)
    seen = [sims.reset(contexts, [3] * 4)]
    if name not in PHYSICAL:
        seen += [sims.step(np.tile(action, (4, 1))).observation for action in actions]
    for observation in seen:
        assert (observation == observation[0]).all()
    assert family.observation_width == seen[0].shape[1]
    shown = " ".join(t.name for t in family.observation_terms)
    hidden = ("target_a", "target_v", "direction", *(() if name in SEEN_GOAL else ("goal",)))
    assert not any(word in shown for word in hidden)


def away_m(terms, name, context):
    return np.linalg.norm(terms[name][:, : context.shape[1]] - context, axis=1)


def along(terms, name, context):
    return (terms[name][:, :2] * np.c_[np.cos(context), np.sin(context)]).sum(axis=1)


# Where the sparse reward must not tell the task: terms (N, ...), contexts (N, C) -> (N,) bool.
FAR = {
    "point": lambda s, c: away_m(s, "point_pos_w_m", c) >= 0.5,
    "point-corner": lambda s, c: away_m(s, "point_pos_w_m", c) >= 0.5,
    "point-squared": lambda s, c: away_m(s, "point_pos_w_m", c) >= 0.2,
    "point-corner-2m": lambda s, c: away_m(s, "point_pos_w_m", c) >= 2.0,
    "point-coded": lambda s, c: away_m(s, "point_pos_w_m", PointCoded().goal_w_m({}, c)) >= 0.5,
    "point-rotated": lambda _, c: np.ones(len(c), np.bool_),  # its tasks never differ in rewards
    "arm-torque": lambda s, c: away_m(s, "fingertip_pos_w_m", c) >= 0.2,
    "sliders": lambda s, c: away_m(s, "slider_pos_m", c) >= 0.3 * 6**0.5,
    "push": lambda s, c: away_m(s, "block_pos_w_m", c) >= 0.05,
    "push-rotated": lambda s, c: away_m(s, "block_pos_w_m", c[:, :2]) >= 0.05,
    "pick-place": lambda s, c: away_m(s, "block_pos_w_m", c) >= 0.05,
    "door": lambda s, _: np.linalg.norm(s["hand_pos_w_m"] - s["handle_pos_w_m"], axis=1) >= 0.1,
    "ant": lambda s, c: away_m(s, "torso_pos_w_m", 2 * np.c_[np.cos(c), np.sin(c)]) >= 0.8,
    "ant-goal": lambda s, c: (
        away_m(s, "torso_pos_w_m", 3 * np.sqrt(c[:, 1:]) * np.c_[np.cos(c[:, 0]), np.sin(c[:, 0])])
        >= 0.8
    ),
    "ant-dir-promp": lambda s, c: along(s, "torso_pos_w_m", c) <= 0.5,
    "ant-dir": lambda s, c: along(s, "torso_pos_w_m", c) <= 0.5,
    "cheetah-vel": lambda s, c: np.abs(s["mean_vel_x_w"] - c)[:, 0] >= 0.3,
    "cheetah-dir": lambda s, c: (s["root_x_w_m"] * c)[:, 0] <= 1,
    "cheetah-dir-100": lambda s, c: (s["root_x_w_m"] * c)[:, 0] <= 1,
    "cheetah-crippled": lambda _, c: np.ones(len(c), np.bool_),  # nor do these
}


@pytest.mark.parametrize("name", family_names())
def test_far_from_the_goal_the_sparse_reward_is_the_same_in_all_tasks(name):
    family, rng, num = make_family(name), np.random.default_rng(0), 30
    contexts = family.context.sample(rng, num)
    sims = SimBatch(family, num)
    sims.reset(contexts, range(num))
    for _ in range(20):
        terms = sims.terms
        action = rng.uniform(-1, 1, (num, len(family.actions)))
        for turn in range(1, num):
            tasks = np.roll(contexts, turn, axis=0)
            paid = family.reward_sparse(terms, tasks, action)
            other = family.reward_sparse(terms, contexts, action)
            far = FAR[name](terms, tasks) & FAR[name](terms, contexts)
            assert far.any()
            np.testing.assert_array_equal(paid[far], other[far])
        sims.step(action)


@pytest.mark.parametrize("name", family_names())
def test_terms_have_their_declared_widths(name):
    family = make_family(name)
    sims = SimBatch(family, 2)
    sims.reset(family.context.sample(np.random.default_rng(0), 2), [0, 1])
    assert {k: v.shape for k, v in sims.terms.items()} == {
        t.name: (2, t.width) for t in family.terms
    }
    assert family.object_term in [t.name for t in family.observation_terms]


@pytest.mark.parametrize("name", ["push", "door", "pick-place"])
def test_the_hand_starts_at_the_papers_start_within_a_centimetre(name):
    family = make_family(name)
    sims = SimBatch(family, 50)
    sims.reset(family.context.sample(np.random.default_rng(0), 50), range(50))
    offset = sims.terms["hand_pos_w_m"] - np.array(family.hand_start_w_m)
    assert np.abs(offset).max() < 0.0101
    assert np.abs(offset[:, :2]).max() > 0.008
    assert np.abs(offset[:, 2]).max() < 0.0005


@pytest.mark.parametrize("name", ["push", "door", "pick-place"])
def test_the_home_joints_put_the_hand_there(name):
    family = make_family(name)
    data = mujoco.MjData(family.model)
    mujoco.mj_resetDataKeyframe(family.model, data, 0)
    mujoco.mj_forward(family.model, data)
    np.testing.assert_allclose(data.site("hand").xpos, family.hand_start_w_m, atol=1e-4)
    np.testing.assert_allclose(data.body("hand").xquat, (0.5, -0.5, 0.5, 0.5), atol=1e-4)


@pytest.mark.parametrize("direction", [(1, 0, 0), (-1, 0, 0), (0, 0, 1), (0, -1, -1)])
def test_the_hands_target_stays_in_the_workspace(direction):
    family = make_family("push")
    sims = SimBatch(family, 1)
    sims.reset(np.array([[0.0, 0.75]]), [0])
    for _ in range(60):
        sims.step(np.array([direction], np.float64))
    target = sims.terms["hand_target_w_m"][0]
    assert (target >= WORKSPACE_LOW_W_M - 0.0101).all()
    assert (target <= WORKSPACE_HIGH_W_M).all()


@pytest.mark.parametrize("name", ["push", "door", "pick-place"])
def test_the_hand_can_be_driven_into_every_corner_and_held_there(name):
    """The far corners are out of the arm's reach: its target stops where the hand can follow."""
    family = make_family(name)
    corners = np.array(list(product((-1.0, 1.0), (-1.0, 1.0), (-1.0, 1.0))))
    sims = SimBatch(family, len(corners))
    sims.reset(np.tile(family.context.low, (len(corners), 1)), range(len(corners)))
    action = np.pad(corners, ((0, 0), (0, len(family.actions) - 3)))
    for _ in range(150):
        sims.step(action)
    target, hand = (sims.terms[each] for each in ("hand_target_w_m", "hand_pos_w_m"))
    assert (np.linalg.norm(target - SHOULDER_W_M, axis=1) <= REACH_M + 1e-9).all()
    far = corners[:, 1] > 0  # the near ones lie at the table's edge and at the robot
    assert np.linalg.norm(hand - target, axis=1)[far].max() < 0.02
    assert target[far, 1].min() > 0.85


def test_a_target_within_reach_is_left_as_it_is():
    near = np.array([[0.1, 0.7, 0.05], [0.0, 1.0, 0.5]])
    np.testing.assert_array_equal(within_reach(near), near)


def test_one_action_moves_the_hand_one_centimetre():
    family = make_family("push")
    sims = SimBatch(family, 1)
    start = sims.reset(np.array([[0.0, 0.75]]), [0])[0, :3]
    for _ in range(5):
        sims.step(np.array([[0.5, 0.0, 1.0]]))
    for _ in range(3):
        sims.step(NO_ACTION)
    moved = sims.observe()[0, :3] - start
    np.testing.assert_allclose(moved, [0.025, 0.0, 0.05], atol=1e-3)


def test_fingers_open_and_close_symmetrically():
    np.testing.assert_allclose(finger_command(np.array([-1.0, 1.0])), [[0, 0], [0.04, -0.04]])


def test_point_rewards():
    family, goal = Point(), np.array([[0.3, 0.4]])
    at = {"point_pos_w_m": np.zeros((1, 2))}
    assert family.reward_dense(at, goal, NO_ACTION) == pytest.approx(-0.5)
    assert family.reward_sparse(at, goal, NO_ACTION) == pytest.approx(0)
    assert not family.success(at, goal)[0]
    near = {"point_pos_w_m": np.array([[0.3, 0.35]])}
    assert family.reward_sparse(near, goal, NO_ACTION) == pytest.approx(0.9)
    assert family.success(near, goal)[0]


def test_slider_rewards():
    family, goal = make_family("sliders"), np.array([[0.3, -0.3, 0.0, 0.0, 0.0, 0.0]])
    rms = 0.3 / 3**0.5
    at = {"slider_pos_m": np.zeros((1, 6))}
    assert family.reward_dense(at, goal, NO_ACTION) == pytest.approx(-rms)
    assert family.reward_sparse(at, goal, NO_ACTION) == pytest.approx(1 - rms / 0.3)
    assert not family.success(at, goal)[0]
    near = {"slider_pos_m": goal + np.array([[0.2, 0, 0, 0, 0, 0]])}
    assert family.success(near, goal)[0]
    far = {"slider_pos_m": goal + 0.31}
    assert family.reward_sparse(far, goal, NO_ACTION) == 0


def test_one_action_moves_each_slider_by_its_share():
    sims = SimBatch(make_family("sliders"), 1)
    start = sims.reset(np.zeros((1, 6)), [0])
    action = np.array([[1.0, -1.0, 0.5, 0.0, 2.0, -0.1]])
    moved = sims.step(action).observation - start
    np.testing.assert_allclose(moved, 0.1 * np.clip(action, -1, 1), atol=2e-3)


def test_arm_rewards():
    family, goal = make_family("arm-torque"), np.array([[0.5, 0.3]])
    for y, dense, sparse, solved in (
        (0.0, -0.3, 0.0, False),
        (0.2, -0.1, 0.5, False),
        (0.26, -0.04, 0.8, True),
    ):
        at = {"fingertip_pos_w_m": np.array([[0.5, y]])}
        assert family.reward_dense(at, goal, NO_ACTION) == pytest.approx(dense)
        assert family.reward_sparse(at, goal, NO_ACTION) == pytest.approx(sparse)
        assert family.success(at, goal)[0] == solved


def test_the_arms_fingertip_is_where_mujoco_has_it():
    family, rng = make_family("arm-torque"), np.random.default_rng(0)
    sims = SimBatch(family, 1)
    sims.reset(np.array([[0.5, 0.0]]), [0])
    assert np.abs(sims.terms["fingertip_pos_w_m"] - (0.5, 0.0)).max() < 0.12
    for action in rng.uniform(-1, 1, (20, 1, 2)):
        sims.step(action)
        data = sims.data(0)
        mujoco.mj_kinematics(family.model, data)
        shown = data.site("fingertip").xpos[:2]
        np.testing.assert_allclose(sims.terms["fingertip_pos_w_m"][0], shown, atol=1e-9)


def test_the_arms_motors_turn_it_as_newton_says():
    family = make_family("arm-torque")
    data = mujoco.MjData(family.model)
    data.qpos[:] = (0.0, 1.0)
    data.ctrl[:] = (0.25, 0.5)  # 1 N m each
    mujoco.mj_forward(family.model, data)
    inertia = mass_matrix(np.array([1.0]), np.array([0.2]))[0]
    np.testing.assert_allclose(data.qacc, np.linalg.solve(inertia, [1.0, 1.0]), rtol=1e-6)


def test_push_dense_reward():
    family, goal = Push(), np.array([[0.0, 0.77]])  # d0 = 0.25 m
    at_start = push_terms([0, 0.4, 0.05], [0, 0.52, 0.05])
    assert family.reward_dense(at_start, goal, NO_ACTION) == pytest.approx(-0.12)
    half_way = push_terms([0, 0.61, 0.05], [0, 0.65, 0.02])
    assert family.reward_dense(half_way, goal, NO_ACTION) == pytest.approx(-0.05 + 100 * 0.13)
    worse = push_terms([0, 0.4, 0.05], [0, 0.50, 0.05])
    assert family.reward_dense(worse, goal, NO_ACTION) == pytest.approx(-0.10)


def test_push_sparse_reward_and_success():
    family, goal = Push(), np.array([[0.0, 0.77]])
    outside = push_terms([0, 0.68, 0.05], [0, 0.719, 0.05])
    inside = push_terms([0, 0.68, 0.05], [0.0, 0.721, 0.05])
    at_start = -np.hypot(0.12, 0.025)  # the block's middle is 2.5 cm below the hand
    assert family.reward_sparse(outside, goal, NO_ACTION) == pytest.approx(at_start)
    assert family.reward_sparse(inside, goal, NO_ACTION) == pytest.approx(-0.041 + 20.1)
    assert not family.success(outside, goal)[0]
    assert family.success(inside, goal)[0]


def test_door_reward_rises_to_the_target_and_falls_beyond():
    family, target = Door(), np.array([[0.5]])
    for angle, reward in ((0.0, 0.0), (0.3, 3.0), (0.5, 5.0), (0.7, 3.0), (1.2, -2.0)):
        held = door_terms([0, 0, 0.025], angle)
        assert family.reward_dense(held, target, NO_ACTION) == pytest.approx(reward)
        assert family.reward_sparse(held, target, NO_ACTION) == pytest.approx(reward)
    let_go = door_terms([0, 0.08, 0.07], 0.5)  # 10.6 cm away
    assert family.reward_dense(let_go, target, NO_ACTION) == 0


def test_door_success_is_within_a_tenth_of_a_radian():
    family, target = Door(), np.array([[0.5]])
    angles = (0.39, 0.41, 0.59, 0.61)
    assert [bool(family.success(door_terms([0, 0, 0], a), target)[0]) for a in angles] == [
        False,
        True,
        True,
        False,
    ]


def test_door_handle_follows_the_hinge():
    family = Door()
    np.testing.assert_allclose(handle_at(np.array([0.0])), [[0.0, 0.815, 0.16]], atol=1e-9)
    np.testing.assert_allclose(handle_at(np.array([np.pi / 2])), [[-0.235, 0.65, 0.16]], atol=1e-9)
    sims = SimBatch(family, 1)
    sims.reset(np.array([[0.5]]), [0])
    np.testing.assert_allclose(
        sims.terms["handle_pos_w_m"], handle_at(sims.terms["door_angle_rad"][:, 0]), atol=1e-6
    )
    assert family.model.joint("hinge").damping[0] == HINGE_DAMPING == 100


def test_unknown_families_suggest_the_nearest():
    with pytest.raises(DemokitError, match="did you mean 'push'"):
        make_family("pusch")


def pick_place_terms(hand, block):
    return {"hand_pos_w_m": np.array([hand]), "block_pos_w_m": np.array([block])}


def test_pick_place_rewards():
    family, goal = make_family("pick-place"), np.array([[0.0, 0.72, 0.175]])  # d0 = 0.25 m
    start = pick_place_terms([0, 0.4, 0.1], [0, 0.52, 0.025])
    apart = np.hypot(0.12, 0.075)
    assert family.reward_dense(start, goal, NO_ACTION) == pytest.approx(-apart)
    assert family.reward_sparse(start, goal, NO_ACTION) == pytest.approx(-apart)
    lifted = pick_place_terms([0, 0.72, 0.165], [0, 0.72, 0.14])
    assert family.reward_dense(lifted, goal, NO_ACTION) == pytest.approx(-0.025 + 100 * 0.215)
    assert family.success(lifted, goal)[0]
    below = pick_place_terms([0, 0.72, 0.145], [0, 0.72, 0.12])
    assert not family.success(below, goal)[0]
    assert family.reward_sparse(below, goal, NO_ACTION) == pytest.approx(-apart)


def test_the_physics_that_results_stand_on_has_not_changed():
    """Figures in docs/results.md belong to these models: a new hash asks for new figures."""
    assert {name: make_family(name).model_hash[:16] for name in ("point", "push", "door")} == {
        "point": "50cd4527003a467f",
        "push": "865326357cebb00a",
        "door": "fd0e18a09decc021",
    }


def straight_to(name, contexts):
    """What going straight there is paid, and when it is over, (N,)."""
    family, expert, num = make_family(name), make_scripted(name), len(contexts)
    sims = SimBatch(family, num)
    sims.reset(contexts, range(num))
    paid, steps = np.zeros(num), np.zeros(num, int)
    alive = np.ones(num, bool)
    while alive.any() and steps.max() < family.horizon:
        step = sims.step(expert.act(sims.observe(), sims.privileged()))
        paid += np.where(alive, step.reward, 0)
        steps += alive
        alive &= ~step.terminated
    return paid, steps


def test_point_squared_pays_the_squared_distance_until_it_is_there():
    """0.3 m away in steps of 0.1: -(0.2^2 + 0.1^2), and the third ends it."""
    paid, steps = straight_to("point-squared", np.array([[0.3, 0.0], [0.0, -0.3]]))
    np.testing.assert_allclose(paid, -0.05, atol=1e-6)
    assert steps.tolist() == [3, 3]


def test_point_corner_2m_pays_from_2_m_on():
    family = make_family("point-corner-2m")
    terms = {"point_pos_w_m": np.array([[0.0, 0.0], [2.0, 0.5], [2.0, 2.0], [4.0, 2.0]])}
    corner = np.full((4, 2), 2.0)
    np.testing.assert_allclose(family.reward_sparse(terms, corner, corner), [0, 0.5, 2, 0])
    sims = SimBatch(family, 1, reward="sparse")
    sims.reset(np.full((1, 2), 2.0), [0])
    for _ in range(40):
        step = sims.step(np.ones((1, 2)))
    np.testing.assert_allclose(step.observation, 4.0, atol=1e-3)  # and no further


def test_cheetah_dir_100_is_cheetah_dir_for_half_as_long():
    one, other = make_family("cheetah-dir-100"), make_family("cheetah-dir")
    assert (one.horizon, other.horizon) == (100, 200)
    assert one.context == other.context
