"""Learning curves: what is read from a training's log, and what is drawn, on worked numbers."""

import json
import shutil

import numpy as np
import pytest

from demokit.errors import DemokitError
from gmps.comparison.learning import (
    Monitored,
    by_seed,
    logged,
    mean_curve,
    read_learning,
    write_learning,
)
from gmps.comparison.plot import COLORS, learning_curves

METRICS = """iteration,loss,return_before,return_after,success_before,success_after,env_steps
0,1.5,-9,-8,0.0,0.25,300
1,1.4,nan,nan,nan,nan,500
2,1.3,-9,-4,0.0,0.75,700
"""


def points(label, seed, steps, success):
    return [Monitored(label, seed, n, 10 * s, s) for n, s in zip(steps, success, strict=True)]


@pytest.fixture
def curves():
    return [
        *points("gmps", 0, [100, 300], [0, 0.5]),
        *points("gmps", 1, [200, 400], [0.5, 1]),
        *points("imitation", 0, [50], [0.25]),
    ]


def test_a_log_gives_the_iterations_that_were_evaluated(tmp_path):
    (tmp_path / "metrics.csv").write_text(METRICS)
    assert logged(tmp_path / "metrics.csv", "gmps", 3) == [
        Monitored("gmps", 3, 300, -8, 0.25),
        Monitored("gmps", 3, 700, -4, 0.75),
    ]
    (tmp_path / "metrics.csv").write_text("iteration,loss\n0,1\n")
    assert logged(tmp_path / "metrics.csv", "gmps", 3) == []
    assert logged(tmp_path / "none.csv", "gmps", 3) == []
    (tmp_path / "metrics.csv").write_text(METRICS.replace("700", "many"))
    with pytest.raises(DemokitError, match="cannot be read"):
        logged(tmp_path / "metrics.csv", "gmps", 3)


def test_curves_survive_their_file(curves, tmp_path):
    path = tmp_path / "learning.csv"
    write_learning(path, curves)
    assert read_learning(path) == curves
    path.write_text(path.read_text().replace("300", "inf"))
    with pytest.raises(DemokitError, match="no point of a learning curve"):
        read_learning(path)
    path.write_text(path.read_text().replace("gmps", "g" * 140_000))
    with pytest.raises(DemokitError, match="field larger than field limit"):
        read_learning(path)
    write_learning(path, [])
    assert not path.exists()
    assert read_learning(path) == []


def test_a_mean_is_over_the_steps_that_all_seeds_have(curves):
    # At 200 seed 0 has come to 0.25 and seed 1 stands at 0.5; at 300 they are at 0.5 and 0.75.
    found = mean_curve(by_seed(curves, "gmps", "success"))
    np.testing.assert_allclose(found, [[200, 300], [0.375, 0.625]])
    alone = mean_curve(by_seed(curves, "imitation", "episode_return"))
    np.testing.assert_allclose(alone, [[50], [2.5]])


def test_of_what_was_logged_after_as_many_steps_the_last_counts():
    """Methods that take no steps stand at one place all the time; the best of it flatters them."""
    found = by_seed(points("oracle", 0, [100, 100, 100], [0.2, 0.9, 0.1]), "oracle", "success")
    np.testing.assert_allclose(mean_curve(found), [[100], [0.1]])


def test_methods_are_drawn_in_their_colours_seeds_thin_and_means_thick(curves):
    figure = learning_curves(curves, {"gmps": COLORS[0], "imitation": COLORS[1]})
    success = figure.axes[0]
    assert "environment steps" in success.get_xlabel()
    drawn = [(line.get_color(), line.get_linewidth(), line.get_xydata()) for line in success.lines]
    assert [color for color, _, _ in drawn] == [COLORS[0]] * 3 + [COLORS[1]] * 2
    assert [width > 2 for _, width, _ in drawn] == [False, False, True, False, True]
    np.testing.assert_allclose(drawn[1][2], [[200, 0.5], [400, 1]])
    assert success.get_xscale() == "linear"
    late = [*curves, *points("rl", 0, [5000], [1])]
    wide = learning_curves(late, {"gmps": COLORS[0], "imitation": COLORS[1], "rl": COLORS[2]})
    assert wide.axes[0].get_xscale() == "log"


def test_seeds_that_never_meet_have_no_mean():
    apart = [*points("a", 0, [1, 2], [0, 1]), *points("a", 1, [3, 4], [0, 1])]
    assert mean_curve(by_seed(apart, "a", "success")).shape == (2, 0)
    assert len(learning_curves(apart, {"a": COLORS[0]}).axes[0].lines) == 3


def test_what_was_logged_stays_with_the_run(point_run, tmp_path, invoke):
    run, folder = tmp_path / "gmps-0", tmp_path / "c"
    shutil.copytree(point_run, run)
    asked = ("evaluate", run, "--num-tasks", 2, "--adapt-steps", 1, "--output-dir", folder)
    invoke(*asked)
    found = read_learning(folder / "learning.csv")
    assert found == read_learning(run / "learning.csv") == logged(run / "metrics.csv", "gmps", 0)
    [measured] = json.loads((folder / "evaluation.json").read_text())["runs"]
    # The last evaluation is at the end of training, when all that was needed has been spent.
    assert found[-1].env_steps == measured["needed to learn"]
    assert (folder / "learning.png").read_bytes().startswith(b"\x89PNG")
    assert "Learning to learn" in (folder / "report.html").read_text()
    for gone in ("checkpoint.safetensors", "metrics.csv"):
        (run / gone).unlink()
    run.rename(tmp_path / "another-0")
    invoke(asked[0], tmp_path / "another-0", *asked[2:])
    kept = read_learning(folder / "learning.csv")
    assert [point.env_steps for point in kept] == [point.env_steps for point in found]
    assert {point.label for point in kept} == {"another"}
    (tmp_path / "another-0" / "learning.csv").unlink()
    invoke(asked[0], tmp_path / "another-0", *asked[2:])
    assert not (folder / "learning.png").exists()
    assert "Learning to learn" not in (folder / "report.html").read_text()
