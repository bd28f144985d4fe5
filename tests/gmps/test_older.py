"""Runs of demokit 0.1 stay readable: its checkpoints, and what an archive says of its runs."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from short_run import DEMOS, learner_of, options_of

from demokit.errors import DemokitError
from demokit.learning.checkpoint import load_checkpoint, save_checkpoint
from gmps.comparison.campaign import Campaign, is_finished
from gmps.comparison.evaluated_run import Facts
from gmps.comparison.plan import load_plan
from gmps.evaluation import evaluate
from gmps.experience.demos import load_demos
from gmps.options import differing_options
from gmps.runs.checkpoint import Trained, load, save

OLDER = Path(__file__).parent / "older"
DOCS = Path(__file__).parents[2] / "docs"
ARCHIVE = DOCS / "results"


@pytest.mark.parametrize(
    ("name", "method", "action", "step_size", "env_steps"),
    [
        # What demokit 0.1 said of these runs, at the point (0.3, -0.2).
        ("gmps", "gmps", (-0.09625754505395889, 0.03921900689601898), 0.09, 74_200),
        ("latent", "gmps-latent", (0.08655709028244019, 0.06758730113506317), None, 9_400),
        ("imitation", "imitation", (0.2647342085838318, -0.12082228809595108), 0.09, 65_400),
    ],
)
def test_old_checkpoints_act_and_adapt(name, method, action, step_size, env_steps):
    trained, _ = load(OLDER / f"{name}.safetensors")
    learner = trained.learner
    found = learner.policy.dist(learner.meta.theta, torch.tensor([0.3, -0.2])).mean
    torch.testing.assert_close(found, torch.tensor(action))
    assert (trained.method, trained.finished, trained.iteration) == (method, True, 2)
    assert getattr(learner, "step_size", None) == step_size
    assert trained.spent.undivided == trained.spent.needed == env_steps
    tasks = trained.problem.tasks[:2]
    curve = evaluate(learner, trained.problem, tasks, num_steps=1, seed=0)
    assert curve.mean.episode_return.shape == (2, 2)


def test_old_facts_say_the_same_by_todays_names():
    facts = Facts.of(ARCHIVE / "push" / "gmps-explore-0")
    said = json.loads((ARCHIVE / "push" / "gmps-explore-0" / "facts.json").read_text())
    assert facts.method == "gmps-latent"
    assert facts.differing() == {"outer_stride": 4, "demos_per_task": 10}
    assert facts.spent.undivided == said["env_steps"]
    assert facts.versions == said["versions"]
    assert facts.finished


@pytest.mark.parametrize("method", ["context-search", "oracle", "task-inference"])
def test_options_that_did_nothing_are_read_over(point_demos, tmp_path, method):
    options = options_of(method)
    learner, problem = learner_of(load_demos(point_demos, DEMOS), method, options)
    path = tmp_path / "checkpoint.safetensors"
    save(path, Trained(method, options, problem, learner), {})
    tensors, header = load_checkpoint(path)
    gone = {"initial_std": 0.3, "min_std": 0.1, "outer_loss": "squared"}
    save_checkpoint(path, tensors, {**header, "options": {**header["options"], **gone}})
    assert load(path)[0].options == options
    assert Facts.of(path).options == header["options"]
    other = {**header["options"], **gone, "outer_loss": "log_likelihood"}
    save_checkpoint(path, tensors, {**header, "options": other})
    with pytest.raises(DemokitError, match="train again"):
        load(path)


def test_task_inference_of_before_is_read_as_it_was(point_demos, tmp_path):
    """Its models left out a third of the tasks to the end, and there was a heat."""
    options = options_of("task-inference", temper=0.03)
    learner, problem = learner_of(load_demos(point_demos, DEMOS), "task-inference", options)
    path = tmp_path / "checkpoint.safetensors"
    save(path, Trained("task-inference", options, problem, learner), {})
    tensors, header = load_checkpoint(path)
    before = {n: v for n, v in header["options"].items() if n != "leave_out"}
    save_checkpoint(path, tensors, {**header, "options": {**before, "heat": 0.3}})
    assert load(path)[0].options == replace(options, leave_out=True)
    assert Facts.of(path).options == {**header["options"], "leave_out": True}


def test_imitation_of_before_is_read_without_the_bound_of_a_ratio_that_is_one(
    point_demos, tmp_path
):
    options, path = options_of("imitation"), tmp_path / "checkpoint.safetensors"
    learner, problem = learner_of(load_demos(point_demos, DEMOS), "imitation", options)
    save(path, Trained("imitation", options, problem, learner), {})
    tensors, header = load_checkpoint(path)
    assert "ratio_clip" not in header["options"]
    before = {**header["options"], "ratio_clip": 3.0}
    save_checkpoint(path, tensors, {**header, "options": before})
    assert load(path)[0].options == options
    assert Facts.of(path).options == header["options"]


@pytest.mark.parametrize("name", ["inference", "results"])
def test_archives_are_of_the_runs_that_their_plans_ask_for(tmp_path, name):
    plan = load_plan(DOCS / f"{name}.toml")
    campaign = Campaign(plan, tmp_path, tmp_path / "page.md", len(plan.seeds), 1)
    kept = [
        is_finished(DOCS / name / comparison / run, planned, campaign.asked(comparison))
        for comparison in plan.comparisons
        for run, planned in plan.trainings(comparison).items()
        if (DOCS / name / comparison / run / "facts.json").exists()
    ]
    assert len(kept) > 100
    assert all(kept)


def test_how_often_a_run_was_saved_makes_it_no_other():
    seldom, often = (options_of("task-inference", checkpoint_every=num) for num in (5, 1))
    assert differing_options(seldom) == differing_options(often)
