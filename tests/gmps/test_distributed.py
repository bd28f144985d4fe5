"""Two processes train as one does; one that dies ends the run, and it can be resumed."""

import csv
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from devices import DEVICE
from short_run import (
    PLANNING,
    REMEMBERING,
    REWARDED,
    SHORT,
    SHORT_DPT,
    SHORT_IMITATION,
    SHORT_INFERENCE,
    SHORT_MEMORY,
    SHORT_PEARL,
    SHORT_PLANNING,
    SHORT_REWARD,
)

from demokit.data import open_dataset
from demokit.learning.checkpoint import load_checkpoint
from gmps.distributed import ALONE, WHOLE, Part, World

RUN = (*SHORT, "--outer-steps", "5", "--eval-every", "2")
IMITATION = (*SHORT_IMITATION, "--outer-stride", "3", "--tuning-tasks", "1")
TOLERANCE = 1e-5
OF_CONJUGATE_GRADIENTS = 2e-3
"""They amplify rounding: of a Hessian of thousands of unknowns by 180 samples, a lot."""


def command(num, demos, folder, *options):
    if DEVICE == "cuda" and num > torch.cuda.device_count():
        pytest.skip("every process takes a GPU of its own")
    started = (sys.executable, "-m")
    if num > 1:
        started = (*started, "torch.distributed.run", "--nproc-per-node", str(num), "-m")
    whole = {"imitation", "task-inference", "dpt", *REWARDED}
    every = options if whole & {*options} else (*RUN, *options)
    given = ("--demos", demos, "--output-dir", folder, *every)
    return [*started, "demokit", "meta-train", *map(str, given)]


def short_of(name):
    if name == PLANNING:
        return SHORT_PLANNING
    if name == "pearl":
        return SHORT_PEARL
    return SHORT_MEMORY if name in REMEMBERING else SHORT_REWARD


def trained(num, demos, folder, *options):
    """Train in `num` processes; returns what was printed."""
    done = subprocess.run(command(num, demos, folder, *options), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def scalars(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        rows = [[float(value) for value in row.values()] for row in csv.DictReader(file)]
    return np.array(rows)


def require_same(folder, other, tolerance=TOLERANCE):
    """Metrics and what was learned to 1e-5, everything else but the state exactly."""
    np.testing.assert_allclose(scalars(folder), scalars(other), rtol=tolerance, atol=tolerance)
    (found, header), (wanted, its) = (
        load_checkpoint(each / "checkpoint.safetensors") for each in (folder, other)
    )
    assert header == its
    assert found.keys() == wanted.keys()
    learned = [name for name in wanted if name.startswith("learner.")]
    assert learned
    for name in learned:
        torch.testing.assert_close(found[name], wanted[name], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param((), marks=pytest.mark.slow),
        pytest.param(("--method", "gmps-latent"), marks=pytest.mark.slow),
        pytest.param(IMITATION, marks=pytest.mark.slow),
        pytest.param(SHORT_INFERENCE, marks=pytest.mark.slow),
        pytest.param(SHORT_DPT, marks=pytest.mark.slow),
        *(
            pytest.param(("--method", name, *short_of(name)), marks=pytest.mark.slow)
            for name in REWARDED
        ),
    ],
)
def test_two_processes_train_as_one_does(point_demos, tmp_path, options):
    """Three tasks: one process has two of them, the other one."""
    one, two = tmp_path / "one-0", tmp_path / "two-0"
    trained(1, point_demos, one, *options)
    said = trained(2, point_demos, two, *options)
    assert said.count("environment steps") == 1
    solves = {"maml", "e-maml", "maesn", "multitask"} & {*options}
    require_same(two, one, OF_CONJUGATE_GRADIENTS if solves else TOLERANCE)
    assert len(list((two / "tensorboard").iterdir())) == 1


@pytest.mark.slow
def test_queries_are_complete_and_the_same(point_demos, tmp_path):
    one, two = tmp_path / "one-0", tmp_path / "two-0"
    # The first steps of Adam are as long for rounding as for gradients.
    options = ("--dagger", "--dagger-every", "1", "--dagger-mixing", "0.5", "--outer-lr", "2e-5")
    for num, folder in ((1, one), (2, two)):
        trained(num, point_demos, folder, *options)
    require_same(two, one)
    with open_dataset(one / "aggregated.hdf5") as a, open_dataset(two / "aggregated.hdf5") as b:
        assert [(e.task, e.seed, e.options) for e in a] == [(e.task, e.seed, e.options) for e in b]
        for mine, others in zip(a, b, strict=True):
            np.testing.assert_allclose(mine.observations, others.observations, atol=TOLERANCE)


@pytest.mark.slow
def test_images_are_sharded_too(tmp_path, invoke):
    demos = tmp_path / "push.hdf5"
    invoke(
        *("record", "--env", "push", "--observation", "vision", "--tasks", "2"),
        *("--episodes-per-task", "2", "--out", demos),
    )
    options = ("--iterations", "1", "--outer-steps", "1", "--outer-stride", "7")
    for num in (1, 2):
        trained(num, demos, tmp_path / f"{num}-0", *options, "--tuning-tasks", "1")
    # Before the step only: after it a pixel, a whole number, may differ, and contacts amplify that.
    before = slice(1, 6)
    np.testing.assert_allclose(
        scalars(tmp_path / "2-0")[:, before], scalars(tmp_path / "1-0")[:, before], rtol=TOLERANCE
    )


def test_a_process_that_dies_ends_the_run_and_it_can_be_resumed(point_demos, tmp_path):
    whole, cut = tmp_path / "whole-0", tmp_path / "cut-0"
    trained(2, point_demos, whole)
    long = subprocess.Popen(
        command(2, point_demos, cut, "--resume"), stderr=subprocess.PIPE, text=True
    )
    while not (cut / "metrics.csv").exists():
        time.sleep(0.01)
    os.kill(children(long.pid)[1], signal.SIGKILL)
    _, said = long.communicate(timeout=60)
    assert long.returncode != 0
    assert said.count("Error: Another process of this run was lost") == 1
    assert "--resume continues it" in said
    alone = tmp_path / "alone-0"
    shutil.copytree(cut, alone)
    trained(1, point_demos, alone, "--resume")
    require_same(alone, whole)
    trained(2, point_demos, cut, "--resume")
    assert (cut / "metrics.csv").read_text() == (whole / "metrics.csv").read_text()
    found, wanted = (load_checkpoint(f / "checkpoint.safetensors") for f in (cut, whole))
    assert found[1] == wanted[1]
    assert all(torch.equal(found[0][name], value) for name, value in wanted[0].items())


def children(pid):
    """The processes that torchrun has started, in the order of their ranks."""
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return sorted(map(int, file.read().split()))


@pytest.mark.slow
def test_what_is_wrong_is_told_once(point_demos, tmp_path):
    done = subprocess.run(
        command(4, point_demos, tmp_path / "run"), capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert done.stderr.count("4 processes for 3 tasks: start at most 3.") == 1


@pytest.mark.parametrize(("size", "num_tasks"), [(1, 5), (2, 5), (3, 7), (4, 4), (5, 2)])
def test_parts_are_all_tasks_each_once(size, num_tasks):
    parts = [World(rank, size).part(num_tasks) for rank in range(size)]
    counted = [list(range(num_tasks))[part.own] for part in parts if part.weight]
    assert [task for own in counted for task in own] == list(range(num_tasks))
    assert sum(part.weight for part in parts) == pytest.approx(1)
    assert max(map(len, counted)) - min(map(len, counted)) <= 1
    assert all(range(num_tasks)[part.own] for part in parts)


def test_values_are_spread_over_all_tasks():
    part = Part(World(1, 3), 4, slice(2, 3), 0.25)
    assert part.spread(torch.ones(1, 2)).tolist() == [[0, 0], [0, 0], [1, 1], [0, 0]]
    surplus = World(4, 5).part(2)
    assert surplus.weight == 0
    assert not surplus.spread(torch.ones(1)).any()


def test_a_process_that_is_alone_sends_nothing():
    values = torch.ones(3)
    assert WHOLE.gathered(values) is values
    assert WHOLE.averaged([], values) is values
    assert ALONE.gathered([1]) == [1]
    assert ALONE.from_main(lambda: 2) == 2
    assert not torch.distributed.is_initialized()
