"""Every new file is read back before it takes a place: a fault of the writer loses nothing."""

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demokit.data import DatasetWriter, assembly, open_dataset
from demokit.data.convert import export_dataset, robomimic
from demokit.data.edit import merge
from demokit.data.hdf5 import read_attributes
from demokit.data.layout import put_attributes
from demokit.data.repair import repair
from demokit.data.share import make_bundle
from demokit.data.store import staging_folder
from demokit.data.validation import validate
from demokit.errors import DemokitError
from demokit.sharing.giving import pack

FAULT = r"is damaged|is not what was to be|was changed after it was recorded|says otherwise"
VALUES = st.one_of(
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=300),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False),
    st.booleans(),
    st.lists(st.floats(-1, 1), max_size=5).map(np.array),
    st.lists(st.integers(-9, 9), min_size=1, max_size=5).map(np.array),
    st.lists(st.text(st.characters(codec="ascii", exclude_characters="\0")), min_size=1),
)


@settings(max_examples=100, deadline=None)
@given(st.lists(VALUES, min_size=1, max_size=6))
def test_an_attribute_takes_any_value_after_any_other(values):
    with h5py.File("memory", "w", driver="core", backing_store=False, libver="v110") as file:
        for value in values:
            put_attributes(file, {"a": value, "b": 1})
            found = read_attributes(file)
            assert np.asarray(found["a"]).tolist() == np.asarray(value).tolist()
            assert isinstance(found["a"], str) == isinstance(value, str)
            assert found["b"] == 1


def cut_texts(node, attributes):
    """As an earlier writer did: a text keeps the length that it was written with first."""
    short = {n: v[:-1] if isinstance(v, str) and v else v for n, v in attributes.items()}
    put_attributes(node, short)


def count_one_fewer(node, attributes):
    counts = {n: v - 1 for n, v in attributes.items() if n == "total_episodes"}
    put_attributes(node, {**attributes, **counts})


FAULTS = {
    "texts are cut": ("put_attributes", cut_texts),
    "the count is another": ("put_attributes", count_one_fewer),
    "an array is another": (
        "copy_episode",
        lambda found, target, index: (
            copied(found, target, index),
            target[f"episode_{index}/rewards"].write_direct(np.zeros(5)),
        ),
    ),
    "an episode is another": (
        "copy_episode",
        lambda found, target, index: (
            copied(found, target, index),
            target[f"episode_{index}"].attrs.modify("seed", 3),
        ),
    ),
}
copied = assembly.copy_episode


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("how", ["new", "resume", "restate", "overwrite"])
def test_a_recording(tmp_path, metadata, make_episode, monkeypatch, fault, how):
    path = tmp_path / "a.hdf5"
    options = {} if how == "new" else {"overwrite" if how == "overwrite" else "resume": True}
    if how != "new":
        with DatasetWriter(path, metadata) as writer:
            writer.add(make_episode(0))
            writer.finish()
    before = path.read_bytes() if path.exists() else None
    about = replace(metadata, license="MIT") if how == "restate" else metadata
    with DatasetWriter(path, about, **options) as writer:
        writer.add(make_episode(1))
        saved = len(writer)
        monkeypatch.setattr(assembly, *FAULTS[fault])
        with pytest.raises(DemokitError, match=FAULT):
            writer.finish()
        monkeypatch.undo()
    assert (path.read_bytes() if path.exists() else None) == before
    assert not list(path.parent.glob("a.hdf5*.tmp"))
    with DatasetWriter(path, about, resume=True) as writer:
        assert len(writer) == saved
        writer.finish()
    assert validate(path).errors == ()
    assert not staging_folder(path).exists()


def test_edits_and_repairs(tmp_path, metadata, make_episode, monkeypatch):
    path = tmp_path / "a.hdf5"
    with DatasetWriter(path, metadata) as writer:
        for index in range(3):
            writer.add(make_episode(index))
        writer.finish()
    with h5py.File(path, "r+") as file:
        file["episode_1/rewards"][0] += 1
    before = path.read_bytes()
    monkeypatch.setattr(assembly, "put_attributes", cut_texts)
    with pytest.raises(DemokitError, match=FAULT):
        repair(path)
    assert path.read_bytes() == before
    monkeypatch.undo()
    repair(path)
    monkeypatch.setattr(assembly, "put_attributes", cut_texts)
    with pytest.raises(DemokitError, match=FAULT):
        merge([path], tmp_path / "b.hdf5", license="MIT")
    assert [each.name for each in tmp_path.iterdir()] == ["a.hdf5"]


def exported(dataset_path, place, name):
    export_dataset(open_dataset(dataset_path), name, place, overwrite=True)


@pytest.mark.parametrize("what", ["rewards", "seed"])
def test_an_export_that_does_not_come_back(dataset_path, tmp_path, monkeypatch, what):
    place = tmp_path / "out"
    exported(dataset_path, place, "robomimic")
    before = place.read_bytes()
    write = robomimic._write_demo

    def wrong(demo, record, episode):
        if what == "seed":
            record = replace(record, seed=record.seed + 1)
        write(demo, record, episode)
        if what == "rewards":
            demo["rewards"][0] += 1

    monkeypatch.setattr(robomimic, "_write_demo", wrong)
    with pytest.raises(DemokitError, match="this is a fault"):
        exported(dataset_path, place, "robomimic")
    assert place.read_bytes() == before
    assert sorted(each.name for each in tmp_path.iterdir()) == sorted({dataset_path.name, "out"})


def test_an_archive_of_a_dataset_that_changed(dataset_path, tmp_path):
    """Between its check and its packing."""
    bundle = make_bundle(dataset_path)
    with dataset_path.open("r+b") as file:
        file.seek(-100, 2)
        file.write(b"\xff" * 50)
    with pytest.raises(DemokitError, match=r"changed while .* was packed: pack it again"):
        pack(bundle, tmp_path / "a.zip")
    assert not list(tmp_path.glob("a.zip*"))


@pytest.mark.skipif(find_spec("imageio_ffmpeg") is None, reason="needs imageio-ffmpeg")
def test_a_video_of_which_parts_are_missing(tmp_path, monkeypatch):
    import imageio_ffmpeg

    from demokit.data.video import write_video

    monkeypatch.setattr(imageio_ffmpeg, "count_frames_and_secs", lambda path: (2, 1.0))
    pictures = np.zeros((3, 32, 32, 3), np.uint8)
    with pytest.raises(DemokitError, match="parts of the video are missing"):
        write_video(tmp_path / "a.mp4", pictures, 10)
    assert list(tmp_path.iterdir()) == []


def test_what_was_said_anew_survives_a_truncation(tmp_path, metadata, make_episode):
    """It stands at the front of the file, whatever its length."""
    path = tmp_path / "a.hdf5"
    with DatasetWriter(path, metadata) as writer:
        for index in range(6):
            writer.add(make_episode(index, steps=20))
        writer.finish()
    longer = replace(metadata, license="CC-BY-4.0", description="text " * 500)
    with DatasetWriter(path, longer, resume=True) as writer:
        writer.finish()
    assert open_dataset(path).metadata == longer
    content = path.read_bytes()
    Path(path).write_bytes(content[: len(content) * 2 // 3])
    repaired = repair(path)
    assert 0 < repaired.kept < 6
    assert open_dataset(path).metadata == longer
