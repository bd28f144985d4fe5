"""Families of other packages, and any Gymnasium environment built on MuJoCo."""

import gc
import re
from pathlib import Path

import gymnasium
import mujoco
import numpy as np
import pytest
from click.testing import CliRunner
from gymnasium.envs.mujoco.pusher_v5 import PusherEnv

import demokit
import demokit.envs as envs
from demokit.cli import main
from demokit.data import open_dataset
from demokit.data.replay import Replayer, compare
from demokit.envs.batch import make_sims
from demokit.envs.check import check_family
from demokit.envs.family import ContextSpace, Family, Term
from demokit.envs.gym import Env
from demokit.envs.point import Point
from demokit.envs.tasks import find_task, make_tasks, task_set_of
from demokit.errors import DemokitError
from tests.envs.test_gym import can_draw

PAGE = (Path(__file__).parents[2] / "docs" / "environments.md").read_text()
IDS = ("Pusher-v5", "Hopper-v5", "Ant-v5")


class Entry:
    """What importlib.metadata gives for an entry point."""

    def __init__(self, name, load):
        self.name, self.load = name, load


@pytest.fixture
def foreign(monkeypatch):
    entries = {}

    def install(name, load):
        entries[name] = Entry(name, load)
        monkeypatch.setattr(envs, "_foreign", lambda: entries)
        envs.make_family.cache_clear()

    yield install
    envs.make_family.cache_clear()


def test_a_family_of_another_package(foreign, tmp_path):
    class Drift(Point):
        name = "drift"

    foreign("drift", lambda: Drift)
    assert envs.family_names()[-1] == "drift"
    out = tmp_path / "drift.hdf5"
    arguments = f"record --env drift --expert random --num-episodes 2 --out {out}"
    result = CliRunner().invoke(main, arguments.split())
    assert result.exit_code == 0, result.output
    with open_dataset(out) as dataset:
        assert dataset.metadata.family == "drift"


def test_a_package_that_does_not_load_says_so(foreign):
    def broken():
        raise ImportError("no module named 'nothing'")

    foreign("broken", broken)
    with pytest.raises(DemokitError, match="'broken' cannot be loaded: no module"):
        envs.make_family("broken")
    foreign("other", lambda: Point)
    with pytest.raises(DemokitError, match="must name a Family"):
        envs.make_family("other")


@pytest.mark.parametrize("env_id", IDS)
def test_the_episode_is_gymnasiums(env_id):
    family = envs.make_family(f"gym:{env_id}")
    sims, theirs = make_sims(family, 2), gymnasium.make(env_id)
    ours = sims.reset(np.zeros((2, 1)), [4, 5])
    seen, _ = theirs.reset(seed=5)
    np.testing.assert_array_equal(ours[1], seen.astype(np.float32))
    low, high = theirs.action_space.low, theirs.action_space.high
    for action in np.random.default_rng(0).uniform(-1, 1, (20, 2, len(low))):
        step = sims.step(action)
        scaled = low + (action[1].astype(np.float32) + 1) / 2 * (high - low)
        seen, reward, terminated, *_ = theirs.step(scaled)
        np.testing.assert_array_equal(step.observation[1], seen.astype(np.float32))
        assert step.reward[1] == reward
        assert step.terminated[1] == terminated
        if terminated:
            break


@pytest.mark.parametrize("env_id", IDS)
def test_recorded_and_replayed_bit_for_bit(env_id, tmp_path):
    out = tmp_path / "gym.hdf5"
    arguments = f"record --env gym:{env_id} --expert random --num-episodes 2 --out {out}"
    result = CliRunner().invoke(main, arguments.split())
    assert result.exit_code == 0, result.output
    with open_dataset(out) as dataset:
        episodes = [dataset[i] for i in range(2)]
        replayer = Replayer(dataset.metadata, num_sims=2)
        assert replayer.same_model
    for episode, replay in zip(episodes, replayer.from_actions(episodes), strict=True):
        assert compare(episode, replay).largest == 0
    middle = replayer.from_states(episodes[0], [3])
    assert np.array_equal(middle.arrays["observations"][0], episodes[0].observations[3])


@pytest.mark.parametrize("env_id", ["Pusher-v5", "Hopper-v5"])
def test_the_seed_of_an_episode_is_gymnasiums(env_id, tmp_path):
    path = tmp_path / "a.hdf5"
    demokit.record(f"gym:{env_id}", path, expert="random", num_episodes=4)
    with open_dataset(path) as dataset:
        episodes = list(dataset)
    assert max(episode.seed for episode in episodes) > 2**31
    for episode in episodes:
        seen, _ = gymnasium.make(env_id).unwrapped.reset(seed=episode.seed)
        np.testing.assert_array_equal(episode.observations[0], seen.astype(np.float32))


def test_the_space_is_gymnasiums():
    env = Env("gym:Humanoid-v5")
    assert env.observation_space.shape == gymnasium.make("Humanoid-v5").observation_space.shape
    rows = [env.reset(seed=0)[0]]
    for action in np.random.default_rng(0).uniform(-1, 1, (20, *env.action_space.shape)):
        rows.append(env.step(action)[0])
    assert all(env.observation_space.contains(row) for row in rows)
    assert np.abs(rows).max() > 100
    assert np.abs(Env("push").observation_space.high).max() == 100


class Counted(PusherEnv):
    """How many are open."""

    opened = 0

    def __init__(self, **given):
        super().__init__(**given)
        Counted.opened += 1

    def close(self):
        Counted.opened -= 1
        super().close()


class Narrow(PusherEnv):
    """It observes one number instead of 23."""

    def step(self, action):
        _, *said = super().step(action)
        return np.zeros(1), *said


@pytest.fixture
def registered():
    for kind in (Counted, Narrow):
        gymnasium.register(f"test/{kind.__name__}-v0", entry_point=kind, max_episode_steps=5)
    yield
    for kind in (Counted, Narrow):
        del gymnasium.registry[f"test/{kind.__name__}-v0"]
    envs.make_family.cache_clear()


@pytest.mark.usefixtures("registered")
def test_gymnasiums_environments_are_closed(tmp_path):
    family = envs.make_family("gym:test/Counted-v0")
    before = Counted.opened
    demokit.record(family, tmp_path / "a.hdf5", expert="random", num_episodes=2)
    assert Counted.opened == before
    with make_sims(family, 3):
        assert Counted.opened == before + 3
    assert Counted.opened == before
    sims = make_sims(family, 2)
    del sims
    gc.collect()
    assert Counted.opened == before


@pytest.mark.usefixtures("registered")
def test_an_environment_in_a_namespace_has_tasks_that_are_found():
    family = envs.make_family("gym:test/Counted-v0")
    (task,) = make_tasks(family, "only", "train", num_tasks=1, seed=3)
    assert task.id == "gym:test/Counted-v0/only-3/train/00"
    assert find_task(family, task.id) == task
    assert task_set_of(family, task.id) == ("only", 3)
    with pytest.raises(DemokitError, match="There is no task"):
        find_task(family, task.id.removeprefix("gym:"))


@pytest.mark.usefixtures("registered")
def test_an_observation_of_another_width_is_not_spread():
    sims = make_sims(envs.make_family("gym:test/Narrow-v0"), 1)
    sims.reset(np.zeros((1, 1)), [0])
    with pytest.raises(DemokitError, match="does not fit its environment's observation space"):
        sims.step(np.zeros((1, 7)))


def test_a_family_that_is_given_is_the_one_that_is_meant(tmp_path, monkeypatch):
    monkeypatch.setattr(envs, "_registered", {})
    ring = documented()["Ring"]()
    dataset = demokit.record(ring, tmp_path / "a.hdf5", expert="random", num_episodes=2)
    assert (dataset.metadata.family, len(dataset)) == ("ring", 2)
    assert envs.make_family("ring") is ring
    assert envs.given_family(ring) is ring
    point = envs.make_family("point")
    assert envs.given_family(Point()).name == point.name
    posing = type("Posing", (type(ring),), {"name": "push"})()
    with pytest.raises(DemokitError, match="'push' is the name of an installed family"):
        demokit.record(posing, tmp_path / "b.hdf5")
    with pytest.raises(DemokitError, match="its goal_marker fails"):
        envs.given_family(type("Bad", (Point,), {"name": "bad", "goal_marker": None})())
    envs.make_family.cache_clear()


def documented():
    """The classes of the page's code, by name."""
    written: dict = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(block, written)
    return written


def test_the_page_of_the_documentation_does_what_it_says(foreign, tmp_path, monkeypatch):
    for name in ("Rail", "Ring"):
        foreign(name.lower(), lambda name=name: documented()[name])
    monkeypatch.chdir(tmp_path)
    commands = re.findall(r"^    demokit (.*)$", PAGE, re.MULTILINE)
    assert len(commands) == 6
    for command in commands:
        if "vision" in command and not can_draw():
            continue
        result = CliRunner().invoke(main, command.replace("episodes 20", "episodes 2").split())
        assert result.exit_code == 0, result.output
    assert "replay from their actions" in result.output


def without(text):
    """The documented model without a part."""
    return lambda self: mujoco.MjSpec.from_string(documented()["XML"].replace(text, ""))


RAIL = documented()["Rail"]
MISTAKES = {
    "keyframe": ({"spec": without('<keyframe><key qpos="0"/></keyframe>')}, "no keyframe"),
    "camera": ({"spec": without('name="scene"')}, "must have a camera named 'scene'"),
    "model": ({"spec": without("</worldbody>")}, "spec fails|model does not compile"),
    "marker": ({"goal_marker": lambda self, context: {"gaol": 0}}, "'gaol', which is no site"),
    "object": ({"object_term": "bal_pos_m"}, "'bal_pos_m' is none of its observation terms"),
    "actions": ({"actions": "force"}, "actions must be a tuple of strings"),
    "horizon": ({"horizon": 0.5}, "horizon must be a whole number"),
    "terms": ({"terms": ("ball_pos_m",)}, "terms must be a tuple of Term"),
    "twins": ({"terms": RAIL.terms * 2}, "the same name"),
    "noise": ({"start_noise_width": -1}, "start_noise_width must be a whole number of at least 0"),
    "taken": (
        {"terms": (*RAIL.terms, Term("context", 1, "m", "world", "privileged"))},
        "its term 'context' is what demokit adds itself",
    ),
    "taken reward": (
        {"terms": (*RAIL.terms, Term("reward_dense", 1, "1", "none", "privileged"))},
        "its term 'reward_dense' is what demokit adds itself",
    ),
    "image": (
        {
            "terms": (*RAIL.terms, Term("image", 1, "m", "world", "observation")),
            "vision_terms": ("image",),
        },
        "'image' is called as an image is",
    ),
    "no width": (
        {"terms": (*RAIL.terms, Term("none", 0, "m", "world", "observation"))},
        "the width of a term must be a whole number of at least 1",
    ),
    "dynamics": (
        {"dynamics": RAIL.context, "nominal_dynamics": (1.0,)},
        "its set_task fails with NotImplementedError",
    ),
    "nominal": ({"dynamics": RAIL.context}, "a number for each name of dynamics"),
    "sizes": ({"paper_sizes": {"test": 3}}, "paper_sizes has 'test': 3, and must say"),
    "no size": ({"paper_sizes": {"train": 0}}, "paper_sizes has 'train': 0, and must say"),
    "published": (
        {"published": {"wide": ContextSpace(("a", "b"), ("m", "m"), (0, 0), (1, 1))}},
        "published 'wide' must be a ContextSpace as wide as context",
    ),
    "end": (
        {"terminated": lambda self, terms: np.zeros(2)},
        "terminated returns float64, and must return booleans",
    ),
    "complex": (
        {"reward_dense": lambda self, terms, context, action: np.zeros(2, complex)},
        "reward_dense returns complex128, and must return real numbers",
    ),
    "task": (
        {"set_task": lambda self, sims, ids, context: sims.expand("mass")},
        "its set_task fails with ValueError: .*mass",
    ),
    "start": ({"start": lambda self, noise: {"qpso": noise}}, "start returns 'qpso', but views"),
    "control": ({"control": lambda self, views, action: {"motor": action}}, "returns 'motor'"),
    "shape": ({"control": lambda self, views, action: {"ctrl": action[:, [0, 0]]}}, "shape"),
    "view": ({"control": lambda self, views, action: {"ctrl": views["u"]}}, "with KeyError: 'u'"),
    "nothing": ({"control": lambda self, views, action: None}, "must return a dict"),
    "read": ({"read": lambda self, views: {"ball": views["qpos"].copy()}}, "read returns 'ball'"),
    "width": (
        {"terms": (RAIL.terms[0], Term("ball_vel", 2, "m/s", "world", "observation"))},
        r"its term needs \(2, 2\)",
    ),
    "reward": (
        {"reward_dense": lambda self, terms, context, action: terms["ball_pos_m"]},
        r"reward_dense returns shape \(2, 1\)",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_a_family_is_one_sentence_when_it_is_loaded(mistake, foreign):
    attributes, message = MISTAKES[mistake]
    broken = type("Broken", (RAIL,), {"name": "broken", **attributes})
    foreign("broken", lambda: broken)
    with pytest.raises(DemokitError, match=message) as raised:
        envs.make_family("broken")
    assert str(raised.value).startswith("Family 'broken' (")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", [5, "a/b", "a b", ""])
def test_a_name_that_is_none_is_refused(name):
    family = type("Broken", (RAIL,), {"name": name})()
    with pytest.raises(DemokitError, match="name is letters, digits"):
        check_family(family)


def test_what_a_family_lacks_is_named(foreign):
    given = {name: getattr(RAIL, name) for name in vars(RAIL) if name not in ("horizon", "actions")}
    foreign("rail", lambda: type("Rail", (Family,), given))
    with pytest.raises(DemokitError, match="it must define horizon, actions"):
        envs.make_family("rail")
    foreign("rail", lambda: type("Rail", (Family,), {"name": "rail"}))
    with pytest.raises(DemokitError, match=r"'rail' cannot be loaded: .* abstract .*control"):
        envs.make_family("rail")
    foreign("rail", lambda: type("Rail", (Point,), {"name": "other"}))
    with pytest.raises(DemokitError, match="must name a Family of that name"):
        envs.make_family("rail")


@pytest.mark.parametrize("name", [*envs.family_names(), "gym:Hopper-v5"])
def test_the_families_here_pass_the_check(name):
    check_family(envs.make_family(name))


MODULE = """
import gymnasium
from gymnasium.envs.mujoco.pusher_v5 import PusherEnv

gymnasium.register("MyEnv-v0", entry_point=PusherEnv, max_episode_steps=7)
"""


def test_an_environment_that_a_module_registers(tmp_path, monkeypatch):
    (tmp_path / "genv.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    out = tmp_path / "own.hdf5"
    arguments = f"record --env gym:genv:MyEnv-v0 --expert random --num-episodes 2 --out {out}"
    result = CliRunner().invoke(main, arguments.split())
    assert result.exit_code == 0, result.output
    with open_dataset(out) as dataset:
        assert dataset.metadata.horizon == 7
        assert {len(dataset[i]) for i in range(2)} == {7}
    result = CliRunner().invoke(main, ["replay", str(out), "--use-actions"])
    assert result.exit_code == 0, result.output


@pytest.mark.filterwarnings("ignore:.*Using the latest versioned environment")
def test_an_environment_without_its_version_is_the_latest():
    assert envs.make_family("gym:Hopper").horizon == 1000


def test_what_cannot_be_adapted_says_why():
    with pytest.raises(DemokitError, match="not built on MuJoCo"):
        envs.make_family("gym:CartPole-v1")
    with pytest.raises(DemokitError, match="Gymnasium cannot make 'Pushr-v5'"):
        envs.make_family("gym:Pushr-v5")
    for name in ("gym:Ant-v3", "gym:", "gym:json:X-v0"):
        with pytest.raises(DemokitError, match="Gymnasium cannot make"):
            envs.family_named_by_user(name)
    for name in ("gym:no.such.package:X-v0", "gym:a:b:c"):
        with pytest.raises(DemokitError, match="cannot be imported"):
            envs.family_named_by_user(name)


def test_an_adapted_environment_has_no_scripted_expert(tmp_path):
    record = ("record", "--env", "gym:Pusher-v5", "--out", str(tmp_path / "a.hdf5"))
    result = CliRunner().invoke(main, record)
    assert "has no scripted expert: give --expert a file that train-expert" in result.output
    assert not any(tmp_path.iterdir())


def test_an_adapted_environment_is_described():
    result = CliRunner().invoke(main, ["envs", "gym:Pusher-v5"])
    assert result.exit_code == 0, result.output
    assert "observation of 23 numbers" in result.output
    assert "task set only: train" in result.output
