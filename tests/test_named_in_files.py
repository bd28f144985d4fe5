"""No file makes demokit import a module: only what a person types does."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import pytest
from click.testing import CliRunner

from demokit.cli import main
from demokit.data import files
from demokit.envs import family_named_by_user, make_family
from demokit.errors import DemokitError
from demokit.learning.checkpoint import load_checkpoint, save_checkpoint
from demokit.learning.expert import load_trained
from gmps.comparison.processes import Command, run_side_by_side

ROOT = Path(__file__).parents[1]
DEMOKIT = str(Path(sys.executable).parent / "demokit")
NAME = "gym:intruder:Intruder-v0"
MODULE = """
import pathlib

import gymnasium
from gymnasium.envs.mujoco.pusher_v5 import PusherEnv

pathlib.Path(__file__).with_name("has-run").touch()
gymnasium.register("Intruder-v0", entry_point=PusherEnv, max_episode_steps=6)
"""
RECORD = ("record", "--env", NAME, "--expert", "random", "--num-episodes", "2", "--license", "MIT")


class Place:
    """A folder on the path of every program, with a module that says when it has run."""

    def __init__(self, folder):
        self.folder, self.trace = folder, folder / "has-run"
        (folder / "intruder.py").write_text(MODULE)

    def program(self, *arguments, **environment):
        """What a demokit of its own says; its module may have run in it."""
        self.trace.unlink(missing_ok=True)
        done = subprocess.run(
            [sys.executable, "-m", "demokit", *map(str, arguments)],
            env={**os.environ, "PYTHONPATH": str(self.folder), **environment},
            cwd=self.folder,
            capture_output=True,
            text=True,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def take_trace(self):
        """Whether the module has run since the last time."""
        there = self.trace.exists()
        self.trace.unlink(missing_ok=True)
        return there


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return Place(tmp_path_factory.mktemp("intruder"))


@pytest.fixture
def on_path(place, monkeypatch):
    """This process could import the module, and has not."""
    monkeypatch.syspath_prepend(place.folder)
    assert "intruder" not in sys.modules
    yield
    assert "intruder" not in sys.modules
    assert not place.take_trace()


@pytest.fixture(scope="module")
def dataset(place):
    """Recorded by its owner, who typed the name."""
    path = place.folder / "strange.hdf5"
    done = place.program(*RECORD, "--out", path)
    assert done.returncode == 0, done.stderr
    assert place.take_trace()
    return path


@pytest.fixture(scope="module")
def run_folder(place):
    """A run on the point whose checkpoint says that it was on the module's environment."""
    demos, folder = place.folder / "point.hdf5", place.folder / "runs" / "strange"
    invoke("record", "--env", "point", "--tasks", 2, "--episodes-per-task", 2, "--out", demos)
    short = "--iterations 1 --outer-steps 1 --rollouts-per-task 2 --threads 1"
    invoke(
        "meta-train", "--demos", demos, "--output-dir", folder, "--device", "cpu", *short.split()
    )
    for path in folder.glob("*.safetensors"):
        rename(path)
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"point"', f'"{NAME}"'))
    return folder


def rename(path):
    tensors, header = load_checkpoint(path)
    if "schema" in header:  # of a run, not of an expert
        renamed = {"schema": {**header["schema"], "name": NAME}}
    else:
        assert "family" in header
        renamed = {"family": NAME}
    save_checkpoint(path, tensors, {**header, **renamed})


def invoke(*arguments, codes=(0,)):
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    assert result.exit_code in codes, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


READERS = (
    "inspect D",
    "inspect D --html page.html",
    "inspect D --plot picture.png",
    "inspect D --json",
    "validate D",
    "validate D --replay",
    "validate D --repair --out repaired.hdf5",
    "replay D",
    "replay D --use-actions",
    "replay D --video film.mp4",
    "list FOLDER",
    "merge D D --out both.hdf5",
    "split D --train-out t.hdf5 --validation-out v.hdf5",
    "filter D --out some.hdf5 --success",
    "relabel D --out again.hdf5 --reward sparse",
    "convert D --to robomimic -o there.hdf5",
    "convert D --to minari -o there",
    "share pack D -o there.zip",
    "share push D there",
    "share register D strange/strange-v0",
    "meta-train --demos D --output-dir run --iterations 1",
)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.usefixtures("on_path")
def test_a_dataset_imports_nothing(reader, dataset, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    given = {"D": dataset, "FOLDER": dataset.parent}
    invoke(*(given.get(word, word) for word in reader.split()), codes=(0, 1))


@pytest.mark.usefixtures("on_path")
def test_a_bundle_imports_nothing(dataset, tmp_path):
    bundle, pulled = tmp_path / "bundle.zip", tmp_path / "pulled.hdf5"
    invoke("share", "pack", dataset, "-o", bundle)
    invoke("share", "pull", bundle, "-o", pulled)
    assert NAME in invoke("inspect", pulled).output


RUNS = (
    "evaluate RUN --num-tasks 1 --adapt-steps 1",
    "runs FOLDER",
    "meta-train --demos POINT --output-dir RUN --resume",
)


@pytest.mark.parametrize("reader", RUNS)
@pytest.mark.usefixtures("on_path")
def test_a_checkpoint_imports_nothing(reader, run_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = run_folder.parent
    given = {"RUN": run_folder, "FOLDER": folder, "POINT": folder.parent / "point.hdf5"}
    shown = invoke(*(given.get(word, word) for word in reader.split()), codes=(0, 1))
    if reader.startswith("evaluate"):
        assert shown.exit_code == 1
        assert "demokit --import intruder COMMAND" in shown.output


@pytest.mark.usefixtures("on_path")
def test_an_experts_file_imports_nothing(tmp_path):
    shipped = next((ROOT / "datasets" / "experts").glob("door*.safetensors"))
    expert_file = Path(shutil.copy(shipped, tmp_path))
    rename(expert_file)
    record = ("record", "--env", "door", "--expert", expert_file, "--out", tmp_path / "a.hdf5")
    invoke(*record, codes=(1,))
    with pytest.raises(DemokitError, match="belongs to the module 'intruder'"):
        load_trained(expert_file, NAME)


@pytest.mark.usefixtures("on_path")
def test_plans_and_configurations_import_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "record.toml").write_text(f'env = "{NAME}"\n')
    for command in ("record --expert random --config record.toml --out a.hdf5",
                    "train-expert --config record.toml --output-dir there"):  # fmt: skip
        assert "belongs to the module 'intruder'" in invoke(*command.split(), codes=(1,)).output
    plan = f"""
        [methods.gmps]
        [datasets.strange]
        env = "{NAME}"
        [comparisons.only]
        demos = "strange"
    """
    (tmp_path / "plan.toml").write_text(plan)
    assert "belongs to the module 'intruder'" in invoke("compare", "plan.toml", codes=(1,)).output


@pytest.mark.usefixtures("on_path")
def test_an_id_that_is_registered_may_be_named():
    assert make_family("gym:Hopper-v5").horizon == 1000
    for name in (NAME, "gym:intruder:Hopper-v5", "gym:a:b:c", "gym: :X"):
        with pytest.raises(DemokitError, match="no module is imported because a file names it"):
            make_family(name)
    with pytest.raises(DemokitError, match="'no_such_module' cannot be imported"):
        family_named_by_user("gym:no_such_module:X-v0")


def test_whoever_recorded_it_says_so_and_goes_on(dataset, place):
    replay = ("replay", dataset, "--use-actions")
    refused = place.program(*replay)
    assert refused.returncode == 1
    assert not place.take_trace()
    assert refused.stderr == (
        f"Error: The environment '{NAME}' belongs to the module 'intruder', and no module is "
        "imported because a file names it. If you trust it: demokit --import intruder COMMAND "
        "..., or in Python import intruder.\n"
    )
    for options, environment in (
        (("--import", "intruder"), {}),
        ((), {"DEMOKIT_IMPORT": "json intruder"}),
    ):
        done = place.program(*options, *replay, **environment)
        assert done.returncode == 0, done.stderr
        assert "2 of 2 episodes replay from their actions" in done.stdout
        assert place.take_trace()
    unknown = place.program("--import", "no_such_module", *replay)
    assert (unknown.returncode, unknown.stderr.count("\n")) == (1, 1)
    assert "The module 'no_such_module' cannot be imported (ModuleNotFoundError" in unknown.stderr


MAY_IMPORT = {
    "demokit/cli/__init__.py",  # --import
    "demokit/cli/envs.py",  # its argument
    "demokit/cli/typed.py",  # --env, where it was typed
    "demokit/envs/__init__.py",  # where they are defined
    "gmps/training.py",  # demokit.meta_train(env=...), in somebody's program
    "recorders/recording.py",  # demokit.record(...), likewise
}


def test_who_may_import_for_a_person():
    doors = {"family_named_by_user", "given_family", "import_for_user"}
    using = set()
    for path in (
        p for room in ("demokit", "recorders", "gmps") for p in (ROOT / room).rglob("*.py")
    ):
        names = {getattr(node, "id", getattr(node, "name", getattr(node, "attr", None)))
                 for node in ast.walk(ast.parse(path.read_bytes()))}  # fmt: skip
        if names & doors:
            using.add(path.relative_to(ROOT).as_posix())
    assert using == MAY_IMPORT


def test_what_lies_in_the_working_folder_is_no_module(tmp_path, monkeypatch):
    """Python looks there first for the modules of `-m` and `-c`."""
    monkeypatch.chdir(tmp_path)
    with h5py.File("x.hdf5", "w", libver="earliest") as file:
        file["some"] = [1.0]
    for module in ("h5py", "numpy", "click", "demokit"):
        (tmp_path / f"{module}.py").write_text("open('has-run', 'w').close(); raise SystemExit(0)")
    files._walk_apart.cache_clear()
    with files.open_file(Path("x.hdf5")) as file:
        assert file["some"][:] == [1.0]
    shown = subprocess.run([DEMOKIT, "inspect", "x.hdf5"], capture_output=True, text=True)
    assert "some (float64 1)" in shown.stdout
    outcome = run_side_by_side([Command("a", ("methods",), tmp_path / "a.log")], 1)
    assert outcome.failed == {}
    assert "gmps" in (tmp_path / "a.log").read_text()
    assert not (tmp_path / "has-run").exists()


def test_every_python_that_is_started_is_kept_from_the_working_folder():
    found = []
    rooms = (ROOT / room for room in ("demokit", "recorders", "gmps"))
    for path in (path for room in rooms for path in room.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.List | ast.Tuple):
                words = [ast.unparse(each) for each in node.elts]
                if "sys.executable" in words:
                    found.append(words[words.index("sys.executable") + 1])
    assert found == ["'-P'"] * 2
