"""What is put on the shelf: the sdist, the wheel made of it, and both where nothing else is."""

import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import EntryPoint, distribution, entry_points
from pathlib import Path

import pytest
import user
import yaml
from shelf import OURS, ROOT, build, clean, install

import demokit

COMMANDS = sorted(entry.name for entry in entry_points(group="demokit.commands"))
NEEDED = (
    *("demokit/py.typed", "gmps/py.typed", "recorders/py.typed"),
    *("demokit/page.css", "demokit/data/page.html", "demokit/view/panel.html", "gmps/page.html"),
    *("demokit/envs/assets/sawyer.xml", "demokit/envs/assets/paper_tasks.json"),
    *("gmps/presets/ant.toml", "gmps/presets/maml.toml", "gmps/presets/meta_exploration.toml"),
    *("gmps/presets/maesn.toml", "gmps/presets/maesn_sparse.toml"),
    *("gmps/presets/pearl.toml", "gmps/presets/rl2.toml", "gmps/plans/fig6.toml"),
    *("gmps/presets/vision.toml", "gmps/presets/vision_small.toml"),
    "recorders/teleop/bindings.toml",
)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    return build(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def programs(shelf, tmp_path_factory):
    return install(shelf[1], tmp_path_factory.mktemp("elsewhere") / "venv")


@pytest.fixture
def ask(programs, tmp_path):
    """Run a program of the environment in an empty folder; returns what it printed."""

    def run(program, *arguments):
        command = [str(programs / program), *map(str, arguments)]
        options = {"cwd": tmp_path, "env": clean(tmp_path), "capture_output": True, "text": True}
        done = subprocess.run(command, check=False, **options)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_the_wheel_holds_the_three_packages_and_no_tests(shelf):
    names = set(zipfile.ZipFile(shelf[1]).namelist())
    assert not set(NEEDED) - names
    about = f"demokit_robotics-{demokit.__version__}.dist-info"
    assert {name.split("/")[0] for name in names} == {"demokit", "gmps", "recorders", about}
    tracked = subprocess.check_output(
        ["git", "ls-files", "demokit", "gmps", "recorders"], cwd=ROOT, text=True
    )
    assert set(tracked.split()) <= names


def test_the_sdist_holds_no_datasets(shelf):
    with tarfile.open(shelf[0]) as archive:
        top = {Path(name).parts[1] for name in archive.getnames()}
    files = {"README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "pyproject.toml", "PKG-INFO"}
    assert top == {"demokit", "gmps", "recorders", ".gitignore", *files}


def test_it_is_called_what_nobody_else_is_and_cited_as_it_is():
    assert distribution(OURS).version == demokit.__version__
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cited["version"] == demokit.__version__
    assert {"cff-version", "message", "title", "authors"} <= set(cited)


def test_nobody_is_told_to_install_a_strangers_package_of_our_name():
    rooms = (ROOT / room for room in ("demokit", "gmps", "recorders", "docs"))
    files = [file for room in rooms for file in room.rglob("*") if file.suffix in (".py", ".md")]
    wrong = re.compile(r"pip install [\"']?demokit\b(?!-robotics)|[\"']demokit(\[|[\"']\]$)", re.M)
    assert wrong.search('pip install "demokit[sac]"')
    assert not [file for file in (*files, ROOT / "README.md") if wrong.search(file.read_text())]


RESOLVE = f"""
from importlib.metadata import distribution
for entry in distribution({OURS!r}).entry_points:
    entry.load()
    print(entry.name)
"""


def test_entry_points_lead_somewhere(ask):
    known: list[EntryPoint] = list(distribution(OURS).entry_points)
    assert sorted(ask("python", "-c", RESOLVE).split()) == sorted(entry.name for entry in known)


def test_what_is_imported_is_the_wheel(ask, programs):
    where = ask("python", "-c", "import demokit, gmps, recorders; print(demokit.__file__)")
    assert Path(where.strip()).is_relative_to(programs.parent)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_helps(ask, command):
    assert f"Usage: demokit {command} " in ask("demokit", command, "--help")


WRONG = """
import demokit
agent = demokit.load_policy("runs/gmps-0")
reveal_type(agent.new_task(steps=2).act([0.0]))
agent.new_task(stepz=2)
"""


@pytest.mark.slow
def test_a_users_script_sees_types(programs, tmp_path):
    script = shutil.copy(Path(user.__file__), tmp_path)  # away from the checkout
    wrong = tmp_path / "wrong.py"
    wrong.write_text(WRONG)
    mypy = [sys.executable, "-m", "mypy", "--strict", "--python-executable", programs / "python"]
    options = {"cwd": tmp_path, "env": clean(tmp_path), "capture_output": True, "text": True}
    said = subprocess.run([*mypy, script, wrong], check=False, **options).stdout
    assert "wrong.py:4: note: Revealed type is" in said
    assert "numpy" in said
    assert 'wrong.py:5: error: Unexpected keyword argument "stepz"' in said
    assert "Found 1 error" in said


ACT = """
import numpy, demokit
agent = demokit.load_policy("run")
assert agent.act(numpy.zeros(agent.observation_shapes[""])).shape == (len(agent.action_names),)
trial = agent.new_task()
while trial.gathering:
    trial.act(numpy.zeros(2))
    trial.record(0.0)
trial.adapted().save("adapted.safetensors")
"""


@pytest.mark.slow
def test_the_walk(ask, tmp_path):
    few = ("--tasks", 3, "--episodes-per-task", 2)
    ask("demokit", "record", "--env", "point", *few, "--out", "point.hdf5")
    assert "6 episodes" in ask("demokit", "inspect", "point.hdf5", "--html", "point.html")
    ask("demokit", "validate", "point.hdf5", "--replay")
    short = ("--iterations", 2, "--outer-steps", 2, "--rollouts-per-task", 3, "--threads", 1)
    ask("demokit", "meta-train", "--demos", "point.hdf5", "--output-dir", "run", *short)
    ask("demokit", "evaluate", "run", "--num-tasks", 2, "--output-dir", "judged")
    assert (tmp_path / "judged" / "evaluation.json").is_file()
    ask("python", "-c", ACT)
    out = ("--task", "point/uniform-0/validation/03", "--episodes", 2, "--out", "done.hdf5")
    assert "2 episodes" in ask("demokit", "rollout", "adapted.safetensors", *out)


OWN = (ROOT / "docs" / "own-environment.md").read_text()
FEWER = {
    "meta-train": ("--iterations", 1, "--outer-steps", 1, "--rollouts-per-task", 3, "--threads", 1),
    "evaluate": ("--num-tasks", 2),
}


@pytest.mark.slow
def test_an_environment_of_ones_own(ask, tmp_path):
    """As somebody follows the page, in a folder that holds what they wrote."""
    module, record, _, _, named = re.findall(r"```python\n(.*?)```", OWN, re.DOTALL)
    files = {"reach.py": module, "reached.py": named, "by_line.py": record}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    ask("python", "by_line.py")
    ask("demokit", "validate", "reach.hdf5")
    commands = re.findall(r"^ {4}demokit (.*)$", OWN, re.MULTILINE)
    for command in commands:
        few = next((more for verb, more in FEWER.items() if f" {verb} " in command), ())
        ask("demokit", *shlex.split(command), *few)
    assert (tmp_path / "runs" / "reach" / "evaluation" / "evaluation.json").is_file()
    act = "import demokit; print(demokit.load_policy('there.safetensors').act([0, 0]).shape)"
    assert ask("python", "-c", act) == "(2,)\n"
