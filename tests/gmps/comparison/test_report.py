"""What is read from the long table: verdicts, areas, tables, on numbers worked by hand."""

import numpy as np
import pytest

from gmps.comparison.outcomes import (
    ACTORS,
    MAIN,
    REFERENCE,
    Row,
    TaskContext,
    curve,
    read_contexts,
    read_rows,
    references,
    write_contexts,
    write_rows,
)
from gmps.comparison.plot import pictures
from gmps.comparison.report import (
    Comparison,
    areas,
    budget,
    gaps,
    markdown,
    ranking,
    shown_steps,
    tables,
    task_table,
    verdict,
)

SPLIT = "validation"


def rows(label, returns, success, seed=0, rollouts=10, sweep=MAIN, scale=1.0):
    """Rows of one run; `returns` and `success` are (steps + 1, tasks)."""
    return [
        Row(label, seed, SPLIT, f"t/{i}", sweep, rollouts, scale, step, actor, earned, solved)
        for actor in ACTORS
        for step, cells in enumerate(zip(returns, success, strict=True))
        for i, (earned, solved) in enumerate(zip(*cells, strict=True))
    ]


def reference(label, returns, success):
    return [
        Row(label, 0, SPLIT, f"t/{i}", MAIN, 0, 1.0, 0, REFERENCE, earned, solved)
        for i, (earned, solved) in enumerate(zip(returns, success, strict=True))
    ]


@pytest.fixture
def table():
    """Two methods and two references on two tasks; "good" has two seeds."""
    return [
        *rows("bad", [[0, 0], [1, 3], [2, 4], [2, 4]], [[0, 0], [0, 0.5], [0, 1], [0, 1]]),
        *rows("good", [[0, 0], [5, 7], [6, 8], [7, 9]], [[0, 0], [0.5, 1], [1, 1], [1, 1]]),
        *rows("good", [[0, 0], [7, 9], [8, 10], [9, 11]], [[0, 0], [1, 1], [1, 1], [1, 1]], 1),
        *reference("expert", [9, 11], [1, 1]),
        *reference("random actions", [-1, 1], [0, 0]),
    ]


def test_the_table_survives_its_file(table, tmp_path):
    write_rows(tmp_path / "t.csv", table)
    assert read_rows(tmp_path / "t.csv") == table
    contexts = [
        TaskContext("t/0", SPLIT, {"a": 0.25}, (1.0, 2.0)),
        TaskContext("t/1", SPLIT, {"a": 0.5}, (3, 4)),
    ]
    write_contexts(tmp_path / "p.csv", contexts)
    assert read_contexts(tmp_path / "p.csv") == contexts


def test_scores_are_runs_by_tasks(table):
    found = curve(table, "good", "mean", "episode_return", split=SPLIT)
    np.testing.assert_array_equal(found[1], [[5, 7], [7, 9]])
    np.testing.assert_array_equal(references(table, "success", split=SPLIT)["expert"], [1, 1])


def test_the_verdict_names_the_better_one_and_by_how_much(table):
    said = verdict(table, SPLIT)
    assert ranking(table, SPLIT) == ["good", "bad"]
    assert "on each of the 2 validation tasks, good succeeds in 88%." in said
    assert "bad succeeds in 25%: 62 points less (95% interval" in said
    assert "do not settle" not in said
    assert "The expert, who is told the task, succeeds in 100%." in said


def test_the_verdict_says_when_nothing_is_settled():
    tie = [
        *rows("a", [[0, 0], [1, 0]], [[0, 0], [1, 0]]),
        *rows("b", [[0, 0], [0, 1]], [[0, 0], [0, 1]]),
    ]
    assert "0 points less (95% interval -100 to 100), which these runs do not settle" in verdict(
        tie, SPLIT
    )


def test_where_success_ties_the_return_decides():
    tie = [*rows("a", [[0], [9]], [[0], [1]]), *rows("b", [[0], [7]], [[0], [1]])]
    assert "b succeeds in 100%, and earns 7.0: 2.0 less" in verdict(tie, SPLIT)


def test_where_no_method_succeeds_the_return_decides():
    lost = [*rows("a", [[0], [3]], [[0], [0]]), *rows("b", [[0], [1]], [[0], [0]])]
    lost += reference("expert", [9], [1])
    assert "a earns 3.0. b earns 1.0: 2.0 less" in verdict(lost, SPLIT)


def test_areas(table):
    # "bad" has means 0 2 3 3 under an expert's 10 and above random's 0.
    found = areas(table, "bad", SPLIT)
    assert found["area"] == 1 + 2.5 + 3
    assert found["regret over steps"] == 30 - 6.5
    assert found["regret over roll-outs"] == 10 * (30 - 6.5)
    assert found["share"] == pytest.approx((30 - 6.5) / 30)


def test_the_gap_to_the_expert_is_in_return_and_paired_by_task(table):
    # Whose tasks earn 9 and 11; "bad" 1 and 3 after a step: the same gap in both.
    assert gaps(table, "bad", SPLIT)[1] == (8, 8, 8)
    found = gaps(table, "good", SPLIT)[1]
    assert found.mean == 3
    assert found.low == 2
    assert found.high == 4
    assert gaps([row for row in table if row.label != "expert"], "bad", SPLIT) == {}


def test_the_budget_of_rollouts_is_that_of_the_thriftiest(table):
    thrifty = rows("thrifty", [[0, 0]] * 4, [[0, 0]] * 4, rollouts=4)
    assert budget(table, SPLIT) == 30
    assert budget([*table, *thrifty], SPLIT) == 12
    # Up to 12 of 10 roll-outs a step, "bad" has gone one step and a fifth of the next.
    found = areas([*table, *thrifty], "bad", SPLIT)["regret over roll-outs"]
    assert found == pytest.approx(10 * (10 + 8) / 2 + 2 * (8 + 7.8) / 2)


def test_tables_show_every_step_or_those_that_matter():
    assert shown_steps(range(6)) == [0, 1, 2, 3, 4, 5]
    assert shown_steps(range(11)) == [0, 1, 2, 3, 5, 10]
    assert shown_steps(range(13)) == [0, 1, 2, 3, 5, 10, 12]


def test_a_page_has_the_tables_and_a_row_per_seed(table):
    page = markdown(
        Comparison("t", table, [], [{"run": "good-0", "steps": 1200, "expert": 0}], {}, {})
    )
    assert page.count("| good | 0 |") == page.count("| good | 1 |") == 2
    # (1 - u)^2 = 0.025 for u = 0.84; returns have no bounds, and so no exact interval.
    solved = "1.00 [0.16, 1.00]"
    assert f"| good | 0.00 [0.00, 0.84] | 0.88 [0.50, 1.00] | {solved} | {solved} |" in page
    assert "| good | 0.0 |" in page
    assert "interquartile mean" in page
    assert "| good-0 | 1,200 | 0 |" in page


def test_sweeps_have_a_table_and_a_picture(table, tmp_path):
    swept = [
        row
        for k in (5, 20)
        for row in rows("bad", [[0, 0], [k, k]], [[0, 0], [0, 1]], rollouts=k, sweep="rollouts")
    ]
    captions = {found.caption: found for found in tables([*table, *swept], SPLIT)}
    shown = captions["Success of the mean policy against roll-outs per step"]
    assert [line[:2] for line in shown.body] == [["bad", "5"], ["bad", "20"]]
    write_rows(tmp_path / "t.csv", [*table, *swept])
    contexts = [TaskContext(f"t/{i}", SPLIT, {"a": i}, ()) for i in range(2)]
    write_contexts(tmp_path / "p.csv", contexts)
    drawn = pictures(tmp_path / "t.csv", tmp_path / "p.csv")
    assert set(drawn) == {
        *("evaluation", "rollouts", "sweep-rollouts"),
        *(f"map-{SPLIT}", f"tasks-{SPLIT}"),
    }
    axes = drawn["sweep-rollouts"].axes[1]
    assert axes.lines[0].get_xydata().tolist() == [[5, 5], [20, 20]]


def test_every_task_has_a_line(table):
    contexts = [TaskContext(f"t/{i}", SPLIT, {"a": i / 2}, ()) for i in range(2)]
    found = task_table(table, contexts, SPLIT)
    assert found.header[2:5] == ["bad, 0", "bad, 1", "bad, 3"]
    assert found.body[1][:5] == ["t/1", "0.5", "0% / 0.0", "50% / 3.0", "100% / 4.0"]
