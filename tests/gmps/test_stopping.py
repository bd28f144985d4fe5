"""Early stopping: when, with which parameters, and after a resume exactly as without one."""

import csv
import math

import pytest
import torch
from devices import DEVICE
from short_run import DEMOS

import gmps.methods.gmps.algorithm
from demokit.learning.checkpoint import load_checkpoint
from gmps.experience.demos import load_demos
from gmps.methods.gmps.algorithm import train
from gmps.methods.gmps.objective import MetaParams
from gmps.options import TrainConfig
from gmps.progress import ITERATIONS
from gmps.runs.checkpoint import load
from gmps.runs.folder import Run
from gmps.runs.stopping import Best

EARNED = [-5.0, -3.0, -4.0, -3.0, -9.0, -1.0]  # best at 1; two evaluations later it is over


def config(**changes):
    small = {"demos_per_task": DEMOS, "outer_steps": 1, "rollouts_per_task": 2, "device": DEVICE}
    often = {"iterations": 6, "eval_every": 1, "checkpoint_every": 1, "patience": 2}
    return TrainConfig(**{**small, **often, **changes})


def first_weights(learned):
    return learned.meta.theta["0.weight"].detach().cpu()


def meta_of(value):
    return MetaParams({"a": torch.full((2,), value, requires_grad=True)}, {})


def test_the_best_is_a_copy_and_counts_what_followed():
    meta = meta_of(1.0)
    best = Best.of(None, meta, -2.0)
    with torch.no_grad():
        meta.theta["a"] += 1
    assert best.meta.theta["a"].tolist() == [1, 1]
    same = Best.of(best, meta, -2.0)
    assert same.meta is best.meta
    assert same.waited == 1
    assert Best.of(same, meta, math.nan).waited == 2
    better = Best.of(same, meta, -1.0)
    assert (better.meta.theta["a"].tolist(), better.waited) == ([2, 2], 0)
    assert Best.of(Best.of(None, meta, math.nan), meta, -9.0).waited == 0


@pytest.fixture
def earning(monkeypatch):
    """Evaluations say what the test says; returns what theta was at each of them."""
    thetas = []

    def evaluate(learned, *_, **__):
        thetas.append(first_weights(learned).clone())
        return len(thetas) - 1

    def settle(learned, optimizer, run, _report):
        settled = gmps.methods.gmps.algorithm.replace(learned, later_lr=0.1)
        run.save(settled, optimizer, run.iteration)
        return settled

    monkeypatch.setattr(gmps.methods.gmps.algorithm, "adaptation_curve", evaluate)
    monkeypatch.setattr(gmps.methods.gmps.algorithm, "_earned", lambda index: EARNED[index])
    monkeypatch.setattr(gmps.methods.gmps.algorithm, "_success", lambda _: 0.0)
    monkeypatch.setattr(gmps.methods.gmps.algorithm, "settle_step_size", settle)
    return thetas


def test_training_stops_and_keeps_the_best(point_demos, tmp_path, earning):
    run = Run(tmp_path / "run", config(), "demos")
    learned = train(load_demos(point_demos, DEMOS), run)
    assert len(earning) == 4
    assert torch.equal(first_weights(learned), earning[1])
    assert not torch.equal(earning[1], earning[3])
    saved, _, progress = load(tmp_path / "run")
    assert progress == {"iteration": 4}
    assert torch.equal(first_weights(saved), earning[1])
    run.close()
    again = train(load_demos(point_demos, DEMOS), Run(run.folder, config(), "demos", resume=True))
    assert len(earning) == 4
    assert torch.equal(first_weights(again), earning[1])


def test_the_best_is_kept_when_time_is_up(point_demos, tmp_path, earning):
    run = Run(tmp_path / "run", config(iterations=3), "demos")
    learned = train(load_demos(point_demos, DEMOS), run)
    assert torch.equal(first_weights(learned), earning[1])


class KilledError(Exception):
    """Stands for whatever ends a process between two iterations."""


@pytest.mark.parametrize("stop_after", [1, 2])
def test_resuming_stops_at_the_same_place(point_demos, tmp_path, stop_after):
    options, demos = config(outer_lr=0.3, patience=1), load_demos(point_demos, DEMOS)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train(demos, Run(whole, options, "demos"))
    with (whole / "metrics.csv").open(newline="") as file:
        logged = len(list(csv.DictReader(file)))
    assert logged < options.iterations

    def die(stage, done, _):
        if (stage, done) == (ITERATIONS, min(stop_after + 1, logged)):
            raise KilledError

    with pytest.raises(KilledError):
        train(demos, Run(cut, options, "demos"), die)
    train(demos, Run(cut, options, "demos", resume=True))
    (expected, header), (found, its) = (
        load_checkpoint(folder / "checkpoint.safetensors") for folder in (whole, cut)
    )
    assert header == its
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert (whole / "metrics.csv").read_text() == (cut / "metrics.csv").read_text()
