"""Evaluation: what adaptation sees, the choice of step size, the files that are written."""

import csv
import json

import numpy as np
import pytest
import torch

from demokit.envs.tasks import make_tasks
from demokit.learning.checkpoint import load_checkpoint, save_checkpoint
from gmps.evaluate import adaptation_curve, choose_step_size
from gmps.learned import load
from gmps.report import Row, area, interval, label_of, markdown, values
from gmps.rollout import Sampler


@pytest.fixture
def learned(point_run):
    return load(point_run)[0]


def curve_of(learned, num_steps=2, **options):
    tasks = make_tasks(learned.family, "uniform", "validation", num_tasks=4)
    sampler = Sampler(learned.family, tasks, learned.reward, explore=3, mean=2)
    return adaptation_curve(learned, sampler, np.random.default_rng(0), num_steps, **options)


def test_every_task_starts_from_theta(learned):
    """A zero step size never leaves theta, whatever the number of steps."""
    still = curve_of(learned, later_lr=0.0)
    moved = curve_of(learned, later_lr=0.5)
    assert still.mean.episode_return.shape == (3, 4)
    np.testing.assert_array_equal(
        still.mean.episode_return[:2], moved.mean.episode_return[:2]
    )  # the first step is the learned one in both
    assert not np.array_equal(still.mean.episode_return[2], moved.mean.episode_return[2])


def test_evaluation_leaves_theta_alone(learned):
    before = {name: value.detach().clone() for name, value in learned.meta.theta.items()}
    curve_of(learned)
    assert all(torch.equal(before[name], value) for name, value in learned.meta.theta.items())


def test_step_size_is_the_best_tried_and_has_worse_ones_on_both_sides(learned):
    tuning = choose_step_size(learned, 0, grid=(1e-3, 1e-2))
    assert tuning.best == max(tuning.scores, key=tuning.scores.get)
    assert min(tuning.scores) < tuning.best < max(tuning.scores)
    assert tuning.env_steps == len(tuning.scores) * 4 * len(learned.tasks) * (3 + 5) * 20


def rows(returns, label="a", seed=0):
    return [
        Row(label, seed, f"task/{i}", step, "mean", value, float(value > 2))
        for step, cells in enumerate(returns)
        for i, value in enumerate(cells)
    ]


def test_area_is_that_of_trapezoids():
    # Means 0, 2, 4, 4, 9: trapezoids over steps 0 to 3 are 1 + 3 + 4.
    assert area(rows([[0, 0], [1, 3], [4, 4], [3, 5], [9, 9]]), "a") == pytest.approx(8)


def test_interval_holds_the_mean_and_shrinks_with_data():
    rng = np.random.default_rng(0)
    few, many = interval(rng.normal(size=20)), interval(rng.normal(size=2000))
    assert few.low < few.mean < few.high
    assert many.high - many.low < 0.3 * (few.high - few.low)
    assert interval(np.ones(5)) == (1.0, 1.0, 1.0)


def test_seeds_are_pooled_under_one_label():
    both = rows([[1.0]], seed=0) + rows([[3.0]], seed=1) + rows([[9.0]], label="b")
    assert values(both, "a", "mean", "episode_return")[0].tolist() == [1.0, 3.0]


@pytest.mark.parametrize(
    ("folder", "label"), [("gmps-0", "gmps"), ("push-gmps-12", "push-gmps"), ("7", "7")]
)
def test_labels_drop_the_seed(tmp_path, folder, label):
    assert label_of(tmp_path / folder) == label


def test_evaluate_writes_table_picture_and_page(point_run, tmp_path, invoke):
    folder = tmp_path / "comparison"
    result = invoke(
        *("evaluate", point_run, "--num-tasks", 3, "--adapt-steps", 3, "--output-dir", folder)
    )
    assert "gmps" in result.output
    assert (folder / "evaluation.png").read_bytes().startswith(b"\x89PNG")
    table = list(csv.DictReader((folder / "evaluation.csv").open()))
    assert len(table) == 3 * 4 * 2 + 2 * 3
    assert content_of(folder)["references"]["success"]["expert"] == 1.0
    assert content_of(folder)["references"]["success"]["random actions"] < 0.5
    content = json.loads((folder / "evaluation.json").read_text())
    assert {entry["step"] for entry in content["summary"]} == {0, 1, 2, 3}
    own = [float(r["success"]) for r in table if (r["step"], r["actor"]) == ("1", "mean")]
    [entry] = [
        e
        for e in content["summary"]
        if (e["step"], e["actor"], e["measure"]) == (1, "mean", "success")
    ]
    assert entry["mean"] == pytest.approx(np.mean(own))
    assert "environment steps" in (folder / "report.md").read_text()


def content_of(folder):
    return json.loads((folder / "evaluation.json").read_text())


def test_json_output_is_json_alone(point_run, tmp_path, invoke):
    result = invoke(
        *("evaluate", point_run, "--num-tasks", 1, "--adapt-steps", 3, "--json"),
        *("--output-dir", tmp_path / "c"),
    )
    assert json.loads(result.stdout)["runs"][0]["run"] == "gmps-0"


def test_wrong_runs_are_one_sentence(tmp_path, invoke):
    (tmp_path / "empty").mkdir()
    assert "No checkpoint" in invoke("evaluate", tmp_path / "empty", exit_code=1).output
    broken = tmp_path / "checkpoint.safetensors"
    broken.write_bytes(b"\x80\x04\x95 not a checkpoint")
    assert "no demokit checkpoint" in invoke("evaluate", broken, exit_code=1).output
    assert invoke("evaluate", tmp_path / "absent", exit_code=2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"config": {"optoin": 1}}, "another version"),
        ({"tasks": None}, "another version"),
        ({"kind": "sac"}, "of 'sac'"),
        ({"model_hash": "0"}, "another model"),
        ({"family": "pusj"}, "did you mean 'push'"),
    ],
)
def test_checkpoints_that_do_not_fit_are_one_sentence(point_run, tmp_path, invoke, change, message):
    tensors, header = load_checkpoint(point_run / "checkpoint.safetensors")
    save_checkpoint(tmp_path / "checkpoint.safetensors", tensors, {**header, **change})
    assert message in invoke("evaluate", tmp_path, exit_code=1).output


def test_markdown_has_a_row_per_seed():
    page = markdown(
        "t",
        [
            row
            for seed in (0, 1)
            for actor in ("mean", "stochastic")
            for row in [Row("a", seed, "task/0", step, actor, 1.0, 1.0) for step in range(4)]
        ],
        [{"run": "a-0"}],
    )
    assert page.count("| a | 0 |") == 2
    assert page.count("| a | 1 |") == 2
