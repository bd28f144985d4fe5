"""Commands end with who started them, keep their logs to themselves, and say why they failed."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from program import heed_hangups
from short_run import DEMOS, NUM_TASKS, SHORT

from demokit.errors import DemokitError
from gmps.comparison.measure import measure_piece
from gmps.comparison.pieces import done_in_pieces
from gmps.comparison.processes import Command, run_side_by_side

PATIENCE_S = 300

PLAN = f"""
title = "A long plan"
seeds = [0]

[methods.gmps]
train = {{ iterations = 100000, outer_steps = 1, rollouts_per_task = 3, demos_per_task = {DEMOS} }}

[datasets.point]
env = "point"
tasks = {NUM_TASKS}
episodes-per-task = {DEMOS}

[comparisons.dense]
demos = "point"
"""


def wait_for(condition):
    """Wait until a condition holds, which it does sooner or later; returns what it gave."""
    end = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return found


def ended(process):
    """Whether a process that is no child of ours has ended; one that nobody waited for has."""
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


def holder(folder):
    """The process that holds a folder, once there is one."""
    try:
        return int(json.loads((folder / ".lock").read_text())["process"])
    except (OSError, ValueError):
        return None


def comparing(plan, out, *options):
    command = (sys.executable, "-m", "demokit", "compare", plan, "--output-dir", out, *options)
    return subprocess.Popen(
        list(map(str, command)), stdout=subprocess.DEVNULL, preexec_fn=heed_hangups
    )


@pytest.fixture
def plan(tmp_path):
    path = tmp_path / "plan.toml"
    path.write_text(PLAN)
    return path


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGHUP, signal.SIGTERM])
def test_trainings_end_with_the_comparison_however_it_ends(plan, tmp_path, how):
    out = tmp_path / "out"
    process = comparing(plan, out)
    training = wait_for(lambda: holder(out / "dense" / "gmps-0"))
    process.send_signal(how)
    process.wait()
    wait_for(lambda: ended(training))
    if how != signal.SIGKILL:
        return
    # The same command goes on at once: nobody holds its folders.
    again = comparing(plan, out)
    try:
        wait_for(lambda: holder(out / "dense" / "gmps-0") not in (None, training))
        assert again.poll() is None
    finally:
        again.kill()
        again.wait()


MEASURING = """
import os, sys, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from gmps.comparison.pieces import begin

if __name__ == "__main__":
    context = get_context("spawn")
    with ProcessPoolExecutor(1, context, begin, (1, context.SimpleQueue())) as pool:
        print(pool.submit(os.getpid).result(), flush=True)
        time.sleep(1000)
"""


def test_processes_that_measure_end_with_the_evaluation(tmp_path):
    script = tmp_path / "measuring.py"
    script.write_text(MEASURING)
    process = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE)
    worker = int(process.stdout.readline())
    assert not ended(worker)
    process.kill()
    process.communicate()
    wait_for(lambda: ended(worker))


class Deadly:
    """Ends the process that it is sent to, as the system does."""

    def __reduce__(self):
        return signal.raise_signal, (signal.SIGKILL,)


def test_a_process_that_measures_and_was_killed_is_one_sentence():
    with pytest.raises(DemokitError, match="again with fewer --jobs; what is measured is kept"):
        list(done_in_pieces(measure_piece, [Deadly()] * 3, 2, lambda: None))


def test_a_job_that_was_killed_is_not_its_last_line_of_progress(point_demos, tmp_path):
    folder, log = tmp_path / "run", tmp_path / "run.log"
    options = (*SHORT, "--iterations", "100000", "--output-dir", folder)
    command = Command("run", ("meta-train", "--demos", str(point_demos), *map(str, options)), log)

    def kill():
        training = wait_for(lambda: holder(folder))
        wait_for(lambda: " of 100000" in log.read_text())
        os.kill(training, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    failed = run_side_by_side([command], 1).failed
    killer.join()
    assert failed == {"run": f"it was ended by signal 9, SIGKILL (see {log})"}


def test_a_log_that_somebody_still_writes_is_left_to_them(tmp_path):
    log = tmp_path / "command.log"
    with log.open("w") as theirs:
        failed = run_side_by_side([Command("bad", ("record", "--env", "piont"), log)], 1).failed
        print("saved 1 of 2 (0.1/s)", file=theirs, flush=True)
    said = "Unknown environment 'piont': did you mean 'point'?"
    assert failed["bad"].startswith(said)
    assert failed["bad"].endswith(f"(see {log})")
    assert "saved" not in log.read_text()


SHARED = f"""
title = "Two at once"
seeds = [0, 1]

[evaluate]
adapt-steps = 1
num-tasks = 2

[methods.imitation]
train = {{ iterations = 10, steps = 200, rollouts_per_task = 3, demos_per_task = {DEMOS} }}

[datasets.point]
env = "point"
tasks = {NUM_TASKS}
episodes-per-task = {DEMOS}

[comparisons.dense]
demos = "point"
"""


def test_two_in_one_folder_do_nothing_twice_and_take_over(tmp_path):
    plan, out = tmp_path / "plan.toml", tmp_path / "out"
    plan.write_text(SHARED)
    first = comparing(plan, out, "--jobs", "1")
    trained = wait_for(lambda: holder(out / "dense" / "imitation-0"))
    second = comparing(plan, out, "--jobs", "1")
    wait_for(lambda: holder(out / "dense" / "imitation-1"))
    assert holder(out / "dense" / "imitation-0") in (trained, None)
    first.kill()
    first.wait()
    assert second.wait(PATIENCE_S) == 0
    page = (out / "results.md").read_text()
    assert page.count("| dense | imitation | ") > 1
    for seed in range(2):
        metrics = (out / f"dense/imitation-{seed}/metrics.csv").read_text().splitlines()
        iterations = [line.split(",")[0] for line in metrics[1:]]
        assert len(set(iterations)) == len(iterations)
        assert (out / f"dense/imitation-{seed}/facts.json").exists()
