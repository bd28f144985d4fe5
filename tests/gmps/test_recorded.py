"""What nothing here simulates is imitated, acts and adapts in a loop of its owner's."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from demokit.cli import main
from demokit.data import from_arrays
from demokit.envs.recorded import RecordedFamily, Shapes
from demokit.errors import DemokitError
from gmps.agent.agent import load_policy
from gmps.experience.demos import load_demos
from gmps.runs.checkpoint import load

STEPS, GOALS = 20, (-0.5, 0.0, 0.5)


def policy(seen):
    """What the robot was sent, in [-2, 2]."""
    return np.stack([np.sin(seen[:, 0]), -seen[:, 1].clip(-2, 2)], 1)


def recorded(path, *, contexts=True, pictures=False):
    rng, given = np.random.default_rng(0), []
    for number in range(6):
        seen = rng.normal(size=(STEPS + 1, 4))
        each = {"observations": seen, "actions": policy(seen[:-1]), "task": f"t{number % 3}"}
        if contexts:
            each["context"] = [GOALS[number % 3]]
        if pictures:
            each["observations"] = {"image": np.zeros((STEPS + 1, 48, 64, 3), np.uint8)}
        given.append(each)
    from_arrays(path, given, family="my-arm", action_low=-2, action_high=2, license="MIT")
    return path


def train(demos, folder, *options, method="imitation", code=0):
    command = ["meta-train", "--demos", demos, "--method", method, "--output-dir", folder]
    command += ["--threads", 1]
    result = CliRunner().invoke(main, [str(part) for part in (*command, *options)])
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    demos = recorded(folder / "own.hdf5")
    said = train(demos, folder / "run", "--iterations", 4, "--step-size", 0.01)
    assert "step size 0.01 (stated)" in said.output
    return folder / "run"


def test_a_policy_is_cloned(run):
    agent = load_policy(run)
    assert (agent.family, agent.horizon, agent.observation_shapes) == ("my-arm", STEPS, {"": (4,)})
    seen = np.random.default_rng(1).uniform(-1, 1, (50, 4))
    off = agent.act(seen) - policy(seen) / 2
    assert np.abs(off).mean() < 0.05


def test_it_adapts_in_its_owners_loop_and_is_kept(run, tmp_path):
    trial = load_policy(run).new_task()
    while trial.gathering:
        over = False
        while not over:
            action = trial.act(np.zeros(4))
            over = trial.record(float(-np.abs(action - 0.5).sum()))
    agent = trial.adapted()
    agent.save(tmp_path / "kept.safetensors")
    kept = load_policy(tmp_path / "kept.safetensors")
    np.testing.assert_array_equal(kept.act(np.zeros(4)), agent.act(np.zeros(4)))
    assert kept.steps == 1
    assert (agent.act(np.zeros(4)) > load_policy(run).act(np.zeros(4))).all()


def test_a_training_is_found_again(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    options = ("--step-size", 0.01, "--iterations", 4, "--resume")
    train(run.parent / "own.hdf5", tmp_path / "run", *options)
    found, whole = (load(path)[0].learner.tensors() for path in (tmp_path / "run", run))
    assert all(torch.equal(whole[name], found[name]) for name in whole)


def test_without_contexts_or_a_step_size_it_acts(tmp_path):
    demos = recorded(tmp_path / "own.hdf5", contexts=False)
    train(demos, tmp_path / "run", "--iterations", 1)
    agent = load_policy(tmp_path / "run")
    assert agent.act(np.zeros(4)).shape == (2,)
    with pytest.raises(DemokitError, match="train with --step-size"):
        agent.new_task()


@pytest.mark.parametrize("method", ["gmps", "gmps-latent", "task-inference", "dpt", "oracle"])
def test_what_needs_a_simulation_says_so_and_leaves_nothing(method, run, tmp_path):
    said = train(run.parent / "own.hdf5", tmp_path / "run", method=method, code=1)
    assert "Nothing here simulates 'my-arm'" in said.output
    assert list(tmp_path.iterdir()) == []


def test_other_commands_say_so(run):
    for command in (("evaluate", run), ("replay", run.parent / "own.hdf5")):
        result = CliRunner().invoke(main, [str(part) for part in command])
        assert result.exit_code == 1
        assert "simulat" in result.output
        assert "Traceback" not in result.output


def test_what_has_no_effect_or_is_not_one_vector_is_refused(run, tmp_path):
    demos = run.parent / "own.hdf5"
    for option in ("--patience", "--eval-every"):
        said = train(demos, tmp_path / "run", option, 3, code=1)
        assert f"{option} has no effect without a simulation" in said.output
        assert not (tmp_path / "run").exists()
    pictures = recorded(tmp_path / "p.hdf5", pictures=True)
    said = train(pictures, tmp_path / "other", code=1)
    assert "one vector is learned from" in said.output
    assert not (tmp_path / "other").exists()


def test_what_is_said_of_a_family_is_checked(run):
    shapes = load(run)[0].problem.recorded
    assert shapes == Shapes(STEPS, 4, 2, 1)
    for wrong in (0, -1, 2**40, 1.5, "4", None):
        with pytest.raises(DemokitError, match="sizes"):
            replace(shapes, observation_width=wrong)
    with pytest.raises(DemokitError, match="recordings alone"):
        _ = RecordedFamily("x", shapes).model


def test_demonstrations_are_in_single_precision(run):
    demos = load_demos(run.parent / "own.hdf5")
    assert demos.observation.dtype == demos.action.dtype == torch.float32
