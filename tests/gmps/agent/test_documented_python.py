"""The examples of docs/python.md run as they stand, for several methods."""

import re
from pathlib import Path

import pytest

import demokit

PAGE = Path(__file__).parents[3] / "docs" / "python.md"
EVERY = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)

WALK, BLOCKS = EVERY[1], [EVERY[0], *EVERY[2:]]


def test_the_walk_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    quick = "iterations=1, steps=3, tuning_tasks=1, rollouts_per_task=4, threads=1"
    names = {"demokit": demokit}
    exec(compile(WALK.replace("iterations=1", quick), str(PAGE), "exec"), names)
    assert len(names["demonstrations"]) == 8
    assert names["trained"].method == "imitation"
    assert list(names["found"].success["imitation"]) == [0, 4, 8, 12, 16, 20]


@pytest.mark.parametrize("method", ["gmps", "gmps-latent", "imitation", "task-inference"])
def test_the_examples_run(runs, method, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "point").mkdir(parents=True)
    (tmp_path / "runs" / "point" / "gmps-0").symlink_to(runs / method)
    names = {"__name__": "example"}
    for block in BLOCKS:
        exec(compile(block, str(PAGE), "exec"), names)
    assert names["actions"].shape == (5, 2)
    found = demokit.load_policy("goal-7.safetensors")
    assert (found.method, found.steps) == (method, 2)


def test_a_loop_of_plain_functions_is_short():
    loop = next(block for block in BLOCKS if "def observe" in block)
    code = [line for line in loop.splitlines() if line.strip() and not line.startswith("#")]
    assert len(code) <= 20
    assert "gym" not in loop
