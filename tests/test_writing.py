"""Whole files: the old one or the new one, read back before it counts, and nothing else left."""

import errno
import os
import signal
import subprocess
import sys
from time import monotonic

import pytest

from demokit import writing
from demokit.errors import DemokitError
from demokit.writing import (
    Together,
    aside_of,
    explain_write,
    replaced,
    replaced_folder,
    write_whole,
)


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


def write_together(*paths, check=sound):
    with Together() as together:
        for path in paths:
            with replaced(path, "make room.", check, together=together) as aside:
                aside.write_text("new")


@pytest.fixture
def pair(tmp_path):
    """Three files, the second of which is not there yet."""
    paths = [tmp_path / name for name in ("a", "b", "c")]
    paths[0].write_text("old")
    paths[2].write_text("old")
    return paths


def test_files_are_replaced_together(pair, tmp_path):
    write_together(*pair)
    assert [path.read_text() for path in pair] == ["new"] * 3
    assert names(tmp_path) == ["a", "b", "c"]


@pytest.mark.parametrize("unsound", ["a", "b", "c"])
def test_all_files_are_checked_before_one_is_replaced(unsound, pair, tmp_path):
    def check(aside):
        if aside.name.startswith(unsound):
            never(aside)

    with pytest.raises(DemokitError, match="not sound"):
        write_together(*pair, check=check)
    assert (pair[0].read_text(), pair[2].read_text()) == ("old", "old")
    assert names(tmp_path) == ["a", "c"]


@pytest.mark.parametrize("fault", [OSError(errno.EIO, "x"), KeyboardInterrupt()])
@pytest.mark.parametrize("links", [True, False])
def test_files_give_their_places_back(fault, links, pair, tmp_path, monkeypatch):
    """A file system without hard links keeps no second name of what was there."""
    replace = os.replace

    def refuse(old, new):
        if new == pair[2] and old.read_text() == "new":
            raise fault
        replace(old, new)

    def no_links(*_):
        raise OSError(errno.EPERM, "x")

    monkeypatch.setattr(os, "replace", refuse)
    if not links:
        monkeypatch.setattr(os, "link", no_links)
    with pytest.raises((DemokitError, KeyboardInterrupt)) as caught:
        write_together(*pair)
    if isinstance(fault, OSError):
        said = f"Cannot write {pair[2]} (input/output error): make room."
        assert str(caught.value) == said
    assert pair[0].read_text() == ("old" if links else "new")
    assert pair[2].read_text() == "old"
    assert names(tmp_path) == (["a", "c"] if links else ["a", "b", "c"])


@pytest.fixture(params=[True, False], ids=["exchanged", "renamed"])
def exchanges(request, monkeypatch):
    """Whether the system exchanges two folders at once."""
    if not request.param:
        monkeypatch.setattr(writing, "_exchange", lambda *_: False)
    return request.param


@pytest.mark.usefixtures("exchanges")
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


@pytest.mark.parametrize("fault", [OSError(errno.EIO, "Input/output error"), KeyboardInterrupt()])
def test_a_folder_that_cannot_be_renamed_stays(fault, tmp_path, monkeypatch):
    path = tmp_path / "out"
    path.mkdir()
    (path / "mine.txt").write_text("old")

    def refuse(*_):
        raise fault

    monkeypatch.setattr(writing, "_exchange", lambda *_: False)
    monkeypatch.setattr(os, "replace", refuse)
    with (
        pytest.raises((DemokitError, KeyboardInterrupt)) as caught,
        replaced_folder(path, "make room.", sound) as aside,
    ):
        aside.mkdir()
    if isinstance(fault, OSError):
        assert str(caught.value).endswith("(input/output error): make room.")
    assert (path / "mine.txt").read_text() == "old"
    assert names(tmp_path) == ["out"]


def test_where_the_system_can_two_folders_change_places_at_once(tmp_path, monkeypatch):
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    (one / "a.txt").write_text("mine")
    if not writing._exchange(one, other):
        pytest.skip("this system cannot")
    assert (other / "a.txt").read_text() == "mine"
    assert not writing._exchange(one, tmp_path / "nothing")
    monkeypatch.setattr(type(one), "rename", never)  # then there is no moment without a folder
    with replaced_folder(other, "make room.", sound) as aside:
        aside.mkdir()
    assert names(other) == []


KILLED_FOLDER = """
import os, signal, sys
from pathlib import Path
from demokit import writing

def kill(*_):
    os.kill(os.getpid(), signal.SIGKILL)

writing._exchange = lambda *_: False
if sys.argv[2] == "between":
    os.replace = kill
with writing.replaced_folder(Path(sys.argv[1]), "", lambda _: None) as aside:
    aside.mkdir()
    if sys.argv[2] == "before":
        kill()
"""


@pytest.mark.parametrize("moment", ["before", "between"])
def test_no_folder_is_lost_with_a_killed_writer(moment, tmp_path):
    """What it moved away stands beside, and the next writer puts it back."""
    path = tmp_path / "out"
    path.mkdir()
    (path / "mine.txt").write_text("old")
    killed = subprocess.run([sys.executable, "-c", KILLED_FOLDER, path, moment], check=False)
    assert killed.returncode == -signal.SIGKILL
    (kept,) = [path] if moment == "before" else tmp_path.glob("out.*.old")
    assert (kept / "mine.txt").read_text() == "old"
    assert path.exists() == (moment == "before")
    with (
        pytest.raises(DemokitError, match="not sound"),
        replaced_folder(path, "make room.", never) as aside,
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
