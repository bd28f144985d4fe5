"""Simulations that diverge and numbers that are none are said: which, whose and when."""

import json
import re
from typing import ClassVar

import gymnasium
import mujoco
import numpy as np
import pytest
from click.testing import CliRunner
from gymnasium.envs.mujoco.pusher_v5 import PusherEnv

import demokit.envs as envs
from demokit.cli import main
from demokit.collect import collect
from demokit.data import open_dataset
from demokit.envs.batch import SimBatch, SimState, make_sims
from demokit.envs.point import Point
from demokit.envs.tasks import make_tasks
from demokit.errors import DemokitError
from demokit.protocols import Decision
from demokit.types import truth
from tests.envs.test_bring_your_own import Entry

XML = """
<mujoco>
  <option timestep="0.01" gravity="0 0 0"/>
  <worldbody>
    <camera name="scene" pos="0 -3 1" xyaxes="1 0 0 0 0.3 1"/>
    <site name="goal" group="4"/>
    <body>
      <joint type="slide" axis="1 0 0"/><joint type="slide" axis="0 1 0"/>
      <geom size="0.05" mass="1"/>
    </body>
  </worldbody>
  <keyframe><key qpos="0 0"/></keyframe>
</mujoco>
"""
FORCE_N = 1e11  # accelerates 1 kg beyond what MuJoCo accepts


class Runaway(Point):
    """A disc pushed by what the actions say: above 0.99 and the acceleration overflows."""

    name = "runaway"
    frame_skip = 2
    start_noise_width = 0

    def spec(self):
        return mujoco.MjSpec.from_string(XML)

    def views(self, sims):
        return {"qpos": sims.qpos, "qvel": sims.qvel, "force": sims.qfrc_applied}

    def start(self, noise):  # noqa: ARG002
        return {}

    def control(self, views, action):  # noqa: ARG002
        return {"force": np.where(action > 0.99, FORCE_N, action)}

    def read(self, views):
        return {"point_pos_w_m": views["qpos"].copy(), "point_vel_w": views["qvel"].copy()}


class Endless(Runaway):
    """The same; a push along y ends the episode."""

    name = "endless"

    def terminated(self, terms):
        return terms["point_vel_w"][:, 1] > 0


class Rewards(Point):
    """A point whose dense reward at step 3 of the second task is what the test says."""

    name = "rewards"
    paid = np.nan

    def reward_dense(self, terms, context, action):
        self.calls = getattr(self, "calls", -1) + 1
        reward = super().reward_dense(terms, context, action)
        reward[1:2] = np.where(self.calls == 3, self.paid, reward[1:2])
        return reward


class Source:
    """Acts as told: (T, N, A)."""

    def __init__(self, actions):
        self.actions, self.step = actions, 0

    def decide(self, observation, privileged):  # noqa: ARG002
        action = self.actions[min(self.step, len(self.actions) - 1)]
        self.step += 1
        return Decision(action, action, np.ones(len(action), bool))


@pytest.fixture(autouse=True)
def aside(tmp_path, monkeypatch):
    """MuJoCo writes its warnings to a file in the working folder."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def installed(monkeypatch):
    def install(*kinds):
        entries = {kind.name: Entry(kind.name, lambda kind=kind: kind) for kind in kinds}
        monkeypatch.setattr(envs, "_foreign", lambda: entries)
        envs.make_family.cache_clear()

    yield install
    envs.make_family.cache_clear()


def started(family, num=3):
    tasks = make_tasks(family, "uniform", "train", num_tasks=num)
    sims = SimBatch(family, num)
    sims.reset(np.array([task.context for task in tasks]), range(num), tasks=[t.id for t in tasks])
    return sims, tasks


def pushed(num, sim, component=0):
    action = np.zeros((num, 2), np.float32)
    action[sim, component] = 1
    return action


def test_an_acceleration_that_overflows_names_simulation_task_and_step():
    sims, tasks = started(Runaway())
    sims.step(pushed(3, 1) * 0.5)
    with pytest.raises(DemokitError) as raised:
        sims.step(pushed(3, 1))
    assert str(raised.value).startswith(f"Simulation 1 (task {tasks[1].id}) in step 2: it diverged")
    assert "QACC at DOF 0" in str(raised.value)
    assert (raised.value.simulation, raised.value.step) == (1, 2)


def test_a_task_without_a_name_is_told_by_its_context():
    sims, _ = started(Runaway())
    sims.reset(np.array([[0.25, -0.5]] * 3), range(3))
    with pytest.raises(DemokitError, match=r"\(task goal_x 0.25 m, goal_y -0.50 m\) in step 1"):
        sims.step(pushed(3, 2))


def go_on(sims, state=None):
    """Restore and make five steps of no action."""
    if state is not None:
        sims.set_state(state)
    for _ in range(5):
        sims.step(np.zeros((sims.num_sims, len(sims.family.actions))))


@pytest.mark.parametrize(
    ("name", "speed", "said"), [("ant", 1e12, "of its state is 1e"), ("ant", 9e9, "it diverged")]
)
def test_absurd_velocities_are_no_start(name, speed, said):
    sims = SimBatch(envs.make_family(name), 2)
    sims.reset(np.zeros((2, 1)), [0, 1])
    state = sims.get_state()
    place = sims._sims._component(mujoco.mjtState.mjSTATE_QVEL)[0]
    state.physics[1, place + 7] = speed
    with pytest.raises(DemokitError, match=r"Simulation 1 \(task .*" + said):
        go_on(sims, state)


def test_a_batch_goes_on_after_a_fault_from_a_sound_state():
    sims, _ = started(Runaway())
    sound = sims.get_state()
    with pytest.raises(DemokitError):
        sims.step(pushed(3, 1))
    sims.set_state(sound)
    assert np.isfinite(sims.step(pushed(3, 0, component=1) * 0.5).reward).all()


def test_behind_its_end_a_simulation_is_not_watched_and_stays_finite():
    sims, _ = started(Endless())
    ended = sims.step(pushed(3, 1, component=1) * 0.5)
    assert ended.terminated.tolist() == [False, True, False]
    after = sims.step(pushed(3, 1))
    assert np.isfinite(after.reward).all()
    assert np.isfinite(after.observation).all()
    with pytest.raises(DemokitError, match=r"Simulation 0 .* in step 3"):
        sims.step(pushed(3, 0))
    sims, _ = started(Runaway())
    sims.retire(np.array([False, True, False]))
    sims.step(pushed(3, 1))


class Ends(Point):
    """Over half a metre to the right, where the terms and rewards of what goes on are none."""

    name = "ends"

    def read(self, views):
        terms = super().read(views)
        beyond = np.maximum(0, terms["point_pos_w_m"][:, :1] - 0.6)
        return {**terms, "point_vel_w": terms["point_vel_w"] / np.where(beyond > 0, 0.0, 1.0)}

    def reward_dense(self, terms, context, action):  # noqa: ARG002
        return np.log(0.6 - terms["point_pos_w_m"][:, 0])

    def terminated(self, terms):
        return terms["point_pos_w_m"][:, 0] > 0.5


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_behind_its_end_no_term_and_no_reward_is_watched():
    sims = SimBatch(Ends(), 2)
    sims.reset(np.zeros((2, 2)), [0, 1])
    action = np.array([[0.4, 0.0], [-0.1, 0.0]])
    ended = 0
    for _ in range(Ends.horizon):
        step = sims.step(action)
        ended += step.terminated[0]
        assert np.isfinite(step.reward).all()
        assert all(np.isfinite(values).all() for values in sims.privileged().values())
    assert ended > 3
    sims.reset(np.zeros((1, 2)), [0], np.array([0]))
    state = sims.get_state()
    state.physics[0, 1] = 0.9  # x, behind the time: watched again
    with pytest.raises(DemokitError, match="its term 'point_vel_w'"):
        sims.set_state(state)


@pytest.mark.parametrize(
    ("paid", "said"), [(np.nan, "nan"), (-np.inf, "-inf"), (1e39, r"1e\+39"), (-3.5e38, "-3.5e")]
)
def test_a_reward_that_is_no_number_of_float32_is_said(paid, said):
    family = Rewards()
    family.paid = paid
    sims, tasks = started(family)
    sims.privileged()
    with pytest.raises(DemokitError, match=f"its dense reward is {said}") as raised:
        go_on(sims)
    assert f"Simulation 1 (task {tasks[1].id}) in step 3" in str(raised.value)


def test_the_largest_number_of_float32_is_a_reward():
    family = Rewards()
    family.paid = float(np.finfo(np.float32).max)
    sims, _ = started(family)
    go_on(sims)


def test_a_term_that_is_nan_is_named():
    class Blind(Point):
        name = "blind"

        def read(self, views):
            terms = super().read(views)
            terms["point_vel_w"][2, 1] = np.nan if views["qvel"][2, 1] else 0
            return terms

    sims, tasks = started(Blind())
    with pytest.raises(DemokitError, match=r"its term 'point_vel_w', component 1, is nan") as found:
        sims.step(np.ones((3, 2)))
    assert f"Simulation 2 (task {tasks[2].id}) in step 1" in str(found.value)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_action_that_is_no_number_is_named_and_not_executed(value):
    sims, tasks = started(Point())
    before = sims.get_state().physics
    action = np.zeros((3, 2))
    action[2, 1] = value
    said = rf"action 1 \(dy / 0.1 m\) is {value:g}"
    for act in (sims.step, lambda a: collect_once(sims, tasks, a)):
        with pytest.raises(DemokitError, match=said) as raised:
            act(action)
        assert f"Simulation 2 (task {tasks[2].id}) in step 1" in str(raised.value)
    sims.set_state(SimState(before, np.zeros(3, np.int64), sims.get_state().context))


def collect_once(sims, tasks, action):
    collect(sims, Source([action]), tasks, range(3), recorder="x", options=[{}] * 3)


def test_recording_does_not_go_on_from_the_start_pose(installed, tmp_path):
    installed(Runaway)
    out = tmp_path / "a.hdf5"
    command = f"record --env runaway --expert random --num-episodes 40 --batch-size 8 --out {out}"
    result = CliRunner().invoke(main, command.split())
    assert result.exit_code == 1
    said = r"^Error: Simulation \d \(task runaway/uniform-0/train/\d\d\) in step \d+: it diverged"
    assert re.search(said, result.stderr, re.MULTILINE)
    assert not out.exists()


def old_recording(installed, path, monkeypatch):
    """A recording as it was before anybody watched: step 4 of its second episode is a reset."""
    installed(Runaway)
    with monkeypatch.context() as patch:
        patch.setattr(SimBatch, "_require_sound", lambda self: None)
        patch.setattr(
            "recorders.scripted.random.RandomExpert.act",
            lambda self, observation, privileged: (
                pushed(2, 1) if privileged["state"][0, 0] > 0.055 else np.zeros((2, 2))
            ),
        )
        command = f"record --env runaway --expert random --num-episodes 2 --noise 0 --out {path}"
        result = CliRunner().invoke(main, command.split())
        assert result.exit_code == 0, result.output
    return path


def test_a_recording_that_holds_a_reset_is_found(installed, tmp_path, monkeypatch):
    path = str(old_recording(installed, tmp_path / "old.hdf5", monkeypatch))
    result = CliRunner().invoke(main, ["validate", path, "--json"])
    found = json.loads(result.stdout)
    assert result.exit_code == 1
    (error,) = [each for each in found["findings"] if each["severity"] == "error"]
    assert (error["check"], error["episode"]) == ("time", 1)
    assert error["message"] == (
        "The time of row 4 is not one step after the row before: the simulation was reset there."
    )
    assert found["sound"] == [0]
    result = CliRunner().invoke(main, ["replay", path, "--use-actions"])
    assert result.exit_code == 1
    assert "Episode 1: Simulation 1 (task runaway/uniform-0/train/01) in step 4" in result.output
    assert "1 of 2 episodes replay from their actions" in result.output


def test_validate_replay_names_the_divergence(installed, tmp_path, monkeypatch):
    path = str(old_recording(installed, tmp_path / "old.hdf5", monkeypatch))
    monkeypatch.setattr(Runaway, "time_breaks", lambda self, time_s: np.zeros(1, bool))
    result = CliRunner().invoke(main, ["validate", path, "--replay", "--json"])
    found = json.loads(result.stdout)
    (error,) = [each for each in found["findings"] if each["severity"] == "error"]
    assert (error["check"], error["episode"]) == ("replay", 1)
    assert (
        "diverges at row 4: Simulation 1 (task runaway/uniform-0/train/01) in step 4"
        in (error["message"])
    )
    assert found["sound"] == [0]


class Own(PusherEnv):
    """A Gymnasium environment that does what the test says in its third step."""

    says: ClassVar[dict] = {}

    def reset(self, **options):
        self.steps = 0
        return super().reset(**options)

    def step(self, action):
        self.steps += 1
        seen, reward, ended, cut, info = super().step(action)
        if self.steps == 3:
            for what, value in self.says.items():
                if what == "qvel":
                    self.data.qvel[0] = value
                    mujoco.mj_step(self.model, self.data)
            reward = self.says.get("reward", reward)
            cut = self.says.get("truncated", cut)
            info = {**info, **self.says.get("info", {})}
            if "reset" in self.says:
                super().reset()
            if "raises" in self.says:
                raise self.says["raises"]
            if "observation" in self.says:
                seen = self.says["observation"]
        return seen, reward, ended, cut, info


@pytest.fixture
def own(monkeypatch):
    def make(num=2, **says):
        monkeypatch.setattr(Own, "says", says)
        if "Own-v0" not in gymnasium.registry:
            gymnasium.register("Own-v0", entry_point=Own, max_episode_steps=20)
        envs.make_family.cache_clear()
        sims = make_sims(envs.make_family("gym:Own-v0"), num)
        tasks = make_tasks(sims.family, "only", "train")
        sims.reset(np.zeros((num, 1)), range(num), tasks=[tasks[0].id] * num)
        return sims

    yield make
    gymnasium.registry.pop("Own-v0", None)
    envs.make_family.cache_clear()


FAULTS = {
    "a state that overflows": ({"qvel": 1e12}, "it diverged, and MuJoCo would reset it"),
    "a reset in the middle": ({"reset": True}, "its time went back from 0.1 to 0 s"),
    "a reward that is NaN": ({"reward": np.nan}, "its term 'reward' is nan"),
    "a reward of two numbers": ({"reward": np.ones(2)}, "its reward is array"),
    "text for success": ({"info": {"is_success": "False"}}, r"its info\['is_success'\] is 'False'"),
    "success of many": ({"info": {"success": np.ones(2)}}, r"its info\['success'\] is array"),
    "no end": ({"truncated": "no"}, "its truncated is 'no', which says neither yes nor no"),
    "an exception": ({"raises": KeyError("goal")}, "step of its environment fails with KeyError"),
    "another observation": ({"observation": np.ones(3)}, "what it observes does not fit"),
    "NaN observed": ({"observation": np.full(23, np.nan)}, "its term 'observation', component 0, "),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_gymnasium_environment_that_goes_wrong_is_named(fault, own):
    says, said = FAULTS[fault]
    sims = own(**says)
    zero = np.zeros((2, 7))
    sims.step(zero)
    sims.step(zero)
    with pytest.raises(DemokitError, match=said) as raised:
        sims.step(zero)
    assert str(raised.value).startswith("Simulation 0 (task gym:Own-v0/only-0/train/00) in step 3:")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("value", "solved"),
    [
        (True, True),
        (np.bool_(False), False),
        (np.array(True), True),
        (np.array([0.0]), False),
        (1, True),
        (np.float32(1), True),
        ([[1]], True),
    ],
)
def test_success_may_be_said_in_many_ways(value, solved, own):
    assert truth(value) is solved
    sims = own(info={"is_success": value, "success": not solved})
    for _ in range(3):
        step = sims.step(np.zeros((2, 7)))
    assert step.success.tolist() == [solved, solved]


@pytest.mark.parametrize("value", ["True", "", None, 2, 0.5, np.nan, [], [1, 1], b"1", object()])
def test_what_is_neither_yes_nor_no(value):
    assert truth(value) is None


def test_an_environment_that_truncates_itself_ends_there(own, tmp_path):
    own(truncated=np.bool_(True))
    out = tmp_path / "own.hdf5"
    command = f"record --env gym:Own-v0 --expert random --num-episodes 3 --out {out}"
    result = CliRunner().invoke(main, command.split())
    assert result.exit_code == 0, result.output
    with open_dataset(out) as dataset:
        episodes = [dataset[i] for i in range(3)]
    assert [len(episode) for episode in episodes] == [3, 3, 3]
    assert [episode.truncations.tolist() for episode in episodes] == [[False, False, True]] * 3
    for how in ("--use-actions", "--use-states"):
        result = CliRunner().invoke(main, ["replay", str(out), how])
        assert result.exit_code == 0, result.output
    result = CliRunner().invoke(main, ["validate", str(out), "--replay"])
    assert "3 of 3 episodes are sound" in result.output
