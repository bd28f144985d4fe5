"""Episodes edited while they are played: what the buttons ask for, and what is written when."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from demokit.cli import main
from demokit.data import open_dataset
from demokit.view.editing import Editing

ROWS = 21  # of an episode of point: 20 steps


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    path = tmp_path_factory.mktemp("recorded") / "a.hdf5"
    words = ["record", "--env", "point", "--tasks", "2", "--episodes-per-task", "2"]
    done = CliRunner().invoke(main, [*words, "--out", str(path)])
    assert done.exit_code == 0, done.output
    return path


@pytest.fixture
def editing(recorded, tmp_path):
    with open_dataset(recorded) as dataset:
        tasks = [record.task.id for record in dataset.episodes]
    return Editing(str(recorded), tmp_path / "b.hdf5", range(4), tasks)


def do(editing, *pushes):
    for button, clip, row in pushes:
        editing.push(button, clip, row, ROWS)


EDITS = [
    ("failure", 0, 0),
    ("cut before", 1, 4),
    ("cut after", 1, 12),
    ("drop", 2, 0),
    ("success", 3, 0),
    ("drop", 3, 0),
    ("undo", 3, 0),
]


def test_nothing_is_written_before_it_is_asked_for(editing, recorded, tmp_path):
    before = recorded.read_bytes()
    do(editing, *EDITS)
    assert list(tmp_path.iterdir()) == []
    assert editing.unsaved
    assert editing.words(1) == [
        ("edit", "steps 4:12 kept"),
        ("not saved", "3 episodes changed; save writes b.hdf5"),
    ]
    do(editing, ("save", 0, 0))
    assert not editing.unsaved
    assert editing.words(2) == [("edit", "dropped"), ("", "saved: 3 episodes in b.hdf5")]
    assert recorded.read_bytes() == before
    with open_dataset(tmp_path / "b.hdf5") as saved:
        assert [record.length for record in saved.episodes] == [20, 8, 20]
        assert not saved.episodes[0].success
        assert saved[0].options["success_marked"]
        assert saved.metadata.sources[0].edit == "filter --drop 2 --trim 1=4:12 --mark-failure 0"


def test_a_task_is_renamed(editing, recorded, tmp_path):
    editing.push("rename task", 2, 0, ROWS, " my/corner ")
    assert editing.words(2) == [
        ("renamed", "my/corner"),
        ("not saved", "1 task changed; save writes b.hdf5"),
    ]
    assert "--rename-task" in editing.command()
    do(editing, ("save", 0, 0))
    assert not editing.unsaved
    with open_dataset(recorded) as before, open_dataset(tmp_path / "b.hdf5") as after:
        old = before.episodes[2].task.id
        names = [record.task.id for record in before.episodes]
        renamed = ["my/corner" if name == old else name for name in names]
        assert [record.task.id for record in after.episodes] == renamed
    for text in ("", old):
        editing.push("rename task", 2, 0, ROWS, text)
        assert editing.words(2)[0][0] == "not saved"
        editing.push("rename task", 2, 0, ROWS, "my/corner")
        assert not editing.unsaved
    do(editing, ("undo", 2, 0))
    assert editing.words(2) == [("not saved", "0 episodes changed; save writes b.hdf5")]


def test_a_task_that_is_dropped_needs_no_name(editing, tmp_path):
    editing.push("rename task", 0, 0, ROWS, "my/corner")
    gone = [clip for clip in range(4) if editing.words(clip)[0] == ("renamed", "my/corner")]
    do(editing, *[("drop", clip, 0) for clip in gone], ("save", 0, 0))
    assert "saved: 2 episodes" in editing.words(0)[-1][1]
    with open_dataset(tmp_path / "b.hdf5") as saved:
        assert [task.id for task in saved.metadata.tasks] != ["my/corner"]


def test_a_name_of_two_tasks_is_not_saved(editing, recorded, tmp_path):
    with open_dataset(recorded) as dataset:
        one, other = dict.fromkeys(record.task.id for record in dataset.episodes)
        clip = [record.task.id for record in dataset.episodes].index(one)
    editing.push("rename task", clip, 0, ROWS, other)
    do(editing, ("save", 0, 0))
    assert "would name two tasks" in editing.words(0)[-1][1]
    assert list(tmp_path.iterdir()) == []


def test_the_command_does_the_same(editing, tmp_path):
    do(editing, *EDITS)
    words = shlex.split(editing.command())
    assert words[0] == "demokit"
    done = CliRunner().invoke(main, words[1:])
    assert done.exit_code == 0, done.output
    with open_dataset(tmp_path / "b.hdf5") as saved:
        assert [record.length for record in saved.episodes] == [20, 8, 20]


def test_saved_again_it_takes_its_own_place_and_no_other(editing, tmp_path):
    (tmp_path / "b.hdf5").write_text("somebody's")
    do(editing, ("drop", 0, 0), ("save", 0, 0))
    assert "not saved" in editing.words(0)[-1][1]
    assert "b.hdf5 exists" in editing.words(0)[-1][1]
    assert editing.unsaved
    (tmp_path / "b.hdf5").unlink()
    do(editing, ("save", 0, 0), ("drop", 1, 0), ("save", 1, 0))
    assert editing.words(1)[-1] == ("", "saved: 2 episodes in b.hdf5")
    do(editing, ("save", 1, 0))
    assert editing.words(1)[-1] == ("", "nothing has changed: there is nothing to save")


def test_without_a_name_it_takes_one_that_is_free_when_it_is_saved(recorded, tmp_path):
    source = Path(shutil.copy(recorded, tmp_path / "a.hdf5"))
    one, other = (Editing(str(source), None, range(4), ["t"] * 4) for _ in range(2))
    for editing in (one, other):
        do(editing, ("drop", 0, 0), ("save", 0, 0))
        assert "saved: 3 episodes" in editing.words(0)[-1][1]
    do(one, ("drop", 1, 0), ("save", 0, 0))
    lengths = {}
    for path in tmp_path.glob("a-*.hdf5"):
        with open_dataset(path) as saved:
            lengths[path.name] = len(saved)
    assert lengths == {"a-edited.hdf5": 2, "a-edited-2.hdf5": 3}


def test_the_command_goes_on_from_what_was_saved(editing, tmp_path):
    do(editing, ("drop", 0, 0), ("save", 0, 0), ("drop", 1, 0))
    done = CliRunner().invoke(main, shlex.split(editing.command())[1:])
    assert done.exit_code == 0, done.output
    with open_dataset(tmp_path / "b.hdf5") as saved:
        assert len(saved) == 2


def test_dropped_and_taken_back_it_is_as_it_was(editing):
    do(editing, ("failure", 0, 0), ("cut after", 0, 9), ("drop", 0, 0), ("drop", 0, 0))
    assert editing.words(0)[0] == ("edit", "marked a failure, steps 0:9 kept")


@pytest.mark.parametrize("name", ["b.txt", "b.hdf5/c.hdf5"])
def test_a_name_that_cannot_be_saved_to_is_found_at_once(name, recorded, tmp_path):
    (tmp_path / "b.hdf5").touch()
    words = ["replay", recorded, "--view", "web", "--out", tmp_path / name]
    done = CliRunner().invoke(main, [str(word) for word in words])
    assert done.exit_code == 1
    assert re.search("must be named NAME.hdf5|Cannot write", done.output)


def test_a_long_command_is_said_whole(recorded, monkeypatch):
    name = "x" * 5000

    def play(_, __, ___, ____, editing):
        editing.push("rename task", 0, 0, ROWS, name)

    monkeypatch.setattr("demokit.cli.view.play", play)
    done = CliRunner().invoke(main, ["replay", str(recorded), "--view", "web"])
    assert shlex.split(done.stderr.split("saves it: ")[1])[-1] == name


def test_a_cut_leaves_something(editing):
    do(editing, ("cut after", 0, 0))
    assert editing.words(0) == [
        ("", "nothing would be left: pause where it should be cut, then cut")
    ]
    do(editing, ("cut before", 0, 20))
    assert not editing.unsaved
    do(editing, ("cut after", 0, 20))  # the last state is there anyway
    assert not editing.unsaved
    do(editing, ("cut after", 0, 9), ("cut before", 0, 9))
    assert editing.words(0)[0] == ("edit", "steps 0:9 kept")


def test_every_episode_dropped_is_not_written(editing, tmp_path):
    do(editing, *[("drop", clip, 0) for clip in range(4)], ("save", 0, 0))
    assert editing.words(0)[-1][1].startswith("not saved: No episode of")
    assert list(tmp_path.iterdir()) == []
