"""Whole files: the old one or the new one, read back before it counts, and nothing else left."""

import errno
import os
import signal
import subprocess
import sys
from time import monotonic

import pytest

from demokit.errors import DemokitError
from demokit.writing import aside_of, explain_write, replaced, replaced_folder, write_whole


def never(_):
    raise DemokitError("not sound")


def sound(_):
    pass


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("content", [b"", b"new", "text", "n\u00e4h\n"])
def test_a_file_is_replaced_whole(tmp_path, content):
    path = tmp_path / "some" / "a.txt"
    write_whole(path, content)
    write_whole(path, content)
    assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert names(path.parent) == ["a.txt"]


def test_what_is_no_character_is_spelled_out(tmp_path):
    write_whole(tmp_path / "a.txt", "b\udcff.hdf5")
    assert (tmp_path / "a.txt").read_bytes() == rb"b\udcff.hdf5"


@pytest.mark.parametrize("fault", ["check", "block", "disk"])
def test_a_file_that_is_not_sound_takes_nobody_s_place(tmp_path, fault, monkeypatch):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    if fault == "disk":
        monkeypatch.setattr(os, "fsync", full)

    def write(aside):
        aside.write_text("new")
        if fault == "block":
            never(aside)

    check = never if fault == "check" else sound
    with (
        pytest.raises(DemokitError, match=r"not sound|disk is full"),
        replaced(path, "make room.", check) as aside,
    ):
        write(aside)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_what_the_disk_changed_is_noticed(tmp_path, monkeypatch):
    """Read back, a file must be what was written."""
    path = tmp_path / "a.txt"
    path.write_text("old")
    sync = os.fsync

    def corrupt(handle):
        for aside in tmp_path.glob("a.txt.*.tmp"):
            os.truncate(aside, 2)
        sync(handle)

    monkeypatch.setattr(os, "fsync", corrupt)
    with pytest.raises(DemokitError, match=r"Cannot write .*a.txt \(input/output error\): wait."):
        write_whole(path, "new text", "wait.")
    assert path.read_text() == "old"


MANY = """
import sys
from pathlib import Path
from demokit.writing import write_whole
path, letter, num = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
for i in range(num):
    write_whole(path, letter * (1 + i * 997 % 50_000))
"""


def test_two_processes_may_write_one_file_at_once(tmp_path):
    """Whoever reads meanwhile finds what one of them wrote, whole."""
    path, num = tmp_path / "a.txt", 150
    write_whole(path, "a")
    whole = {1 + i * 997 % 50_000 for i in range(num)}
    writers = [
        subprocess.Popen([sys.executable, "-c", MANY, path, letter, str(num)]) for letter in "ab"
    ]
    seen, until = set(), monotonic() + 60
    while monotonic() < until and any(writer.poll() is None for writer in writers):
        found = path.read_text()
        assert len(found) in whole
        assert set(found) in ({"a"}, {"b"})
        seen.add(found[0])
    assert [writer.wait(60) for writer in writers] == [0, 0]
    assert seen == {"a", "b"}
    assert names(tmp_path) == ["a.txt"]


KILLED = """
import os, signal, sys
from pathlib import Path
from demokit.writing import replaced
with replaced(Path(sys.argv[1]), "", lambda _: None) as aside:
    aside.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_writer_left_goes_with_the_next_write(tmp_path):
    """What other files, or writers that still run, have there stays."""
    path = tmp_path / "a.txt"
    write_whole(path, "old")
    killed = subprocess.run([sys.executable, "-c", KILLED, path], check=False)
    assert killed.returncode == -signal.SIGKILL
    (left,) = tmp_path.glob("a.txt.*.tmp")
    assert path.read_text() == "old"
    stays = [aside_of(path), tmp_path / f"b{left.name}", tmp_path / "a.txt.notes.tmp"]
    for each in stays:
        each.write_text("mine")
    write_whole(path, "new")
    assert path.read_text() == "new"
    assert names(tmp_path) == sorted(["a.txt", *(each.name for each in stays)])


def test_a_name_may_be_as_long_as_the_system_lets_it(tmp_path):
    write_whole(tmp_path / ("a" * 255), "new")
    assert names(tmp_path) == ["a" * 255]


def test_a_link_stays_and_what_it_leads_to_is_replaced(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "a.txt").write_text("old")
    (tmp_path / "link.txt").symlink_to(tmp_path / "far" / "a.txt")
    write_whole(tmp_path / "link.txt", "new")
    assert (tmp_path / "link.txt").is_symlink()
    assert (tmp_path / "far" / "a.txt").read_text() == "new"
    assert names(tmp_path / "far") == ["a.txt"]


def test_a_pipe_or_a_device_is_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (pipe, tmp_path / "link"):
        if path != pipe:
            path.symlink_to(pipe)
        with pytest.raises(DemokitError, match=r"no file to replace: choose another\."):
            write_whole(path, "new", "choose another.")
    assert pipe.is_fifo()
    assert names(tmp_path) == ["link", "pipe"]


def test_missing_folders_are_made_only_where_they_may_be(tmp_path):
    with pytest.raises(DemokitError, match=r"\(no such file or directory\): start again\."):
        write_whole(tmp_path / "gone" / "a.txt", "new", "start again.", parents=False)
    assert names(tmp_path) == []


def test_a_folder_is_replaced_whole(tmp_path):
    path = tmp_path / "out"
    for content in ("old", "new"):
        with replaced_folder(path, "make room.", sound) as aside:
            (aside / "deep").mkdir(parents=True)
            (aside / "deep" / "a.txt").write_text(content)
    with (
        pytest.raises(DemokitError, match="not sound"),
        replaced_folder(path, "make room.", never) as aside,
    ):
        aside.mkdir()
    assert (path / "deep" / "a.txt").read_text() == "new"
    assert names(tmp_path) == ["out"]


def test_a_folder_that_cannot_be_renamed_stays(tmp_path, monkeypatch):
    path = tmp_path / "out"
    path.mkdir()
    (path / "mine.txt").write_text("old")

    def refuse(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "replace", refuse)
    with (
        pytest.raises(DemokitError, match=r"\(input/output error\): make room\."),
        replaced_folder(path, "make room.", sound) as aside,
    ):
        aside.mkdir()
    assert (path / "mine.txt").read_text() == "old"
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "x"), "the disk is full"),
        (OSError(errno.EDQUOT, "x"), "the disk is full"),
        (OSError(errno.EMFILE, "x"), "too many open files, see `ulimit -n`"),
        (OSError(errno.EACCES, "x"), "permission denied"),
        (RuntimeError("HDF5: errno = 28, error message = 'x'"), "the disk is full"),
        (RuntimeError("first line\nsecond"), "first line"),
        (UnicodeEncodeError("utf-8", "\udcff", 0, 1, "x"), "its name is not UTF-8"),
    ],
)
def test_every_refusal_is_one_sentence(tmp_path, error, said):
    path = tmp_path / "a"
    with pytest.raises(DemokitError) as caught, explain_write(path, "make room."):
        raise error
    assert str(caught.value) == f"Cannot write {path} ({said}): make room."


def test_the_first_error_counts(tmp_path):
    """HDF5 fails once more when it closes what it could not write."""

    def write():
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        finally:
            raise RuntimeError("cannot close the file")

    with (
        pytest.raises(DemokitError, match=r"\(the disk is full\)"),
        explain_write(tmp_path / "a", "make room."),
    ):
        write()
