"""A dataset that one process writes: every other writer is told who, and changes nothing."""

import os
import re
import shutil
from dataclasses import replace

import pytest

from demokit.data import DatasetWriter, open_dataset
from demokit.data.store import staging_folder
from demokit.data.validation import validate
from demokit.errors import DemokitError
from demokit.lock import Lock, lock_file

RECORD = ("record", "--env", "point", "--tasks", 2, "--num-episodes", 4)


@pytest.fixture
def recording(tmp_path, metadata, make_episode):
    """A recording that goes on: three episodes are saved, and no file is there yet."""
    path = tmp_path / "a.hdf5"
    with DatasetWriter(path, metadata) as writer:
        for index in range(3):
            writer.add(make_episode(index))
        yield path, writer


def content(folder):
    """Every file below a folder; locks aside, which may come and go."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")
    return {path: path.read_bytes() for path in files}


WRITES = {
    "repair": ("validate", "{held}", "--repair"),
    "repair to another": ("validate", "{held}", "--repair", "--out", "{new}"),
    "record": (*RECORD, "--out", "{held}"),
    "resume": (*RECORD, "--out", "{held}", "--resume"),
    "overwrite": (*RECORD, "--out", "{held}", "--overwrite"),
    "merge to it": ("merge", "{other}", "--license", "MIT", "--out", "{held}", "--overwrite"),
    "merge it": ("merge", "{held}", "--license", "MIT", "--out", "{new}"),
    "filter to it": ("filter", "{other}", "--out", "{held}", "--overwrite"),
    "filter it": ("filter", "{held}", "--out", "{new}"),
    "relabel to it": ("relabel", "{other}", "--reward", "sparse", "--out", "{held}", "--overwrite"),
    "relabel it": ("relabel", "{held}", "--reward", "sparse", "--out", "{new}"),
    "split to it": ("split", "{other}", "--train-out", "{held}", "--overwrite"),
    "split it": ("split", "{held}", "--train-out", "{new}"),
    "import to it": ("convert", "{foreign}", "--from", "robomimic", "-o", "{held}", "--overwrite"),
    "export it": ("convert", "{held}", "--to", "robomimic", "-o", "{new}"),
    "pull to it": ("share", "pull", "{bundle}", "-o", "{held}", "--overwrite"),
}
OF_FINISHED = {
    **{name: line for name, line in WRITES.items() if name not in ("record",)},
    "pack it": ("share", "pack", "{held}"),
    "push it": ("share", "push", "{held}", "{new}"),
    "register it": ("share", "register", "{held}", "demokit/test/held-v0"),
}


@pytest.fixture(scope="module")
def others(tmp_path_factory, recorded, invoke):
    """What commands read besides, by the names in WRITES."""
    folder = tmp_path_factory.mktemp("others")
    other = shutil.copy(recorded, folder / "other.hdf5")
    invoke("convert", other, "--to", "robomimic", "-o", folder / "foreign")
    invoke("share", "pack", other, "-o", folder / "bundle.zip")
    return {"other": other, "foreign": folder / "foreign", "bundle": folder / "bundle.zip"}


def refused(invoke, line, held, others):
    before = content(others["other"].parent)
    places = {**others, "held": held, "new": held.with_name("new.hdf5")}
    said = invoke(*(str(part).format(**places) for part in line), exit_code=1).output
    who = rf"is being written by process {os.getpid()} \(`[^`]*`, since 2[^)]*\): wait until"
    assert re.search(who, said), said
    assert content(others["other"].parent) == before
    assert not places["new"].exists()


@pytest.mark.parametrize("name", WRITES)
def test_a_recording_that_goes_on(name, recording, others, invoke):
    path, writer = recording
    before = content(path.parent)
    refused(invoke, WRITES[name], path, others)
    assert content(path.parent) == before
    assert len(writer) == 3
    writer.finish()
    assert len(open_dataset(path)) == 3
    assert validate(path).ok or not validate(path).errors


@pytest.mark.parametrize("name", OF_FINISHED)
def test_a_finished_dataset(name, dataset_path, others, invoke, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(dataset_path.parent / "root"))
    before = content(dataset_path.parent)
    with Lock(dataset_path, "choose another."):
        refused(invoke, OF_FINISHED[name], dataset_path, others)
        assert content(dataset_path.parent) == before
        invoke("inspect", dataset_path)
        invoke("validate", dataset_path)
    assert not lock_file(dataset_path).exists()


def test_an_export_that_another_process_makes(dataset_path, tmp_path, invoke):
    with Lock(tmp_path / "out", "choose another."):
        said = invoke(
            "convert", dataset_path, "--to", "robomimic", "-o", tmp_path / "out", exit_code=1
        )
    assert "is being written by process" in said.output
    assert not (tmp_path / "out").exists()


def replacement(path, metadata, make_episode, count=3):
    """Put a dataset of other episodes, and of the same commands, where one was."""
    other = path.with_name("other.hdf5")
    with DatasetWriter(other, metadata) as writer:
        for index in range(count):
            writer.add(make_episode(100 + index))
        writer.finish()
    os.replace(other, path)


@pytest.mark.parametrize("how", ["resume", "overwrite", "new"])
@pytest.mark.parametrize("when", ["before an episode", "before the end"])
def test_a_file_replaced_under_a_recording(tmp_path, metadata, make_episode, how, when):
    """Nothing is written to it, and what was recorded stays."""
    path = tmp_path / "a.hdf5"
    if how != "new":
        with DatasetWriter(path, metadata) as writer:
            for index in range(3):
                writer.add(make_episode(index))
            writer.finish()
    resumed = {"new": {}, "resume": {"resume": True}, "overwrite": {"overwrite": True}}[how]
    with DatasetWriter(path, metadata, **resumed) as writer:
        saved = writer.add(make_episode(4))
        mine = path.read_bytes() if path.exists() else None
        replacement(path, metadata, make_episode)
        before = path.read_bytes()
        with pytest.raises(DemokitError, match="was replaced during the recording"):
            writer.add(make_episode(5)) if when == "before an episode" else writer.finish()
    assert path.read_bytes() == before
    if how != "overwrite":
        with pytest.raises(DemokitError, match="is not the file that"):
            DatasetWriter(path, metadata, resume=True)
    assert path.read_bytes() == before
    path.unlink() if mine is None else path.write_bytes(mine)
    with DatasetWriter(path, metadata, resume=True) as writer:
        assert len(writer) == saved
        writer.finish()
    assert open_dataset(path).episodes[-1].seed == make_episode(4).seed
    assert validate(path).errors == ()


@pytest.mark.parametrize("count", [2, 3, 4])
def test_a_file_replaced_between_two_parts_of_a_recording(tmp_path, metadata, make_episode, count):
    path = tmp_path / "a.hdf5"
    with DatasetWriter(path, metadata) as writer:
        for index in range(3):
            writer.add(make_episode(index))
        writer.finish()
    with DatasetWriter(path, metadata, resume=True) as writer:
        writer.add(make_episode(3))
    replacement(path, metadata, make_episode, count)
    before = content(tmp_path)
    with pytest.raises(DemokitError, match=r"is not the file that .* goes on with"):
        DatasetWriter(path, metadata, resume=True)
    assert content(tmp_path) == before


def test_a_file_replaced_while_it_is_read(tmp_path, metadata, make_episode):
    path = tmp_path / "a.hdf5"
    replacement(path, metadata, make_episode)
    dataset = open_dataset(path)
    assert dataset[0].seed == make_episode(100).seed
    replacement(path, metadata, make_episode)
    with pytest.raises(DemokitError, match="was replaced while it was read: run the command again"):
        dataset[1]
    with pytest.raises(DemokitError, match="was replaced while it was read"), dataset:
        pass


@pytest.mark.parametrize("gone", ["folder", "episode", "state", "parent"])
@pytest.mark.parametrize("when", ["before an episode", "before the end"])
def test_a_folder_removed_during_a_recording(tmp_path, metadata, make_episode, gone, when):
    path = tmp_path / "sub" / "a.hdf5"
    folder = staging_folder(path)
    with DatasetWriter(path, metadata) as writer:
        for index in range(2):
            writer.add(make_episode(index))
        if gone in ("folder", "parent"):
            shutil.rmtree(folder if gone == "folder" else path.parent)
        else:
            (folder / {"episode": "episode_1.hdf5", "state": "recording.json"}[gone]).unlink()
        with pytest.raises(DemokitError, match="was removed during the recording, with the epi"):
            writer.add(make_episode(2)) if when == "before an episode" else writer.finish()
    assert not path.exists()


def test_what_a_recording_says_later_fits_however_long(tmp_path, metadata, make_episode):
    """A licence, a description or a name that is longer, or shorter, than it was."""
    path = tmp_path / "a.hdf5"
    license = "CC-BY-NC-SA-4.0 " * 50
    said = [("", "Ann", ""), (license, "Bob " * 500, license), ("", "B" * 70_000, "X"), ("",) * 3]
    for index, (license, operator, description) in enumerate(said):
        source = replace(metadata.provenance, operator=operator or None)
        about = replace(metadata, provenance=source, license=license or None)
        about = replace(about, description=description)
        with DatasetWriter(path, about, resume=index > 0) as writer:
            writer.add(make_episode(index))
            writer.finish()
        licenses, operators, descriptions = (
            list(filter(None, column)) for column in zip(*said[: index + 1], strict=True)
        )
        found = open_dataset(path).metadata
        assert found.license == (licenses[-1] if licenses else None)
        assert found.description == (descriptions[-1] if descriptions else "")
        assert found.provenance.operator == ", ".join(operators)
        assert validate(path).errors == ()
    seeds = [record.seed for record in open_dataset(path).episodes]
    assert seeds == [make_episode(index).seed for index in range(4)]
