"""What is read from the long table: verdicts, areas, tables, on numbers worked by hand."""

import json
from dataclasses import replace

import numpy as np
import pytest

from demokit.envs import make_family
from demokit.types import Task
from gmps.comparison.episodes import At, equal_budget, shown_episodes
from gmps.comparison.plot import adaptation, pictures, task_map
from gmps.comparison.report import (
    Comparison,
    after_equal_episodes,
    area_budget,
    areas,
    gaps,
    lost,
    markdown,
    meanwhile,
    milestones,
    plain_tables,
    ranking,
    summary,
    tables,
    task_table,
    verdict,
    write_json,
)
from gmps.comparison.rows import (
    ACTORS,
    MAIN,
    REFERENCE,
    TOLD,
    Row,
    TaskContext,
    context_of,
    curve,
    read_contexts,
    read_rows,
    references,
    write_contexts,
    write_rows,
)

SPLIT = "validation"


@pytest.mark.parametrize(
    ("name", "context", "goal"),
    [
        ("point", (0.3, -0.4), (0.3, -0.4)),
        ("push-rotated", (0.05, 0.7, 1.0), (0.05, 0.7)),
        ("point-rotated", (1.0,), ()),  # its mark is no goal
        ("sliders", (0.1,) * 6, ()),  # and six are none to draw a map over
    ],
)
def test_a_task_is_where_its_goal_is(name, context, goal):
    family = make_family(name)
    found = context_of(family, Task(name, "t/0", context, SPLIT))
    assert found.goal_w_m == goal
    assert found.context == dict(zip(family.context.names, context, strict=True))


def rows(label, returns, success, seed=0, rollouts=10, sweep=MAIN, scale=1.0):
    """Rows of one run; `returns` and `success` of the mean policy are (steps + 1, tasks).

    The stochastic one earns 1 less and succeeds half as often.
    """
    explored = np.subtract(returns, 1).tolist(), np.divide(success, 2).tolist()
    found = dict(zip(ACTORS, ((returns, success), explored), strict=True))
    return [
        Row(label, seed, SPLIT, f"t/{i}", sweep, rollouts, scale, step, actor, earned, solved)
        for actor, (returns, success) in found.items()
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
    np.testing.assert_array_equal(found[10], [[5, 7], [7, 9]])
    np.testing.assert_array_equal(references(table, "success", split=SPLIT)["expert"], [1, 1])


def test_the_verdict_names_the_better_one_and_by_how_much(table):
    said = verdict(table, SPLIT)
    assert ranking(table, SPLIT) == ["good", "bad"]
    assert said.startswith(
        "After 10 episodes on each of the 2 validation tasks (one step of each method), "
        "good succeeds in 88%. "
    )
    assert "bad succeeds in 25%: 62 points less (95% interval" in said
    assert "do not settle" in said  # two tasks are few
    assert "The expert, who is told the task, succeeds in 100%." in said


def test_the_verdict_says_when_nothing_is_settled():
    tie = [
        *rows("a", [[0, 0], [1, 0]], [[0, 0], [1, 0]]),
        *rows("b", [[0, 0], [0, 1]], [[0, 0], [0, 1]]),
    ]
    assert "0 points less (95% interval -100 to 100), which these runs do not settle" in verdict(
        tie, SPLIT
    )


@pytest.mark.parametrize(
    ("ours", "theirs", "behind"),
    [
        ([[3, 0, 3]], [[0, 3, 0]], 1),  # one task in three the other way
        ([[5, 9, 7]], [[5, 9, 7]], 0),
        ([[0.1] * 3, [4.1] * 3], [[0] * 3, [4] * 3], 0.1),  # seeds fare otherwise, tasks do not
    ],
    ids=["tasks", "alike", "seeds"],
)
def test_a_mean_that_is_ahead_settles_nothing_where_the_interval_holds_zero(ours, theirs, behind):
    failed = [[0] * 3] * 2
    both = [
        row
        for label, runs in (("a", ours), ("b", theirs))
        for seed, earned in enumerate(runs)
        for row in rows(label, [[0] * 3, earned], failed, seed)
    ]
    said = verdict(both, SPLIT)
    assert f": {behind:.1f} less (95% interval " in said
    assert said.endswith("which these runs do not settle.")


def test_few_tasks_settle_no_small_difference_in_success():
    """Three tasks in which one always succeeds and the other nearly: others may be otherwise."""
    always, nearly = [[0] * 3, [1] * 3], [[0] * 3, [0.9] * 3]
    both = [*rows("a", always, always), *rows("b", always, nearly)]
    said = verdict(both, SPLIT)
    assert "b succeeds in 90%: 10 points less (95% interval -" in said
    assert said.endswith("which these runs do not settle.")
    [line] = differences(both).body
    assert line[2].startswith("0.10 [-")


def test_where_success_ties_the_return_decides():
    tie = [*rows("a", [[0], [9]], [[0], [1]]), *rows("b", [[0], [7]], [[0], [1]])]
    assert "b succeeds in 100%, and earns 7.0: 2.0 less" in verdict(tie, SPLIT)


def test_where_no_method_succeeds_the_return_decides():
    lost = [*rows("a", [[0], [3]], [[0], [0]]), *rows("b", [[0], [1]], [[0], [0]])]
    lost += reference("expert", [9], [1])
    assert "a earns 3.0. b earns 1.0: 2.0 less" in verdict(lost, SPLIT)


def test_who_is_told_the_task_is_named_and_competes_with_nobody(table):
    oracle = f"oracle{TOLD}"
    told = [*table, *rows(oracle, [[9, 11]] * 2, [[1, 1]] * 2, rollouts=1)]
    assert ranking(told, SPLIT) == ["good", "bad"]
    said = verdict(told, SPLIT)
    assert "good succeeds in 88%. bad succeeds in 25%: 62 points less" in said
    assert "oracle (told the context) succeeds in 100%. The expert" in said
    assert all("oracle" not in line[0] for line in differences(told).body)
    for found in tables(told, SPLIT):
        assert all("oracle" not in line[0] or line[0].startswith(oracle) for line in found.body)
    alone = [row for row in told if row.label == oracle]
    assert verdict(alone, SPLIT).endswith("oracle (told the context) succeeds in 100%.")


def differences(table):
    return next(each for each in tables(table, SPLIT) if each.caption.startswith("Differences"))


def test_what_methods_were_told_is_a_table(table):
    page = markdown(Comparison("t", table, [], [{"run": "a"}], {}, {}, told={"good": "much"}))
    assert "What methods were told:" in page
    assert "| good | much |" in page


def test_in_what_the_trainings_differ_is_said_with_the_verdict(table, tmp_path):
    unlike = "The runs were not all trained on the same tasks."
    found = Comparison("t", table, [], [{"run": "a"}], {}, {}, caveat=unlike)
    said = f"{verdict(table, SPLIT)} {unlike}"
    assert f"\n{said}\n" in markdown(found)
    assert write_json(tmp_path / "t.json", found)["verdict"] == {SPLIT: said}
    assert replace(found, caveat="").said(SPLIT) == verdict(table, SPLIT)


@pytest.fixture
def uneven():
    """Steps of 20 episodes, of 5, of 8 and of 1; the last is measured up to 2 episodes only."""
    steps = [[0, 0], [3, 5], [4, 6], [5, 7], [9, 9]]
    solved = [[0, 0], [0, 0], [0, 1], [1, 1], [1, 1]]
    return [
        *rows("wide", steps[:3], [[0, 0], [0, 1], [0, 1]], rollouts=20),
        *rows("narrow", steps, solved, rollouts=5),
        *rows("odd", steps, solved, rollouts=8),
        *rows("single", steps[:3], solved[:3], rollouts=1),
        *reference("expert", [9, 11], [1, 1]),
    ]


def test_the_verdict_compares_equal_episodes(uneven):
    # After 20 episodes "narrow" has taken four steps, "odd" two (16), "single" its last (2).
    assert equal_budget(uneven, SPLIT) == 20
    said = verdict(uneven, SPLIT)
    assert said.startswith(
        "After 20 episodes on each of the 2 validation tasks (one step of wide, four of narrow, "
        "two of odd with 16 episodes, two of single with 2 episodes), narrow succeeds in 100%. "
    )
    assert "odd succeeds in 50%: 50 points less" in said
    assert ranking(uneven, SPLIT)[0] == "narrow"
    after = after_equal_episodes(uneven, "narrow", "episode_return", SPLIT)
    np.testing.assert_array_equal(after, [[9, 9]])
    assert milestones(uneven, SPLIT)["narrow"] == (0, 20, 20)
    assert milestones(uneven, SPLIT)["wide"] == (0, 20, 40)
    alone = [row for row in uneven if row.label == "narrow"]
    assert verdict(alone, SPLIT).startswith("After 5 episodes on each of the 2 validation tasks (")
    assert "(one step of narrow)" in verdict(alone, SPLIT)


def test_a_cell_is_empty_where_nothing_was_measured(uneven):
    found = {each.caption: each for each in tables(uneven, SPLIT)}
    counts = "20 a step of wide, 5 a step of narrow, 8 a step of odd, 1 a step of single"
    columns = ["method", *map(str, (0, 1, 2, 5, 8, 20, 32, 40))]
    seeds = found[f"Per seed, success of the mean policy, by episodes on the new task ({counts})"]
    assert seeds.header == [columns[0], "seed", *columns[1:]]
    assert seeds.body == [
        ["wide", "0", "0.00", "", "", "", "", "0.50", "", "0.50"],
        ["narrow", "0", "0.00", "", "", "0.00", "", "1.00", "", ""],
        ["odd", "0", "0.00", "", "", "", "0.00", "", "1.00", ""],
        ["single", "0", "0.00", "0.00", "0.50", "", "", "", "", ""],
    ]
    apart = found[
        f"Differences in success of the mean policy, by episodes on the new task ({counts})"
    ]
    [line] = [line for line in apart.body if line[0] == "narrow - wide"]
    assert [bool(cell) for cell in line[1:]] == [each in (0, 20) for each in map(int, columns[1:])]
    gap = found[
        "Gap to the expert in return (Theorem 4.1), mean policy, by episodes on the new task "
        f"({counts})"
    ]
    # The expert earns 9 and 11; "single" earns 4 and 6 after its second episode.
    assert gap.body[3] == ["single", "10.0 [9.0, 11.0]", "6.0", "5.0", "", "", "", "", ""]
    entry = next(
        each for each in summary(uneven) if (each["label"], each["episodes"]) == ("odd", 16)
    )
    assert entry["step"] == 2


def test_areas(table):
    # "bad" has means 0 2 3 3 after 0, 10, 20, 30 episodes; an expert earns 10, random actions 0.
    found = areas(table, "bad", SPLIT)
    assert found["return"] == pytest.approx((1 + 2.5 + 3) / 3)
    assert found["regret"] == pytest.approx(10 - 6.5 / 3)
    assert found["share"] == pytest.approx((30 - 6.5) / 30)


def test_what_is_no_share_is_left_out(table, tmp_path):
    """Of a regret that even random actions do not have; NaN is no JSON."""
    alike = [row for row in table if row.actor != REFERENCE]
    for name in ("expert", "random actions"):
        alike += reference(name, [9, 11], [1, 1])
    found = areas(alike, "bad", SPLIT)
    assert found == pytest.approx({"return": 6.5 / 3, "regret": 10 - 6.5 / 3})
    write_json(tmp_path / "t.json", Comparison("t", alike, [], [{"run": "a"}], {}, {}))
    json.loads((tmp_path / "t.json").read_text(), parse_constant=pytest.fail)
    assert "(regret)" in markdown(Comparison("t", alike, [], [{"run": "a"}], {}, {}))


def test_the_gap_to_the_expert_is_in_return_and_paired_by_task(table):
    # Whose tasks earn 9 and 11; "bad" 1 and 3 after a step: the same gap in both.
    assert gaps(table, "bad", SPLIT)[10] == (8, 8, 8)
    found = gaps(table, "good", SPLIT)[10]
    assert found.mean == 3
    assert found.low == 2
    assert found.high == 4
    assert gaps([row for row in table if row.label != "expert"], "bad", SPLIT) == {}


def test_the_return_lost_while_adapting_is_that_of_the_episodes_spent(uneven):
    """Experts earn 9 and 11; the first K episodes of all methods earn -1 -1, the next K 2 4."""
    np.testing.assert_array_equal(meanwhile(uneven, "narrow", SPLIT)[5], [[-1, -1]])
    np.testing.assert_array_equal(meanwhile(uneven, "narrow", SPLIT)[10], [[0.5, 1.5]])
    assert list(lost(uneven, "narrow", SPLIT)) == [5, 10, 15, 20]
    assert lost(uneven, "narrow", SPLIT)[10].mean == 10 * (10 - 1)
    assert lost(uneven, "single", SPLIT)[2].mean == 2 * (10 - 1)
    assert lost(uneven, "wide", SPLIT)[20] == (220, 200, 240)
    [shown] = [each for each in tables(uneven, SPLIT) if "lost while adapting" in each.caption]
    assert shown.header == ["method", *map(str, (1, 2, 5, 8, 20, 32, 40))]
    assert shown.body[3] == ["single", "11.0 [10.0, 12.0]", "18.0 [17.0, 19.0]", *[""] * 5]
    [*_, plain] = plain_tables(uneven, SPLIT)
    assert plain.body[3] == ["single", "exploring", "11.0", "18.0", *[""] * 5]


def test_without_an_expert_the_return_while_adapting_is_shown(uneven):
    alone = [row for row in uneven if row.label == "narrow"]
    assert lost(alone, "narrow", SPLIT) == {}
    [shown] = [each for each in tables(alone, SPLIT) if "spent while adapting" in each.caption]
    assert shown.body == [["narrow", "-1.0", "1.0 [0.5, 1.5]", *shown.body[0][3:]]]


def test_areas_end_where_all_methods_were_measured(table):
    thrifty = rows("thrifty", [[0, 0]] * 4, [[0, 0]] * 4, rollouts=4)
    assert area_budget(table, SPLIT) == 30
    assert area_budget([*table, *thrifty], SPLIT) == 12
    # Up to 12 of 10 episodes a step, "bad" has gone one step and a fifth of the next.
    found = areas([*table, *thrifty], "bad", SPLIT)["regret"]
    assert found == pytest.approx((10 * (10 + 8) / 2 + 2 * (8 + 7.8) / 2) / 12)


def test_the_verdict_of_methods_of_one_episode_is_after_all_that_were_measured():
    short = rows("short", [[0], [3], [9]], [[0], [0], [1]], rollouts=1)
    longer = rows("longer", [[0], [3], [7], [9]], [[0], [0], [0], [1]], rollouts=1)
    both = [*short, *longer]
    assert equal_budget(both, SPLIT) == 2
    assert verdict(both, SPLIT).startswith(
        "After 2 episodes on each of the 1 validation tasks (two steps of each method), short "
        "succeeds in 100%. longer succeeds in 0%"
    )
    assert equal_budget([*both, *rows("k", [[0]] * 2, [[0]] * 2, rollouts=3)], SPLIT) == 3
    assert not adaptation(both).axes[0].child_axes  # steps are episodes


@pytest.mark.parametrize(
    ("curves", "columns"),
    [
        ([(20, 5)], [0, 20, 40, 60, 80, 100]),
        ([(20, 10)], [0, 20, 40, 60, 100, 200]),
        ([(1, 12)], [0, 1, 2, 3, 5, 10, 12]),
        ([(1, 40)], [0, 1, 2, 5, 10, 20, 40]),
        ([(20, 2), (1, 10)], [0, 1, 2, 5, 10, 20, 40]),
        ([(20, 10), (5, 10)], [0, 5, 10, 20, 50, 100, 200]),
    ],
)
def test_tables_show_every_count_or_those_that_matter(curves, columns):
    measured = [At(k, step, k * step) for k, last in curves for step in range(last + 1)]
    assert shown_episodes(measured) == columns


def test_a_page_has_the_tables_and_a_row_per_seed(table):
    page = markdown(
        Comparison("t", table, [], [{"run": "good-0", "steps": 1200, "expert": 0, "x": ""}], {}, {})
    )
    assert page.count("| good | 0 |") == page.count("| good | 1 |") == 2
    # (1 - u)^2 = 0.025 for u = 0.84; returns have no bounds.
    solved = "1.00 [0.16, 1.00]"
    assert f"| good | 0.00 [0.00, 0.84] | 0.88 [0.14, 1.00] | {solved} | {solved} |" in page
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
    shown = captions[
        "Success of the mean policy against episodes a step, by episodes on the new task"
    ]
    assert shown.header == ["method", "episodes a step", "0", "5", "20"]
    zero, half = "0.00 [0.00, 0.84]", "0.50 [0.00, 1.00]"
    assert shown.body == [["bad", "5", zero, half, ""], ["bad", "20", zero, "", half]]
    write_rows(tmp_path / "t.csv", [*table, *swept])
    contexts = [TaskContext(f"t/{i}", SPLIT, {"a": i}, ()) for i in range(2)]
    write_contexts(tmp_path / "p.csv", contexts)
    drawn = pictures(tmp_path / "t.csv", tmp_path / "p.csv")
    assert set(drawn) == {
        *("evaluation", "sweep-rollouts"),
        *(f"map-{SPLIT}", f"tasks-{SPLIT}"),
    }
    axes = drawn["sweep-rollouts"].axes[1]
    lines = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
    assert lines["bad, K = 10"] == [[0, 0], [10, 2], [20, 3], [30, 3]]
    assert lines["bad, K = 5"] == [[0, 0], [5, 5]]
    assert lines["bad, K = 20"] == [[0, 0], [20, 20]]


def test_plots_are_against_episodes_with_steps_above(table, uneven):
    for drawn, k in ((adaptation(table), 10), (adaptation(uneven), None)):
        axes = drawn.axes[1]
        assert axes.get_xlabel() == "episodes on the new task"
        above = [child for child in axes.child_axes if child.get_xlabel() == "adaptation steps"]
        assert len(above) == (k is not None)
    ticks = [
        label.get_text() for label in adaptation(table).axes[0].child_axes[0].get_xticklabels()
    ]
    assert ticks == ["0", "1", "2", "3"]
    narrow = adaptation(uneven).axes[1].lines[2]
    assert narrow.get_xdata().tolist() == [0, 5, 10, 15, 20]


def test_every_task_has_a_line(table):
    contexts = [TaskContext(f"t/{i}", SPLIT, {"a": i / 2}, ()) for i in range(2)]
    found = task_table(table, contexts, SPLIT)
    assert found.header[2:5] == ["bad, 0", "bad, 10", "bad, 30"]
    assert found.body[1][:5] == ["t/1", "0.5", "0% / 0.0", "50% / 3.0", "100% / 4.0"]


@pytest.mark.parametrize(
    ("goals", "axis"), [([(5, 0), (5, 0)], "leg"), ([(5, 0), (5, 1)], "goal x, m")]
)
def test_a_goal_that_all_tasks_share_is_no_map_of_them(goals, axis, table):
    contexts = [TaskContext(f"t/{i}", SPLIT, {"leg": i}, goal) for i, goal in enumerate(goals)]
    [*_, last] = task_map(table, contexts, SPLIT).axes[:-1]
    assert last.get_xlabel() == axis
