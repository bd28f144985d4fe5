"""`train-expert` and the files it leaves: used, refused, resumed, killed."""

import csv
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from tiny_training import TINY

import demokit.envs as envs
from demokit.cli import INTERRUPTED
from demokit.data import open_dataset
from demokit.data.labels import read_labels
from demokit.envs import from_gymnasium, make_family
from demokit.envs.batch import SimBatch, make_sims
from demokit.envs.tasks import make_tasks
from demokit.errors import DemokitError
from demokit.experts import load_expert
from demokit.learning.checkpoint import load_checkpoint, save_checkpoint
from demokit.learning.expert import ExpertInputs, PerTaskExperts, TrainedExpert
from demokit.learning.folder import Hold
from demokit.random import stream, stream_seed
from recorders.sac.config import SacConfig
from recorders.sac.train import Training


def metrics(folder):
    with (folder / "metrics.csv").open() as file:
        return [int(row["env_steps"]) for row in csv.DictReader(file)]


def started(num, context=(0.3, -0.4)):
    sims = SimBatch(make_family("point"), num)
    sims.reset(np.tile(context, (num, 1)), range(num))
    return sims.observe(), sims.privileged()


def test_a_training_leaves_everything(trained):
    assert metrics(trained) == [400, 800]
    assert any((trained / "tensorboard").iterdir())
    assert (trained / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert (trained / "copy.csv").read_text() == (trained / "metrics.csv").read_text()
    assert (trained / "copy.safetensors").read_bytes() == (
        trained / "expert.safetensors"
    ).read_bytes()
    expert = load_expert(str(trained), "point")
    assert expert.header["task_set"] == "uniform"
    assert expert.header["env_steps"] in (400, 800)
    assert len(expert.header["returns"]) == len(expert.header["success"]) == 4
    assert expert.name == f"sac-point-{expert.sha256[:8]}"


def test_actions_do_not_depend_on_the_batch(trained):
    expert = load_expert(str(trained / "copy.safetensors"), "point")
    observation, privileged = started(37)
    action = expert.act(observation, privileged)
    assert action.dtype == np.float32
    assert action.shape == (37, 2)
    for row in (0, 17, 36):
        one = {name: values[row : row + 1] for name, values in privileged.items()}
        np.testing.assert_array_equal(expert.act(observation[row : row + 1], one)[0], action[row])


def test_the_context_decides(trained):
    expert = load_expert(str(trained), "point")
    here, there = (expert.act(*started(1, c)) for c in ((0.9, 0.9), (-0.9, -0.9)))
    assert np.abs(here - there).max() > 1e-3


def test_recorded_datasets_say_who_and_at_what_cost(trained, tmp_path, invoke):
    path = tmp_path / "demos.hdf5"
    invoke(
        *("record", "--env", "point", "--task-set", "uniform", "--tasks", "4"),
        *("--episodes-per-task", "2", "--expert", trained / "expert.safetensors", "--out", path),
    )
    expert = load_expert(str(trained), "point")
    with open_dataset(path) as dataset:
        source = dataset.metadata.provenance
        assert source.expert == expert.name
        assert source.trained["sha256"] == expert.sha256
        assert source.trained["env_steps"] == expert.header["env_steps"]
        assert source.trained["returns"] == pytest.approx(expert.header["returns"])
        labels = dataset[0].privileged["expert_action"]
        seen = dict(dataset[0].privileged)
        np.testing.assert_array_equal(labels, expert.act(dataset[0].observations, seen))
        np.testing.assert_array_equal(read_labels(dataset, 0, 0, 20).action, labels[:-1])
    assert "0 errors" in invoke("validate", "--replay", path).output


def test_what_the_expert_cost_is_carried_into_training(trained, tmp_path, invoke):
    path, run = tmp_path / "demos.hdf5", tmp_path / "run"
    expert = trained / "expert.safetensors"
    invoke(
        *("record", "--env", "point", "--task-set", "uniform", "--tasks", "3", "--out", path),
        *("--episodes-per-task", "2", "--expert", expert),
    )
    trained_run = invoke(
        *("meta-train", "--demos", path, "--demos-per-task", "2", "--iterations", "3"),
        *("--outer-steps", "2", "--rollouts-per-task", "3"),
        *("--dagger", "--dagger-every", "1", "--expert", expert, "--threads", "1"),
        *("--output-dir", run),
    )
    _, header = load_checkpoint(run / "checkpoint.safetensors")
    cost = load_expert(str(expert), "point").header["env_steps"]
    assert list(header["spent"]["experts"].values()) == [cost]
    assert f", {cost:,} to train the expert" in trained_run.output
    with open_dataset(run / "aggregated.hdf5") as dataset:
        assert dataset.metadata.provenance.trained["env_steps"] == cost


def test_separate_experts_act_in_their_own_tasks(tmp_path, invoke):
    folder = tmp_path / "each"
    tiny = [*TINY]
    tiny[tiny.index("--tasks") + 1] = "2"
    invoke("train-expert", *tiny, "--per-task", "--output-dir", folder)
    both = load_expert(str(folder), "point")
    assert isinstance(both, PerTaskExperts)
    assert both.header["env_steps"] == sum(e.header["env_steps"] for e in both.experts)
    for expert in both.experts:
        there = started(3, expert.header["tasks"][0]["context"])
        np.testing.assert_array_equal(both.act(*there), expert.act(*there))
    with pytest.raises(DemokitError, match="training tasks only"):
        both.act(*started(1, (0.123, 0.456)))
    one, _ = sorted(folder.glob("*/expert.safetensors"))
    (tmp_path / "bad").mkdir()
    for tasks in ([], [{"context": [0.0]}], [{"context": [0.0] * 5}], [{"context": [0.0] * 2}] * 2):
        bad = tmp_path / "bad" / "expert.safetensors"
        shutil.copytree(folder, tmp_path / "x", dirs_exist_ok=True)
        changed(bad, one, tasks=tasks)
        bad.replace(tmp_path / "x" / one.parent.name / one.name)
        with pytest.raises(DemokitError, match="an expert for one task in each folder"):
            load_expert(str(tmp_path / "x"), "point")


def test_a_folder_that_holds_a_training_is_kept(trained, invoke):
    before = (trained / "checkpoint.safetensors").read_bytes()
    refused = invoke("train-expert", *TINY, "--output-dir", trained, exit_code=1)
    assert "--resume" in refused.output
    other = ("--output-dir", trained, "--resume", "--discount", "0.9")
    assert "another discount" in invoke("train-expert", *TINY, *other, exit_code=1).output
    assert (trained / "checkpoint.safetensors").read_bytes() == before


def short(*more):
    return (*TINY, "--total-steps", "40", "--warmup-steps", "32", "--eval-every", "40", *more)


def test_a_folder_holds_one_expert_or_one_for_every_task(tmp_path, invoke):
    folder = tmp_path / "run"
    invoke("train-expert", *short("--output-dir", folder))
    separate = ("--tasks", "3", "--per-task", "--output-dir", folder)
    refused = invoke("train-expert", *short(*separate), exit_code=1)
    assert f"{folder} already holds a training that is no part" in refused.output
    assert "no part" in invoke("train-expert", *short(*separate, "--resume"), exit_code=1).output
    invoke("train-expert", *short(*separate, "--overwrite"))
    assert len(load_expert(str(folder), "point").experts) == 3
    assert "no part" in invoke("train-expert", *short("--output-dir", folder), exit_code=1).output
    (folder / "notes").mkdir()
    fewer = (*separate, "--tasks", "2")
    assert "no part" in invoke("train-expert", *short(*fewer, "--resume"), exit_code=1).output
    invoke("train-expert", *short(*fewer, "--overwrite"))
    assert len(load_expert(str(folder), "point").experts) == 2
    assert sum(each.is_dir() for each in folder.iterdir()) == 3


def test_other_runs_below_the_folder_are_no_experts(tmp_path, invoke):
    other, out = tmp_path / "gmps-0", tmp_path / "copy.safetensors"
    other.mkdir()
    (other / "metrics.csv").write_text("iteration,loss\n0,1\n")
    invoke("train-expert", *short("--output-dir", tmp_path, "--out", out))
    assert (tmp_path / "curve.png").exists()
    assert out.read_bytes() == (tmp_path / "expert.safetensors").read_bytes()


def test_a_picture_that_fails_costs_no_copy(tmp_path, invoke, monkeypatch):
    def fail(*_):
        raise DemokitError("no picture")

    monkeypatch.setattr("recorders.sac.curve.draw_curves", fail)
    out = tmp_path / "copy.safetensors"
    invoke("train-expert", *short("--output-dir", tmp_path / "run", "--out", out), exit_code=1)
    assert out.read_bytes() == (tmp_path / "run" / "expert.safetensors").read_bytes()


def test_the_copy_of_an_expert_has_its_suffix(tmp_path, invoke):
    run = ("--output-dir", tmp_path / "run", "--out", tmp_path / "expert.csv")
    refused = invoke("train-expert", *TINY, *run, exit_code=2)
    assert "must be named NAME.safetensors" in refused.output
    assert not any(tmp_path.iterdir())


def test_the_copy_of_an_expert_is_not_its_training_s_checkpoint(tmp_path, invoke):
    run = ("--output-dir", tmp_path, "--out", tmp_path / "checkpoint.safetensors")
    assert "keeps its checkpoint" in invoke("train-expert", *TINY, *run, exit_code=2).output
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("options", [("--warmup-steps", "31"), ("--n-steps", "1000")])
def test_the_first_update_needs_its_steps(options, tmp_path, invoke):
    run = (*TINY, *options, "--output-dir", tmp_path / "run")
    refused = invoke("train-expert", *run, exit_code=1)
    assert "warmup_steps must be at least" in refused.output
    assert len(refused.output.strip().splitlines()) == 1
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("steps", ["200", "16"])
def test_a_training_without_an_update_is_refused(steps, tmp_path, invoke):
    run = (*TINY, "--total-steps", steps, "--output-dir", tmp_path / "run")
    refused = invoke("train-expert", *run, exit_code=1)
    assert f"total_steps must be above warmup_steps = 200, not {steps}" in refused.output
    assert len(refused.output.strip().splitlines()) == 1
    assert not any(tmp_path.iterdir())


def test_the_help_says_whose_steps_they_are(invoke):
    shown = " ".join(invoke("train-expert", "--help").output.split())
    assert "of each task's." in shown


def test_as_few_steps_as_the_first_update_needs(tmp_path, invoke):
    few = ("--warmup-steps", "32", "--output-dir", tmp_path / "run")
    invoke("train-expert", *TINY, *few, "--total-steps", "80")


def test_resume_and_overwrite_exclude_each_other(trained, invoke):
    both = ("--resume", "--overwrite", "--output-dir", trained)
    assert "choose one" in invoke("train-expert", *TINY, *both, exit_code=2).output


@pytest.mark.parametrize(
    ("measured", "says"), [(False, "has no checkpoint yet"), (True, "keeps the last checkpoint")]
)
def test_stopping_says_what_is_there(measured, says, tmp_path, invoke, monkeypatch):
    def stop(training, _report):
        if measured:
            training.measure(0.0)
        raise KeyboardInterrupt

    monkeypatch.setattr(Training, "run", stop)
    run = (*TINY, "--output-dir", tmp_path / "run")
    stopped = invoke("train-expert", *run, exit_code=INTERRUPTED).output
    assert f"{tmp_path / 'run'} {says}" in stopped
    assert "--resume" in stopped


def stopped_at_once(*_):
    raise KeyboardInterrupt


def test_overwriting_leaves_nothing_that_resume_would_take_for_new(tmp_path, invoke, monkeypatch):
    run = short("--tasks", "2", "--per-task", "--output-dir", tmp_path)
    invoke("train-expert", *run)
    with monkeypatch.context() as patch:
        patch.setattr(Training, "run", stopped_at_once)
        invoke("train-expert", *run, "--overwrite", exit_code=INTERRUPTED)
    assert not list(tmp_path.rglob("*.safetensors"))
    invoke("train-expert", *run, "--resume")
    assert len(load_expert(str(tmp_path), "point").experts) == 2


def test_two_processes_do_not_train_in_one_folder(trained, tmp_path, invoke):
    folder = tmp_path / "run"
    shutil.copytree(trained, folder)
    held = Hold(folder)
    for how in ("--resume", "--overwrite"):
        refused = invoke("train-expert", *TINY, "--output-dir", folder, how, exit_code=1)
        assert f"{folder} is being written by process" in refused.output
    held.release()
    assert (folder / "checkpoint.safetensors").exists()
    invoke("train-expert", *TINY, "--output-dir", folder, "--resume")


@pytest.mark.parametrize("option", ["--out", "--output-dir"])
def test_places_that_cannot_be_written_are_refused_first(option, tmp_path, invoke):
    (tmp_path / "file").touch()
    run = (*TINY, "--total-steps", "100000000", "--output-dir", tmp_path / "run")
    place = tmp_path / "file" / "x.safetensors"
    refused = invoke("train-expert", *run, option, place, exit_code=1)
    assert refused.output.startswith(f"Error: Cannot write {place} (")
    assert refused.output.endswith(f": name another {option}.\n")
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_overwriting_spares_a_configuration_of_somebody_else(tmp_path, invoke):
    (tmp_path / "config.json").write_text('{"mine": 1}')
    refused = invoke("train-expert", *TINY, "--output-dir", tmp_path, "--overwrite", exit_code=1)
    assert "move it away" in refused.output
    assert (tmp_path / "config.json").read_text() == '{"mine": 1}'


@pytest.mark.parametrize("config", ["{}", "[]", '"x"', '{"family": ', "null"])
def test_a_damaged_configuration_is_one_sentence(config, trained, tmp_path, invoke):
    folder = tmp_path / "run"
    shutil.copytree(trained, folder)
    (folder / "config.json").write_text(config)
    refused = invoke("train-expert", *TINY, "--output-dir", folder, "--resume", exit_code=1)
    assert "config.json cannot be read" in refused.output
    assert len(refused.output.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda p, t: pickle.dump({"weights": [1.0]}, p.open("wb")), "no demokit checkpoint"),
        (lambda p, t: torch.save({"w": torch.zeros(2)}, p), "no demokit checkpoint"),
        (lambda p, t: p.write_bytes(t.read_bytes()[:-100]), "no demokit checkpoint"),
        (lambda p, t: save_checkpoint(p, {"w": torch.zeros(1)}, {"kind": "gmps"}), "not of an exp"),
        (lambda p, t: changed(p, t, family="push"), "an expert for 'push', not for 'point'"),
        (lambda p, t: changed(p, t, model_hash="0" * 64), "another model of point"),
        (lambda p, t: changed(p, t, inputs={"point_pos_w_m": 4, "context": 2}), "other terms"),
        (lambda p, t: changed(p, t, inputs={"point_pos_w_m": 2, "context": 2}), "do not fit"),
    ],
    ids=["pickle", "torch", "cut", "gmps", "family", "model", "terms", "widths"],
)
def test_wrong_files_are_one_sentence(make, says, trained, tmp_path, invoke):
    path = tmp_path / "wrong.safetensors"
    make(path, trained / "expert.safetensors")
    result = invoke(
        *("record", "--env", "point", "--expert", path, "--out", tmp_path / "x.hdf5"), exit_code=1
    )
    assert result.output.startswith("Error: ")
    assert says in result.output
    assert len(result.output.strip().splitlines()) == 1
    assert not (tmp_path / "x.hdf5").exists()


@pytest.mark.parametrize(
    ("name", "value"), [("layers.0.weight", np.nan), ("mean", np.inf), ("scale", 0.0)]
)
def test_numbers_that_are_none_are_refused(name, value, trained, tmp_path):
    tensors, header = load_checkpoint(trained / "expert.safetensors")
    tensors[name][:] = value
    path = tmp_path / "bad.safetensors"
    save_checkpoint(path, tensors, header)
    with pytest.raises(DemokitError, match="numbers are not finite, or a scale is not above 0"):
        load_expert(str(path), "point")


class Line(gymnasium.Env):
    """A point on a line."""

    observation_space = Box(-9, 9, (1,), np.float32)
    action_space = Box(-1, 1, (1,), np.float32)
    opened = 0

    def __init__(self):
        Line.opened += 1

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x, self.goal = self.np_random.uniform(-0.1, 0.1, 1), options["task"]
        return self.x.astype(np.float32), {}

    def step(self, action):
        self.x = self.x + action
        return self.x.astype(np.float32), -abs(float((self.x - self.goal)[0])), False, False, {}

    def close(self):
        Line.opened -= 1


@pytest.fixture
def line(monkeypatch):
    """An environment of somebody's own as a family, and no longer than the test."""
    monkeypatch.setattr(envs, "_registered", {})
    yield from_gymnasium("line", Line, Box(-1, 1, (1,)), horizon=5)
    make_family.cache_clear()


def test_experts_of_own_environments_do_not_see_the_seed(line, tmp_path):
    before = Line.opened
    tasks = make_tasks(line, "uniform", "train", num_tasks=2)
    config = SacConfig(num_envs=2, hidden_width=4, device="cpu", compile=False, threads=1)
    training = Training(tmp_path / "run", line, tasks, "uniform", config)
    assert "progress" not in training.agent.inputs.widths
    assert {"observation", "reward", "context"} < set(training.agent.inputs.widths)
    training.close()
    assert Line.opened == before


def test_an_expert_that_was_trained_on_the_seed_still_acts(line, tmp_path):
    widths = {"observation": 1, "progress": 2, "context": 1}
    said = ("reward", "terminated", "solved", "cut")
    inputs = ExpertInputs({**widths, **dict.fromkeys(said, 1)})
    layers = ((torch.ones(inputs.width, 1).double(), torch.zeros(1).double()),)
    scale = torch.ones(inputs.width).double()
    header = {"model_hash": "", "task_set": "uniform", "env_steps": 1, "returns": {}, "success": {}}
    path = tmp_path / "old.safetensors"
    TrainedExpert("line", inputs, 0 * scale, scale, layers, header).save(path)
    sims = make_sims(line, 1)
    observation = sims.reset(np.zeros((1, 1)), [5])
    assert load_expert(str(path), "line").act(observation, sims.privileged()).shape == (1, 1)
    without = ExpertInputs({name: width for name, width in inputs.widths.items() if name != "cut"})
    layers = ((torch.ones(without.width, 1).double(), torch.zeros(1).double()),)
    scale = torch.ones(without.width).double()
    TrainedExpert("line", without, 0 * scale, scale, layers, header).save(path)
    with pytest.raises(DemokitError, match="other terms of line"):
        load_expert(str(path), "line")


def changed(path, original, **values):
    tensors, header = load_checkpoint(original)
    save_checkpoint(path, tensors, {**header, **values})


def test_contexts_of_other_tasks_are_refused(trained):
    expert = load_expert(str(trained), "point")
    observation, privileged = started(1)
    with pytest.raises(DemokitError, match="needs 'context' with 2 numbers"):
        expert.act(observation, {**privileged, "context": np.zeros((1, 1))})


def test_resuming_restores_every_tensor(trained):
    family = make_family("point")
    tasks = make_tasks(family, "uniform", "train", num_tasks=4)
    before = json.loads((trained / "config.json").read_text())["config"]
    training = Training(trained, family, tasks, "uniform", SacConfig(**before), resume=True)
    training.close()
    kept, header = load_checkpoint(trained / "checkpoint.safetensors")
    state = training.agent.state.named()
    assert float(state["count"]) == header["updates"] > 0
    for name, tensor in state.items():
        assert torch.equal(tensor.cpu(), kept[name]), name
    # What updates move is what acts.
    assert torch.equal(training.agent.actor.mu.weight.cpu(), kept["actor.params/mu.weight"])
    # Tasks, starts and noise go on: they are not those of the beginning once more.
    steps = header["env_steps"]
    assert training.agent.env._rng.random() == stream(0, "tasks and starts", steps).random() > 0
    assert torch.initial_seed() == stream_seed(0, "networks and updates", steps)


def test_checkpoints_of_another_version_are_one_sentence(trained, tmp_path, invoke):
    folder = tmp_path / "run"
    shutil.copytree(trained, folder)
    tensors, header = load_checkpoint(folder / "checkpoint.safetensors")
    tensors["adam.actor/step.0"] = tensors.pop("count")
    save_checkpoint(folder / "checkpoint.safetensors", tensors, header)
    refused = invoke("train-expert", *TINY, "--output-dir", folder, "--resume", exit_code=1)
    assert "another version of demokit" in refused.output
    assert len(refused.output.strip().splitlines()) == 1


def test_killed_and_resumed(tmp_path):
    """kill -9 in the middle: what is there is whole, and training goes on from it."""
    folder = tmp_path / "run"
    longer = [*TINY, "--total-steps", "200000", "--output-dir", str(folder)]
    command = [sys.executable, "-c", "from demokit.cli import main; main()", "train-expert"]
    process = subprocess.Popen([*command, *longer], stderr=subprocess.DEVNULL)
    try:
        while not (folder / "metrics.csv").exists() or len(metrics(folder)) < 3:
            assert process.poll() is None
            time.sleep(0.05)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    load_expert(str(folder), "point")
    _, header = load_checkpoint(folder / "checkpoint.safetensors")
    reached = header["env_steps"]
    assert reached >= 800
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(config.replace("200000", str(reached + 400)))
    subprocess.run([*command, *longer, "--total-steps", str(reached + 400), "--resume"], check=True)
    steps = metrics(folder)
    assert steps == sorted(set(steps))
    assert steps[-1] == reached + 400
    _, after = load_checkpoint(folder / "checkpoint.safetensors")
    assert after["updates"] > header["updates"]
    assert load_expert(str(folder), "point").sha256
    assert not list(Path(folder).glob("*.tmp"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_one_sentence(tmp_path, invoke):
    folder = tmp_path / "run"
    refused = invoke("train-expert", *TINY, "--device", "cuda", "--output-dir", folder, exit_code=1)
    assert refused.output == "Error: PyTorch finds no GPU on this machine: take --device cpu.\n"
    assert not folder.exists()
