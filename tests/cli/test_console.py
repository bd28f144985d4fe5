"""What commands show while they work, where there is no terminal."""

import json

import numpy as np
import pytest

from demokit.cli.console import Stages, as_json, progress


def test_json_of_arrays_and_of_what_is_not_finite():
    about = {"sizes": np.array([1, 2]), "high": np.float64("inf"), "low": (0.5,)}
    assert json.loads(as_json(about)) == {"sizes": [1, 2], "high": None, "low": [0.5]}


def test_every_stage_is_shown_from_where_it_starts(capsys):
    with Stages("gmps on push") as report:
        report("imitation first", 1, 2)
        report("imitation first", 2, 2)
        report("iterations", 3, 4)
        report("iterations", 4, 4)
    shown = capsys.readouterr().err.splitlines()
    assert [line.split(" (")[0] for line in shown] == [
        "gmps on push: imitation first 1 of 2",
        "gmps on push: imitation first 2 of 2",
        "gmps on push: iterations 3 of 4",
        "gmps on push: iterations 4 of 4",
    ]
    assert "(" not in shown[2]  # what an earlier process did says nothing about the rate
    assert shown[3].endswith("/s)")


def test_a_note_stays_until_another_is_said(capsys):
    with Stages("gmps on push") as report:
        report("iterations", 0, 2, note="return 3.0")
        report("iterations", 2, 2)
    shown = capsys.readouterr().err.splitlines()
    assert shown[0] == "gmps on push: iterations 0 of 2, return 3.0"
    assert shown[1].endswith(", return 3.0")


@pytest.mark.parametrize(
    ("taken_s", "speed"),
    [
        (0.5, "(4.0/s, 0:00:00 left)"),
        (2, "(1.0 s each, 0:00:02 left)"),
        (9e3, "(4500.0 s each, 2:30:00 left)"),
    ],
)
def test_slow_work_says_what_each_takes(taken_s, speed, capsys, monkeypatch):
    clock = iter([0.0, taken_s])
    monkeypatch.setattr("demokit.cli.console.time.monotonic", lambda: next(clock))
    with progress("saved", 4) as update:
        update(2)
    assert capsys.readouterr().err == f"saved 2 of 4 {speed}\n"


def test_a_run_that_falls_back_to_its_checkpoint_has_no_rate(capsys):
    with progress("runs", 200, start=52) as done:
        done(50)
    assert capsys.readouterr().err == "runs 50 of 200\n"
