"""kill -9 of the real `demokit record`: what it reported as saved is there, and resuming works."""

import random
import subprocess
import sys
import time
from pathlib import Path

from demokit.data import open_dataset
from demokit.data.writer import staging_folder
from demokit.errors import DemokitError

DEMOKIT = str(Path(sys.executable).parent / "demokit")
EPISODES = 400
KILLS = 6


def command(path: Path, episodes: int = EPISODES, *more: str) -> list[str]:
    options = ["--num-episodes", str(episodes), "--batch-size", "16", "--tasks", "7"]
    return [DEMOKIT, "record", "--env", "point", "--out", str(path), *options, *more]


def saved_count(path: Path) -> int:
    try:
        return len(open_dataset(path))
    except DemokitError:
        return 0


def run_and_kill(path: Path, log: Path, rng: random.Random, trial: int) -> int:
    """Kill a recording at a random moment; returns the last count it reported as saved."""
    with log.open("w") as errors:
        process = subprocess.Popen(
            command(path, EPISODES, "--resume"), stdout=subprocess.DEVNULL, stderr=errors
        )
        if trial % 5 == 0:
            time.sleep(rng.uniform(0, 0.5))
        else:
            while process.poll() is None and "saved" not in log.read_text():
                time.sleep(0.002)
            time.sleep(rng.uniform(0, 0.08))
        process.kill()
        process.wait()
    # The last line may have been cut by the kill.
    lines = [line for line in log.read_text().split("\n")[:-1] if line.startswith("saved")]
    return int(lines[-1].split()[1]) if lines else 0


def test_kill_at_random_moments_then_resume(tmp_path):
    whole = tmp_path / "whole.hdf5"
    subprocess.run(command(whole), check=True, capture_output=True)
    expected = open_dataset(whole).episodes
    assert len(expected) == EPISODES

    rng = random.Random(7)
    path, log = tmp_path / "killed.hdf5", tmp_path / "log"
    before, kills = 0, 0
    while kills < KILLS:
        reported = run_and_kill(path, log, rng, kills)
        kills += 1
        now = saved_count(path)
        assert now >= max(before, reported)
        if path.exists():
            # It was faster than this test expects: go on with another recording.
            assert now == EPISODES
            path, now = tmp_path / f"killed{kills}.hdf5", 0
        elif now:
            dataset = open_dataset(path)
            assert dataset.unfinished
            for index in range(before, now):
                dataset.verify(index)
        before = now
    assert "Traceback" not in log.read_text()

    done = subprocess.run(command(path, EPISODES, "--resume"), check=True, capture_output=True)
    assert f"saved {EPISODES} of {EPISODES}" in done.stderr.decode()
    assert open_dataset(path).episodes == expected
    assert open_dataset(path).metadata.tasks == open_dataset(whole).metadata.tasks
    assert not staging_folder(path).exists()


def test_kill_while_the_file_is_assembled(tmp_path):
    path, aside = tmp_path / "a.hdf5", "a.hdf5.*.tmp"
    process = subprocess.Popen(
        command(path, 60), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while process.poll() is None and not list(tmp_path.glob(aside)):
        time.sleep(0.0005)
    process.kill()
    process.wait()
    assert saved_count(path) == 60
    subprocess.run(command(path, 60, "--resume"), check=True, capture_output=True)
    assert not list(tmp_path.glob(aside))
    dataset = open_dataset(path)
    assert not dataset.unfinished
    for index in range(60):
        dataset.verify(index)
