"""Task sets: the published values, disjoint splits, and errors that help."""

import numpy as np
import pytest

from demokit.envs import family_names, make_family
from demokit.envs.family import ContextSpace
from demokit.envs.point import Point
from demokit.envs.tasks import find_task, make_tasks, task_set_of, task_sets
from demokit.errors import DemokitError


@pytest.mark.parametrize(
    ("name", "first"), [("push", (0.012390842712626512, 0.7361439953750322)), ("door", None)]
)
def test_the_paper_sets_are_the_published_ones(name, first):
    family = make_family(name)
    for split in ("train", "validation"):
        tasks = make_tasks(family, "paper", split)
        assert len(tasks) == 20
        assert all(family.context.contains(np.array(task.context)) for task in tasks)
        assert tasks[3].id == f"{name}/paper/{split}/03"
    if first:
        assert make_tasks(family, "paper", "train")[0].context == first


FEW = ("ant-dir", "ant-dir-promp", "cheetah-dir", "cheetah-dir-100", "point-corner-2m")
"""Families of two directions, or of four corners."""
HOLDS_OUT = "cheetah-crippled"
CONTINUA = sorted(set(family_names()) - {*FEW, HOLDS_OUT})


@pytest.mark.parametrize("name", CONTINUA)
def test_splits_are_disjoint(name):
    family = make_family(name)
    contexts = [
        task.context
        for task_set, splits in task_sets(family).items()
        for split in splits
        for task in make_tasks(family, task_set, split)
    ]
    assert len(set(contexts)) == len(contexts) >= 60


@pytest.mark.parametrize("name", FEW)
def test_few_contexts_are_tasks_of_all_splits(name):
    family = make_family(name)
    every = {low for low, _ in family.context.regions}
    for task_set in ("paper", "uniform"):
        for split in ("train", "validation", "monitor"):
            tasks = make_tasks(family, task_set, split, num_tasks=len(every))
            assert {task.context for task in tasks} == every
        assert len(make_tasks(family, task_set, "monitor")) == len(every)


@pytest.mark.parametrize("task_set", ["paper", "uniform"])
def test_what_is_held_out_is_validations_alone(task_set):
    family = make_family(HOLDS_OUT)
    contexts = {
        split: [task.context for task in make_tasks(family, task_set, split)]
        for split in ("train", "validation", "monitor")
    }
    known = {low for low, _ in family.context.regions}
    assert set(contexts["train"]) == known
    assert sorted(contexts["monitor"]) == sorted(known)
    assert contexts["validation"] == [(0.0, 1.0, 1.0, 1.0, 1.0, 1.0)]
    assert not family.context.contains(np.array(contexts["validation"][0]))
    several = make_tasks(family, "uniform", "validation", num_tasks=3)
    assert [task.context for task in several] == 3 * contexts["validation"]
    assert len({task.id for task in several}) == 3


@pytest.mark.parametrize("name", CONTINUA)
def test_trainings_are_watched_by_tasks_of_their_distribution(name):
    family = make_family(name)
    for task_set in set(task_sets(family)) - {"ood"}:
        tasks = make_tasks(family, task_set, "monitor")
        assert len(tasks) == 20
        assert [task.split for task in tasks] == ["monitor"] * 20
        contexts = np.array([task.context for task in tasks])
        goals, physics = np.split(contexts, [family.context.width], axis=1)
        assert all(map(family.published.get(task_set, family.context).contains, goals))
        assert task_set != "dynamics" or all(map(family.dynamics.contains, physics))
        assert tasks[:7] == make_tasks(family, task_set, "monitor", num_tasks=7)
        assert make_tasks(family, task_set, "monitor", num_tasks=31)[:20] == tasks
        again = make_tasks(family, task_set, "monitor", seed=1)
        assert (again == tasks) == (task_set == "paper")


def test_a_set_of_another_paper_has_its_distribution():
    family = make_family("cheetah-vel")
    tasks = make_tasks(family, "maml", "train", num_tasks=200)
    assert tasks[3].id == "cheetah-vel/maml-0/train/03"
    assert find_task(family, tasks[3].id) == tasks[3]
    speeds = np.array([task.context[0] for task in tasks])
    assert 0 <= speeds.min() < 0.1
    assert 1.9 < speeds.max() <= 2.0
    others = make_tasks(family, "uniform", "train", num_tasks=200)
    assert max(task.context[0] for task in others) > 2.9


@pytest.mark.parametrize("task_set", ["two-rings", "uniform"])
def test_an_id_names_its_task_set(task_set, monkeypatch):
    """A learner is watched and judged by tasks of the set that it was trained on."""
    family = make_family("point")
    monkeypatch.setattr(type(family), "published", {"two-rings": family.context})
    for seed in (0, 7):
        task = make_tasks(family, task_set, "train", num_tasks=1, seed=seed)[0]
        assert task_set_of(family, task.id) == (task_set, seed)
        assert find_task(family, task.id) == task


@pytest.mark.parametrize(
    ("task_id", "named"),
    [
        ("push/paper/train/00", ("paper", 0)),
        ("push/paper-0/train/00", ("paper", 0)),
        ("push/mine-0/train/00", ("", 0)),
        ("push/uniform-²/train/00", ("", 0)),
        (f"push/uniform-{9 * '9' * 600}/train/00", ("", 0)),
        ("push", ("", 0)),
        ("", ("", 0)),
    ],
)
def test_an_id_of_a_file_names_what_there_is(task_id, named):
    assert task_set_of(make_family("push"), task_id) == named


def test_corners_take_turns():
    tasks = make_tasks(make_family("point-corner"), "paper", "train")
    corners = [tuple(np.sign(task.context)) for task in tasks]
    assert len(corners) == 40
    assert all(len(set(corners[i : i + 4])) == 4 for i in range(37))
    assert all(0.8 <= abs(c) <= 1.2 for task in tasks for c in task.context)


@pytest.mark.parametrize("name", family_names())
def test_ood_is_outside(name):
    family = make_family(name)
    if not family.context.ood_low:
        assert "ood" not in task_sets(family)
        return
    for task in make_tasks(family, "ood", "ood", num_tasks=50):
        context = np.array(task.context)
        assert not family.context.contains(context)
        assert (context >= family.context.ood_low).all()
        assert (context <= family.context.ood_high).all()


def test_draws_depend_on_the_seed_alone():
    family = make_family("point")
    a = make_tasks(family, "uniform", "train", num_tasks=5, seed=4)
    assert a == make_tasks(family, "uniform", "train", num_tasks=9, seed=4)[:5]
    assert a != make_tasks(family, "uniform", "train", num_tasks=5, seed=5)


@pytest.mark.parametrize(
    ("task_set", "split", "num", "message"),
    [
        ("papper", "train", None, "did you mean 'paper'"),
        ("paper", "validaton", None, "did you mean 'validation'"),
        ("paper", "train", 21, "has 20 train tasks, not 21"),
        ("uniform", "train", 0, "from 1 to 100,000 at once, not 0"),
        ("uniform", "train", 10**9, "from 1 to 100,000 at once, not 1,000,000,000"),
        ("ood", "train", None, "Unknown split"),
    ],
)
def test_errors_say_what_to_do(task_set, split, num, message):
    with pytest.raises(DemokitError, match=message):
        make_tasks(make_family("push"), task_set, split, num_tasks=num)


def space(low=(0.0, 0.0), high=(1.0, 1.0), ood=((), ()), **others):
    return ContextSpace(("a", "b"), ("m", "m"), low, high, *ood, **others)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ContextSpace(("a",), (), (0.0,), (1.0,)), "of one length, not 0: .* 1, 0, 1 and"),
        (lambda: ContextSpace((), (), (), ()), "of one length, not 0"),
        (lambda: space(low=(2.0, 0.0)), "low and high are"),
        (lambda: space(low=(np.nan, 0.0)), "2 finite numbers each"),
        (lambda: space(high=(np.inf, 1.0)), "2 finite numbers each"),
        (lambda: space(ood=((-1.0,), (2.0,))), "ood_low and ood_high are"),
        (lambda: space(ood=((-1.0, -1.0), ())), "ood_low and ood_high are"),
        (lambda: space(regions=(((0.0,), (1.0,)),)), "a region is"),
        (lambda: space(regions=(((0.0, 0.0), (1.0, 1.0), (1.0, 1.0)),)), "and not two bounds"),
        (lambda: space(regions=((0.0, 0.0), (1.0, 1.0))), "and not two bounds"),
        (lambda: space(low=("0", "0")), "2 finite numbers each"),
        (lambda: space(positive=True), "is positive: low and high .* not above 0"),
        (lambda: space(held_out=((0.0,),)), "a context that is held out"),
        (lambda: space(ood=((0.2, 0.2), (0.8, 1.0))), "lie within .*let them reach beyond"),
    ],
)
def test_distributions_that_are_none_are_refused(make, message):
    with pytest.raises(DemokitError, match=message):
        make()


def test_draws_out_of_distribution_end():
    halves = ((0.0, 0.0), (0.5, 1.0)), ((0.5, 0.0), (1.0, 1.0))
    covered = space(ood=((0.2, 0.2), (0.8, 0.8)), regions=halves)
    with pytest.raises(DemokitError, match="0 are out of distribution: widen them"):
        covered.sample_ood(np.random.default_rng(0), 2)


class Slippery(Point):
    """Its tasks set the dynamics, and none are out of distribution."""

    dynamics = ContextSpace(("mass",), ("kg",), (1.0,), (2.0,))
    nominal_dynamics = (1.0,)
    published = {"half-disc": ContextSpace(("a", "b"), ("m", "m"), (-1, -1), (0, 0))}  # noqa: RUF012


def test_dynamics_out_of_distribution_are_offered_where_there_are_some():
    assert task_sets(Slippery())["dynamics"] == ("train", "validation", "monitor")


def test_tasks_are_found_by_their_ids():
    (task,) = make_tasks(Slippery(), "half-disc", "train", num_tasks=1, seed=3)
    assert find_task(Slippery(), task.id) == task
    for name in ("9" * 5000, "-1", str(2**64)):
        with pytest.raises(DemokitError, match=r"There is no task|Unknown task set"):
            find_task(make_family("point"), f"point/uniform-{name}/train/00")
    with pytest.raises(DemokitError, match=r"seed of tasks is from 0 .* not -1"):
        make_tasks(make_family("point"), "uniform", "train", seed=-1)
