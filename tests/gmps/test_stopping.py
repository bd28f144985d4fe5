"""Early stopping: when, with which parameters, and after a resume exactly as without one."""

import csv
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from short_run import DEMOS, options_of, trained_in

from demokit.learning.checkpoint import load_checkpoint
from gmps.experience.demos import load_demos
from gmps.progress import ITERATIONS
from gmps.runs.checkpoint import load
from gmps.runs.stopping import Best

EARNED = [-5.0, -3.0, -4.0, -3.0, -9.0, -1.0]  # best at 1; two evaluations later it is over


def config(**changes):
    small = {"outer_steps": 1, "rollouts_per_task": 2}
    often = {"iterations": 6, "eval_every": 1, "checkpoint_every": 1, "patience": 2}
    return options_of(**{**small, **often, **changes})


def first_weights(learner):
    return learner.meta.theta["0.weight"]


def test_the_best_is_kept_and_counts_what_followed():
    first, second = object(), object()
    best = Best.of(None, first, -2.0)
    same = Best.of(best, second, -2.0)
    assert same.learner is first
    assert same.waited == 1
    assert Best.of(same, second, math.nan).waited == 2
    better = Best.of(same, second, -1.0)
    assert (better.learner, better.waited) == (second, 0)
    assert Best.of(Best.of(None, first, math.nan), second, -9.0).waited == 0


@pytest.fixture
def earning(monkeypatch):
    """Evaluations say what the test says; returns what theta was at each of them."""
    thetas = []

    def curve(_, learner, iteration):
        thetas.append(first_weights(learner))
        earned = np.full((2, 1), EARNED[iteration])
        return SimpleNamespace(mean=SimpleNamespace(episode_return=earned, success=earned * 0))

    def settled(run, trained, *_):
        trained = replace(trained, finished=True)
        run.save(trained, run.state)
        return trained

    monkeypatch.setattr("gmps.loop.Monitor.curve", curve)
    monkeypatch.setattr("gmps.loop._settled", settled)
    return thetas


def test_training_stops_and_keeps_the_best(point_demos, tmp_path, earning):
    demos, folder = load_demos(point_demos, DEMOS), tmp_path / "run"
    trained = trained_in(folder, demos, options=config())
    assert len(earning) == 4
    assert torch.equal(first_weights(trained.learner), earning[1])
    assert not torch.equal(earning[1], earning[3])
    saved, _ = load(folder)
    assert saved.iteration == 4
    assert torch.equal(first_weights(saved.learner), earning[1])
    again = trained_in(folder, demos, options=config(), resume=True)
    assert len(earning) == 4
    assert torch.equal(first_weights(again.learner), earning[1])


def test_the_best_is_kept_when_time_is_up(point_demos, tmp_path, earning):
    demos = load_demos(point_demos, DEMOS)
    trained = trained_in(tmp_path / "run", demos, options=config(iterations=3))
    assert torch.equal(first_weights(trained.learner), earning[1])


class KilledError(Exception):
    """Stands for whatever ends a process between two iterations."""


@pytest.mark.parametrize("stop_after", [1, 2])
def test_resuming_stops_at_the_same_place(point_demos, tmp_path, stop_after):
    options, demos = config(outer_lr=0.3, patience=1), load_demos(point_demos, DEMOS)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    trained_in(whole, demos, options=options)
    with (whole / "metrics.csv").open(newline="") as file:
        logged = len(list(csv.DictReader(file)))
    assert logged < options.iterations

    def die(stage, done, *_, **__):
        if (stage, done) == (ITERATIONS, min(stop_after + 1, logged)):
            raise KilledError

    with pytest.raises(KilledError):
        trained_in(cut, demos, options=options, report=die)
    trained_in(cut, demos, options=options, resume=True)
    (expected, header), (found, its) = (
        load_checkpoint(folder / "checkpoint.safetensors") for folder in (whole, cut)
    )
    assert header == its
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert (whole / "metrics.csv").read_text() == (cut / "metrics.csv").read_text()
