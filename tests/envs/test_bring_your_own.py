"""Families of other packages, and any Gymnasium environment built on MuJoCo."""

import re
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from click.testing import CliRunner

import demokit.envs as envs
from demokit.cli import main
from demokit.data import open_dataset
from demokit.data.replay import Replayer, compare
from demokit.envs.batch import make_sims
from demokit.envs.point import Point
from demokit.errors import DemokitError
from tests.envs.test_gym import can_draw

IDS = ("Pusher-v5", "Hopper-v5", "Ant-v5")


class Entry:
    """What importlib.metadata gives for an entry point."""

    def __init__(self, name, load):
        self.name, self.load = name, load


@pytest.fixture
def foreign(monkeypatch):
    def install(name, load):
        monkeypatch.setattr(envs, "_foreign", lambda: {name: Entry(name, load)})
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


def test_the_page_of_the_documentation_does_what_it_says(foreign, tmp_path, monkeypatch):
    page = (Path(__file__).parents[2] / "docs" / "environments.md").read_text()
    written: dict = {}
    exec(page.split("```python")[1].split("```")[0], written)
    foreign("ring", lambda: written["Ring"])
    monkeypatch.chdir(tmp_path)
    commands = re.findall(r"^    demokit (.*)$", page, re.MULTILINE)
    assert len(commands) == 5
    for command in commands:
        if "vision" in command and not can_draw():
            continue
        result = CliRunner().invoke(main, command.replace("episodes 20", "episodes 2").split())
        assert result.exit_code == 0, result.output
    assert "replay from their actions" in result.output


def test_what_cannot_be_adapted_says_why():
    with pytest.raises(DemokitError, match="not built on MuJoCo"):
        envs.make_family("gym:CartPole-v1")
    with pytest.raises(DemokitError, match="Gymnasium cannot make 'Pushr-v5'"):
        envs.make_family("gym:Pushr-v5")
    for name in ("gym:Ant-v3", "gym:no.such.package:X-v0", "gym:a:b:c"):
        with pytest.raises(DemokitError, match="Gymnasium cannot make"):
            envs.make_family(name)


def test_an_adapted_environment_has_no_scripted_expert(tmp_path):
    record = ("record", "--env", "gym:Pusher-v5", "--out", str(tmp_path / "a.hdf5"))
    result = CliRunner().invoke(main, record)
    assert "has no scripted expert: take --expert random" in result.output
    assert not any(tmp_path.iterdir())


def test_an_adapted_environment_is_described():
    result = CliRunner().invoke(main, ["envs", "gym:Pusher-v5"])
    assert result.exit_code == 0, result.output
    assert "observation of 23 numbers" in result.output
    assert "task set only: train" in result.output
