"""Families whose tasks have to be found out: what a task changes, and that it comes back."""

import numpy as np
import pytest

from demokit.data import DatasetWriter, Provenance, describe, open_dataset
from demokit.data.replay import Replayer, compare
from demokit.envs import make_family
from demokit.envs.batch import SimBatch
from demokit.envs.point_coded import mixed
from demokit.envs.tasks import make_tasks
from recorders.loop import Schedule, record
from recorders.noise import EpisodeNoise, NoisyExpert
from recorders.scripted import make_scripted

HIDDEN = ("point-rotated", "push-rotated")
"""Families whose tasks differ in their physics."""
NO_ACTION = np.zeros((1, 2))


def moved_m(family, context, action):
    """How far (N, 2) one action takes the points of tasks."""
    sims = SimBatch(family, len(context))
    start = sims.reset(np.array(context), [0] * len(context))[:, :2]
    return sims.step(np.tile(action, (len(context), 1))).observation[:, :2] - start


def test_a_rotation_turns_the_actions_counter_clockwise():
    family = make_family("point-rotated")
    plain, quarter, half, back = moved_m(
        family, [[0.0], [np.pi / 2], [np.pi], [-np.pi / 2]], (1.0, 0.0)
    )
    step = moved_m(make_family("point"), [[0.0, 0.0]], (1.0, 0.0))[0]
    np.testing.assert_allclose(plain, step, atol=1e-7)
    for turned, direction in ((quarter, (0, 1)), (half, (-1, 0)), (back, (0, -1))):
        np.testing.assert_allclose(turned, step[0] * np.array(direction), atol=1e-7)


def test_a_rotation_turns_the_hand_in_the_plane_alone():
    family = make_family("push-rotated")
    sims = SimBatch(family, 3)
    sims.reset(np.array([[0.0, 0.75, a] for a in (0.0, np.pi / 2, -np.pi / 2)]), [0] * 3)
    target = sims.terms["hand_target_w_m"].copy()
    sims.step(np.tile((0.0, 0.5, 1.0), (3, 1)))
    moved = sims.terms["hand_target_w_m"] - target
    # To the left of "ahead" along y is minus x.
    expected = [[0, 0.005, 0.01], [-0.005, 0, 0.01], [0.005, 0, 0.01]]
    np.testing.assert_allclose(moved, expected, atol=1e-9)


def test_rotated_pushing_has_pushs_dynamics_too():
    family = make_family("push-rotated")
    task = make_tasks(family, "dynamics", "train")[0]
    assert len(task.context) == 5
    sims = SimBatch(family, 1)
    sims.reset(np.array([task.context]), [0])
    model = sims._sims.get_model(0)
    assert model.body("block").mass[0] == task.context[3]
    assert model.geom("block").friction[0] == task.context[4]
    assert model.numeric("rotation_rad").data[0] == task.context[2]


@pytest.mark.parametrize(
    ("name", "task_set", "least", "most"),
    [("push", "dynamics", 0.9, 1), ("push-rotated", "uniform", 0, 0.3)],
)
def test_how_much_of_a_push_is_in_the_hidden_physics(name, task_set, least, most):
    """The script's actions in one task, done again in one of the same goal and other physics."""
    family, expert = make_family(name), make_scripted(name)
    tasks = make_tasks(family, task_set, "train", num_tasks=40)
    contexts = np.array([task.context for task in tasks])
    sims, seeds = SimBatch(family, 40), range(40)
    observation, actions = sims.reset(contexts, seeds), []
    for _ in range(family.horizon):
        actions.append(expert.act(observation, sims.privileged()))
        observation = sims.step(actions[-1]).observation
    other = np.concatenate([contexts[:, :2], np.roll(contexts[:, 2:], 1, axis=0)], axis=1)
    sims.reset(other, seeds)
    assert least <= [sims.step(action).success.mean() for action in actions][-1] <= most


def test_rotated_tasks_share_their_goals_and_rewards():
    family = make_family("point-rotated")
    at = {"point_pos_w_m": np.zeros((2, 2)), "goal_pos_w_m": np.array([[0.3, 0.4], [0.3, 0.0]])}
    for angle in (0.0, 2.0):
        tasks = np.full((2, 1), angle)
        np.testing.assert_allclose(family.reward_dense(at, tasks, NO_ACTION), [-0.5, -0.3])
        np.testing.assert_allclose(family.reward_sparse(at, tasks, NO_ACTION), [0, 0.4], atol=1e-9)
        assert not family.success(at, tasks).any()


def test_the_goals_of_rotated_tasks_are_drawn_by_the_seed_and_stay():
    sims = SimBatch(make_family("point-rotated"), 200)
    seen = sims.reset(np.zeros((200, 1)), range(200))[:, 2:]
    assert np.abs(seen).max() <= 1
    np.testing.assert_allclose(seen.std(axis=0), 3**-0.5, atol=0.06)
    assert np.array_equal(sims.step(np.ones((200, 2))).observation[:, 2:], seen)


def test_the_same_code_is_the_same_goal_and_its_neighbour_another():
    family, rng = make_family("point-coded"), np.random.default_rng(0)
    codes = family.context.sample(rng, 2000)
    goals = family.goal_w_m({}, codes)
    assert np.array_equal(goals, family.goal_w_m({}, codes[::-1])[::-1])
    assert np.array_equal(goals, family.goal_w_m({}, codes.astype(np.float32)))
    assert np.abs(goals).max() <= 1
    np.testing.assert_allclose(np.histogram2d(*goals.T, 2, ((-1, 1),) * 2)[0], 500, atol=70)
    assert np.abs(np.corrcoef(codes.T, goals.T)[:2, 2:]).max() < 0.06
    # The mean distance of two points of a square is 0.5214 of its side.
    neighbours = family.goal_w_m({}, codes + 1e-5)
    assert np.linalg.norm(neighbours - goals, axis=1).mean() == pytest.approx(1.043, abs=0.03)


def test_codes_are_hashed_as_published():
    """The first outputs of SplitMix64 from the seed 0."""
    weights = np.array([1, 2], np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    assert mixed(weights).tolist() == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4]


def test_codes_out_of_distribution_stand_for_goals_out_of_it():
    family = make_family("point-coded")
    codes = family.context.sample_ood(np.random.default_rng(0), 500)
    goals = family.goal_w_m({}, codes)
    space = make_family("point").context
    assert not any(map(space.contains, goals))
    assert 1.35 < np.abs(goals).max() <= 1.4


@pytest.mark.parametrize("name", HIDDEN)
def test_a_task_changes_its_own_simulation_only_and_gives_it_back(name):
    family = make_family(name)
    rng = np.random.default_rng(0)
    a, b = family.context.sample(rng, 2)
    action = rng.uniform(-1, 1, len(family.actions))

    def end(sims):
        for _ in range(family.horizon):
            step = sims.step(np.tile(action, (sims.num_sims, 1)))
        return step.observation

    alone = SimBatch(family, 1)
    alone.reset(a[None], [0])
    expected = end(alone)[0]
    sims = SimBatch(family, 2)
    sims.reset(np.stack([a, a]), [0, 0])
    sims.reset(b[None], [0], np.array([1]))
    first, second = end(sims)
    assert np.array_equal(first, expected)
    assert not np.array_equal(second, expected)
    sims.reset(a[None], [0], np.array([1]))
    sims.reset(b[None], [0], np.array([0]))
    assert np.array_equal(end(sims)[1], expected)


@pytest.mark.parametrize("name", HIDDEN)
def test_restoring_a_state_restores_the_task(name):
    family = make_family(name)
    rng = np.random.default_rng(0)
    sims, other = SimBatch(family, 3), SimBatch(family, 3)
    sims.reset(family.context.sample(rng, 3), range(3))
    actions = rng.uniform(-1, 1, (family.horizon, 3, len(family.actions)))
    half = family.horizon // 2
    for action in actions[:half]:
        sims.step(action)
    other.set_state(sims.get_state())
    for action in actions[half:]:
        assert np.array_equal(sims.step(action).observation, other.step(action).observation)


@pytest.mark.parametrize("name", HIDDEN)
def test_a_recorded_episode_brings_its_task_back(name, tmp_path):
    family, expert = make_family(name), make_scripted(name)
    tasks = make_tasks(family, "uniform", "train", num_tasks=4)
    about = describe(
        family,
        reward="dense",
        task_set="uniform",
        tasks=tasks,
        provenance=Provenance(recorder="scripted", expert="scripted", noise_std=0.1, seed=0),
    )
    episodes = record(
        SimBatch(family, 4),
        lambda seeds: NoisyExpert(expert, 0.1, EpisodeNoise(seeds)),
        tasks,
        Schedule((1,) * 4),
        seed=0,
        recorder="scripted",
    )
    with DatasetWriter(tmp_path / "d.hdf5", about) as writer:
        for episode in episodes:
            writer.add(episode)
        path = writer.finish()
    with open_dataset(path) as dataset:
        found = list(dataset)
        replayed = Replayer(dataset.metadata, num_sims=4).from_actions(found)
    assert [e.task for e in found] == list(tasks)
    assert all(e.success for e in found)
    assert [compare(e, r).largest for e, r in zip(found, replayed, strict=True)] == [0.0] * 4
