"""One process writes a place, and others are told which."""

import errno
import fcntl
import json
import os
import re
import signal
import subprocess
import sys

import pytest

from demokit.errors import DemokitError
from demokit.lock import Lock, lock_file, require_unlocked, said_in

HOLDER = """
import sys, time
from pathlib import Path
from demokit.lock import Lock
sys.argv = ["/somewhere/demokit", "record", "--env", "push"]
lock = Lock(Path({place!r}), "choose another.")
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock of a place."""
    place = tmp_path / "a.hdf5"
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER.format(place=str(place))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    yield place, process
    process.kill()
    process.communicate()


def test_who_holds_it_is_said(holder):
    place, process = holder
    who = (
        rf"{re.escape(str(place))} is being written by process {process.pid} "
        r"\(`demokit record --env push`, since 2\d{3}-\d\d-\d\dT[^)]*\): wait until it ends"
    )
    with pytest.raises(DemokitError, match=rf"^{who}, or choose another\.$"):
        Lock(place, "choose another.")
    with pytest.raises(DemokitError, match=rf"^{who}\.$"):
        require_unlocked(place)


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, None])
def test_it_ends_with_its_process_however_that_ends(holder, end):
    place, process = holder
    if end is None:
        process.communicate("")
        assert not lock_file(place).exists()
    else:
        process.send_signal(end)
        process.wait()
    require_unlocked(place)
    with Lock(place, "choose another."):
        assert json.loads(lock_file(place).read_text())["process"] == os.getpid()
    assert not lock_file(place).exists()


def test_a_link_leads_to_the_same_lock(holder):
    place, _ = holder
    place.touch()
    link = place.with_name("link.hdf5")
    link.symlink_to(place)
    with pytest.raises(DemokitError, match="is being written by process"):
        Lock(link, "choose another.")


def test_whoever_waited_at_a_removed_lock_takes_the_next(tmp_path, monkeypatch):
    """Between opening and locking, the holder may have removed the file."""
    place = tmp_path / "a"
    seen = []
    opened = os.open

    def then_removed(path, *more):
        handle = opened(path, *more)
        if not seen:
            os.unlink(path)
        seen.append(path)
        return handle

    monkeypatch.setattr(os, "open", then_removed)
    with Lock(place, "choose another."):
        assert len(seen) == 2
        with pytest.raises(DemokitError, match="is being written"):
            Lock(place, "choose another.")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"process": 1}', "9" * 10**6, "\x00", '"a"'])
def test_what_stands_in_it_is_only_shown(tmp_path, content):
    place = tmp_path / "a"
    with Lock(place, "choose another."):
        lock_file(place).write_text(content)
        with pytest.raises(DemokitError, match="is being written by another process: wait until"):
            Lock(place, "choose another.")


def test_nothing_in_it_reaches_the_terminal_raw(tmp_path):
    place = tmp_path / "a"
    with Lock(place, "choose another."):
        said = {"process": 1, "command": "\x1b]0;x\x07\u202e" + "y" * 3000, "since": "now\n"}
        lock_file(place).write_text(json.dumps(said))
        with pytest.raises(DemokitError) as caught:
            Lock(place, "choose another.")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000


def test_a_pipe_in_its_place_is_not_waited_for(tmp_path):
    place = tmp_path / "a"
    os.mkfifo(lock_file(place))
    require_unlocked(place)


def test_a_copy_of_the_process_does_not_let_go(tmp_path):
    place = tmp_path / "a"
    with Lock(place, "choose another.") as held:
        child = os.fork()
        if child == 0:
            held.release()
            os._exit(0)
        os.waitpid(child, 0)
        with pytest.raises(DemokitError, match="is being written"):
            Lock(place, "choose another.")


def test_inside_a_folder(tmp_path):
    folder = tmp_path / "run"
    with Lock(folder, "name another.", inside=True):
        assert [path.name for path in folder.iterdir()] == [".lock"]
    assert list(folder.iterdir()) == []


def test_looking_at_it_keeps_nobody_from_it(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    for place, file, inside in ((tmp_path / "a", "a.lock", False), (folder, "run/.lock", True)):
        folder.mkdir(exist_ok=True)
        with (tmp_path / file).open("w") as looked_at:
            fcntl.flock(looked_at, fcntl.LOCK_SH)
            require_unlocked(place)
            assert said_in(place) is None

            def look_away(_, handle=looked_at):
                fcntl.flock(handle, fcntl.LOCK_UN)

            monkeypatch.setattr("demokit.lock.sleep", look_away)
            with Lock(place, "choose another.", inside=inside):
                pass


def test_it_is_seen_where_only_files_open_for_writing_can_be_locked(holder, tmp_path, monkeypatch):
    """As on NFS."""
    flock = fcntl.flock

    def of_nfs(handle, how):
        writes = fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_RDWR
        if how & fcntl.LOCK_EX and not writes:
            raise OSError(errno.EBADF, "as NFS says")
        flock(handle, how)

    monkeypatch.setattr(fcntl, "flock", of_nfs)
    with pytest.raises(DemokitError, match="is being written by process"):
        require_unlocked(holder[0])
    with Lock(tmp_path / "run", "choose another.", inside=True):
        assert said_in(tmp_path / "run")["process"] == os.getpid()
    assert said_in(tmp_path / "run") is None


def test_the_lock_of_another_stays_where_ours_was_removed(tmp_path):
    place = tmp_path / "a"
    removed = Lock(place, "choose another.")
    lock_file(place).unlink()
    with Lock(place, "choose another."):
        removed.release()
        with pytest.raises(DemokitError, match="is being written"):
            Lock(place, "choose another.")
    assert not lock_file(place).exists()
