"""Plans: what they say, what is wrong with them, and one carried out."""

import errno
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from short_run import DEMOS, NUM_TASKS, Stops, options_of, trained_in

from demokit.errors import DemokitError
from gmps.comparison.asked import Asked
from gmps.comparison.campaign import Campaign, _looks_of_expert, _put_by, is_finished
from gmps.comparison.cli_compare import _carry_out_all, _in_words
from gmps.comparison.estimate import Cost, _Watch, estimate
from gmps.comparison.evaluated_run import EvaluatedRun, Facts
from gmps.comparison.foreseen import Foreseen
from gmps.comparison.plan import PlannedRun, arguments, load_plan
from gmps.comparison.processes import Command, run_side_by_side
from gmps.comparison.report import Table, _markdown
from gmps.comparison.results import _budgets, _comparison, _line, _told, write_results
from gmps.experience.demos import load_demos
from gmps.method import method_names
from gmps.methods.imitation import MultiTaskImitationOptions
from gmps.problem import Spent
from gmps.runs.checkpoint import load, load_with_digest, save
from gmps.shipped import PLANS, shipped

PLAN = f"""
title = "A small plan"
seeds = [3, 4]
text = "Made by a test."

[evaluate]
adapt-steps = 1
num-tasks = 2

[methods.gmps]
about = "Meta-learned."

[methods.imitation]
train = {{ method = "imitation", steps = 50 }}

[datasets.point]
env = "point"
tasks = {NUM_TASKS}
episodes-per-task = {DEMOS}

[comparisons.dense]
demos = "point"
about = "With the dense reward."
train = {{ demos_per_task = {DEMOS}, iterations = 2, outer_steps = 1, rollouts_per_task = 3 }}

[comparisons.sparse]
demos = "point"
methods = ["imitation"]
train = {{ reward = "sparse", demos_per_task = {DEMOS}, iterations = 5, rollouts_per_task = 3 }}
"""


@pytest.fixture
def plan(tmp_path):
    path = tmp_path / "plan.toml"
    path.write_text(PLAN)
    return path


@pytest.fixture(scope="module")
def carried_out(tmp_path_factory, invoke):
    """Where one seed of the small plan's sparse comparison was carried out, and what was said."""
    folder = tmp_path_factory.mktemp("carried out")
    (folder / "plan.toml").write_text(PLAN)
    places = ("--output-dir", folder / "out", "--page", folder / "docs" / "results.md")
    asked = ("compare", folder / "plan.toml", *places, "--num-seeds", 1, "--only", "sparse")
    return folder, invoke(*asked, "--archive", folder / "archive").output


def test_every_method_and_seed_is_a_run(plan):
    found = load_plan(plan).trainings("dense")
    assert list(found) == ["gmps-3", "gmps-4", "imitation-3", "imitation-4"]
    options = MultiTaskImitationOptions(
        seed=4, steps=50, demos_per_task=DEMOS, iterations=2, rollouts_per_task=3, threads=1
    )
    assert found["imitation-4"] == PlannedRun("imitation", options)
    assert found["gmps-3"].options.outer_steps == 1  # imitation has none
    assert list(load_plan(plan).trainings("sparse")) == ["imitation-3", "imitation-4"]


def test_options_are_typed_as_a_person_would(plan):
    planned = load_plan(plan).trainings("sparse")["imitation-3"]
    typed = arguments({**planned.typed(), "dagger": False, "split": ["a", "b"]})
    assert typed[:2] == ["--method", "imitation"]
    assert "--reward sparse" in " ".join(typed)
    assert "--steps 50" in " ".join(typed)
    assert typed[-5:] == ["--no-dagger", "--split", "a", "--split", "b"]


def test_how_far_an_evaluation_goes_may_be_said_in_episodes(plan):
    plan.write_text(PLAN + "evaluate = { episodes = 20 }\n")
    assert load_plan(plan).evaluation("dense") == {"adapt-steps": 1, "num-tasks": 2}
    assert load_plan(plan).evaluation("sparse") == {"episodes": 20, "num-tasks": 2}


def test_a_row_that_is_named_like_a_method_is_that_method(plan):
    rows = "".join(f"[methods.{name}]\n" for name in ("replay", "context-search", "oracle"))
    plan.write_text(PLAN + rows)
    found = load_plan(plan).trainings("dense")
    assert (found["replay-3"].method, found["oracle-4"].method) == ("replay", "oracle")
    # Options of all count where a method has them.
    assert found["replay-3"].options.demos_per_task == DEMOS
    assert found["context-search-3"].options.rollouts_per_task == 3


def test_options_of_a_file_stand_under_those_of_the_plan(plan, tmp_path):
    preset = tmp_path / "preset.toml"
    preset.write_text("steps = 7\nouter-lr = 0.5\n[gmps]\ninner-lr = 1\n")
    plan.write_text(PLAN.replace('"imitation",', f'"imitation", config = "{preset}",'))
    found = load_plan(plan).trainings("dense")["imitation-3"].options
    assert (found.outer_lr, found.steps) == (0.5, 50)


def test_tables_of_a_file_and_of_the_plan_for_one_method_both_count(plan, tmp_path):
    preset = tmp_path / "preset.toml"
    preset.write_text("[imitation]\nhidden-width = 7\nouter_stride = 5\n")
    named = f'iterations = 2, config = "{preset}", imitation = {{ hidden_width = 9 }},'
    plan.write_text(PLAN.replace("iterations = 2,", named))
    options = load_plan(plan).trainings("dense")["imitation-3"].options
    assert (options.hidden_width, options.outer_stride) == (9, 5)


def test_a_comparison_s_file_counts_beside_a_method_s(plan, tmp_path):
    ours, theirs = tmp_path / "method.toml", tmp_path / "comparison.toml"
    ours.write_text("outer-lr = 0.5\niterations = 3\n")
    theirs.write_text("outer-lr = 0.1\ndiscount = 0.5\n[gmps]\ninner-lr = 0.7\n")
    plan.write_text(
        PLAN.replace('"imitation",', f'"imitation", config = "{ours}",').replace(
            "iterations = 2,", f'iterations = 2, config = "{theirs}",'
        )
    )
    found = load_plan(plan).trainings("dense")
    both, one = found["imitation-3"].options, found["gmps-3"].options
    assert one.inner_lr == 0.7
    assert (both.outer_lr, both.discount, both.iterations) == (0.5, 0.5, 3)
    assert (one.outer_lr, one.discount, one.iterations) == (0.1, 0.5, 2)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seeds", "sedes", "did you mean 'seeds'"),
        ("about", "abuot", "did you mean 'about'"),
        ("demos = ", "demo = ", "did you mean 'demos'"),
        ('demos = "point"', 'demos = "piont"', "did you mean 'point'"),
        ('["imitation"]', '["imitate"]', "did you mean 'imitation'"),
        ("steps = 50", "stesp = 50", "did you mean 'steps'"),
        ('reward = "sparse"', 'reward = "sprase"', "is none of"),
        ("seeds = [3, 4]", "seeds = []", "needs seeds"),
        ("title", "[title", "not valid TOML"),
        ("seeds = [3, 4]", "seeds = 3", "seeds must be"),
        ("seeds = [3, 4]", "seeds = [3, 3]", "each seed once"),
        ("steps = 50", "steps = '50'", "steps must be"),
        ("steps = 50", "dagger = true", "option of imitation"),
        ("steps = 50", "seed = 1", "leave out seed"),
        ("steps = 50", "config = 3", "config must be"),
        ('env = "point"', 'env = "point"\ntaskz = 2', "did you mean 'tasks'"),
        ("adapt-steps = 1", "adept-steps = 1", "adapt-steps"),
        ("adapt-steps = 1", "adapt-steps = 0", "evaluate: Invalid value for '--adapt-steps'"),
        ("adapt-steps = 1", 'split = ["bogus"]', "evaluate: Invalid value for '--split'"),
        ('env = "point"', 'env = "point"\nnoise = "much"', "datasets.point: Invalid value"),
        # What cannot be evaluated is not trained.
        ("adapt-steps = 1", "adapt-steps = 1\nepisodes = 3", "not both"),
        ("adapt-steps = 1", "episodes = 2", "one adaptation step of gmps, which takes 3"),
        ("adapt-steps = 1", "episodes = 9\nrollouts = [3, 10]", "which takes 10"),
        ("adapt-steps = 1", 'adapt-steps = 1\ntask-set = "unifrom"', "did you mean 'uniform'"),
        ("adapt-steps = 1", 'adapt-steps = 1\ntask-set = "ood"', "split of task set 'ood'"),
        ("adapt-steps = 1", 'adapt-steps = 1\nexpert = "no/such"', "evaluate: No checkpoint"),
        ("adapt-steps = 1", 'adapt-steps = 1\nexpert = "scirpted"', "did you mean 'scripted'"),
        ("adapt-steps = 1", 'adapt-steps = 1\nreward = "sparse-paper"', "Unknown reward of point"),
        ("steps = 50", 'steps = 50, reward = "sparse"', "gmps-4 learns from the dense reward"),
        ('env = "point"', 'env = "point"\nexpert = "no/such"', "'dense', expert: No checkpoint"),
        (
            f'env = "point"\ntasks = {NUM_TASKS}\nepisodes-per-task = {DEMOS}',
            'path = "no/such.hdf5"',
            "'dense', demos: There is no dataset at no/such.hdf5",
        ),
        (
            '"Meta-learned."',
            '"M"\ntrain = { dagger = true, expert = "no/such" }',
            "expert: No checkpoint at no/such",
        ),
        ("adapt-steps = 1", 'output-dir = "x"', "evaluate: output-dir is set by `compare`"),
        ("adapt-steps = 1", "jobs = 3", "evaluate: jobs is set by `compare` itself"),
        ('env = "point"', 'env = "point"\nout = "x"', "datasets.point: out is set by"),
        ('env = "point"', 'env = "point"\noverwrite = true', "overwrite is set by"),
        # Names of files.
        ("[methods.gmps]", '[methods."a/b"]', "methods: 'a/b' names files"),
        ("[methods.gmps]", '[methods.".."]', "methods: '..' names files"),
        ("[comparisons.sparse]", '[comparisons."../../x"]', "comparisons: '../../x' names files"),
        ("[datasets.point]", '[datasets."../point"]', "datasets: '../point' names files"),
        # What is no table, or no key.
        ("[methods.gmps]", "[[methods]]", "methods must be a table"),
        ("train = { method", "train = { imitation = 3, method", "Unknown option of imitation"),
        (
            "iterations = 2,",
            "iterations = 2, gmps = 3,",
            "Unknown option (comparison 'dense') 'gmps'",
        ),
        ("steps = 50", "gmsp = { steps = 50 }", "did you mean 'gmps'"),
        ("iterations = 2,", "iterations = 2, maml = { iteratoins = 3 },", "'iterations'"),
        ("iterations = 2,", "iterations = 2, maml = { iterations = 'a' },", "of type int"),
        ("iterations = 2,", "iterations = 2, gmps = { seed = 3 },", "leave out seed"),
        ("seeds = [3, 4]", "seeds = [3, 4]\nscale = nan", "Unknown key"),
        ("seeds = [3, 4]", "seeds = [3, 4]\nscale = 1.0", "Unknown key"),
    ],
)
def test_a_wrong_plan_is_one_sentence(plan, tmp_path, invoke, old, new, message):
    assert old in PLAN
    plan.write_text(PLAN.replace(old, new))
    result = invoke("compare", plan, "--output-dir", tmp_path / "out", "--dry-run", exit_code=1)
    assert message in result.output
    assert len(result.output.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("demonstrations = 1", "learns a new task from rewards alone (oracle)"),
        ("step-scale = 0.5", "adapts without step sizes (oracle)"),
        ('task-set = "unifrom"', "did you mean 'uniform'"),
        ('split = "ood"\ntask-set = "uniform"', "split of task set 'uniform'"),
    ],
)
def test_a_comparison_that_cannot_be_evaluated_is_one_sentence(plan, invoke, option, message):
    lines = f"[comparisons.sparse.evaluate]\n{option}\n[methods.oracle]\n"
    plan.write_text(PLAN.replace('["imitation"]', '["imitation", "oracle"]') + lines)
    assert "record" in invoke("compare", plan, "--only", "dense", "--dry-run").output
    said = invoke("compare", plan, "--dry-run", exit_code=1).output
    assert "comparison 'sparse', evaluate: " in said
    assert message in said
    assert len(said.strip().splitlines()) == 1


def test_runs_of_a_dataset_that_is_there_are_foreseen_too(plan, point_demos, invoke):
    own = f'path = "{point_demos}"\n'
    recorded = PLAN[PLAN.index('env = "point"') : PLAN.index("[comparisons.dense]")]
    wrong = PLAN.replace("adapt-steps = 1", 'adapt-steps = 1\ntask-set = "unifrom"')
    plan.write_text(wrong.replace(recorded, own))
    said = invoke("compare", plan, "--dry-run", exit_code=1).output
    assert "did you mean 'uniform'" in said


def test_every_method_says_which_learner_it_loads():
    for name in method_names():
        facts = SimpleNamespace(method=name)
        kind = Foreseen(Path(f"{name}-0"), facts).learner_kind
        assert kind is not None
        assert hasattr(kind, "exploiter")


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("methods = 3", "methods must be a table, not 3"),
        ("methods = [1]", "methods must be a table"),
        ('comparisons = "x"', "comparisons must be a table, not 'x'"),
        ("datasets = 3", "datasets must be a table"),
        ("datasets = { point = 3 }", "datasets.point must be a table, not 3"),
        ('datasets = { point = "a path" }', "datasets.point must be a table"),
        ("datasets = { point = { path = 3 } }", "path must be of type str, not 3"),
        ('datasets = { point = { path = "x", env = "point" } }', "key beside path"),
    ],
)
def test_a_section_that_is_no_table_is_one_sentence(tmp_path, section, message):
    path, name = tmp_path / "plan.toml", section.split()[0]
    content = {
        "methods": "methods = { gmps = {} }",
        "datasets": 'datasets = { point = { env = "point" } }',
        "comparisons": 'comparisons = { c = { demos = "point" } }',
    }
    path.write_text("\n".join({**content, name: section}.values()))
    with pytest.raises(DemokitError) as raised:
        load_plan(path)
    assert message in str(raised.value)
    assert str(path) in str(raised.value)


def test_an_unknown_comparison_is_one_sentence(plan, invoke):
    result = invoke("compare", plan, "--only", "desne", exit_code=1)
    assert "did you mean 'dense'" in result.output


def test_a_dry_run_prints_the_commands(plan, tmp_path, invoke):
    out = tmp_path / "out"
    result = invoke("compare", plan, "--output-dir", out, "--num-seeds", 1, "--dry-run")
    lines = result.output.splitlines()
    assert [line.split()[1] for line in lines] == [
        *("record", "meta-train", "meta-train", "evaluate"),
        *("record", "meta-train", "evaluate"),
    ]
    assert "--method imitation" in lines[2]
    assert not out.exists()


def test_a_plan_is_carried_out_and_nothing_is_done_twice(plan, carried_out, invoke):
    folder, said = carried_out
    out, page = folder / "out", folder / "docs" / "results.md"
    asked = ("compare", plan, "--output-dir", out, "--page", page, "--num-seeds", 1)
    assert Campaign(load_plan(plan), out, page, jobs=1, num_seeds=1).trained("sparse") == 100
    text = page.read_text()
    assert text.startswith("# A small plan\n\nMade by a test.\n")
    assert "- **gmps**: Meta-learned.\n" in text
    assert "| sparse | imitation | " in text
    assert "| sparse | *expert* | 1.00 |" in text
    found = json.loads((out / "sparse/comparison/evaluation.json").read_text())
    assert f"sparse: {found['verdict']['validation']}\n" in said
    [run] = found["runs"]
    assert "Gap to the experts" in text
    assert f"| sparse | imitation | {run['demonstrations']:,} |" in text
    needed = run["demonstrations"] + run["meta-training"]
    budget = f"| {run['demonstrations']:,} | 0 | {run['meta-training']:,} |"
    assert f"{budget} {run['choice of step size']:,} | {run['monitoring']:,} | {needed:,} |" in text
    assert "## sparse: point, sparse reward, 2 validation tasks" in text
    assert "![sparse](results-sparse.png)" in text
    assert (page.parent / "results-sparse.png").exists()
    assert "![sparse](results-sparse-learning.png)" in text
    assert (page.parent / "results-sparse-learning.png").exists()
    assert "sparse/comparison/report.html" in (out / "index.html").read_text()
    left = invoke(*asked, "--dry-run").output.splitlines()
    assert [line.split()[1] for line in left] == [
        *("meta-train", "meta-train", "evaluate"),
    ]
    assert "Nothing is left" in invoke(*asked, "--only", "sparse", "--dry-run").output
    plan.write_text(PLAN.replace("steps = 50", "steps = 51"))
    again = invoke(*asked, "--only", "sparse", exit_code=1)
    assert "trained with other options" in again.output
    plan.write_text(PLAN.replace("[datasets.point]", "[datasets.other]").replace(
        'demos = "point"', 'demos = "other"'
    ))  # fmt: skip
    again = invoke(*asked, "--only", "sparse", exit_code=1)
    assert "trained with other demonstrations" in again.output
    plan.write_text(PLAN.replace('env = "point"', 'env = "point"\nseed = 9'))
    again = invoke(*asked, "--only", "sparse", exit_code=1)
    assert "seed" in (out / "point.log").read_text()


OF_TASKS = """
title = "From reward"

[evaluate]
adapt-steps = 1
num-tasks = 2

[methods.maml]

[methods.imitation]

[comparisons.reward]
tasks = { env = "point", task-set = "uniform", tasks = 3 }
methods = ["maml"]
train = { iterations = 1, rollouts_per_task = 3, hidden_width = 8 }
"""


def test_tasks_alone_will_do_for_methods_that_learn_by_reward(tmp_path, invoke):
    path, out, page = tmp_path / "plan.toml", tmp_path / "out", tmp_path / "results.md"
    path.write_text(OF_TASKS)
    asked = ("compare", path, "--output-dir", out, "--page", page, "--archive", tmp_path / "kept")
    said = invoke(*asked, "--dry-run").output
    assert "meta-train --env point --task-set uniform --tasks 3" in said
    invoke(*asked)
    assert "| reward | maml |" in page.read_text()
    assert invoke(*asked, "--dry-run").output == "Nothing is left to do.\n"
    # A curve of another checkpoint goes when a run is put by, one of the same stays.
    run = tmp_path / "kept" / "reward" / "maml-0"
    facts = (run / "facts.json").read_text()
    for checkpoint, stays in ((json.loads(facts)["checkpoint"], True), ("another", False)):
        told = {**json.loads(facts), "checkpoint": checkpoint}
        (run / "facts.json").write_text(json.dumps(told))
        (run / "curves" / "older.csv.gz").write_bytes(b"")
        invoke(*asked)
        assert (run / "curves" / "older.csv.gz").exists() == stays
    assert (run / "facts.json").read_text() == facts
    path.write_text(OF_TASKS.replace("tasks = 3", "tasks = 4"))
    assert "trained with other demonstrations or tasks" in invoke(*asked, exit_code=1).output


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('["maml"]', '["imitation"]', "imitation learns from demonstrations, not from tasks alone"),
        ('methods = ["maml"]', "", "imitation learns from demonstrations, not from tasks alone"),
        ("task-set =", "task-sett =", "did you mean 'task-set'"),
        ('env = "point", ', "", "env is missing"),
        ('env = "point"', 'env = "piont"', "did you mean 'point'"),
        ("tasks = 3", "tasks = 0", "tasks: Invalid value for '--tasks'"),
        ("tasks = {", 'demos = "point"\ntasks = {', "needs demos or tasks, one of them"),
        ('tasks = { env = "point", task-set = "uniform", tasks = 3 }', "", "demos or tasks, one"),
    ],
)
def test_wrong_tasks_are_one_sentence(tmp_path, invoke, old, new, message):
    path = tmp_path / "plan.toml"
    assert old in OF_TASKS
    path.write_text(OF_TASKS.replace(old, new))
    result = invoke("compare", path, "--output-dir", tmp_path / "out", "--dry-run", exit_code=1)
    assert message in result.output
    assert len(result.output.strip().splitlines()) == 1


def test_a_page_of_an_older_evaluation_is_one_sentence(plan, tmp_path):
    folder = tmp_path / "sparse" / "comparison"
    folder.mkdir(parents=True)
    (folder / "evaluation.json").write_text('{"summary": [{"label": "gmps", "step": 1}]}')
    with pytest.raises(DemokitError, match="written by an older demokit"):
        write_results(load_plan(plan), tmp_path, tmp_path / "page.md")


def test_what_was_spent_is_told_in_parts_that_add_up():
    spent = Spent(1000, 4000, monitoring=700, tuning=300, experts={"a": 50, "b": 20})
    assert list(spent.parts().values()) == [1000, 70, 4000, 300, 700]
    assert spent.needed == 1000 + 70 + 4000
    older = Spent(undivided=9000, experts={"all": 70})
    assert older.parts() == {"expert's training": 70, "not told apart": 9000}
    archive = Path(__file__).parents[3] / "docs/results/push-sparse/gmps-0"
    told = EvaluatedRun(archive, Facts.of(archive)).budget()
    assert told["not told apart"] == 1_760_000
    assert told["demonstrations"] == told["needed to learn"] == ""


def test_who_is_told_the_task_is_named_so_beside_what_it_took():
    archive = Path(__file__).parents[3] / "docs/inference/push/oracle-0"
    took = EvaluatedRun(archive, Facts.of(archive)).budget()
    older = {name: value for name, value in took.items() if name != "label"}
    found = {"push": {"runs": [took]}, "older": {"runs": [older]}}
    *_, ours, before, _ = _budgets(found)
    assert ours.startswith("| push | oracle (told the context) | 10,000 |")
    assert before.startswith("| older | oracle | 10,000 |")


def test_no_two_pictures_of_a_page_have_one_name(tmp_path):
    """Whatever comparisons are called; each shows what was drawn of it."""
    names = ("x", "x-learning", "x-evaluation", "x-learning-evaluation", "x-learning-learning")
    plan = SimpleNamespace(comparisons=dict.fromkeys(names, SimpleNamespace(about="")))
    (tmp_path / "report.md").write_text("## t\n")
    for name in names:
        for what in ("evaluation", "learning"):
            (tmp_path / f"{what}.png").write_text(f"{what} of {name}")
        list(_comparison(plan, name, tmp_path, tmp_path / "page.md"))
    shown = [path.read_text() for path in tmp_path.glob("page-*.png")]
    assert len({*shown}) == len(shown) == 2 * len(names)
    assert (tmp_path / "page-x-learning.png").read_text() == "learning of x"


def test_a_run_without_iterations_has_come_to_its_end(tmp_path):
    """As multitask's reference of random parameters."""
    path = tmp_path / "plan.toml"
    path.write_text(
        'title = "t"\nseeds = [0]\ntext = ""\n[methods.nothing]\nabout = "a"\n'
        'train = { method = "multitask", iterations = 0 }\n'
        '[comparisons.c]\ntasks = { env = "point", tasks = 3 }\nmethods = ["nothing"]\n'
    )
    campaign = Campaign(load_plan(path), tmp_path / "out", tmp_path / "page.md", 1, None, None)
    assert campaign.trained("c") == 0
    run = tmp_path / "out" / "c" / "nothing-0"
    run.mkdir(parents=True)
    (run / "metrics.csv").write_text("iteration,env_steps\n0,10\n")
    assert campaign.trained("c") == 100


def test_a_method_that_is_told_differently_here_and_there_has_a_row_for_each():
    told = {"a": {"m": "the dense reward", "n": "all"}, "b": {"m": "nothing", "n": "all"}}
    lines = [*_told({name: {"told": words} for name, words in told.items()})]
    assert lines[1:-1] == [
        "| method | told | in |",
        "| --- | --- | --- |",
        "| m | the dense reward | a |",
        "| n | all |  |",
        "| m | nothing | b |",
    ]


def test_a_run_underway_goes_on_with_as_many_iterations_as_the_plan_has_now(point_demos, tmp_path):
    learned, options = Asked.of("demos", {"path": str(point_demos)}), options_of("imitation")
    with pytest.raises(KeyboardInterrupt):
        trained_in(tmp_path, load_demos(point_demos, DEMOS), "imitation", options, report=Stops(2))
    more = PlannedRun("imitation", replace(options, iterations=9))
    assert not is_finished(tmp_path, more, learned)
    other = PlannedRun("imitation", replace(options, iterations=9, steps=51))
    with pytest.raises(DemokitError, match="trained with other options"):
        is_finished(tmp_path, other, learned)
    trained_in(tmp_path, load_demos(point_demos, DEMOS), "imitation", options, resume=True)
    with pytest.raises(DemokitError, match="trained with other options"):
        is_finished(tmp_path, more, learned)


def test_what_is_archived_is_not_trained_again(plan, carried_out, tmp_path, invoke):
    folder, _ = carried_out
    kept = (folder / "out/sparse/imitation-3/learning.csv").read_text()
    assert (folder / "archive/sparse/imitation-3/learning.csv").read_text() == kept
    places = ("--output-dir", tmp_path / "second", "--page", tmp_path / "results.md")
    once = ("--only", "sparse", "--num-seeds", 1, "--archive", folder / "archive")
    [line] = invoke("compare", plan, *places, *once, "--dry-run").output.splitlines()
    assert line.split()[1] == "evaluate"
    invoke("compare", plan, *places, *once)
    made, wanted = (each.read_text() for each in (places[-1], folder / "docs" / "results.md"))
    assert made == wanted


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ("noise = 0.0", "noise"),
        ("noise = 0.1", "noise"),
        (f"episodes-per-task = {DEMOS + 1}", "episodes-per-task"),
        (f"num-episodes = {DEMOS * NUM_TASKS}", "num-episodes"),
        ("only-success = true", "only-success"),
    ],
)
def test_an_archive_of_other_demonstrations_is_not_taken(change, what, plan, carried_out, tmp_path):
    archive, own = tmp_path / "archive", f"episodes-per-task = {DEMOS}"
    shutil.copytree(carried_out[0] / "archive", archive)
    kept = own if "episodes" not in change else ""
    plan.write_text(PLAN.replace(own, f"{kept}\n{change}"))
    campaign = Campaign(load_plan(plan), tmp_path / "out", tmp_path / "p.md", 1, 1, archive)
    with pytest.raises(DemokitError, match=rf"trained with other demonstrations \({what}\)"):
        campaign.left("sparse")
    # Archives that are older than this do not say it, and count as before.
    facts = archive / "sparse/imitation-3/facts.json"
    told = json.loads(facts.read_text())
    assert told.pop("recorded")["noise"] == 0.2
    facts.write_text(json.dumps(told))
    assert [each.arguments[0] for each in campaign.left("sparse")] == ["evaluate"]


REPLAYED = """
[methods.replay]

[comparisons.replayed]
demos = "point"
methods = ["replay"]
"""


def copied(carried_out, target, more=""):
    """The carried-out folder, to be damaged, and its campaign of a plan with `more`."""
    shutil.copytree(carried_out[0], target)
    (target / "plan.toml").write_text(PLAN + more)
    plan, page = load_plan(target / "plan.toml"), target / "docs" / "results.md"
    return Campaign(plan, target / "out", page, 1, 1, archive=target / "archive")


def test_a_folder_that_was_not_written_to_its_end_is_made_again(
    carried_out, tmp_path, monkeypatch, invoke
):
    """The page of another comparison is made without it; measuring again is not needed."""
    campaign = copied(carried_out, tmp_path / "all", more=REPLAYED)
    folder = campaign.folder / "sparse" / "comparison"

    def full(*_args):
        raise OSError(errno.ENOSPC, "No space left on device", "a.png")

    run = campaign.folder / "sparse" / "imitation-3"
    again = ("evaluate", run, "--output-dir", folder, "--adapt-steps", 1, "--num-tasks", 2)
    with monkeypatch.context() as patch:
        patch.setattr("gmps.comparison.folder.save", full)
        assert "the disk is full" in invoke(*again, exit_code=1).output
    assert not (folder / "evaluation.json").exists()
    assert write_results(campaign.plan, campaign.folder, campaign.page) == []
    assert _carry_out_all(campaign, ["sparse"]) == {}
    assert write_results(campaign.plan, campaign.folder, campaign.page) == ["sparse"]
    (folder / "report.md").unlink()
    assert "report.md" in _carry_out_all(campaign, ["replayed", "sparse"])["replayed"]


def evaluation_of(plan, out, jobs=1):
    """Campaign, and what it has left of the evaluation of the small plan's sparse comparison."""
    campaign = Campaign(load_plan(plan), out, out / "page.md", jobs, 1)
    return campaign, [each for each in campaign.left("sparse") if each.arguments[0] != "record"]


def changed_checkpoint(_plan, out):
    checkpoint = out / "sparse/imitation-3/checkpoint.safetensors"
    trained, state = load(checkpoint)
    save(checkpoint, replace(trained, spent=Spent(1)), state)


CHANGES = {
    "settings": lambda plan, out: plan.write_text(PLAN.replace("num-tasks = 2", "num-tasks = 3")),
    "seeds": lambda plan, out: plan.write_text(PLAN.replace("[3, 4]", "[4, 3]")),
    "checkpoint": changed_checkpoint,
    "page": lambda plan, out: (out / "sparse/comparison/report.html").write_text("mine"),
    "figure": lambda plan, out: (out / "sparse/comparison/evaluation.png").unlink(),
    "folder": lambda plan, out: shutil.rmtree(out / "sparse/comparison"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_an_evaluation_is_done_until_something_of_it_changes(plan, evaluated, change):
    assert evaluation_of(plan, evaluated, jobs=2)[1] == []
    change(plan, evaluated)
    assert "evaluate" in [each.arguments[0] for each in evaluation_of(plan, evaluated)[1]]


@pytest.fixture
def evaluated(plan, carried_out, tmp_path, monkeypatch):
    """The carried-out folder, which may be damaged, with its evaluation known to be done."""
    monkeypatch.setattr("gmps.comparison.processes.run_until", lambda *_: "")
    shutil.copytree(carried_out[0] / "out", tmp_path / "out")
    run_side_by_side(evaluation_of(plan, tmp_path / "out")[1], 1)
    return tmp_path / "out"


def test_an_evaluation_that_another_process_has_done_meanwhile_is_not_done_again(
    plan, evaluated, monkeypatch
):
    (stamp := evaluated / "sparse" / "comparison.done").rename(evaluated / "aside")
    [command] = evaluation_of(plan, evaluated)[1]
    (evaluated / "aside").rename(stamp)
    monkeypatch.setattr("gmps.comparison.processes.run_until", lambda *_: "it was run")
    assert run_side_by_side([command], 1) == ({}, [])


def test_what_failed_or_was_stopped_is_not_done(plan, evaluated, monkeypatch):
    (evaluated / "sparse" / "comparison.done").unlink()
    for why in ("it failed", None):
        monkeypatch.setattr("gmps.comparison.processes.run_until", lambda *_, why=why: why)
        run_side_by_side(evaluation_of(plan, evaluated)[1], 1)
        assert len(evaluation_of(plan, evaluated)[1]) == 1


def test_another_file_of_the_expert_makes_an_evaluation_undone(tmp_path):
    expert = tmp_path / "expert.safetensors"
    assert _looks_of_expert({}) == _looks_of_expert({"expert": str(expert)}) == []
    expert.write_bytes(b"one")
    one = _looks_of_expert({"expert": str(expert)})
    expert.write_bytes(b"other")
    assert _looks_of_expert({"expert": str(expert)}) != one != []


def test_a_dataset_that_somebody_changed_is_recorded_again(plan, carried_out, tmp_path):
    out = carried_out[0] / "out"
    campaign = Campaign(load_plan(plan), out, tmp_path / "page.md", 1, 1)
    assert campaign.left("sparse") == []
    os.utime(out / "point.hdf5")
    [command] = campaign.left("sparse")
    assert command.arguments[0] == "record"
    assert run_side_by_side([command], 1).failed == {}
    assert campaign.left("sparse") == []


def test_an_archive_is_whole_at_any_time(carried_out, tmp_path, monkeypatch):
    source, target = (tmp_path / "all" / part / "sparse/imitation-3" for part in ("out", "archive"))
    copied(carried_out, tmp_path / "all")
    facts = target / "facts.json"
    facts.write_text(facts.read_text().replace(Facts.of(target).checkpoint, "0" * 64))
    old = {path.name: path.read_bytes() for path in target.rglob("*.*")}

    def full(*_args, **_more):
        raise OSError(errno.ENOSPC, "No space left on device", str(target))

    with monkeypatch.context() as patch:
        patch.setattr("shutil.copytree", full)
        with pytest.raises(DemokitError, match="as it was"):
            _put_by(source, target, {})
    assert {path.name: path.read_bytes() for path in target.rglob("*.*")} == old
    shutil.rmtree(target / "curves")
    _put_by(source, target, {})
    assert Facts.of(target) == Facts.of(source)
    curves = {path.name for path in (source / "curves").iterdir()}
    assert curves == {path.name for path in (target / "curves").iterdir()}


def test_labels_of_strangers_are_no_markup_of_a_page():
    hostile = "<img src=x>|[a](javascript:b)"
    for line in (_line([hostile]), _markdown(Table("c", ["h"], [[hostile]])).splitlines()[-1]):
        assert line == r"| &lt;img src=x>\|[a]\(javascript:b) |"


def test_an_estimate_leaves_a_dataset_as_it_is(carried_out, tmp_path, invoke):
    """Also where the plan wants more of it by now."""
    copied(carried_out, tmp_path / "all")
    plan, demos = tmp_path / "all" / "plan.toml", tmp_path / "all" / "out" / "point.hdf5"
    before = demos.read_bytes()
    plan.write_text(
        PLAN.replace(f"episodes-per-task = {DEMOS}", f"episodes-per-task = {DEMOS + 1}")
    )
    small = ("--num-seeds", 1, "--only", "sparse", "--estimate")
    invoke("compare", plan, "--output-dir", demos.parent, *small)
    assert demos.read_bytes() == before


def test_who_waits_reads_a_checkpoint_again_only_where_it_is_another(
    plan, carried_out, tmp_path, monkeypatch
):
    out, reads = tmp_path / "out", []

    def counted(path):
        reads.append(path)
        return load_with_digest(path)

    shutil.copytree(carried_out[0] / "out", out)
    monkeypatch.setattr("gmps.comparison.evaluated_run.load_with_digest", counted)
    campaign = Campaign(load_plan(plan), out, tmp_path / "page.md", jobs=1, num_seeds=1)
    for _ in range(3):
        assert len(campaign.left("sparse")) == 2
    checkpoint = out / "sparse/imitation-3/checkpoint.safetensors"
    assert reads == [checkpoint]
    os.utime(checkpoint, ns=(0, 0))
    campaign.left("sparse")
    assert reads == [checkpoint] * 2


def test_what_fails_is_said_and_the_rest_is_done(tmp_path):
    commands = [
        Command("bad", ("record", "--env", "piont"), tmp_path / "bad.log"),
        Command("good", ("envs",), tmp_path / "good.log"),
    ]
    failed = run_side_by_side(commands, 2).failed
    assert list(failed) == ["bad"]
    assert "did you mean 'point'" in failed["bad"]
    assert "push" in (tmp_path / "good.log").read_text()


def test_interrupting_ends_what_runs(tmp_path):
    def interrupt():
        raise KeyboardInterrupt

    commands = [Command(str(i), ("envs",), tmp_path / f"{i}.log") for i in range(5)]
    with pytest.raises(KeyboardInterrupt):
        run_side_by_side(commands, 1, interrupt)
    assert not (tmp_path / "4.log").exists()


OF_FIVE_SEEDS = {
    *("push", "push-sparse", "door", "arm-torque"),
    *("point", "point-coded", "point-rotated", "point-corner", "sliders"),
}
OF_ONE_SEED = {"push-rotated", "ant-sparse"}
"""What is archived of docs/inference.toml."""
OF_TASKS_AND_DEMONSTRATIONS = {
    *("point-5", "point-20", "point-100", "push-1-demo", "push-3-demos", "push-10-demos"),
    *("push-clean", "push-clean-kl", "push-noisy"),
    *(f"{family}-{num}" for family in ("arm-torque", "sliders") for num in (5, 20, 100, 500)),
}


ARCHIVES = {"fig6": "results", "exploration-fig2": "meta_exploration"}
"""Where what plans share is archived."""


@pytest.mark.parametrize(
    ("name", "seeds", "names"),
    [
        *(("results", 5, None), ("ant_sparse", 3, None)),
        *(("inference", 5, OF_FIVE_SEEDS), ("inference", 3, {"push-vision"})),
        *(("inference", 2, {"ant"}), ("inference", 1, OF_ONE_SEED)),
        *(("maml", 1, {"point-squared"}), ("fig6", 5, None)),
        ("model_based", 3, {"point-rotated", "push-dynamics"}),
        *(("one_demonstration", 1, None), ("inference_ablation", 1, {"point", "door"})),
        ("inference_tasks", 1, OF_TASKS_AND_DEMONSTRATIONS),
        *(("exploration-fig2", 1, {"corners"}), ("fig3", 1, {"push"})),
    ],
)
def test_the_shipped_archive_has_every_run_of_the_shipped_plan(tmp_path, name, seeds, names):
    docs = Path(__file__).parents[3] / "docs"
    known = {name: docs / f"{name}.toml", **shipped(PLANS)}
    plan = load_plan(known[name])
    archive = docs / ARCHIVES.get(name, name)
    campaign = Campaign(plan, tmp_path, tmp_path / "page.md", 2, seeds, archive=archive)
    for each in campaign.chosen(names or ()):
        assert [command.arguments[0] for command in campaign.left(each)] == ["evaluate"]
        assert campaign.trained(each) == 100 * len(campaign.plan.trainings(each))


DOCS = Path(__file__).parents[3] / "docs"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"env": "door"}, "other task families"),
        ({"tasks": 3}, "other training tasks"),
        ({"seed": 77}, "other training tasks"),
        ({"task-set": "corners"}, "Unknown task set"),
        ({"reward": "sparse"}, "other rewards"),
        ({"observation": "vision"}, "other observations"),
    ],
    ids=str,
)
def test_an_archive_of_something_else_is_not_taken(change, message, tmp_path, monkeypatch):
    monkeypatch.chdir(DOCS.parent)
    plan = load_plan(DOCS / "inference.toml")
    other = {**plan.datasets, "point": {**plan.datasets["point"], **change}}
    campaign = Campaign(
        replace(plan, datasets=other), tmp_path, tmp_path / "page.md", 1, 1, DOCS / "inference"
    )
    with pytest.raises(DemokitError, match=message):
        campaign.left("point")


@pytest.mark.parametrize("path", sorted(DOCS.glob("*.toml")), ids=lambda path: path.stem)
def test_every_plan_of_the_documentation_can_be_carried_out(path, tmp_path, monkeypatch):
    monkeypatch.chdir(DOCS.parent)
    plan = load_plan(path)
    campaign = Campaign(plan, tmp_path, tmp_path / "page.md", 2)
    for name in campaign.chosen(()):
        assert {command.arguments[0] for command in campaign.left(name)} <= {
            "record",
            "meta-train",
            "evaluate",
        }
        assert len(plan.trainings(name)) >= len(plan.seeds)


def test_a_scaled_plan_has_fewer_seeds_then_shorter_trainings(plan):
    half, tenth = load_plan(plan).scaled(0.5), load_plan(plan).scaled(0.1)
    assert (half.seeds, half.scale) == ((3,), 1.0)
    assert (tenth.seeds, tenth.scale) == ((3,), 0.2)
    found = tenth.trainings("dense")
    assert list(found) == ["gmps-3", "imitation-3"]
    # 2 iterations, of which a fifth is less than one; imitation's steps of an iteration stay.
    assert found["imitation-3"].options.iterations == 1
    assert found["imitation-3"].options.steps == 50
    assert half.trainings("sparse")["imitation-3"].options.iterations == 5
    assert tenth.trainings("sparse")["imitation-3"].options.iterations == 1
    assert tenth.evaluation("sparse")["num-tasks"] == 2  # no more than there were
    plan.write_text(PLAN.replace("num-tasks = 2", ""))
    assert "num-tasks" not in load_plan(plan).scaled(0.1).evaluation(
        "dense"
    )  # as many as there are
    plan.write_text(PLAN.replace("num-tasks = 2", "num-tasks = 40"))
    assert load_plan(plan).scaled(0.1).evaluation("dense")["num-tasks"] == 8


def test_every_shipped_plan_is_sound(tmp_path, invoke):
    listed = invoke("compare", "--list").output
    assert shipped(PLANS)
    for name, path in shipped(PLANS).items():
        assert name in listed
        lines = invoke("compare", "--plan", name, "--output-dir", tmp_path, "--dry-run").output
        plan = load_plan(path)
        assert lines.count("demokit evaluate") == len(plan.comparisons)
        # Scaled, it has fewer tasks than it says: all that there are would not be fewer.
        assert all("num-tasks" in plan.scaled(0.1).evaluation(each) for each in plan.comparisons)


def test_a_preset_goes_by_its_name(plan):
    plan.write_text(PLAN.replace('"imitation",', '"imitation", config = "ant",'))
    assert load_plan(plan).trainings("sparse")["imitation-3"].options.tuning_tasks == 10
    plan.write_text(PLAN.replace('"imitation",', '"imitation", config = "bee",'))
    with pytest.raises(DemokitError, match="bee is no file, and none of the presets that come"):
        load_plan(plan).trainings("sparse")


@pytest.mark.parametrize("asked", [(), ("--plan", "fig6", "PLAN")])
def test_one_plan_is_asked_for(plan, invoke, asked):
    typed = [plan if each == "PLAN" else each for each in asked]
    assert "one of them" in invoke("compare", *typed, exit_code=2).output


def test_an_estimate_is_what_the_run_takes(plan, carried_out, tmp_path, invoke, monkeypatch):
    out, small, costs = tmp_path / "out", ("--num-seeds", 1, "--only", "sparse"), []

    def seen(cost):
        costs.append(cost)
        return _in_words(cost)

    monkeypatch.setattr("gmps.comparison.cli_compare._in_words", seen)
    asked = ("compare", plan, "--output-dir", out, *small)
    said = invoke(*asked, "--dry-run", "--estimate").output
    assert not out.exists()
    # What is left to do comes first, then what it takes.
    commands, _, table = said.partition("Each seed takes")
    left = [line.split()[1] for line in commands.splitlines() if line.startswith("demokit ")]
    assert left == ["record", "meta-train", "evaluate"]
    found = carried_out[0] / "out/sparse/comparison/evaluation.json"
    [run] = json.loads(found.read_text())["runs"]
    # Imitation asks nothing of the simulator before its step size is chosen.
    assert f"{run['demonstrations']:,}" in table
    assert "1 seeds: 0.0 hours" in table
    folder = carried_out[0] / "out/sparse/imitation-3"
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    # A run that goes on keeps the two moments of its optimiser, too.
    assert size / 2 < costs[0].size < 4 * size


def test_methods_whose_names_have_dots_are_told_apart(tmp_path, monkeypatch):
    path, out = tmp_path / "plan.toml", tmp_path / "out"
    names = ("maml-lr0.5", "maml-lr0.7")
    rows = "".join(f'[methods."{name}"]\ntrain = {{ method = "maml" }}\n' for name in names)
    path.write_text(OF_TASKS.replace("[methods.maml]", rows).replace('["maml"]', str([*names])))
    campaign = Campaign(load_plan(path), out, tmp_path / "results.md", 1)
    trainings = [each for each in campaign.left("reward") if each.run]
    assert [each.log for each in trainings] == [out / f"reward/{name}-0.log" for name in names]

    def trained(command, *_):
        command.run.mkdir(parents=True)
        (command.run / "metrics.csv").write_text("iteration,env_steps\n0,70\n")
        return ""

    monkeypatch.setattr("gmps.comparison.estimate.run_until", trained)
    found = estimate(campaign, "reward", lambda done: None)
    assert {name: cost.env_steps for name, cost in found.items()} == dict.fromkeys(names, 70)


def test_what_a_little_training_says_of_all_of_it(tmp_path):
    """The rest takes as long as what was seen: five iterations in ten seconds."""
    table = tmp_path / "metrics.csv"
    rows = (f"{i},{100 * (i + 1)}" for i in range(6))
    table.write_text("\n".join(["iteration,env_steps", *rows, ""]))
    watch = _Watch(table, 11, begun=0.0, seen=[(10.0, 1), (20.0, 6)])
    assert watch.cost(7) == Cost(env_steps=1100, seconds=30, size=7)
    watch.seen.clear()
    with pytest.raises(DemokitError, match="too few iterations in 120 s"):
        watch.cost(7)


def test_one_iteration_says_what_two_take(tmp_path, monkeypatch):
    table = tmp_path / "metrics.csv"
    table.write_text("iteration,env_steps\n0,100\n")
    watch = _Watch(table, 2, begun=0.0)
    monkeypatch.setattr("gmps.comparison.estimate.time.monotonic", lambda: 61.0)
    assert not watch.is_enough()
    assert watch.cost(7) == Cost(env_steps=200, seconds=122, size=7)
    table.write_text("iteration,env_steps\n0,100\n1,150\n")
    assert watch.is_enough()  # there are no more
