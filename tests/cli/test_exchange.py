"""convert, share and the pictures of inspect, as their users meet them; the datasets here."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import minari
import numpy as np
import pytest
from click.testing import CliRunner

from demokit.cli import main
from demokit.data import from_arrays, open_dataset
from demokit.data.card import write_card
from demokit.data.summary import action_labels
from demokit.envs import make_family

SHIPPED = ("door_state", "push_state", "push_vision")  # beside them a person may record their own
DATASETS = [Path(__file__).parents[2] / "datasets" / f"{name}.hdf5" for name in SHIPPED]
FORMATS = ["minari", "robomimic", *(["lerobot"] if find_spec("pyarrow") else [])]


def run(*arguments, code=0):
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result


def error(*arguments, code=1):
    lines = [line for line in run(*arguments, code=code).stderr.splitlines() if "Error: " in line]
    assert len(lines) == 1
    return lines[0]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "point.hdf5"
    options = ("--tasks", 3, "--num-episodes", 4, "--license", "MIT")
    run("record", "--env", "point", "--out", path, *options)
    return path


@pytest.mark.parametrize("name", FORMATS)
def test_convert_there_and_back(name, recorded, tmp_path):
    out = tmp_path / "out"
    dry = run("convert", recorded, "--to", name, "-o", out, "--dry-run")
    assert "Nothing was written" in dry.stdout
    assert not out.exists()
    assert "privileged terms" in run("convert", recorded, "--to", name, "-o", out).stdout
    source = next(out.glob("demokit/*/*-v0")) if name == "minari" else out
    back = tmp_path / "back.hdf5"
    shown = run("convert", source, "--from", name, "-o", back).stdout
    assert "Nothing is lost" in shown
    assert open_dataset(back).episodes == open_dataset(recorded).episodes
    assert back.with_suffix(".md").exists()
    run("validate", back, "--replay")
    assert "pass --overwrite" in error("convert", recorded, "--to", name, "-o", out)


def test_wrong_conversions(recorded, tmp_path):
    out = tmp_path / "o"
    assert "one of them" in error("convert", recorded, "-o", out, code=2)
    both = ("--to", "minari", "--from", "minari")
    assert "one of them" in error("convert", recorded, *both, "-o", out, code=2)
    assert "did you mean 'lerobot'" in error("convert", recorded, "--to", "lerobt", "-o", out)
    assert "for imports" in error(
        "convert", recorded, "--to", "minari", "--env", "x", "-o", out, code=2
    )
    assert "nothing at" in error("convert", tmp_path / "no", "--from", "robomimic", "-o", out)
    assert "no robomimic file" in error(
        "convert", recorded, "--from", "robomimic", "-o", tmp_path / "o.hdf5"
    )
    for place in ("/", "."):
        assert "no pickles" in error(
            "convert", place, "--from", "gmps-release", "-o", tmp_path / "o.hdf5"
        )
    missing = error("convert", tmp_path / "no.hdf5", "--to", "minari", "-o", out)
    assert "no dataset at" in missing
    assert list(tmp_path.iterdir()) == []


OWN = ("--observation-columns", "x,y", "--action-columns", "u*", "--episode-column", "ep")
TASKS = ("--context-columns", "goal", "--action-low=-2", "--action-high", "2,2", "--license", "MIT")


def test_own_tables_become_datasets_that_are_used_as_others(tmp_path):
    table, out = tmp_path / "arm.csv", tmp_path / "arm.hdf5"
    rows = [f"{e},{s},{e - s},{s / 3},{-s / 3},{e % 2}" for e in range(4) for s in range(5)]
    table.write_text("\n".join(["ep,x,y,u1,u2,goal", *rows]))
    convert = ("convert", table, "--from", "csv", "-o", out)
    assert "the columns of" in error(*convert)
    assert "--action-low" in error(*convert, *OWN)
    assert list(tmp_path.iterdir()) == [table]
    assert "action range" in run(*convert, *OWN, *TASKS).stdout
    assert "arm/01" in run("inspect", out).stdout
    assert "0 errors" in run("validate", out).stdout
    run("filter", out, "--task", "arm/01", "--out", tmp_path / "one.hdf5")
    assert len(open_dataset(tmp_path / "one.hdf5")) == 2
    assert "licence MIT, valid" in run("share", "pack", out, "-o", tmp_path / "a.zip").stdout
    assert "is not a finite number" in error(*convert, *OWN, "--action-low", "nan", code=2)
    assert "empty part" in error(*convert, "--observation-columns", "x,,y", code=2)
    to = ("convert", out, "--to", "minari", "-o", tmp_path / "m", "--task-column", "x")
    assert "--task-column means nothing with --to" in error(*to, code=2)


def test_share(recorded, tmp_path):
    dry = run("share", "pack", recorded, "-o", tmp_path / "a.zip", "--dry-run")
    assert "was not written" in dry.stdout
    assert "licence MIT, valid" in dry.stdout
    assert not list(tmp_path.iterdir())
    run("share", "pack", recorded, "-o", tmp_path / "a.zip")
    run("share", "pull", tmp_path / "a.zip", "-o", tmp_path / "b.hdf5")
    assert (tmp_path / "b.hdf5").read_bytes() == recorded.read_bytes()
    private = run("share", "push", recorded, "--repo-id", "ada/point", "--dry-run").stdout
    assert "nothing was pushed to hf:ada/point (private)" in private
    run("share", "push", recorded, tmp_path / "folder")
    assert "Pulled" in run("share", "pull", tmp_path / "folder", "-o", tmp_path / "c.hdf5").stdout
    assert "one of them" in error("share", "push", recorded, code=2)
    assert "--public is for" in error("share", "push", recorded, tmp_path / "x", "--public")
    assert "exists" in error("share", "pull", tmp_path / "folder", "-o", tmp_path / "c.hdf5")


def test_inspect_draws(recorded, tmp_path):
    files = tmp_path / "p.png", tmp_path / "p.html"
    about = run("inspect", recorded, "--plot", files[0], "--html", files[1], "--json").stdout
    assert len(json.loads(about)["checksum"]) == 64
    assert files[0].read_bytes().startswith(b"\x89PNG")
    assert "<table>" in files[1].read_text()
    assert "checksum" in run("inspect", recorded).stdout
    assert "no dataset" in error("inspect", tmp_path / "x.hdf5", "--html", files[1])


def test_components_of_actions_are_called_by_what_they_mean(recorded, tmp_path):
    run("inspect", recorded, "--html", tmp_path / "p.html")
    page = (tmp_path / "p.html").read_text()
    for name in make_family("point").actions:
        assert f"actions: {name}" in page
    assert "actions: component 0" not in page
    assert action_labels(open_dataset(recorded).metadata) == make_family("point").actions


def test_what_nobody_said_is_not_called_different(tmp_path):
    episode = {"observations": np.zeros((4, 2)), "actions": np.ones((3, 2))}
    own = from_arrays(tmp_path / "own.hdf5", [episode], family="my-arm")
    assert action_labels(own.metadata) == ("component 0", "component 1")
    write_card(own.path)
    shown = run("inspect", own.path).stdout
    rows = {
        cells[1].strip(): cells[2].strip()
        for cells in (line.split("\u2502") for line in shown.splitlines())
        if len(cells) == 4
    }
    assert rows["action noise"] == rows["seed"] == "not stated or differing"
    assert "component 0, component 1" in shown  # these never change
    assert "- seed not stated or differing" in own.path.with_suffix(".md").read_text()


def test_the_card_is_one_of_hugging_face(recorded):
    hub = pytest.importorskip("huggingface_hub")
    card = hub.DatasetCard.load(recorded.with_suffix(".md"))
    assert card.data.license == "mit"
    assert "robotics" in card.data.task_categories
    assert card.text.strip().startswith("# point")


@pytest.mark.parametrize("path", DATASETS, ids=lambda path: path.stem)
def test_minari_does_everything_with_the_datasets_here(path, tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "root"))
    dataset = open_dataset(path)
    family = dataset.metadata.family
    ids = [f"demokit/{family}/{path.stem}-v{i}" for i in range(2)]
    for each in ids:
        run("share", "register", path, each)
    assert list(minari.list_local_datasets()) == ids
    loaded = [minari.load_dataset(each) for each in ids]
    assert loaded[0].total_episodes == len(dataset)
    env = loaded[0].recover_environment()
    _, info = env.reset(seed=0)
    assert info["task"] in {task.id for task in dataset.metadata.tasks}
    assert env.action_space == loaded[0].action_space
    env.close()
    both = minari.combine_datasets(loaded, f"demokit/{family}/both-v0")
    assert both.total_episodes == 2 * len(dataset)
    tool = Path(sys.executable).parent / "minari"
    shown = subprocess.run(
        [tool, "show", ids[0]], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert ids[0] in shown.stdout
    assert "demokit.envs.gym:Env" in shown.stdout


@pytest.mark.parametrize("path", DATASETS, ids=lambda path: path.stem)
def test_the_datasets_here_are_sound_and_documented(path):
    run("validate", path)
    assert "license: mit" in path.with_suffix(".md").read_text()
    assert path.stat().st_size < 12e6
