"""The vector environment: everything is seen, tasks are balanced, the horizon truncates."""

from collections import Counter

import numpy as np
from stable_baselines3.common.evaluation import evaluate_policy

from demokit.envs import make_family
from demokit.envs.batch import SimBatch
from demokit.envs.tasks import make_tasks
from demokit.random import stream
from recorders.sac.vec_env import TaskVecEnv


def make(name, num_envs, num_tasks=4):
    family = make_family(name)
    tasks = make_tasks(family, "uniform", "train", num_tasks=num_tasks)
    return TaskVecEnv(family, tasks, num_envs, stream(0, "test")), tasks


def test_observations_are_the_terms_and_the_context():
    env, tasks = make("push", 3)
    observation = env.reset()
    sims = SimBatch(env._sims.family, 3)
    assert env.inputs.width == observation.shape[1] == sum(env.inputs.widths.values())
    assert list(env.inputs.widths)[-1] == "context"
    known = np.array([task.context for task in tasks], np.float32)
    for row in observation:
        assert (np.abs(known - row[-2:]).max(1) < 1e-6).any()
    assert {"hand_target_w_m", "block_vel_w"} < set(env.inputs.widths)
    assert sims.family.observation_width < env.inputs.width


def test_tasks_stay_balanced():
    env, _ = make("point", 6)
    seen = Counter()
    env.reset()
    for _ in range(20 * 4):
        if env._sims._step_index[0] == 0:
            seen.update(env._context[:, 0].tolist())
        env.step(np.zeros((6, 2), np.float32))
    assert len(seen) == 4
    assert sum(seen.values()) == 24
    assert set(seen.values()) == {6}


def test_the_horizon_truncates_and_the_last_moment_is_kept():
    env, _ = make("point", 2)
    env.reset()
    action = np.full((2, 2), 0.5, np.float32)
    for _ in range(19):
        before, _, ended, infos = env.step(action)
        assert not ended.any()
        assert infos == [{}, {}]
    after, _, ended, infos = env.step(action)
    assert ended.all()
    for row, info in zip(before, infos, strict=True):
        assert info["TimeLimit.truncated"] is True
        last = info["terminal_observation"]
        np.testing.assert_allclose(last[:2], row[:2] + 0.05, atol=0.02)
        np.testing.assert_array_equal(last[-2:], row[-2:])
    assert np.abs(after[:, :2]).max() < 0.2  # started again


def test_an_ant_that_falls_terminates():
    env, _ = make("ant", 32, num_tasks=2)
    env.reset()
    held = np.sign(np.random.default_rng(0).uniform(-1, 1, (32, 8)))
    fallen = 0
    for t in range(199):
        _, _, ended, infos = env.step(held * np.sign(np.sin(t / 8)))
        for i in np.flatnonzero(ended):
            assert infos[i]["TimeLimit.truncated"] is False
            assert not 0.2 <= infos[i]["terminal_observation"][2] <= 1.0
            fallen += 1
    assert fallen > 0


def test_the_librarys_own_tools_take_it():
    """stable-baselines3's evaluation runs it as any vector environment."""
    env, tasks = make("point", 4)

    class Still:
        def predict(self, observation, **_):
            return np.zeros((len(observation), 2), np.float32), None

    mean, _ = evaluate_policy(Still(), env, n_eval_episodes=8, warn=False)
    distance = np.mean([np.linalg.norm(task.context) for task in tasks])
    assert abs(mean / (-20 * distance) - 1) < 0.2
