"""validate, replay, list, merge, split, filter and relabel as their users meet them."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import pytest
from click.testing import CliRunner

from demokit.cli import main
from demokit.data import open_dataset
from tests.envs.test_gym import can_draw

COMMANDS = ("validate", "replay", "list", "merge", "split", "filter", "relabel")


def run(*arguments, code=0):
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    assert result.exit_code == code, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    path = tmp_path_factory.mktemp("commands") / "point.hdf5"
    options = ("--tasks", 4, "--episodes-per-task", 2, "--license", "MIT")
    run("record", "--env", "point", "--out", path, *options)
    return path


@pytest.fixture
def dataset(recorded, tmp_path):
    return Path(shutil.copy(recorded, tmp_path / "copy.hdf5"))


def damage(path, index=2):
    with h5py.File(path, "r+") as file:
        file[f"episode_{index}/rewards"][1] += 1


def test_help_imports_nothing_heavy():
    script = (
        "import sys\nfrom click.testing import CliRunner\nfrom demokit.cli import main\n"
        f"for name in {COMMANDS!r}:\n"
        "    shown = CliRunner().invoke(main, [name, '--help'])\n"
        "    assert shown.exit_code == 0 and 'Usage' in shown.output, name\n"
        "print([m for m in ('torch', 'mujoco', 'minari', 'h5py') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_validate_and_repair(dataset):
    assert "8 of 8 episodes are sound" in run("validate", dataset).stdout
    damage(dataset)
    shown = run("validate", dataset, code=1).stdout
    assert "checksum" in shown
    assert "7 of 8 episodes are sound" in shown
    about = json.loads(run("validate", dataset, "--json", code=1).stdout)
    assert about["ok"] is False
    assert {finding["episode"] for finding in about["findings"]} >= {2}
    repaired = run("validate", dataset, "--repair", "--replay").stdout
    assert "Kept 7 episodes" in repaired
    assert "every action simulated again" in repaired
    assert "Nothing to repair" in run("validate", dataset, "--repair").stdout
    about = json.loads(run("validate", dataset, "--repair", "--json").stdout)
    assert about["repair"]["written"] is False


def test_replay(dataset):
    assert "8 of 8 episodes replay from their states" in run("replay", dataset).stdout
    shown = run("replay", dataset, "--use-actions", "--episode", 3).stdout
    assert "1 of 1 episodes replay from their actions within 0" in shown
    damage(dataset)
    shown = run("replay", dataset, code=1).stdout
    assert "7 of 8" in shown
    assert "rewards" in shown
    assert "8 of 8" in run("replay", dataset, "--tolerance", 2).stdout


@pytest.mark.skipif(not can_draw(), reason="nothing to draw with here")
def test_a_film_says_which_episode_it_is_of(dataset, tmp_path):
    pytest.importorskip("imageio_ffmpeg")
    film = tmp_path / "film.mp4"
    shown = run("replay", dataset, "--video", film).stdout
    assert f"Wrote episode 0 of 8, 21 frames, to {film}." in shown
    shown = run("replay", dataset, "--episode", 3, "--video", film, "--overwrite").stdout
    assert f"Wrote episode 3 of 8, 21 frames, to {film}." in shown
    assert "1 of 1 episodes replay" in shown


def test_list(dataset, monkeypatch, tmp_path):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "root"))
    run("share", "register", dataset, "demokit/point/a-v0")
    (tmp_path / "broken.hdf5").write_text("text")
    result = run("list", tmp_path)
    assert "demokit/point/a-v0" in result.stdout
    assert "unreadable" in result.stdout
    assert "not an HDF5 file" in result.stderr
    names = {entry["name"]: entry for entry in json.loads(run("list", tmp_path, "--json").stdout)}
    assert names[str(dataset)]["summary"]["episodes"] == 8
    assert "not an HDF5" in names[str(tmp_path / "broken.hdf5")]["problem"]
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "none"))
    monkeypatch.chdir(tmp_path / "root")
    assert "No datasets" in run("list").stdout


def test_split_filter_merge_relabel(dataset, tmp_path):
    shown = run("split", dataset, "--validation-fraction", 0.5).stdout
    assert "4 episodes in" in shown
    train, validation = tmp_path / "copy-train.hdf5", tmp_path / "copy-validation.hdf5"
    run("merge", train, validation, "--out", tmp_path / "m.hdf5")
    kept = run("filter", tmp_path / "m.hdf5", "--split", "validation", "--out", tmp_path / "f.hdf5")
    assert "4 episodes in" in kept.stdout
    assert "4 left out" in kept.stdout
    run("relabel", tmp_path / "f.hdf5", "--reward", "sparse", "--out", tmp_path / "s.hdf5")
    assert open_dataset(tmp_path / "s.hdf5").metadata.reward == "sparse"
    assert run("validate", tmp_path / "s.hdf5", "--replay").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("validate", "none.hdf5"), 1, "no dataset at"),
        (("validate", "D", "--out", "x.hdf5"), 2, "add --repair"),
        (("validate", "D", "--repair", "--out", "x.txt"), 1, "NAME.hdf5"),
        (("replay", "D", "--episode", "99"), 1, "no episode 99"),
        (("replay", "D", "--episode", "-1"), 2, "-1 is not in the range x>=0"),
        (("inspect", "D", "--episode", "-1"), 2, "-1 is not in the range x>=0"),
        (("replay", "D", "--tolerance", "-1"), 2, "not in the range"),
        (("replay", "D", "--video", "a.gif"), 2, "NAME.mp4"),
        (("replay", "D", "--side-by-side"), 2, "add --video"),
        (("list", "nowhere"), 1, "no folder nowhere"),
        (("merge", "D", "--out", "x.hdf5"), 1, "Merging needs two datasets"),
        (("merge", "--out", "x.hdf5"), 2, "Missing argument"),
        (("split", "D", "--validation-fraction", "1"), 2, "not in the range"),
        (("filter", "D", "--split", "trian", "--out", "x.hdf5"), 1, "did you mean 'train'?"),
        (("filter", "D", "--task", "none", "--out", "x.hdf5"), 1, "No episode"),
        (("filter", "D", "--out", "D"), 1, "--overwrite"),
        (("filter", "D", "--episode", "0-x", "--out", "x.hdf5"), 1, "write 3,7-9"),
        (("filter", "D", "--drop", "99", "--out", "x.hdf5"), 1, "has no episode 99"),
        (("filter", "D", "--trim", "9", "--out", "x.hdf5"), 1, "such as 0:80"),
        (("relabel", "D", "--out", "x.hdf5"), 2, "--reward, or --vision"),
        (("relabel", "D", "--reward", "shaped", "--out", "x.hdf5"), 2, "'dense', 'sparse'"),
    ],
)
def test_wrong_arguments(dataset, arguments, code, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = dataset.read_bytes()
    given = [dataset if argument == "D" else argument for argument in arguments]
    result = run(*given, code=code)
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1
    assert message in errors[0]
    assert dataset.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["copy.hdf5"]
