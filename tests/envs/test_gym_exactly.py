"""Gymnasium's and stable-baselines3's checkers, pickling, copying, and restoring any moment."""

import copy
import pickle
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.wrappers import (
    ClipAction,
    FlattenObservation,
    NormalizeObservation,
    RecordEpisodeStatistics,
)
from hypothesis import given, settings
from hypothesis import strategies as st

import demokit.envs.gym as demokit_gym
from demokit.envs import family_names
from demokit.errors import DemokitError
from tests.envs.test_gym import can_draw

FAMILIES = family_names()


def env_id(name):
    return f"demokit/{name.title().replace('-', '')}-v0"


def rolled(env, steps, seed):
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        env.step(rng.uniform(-1, 1, env.action_space.shape).astype(np.float32))
    return rng


def same_future(one, other, actions):
    for action in actions:
        a, b = one.step(action), other.step(action)
        assert np.array_equal(a[0], b[0])
        assert a[1:4] == b[1:4]
        for name, values in a[4]["privileged"].items():
            assert np.array_equal(values, b[4]["privileged"][name]), name
        assert a[4]["task"] == b[4]["task"]


@pytest.mark.parametrize("name", FAMILIES)
def test_gymnasiums_checker_is_silent(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = gymnasium.make(env_id(name), disable_env_checker=True).unwrapped
        check_env(env, skip_render_check=not can_draw())


@pytest.mark.skipif(not can_draw(), reason="no OpenGL here")
def test_the_checker_is_silent_about_images():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = gymnasium.make("demokit/Push-v0", observation="vision").unwrapped
        check_env(env, skip_render_check=True)
        env.close()


@pytest.mark.parametrize("name", FAMILIES)
def test_stable_baselines_checker_is_silent(name):
    checker = pytest.importorskip("stable_baselines3.common.env_checker")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        checker.check_env(gymnasium.make(env_id(name)).unwrapped, skip_render_check=True)


@pytest.mark.parametrize("name", FAMILIES)
@settings(max_examples=5, deadline=None)
@given(steps=st.integers(0, 19), seed=st.integers(0, 2**20))
def test_any_moment_is_restored_bit_for_bit(name, steps, seed):
    env = demokit_gym.Env(name)
    env.reset(seed=seed)
    rng = rolled(env, steps, seed)
    moment, task = env.get_state(), env.task
    actions = rng.uniform(-1, 1, (6, *env.action_space.shape)).astype(np.float32)
    ahead = [env.step(action) for action in actions]
    other = demokit_gym.Env(name)
    other.reset(seed=seed + 1)
    rolled(other, 3, seed)
    for each in (env, other):
        each.set_state(moment)
        assert each.task == task
        assert each.get_state().sims.step_index == [steps]
        for action, before in zip(actions, ahead, strict=True):
            again = each.step(action)
            assert np.array_equal(again[0], before[0])
            assert again[1:4] == before[1:4]
            state = again[4]["privileged"]["state"]
            assert np.array_equal(state, before[4]["privileged"]["state"])


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(
    "clone", [copy.copy, copy.deepcopy, lambda e: pickle.loads(pickle.dumps(e))]
)
def test_copies_and_pickles_go_on_alike(name, clone):
    env = gymnasium.make(env_id(name), reward="sparse").unwrapped
    env.reset(seed=3)
    rng = rolled(env, 7, 3)
    other = clone(env)
    actions = rng.uniform(-1, 1, (5, *env.action_space.shape)).astype(np.float32)
    same_future(env, other, actions)
    assert env.spec == other.spec


def test_copies_draw_the_same_episodes():
    env = gymnasium.make("demokit/Push-v0").unwrapped
    env.reset(seed=5)
    others = [pickle.loads(pickle.dumps(env)), copy.copy(env)]
    for _ in range(4):
        (a, about), *same = env.reset(), *(other.reset() for other in others)
        for b, info in same:
            assert about["task"] == info["task"]
            assert np.array_equal(a, b)


def test_a_fresh_env_is_copied_too():
    other = copy.deepcopy(demokit_gym.Env("point"))
    with pytest.raises(DemokitError, match="call reset"):
        other.get_state()
    other.reset(seed=0)


def test_wrappers():
    env = gymnasium.make("demokit/Door-v0")
    env = RecordEpisodeStatistics(NormalizeObservation(FlattenObservation(ClipAction(env))))
    env.reset(seed=0)
    for _ in range(100):
        *_, truncated, info = env.step(env.action_space.sample())
    assert truncated
    assert info["episode"]["l"] == 100


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_gymnasiums_own_vectors_take_the_single_env(vectorization):
    env = gymnasium.make_vec("demokit/Point-v0", 2, vectorization_mode=vectorization)
    observation, _ = env.reset(seed=1)
    native = demokit_gym.VectorEnv("point", 2)
    assert np.array_equal(observation, native.reset(seed=1)[0])
    env.close()


def test_human_needs_a_display(monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr(demokit_gym.sys, "platform", "linux")
    with pytest.raises(DemokitError, match="needs a display"):
        demokit_gym.Env("point", render_mode="human")


def test_human_shows_every_step(monkeypatch):
    """The window itself needs a display; what drives it does not."""
    from demokit.view import window

    shown = []

    class Window:
        def __init__(self, family):
            shown.append(family.name)

        def show(self, _state, context):
            shown.append(tuple(context))

        def close(self):
            shown.append("closed")

    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(window, "Window", Window)
    env = demokit_gym.Env("point", render_mode="human")
    env.reset(seed=0)
    env.step(np.zeros(2, np.float32))
    assert env.render() is None
    env.close()
    assert shown == ["point", env.task.context, env.task.context, "closed"]
