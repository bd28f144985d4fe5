"""The Gymnasium face: the checker, vector against single, autoreset modes, seeds, tasks."""

import warnings
from dataclasses import replace

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

import demokit.envs.gym as demokit_gym
from demokit.envs import make_family
from demokit.envs.tasks import make_tasks
from demokit.envs.vision import Vision
from demokit.errors import DemokitError

IDS = ("demokit/Point-v0", "demokit/Push-v0", "demokit/Door-v0")


def can_draw():
    from demokit.envs.render import make_gl_context

    try:
        make_gl_context(8, 8).free()
    except DemokitError:
        return False
    return True


def make_vec(mode=AutoresetMode.NEXT_STEP, num_envs=3, env_id=IDS[0], **kwargs):
    return gymnasium.make_vec(
        env_id,
        num_envs=num_envs,
        vectorization_mode="vector_entry_point",
        autoreset_mode=mode,
        **kwargs,
    )


@pytest.mark.parametrize("env_id", IDS)
def test_gymnasiums_checker_has_nothing_to_say(env_id):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gymnasium.make(env_id).unwrapped, skip_render_check=not can_draw())


@pytest.mark.skipif(not can_draw(), reason="no OpenGL here")
def test_rendering_shows_the_goal_to_people():
    pictures = []
    for task in make_tasks(make_family("push"), "paper", "train", num_tasks=2):
        env = gymnasium.make(IDS[1], render_mode="rgb_array", width=160, height=120)
        env.reset(seed=0, options={"task": task})
        pictures.append(env.render())
        env.close()
    assert pictures[0].shape == (120, 160, 3)
    assert pictures[0].dtype == np.uint8
    assert pictures[0].std() > 10
    assert (pictures[0] != pictures[1]).any()


def test_without_opengl_the_error_says_what_to_install(monkeypatch):
    from demokit.envs import render

    def missing(name):
        raise ImportError(f"no {name}")

    monkeypatch.setattr(render, "import_module", missing)
    monkeypatch.setattr(render.sys, "platform", "linux")
    with pytest.raises(DemokitError, match="apt install libegl1 libgl1-mesa-dri"):
        render.make_gl_context(8, 8)


@pytest.mark.parametrize("env_id", IDS[:2])
def test_the_vector_env_equals_single_envs_bit_for_bit(env_id):
    native = make_vec(env_id=env_id)
    single = gymnasium.make_vec(env_id, num_envs=3, vectorization_mode="sync")
    rng = np.random.default_rng(0)
    pairs = [(native.reset(seed=7), single.reset(seed=7))]
    for _ in range(native.unwrapped.family.horizon + 5):
        action = rng.uniform(-1, 1, native.action_space.shape).astype(np.float32)
        pairs.append((native.step(action), single.step(action)))
    for ours, theirs in pairs:
        for a, b in zip(ours[:-1], theirs[:-1], strict=True):
            assert np.array_equal(a, b)
        assert list(ours[-1]["task"]) == list(theirs[-1]["task"])
        assert np.array_equal(ours[-1]["success"], theirs[-1]["success"])
        for name, values in theirs[-1]["privileged"].items():
            assert np.array_equal(ours[-1]["privileged"][name], values), name


def test_next_step_autoreset():
    env = make_vec()
    env.reset(seed=0)
    idle = np.zeros(env.action_space.shape, np.float32)
    for _ in range(19):
        *_, truncated, _ = env.step(idle)
        assert not truncated.any()
    last, _, terminated, truncated, _ = env.step(idle)
    assert truncated.all()
    assert not terminated.any()
    first, reward, _, truncated, _ = env.step(np.ones_like(idle))
    assert not truncated.any()
    assert (reward == 0).all()
    assert np.abs(first[:, :2]).max() <= 0.1001
    assert (first != last).any()


def test_same_step_autoreset_keeps_the_last_observation():
    env, twin = make_vec(AutoresetMode.SAME_STEP), make_vec()
    env.reset(seed=0)
    twin.reset(seed=0)
    action = np.full(env.action_space.shape, 0.5, np.float32)
    for _ in range(20):
        observation, reward, _, truncated, info = env.step(action)
        last, last_reward, _, _, last_info = twin.step(action)
    assert truncated.all()
    assert np.array_equal(reward, last_reward)
    assert np.array_equal(np.stack(info["final_obs"]), last)
    assert list(info["final_info"]["task"]) == list(last_info["task"])
    assert info["_final_obs"].all()
    after, *_ = twin.step(action)
    assert np.array_equal(observation, after)


def test_disabled_autoreset_asks_for_a_reset():
    env = make_vec(AutoresetMode.DISABLED)
    env.reset(seed=0)
    idle = np.zeros(env.action_space.shape, np.float32)
    for _ in range(20):
        env.step(idle)
    with pytest.raises(DemokitError, match="reset_mask"):
        env.step(idle)
    env.reset(options={"reset_mask": np.ones(3, np.bool_)})
    env.step(idle)


def test_seeds_repeat_episodes_and_tasks_are_drawn_anew():
    env = gymnasium.make(IDS[0])
    first = [env.reset(seed=3)[1]["task"], *(env.reset()[1]["task"] for _ in range(5))]
    again = [env.reset(seed=3)[1]["task"], *(env.reset()[1]["task"] for _ in range(5))]
    assert first == again
    assert len(set(first)) > 1


def test_a_task_can_be_fixed():
    tasks = make_tasks(make_family("push"), "paper", "validation")
    env = gymnasium.make(IDS[1], tasks=tasks)
    for wanted in (tasks[4], tasks[4].id):
        _, info = env.reset(options={"task": wanted})
        assert info["task"] == tasks[4].id
        assert tuple(info["privileged"]["context"]) == tasks[4].context
    with pytest.raises(DemokitError, match="did you mean"):
        env.reset(options={"task": "push/paper/validation/4"})


def test_the_info_has_one_schema():
    env = gymnasium.make(IDS[1], reward="sparse")
    _, start = env.reset(seed=0)
    _, reward, _, _, info = env.step(env.action_space.sample())
    assert set(start) == set(info) == {"success", "task", "privileged"}
    assert set(start["privileged"]) == set(info["privileged"])
    assert reward == info["privileged"]["reward_sparse"]


@pytest.mark.parametrize(
    "mask", [np.array([0, 1, 1]), np.array([True, False]), np.zeros(3, np.bool_), [0, 1, 2]]
)
def test_masks_that_are_none_are_refused(mask):
    env = make_vec()
    env.reset(seed=0)
    before = env.unwrapped.sims.get_state().physics
    with pytest.raises(DemokitError, match="must be 3 booleans"):
        env.reset(seed=1, options={"reset_mask": mask})
    assert np.array_equal(env.unwrapped.sims.get_state().physics, before)


def test_tasks_of_another_family_are_refused():
    stranger = make_tasks(make_family("point"), "uniform", "train", num_tasks=1)[0]
    for env in (gymnasium.make(IDS[1]), make_vec(env_id=IDS[1])):
        with pytest.raises(DemokitError, match="not a task of push"):
            env.reset(options={"task": stranger})


def test_wrong_options_are_refused():
    with pytest.raises(DemokitError, match="did you mean 'paper'"):
        gymnasium.make(IDS[1], task_set="papers")
    with pytest.raises(DemokitError, match="not a task of door"):
        demokit_gym.Env("door", tasks=make_tasks(make_family("push"), "paper", "train"))
    with pytest.raises(DemokitError, match="call reset"):
        demokit_gym.VectorEnv("point", 2).step(np.zeros((2, 2)))


@pytest.mark.parametrize("size", [(0, 48), (-1, 48), (64, 10**6), (64, 2.5)])
def test_pictures_of_no_size_are_refused(size):
    width, height = size
    with pytest.raises(DemokitError, match=f"{height} x {width}, height and width: .* 1 to 4096"):
        demokit_gym.Env("point", render_mode="rgb_array", width=width, height=height)
    with pytest.raises(DemokitError, match="whole number of pixels"):
        Vision(height, width)


def test_a_seed_is_for_what_starts_again():
    env, twin = (make_vec(AutoresetMode.DISABLED, 2) for _ in range(2))
    env.reset(seed=0)
    twin.reset(seed=0)
    env.reset(seed=50, options={"reset_mask": np.array([True, False])})
    second = {"reset_mask": np.array([False, True])}
    ours, theirs = env.reset(options=second), twin.reset(options=second)
    np.testing.assert_array_equal(ours[0][1], theirs[0][1])
    assert ours[1]["task"][1] == theirs[1]["task"][1]


def test_what_was_not_reset_is_neither_stepped_nor_drawn():
    env = make_vec(AutoresetMode.DISABLED, 2, render_mode="rgb_array")
    env.reset(options={"reset_mask": np.array([False, True])})
    for act in (env.render, lambda: env.step(np.zeros((2, 2)))):
        with pytest.raises(DemokitError, match=r"call reset\(\)"):
            act()


@pytest.mark.parametrize("task", [[0.1, 0.2], np.zeros(2), 3])
def test_a_task_that_is_none_is_refused(task):
    env = gymnasium.make(IDS[0])
    with pytest.raises(DemokitError, match="neither the id of one nor"):
        env.reset(options={"task": task})


@pytest.mark.parametrize(
    ("family", "physics", "says"),
    [
        ("push", (0.0, 0.8), "block_mass 0 cannot be simulated: it must be above 0"),
        ("push", (0.1, -1.0), "block_friction -1 cannot"),
        ("door", (-5.0,), "hinge_damping -5 cannot"),
        ("arm-torque", (0.0, 1.0), "payload 0 cannot"),
    ],
)
def test_physics_that_cannot_be_is_refused(family, physics, says):
    task = make_tasks(make_family(family), "uniform", "train", num_tasks=1)[0]
    impossible = replace(task, context=(*task.context, *physics))
    with pytest.raises(DemokitError, match=says):
        demokit_gym.Env(family).reset(options={"task": impossible})


def test_a_task_that_was_refused_is_nobodys():
    single, vector = demokit_gym.Env("push"), make_vec(num_envs=2, env_id=IDS[1])
    known = single.task_source.tasks[0]
    refused = replace(known, id="push/x", context=(*known.context, 0.0, 0.8))
    for env, action in ((single, np.zeros(3)), (vector, np.zeros((2, 3)))):
        env.reset(seed=0)
        with pytest.raises(DemokitError, match="block_mass"):
            env.reset(options={"task": refused})
        with pytest.raises(DemokitError, match="call reset"):
            env.step(action)
        env.reset(options={"task": known})
        assert set(np.atleast_1d(env.step(action)[-1]["task"])) == {known.id}


def test_tasks_with_and_without_dynamics_go_together():
    push = make_family("push")
    tasks = [make_tasks(push, name, "train", num_tasks=1)[0] for name in ("paper", "dynamics")]
    env = make_vec(num_envs=6, env_id=IDS[1], tasks=tasks)
    _, info = env.reset(seed=0)
    assert set(info["task"]) == {task.id for task in tasks}
    for name, context in zip(info["task"], info["privileged"]["context"], strict=True):
        task = next(task for task in tasks if task.id == name)
        np.testing.assert_array_equal(context, push.with_dynamics(np.array([task.context]))[0])
