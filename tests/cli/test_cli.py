"""The command line as its users meet it: every wrong input is one sentence, nothing is lost."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import click
import h5py
import pytest
from click.testing import CliRunner

from demokit.cli import main
from demokit.data import open_dataset
from tests.envs.test_gym import can_draw

DEMOKIT = str(Path(sys.executable).parent / "demokit")
HEAVY = ("torch", "mujoco", "gymnasium", "minari", "h5py", "gmps.loop")


def run(*arguments, code=0):
    """Run in this process; check the exit code and that there is no traceback."""
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    if result.exception is not None:
        assert isinstance(result.exception, SystemExit), result.exception
    return result


def record(path, *more, code=0, env="point"):
    return run("record", "--env", env, "--num-episodes", 4, "--out", path, *more, code=code)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    path = tmp_path_factory.mktemp("cli") / "point.hdf5"
    record(path, "--license", "MIT", "--operator", "Ada")
    return path


@pytest.fixture
def dataset(recorded, tmp_path):
    return Path(shutil.copy(recorded, tmp_path / "copy.hdf5"))


def test_help_lists_the_commands_and_imports_nothing_heavy():
    script = (
        "import sys, demokit.cli\n"
        "try: demokit.cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        f"print('heavy:', [m for m in {HEAVY!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "heavy: []" in done.stdout
    for name in ("record", "inspect", "envs", "share", "meta-train", "evaluate"):
        assert name in done.stdout
    assert "Show what a dataset contains" in done.stdout


@pytest.mark.parametrize("name", ["record", "inspect", "envs", "share"])
def test_help_of_a_command_imports_nothing_heavy(name):
    script = (
        "import sys, demokit.cli\n"
        f"try: demokit.cli.main([{name!r}, '--help'])\n"
        "except SystemExit: pass\n"
        f"print('heavy:', [m for m in {HEAVY!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "Usage" in done.stdout
    assert "heavy: []" in done.stdout


def test_version():
    assert "demokit, version" in run("--version").output


def test_recording_says_what_it_did(recorded):
    dataset = open_dataset(recorded)
    assert len(dataset) == 4
    assert len({record.task.id for record in dataset.episodes}) == 4
    assert dataset.metadata.license == "MIT"
    assert dataset.metadata.provenance.operator == "Ada"
    card = recorded.with_suffix(".md").read_text()
    assert card.startswith("---\n")
    assert "license: mit" in card
    assert "| success rate | 100% |" in card


def test_recording_prints_counts_and_a_summary(tmp_path):
    result = record(tmp_path / "a.hdf5")
    assert "saved 4 of 4" in result.stderr
    assert "4 episodes of 4 tasks" in result.stdout
    assert "success rate 100.0%" in result.stdout
    assert "No licence is stated" in result.stderr


def test_resume_extends_and_overwrite_replaces(dataset):
    record(dataset, "--resume", "--num-episodes", 6)
    assert len(open_dataset(dataset)) == 6
    record(dataset, "--overwrite", "--noise", "0.1")
    assert len(open_dataset(dataset)) == 4
    assert open_dataset(dataset).metadata.provenance.noise_std == 0.1


def test_episodes_per_task_and_the_default_split(tmp_path):
    path = tmp_path / "a.hdf5"
    options = ("--episodes_per_task", 2, "--tasks", 3, "--task_set", "ood")
    run("record", "--env", "point", "--out", path, *options)
    dataset = open_dataset(path)
    assert [r.task.split for r in dataset.episodes] == ["ood"] * 6


def test_a_weak_expert_is_named(tmp_path):
    result = record(tmp_path / "a.hdf5", "--noise", 30)
    assert "Weak expert: it solves point/uniform-0/train/0" in result.stderr


def test_inspect_shows_everything(dataset):
    shown = run("inspect", dataset).stdout
    for text in ("point/uniform-0/train/00", "100%", "Ada", "MIT", "schema version", "actions"):
        assert text in shown
    about = json.loads(run("inspect", dataset, "--json").stdout, parse_constant=pytest.fail)
    assert (about["episodes"], about["steps"], about["license"]) == (4, 80, "MIT")
    assert len(about["tasks"]) == 4
    episode = json.loads(run("inspect", dataset, "--episode", 1, "--json").stdout)
    assert episode["task"]["id"] == "point/uniform-0/train/01"
    assert "privileged/expert_action" in {row["name"] for row in episode["arrays"]}
    assert "privileged/state" in run("inspect", dataset, "--episode", "1").stdout


def test_names_in_brackets_are_shown_as_they_are(tmp_path):
    path = tmp_path / "[red]x.hdf5"
    record(path, "--operator", "[red]Bob[/b]", "--license", "[bold]x")
    shown = run("inspect", path).stdout
    assert "[red]Bob[/b]" in shown
    assert "[bold]x" in shown


def test_a_page_does_not_take_the_datasets_place(dataset):
    before = dataset.read_bytes()
    assert "must be named NAME.html" in one_sentence(
        run("inspect", dataset, "--html", dataset, "--overwrite", code=1)
    )
    assert dataset.read_bytes() == before


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (("record", "--env", "push", "--image-size", "9", "9"), "without --observation vision"),
        (("relabel", "a.hdf5", "--reward", "sparse", "--camera", "x"), "without --vision"),
        (("replay", "a.hdf5", "--camera", "x"), "without --video"),
        (("replay", "a.hdf5", "--overwrite"), "without --video"),
        (("replay", "a.hdf5", "--port", "8080"), "without --view web"),
    ],
)
def test_options_that_would_be_ignored_are_refused(command, says, tmp_path):
    out = () if command[0] == "replay" else ("--out", tmp_path / "b.hdf5")
    assert says in one_sentence(run(*command, *out, code=2))


@pytest.mark.parametrize("option", ["--tasks", "--num-episodes", "--batch-size"])
def test_more_than_anybody_records_is_refused(option, tmp_path):
    done = run("record", "--env", "point", option, 10**20, "--out", tmp_path / "a.hdf5", code=1)
    assert f"{option} must be from 1 to 1,000,000, not 1" in one_sentence(done)


def test_without_memory_the_command_says_so(monkeypatch):
    def exhausted(*_, **__):
        raise MemoryError("Unable to allocate 14.9 GiB")

    monkeypatch.setattr("demokit.envs.family_names", exhausted)
    assert "not enough memory (Unable to allocate" in one_sentence(run("envs", code=1))


def test_inspect_without_a_dataset_lists_what_there_is(dataset, monkeypatch):
    monkeypatch.setattr("demokit.cli.list.DEFAULT_FOLDER", dataset.parent)
    entries = json.loads(run("inspect", "--json").stdout)
    assert str(dataset) in [entry["name"] for entry in entries]
    assert "Which dataset?" in one_sentence(run("inspect", "--episode", "0", code=2))


def test_envs_shows_observation_and_privileged_terms():
    about = json.loads(run("envs", "point", "--json").stdout)
    assert about["horizon"] == 20
    splits = ["train", "validation", "monitor"]
    assert about["task_sets"] == {"uniform": splits, "ood": ["ood"]}
    shown = run("envs", "point").stdout
    for text in ("point_pos_w_m", "privileged", "goal_x", "10 Hz", "out of distribution"):
        assert text in shown


@pytest.mark.parametrize(
    ("options", "means_nothing"),
    [
        (("door", "--render", "push"), "NAME means nothing with --render"),
        (("--render", "push", "--json"), "--json means nothing with --render"),
        (("push", "--camera", "policy"), "--camera means nothing without --render"),
        (("push", "--out", "a.png"), "--out means nothing without --render"),
        (("push", "--overwrite"), "--overwrite means nothing without --render"),
        (("push", "--port", "8080"), "--port means nothing without --view web"),
        (("push", "--view", "window", "--listen", "::1"), "--listen means nothing without"),
        (("push", "--view", "web", "--json"), "--json means nothing with --view"),
    ],
)
def test_envs_ignores_no_option(options, means_nothing, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert means_nothing in one_sentence(run("envs", *options, code=2))
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (("envs", "--render", "point"), "point.png"),
        (("inspect", "DATASET", "--plot", "a.png"), "a.png"),
        (("inspect", "DATASET", "--html", "a.html"), "a.html"),
        (("replay", "DATASET", "--episode", "0", "--video", "a.mp4"), "a.mp4"),
    ],
)
@pytest.mark.skipif(not can_draw(), reason="nothing to draw with here")
def test_pictures_replace_nothing_unasked(command, name, dataset, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = [dataset if word == "DATASET" else word for word in command]
    (tmp_path / name).write_text("mine")
    says = f"{name} exists: name another file, or pass --overwrite."
    assert says in one_sentence(run(*given, code=1))
    assert (tmp_path / name).read_text() == "mine"
    run(*given, "--overwrite")
    assert (tmp_path / name).read_bytes()[:4] != b"mine"


def test_help_shows_no_bound_where_there_is_none():
    assert "None]" not in run("filter", "--help").stdout
    assert "x>=0]" in run("replay", "--help").stdout


def headings(*command):
    lines = run(*command, "--help").stdout.splitlines()
    return [line[:-1] for line in lines if line.endswith(":") and not line.startswith(" ")]


def test_options_stand_in_groups():
    groups = headings("record")
    assert groups[:2] == ["What is recorded", "Who acts"]
    assert groups[-2:] == ["By hand", "Options"]
    shared = ["What is learned from", "The run", "Every method", "Policy"]
    own = ["Imitation", "Expert queries (DAgger)", "This method", "Adaptation", "Options"]
    assert headings("meta-train") == [*shared, *own]
    other = ["Imitation", "This method", "Options"]
    assert headings("meta-train", "--method", "task-inference") == [*shared, *other]
    assert headings("filter") == ["Options"]


@pytest.mark.parametrize("name", ["record", "meta-train", "train-expert"])
def test_every_option_is_in_the_help_once(name):
    command = main.get_command(click.Context(main), name)
    _, _, options = run(name, "--help").stdout.partition(":\n")  # behind the first heading
    shown = re.findall(r"(?m)^  (-\S+)", options)
    params = command.get_params(click.Context(command, help_option_names=["-h", "--help"]))
    known = [param.opts[0] for param in params if isinstance(param, click.Option)]
    assert sorted(word.rstrip(",") for word in shown) == sorted(known)


def test_share_register(dataset, tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "root"))
    assert (
        "Registered demokit/point/a-v0"
        in run("share", "register", dataset, "demokit/point/a-v0").stdout
    )
    assert "4 (80 steps)" in run("inspect", "demokit/point/a-v0").stdout
    assert "is taken" in run("share", "register", dataset, "demokit/point/a-v0", code=1).stderr


def one_sentence(result):
    """What the user reads, without click's usage lines."""
    lines = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1, result.stderr
    return lines[0]


def broken(kind, dataset, folder):
    """A path that cannot be inspected."""
    path = folder / "broken.hdf5"
    if kind == "text":
        path.write_text("x")
    elif kind == "truncated":
        path.write_bytes(dataset.read_bytes()[:-1000])
    elif kind == "folder":
        path.mkdir()
    elif kind == "foreign":
        h5py.File(path, "w").close()
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "no dataset at"),
        ("text", "not an HDF5 file"),
        ("truncated", "truncated"),
        ("folder", "is a directory"),
        ("foreign", "not a demokit dataset"),
    ],
)
def test_unusable_datasets(kind, message, dataset, tmp_path):
    assert message in one_sentence(run("inspect", broken(kind, dataset, tmp_path), code=1))


def test_inspecting_what_is_not_there(dataset):
    assert "no episode 9" in one_sentence(run("inspect", dataset, "--episode", 9, code=1))
    assert "neither as a path" in one_sentence(run("inspect", "demokit/none/x-v0", code=1))


def test_zero_episodes_can_be_inspected_but_not_shared(dataset):
    with h5py.File(dataset, "r+") as file:
        for name in list(file):
            del file[name]
        file.attrs["total_episodes"] = 0
    assert "0 (0 steps)" in run("inspect", dataset).stdout
    result = run("share", "register", dataset, "demokit/point/a-v0", code=1)
    assert "has no episodes" in one_sentence(result)


def test_an_existing_output_is_not_touched(dataset):
    before = dataset.read_bytes()
    assert "pass --resume" in one_sentence(record(dataset, code=1))
    assert dataset.read_bytes() == before
    assert not dataset.with_suffix(".hdf5.partial").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (("--noise", 0.5), "pass --noise 0.2"),
        (("--reward", "sparse"), "pass --reward dense"),
        (("--seed", 3), "pass --seed 0"),
        (("--tasks", 3), "other tasks: pass the same --tasks"),
        (("--task-set", "ood"), "pass --task-set uniform"),
        (("--only-success",), "leave out --only-success"),
    ],
)
def test_resuming_with_another_set_up(dataset, changes, message):
    before = dataset.read_bytes()
    assert message in one_sentence(record(dataset, "--resume", *changes, code=1))
    assert dataset.read_bytes() == before


def test_a_dataset_of_another_family_is_not_extended(dataset):
    before = dataset.read_bytes()
    sentence = one_sentence(record(dataset, "--resume", env="push", code=1))
    assert "recorded with family point, not push: pass --env point" in sentence
    assert dataset.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("recrod",), 2, "did you mean 'record'?"),
        (("record",), 2, "Missing option '--env'"),
        (("record", "--env", "pont"), 1, "did you mean 'point'?"),
        (("envs", "dor"), 1, "did you mean 'door'?"),
        (("record", "--env", "point", "--expert", "scriptd"), 1, "did you mean 'scripted'?"),
        (("record", "--env", "point", "--num-episodes", "0"), 2, "0 is not in the range"),
        (("record", "--env", "point", "--num-episodes", "x"), 2, "is not a valid integer"),
        (("record", "--env", "point", "--noise", "-1"), 2, "is not in the range"),
        (("record", "--env", "point", "--noise", "nan"), 2, "nan is not a finite number"),
        (("record", "--env", "point", "--reward", "shaped"), 2, "'dense', 'sparse'"),
        (("record", "--env", "point", "--nmu-episodes", "3"), 2, "--num-episodes"),
        (("record", "--env", "point", "--task-set", "paper"), 1, "known: ood, uniform"),
        (("record", "--env", "point", "--split", "trian"), 1, "did you mean 'train'?"),
        (("record", "--env", "point", "--resume", "--overwrite"), 2, "choose one"),
        (("record", "--env", "point", "--out", "a.txt"), 1, "must be named NAME.hdf5"),
        (("record", "--env", "point", "--out", "."), 1, "must be named NAME.hdf5"),
        (
            ("record", "--env", "point", "--num-episodes", "3", "--episodes-per-task", "1"),
            2,
            "not both",
        ),
    ],
)
def test_wrong_arguments(arguments, code, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in one_sentence(run(*arguments, code=code))
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("kept")
    assert "Cannot write" in one_sentence(record(tmp_path / "file" / "a.hdf5", code=1))
    assert (tmp_path / "file").read_text() == "kept"


def config(tmp_path, text):
    path = tmp_path / "record.toml"
    path.write_text(text)
    return path


def test_config_gives_options_and_the_command_line_wins(tmp_path):
    path = config(tmp_path, 'env = "point"\nnum_episodes = 3\nnoise = 0.0\nonly-success = true\n')
    out = tmp_path / "a.hdf5"
    run("record", "--config", path, "--out", out, "--noise", 0.1)
    dataset = open_dataset(out)
    assert len(dataset) == 3
    assert dataset.metadata.provenance.noise_std == 0.1
    assert dataset.metadata.provenance.only_success
    run("record", "--config", path, "--out", out, "--overwrite", "--episodes-per-task", 1)
    assert len(open_dataset(out)) == 20


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("num-episode = 3", "unknown option 'num-episode': did you mean 'num-episodes'?"),
        ("num_episodes = 2.5", "not a valid integer"),
        ("num_episodes = true", "not a valid integer"),
        ("num_episodes = [1, 2]", "is a list"),
        ("only_success = 3", "not a valid boolean"),
        ("[record]\nseed = 1", "unknown option 'record'"),
        ("[seed]\na = 1", "is a table"),
        ("seed = ", "not valid TOML"),
        ("help = true", "unknown option 'help'"),
        pytest.param(f"seed = {'[' * 10**5}", "not valid TOML", id="deep"),
        pytest.param(f"seed = 0x{'f' * 5000}", "too long a number", id="digits"),
        pytest.param(f"# {'x' * 2**20}", "more than 1 MiB", id="long"),
        ("countdown = 2.0", "--countdown in the --config file means nothing without --device"),
        ('camera = "policy"', "--camera in the --config file means nothing without --observation"),
        ('device = "web"\nnoise = 0.2', "--noise in the --config file means nothing with --device"),
    ],
)
def test_a_wrong_config(tmp_path, text, message):
    out = tmp_path / "a.hdf5"
    result = run(
        "record", "--env", "point", "--out", out, "--config", config(tmp_path, text), code=2
    )
    assert message in one_sentence(result)
    assert not out.exists()


def test_ctrl_c_keeps_what_is_saved_and_says_how_to_go_on(tmp_path):
    out = tmp_path / "a.hdf5"
    arguments = ["record", "--env", "point", "--num-episodes", "5000", "--out", str(out)]
    process = subprocess.Popen(
        [DEMOKIT, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's `&` ignores it
    )
    assert "saved" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    saved = len(open_dataset(out))
    # Ctrl-C may come when the last episode is durable already, and not yet counted.
    said = [f"\n{num} of 5000 episodes are saved; go on" for num in (saved, saved - 1)]
    assert any(text in errors for text in said)
    assert "--resume" in errors
    assert errors.rstrip().endswith("Interrupted.")
    assert "Traceback" not in errors


def test_a_config_without_end_is_not_read_to_its_end():
    result = run("record", "--config", "/dev/zero", code=2)
    assert "more than 1 MiB" in one_sentence(result)


def test_a_config_may_come_through_a_pipe(tmp_path):
    reading, writing = os.pipe()
    os.write(writing, b'env = "point"\nnum_episodes = 3\n')
    os.close(writing)
    run("record", "--config", f"/dev/fd/{reading}", "--out", tmp_path / "a.hdf5")
    os.close(reading)
    assert len(open_dataset(tmp_path / "a.hdf5")) == 3


@pytest.mark.parametrize("stream", [1, 2])
def test_a_stream_that_is_closed_keeps_nothing(stream, tmp_path):
    done = subprocess.run(
        [DEMOKIT, "list"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        preexec_fn=lambda: os.close(stream),
    )
    assert done.returncode == 0
    assert "Traceback" not in done.stdout + done.stderr
