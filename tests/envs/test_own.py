"""Gymnasium environments of somebody's own as families, without MuJoCo; and what is wrong."""

import os
import sys
from functools import partial

import gymnasium
import numpy as np
import pytest
from click.testing import CliRunner
from gymnasium import spaces
from gymnasium.spaces import Box

import demokit
import demokit.envs as envs
from demokit.cli import main
from demokit.data import open_dataset
from demokit.data.validation import validate
from demokit.envs import from_gymnasium, make_family
from demokit.envs.batch import make_sims
from demokit.envs.family import ContextSpace
from demokit.envs.gym import Env
from demokit.envs.tasks import make_tasks
from demokit.envs.watch import SimulationFaultError
from demokit.errors import DemokitError

TASKS = Box(-1, 1, (1,))
HORIZON = 6


class Line(gymnasium.Env):
    """A point on a line; it ends beyond 0.5, and the reward is the distance to the task."""

    observation_space = Box(-9, 9, (2,), np.float32)
    action_space = Box(-4, 2, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.goal = float(options["task"][0])
        self.t, self.x = 0, self.np_random.uniform(-0.1, 0.1)
        return self._seen(), {}

    def step(self, action):
        assert self.action_space.contains(action)
        self.x, self.t = self.x + float(action[0]) / 10, self.t + 1
        far = abs(self.x - self.goal)
        return self._seen(), -far, self.x > 0.5, False, {"success": far < 0.2}

    def _seen(self):
        return np.array([self.x, self.t], np.float32)


@pytest.fixture(autouse=True)
def forgotten(monkeypatch):
    """No family of a test outlives it."""
    monkeypatch.setattr(envs, "_registered", {})
    yield
    make_family.cache_clear()


def by_hand(seed, goal, actions):
    """What the environment itself gives: rows of (x, t, reward)."""
    env = Line()
    seen, _ = env.reset(seed=seed, options={"task": [goal]})
    rows = [(*seen, 0.0)]
    for action in actions:
        given = np.float32([-4 + (action + 1) / 2 * 6])
        seen, reward, terminated, *_ = env.step(np.clip(given, -4, 2))
        rows.append((*seen, reward))
        if terminated:
            break
    return np.array(rows)


@pytest.mark.parametrize("vectorized", ["sync", "async"])
def test_the_batch_is_the_environments(vectorized):
    family = from_gymnasium("line", Line, TASKS, horizon=HORIZON, vectorized=vectorized)
    goals, seeds = [[0.3], [-0.7], [0.9]], [4, 5, 6]
    actions = np.random.default_rng(0).uniform(-1, 1, (HORIZON, 3, 1)).astype(np.float32)
    actions[:, 2] = 1  # beyond 0.5 in the third step
    sims = make_sims(family, 3)
    seen = [sims.reset(np.array(goals), seeds)]
    steps = [sims.step(each) for each in actions]
    seen += [step.observation for step in steps]
    for index in range(3):
        theirs = by_hand(seeds[index], goals[index][0], actions[:, index, 0])
        rows = len(theirs)
        ours = np.array([row[index] for row in seen])
        np.testing.assert_array_equal(ours[:rows], theirs[:, :2].astype(np.float32))
        paid = np.array([step.reward[index] for step in steps])
        np.testing.assert_allclose(paid[: rows - 1], theirs[1:, 2])
        assert (ours[rows:] == ours[rows - 1]).all()
    assert [bool(step.terminated[2]) for step in steps[:3]] == [False, False, True]
    assert steps[-1].truncated.tolist()[:2] == [True, True]
    privileged = sims.privileged()
    assert "state" not in privileged
    assert privileged["progress"].tolist()[:2] == [[4, HORIZON], [5, HORIZON]]
    sims.close()


def test_some_start_again():
    family = from_gymnasium("line", Line, TASKS, horizon=HORIZON)
    sims = make_sims(family, 3)
    sims.reset(np.zeros((3, 1)), [1, 2, 3])
    before = sims.step(np.zeros((3, 1))).observation
    after = sims.reset(np.array([[0.5]]), [9], np.array([1]))
    np.testing.assert_array_equal(after[[0, 2]], before[[0, 2]])
    np.testing.assert_array_equal(after[1], by_hand(9, 0.5, [])[0, :2].astype(np.float32))
    assert sims.privileged()["context"].tolist() == [[0.0], [0.5], [0.0]]


class Told(Line):
    """Its constructor, or an attribute, says the task."""

    made = 0

    def __init__(self, goal=None):
        type(self).made += 1
        self.task = goal

    def reset(self, *, seed=None, options=None):
        assert options is None
        return super().reset(seed=seed, options={"task": self.task})


def test_three_ways_to_tell_a_task():
    def tell(env, goal):
        env.task = goal

    families = [
        from_gymnasium("line", Line, TASKS, horizon=HORIZON),
        from_gymnasium("made", Told, TASKS, horizon=HORIZON, tell="constructor"),
        from_gymnasium("told", Told, TASKS, horizon=HORIZON, tell=tell),
    ]
    paid = []
    for family in families:
        sims = make_sims(family, 2)
        before = Told.made
        for number in range(2):
            sims.reset(np.array([[0.5], [-0.5]]) + number / 10, [3, 4])
        made = Told.made - before
        assert made == {"line": 0, "made": 4, "told": 2}[family.name]
        paid.append(sims.step(np.ones((2, 1))).reward)
    np.testing.assert_array_equal(paid[0], paid[1])
    np.testing.assert_array_equal(paid[0], paid[2])


def test_an_id_of_gymnasiums_has_its_own_horizon():
    gymnasium.register("test/Line-v0", entry_point=Line, max_episode_steps=4)
    try:
        family = from_gymnasium("line", "test/Line-v0", TASKS)
        assert family.horizon == 4
        sims = make_sims(family, 1)
        sims.reset(np.zeros((1, 1)), [0])
        cut = [bool(sims.step(np.zeros((1, 1))).truncated[0]) for _ in range(4)]
        assert cut == [False, False, False, True]
    finally:
        del gymnasium.registry["test/Line-v0"]


def test_tasks_with_names_and_out_of_distribution():
    space = ContextSpace(("goal",), ("m",), (-1.0,), (1.0,), ood_low=(-2.0,), ood_high=(2.0,))
    family = from_gymnasium("line", Line, space, horizon=HORIZON)
    tasks = make_tasks(family, "ood", "ood", num_tasks=3)
    assert all(1 < abs(task.context[0]) <= 2 for task in tasks)
    env = Env("line", tasks=tasks)
    _, info = env.reset(seed=0)
    assert info["task"] in {task.id for task in tasks}
    with pytest.raises(DemokitError, match="are not restored"):
        env.get_state()


def test_a_name_means_the_last_one_that_was_made():
    first = from_gymnasium("line", Line, TASKS, horizon=HORIZON)
    assert make_family("line") is first
    second = from_gymnasium("line", Line, TASKS, horizon=9)
    assert make_family("line") is second
    assert envs.family_names()[-1] == "line"


# -- from the command line -------------------------------------------------------------------------

MODULE = """
import pathlib
import gymnasium, numpy as np
from gymnasium.spaces import Box
from demokit.envs import from_gymnasium

pathlib.Path(__file__).with_name("has-run").touch()

class Goes(gymnasium.Env):
    observation_space = Box(-9, 9, (1,), np.float32)
    action_space = Box(-1, 1, (1,), np.float32)
    task_space = Box(-1, 1, (1,))
    horizon = 5

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x, self.goal = self.np_random.uniform(-0.1, 0.1, 1), options["task"]
        return self.x.astype(np.float32), {}

    def step(self, action):
        self.x = self.x + action
        return self.x.astype(np.float32), -abs(float((self.x - self.goal)[0])), False, False, {}

own = from_gymnasium("goes", Goes, Box(-1, 1, (1,)), horizon=5)
number = 3
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working folder, with a module; and what the commands change is as it was."""
    (tmp_path / "goes.py").write_text(MODULE)
    (tmp_path / "untold.py").write_text(
        "from goes import Goes\nclass Untold(Goes): pass\ndel Goes\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("DEMOKIT_IMPORT", "")
    yield tmp_path
    for name in ("goes", "untold"):
        sys.modules.pop(name, None)


def run(command, code=0):
    result = CliRunner().invoke(main, command.split())
    assert result.exit_code == code, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.output


def forget(folder):
    """As a new process: nothing is imported, nothing is known."""
    sys.modules.pop("goes", None)
    envs._registered.clear()
    make_family.cache_clear()
    (folder / "has-run").unlink(missing_ok=True)


RECORD = "--expert random --num-episodes 3 --tasks 3 --license MIT --out"


@pytest.mark.parametrize(
    ("before", "env", "family"),
    [("", "goes:Goes", "goes:Goes"), ("", "goes:own", "goes"), ("--import goes ", "goes", "goes")],
)
def test_recorded_by_its_name(folder, monkeypatch, before, env, family):
    run(f"{before}record --env {env} {RECORD} a.hdf5")
    monkeypatch.setenv("DEMOKIT_IMPORT", "")
    dataset = open_dataset("a.hdf5")
    assert (dataset.metadata.family, len(dataset)) == (family, 3)
    assert {"state", "model"} == set(dataset.metadata.provenance.missing)
    assert not validate("a.hdf5").errors
    forget(folder)
    for command in ("validate a.hdf5", "inspect a.hdf5"):
        run(command)
    run("replay a.hdf5", code=1)
    assert not (folder / "has-run").exists()
    run(f"--import {env if ':' in env else 'goes'} envs {family}")
    assert (folder / "has-run").exists()


def test_a_file_imports_nothing(folder, monkeypatch):
    run(f"record --env goes:Goes {RECORD} a.hdf5")
    monkeypatch.setenv("DEMOKIT_IMPORT", "")
    forget(folder)
    for name in ("goes:Goes", "goes:own", "os:getcwd", "goes"):
        with pytest.raises(DemokitError, match="--import"):
            make_family(name)
    said = run("meta-train --demos a.hdf5 --method gmps --output-dir r --iterations 1", code=1)
    assert "--import goes:Goes" in " ".join(said.split())
    assert not (folder / "has-run").exists()
    assert "goes" not in sys.modules


NAMES = {
    "goes:Nothing": "has no 'Nothing'",
    "goes:number": "cannot be loaded",
    "goes:np": "cannot be loaded",
    "nowhere:Goes": "module 'nowhere' cannot be imported",
    "os:getcwd": "neither a family nor a gymnasium.Env",
}


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_leads_nowhere(name):
    assert NAMES[name] in " ".join(run(f"record --env {name} {RECORD} a.hdf5", code=1).split())


def test_a_class_that_does_not_say_its_tasks(folder):
    (folder / "untold.py").write_text(MODULE.replace("    task_space = Box(-1, 1, (1,))\n", ""))
    said = run(f"record --env untold:Goes {RECORD} a.hdf5", code=1)
    assert "give the class task_space" in " ".join(said.split())


@pytest.mark.usefixtures("folder")
def test_what_cannot_be_drawn_says_so():
    for command in ("envs goes:Goes --view web", "envs --render goes:Goes"):
        assert "cannot be drawn here" in run(command, code=1)
    run(f"record --env goes:Goes --observation vision {RECORD} a.hdf5", code=1)


# -- what is refused -------------------------------------------------------------------------------


def but(**changed):
    return type("Changed", (Line,), changed)


def fails(*_, **__):
    raise ValueError("no power")


REFUSED = {
    "name": (("a/b", Line, TASKS), {}, "name is letters"),
    "installed": (("point", Line, TASKS), {}, "name of an installed family"),
    "gym": (("gym:point", Line, TASKS), {}, "name of an installed family"),
    "horizon": (("line", Line, TASKS), {"horizon": None}, "say horizon="),
    "no steps": (("line", Line, TASKS), {"horizon": 0}, "say horizon="),
    "tasks": (("line", Line, 3), {}, "give a Box of one axis"),
    "endless tasks": (("line", Line, Box(-np.inf, 1, (1,))), {}, "give a Box of one axis"),
    "tell": (("line", Line, TASKS), {"tell": "resett"}, "did you mean 'reset'"),
    "vectorized": (("line", Line, TASKS), {"vectorized": "asynch"}, "did you mean 'async'"),
    "no such id": (("line", "Nothing-v9", TASKS), {}, "cannot be made"),
    "no env": (("line", dict, TASKS), {}, "is a dict, no gymnasium.Env"),
    "fails": (("line", fails, TASKS), {}, r"cannot be made \(ValueError: no power\)"),
    "pictures": (
        ("line", but(observation_space=Box(0, 255, (4, 4, 3), np.uint8)), TASKS), {}, "one vector"
    ),
    "dict": (("line", but(observation_space=spaces.Dict({})), TASKS), {}, "FlattenObservation"),
    "discrete": (("line", but(action_space=spaces.Discrete(2)), TASKS), {}, "must be a Box"),
    "whole actions": (
        ("line", but(action_space=Box(0, 5, (1,), np.int64)), TASKS), {}, "whole numbers"
    ),
    "no number of steps": (("line", Line, TASKS), {"horizon": 5.5}, "no number of steps, 5.5"),
    "ragged": (
        ("line", but(_seen=lambda self: [np.zeros(2), 1]), TASKS), {}, "it observes is no array"
    ),
    "rate": (("line", but(metadata={"render_fps": "fast"}), TASKS), {}, "render_fps .* is 'fast'"),
    "no rate": (("line", but(metadata={"render_fps": np.nan}), TASKS), {}, "render_fps .* is nan"),
    "back in time": (("line", but(metadata={"render_fps": -5}), TASKS), {}, "render_fps .* is -5"),
    "one for all": (("line", lambda env=Line(): env, TASKS), {}, "gives the same one twice"),  # noqa: B008
    "one inside": (
        ("line", lambda env=Line(): gymnasium.wrappers.TimeLimit(env, 9), TASKS),  # noqa: B008
        {},
        "gives the same one twice",
    ),
    "unbounded": (
        ("line", but(action_space=Box(-np.inf, np.inf, (1,))), TASKS), {}, "RescaleAction"
    ),
    "reset fails": (("line", but(reset=fails), TASKS), {}, "reset of its environment fails with"),
    "step fails": (("line", but(step=fails), TASKS), {}, "in step 1: step of its environment"),
    "one value": (("line", but(reset=lambda self, **_: 1), TASKS), {}, "must return 2 values"),
    "another width": (
        ("line", but(_seen=lambda self: np.zeros(3)), TASKS), {}, r"float64 \(3,\), not 2 numbers"
    ),
    "NaN": (("line", but(_seen=lambda self: np.full(2, np.nan)), TASKS), {}, "'observation'.*nan"),
    "tell fails": (("line", Line, TASKS), {"tell": fails}, "cannot be told its task"),
}  # fmt: skip


class Counted(Line):
    """How many are open."""

    opened = 0

    def __init__(self):
        Counted.opened += 1

    def close(self):
        Counted.opened -= 1


class Broken(Counted):
    """It fails, also when it is closed."""

    step = fails

    def close(self):
        super().close()
        raise ValueError("closed already")


class Flat(Counted):
    action_space = spaces.Discrete(2)


def test_environments_are_closed_whatever_happens(tmp_path):
    for bad in (Broken, Flat):
        with pytest.raises(DemokitError):
            from_gymnasium("line", bad, TASKS, horizon=HORIZON)
        assert Counted.opened == 0
    family = from_gymnasium("line", Counted, TASKS, horizon=HORIZON)
    assert Counted.opened == 0
    demokit.record(family, tmp_path / "a.hdf5", expert="random", tasks=2, episodes_per_task=1)
    assert Counted.opened == 0
    sims = make_sims(family, 2)
    sims.reset(np.zeros((2, 1)), [0, 1])
    sims.close()
    sims.close()
    with pytest.raises(DemokitError, match="are closed: make new ones"):
        sims.step(np.zeros((2, 1)))


def test_the_seed_of_an_episode_is_the_environments(tmp_path):
    family = from_gymnasium("line", Line, TASKS, horizon=HORIZON)
    path = tmp_path / "a.hdf5"
    demokit.record(family, path, expert="random", tasks=1, episodes_per_task=8)
    with open_dataset(path) as dataset:
        episodes = list(dataset)
    assert max(episode.seed for episode in episodes) > 2**31
    for episode in episodes:
        theirs = by_hand(episode.seed, episode.task.context[0], [])
        np.testing.assert_array_equal(episode.observations[0], theirs[0, :2].astype(np.float32))


def test_the_space_is_the_environments():
    family = from_gymnasium(
        "line", but(observation_space=Box(-1e6, np.inf, (2,), np.float64)), TASKS, horizon=HORIZON
    )
    assert Env("line").observation_space == Box(-1e6, np.inf, (2,), np.float32)
    whole = from_gymnasium("whole", Line, TASKS, horizon=np.int64(HORIZON))
    assert (family.horizon, type(whole.horizon)) == (HORIZON, int)
    silent = from_gymnasium("silent", but(metadata=None), TASKS, horizon=HORIZON)
    assert silent.control_dt_s == 1


class Dies(Line):
    """Its process ends in its third step."""

    def step(self, action):
        if self.t == 2:
            os._exit(9)
        return super().step(action)


class Dead(Line):
    """Its process ends when its second episode begins."""

    begun = 0

    def reset(self, **given):
        self.begun += 1
        if self.begun == 2:
            os._exit(9)
        return super().reset(**given)


@pytest.mark.parametrize(("kind", "when"), [(Dies, "in step 3"), (Dead, "at its start")])
def test_a_process_that_ends_is_one_sentence(kind, when):
    family = from_gymnasium("line", kind, TASKS, horizon=HORIZON, vectorized="async")
    sims = make_sims(family, 2)
    sims.reset(np.zeros((2, 1)), [1, 2], tasks=["line/a", "line/b"])
    sims.step(np.zeros((2, 1)))
    sims.step(np.zeros((2, 1)))
    go_on = partial(sims.step, np.zeros((2, 1)))
    if kind is Dead:
        go_on = partial(sims.reset, np.zeros((1, 1)), [1], np.array([0]), tasks=["line/a"])
    with pytest.raises(SimulationFaultError, match=f"line/a.* {when}: the process") as raised:
        go_on()
    assert raised.value.simulation == 0
    with pytest.raises(DemokitError, match="are closed"):
        sims.reset(np.zeros((2, 1)), [1, 2])
    sims.close()


@pytest.mark.parametrize("what", REFUSED)
def test_an_environment_that_does_not_fit(what):
    arguments, options, said = REFUSED[what]
    with pytest.raises(DemokitError, match=said):
        from_gymnasium(*arguments, **{"horizon": HORIZON, **options})
    assert not envs._registered


def later(answer):
    """It answers its third step with something else."""

    def step(self, action):
        found = Line.step(self, action)
        return answer if self.t == 3 else found

    return but(step=step)


@pytest.mark.parametrize("vectorized", ["sync", "async"])
@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((np.zeros(2), "much", False, False, {}), "its reward is 'much'"),
        ((np.zeros(2), np.nan, False, False, {}), "'reward' is nan"),
        ((np.zeros(2), 0.0, "no", False, {}), "its terminated is 'no'"),
        ((np.zeros(2), 0.0, False, False, {"success": "yes"}), r"info\['success'\] is 'yes'"),
        ((np.zeros(2), 0.0, False, False), "must return 5 values"),
    ],
)
def test_an_environment_that_misbehaves_later(vectorized, answer, said):
    family = from_gymnasium("line", later(answer), TASKS, horizon=HORIZON, vectorized=vectorized)
    sims = make_sims(family, 2)
    sims.reset(np.zeros((2, 1)), [1, 2], tasks=["line/a", "line/b"])
    for _ in range(2):
        sims.step(np.zeros((2, 1)))
    with pytest.raises(SimulationFaultError, match=said) as raised:
        sims.step(np.zeros((2, 1)))
    assert "line/a" in str(raised.value)
    assert raised.value.step == 3
    sims.close()
