"""The code of docs/experts.md runs as a package that is installed beside this one."""

import json
import re
import sys
import tomllib
from pathlib import Path

import pytest
from program import Program

import demokit.envs as envs
from demokit.data import open_dataset
from demokit.errors import DemokitError
from demokit.experts import load_expert

DOCS = Path(__file__).parents[2] / "docs"


def blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)


EXPERT, RECORDER = blocks("experts.md", "python")


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Installs `my_package` with the entry points that the pages name; returns where."""
    site = tmp_path / "site"
    home, facts = site / "my_package", site / "my_package-1.0.dist-info"
    for folder in (home, facts):
        folder.mkdir(parents=True)
    rail, ring = blocks("environments.md", "python")
    modules = {"__init__": "", "rail": rail, "ring": ring, "expert": EXPERT}
    modules["broken"] = "def make(family_name):\n    return {}[family_name]\n"
    for name, text in modules.items():
        (home / f"{name}.py").write_text(text)
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: my_package\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text(entry_points())
    monkeypatch.syspath_prepend(site)
    monkeypatch.chdir(tmp_path)
    forget()
    yield site
    forget()


def entry_points():
    """The pages' tables, and an expert that fails, as an installer writes them."""
    lines = []
    for page in ("environments.md", "experts.md"):
        table = tomllib.loads("".join(blocks(page, "toml")))["project"]["entry-points"]
        for group, entries in table.items():
            lines += [f"[{group}]", *(f"{name} = {value}" for name, value in entries.items())]
    return "\n".join([*lines, "broken = my_package.broken:make"])


def forget():
    envs._foreign.cache_clear()
    envs.make_family.cache_clear()
    for name in [each for each in sys.modules if each.split(".")[0] == "my_package"]:
        del sys.modules[name]


@pytest.mark.usefixtures("package")
def test_the_documented_expert_solves_its_tasks(invoke):
    (command,) = re.findall(r"^    demokit (record .*rail-expert.*)$", page(), re.MULTILINE)
    invoke(*command.split())
    with open_dataset("datasets/rail-expert.hdf5") as dataset:
        assert dataset.metadata.provenance.expert == "rail-expert"
        assert all(dataset[i].success for i in range(4))
    invoke("validate", "datasets/rail-expert.hdf5", "--replay")


@pytest.mark.usefixtures("package")
def test_the_documented_expert_is_the_reference_of_what_it_demonstrated(invoke):
    record = ("record", "--env", "rail", "--expert", "rail-expert", "--tasks", 2)
    invoke(*record, "--episodes-per-task", 2, "--out", "rail.hdf5")
    short = ("--iterations", 1, "--rollouts-per-task", 3, "--output-dir", "run-0")
    invoke("meta-train", "--demos", "rail.hdf5", "--method", "imitation", *short)
    small = ("--num-tasks", 2, "--adapt-steps", 1, "--json")
    found = invoke("evaluate", "run-0", *small)
    assert "for reference" not in found.stderr
    content = json.loads(found.stdout)
    assert content["facts"]["expert"] == "rail-expert"
    assert content["references"]["success"]["expert"] == 1.0


def page():
    return (DOCS / "experts.md").read_text()


@pytest.mark.usefixtures("package")
def test_the_documented_recorder_writes_a_dataset(invoke):
    exec(RECORDER, {})
    with open_dataset("datasets/halves.hdf5") as dataset:
        assert len(dataset) == 8
        assert len({dataset[i].seed for i in range(8)}) == 8
    (command,) = re.findall(r"^    demokit (validate .*)$", page(), re.MULTILINE)
    invoke(*command.split())


@pytest.mark.usefixtures("package")
def test_an_expert_asked_for_another_family_says_so(invoke, tmp_path):
    with pytest.raises(DemokitError, match="is for rail, not point"):
        load_expert("rail-expert", "point")
    record = ("record", "--env", "point", "--expert", "broken", "--out", tmp_path / "a.hdf5")
    said = invoke(*record, exit_code=1).output
    assert "'broken' (my_package.broken:make) cannot be made for 'point' (KeyError: " in said
    assert len(said.strip().splitlines()) == 1


@pytest.mark.realtime
def test_a_family_without_a_script_is_recorded_by_hand(package, tmp_path, invoke):
    path = tmp_path / "hand.hdf5"
    words = ("record", "--env", "ring", "--device", "terminal", "--view", "none", "--out", path)
    more = ("--tasks", 1, "--num-episodes", 1, "--countdown", 0.1, "--license", "MIT")
    hand = Program(*words, *more, environment={"PYTHONPATH": str(package)})
    try:
        hand.wait_for("There is no expert to take over: all is by hand")
        hand.wait_for("begins when you move")
        hand.type("wt")
        hand.wait_for("no expert can take over")
        hand.wait_for("step [5-9]/")
        hand.type("n")
        assert hand.end() == 0, hand.text
    finally:
        hand.close()
    assert "random" not in hand.text
    with open_dataset(path) as dataset:
        assert dataset.metadata.provenance.expert == "none"
        assert "expert_action" not in dataset[0].privileged
    assert "the person's action in" in invoke("inspect", path).output
    invoke("validate", path, "--replay")
