"""Adapted policies as files: refused where a run belongs, one sentence where they are damaged."""

import inspect
import subprocess
import sys

import pytest
import torch
from by_hand import drive, held_out

import demokit
from demokit.errors import DemokitError
from demokit.learning.checkpoint import load_checkpoint, save_checkpoint


@pytest.fixture(params=["gmps", "gmps-latent", "context-search", "replay", "task-inference", "dpt"])
def kept(request, runs, tmp_path):
    agent = demokit.load_policy(runs / request.param)
    path = tmp_path / "kept.safetensors"
    drive(agent.new_task(), agent, held_out(agent)).save(path)
    return path


def belief_names(tensors):
    return sorted(name for name in tensors if name.startswith("belief."))


def grown(value):
    return torch.cat((value, value[:, :1] if value.ndim > 1 else value), min(1, value.ndim - 1))


DAMAGE = {
    "left out": lambda value: None,
    "another type": lambda value: value.to(
        torch.float64 if value.is_floating_point() else torch.int8
    ),
    "another rank": lambda value: value[None],
    "of more tasks": lambda value: value.repeat(2, *[1] * (value.ndim - 1)),
    "longer": grown,
    "empty": lambda value: value[:, :0] if value.ndim > 1 else value[:0],
    "no number": lambda value: value - 10**9 if value.dtype == torch.int64 else value * torch.nan,
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_belief_is_one_sentence(kept, damage):
    tensors, header = load_checkpoint(kept)
    for name in belief_names(tensors):
        value = damage(tensors[name])
        before = tensors[name]
        if value is not None and value.dtype == before.dtype and torch.equal(value, before):
            assert not value.numel()  # where nothing was shown, nothing can be damaged so
            continue
        others = {n: v for n, v in tensors.items() if n != name}
        save_checkpoint(kept, others if value is None else {**others, name: value}, header)
        said = refusal(kept)
        # How often something was tried may be any number.
        assert "by hand" in said or (name.endswith("times") and not said)


def refusal(path):
    """What is said of a file; nothing where it acts."""
    try:
        demokit.load_policy(path).act([0.0, 0.0])
    except DemokitError as error:
        return str(error)
    return ""


HEADERS = {
    "no belief": {},
    "a list": [],
    "steps": {"steps": "x", "episodes": 3, "context": None},
    "fewer than none": {"steps": -1, "episodes": 3, "context": None},
    "more steps than episodes": {"steps": 4, "episodes": 3, "context": None},
    "endless": {"steps": float("inf"), "episodes": float("inf"), "context": None},
    "told": {"steps": 1, "episodes": 3, "context": [0.0, 0.0]},
    "words": {"steps": 1, "episodes": 3, "context": "ab"},
}


@pytest.mark.parametrize("told", HEADERS.values(), ids=HEADERS)
def test_a_damaged_header_is_one_sentence(kept, told):
    tensors, header = load_checkpoint(kept)
    save_checkpoint(kept, tensors, {**header, "adapted": told})
    with pytest.raises(DemokitError, match="by hand"):
        demokit.load_policy(kept)


def test_a_belief_of_many_tries_takes_no_memory(runs, tmp_path):
    """A Gaussian process of n values has a matrix of n x n: of these it would be 80 GB."""
    path = tmp_path / "kept.safetensors"
    demokit.load_policy(runs / "context-search").new_task(steps=0).adapted().save(path)
    tensors, header = load_checkpoint(path)
    tensors["belief.context"], tensors["belief.paid"] = (
        torch.rand(1, 100_000, 2),
        torch.rand(1, 100_000),
    )
    save_checkpoint(path, tensors, header)
    with pytest.raises(DemokitError, match="100000 values are too many"):
        demokit.load_policy(path)


def test_contexts_of_the_oracle_are_checked(runs, tmp_path):
    path = tmp_path / "kept.safetensors"
    oracle = demokit.load_policy(runs / "oracle")
    oracle.new_task(steps=0, context=(0.5, -0.5)).adapted().save(path)
    found = demokit.load_policy(path)
    assert found.trained.adapted.context == (0.5, -0.5)
    tensors, header = load_checkpoint(path)
    for context in (None, [0.5], ["a", "b"], [0.5, float("nan")], 3):
        changed = {**header["adapted"], "context": context}
        save_checkpoint(path, tensors, {**header, "adapted": changed})
        with pytest.raises(DemokitError):
            demokit.load_policy(path)


CONTEXTS = [("a", "b"), (1j, 2), (True, False), (1e39, 0), ((1,), 2), "ab", (None, 1), (1,)]


@pytest.mark.parametrize("context", CONTEXTS)
def test_a_context_that_is_none_is_one_sentence(runs, context):
    with pytest.raises(DemokitError, match="are 2 finite numbers, not"):
        demokit.load_policy(runs / "oracle").new_task(context=context)


def test_commands_that_take_runs_refuse_it(kept, invoke):
    said = invoke("evaluate", kept, exit_code=1).output
    assert "adapted to one task" in " ".join(said.split())


def test_no_file_is_overwritten_unasked(kept, tmp_path):
    agent, before = demokit.load_policy(kept), kept.read_bytes()
    with pytest.raises(DemokitError, match="exists"):
        agent.save(kept)
    assert kept.read_bytes() == before
    agent.save(kept, overwrite=True)
    assert kept.read_bytes() == before
    with pytest.raises(DemokitError, match="save to another file"):
        agent.save(kept / "policy.safetensors")
    agent.save(tmp_path / "new" / "policy.safetensors")
    assert (tmp_path / "new" / "policy.safetensors").read_bytes() == before


def ruined(belief):
    """The same of numbers that are none."""
    if isinstance(belief, torch.Tensor):
        return belief * torch.nan if belief.is_floating_point() else belief
    if isinstance(belief, dict):
        return {name: ruined(own) for name, own in belief.items()}
    return type(belief)(*map(ruined, belief))


def test_what_could_not_be_loaded_is_not_saved(kept, tmp_path):
    agent = demokit.load_policy(kept)
    diverged = agent.knowing(ruined(agent.belief), 1, 3)
    with pytest.raises(DemokitError, match="has diverged"):
        diverged.save(tmp_path / "new.safetensors")
    assert not (tmp_path / "new.safetensors").exists()


@pytest.mark.parametrize("reward", [1e39, -1e300, float("inf"), float("nan"), [1e39]])
def test_a_reward_that_float32_does_not_hold_is_refused(runs, reward):
    agent = demokit.load_policy(runs / "gmps")
    trial = agent.new_task()
    trial.act([0.0, 0.0])
    agent.act([0.0, 0.0])
    for told in (lambda: trial.record(reward), lambda: agent.act([0.0, 0.0], reward=reward)):
        with pytest.raises(DemokitError, match="float32 does not hold"):
            told()


def test_a_run_saved_as_a_file_acts_as_the_run(runs, tmp_path):
    agent = demokit.load_policy(runs / "gmps")
    agent.save(tmp_path / "gmps.safetensors")
    found = demokit.load_policy(tmp_path / "gmps.safetensors")
    assert (found.act([0.1, 0.2]) == agent.act([0.1, 0.2])).all()
    assert found.steps == 0


def test_what_is_no_policy_is_one_sentence(tmp_path, point_demos):
    with pytest.raises(DemokitError, match="No checkpoint"):
        demokit.load_policy(tmp_path)
    with pytest.raises(DemokitError, match="No checkpoint"):
        demokit.load_policy(tmp_path / "nothing.safetensors")
    with pytest.raises(DemokitError, match="no demokit checkpoint"):
        demokit.load_policy(point_demos)


def test_importing_demokit_stays_light():
    heavy = "('torch', 'numpy', 'mujoco', 'gmps')"
    code = f"import sys, demokit; print([n for n in {heavy} if n in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_help_says_what_there_is_to_say(runs):
    agent = demokit.load_policy(runs / "gmps")
    trial = agent.new_task()
    for method in (agent.act, agent.new_task, agent.save, trial.act, trial.record, trial.adapted):
        assert "Raises:" in inspect.getdoc(method)
