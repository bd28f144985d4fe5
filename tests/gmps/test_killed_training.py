"""kill -9 in the middle of training, again and again: the run ends as one that was never hurt."""

import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from short_run import SHORT

from demokit.learning.checkpoint import load_checkpoint

KILLS = 10
ITERATIONS = 120


def start(demos, folder):
    options = (*SHORT, "--iterations", str(ITERATIONS), "--eval-every", "7", "--resume")
    command = (sys.executable, "-m", "demokit", "meta-train", "--demos", str(demos))
    return subprocess.Popen(
        [*command, "--output-dir", str(folder), *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def logged(folder):
    """How many iterations the table of the run has."""
    table = folder / "metrics.csv"
    return max(0, len(table.read_text().splitlines()) - 1) if table.exists() else 0


@pytest.mark.slow
def test_ten_kills_leave_no_trace(point_demos, tmp_path):
    whole = start(point_demos, tmp_path / "whole-0")
    assert whole.wait() == 0, whole.stderr.read().decode()
    rng = np.random.default_rng(0)
    folder = tmp_path / "killed-0"
    for moment in np.sort(rng.choice(np.arange(1, ITERATIONS - 5), KILLS, replace=False)):
        process = start(point_demos, folder)
        while logged(folder) < moment and process.poll() is None:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.03))
        assert process.poll() is None, "the run ended before it could be killed"
        process.kill()
        process.wait()
    last = start(point_demos, folder)
    assert last.wait() == 0, last.stderr.read().decode()
    expected, header = load_checkpoint(tmp_path / "whole-0" / "checkpoint.safetensors")
    found, its_header = load_checkpoint(folder / "checkpoint.safetensors")
    assert its_header == header
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert (folder / "metrics.csv").read_text() == (
        tmp_path / "whole-0" / "metrics.csv"
    ).read_text()
