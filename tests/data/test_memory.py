"""A file larger than the memory allowed for reading it: one episode at a time is held."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from demokit.data import ArraySpec
from demokit.data.edit import write_dataset

EPISODES, STEPS, WIDTH = 100, 1000, 5200
READ = r"""
import json, pathlib, re, sys
import numpy as np
from demokit.data import open_dataset
from demokit.data.summary import summarize

with open_dataset(sys.argv[1]) as dataset:
    steps = sum(len(episode) for episode in dataset)
    rows = [dataset.window(i, 500, 550)["observations"].shape for i in range(len(dataset))]
    for index in range(len(dataset)):
        dataset.verify(index)
summarize(dataset)
# Not getrusage: its maximum is that of the parent before exec, when that is greater.
status = pathlib.Path("/proc/self/status").read_text()
peak = int(re.search(r"VmHWM:\s+(\d+) kB", status).group(1)) / 1e3
print(json.dumps({"steps": steps, "rows": rows[0], "megabytes": peak}))
"""


@pytest.mark.slow
def test_two_gigabytes_are_read_in_little_memory(tmp_path, metadata, make_episode):
    space = ArraySpec((WIDTH,), "float32", -np.inf, np.inf)
    about = replace(metadata, horizon=STEPS, observation_space=space)
    large = np.random.default_rng(0).normal(size=(STEPS + 1, WIDTH)).astype(np.float32)
    episodes = (make_episode(i, steps=STEPS, observations=large) for i in range(EPISODES))
    path = tmp_path / "large.hdf5"
    write_dataset(path, about, episodes, EPISODES)
    assert path.stat().st_size > 2e9
    done = subprocess.run(
        [sys.executable, "-c", READ, str(path)], capture_output=True, text=True, check=True
    )
    path.unlink()
    found = json.loads(done.stdout)
    assert found["steps"] == EPISODES * STEPS
    assert found["rows"] == [50, WIDTH]
    assert found["megabytes"] < 300
