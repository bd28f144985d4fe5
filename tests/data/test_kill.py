"""kill -9 at random moments of recording, merging and repair: nothing that was saved is lost."""

import contextlib
import os
import random
import signal
import time
from dataclasses import replace
from pathlib import Path

import h5py
import pytest

from demokit.data import DatasetWriter, from_arrays, open_dataset
from demokit.data.edit import merge
from demokit.data.repair import repair
from demokit.data.store import STATE_FILE, staging_folder
from demokit.data.validation import validate
from demokit.errors import DemokitError

EPISODES = 24


def killed_after(seconds, action):
    """Run `action` in a process of its own and kill it; returns what it wrote to its pipe.

    After no seconds, where it ends by itself.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        # Whatever happens, pytest must not go on in the child.
        with contextlib.suppress(BaseException):
            action(writer)
        os._exit(0)
    os.close(writer)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with os.fdopen(reader, "rb") as pipe:
        return pipe.read()


def duration(action):
    begun = time.monotonic()
    action(None)
    return time.monotonic() - begun


@pytest.fixture
def episodes(make_episode):
    made = (make_episode(index, steps=20) for index in range(EPISODES))
    return [replace(each, success=bool(each.privileged["success"][-1])) for each in made]


def record(path, metadata, episodes, told):
    with DatasetWriter(path, metadata, resume=True) as writer:
        for episode in episodes[len(writer) :]:
            writer.add(episode)
            if told is not None:
                os.write(told, b".")
        writer.finish()


def write(path, metadata, episodes):
    record(path, metadata, episodes, None)
    return path


def saved(path):
    """How many episodes can be read; none where not even the first steps were done."""
    begun = path.exists() or (staging_folder(path) / STATE_FILE).exists()
    return len(open_dataset(path)) if begun else 0


KILLS = pytest.mark.parametrize(
    "share", [pytest.param(0.1, id="short"), pytest.param(1.0, id="long", marks=pytest.mark.slow)]
)


@KILLS
def test_recording(tmp_path, metadata, episodes, share):
    rng = random.Random(11)
    whole = duration(lambda _: write(tmp_path / "whole.hdf5", metadata, episodes))
    for kill in range(round(40 * share)):
        path = tmp_path / f"{kill}.hdf5"
        told = killed_after(
            rng.uniform(0, whole), lambda pipe, path=path: record(path, metadata, episodes, pipe)
        )
        found = saved(path)
        assert found >= len(told)
        assert found == 0 or validate(path).ok
        write(path, metadata, episodes)
        assert [r.seed for r in open_dataset(path).episodes] == [e.seed for e in episodes]
        assert validate(path).ok
        assert not staging_folder(path).exists()


def test_what_was_to_be_replaced_is_not_extended(tmp_path, metadata, episodes):
    path = write(tmp_path / "a.hdf5", metadata, episodes[:2])
    before = path.read_bytes()

    def replaced(_):
        with DatasetWriter(path, metadata, overwrite=True):
            os.kill(os.getpid(), signal.SIGKILL)

    killed_after(None, replaced)
    for begin in (DatasetWriter.check, lambda *_, **how: DatasetWriter(path, metadata, **how)):
        with pytest.raises(DemokitError, match="before its first episode: begin it again with"):
            begin(path, resume=True)
    assert path.read_bytes() == before
    with DatasetWriter(path, metadata, overwrite=True) as writer:
        writer.add(episodes[0])
        writer.finish()
    write(path, metadata, episodes[:2])
    assert len(open_dataset(path)) == 2


@KILLS
def test_merging(tmp_path, metadata, episodes, share):
    rng = random.Random(12)
    half = EPISODES // 2
    sources = [
        write(tmp_path / "a.hdf5", metadata, episodes[:half]),
        write(tmp_path / "b.hdf5", metadata, episodes[half:]),
    ]
    before = [source.read_bytes() for source in sources]
    out = tmp_path / "out" / "merged.hdf5"
    whole = duration(lambda _: merge(sources, tmp_path / "whole.hdf5"))
    for _ in range(round(30 * share)):
        killed_after(rng.uniform(0, whole), lambda _: merge(sources, out, overwrite=True))
        assert [source.read_bytes() for source in sources] == before
        assert not out.exists() or validate(out).ok
    assert merge(sources, out, overwrite=True).episodes == EPISODES
    assert [path.name for path in out.parent.iterdir()] == [out.name]


class KilledWithin:
    """Episodes as `from_arrays` takes them; its process ends when they are half written."""

    def __init__(self):
        self.passes = 0

    def __iter__(self):
        self.passes += 1
        for index in range(EPISODES):
            if self.passes == 2 and index == EPISODES // 2:
                os.kill(os.getpid(), signal.SIGKILL)
            yield {"observations": [[index], [0]], "actions": [0.5]}


@pytest.mark.parametrize("there", [False, True])
def test_half_an_import_is_no_dataset_and_in_nobodys_way(tmp_path, there):
    path = tmp_path / "a.hdf5"
    before = [{"observations": [[0], [1]], "actions": [0]}]
    if there:
        from_arrays(path, before)
    killed_after(None, lambda _: from_arrays(path, KilledWithin(), overwrite=True))
    assert len(list(staging_folder(path).glob("episode_*"))) == EPISODES // 2
    for look in (open_dataset, validate, repair):
        if there:
            look(path)
        else:
            with pytest.raises(DemokitError, match=r"not there yet.*make it again"):
                look(path)
    assert (len(open_dataset(path)) == 1) if there else not path.exists()
    assert len(from_arrays(path, before * 3, overwrite=there)) == 3
    assert list(tmp_path.iterdir()) == [path]


@KILLS
def test_repair(tmp_path, metadata, episodes, share):
    rng = random.Random(13)
    path = write(tmp_path / "a.hdf5", metadata, episodes)
    with h5py.File(path, "r+") as file:
        for index in (3, 9):
            file[f"episode_{index}/rewards"][0] += 1
    damaged = path.read_bytes()
    whole = duration(lambda _: repair(path, out=tmp_path / "whole.hdf5"))
    for _ in range(round(30 * share)):
        path.write_bytes(damaged)
        killed_after(rng.uniform(0, whole), lambda _: repair(path))
        assert path.read_bytes() == damaged or validate(path).ok
        assert repair(path).kept == EPISODES - 2
        assert sorted(Path(tmp_path).glob("a.hdf5*")) == [path]
