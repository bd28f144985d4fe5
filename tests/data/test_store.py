"""The store: bit-for-bit round trips, laziness, safe writing, clear errors."""

import errno
import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from demokit.asked import in_command
from demokit.data import ArraySpec, DatasetMetadata, DatasetWriter, hdf5, open_dataset
from demokit.data.layout import digest
from demokit.data.store import staged_file, staging_folder
from demokit.data.summary import summarize
from demokit.errors import DemokitError
from demokit.types import Episode, Task
from demokit.writing import aside_of

IMAGE = ArraySpec((8, 9, 3), "uint8", 0, 255)


def write(path, metadata, episodes, **options):
    with DatasetWriter(path, metadata, **options) as writer:
        for episode in episodes:
            writer.add(episode)
        return writer.finish()


def assert_same(first: Episode, second: Episode) -> None:
    assert digest(first) == digest(second)
    for name in ("task", "seed", "success", "recorder"):
        assert getattr(first, name) == getattr(second, name)
    assert dict(first.options) == dict(second.options)
    assert isinstance(first.observations, Mapping) == isinstance(second.observations, Mapping)


def test_round_trip_is_exact(tmp_path, metadata, make_episode):
    episodes = [make_episode(i, steps=3 + i) for i in range(4)]
    path = write(tmp_path / "a.hdf5", metadata, episodes)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.hdf5"]
    with open_dataset(path) as dataset:
        assert dataset.metadata == metadata
        assert len(dataset) == 4
        assert not dataset.unfinished
        assert dataset.total_steps == 3 + 4 + 5 + 6
        for i, episode in enumerate(episodes):
            assert_same(dataset[i], episode)
            dataset.verify(i)
            record = dataset.episodes[i]
            assert (record.index, record.length, record.task) == (i, 3 + i, episode.task)
            assert record.episode_return == episode.rewards.sum()


def test_images_are_lossless_and_chunked_by_frame(tmp_path, metadata, make_episode):
    state = ArraySpec((4,), "float32", -np.inf, np.inf)
    about = replace(metadata, observation_space={"image": IMAGE, "state": state})
    rng = np.random.default_rng(0)
    observations = {
        "image": rng.integers(0, 256, (6, 8, 9, 3)).astype(np.uint8),
        "state": rng.normal(size=(6, 4)).astype(np.float32),
    }
    episode = make_episode(0, observations=observations)
    path = write(tmp_path / "a.hdf5", about, [episode])
    dataset = open_dataset(path)
    assert dataset.metadata == about
    assert_same(dataset[0], episode)
    with h5py.File(path) as file:
        image = file["episode_0/observations/image"]
        assert image.chunks == (1, 8, 9, 3)
        assert image.compression == "gzip"
        assert not file.attrs["jpeg_encoding"]


def test_large_spaces_fit_in_the_attributes(tmp_path, metadata, make_episode):
    spec = ArraySpec((48, 64, 3), "uint8", 0, 255)
    about = replace(metadata, observation_space=spec)
    images = np.zeros((6, 48, 64, 3), np.uint8)
    path = write(tmp_path / "a.hdf5", about, [make_episode(0, observations=images)])
    assert open_dataset(path).metadata.observation_space == spec


BROKEN = {
    "observations": lambda v: v[:-1],
    "actions": lambda v: v * 5,
    "rewards": lambda v: np.where(np.arange(len(v)) == 2, np.nan, v),
    "terminations": lambda v: np.arange(len(v)) == 1,
    "truncations": lambda v: v.astype(int),
    "privileged": lambda v: {k: a[:-1] for k, a in v.items()},
}


@pytest.mark.parametrize("field", BROKEN)
def test_an_unsound_episode_is_refused(make_episode, field):
    episode = make_episode(0)
    with pytest.raises(DemokitError):
        replace(episode, **{field: BROKEN[field](getattr(episode, field))})


@pytest.mark.parametrize(
    ("field", "value"), [("seed", 1.5), ("seed", 2**70), ("recorder", 3), ("recorder", "a\0")]
)
def test_who_recorded_is_checked(make_episode, field, value):
    with pytest.raises(DemokitError, match=f"Episode {field}: "):
        replace(make_episode(0), **{field: value})


@pytest.mark.parametrize("value", [None, b"x", "a\0b", ["a\0"], [{"a": 1}], {}, [1, "a"], 2**70])
def test_options_that_would_not_come_back_are_refused(tmp_path, metadata, make_episode, value):
    episode = replace(make_episode(0), options={"start": {"odd": value}})
    with DatasetWriter(tmp_path / "a.hdf5", metadata) as writer:
        with pytest.raises(DemokitError, match="option 'odd' is"):
            writer.add(episode)
        with pytest.raises(DemokitError, match="cannot name"):
            writer.add(replace(episode, options={3: 1}))
        options = {"names": ["a", "b"], "sizes": [1, 2], "none": [], "start": {"text": ""}}
        writer.add(replace(episode, options=options))
        open_dataset(writer.finish()).verify(0)


def test_a_closed_writer_says_so(tmp_path, metadata, make_episode):
    with DatasetWriter(tmp_path / "a.hdf5", metadata) as writer:
        writer.add(make_episode(0))
    with pytest.raises(DemokitError, match="is closed"):
        writer.add(make_episode(1))
    with DatasetWriter(tmp_path / "a.hdf5", metadata, resume=True) as writer:
        path = writer.finish()
        with pytest.raises(DemokitError, match="is closed"):
            writer.finish()
    assert list(tmp_path.iterdir()) == [path]


def test_episodes_are_named_by_their_number_and_tasks_by_what_differs(
    tmp_path, metadata, make_episode
):
    episodes = [make_episode(i) for i in range(3)]
    moved = replace(episodes[0].task, context=(9.0, 9.0))
    with DatasetWriter(tmp_path / "b.hdf5", metadata) as writer:
        with pytest.raises(DemokitError, match="has another context than the task of that id"):
            writer.add(replace(episodes[0], task=moved))
        with pytest.raises(DemokitError, match="is not one of the tasks"):
            writer.add(replace(episodes[0], task=replace(moved, id="point/new")))
    path = write(tmp_path / "a.hdf5", metadata, episodes)
    with h5py.File(path, "r+") as file:
        file["episode_2/rewards"][0] += 1
    with pytest.raises(DemokitError, match="Episode 2 of"):
        open_dataset(path).select([2]).verify(0)


@given(row=st.integers(0, 5), bad=st.sampled_from([np.nan, np.inf, -np.inf]))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_nothing_that_is_not_finite_gets_in(make_episode, row, bad):
    episode = make_episode(0)
    state = episode.privileged["state"].copy()
    state[row, 3] = bad
    with pytest.raises(
        DemokitError, match=f"state component 3: .* at step {row} of task {episode.task.id}"
    ):
        replace(episode, privileged={**episode.privileged, "state": state})


def test_windows_slices_and_selections(tmp_path, metadata, make_episode):
    path = write(tmp_path / "a.hdf5", metadata, [make_episode(i) for i in range(6)])
    dataset = open_dataset(path)
    rows = dataset.window(2, 1, 3, ["privileged/state", "actions"])
    assert set(rows) == {"privileged/state", "actions"}
    np.testing.assert_array_equal(rows["actions"], dataset[2].actions[1:3])
    np.testing.assert_array_equal(rows["privileged/state"], dataset[2].privileged["state"][1:3])
    middle = dataset[2:4]
    assert [record.index for record in middle.episodes] == [2, 3]
    assert_same(middle[-1], dataset[3])
    assert [len(e) for e in dataset.select([5, 0])] == [5, 5]
    with pytest.raises(DemokitError, match="has no array 'reward'"):
        dataset.window(0, 0, 1, ["reward"])
    with pytest.raises(DemokitError, match="no episode 6"):
        dataset[6]


def test_opening_reads_no_episode(tmp_path, metadata, make_episode, monkeypatch):
    path = write(tmp_path / "a.hdf5", metadata, [make_episode(i) for i in range(3)])
    reads = []
    real = hdf5._stored_bytes
    monkeypatch.setattr(
        hdf5,
        "_stored_bytes",
        lambda array: reads.append(h5py.h5i.get_name(array.data).decode()) or real(array),
    )
    dataset = open_dataset(path)
    assert len(dataset.episodes) == 3
    assert dataset.metadata.family == "point"
    assert reads == []
    dataset.window(1, 0, 2, ["actions"])
    assert set(reads) == {"/episode_1/actions"}
    reads.clear()
    dataset[0]
    assert {name.split("/")[1] for name in reads} == {"episode_0"}


def test_with_block_opens_the_file_once(tmp_path, metadata, make_episode, monkeypatch):
    path = write(tmp_path / "a.hdf5", metadata, [make_episode(i) for i in range(3)])
    opened = []
    real = h5py.File
    with open_dataset(path) as dataset:
        monkeypatch.setattr(h5py, "File", lambda *a, **k: opened.append(a) or real(*a, **k))
        assert len(list(dataset)) == len(dataset.episodes) == 3
        assert len(list(dataset.verified())) == 3  # a block within the block
        assert len(dataset.window(0, 0, 1)["actions"]) == 1
        assert opened == []
    dataset[0]
    assert len(opened) == 1


def test_a_changed_episode_is_found(tmp_path, metadata, make_episode):
    path = write(tmp_path / "a.hdf5", metadata, [make_episode(0)])
    with h5py.File(path, "r+") as file:
        file["episode_0/rewards"][1] += 1
    with pytest.raises(DemokitError, match="checksum"):
        open_dataset(path).verify(0)


def test_unfinished_recording_reads_what_is_saved(tmp_path, metadata, make_episode):
    path = tmp_path / "a.hdf5"
    with DatasetWriter(path, metadata) as writer:
        assert [writer.add(make_episode(i)) for i in range(2)] == [1, 2]
    assert not path.exists()
    for name in (path, staging_folder(path)):
        dataset = open_dataset(name)
        assert dataset.unfinished
        assert len(dataset) == 2
        assert_same(dataset[1], make_episode(1))
    assert summarize(dataset).size_bytes > 0
    with pytest.raises(DemokitError, match="2 saved episodes"):
        DatasetWriter(path, metadata)


def test_resume_continues_and_extends(tmp_path, metadata, make_episode):
    path = tmp_path / "a.hdf5"
    with DatasetWriter(path, metadata) as writer:
        writer.add(make_episode(0))
    later = replace(metadata, license="MIT", provenance=replace(metadata.provenance, created="x"))
    with DatasetWriter(path, later, resume=True) as writer:
        assert len(writer) == 1
        writer.add(make_episode(1))
        writer.finish()
    with DatasetWriter(path, metadata, resume=True) as writer:
        assert [record.index for record in writer.records] == [0, 1]
        writer.add(make_episode(2))
        assert len(open_dataset(path)) == 2
        writer.finish()
    dataset = open_dataset(path)
    assert [record.index for record in dataset.episodes] == [0, 1, 2]
    for i in range(3):
        assert_same(dataset[i], make_episode(i))
    assert dataset.metadata == replace(metadata, license="MIT")


def test_killed_between_rename_and_clean_up(tmp_path, metadata, make_episode, monkeypatch):
    path = tmp_path / "a.hdf5"
    monkeypatch.setattr("demokit.data.writer.drop_staging", lambda path: None)
    write(path, metadata, [make_episode(0), make_episode(1)])
    monkeypatch.undo()
    assert staging_folder(path).exists()
    with DatasetWriter(path, metadata, resume=True) as writer:
        assert len(writer) == 2
        writer.add(make_episode(2))
        writer.finish()
    assert [r.seed for r in open_dataset(path).episodes] == [make_episode(i).seed for i in range(3)]


def test_overwrite_replaces_at_the_end_only(tmp_path, metadata, make_episode):
    path = write(tmp_path / "a.hdf5", metadata, [make_episode(0)])
    with DatasetWriter(path, metadata, overwrite=True) as writer:
        writer.add(make_episode(1))
        assert_same(open_dataset(path)[0], make_episode(0))
    with DatasetWriter(path, metadata, resume=True) as writer:
        assert len(writer) == 1
        writer.finish()
    assert_same(open_dataset(path)[0], make_episode(1))


DIFFERENT = {
    "family": (
        {"family": "push", "tasks": (Task("push", "a", (0.0,), "train"),)},
        "pass --env point",
    ),
    "reward": ({"reward": "sparse"}, "pass --reward dense"),
    "task set": ({"task_set": "paper"}, "pass --task-set test"),
    "model": ({"model_hash": "1" * 64}, "another model"),
    "spaces": (
        {"observation_space": ArraySpec((5,), "float32", -1, 1)},
        "another observation space: pass the same --observation, --image-size and --camera",
    ),
}


@pytest.mark.parametrize("what", DIFFERENT)
def test_resume_refuses_another_recording(tmp_path, metadata, make_episode, what):
    changes, message = DIFFERENT[what]
    path = write(tmp_path / "a.hdf5", metadata, [make_episode(0)])
    before = path.read_bytes()
    with in_command(), pytest.raises(DemokitError, match=message):
        DatasetWriter(path, replace(metadata, **changes), resume=True)
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.hdf5"]


BY_HAND = {"recorder": "teleop", "expert": "scripted"}
TRAINED = {"sha256": "1f2e3d4c", "env_steps": 9, "task_set": "test"}
SCORES = {"returns": {"point/a": 1.5}, "success": {"point/a": 1.0}}
BY_FILE = {"recorder": "sac", "expert": "sac-point-1f2e3d4c", "trained": {**TRAINED, **SCORES}}
BY_NAME = {"recorder": "random", "expert": "random"}


@pytest.mark.parametrize(
    ("earlier", "now", "message"),
    [
        (BY_HAND, BY_NAME, "pass --device"),
        (BY_NAME, BY_HAND, "leave out --device"),
        (BY_NAME, BY_FILE, "pass --expert random"),
        (BY_FILE, BY_NAME, "pass --expert FILE, the file of sac-point-1f2e3d4c"),
        (BY_FILE, {**BY_FILE, "expert": "sac-point-5a6b7c8d"}, "pass --expert FILE, the file of"),
        (BY_HAND, {**BY_HAND, "expert": "random"}, "pass --expert scripted"),
    ],
)
def test_resume_names_who_acted(tmp_path, metadata, make_episode, earlier, now, message):
    before, after = (
        replace(metadata, provenance=replace(metadata.provenance, **who)) for who in (earlier, now)
    )
    path = write(tmp_path / "a.hdf5", before, [make_episode(0)])
    with in_command(), pytest.raises(DemokitError, match=f": {message}"):
        DatasetWriter(path, after, resume=True)


@pytest.mark.parametrize(
    ("operators", "said"),
    [
        (["Ann", "Bob"], "Ann, Bob"),
        ([None, "Bob"], "not stated, Bob"),
        ([None, "Bob", "Bob"], "not stated, Bob"),
        (["Ann", None], "Ann"),
        (["Ann", "Bob", "Ann", "An"], "Ann, Bob, An"),
        ([None, None], None),
    ],
)
def test_who_goes_on_claims_no_earlier_episode(tmp_path, metadata, make_episode, operators, said):
    for i, operator in enumerate(operators):
        by = replace(metadata, provenance=replace(metadata.provenance, operator=operator))
        with DatasetWriter(tmp_path / "a.hdf5", by, resume=True) as writer:
            writer.add(make_episode(i))
            writer.finish()
    assert open_dataset(tmp_path / "a.hdf5").metadata.provenance.operator == said


def test_who_adds_nothing_is_not_named(tmp_path, metadata, make_episode):
    ann, bob = (
        replace(metadata, provenance=replace(metadata.provenance, operator=name))
        for name in ("Ann", "Bob")
    )
    with DatasetWriter(tmp_path / "a.hdf5", ann) as writer:
        writer.add(make_episode(0))
    for episodes, said in ((), "Ann"), ([make_episode(1)], "Ann, Bob"):
        with DatasetWriter(tmp_path / "a.hdf5", bob, resume=True) as writer:
            for episode in episodes:
                writer.add(episode)
            writer.finish()
        assert open_dataset(tmp_path / "a.hdf5").metadata.provenance.operator == said


def test_a_licence_is_stated_once(tmp_path, metadata, make_episode):
    path, free = tmp_path / "a.hdf5", replace(metadata, license="MIT")
    write(path, metadata, [make_episode(0)])
    for about in (free, metadata):
        with DatasetWriter(path, about, resume=True) as writer:
            writer.finish()
        assert open_dataset(path).metadata.license == "MIT"
    message = "recorded with licence MIT, not CC0-1.0: pass --license MIT, or leave it out, or"
    with in_command(), pytest.raises(DemokitError, match=message):
        DatasetWriter(path, replace(metadata, license="CC0-1.0"), resume=True)


def test_a_python_caller_reads_of_no_option(tmp_path, metadata, make_episode):
    path = write(tmp_path / "a.hdf5", metadata, [make_episode(0)])
    wrong = [
        ({}, metadata, "say resume=True to extend it, overwrite=True to replace it, or choose"),
        ({"resume": True, "overwrite": True}, metadata, "resume=True keeps what is there"),
        ({"resume": True}, replace(metadata, reward="sparse"), "record as before, or choose"),
    ]
    for options, about, said in wrong:
        with pytest.raises(DemokitError, match=said) as raised:
            DatasetWriter(path, about, **options)
        assert "--" not in str(raised.value)
    with DatasetWriter(tmp_path / "b.hdf5", metadata) as writer:
        writer.add(make_episode(1))
    with pytest.raises(DemokitError, match="say resume=True to go on, or overwrite=True") as raised:
        DatasetWriter(tmp_path / "b.hdf5", metadata)
    assert "--" not in str(raised.value)


def test_what_a_dataset_says_may_grow(tmp_path, metadata, make_episode):
    """Tasks and horizon that nobody knew before, across a crash and across a finish."""
    path, first = tmp_path / "a.hdf5", make_episode(0)
    about = replace(metadata, tasks=(first.task,), horizon=2)
    late = replace(first.task, id=f"{first.task.id}-late")
    with DatasetWriter(path, about, grows=True) as writer:
        writer.add(first)
        writer.restate(replace(about, tasks=(first.task, late), horizon=30))
        writer.add(replace(make_episode(1), task=late))
    with DatasetWriter(path, about, resume=True, grows=True) as writer:
        assert writer.metadata.horizon == 30
        writer.finish()
    assert set(open_dataset(path).metadata.tasks) == {first.task, late}
    other = replace(first.task, id=f"{first.task.id}-other")
    with DatasetWriter(path, replace(about, tasks=(other,)), resume=True, grows=True) as writer:
        writer.add(replace(make_episode(2), task=other))
        writer.finish()
    dataset = open_dataset(path)
    assert set(dataset.metadata.tasks) == {first.task, late, other}
    assert [record.task for record in dataset.episodes] == [first.task, late, other]
    changed = replace(about, tasks=(replace(first.task, context=(9.0, 9.0)),))
    with pytest.raises(DemokitError, match="other tasks"):
        DatasetWriter(path, changed, resume=True, grows=True)


def test_many_tasks_and_episodes_cost_an_episode_nothing(
    tmp_path, metadata, make_episode, monkeypatch
):
    """A recording in many tasks checked, parsed and listed all of them for every episode."""
    path, first = tmp_path / "a.hdf5", make_episode(0)
    many = tuple(replace(first.task, id=f"point/{i}", context=(i, 0.0)) for i in range(50))
    parsed, listed = [], []
    load, listdir = DatasetMetadata._parsed, os.listdir
    with DatasetWriter(path, replace(metadata, tasks=many[:49]), grows=True) as writer:
        count = lambda found: parsed.append(len(json.loads(found["tasks"]))) or load(found)  # noqa: E731
        monkeypatch.setattr(DatasetMetadata, "_parsed", count)
        monkeypatch.setattr(os, "listdir", lambda *place: listed.append(place) or listdir(*place))
        writer.restate(replace(metadata, tasks=many))
        writer.add(replace(first, task=many[49]))
        assert (parsed, listed) == ([1], [])
        monkeypatch.undo()
        assert open_dataset(path).metadata.tasks == many
        with pytest.raises(DemokitError, match="no text that a file can hold"):
            writer.restate(replace(metadata, tasks=many, description="\0"))


def test_what_a_killed_writer_left_goes_when_it_is_resumed(tmp_path, metadata, make_episode):
    path = tmp_path / "a.hdf5"
    with DatasetWriter(path, metadata) as writer:
        writer.add(make_episode(0))
    aside = aside_of(staged_file(staging_folder(path), 1))
    aside.write_bytes(b"half")
    with DatasetWriter(path, metadata, resume=True) as writer:
        assert not aside.exists()
        assert len(writer) == 1


def test_two_processes_do_not_write_one_dataset(tmp_path, metadata, make_episode):
    path = tmp_path / "a.hdf5"
    with DatasetWriter(path, metadata) as writer:
        writer.add(make_episode(0))
        who = rf"is being written by process {os.getpid()} \(`.*`, since 20"
        with pytest.raises(DemokitError, match=who):
            DatasetWriter(path, metadata, overwrite=True)
        writer.finish()
    assert len(open_dataset(path)) == 1


def test_a_writer_that_saved_nothing_leaves_nothing(tmp_path, metadata):
    with DatasetWriter(tmp_path / "a.hdf5", metadata) as writer, pytest.raises(DemokitError):
        writer.finish()
    assert list(tmp_path.iterdir()) == []


def test_episodes_that_do_not_fit_are_refused(tmp_path, metadata, make_episode):
    stranger = replace(make_episode(0), task=Task("point", "x", (0.0, 0.0), "train"))
    wide = make_episode(0, observations=np.zeros((6, 5), np.float32))
    named = make_episode(0, observations={"state": np.zeros((6, 4), np.float32)})
    with DatasetWriter(tmp_path / "a.hdf5", metadata) as writer:
        for episode in (stranger, wide, named):
            with pytest.raises(DemokitError):
                writer.add(episode)
        assert len(writer) == 0


def test_disk_full_keeps_what_is_saved(tmp_path, metadata, make_episode, monkeypatch):
    path = tmp_path / "a.hdf5"

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with DatasetWriter(path, metadata) as writer:
        writer.add(make_episode(0))
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(DemokitError, match=r"disk is full.*1 episodes are saved"):
            writer.add(make_episode(1))
        with pytest.raises(DemokitError, match="disk is full"):
            writer.finish()
    monkeypatch.undo()
    assert_same(open_dataset(path)[0], make_episode(0))
    assert len(open_dataset(path)) == 1


def test_a_folder_that_cannot_be_written(tmp_path, metadata):
    (tmp_path / "file").write_text("")
    with pytest.raises(DemokitError, match="another path"):
        DatasetWriter(tmp_path / "file" / "a.hdf5", metadata)


def damaged(tmp_path: Path, kind: str, sound: Path) -> Path:
    path = tmp_path / "bad.hdf5"
    if kind == "directory":
        path.mkdir()
    elif kind == "text":
        path.write_text("not HDF5")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "truncated":
        path.write_bytes(sound.read_bytes()[:-2000])
    elif kind != "missing":
        path.write_bytes(sound.read_bytes())
        with h5py.File(path, "r+") as file:
            if kind == "foreign":
                del file.attrs["demokit_schema_version"]
            elif kind == "newer":
                file.attrs["demokit_schema_version"] = 99
            elif kind == "no tasks":
                file.attrs["tasks"] = "["
            elif kind == "no group":
                del file["episode_1"]
    return path


ERRORS = {
    "missing": "There is no dataset at",
    "directory": "is a directory",
    "text": "is not an HDF5 file",
    "empty": "is not an HDF5 file",
    "truncated": "is truncated",
    "foreign": "not a demokit dataset.*demokit inspect",
    "newer": "schema version 99.*upgrade",
    "no tasks": "metadata of .* is damaged",
    "no group": "is damaged",
}


@pytest.mark.parametrize("kind", ERRORS)
def test_unusable_files_say_why(tmp_path, metadata, make_episode, kind):
    sound = write(tmp_path / "a.hdf5", metadata, [make_episode(0), make_episode(1)])
    with pytest.raises(DemokitError, match=ERRORS[kind]):
        open_dataset(damaged(tmp_path, kind, sound))[1]


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.ENOLCK])
def test_locks_are_explained(tmp_path, metadata, make_episode, monkeypatch, number):
    path = write(tmp_path / "a.hdf5", metadata, [make_episode(0)])

    def locked(*_, **__):
        raise OSError(number, f"unable to lock file, errno = {number}")

    monkeypatch.setattr(h5py, "File", locked)
    with pytest.raises(DemokitError, match="HDF5_USE_FILE_LOCKING"):
        open_dataset(path)


def test_requirement_of_episodes(tmp_path, metadata, make_episode):
    path = write(tmp_path / "a.hdf5", metadata, [make_episode(0)])
    dataset = open_dataset(path)
    assert dataset.require_episodes() is dataset
    with h5py.File(path, "r+") as file:
        del file["episode_0"]
        file.attrs["total_episodes"] = 0
    empty = open_dataset(path)
    assert summarize(empty).episodes == 0
    with pytest.raises(DemokitError, match="no episodes"):
        empty.require_episodes()


def test_summary_counts_and_ranges(tmp_path, metadata, make_episode):
    episodes = [make_episode(i) for i in range(4)]
    summary = summarize(open_dataset(write(tmp_path / "a.hdf5", metadata, episodes)))
    assert (summary.episodes, summary.steps, summary.success_rate) == (4, 20, 0.5)
    assert [row.episodes for row in summary.tasks] == [2, 1, 1]
    assert summary.splits() == {"train": (3, 4)}
    assert summary.returns[2] == max(e.rewards.sum() for e in episodes)
    actions = np.concatenate([e.actions for e in episodes])
    found = next(row for row in summary.ranges if row.name == "actions")
    np.testing.assert_array_equal(found.low, actions.min(axis=0))
    np.testing.assert_array_equal(found.high, actions.max(axis=0))
    json.dumps(summary.to_json())


def test_metadata_refuses_nonsense(metadata: DatasetMetadata):
    for changes in (
        {"reward": "shaped"},
        {"horizon": 0},
        {"tasks": ()},
        {"tasks": metadata.tasks[:1] * 2},
        {"family": "push"},
        {"license": " "},
    ):
        with pytest.raises(DemokitError):
            replace(metadata, **changes)


@pytest.mark.parametrize("name", ["actions", "observations"])
def test_the_summary_of_arrays_without_components(tmp_path, metadata, make_episode, name, invoke):
    none = np.empty((6, 0), np.float32)
    spaces = {f"{name.removesuffix('s')}_space": ArraySpec((0,), "float32", -1.0, 1.0)}
    episode = replace(make_episode(0), **{name: none[: len(getattr(make_episode(0), name))]})
    path = write(tmp_path / "a.hdf5", replace(metadata, **spaces), [episode])
    found = {row.name: row for row in summarize(open_dataset(path)).ranges}
    assert (found[name].shape, found[name].low, found[name].high) == ((0,), (), ())
    invoke("inspect", path)
