"""A Gymnasium environment of anybody's, recorded by wrapping it; and what is wrong with one."""

import contextlib
import os
import signal
from pathlib import Path

import gymnasium
import minari
import numpy as np
import pytest
from click.testing import CliRunner
from gymnasium import spaces

from demokit.cli import main
from demokit.data import Recorder, open_dataset
from demokit.data.minari import register
from demokit.data.store import staging_folder
from demokit.data.validation import validate
from demokit.errors import DemokitError
from demokit.types import Task

STEPS = 6


class Line(gymnasium.Env):
    """A point on a line; context: where it should be. Plain numpy."""

    observation_space = spaces.Box(-9, 9, (2,), np.float32)
    action_space = spaces.Box(-4, 2, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.goal = np.asarray((options or {}).get("task", [0.0]), float)
        self.t, self.x = 0, self.np_random.uniform(-0.1, 0.1)
        return self._seen(), {}

    def step(self, action):
        self.x, self.t = self.x + float(np.ravel(action)[0]) / 10, self.t + 1
        far = abs(self.x - self.goal[0])
        return self._seen(), -far, False, self.t == STEPS, {"is_success": far < 0.2}

    def _seen(self):
        return np.array([self.x, self.t], np.float32)


class Deaf(Line):
    """It knows of no task."""

    def reset(self, *, seed=None, options=None):  # noqa: ARG002
        return super().reset(seed=seed)


class Says(Line):
    """It answers its second step with something else."""

    def __init__(self, **answer):
        self.answer = answer

    def step(self, action):
        names = ("observation", "reward", "terminated", "truncated", "info")
        found = dict(zip(names, super().step(action), strict=True))
        return tuple({**found, **(self.answer if self.t == 2 else {})}.values())


def act(env, steps=STEPS, **reset):
    """An episode; what was seen, done and paid."""
    seen, done, paid = [env.reset(**reset)[0]], [], []
    for step in range(steps):
        done.append(np.array([step / 3 - 1], np.float32))
        observation, reward, *_ = env.step(done[-1])
        seen.append(observation)
        paid.append(reward)
    return np.array(seen), np.array(done), np.array(paid)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "line.hdf5"


def recorded(path, **options):
    goals = [[0.5], [-0.5], [0.5]]
    with Recorder(Line(), path, license="MIT", **options) as env:
        return [act(env, seed=k, options={"task": goal}) for k, goal in enumerate(goals)]


def test_what_happens_is_recorded(path):
    given = recorded(path, privileged=lambda env: {"goal": env.goal}, expert="me", family="rail")
    dataset = open_dataset(path)
    about = dataset.metadata
    assert [(t.id, t.context) for t in about.tasks] == [("rail/00", (0.5,)), ("rail/01", (-0.5,))]
    assert (about.horizon, about.provenance.expert, about.reward) == (STEPS, "me", "dense")
    assert sorted(about.provenance.missing) == ["action range", "model", "state"]
    range_ = about.provenance.action_range
    assert (range_.low.tolist(), range_.high.tolist()) == ([-4.0], [2.0])
    for number, (episode, (seen, done, paid)) in enumerate(zip(dataset, given, strict=True)):
        np.testing.assert_array_equal(episode.observations, seen)
        np.testing.assert_allclose(range_.from_unit(episode.actions), done, atol=1e-6)
        np.testing.assert_array_equal(episode.rewards, paid)
        assert episode.truncations.tolist() == [False] * (STEPS - 1) + [True]
        assert not episode.terminations.any()
        assert (episode.seed, episode.success) == (
            number,
            abs(seen[-1][0] - (0.5, -0.5, 0.5)[number]) < 0.2,
        )
        assert episode.privileged["goal"].shape == (STEPS + 1, 1)
        assert (episode.privileged["context"] == episode.task.context).all()
    assert not validate(path).errors


def test_the_file_is_a_dataset_like_any_other(path, tmp_path, monkeypatch):
    recorded(path)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    register(path, "line/test-v0")
    theirs = minari.load_dataset("line/test-v0")
    assert (theirs.total_episodes, theirs.total_steps) == (3, 3 * STEPS)
    np.testing.assert_array_equal(theirs[1].observations, open_dataset(path)[1].observations)
    out = tmp_path / "some.hdf5"
    for command in (
        f"inspect {path}",
        f"validate {path}",
        f"filter {path} --out {out} --task line/00",
    ):
        result = CliRunner().invoke(main, command.split())
        assert result.exit_code == 0, result.output
    assert len(open_dataset(out)) == 2
    torch_windows = pytest.importorskip("demokit.data.windows")
    windows = torch_windows.Windows(out, 3)
    assert len(windows) == 2 * (STEPS - 2)
    assert windows[0]["context"].tolist() == [0.5]


TOLD = {
    "a name": ({"task": "left"}, {}, ("line/left", (0.0,), "train")),
    "a name and a number": ({"task": "left", "context": [2]}, {}, ("line/left", (2.0,), "train")),
    "a callback": ({"task": lambda env: f"t{env.t}"}, {}, ("line/t0", (0.0,), "train")),
    "numbers by callback": ({"context": lambda env: env.goal}, {}, ("line/00", (0.0,), "train")),
    "a task": (
        {"task": Task("line", "line/x/3", (7.0,), "ood")}, {}, ("line/x/3", (7.0,), "ood")
    ),
    "options": ({}, {"task": "left", "context": 3}, ("line/left", (3.0,), "train")),
    "a split": ({"split": "validation"}, {"task": [3.0]}, ("line/00", (3.0,), "validation")),
    "nothing": ({}, {}, ("line/00", (0.0,), "train")),
}  # fmt: skip


@pytest.mark.parametrize("how", TOLD)
def test_who_says_the_task(path, how):
    arguments, options, expected = TOLD[how]

    with Recorder(Deaf(), path, **arguments) as env:
        act(env, options=options)
    (task,) = open_dataset(path).metadata.tasks
    assert (task.id, task.context, task.split) == expected
    says = how not in ("a name", "a callback", "nothing")
    assert open_dataset(path).metadata.knows_contexts == says


@pytest.mark.parametrize("solved", [True, False])
def test_success_by_a_privileged_term(solved, path):
    class Quiet(Line):
        def step(self, action):
            return (*super().step(action)[:4], {})

    with Recorder(Quiet(), path, privileged=lambda env: {"success": env.t == STEPS}) as env:
        act(env, STEPS if solved else STEPS - 1)
    assert [record.success for record in open_dataset(path).episodes] == [solved]
    assert validate(path).ok


def test_success_by_a_callback_and_nobodys(path, tmp_path):
    with Recorder(Line(), path, success=lambda env: env.goal[0] > 0) as env:
        for goal in (-1.0, 1.0):
            act(env, options={"task": [goal]})
    assert [record.success for record in open_dataset(path).episodes] == [False, True]
    with Recorder(Says(info={}), tmp_path / "b.hdf5") as env:
        act(env, steps=2)
    about = open_dataset(tmp_path / "b.hdf5").metadata
    assert {"success", "seed", "context"} <= set(about.provenance.missing)


def test_episodes_that_somebody_stops(path):
    with Recorder(Line(), path) as env:
        act(env, steps=2, options={"task": [1.0]})
        act(env, steps=3, options={"task": [1.0]})
        env.discard()
        with pytest.raises(DemokitError, match="call reset"):
            env.step(np.zeros(1))
        env.reset(options={"task": [1.0]})
        act(env, steps=4, options={"task": [1.0]})
        assert env.saved == 1
    dataset = open_dataset(path)
    assert [len(episode) for episode in dataset] == [2, 4]
    assert all(episode.truncations[-1] for episode in dataset)
    with pytest.raises(DemokitError, match="closed"):
        env.reset()
    env.close()


def test_an_episode_that_is_over_waits_for_a_reset(path):
    with Recorder(Line(), path) as env:
        act(env)
        with pytest.raises(DemokitError, match=r"call reset\(\) first"):
            env.step(np.zeros(1))
    assert len(open_dataset(path)) == 1


def test_images_nested_dicts_and_numbers(path):
    class Seen(Line):
        observation_space = spaces.Dict(
            {
                "eye": spaces.Box(0, 255, (4, 5, 3), np.uint8),
                "arm": spaces.Dict({"q": Line.observation_space, "on": spaces.Discrete(3)}),
            }
        )
        action_space = spaces.Discrete(3, start=-1)

        def _seen(self):
            eye = np.full((4, 5, 3), self.t, np.uint8)
            return {"eye": eye, "arm": {"q": super()._seen(), "on": self.t % 3}}

    with Recorder(Seen(), path) as env:
        env.reset()
        for action in (-1, 0, 1):
            env.step(action)
    dataset = open_dataset(path)
    seen = dataset[0].observations
    assert {name: rows.shape for name, rows in seen.items()} == {
        "eye": (4, 4, 5, 3), "arm.q": (4, 2), "arm.on": (4, 1)
    }  # fmt: skip
    assert seen["arm.on"].ravel().tolist() == [0, 1, 2, 0]
    assert seen["eye"].dtype == np.uint8
    assert dataset[0].actions.ravel().tolist() == [-1, 0, 1]
    assert not validate(path).errors


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1", "MountainCarContinuous-v0"])
def test_environments_of_gymnasium(path, env_id):
    with Recorder(gymnasium.make(env_id), path) as env:
        for seed in range(2):
            env.reset(seed=seed)
            env.action_space.seed(seed)
            over = False
            while not over and env.unwrapped is not None:
                _, _, terminated, truncated, _ = env.step(env.action_space.sample())
                over = terminated or truncated
    assert not validate(path).errors
    assert open_dataset(path).metadata.horizon == gymnasium.spec(env_id).max_episode_steps


def test_a_family_of_demokits_own_keeps_its_tasks(path):
    from demokit.envs.gym import Env

    with Recorder(Env("point"), path, family="point", task=lambda env: env.task) as env:
        for seed in range(2):
            act(env, steps=0, seed=seed)
            env.step(np.zeros(2))
    dataset = open_dataset(path)
    assert all(task.id.startswith("point/uniform-0/train/") for task in dataset.metadata.tasks)
    with (
        pytest.raises(DemokitError, match="say family='point'"),
        Recorder(Env("point"), path.with_name("b.hdf5"), task=lambda env: env.task) as env,
    ):
        env.reset()


# -- going on --------------------------------------------------------------------------------------


def test_recording_again_goes_on(path):
    recorded(path)
    with pytest.raises(DemokitError, match="say resume=True to extend it") as raised:
        Recorder(Line(), path)
    assert "--" not in str(raised.value)
    with Recorder(Line(), path, resume=True) as env:
        act(env, options={"task": [2.0]})
        act(env, options={"task": [-0.5]})
    dataset = open_dataset(path)
    assert [record.task.context[0] for record in dataset.episodes] == [0.5, -0.5, 0.5, 2.0, -0.5]
    assert [task.id for task in dataset.metadata.tasks] == ["line/00", "line/01", "line/02"]
    assert "seed" in dataset.metadata.provenance.missing
    assert not validate(path).errors
    with pytest.raises(DemokitError, match="has episodes of 'line', and these would be of 'other'"):
        Recorder(Line(), path, family="other", resume=True)


def test_a_kill_loses_the_episode_in_progress_alone(path):
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            env = Recorder(Line(), path)
            for goal in (1.0, 2.0, 3.0):
                act(env, options={"task": [goal]}, steps=STEPS if goal < 3 else 3)
            os.write(writer, b".")
            signal.pause()
        os._exit(0)
    os.read(reader, 1)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert len(open_dataset(path)) == 2
    with pytest.raises(DemokitError, match="2 saved episodes: say resume=True"):
        Recorder(Line(), path)
    with Recorder(Line(), path, resume=True) as env:
        act(env, options={"task": [4.0]})
    dataset = open_dataset(path)
    assert [record.task.context for record in dataset.episodes] == [(1.0,), (2.0,), (4.0,)]
    assert not staging_folder(path).exists()


def fail_in(path):
    with Recorder(Line(), path) as env:
        act(env)
        act(env, steps=2)
        raise ZeroDivisionError


def test_an_error_keeps_what_is_saved(path):
    with pytest.raises(ZeroDivisionError):
        fail_in(path)
    assert not path.exists()
    with Recorder(Line(), path, resume=True):
        pass
    assert path.exists()
    assert [len(episode) for episode in open_dataset(path)] == [STEPS]


def test_nothing_recorded_is_said(path):
    with (
        pytest.raises(DemokitError, match="No episode was saved"),
        Recorder(Line(), path) as env,
    ):
        env.reset()
    assert list(path.parent.iterdir()) == []


# -- what is refused -------------------------------------------------------------------------------

ANSWERS = {
    "NaN": ({"observation": np.array([np.nan, 0], np.float32)}, "observation is not finite"),
    "shape": ({"observation": np.zeros(3, np.float32)}, r"shape \(3,\) .* its space \(2,\)"),
    "type": ({"observation": np.array(["a", "b"])}, "type <U1"),
    "none": ({"observation": None}, "type object"),
    "a dict": ({"observation": {"a": 1}}, "type object"),
    "reward": ({"reward": np.nan}, "reward is not finite"),
    "no reward": ({"reward": "much"}, "reward has the shape"),
    "rewards": ({"reward": [1.0, 2.0]}, "reward has the shape"),
    "end": ({"terminated": "no"}, "terminated is 'no', which says neither"),
}


@pytest.mark.parametrize("what", ANSWERS)
def test_an_answer_that_cannot_be_kept(path, what):
    answer, said = ANSWERS[what]
    with Recorder(Says(**answer), path) as env:
        env.reset(options={"task": [1.0]})
        env.step(np.ones(1, np.float32))
        with pytest.raises(DemokitError, match=said):
            env.step(np.ones(1, np.float32))
        with pytest.raises(DemokitError, match="call reset"):
            env.step(np.ones(1, np.float32))
        env.unwrapped.answer = {}
        act(env, options={"task": [1.0]})
    assert [len(episode) for episode in open_dataset(path)] == [1, STEPS]


@pytest.mark.parametrize(
    ("action", "said"),
    [
        (np.array([3.0]), r"Component 0 of the action is 3, outside \[-4, 2\]"),
        (np.array([np.nan]), "action is not finite"),
        (np.zeros(2), r"shape \(2,\)"),
        ("left", "type <U4"),
    ],
)
def test_an_action_that_cannot_be_kept_is_not_stepped(path, action, said):
    with Recorder(Line(), path) as env:
        env.reset()
        with pytest.raises(DemokitError, match=said):
            env.step(action)
        assert env.unwrapped.t == 0
        env.step(np.zeros(1))
    assert len(open_dataset(path)[0]) == 1


def test_a_bound_holds_in_the_type_of_the_actions(path):
    with Recorder(Line(), path, action_low=-0.1, action_high=0.1) as env:
        env.reset()
        env.step(np.array([0.1], np.float32))
        with pytest.raises(DemokitError, match="outside"):
            env.step(np.array([0.10001], np.float32))
    assert open_dataset(path)[0].actions.tolist() == [[1]]


class Wild(Line):
    action_space = spaces.Box(-np.inf, np.inf, (1,), np.float32)


def test_a_range_is_stated_where_there_is_none(path):
    with pytest.raises(DemokitError, match="action_low and action_high"):
        Recorder(Wild(), path)
    with pytest.raises(DemokitError, match="one end"):
        Recorder(Wild(), path, action_low=1)
    with Recorder(Wild(), path, action_low=-10, action_high=10) as env:
        env.reset()
        env.step(np.array([5.0]))
    assert open_dataset(path)[0].actions.tolist() == [[0.5]]
    with (
        pytest.raises(DemokitError, match="another range of the actions"),
        Recorder(Wild(), path, action_low=-5, action_high=5, resume=True) as env,
    ):
        env.reset()


def refused_env(**spaces_):
    return type("Refused", (Line,), spaces_)()


@pytest.mark.parametrize(
    ("env", "said"),
    [
        (refused_env(observation_space=spaces.Text(4)), "Observations of Text are no arrays"),
        (refused_env(observation_space=spaces.Tuple([spaces.Discrete(2)])), "FlattenObservation"),
        (refused_env(observation_space=spaces.Dict({})), "no parts"),
        (refused_env(action_space=spaces.Box(-1, 1, (2, 2))), "neither a vector nor a number"),
        (refused_env(action_space=spaces.Dict({})), "neither a vector nor a number"),
        (refused_env(action_space=spaces.Discrete(1)), "action range"),
        (gymnasium.Env(), "Env has no observation_space"),
        ("CartPole-v1", "wraps one gymnasium.Env, not str"),
        (gymnasium.vector.SyncVectorEnv([Line]), "wraps one gymnasium.Env, not SyncVectorEnv"),
    ],
)
def test_an_environment_that_cannot_be_recorded(path, env, said):
    with pytest.raises(DemokitError, match=said):
        Recorder(env, path)
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ({"split": "trian"}, "split 'trian' is none of"),
        ({"task": 3}, "a name, a Task or a function, not 3"),
        ({"context": "far"}, "row of numbers"),
        ({"privileged": {}}, "privileged is a function of the environment"),
        ({"success": "yes"}, "success is a function of the environment"),
        ({"license": " "}, "licence is empty"),
        ({"description": "\ud800"}, "no text that a file can hold"),
        ({"expert": "\0"}, "no text that a file can hold"),
    ],
)
def test_what_is_said_wrong_is_refused_before_anything_is_stepped(path, said, answer):
    with pytest.raises(DemokitError, match=answer):
        Recorder(Line(), path, **said)
    assert list(path.parent.iterdir()) == []


def test_tasks_that_contradict_those_before(path):
    wrong = [
        ({"task": "a", "context": [2.0]}, "another context"),
        ({"task": "b"}, "not stated, unlike those before"),
        ({"task": "c", "context": [1.0, 2.0]}, "of one length, or none"),
        ({"task": 7j}, "row of numbers"),
        ({"task": "d", "context": "far"}, "row of numbers"),
        ({"task": [np.nan]}, "not finite"),
        ({"task": " "}, "name of a task"),
        ({"task": "e", "context": [1.0], "split": 1}, None),
    ]

    with Recorder(Deaf(), path) as env:
        act(env, options={"task": "a", "context": [1.0]})
        for options, said in wrong[:-1]:
            with pytest.raises(DemokitError, match=said):
                env.reset(options=options)
    assert len(open_dataset(path)) == 1
    with (
        pytest.raises(DemokitError, match="contexts of tasks stated, not left out"),
        Recorder(Deaf(), path, resume=True) as env,
    ):
        env.reset()


@pytest.mark.parametrize(
    ("gives", "said"),
    [
        (lambda env: {"force": np.zeros(1 + env.t)}, "were force"),
        (lambda env: {"force": np.full(2, np.nan)}, "'force' is not finite"),
        (lambda env: {"context": 1.0}, "taken"),
        (lambda env: {"a/b": 1.0}, "'/'"),
        (lambda env: {"name": "left"}, "no array of numbers"),
        (lambda env: [1.0], "must give a dict, not list"),
    ],
)
def test_privileged_terms_that_are_none(path, gives, said):
    env = Recorder(Line(), path, privileged=gives)
    with pytest.raises(DemokitError, match=said):
        act(env)


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file" / "a.hdf5", tmp_path / "a.h5", tmp_path):
        with pytest.raises(DemokitError) as raised:
            Recorder(Line(), place)
        assert "--" not in str(raised.value)


def test_one_recorder_writes_a_file(path):
    with Recorder(Line(), path) as env:
        act(env)
        with pytest.raises(DemokitError, match="is being written by process"):
            Recorder(Line(), path, overwrite=True)
    assert Path(path).exists()
