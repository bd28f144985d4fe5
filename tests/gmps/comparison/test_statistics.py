"""Estimates and their intervals, on numbers worked by hand."""

import numpy as np
import pytest
from scipy.stats import binomtest

from gmps.comparison.statistics import (
    difference,
    improvement,
    interquartile,
    interval,
    mean_upto,
)


def test_interval_holds_the_mean_and_shrinks_with_data():
    rng = np.random.default_rng(0)
    few, many = interval(rng.normal(size=(1, 20))), interval(rng.normal(size=(10, 200)))
    assert few.low < few.mean < few.high
    assert many.high - many.low < 0.3 * (few.high - few.low)
    for runs, tasks in ((1, 5), (5, 20), (3, 7)):
        assert interval(np.ones((runs, tasks))) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize("runs", [1, 5])
@pytest.mark.parametrize("num", [2, 5, 20, 60])
def test_where_all_succeed_or_none_the_interval_is_that_of_clopper_and_pearson(runs, num):
    ones = np.ones((runs, num))
    for scores, solved in ((ones, num), (0 * ones, 0)):
        exact = binomtest(solved, num).proportion_ci(0.95, "exact")
        found = interval(scores, (0, 1))
        assert found == pytest.approx((solved / num, exact.low, exact.high))
    assert interval(np.ones((5, 20)), (0, 1)).low == pytest.approx(0.8316, abs=1e-4)


def test_worse_scores_have_no_tighter_interval():
    """One cell of a hundred that is a little worse says nothing of tasks that were not met."""
    perfect, nearly = np.ones((5, 20)), np.ones((5, 20))
    nearly[0, 0] = 0.8
    found = interval(nearly, (0, 1))
    assert found.low < interval(perfect, (0, 1)).low < 0.84
    assert found.high == 1
    one_apart = difference(perfect, nearly, (0, 1))
    assert one_apart.low < difference(perfect, perfect, (0, 1)).high - 0.33


def test_scores_that_spread_more_than_unseen_tasks_could_have_the_bootstraps_interval():
    spread = np.tile(np.arange(20.0) > 9, (3, 1)).astype(float)
    assert interval(spread, (0, 1)) == interval(spread)
    assert difference(spread, 1 - spread, (0, 1)) == difference(spread, 1 - spread)


def test_bounded_intervals_hold_the_truth_where_a_rare_kind_of_task_fails():
    """One task in twenty always fails, of the others one episode in a hundred."""
    rng = np.random.default_rng(4)
    truth, held = 0.95 * 0.99, 0
    for _ in range(200):
        solved = (rng.random(20) > 0.05) * 0.99
        found = interval(rng.binomial(25, solved)[None] / 25, (0, 1))
        held += found.low < truth < found.high
    assert held >= 185


def test_scores_that_are_equal_in_between_may_be_another_in_unseen_tasks():
    found = interval(np.full((1, 20), 0.5), (0, 1))
    assert found == pytest.approx((0.5, 0.5 - 0.1684 / 2, 0.5 + 0.1684 / 2), abs=1e-4)


def test_equal_differences_have_an_exact_interval_too():
    ones = np.ones((3, 20))
    assert difference(ones, ones[:1], (0, 1)) == pytest.approx((0, -0.1684, 0.1684), abs=1e-4)
    assert difference(ones, 0 * ones, (0, 1)) == pytest.approx((1, 1 - 2 * 0.1684, 1), abs=1e-4)


@pytest.mark.parametrize("axis", [0, 1])
def test_interval_is_as_wide_as_theory_says(axis):
    """Of a mean it is about 2 x 1.96 standard errors wide, in tasks that are hard or easy for all
    runs, and for runs that are good or bad in all tasks: repetition tells nothing new."""
    effects = np.random.default_rng(1).normal(size=100)
    found = interval(np.tile(effects, (5, 1)) if axis else np.tile(effects[:, None], (1, 5)))
    assert found.high - found.low == pytest.approx(2 * 1.96 * effects.std() / 10, rel=0.1)


def test_intervals_hold_the_truth_as_often_as_they_say():
    """Of 20 tasks and five seeds, about 19 times in 20."""
    rng = np.random.default_rng(2)
    held = 0
    for _ in range(200):
        cells = rng.normal(size=(1, 20)) + 0.3 * rng.normal(size=(5, 20))
        found = interval(cells)
        held += found.low < 0 < found.high
    assert 180 <= held <= 199


def test_interquartile_mean_is_that_of_the_middle_half():
    # Of 0 1 2 3 4 5 60 70 the middle half is 2 3 4 5.
    found = interquartile(np.array([[0.0, 70, 2, 3], [5, 4, 60, 1]]))
    assert found.mean == 3.5
    assert interquartile(np.array([[0.0, 1, 3, 100]])) == (2.0, 2.0, 2.0)


@pytest.mark.parametrize(
    ("of", "truth"), [(interquartile, 0.0), (lambda ours: improvement(ours, -ours), 0.5)]
)
def test_a_run_that_is_bad_everywhere_moves_the_figure_everywhere(of, truth):
    """Each run is good or bad in all tasks: more tasks tell nothing about more trainings."""
    rng, held, one = np.random.default_rng(5), 0, of(np.ones((1, 4)))
    assert one.low == one.high == one.mean
    for _ in range(100):
        runs = rng.normal(size=(10, 1)) + 0.1 * rng.normal(size=(10, 20))
        found = of(runs)
        held += found.low < truth < found.high
    assert 80 <= held <= 99


def test_resampled_runs_keep_tasks_apart():
    """Tasks that differ leave no doubt where every run agrees about each of them."""
    alike = np.tile(np.arange(8.0), (5, 1))
    found = interquartile(alike)
    assert found == (3.5, 3.5, 3.5)
    assert interval(alike).high - interval(alike).low > 1
    noisy = alike + np.random.default_rng(0).normal(size=alike.shape)
    found = interquartile(noisy)
    assert found.low < found.mean < found.high


def test_differences_are_paired_by_task():
    """The spread of the tasks cancels; that of the runs does not."""
    tasks = np.array([[0.0, 10, 500, 1000]])
    found = difference(tasks + 0.5, tasks)
    assert found == pytest.approx((0.5, 0.5, 0.5))
    runs = np.array([[0.0], [2.0]])
    found = difference(tasks + runs, tasks)
    assert found == pytest.approx((1.0, 0.0, 2.0))


def test_improvement_is_the_share_of_pairs_that_win():
    ours, theirs = (
        np.array([[1.0, 3.0], [2.0, 3.0]]),
        np.array([[1.0, 0.0], [0.0, 5.0], [3.0, 3.0]]),
    )
    # First task: 1 ties, wins, loses; 2 wins twice, loses. Second: each wins, loses, ties.
    assert improvement(ours, theirs).mean == pytest.approx(((1.5 + 2) / 6 + 3 / 6) / 2)
    assert improvement(theirs + 10, theirs) == pytest.approx((1, 1, 1))
    rng = np.random.default_rng(3)
    low, high = improvement(rng.normal(size=(20, 5)), rng.normal(size=(20, 5)))[1:]
    assert low < 0.5 < high
    assert 0.05 < high - low < 0.25


def test_areas_are_those_of_trapezoids():
    assert mean_upto({0: 0.0, 1: 2, 2: 4, 3: 4, 4: 9}, 3) == (1 + 3 + 4) / 3
    # Ten episodes a step; at 15 the line from 2 to 4 has come to 3.
    assert mean_upto({0: 0.0, 10: 2, 20: 4}, 15) == (10 + 12.5) / 15
    assert mean_upto({0: 0.0, 10: 2, 20: 4}, 20) == (10 + 30) / 20
