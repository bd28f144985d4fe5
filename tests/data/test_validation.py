"""Validation finds what is wrong, and nothing in what is sound; repair keeps what verifies."""

import h5py
import numpy as np
import pytest

from demokit.data import DatasetWriter, open_dataset
from demokit.data.layout import digest, read_episode, read_record
from demokit.data.repair import repair
from demokit.data.store import staging_folder
from demokit.data.validation import validate
from demokit.errors import DemokitError


def errors(path, **options):
    return {(f.check, f.episode) for f in validate(path, **options).errors}


def resign(group, index=0):
    """Make the checksums fit again, so that only other checks can find the change."""
    record = read_record(group, index, "point")
    group.attrs["sha256"] = digest(read_episode(group, record))
    group.attrs["record_sha256"] = read_record(group, index, "point").compute_digest()


@pytest.mark.parametrize("replay", [False, True])
def test_a_recording_is_sound(recorded, replay):
    report = validate(recorded, replay=replay)
    assert report.findings == ()
    assert report.sound == tuple(range(8))
    assert report.replayed is replay


CHANGES = {
    "array": (lambda g: g["rewards"].__setitem__(3, 1.0), "checksum"),
    "attribute": (lambda g: g.attrs.modify("seed", 7), "checksum"),
    "recorder": (lambda g: g.attrs.__setitem__("recorder", "somebody"), "checksum"),
    "option": (lambda g: g.attrs.modify("options/attempt", 9), "checksum"),
    "missing array": (lambda g: g.__delitem__("actions"), "structure"),
    "id": (lambda g: g.attrs.modify("id", 5), "structure"),
    "length": (lambda g: g.attrs.modify("total_steps", 19), "structure"),
    "task": (lambda g: g.attrs.__setitem__("task_id", "point/none"), "structure"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_change_is_found(dataset_path, what):
    change, check = CHANGES[what]
    with h5py.File(dataset_path, "r+") as file:
        change(file["episode_3"])
    report = validate(dataset_path)
    assert (check, 3) in {(f.check, f.episode) for f in report.errors}
    assert report.sound == (0, 1, 2, 4, 5, 6, 7)


FORGERIES = {
    "nan": (lambda g: g["observations"].__setitem__((2, 0), np.nan), "structure"),
    "bounds": (lambda g: g["actions"].__setitem__((2, 0), 1.5), "structure"),
    "success": (lambda g: g.attrs.modify("success", not g.attrs["success"]), "success"),
    "return": (lambda g: g.attrs.modify("return", 3.0), "return"),
    "context": (lambda g: g["infos/privileged/context"].__setitem__((2, 0), 9.0), "context"),
    "state": (lambda g: g["infos/privileged/state"].__setitem__((0, 1), 0.3), "restore"),
    "reward": (lambda g: g["rewards"].__setitem__(19, 3.0), "restore"),
}


@pytest.mark.parametrize("what", FORGERIES)
def test_a_forgery_with_fitting_checksums_is_found(dataset_path, what):
    change, check = FORGERIES[what]
    with h5py.File(dataset_path, "r+") as file:
        change(file["episode_0"])
        if what not in ("nan", "bounds"):
            resign(file["episode_0"])
    assert (check, 0) in errors(dataset_path)


def test_actions_that_lead_elsewhere_are_found_by_replay_alone(dataset_path):
    with h5py.File(dataset_path, "r+") as file:
        file["episode_0/actions"][4] = -file["episode_0/actions"][4]
        resign(file["episode_0"])
    assert ("restore", 0) not in errors(dataset_path)
    report = validate(dataset_path, replay=True)
    (found,) = report.errors
    assert (found.check, found.episode) == ("replay", 0)
    assert "row 5" in found.message
    assert report.sound == tuple(range(1, 8))


def test_whole_dataset_checks(dataset_path):
    with h5py.File(dataset_path, "r+") as file:
        file.copy("episode_1", "episode_8")
        file["episode_8"].attrs.modify("id", 8)
        resign(file["episode_8"], 8)
        file.create_group("stray")
    found = validate(dataset_path)
    assert {(f.check, f.episode) for f in found.errors} == {
        ("counts", None),
        ("structure", None),
    }
    assert [f.episode for f in found.findings if f.check == "duplicate"] == [8]


def test_changed_metadata_is_found(dataset_path):
    with h5py.File(dataset_path, "r+") as file:
        file.attrs["license"] = "CC0-1.0"
    assert errors(dataset_path) == {("checksum", None)}


def test_split_leakage_is_found(dataset_path):
    with h5py.File(dataset_path, "r+") as file:
        text = file.attrs["tasks"].decode()
        first = open_dataset(dataset_path).metadata.tasks[0].context
        more = f', {{"id": "again", "context": {list(first)}, "split": "validation"}}]'
        file.attrs["tasks"] = text[:-1] + more
    report = validate(dataset_path)
    assert ("leakage", None) in {(f.check, f.episode) for f in report.errors}
    assert any("again" in f.message for f in report.findings if f.severity == "warning")


def test_constant_components_and_missing_licence_are_warnings(tmp_path, metadata, make_episode):
    with DatasetWriter(tmp_path / "a.hdf5", metadata) as writer:
        for index in range(3):
            episode = make_episode(index)
            episode.observations[:, 2] = 1.0
            writer.add(episode)
        report = validate(writer.finish())
    assert {f.check for f in report.findings if f.severity == "warning"} >= {"variance", "licence"}
    assert any("components 2" in f.message for f in report.findings)


def test_repair_keeps_what_verifies_and_can_be_run_twice(dataset_path):
    before = open_dataset(dataset_path)
    kept = [before[i] for i in (0, 1, 2, 4, 5, 7)]
    with h5py.File(dataset_path, "r+") as file:
        file["episode_3/rewards"][2] += 1
        del file["episode_6"]
    done = repair(dataset_path)
    assert (done.kept, done.written, list(done.dropped)) == (6, True, [3, 6])
    assert "checksum" in done.dropped[3]
    assert "not in the file" in done.dropped[6]
    after = open_dataset(dataset_path)
    assert [digest(e) for e in after] == [digest(e) for e in kept]
    assert [r.seed for r in after.episodes] == [e.seed for e in kept]
    assert validate(dataset_path, replay=True).ok
    again = repair(dataset_path)
    assert (again.kept, again.written) == (6, False)
    assert [p.name for p in dataset_path.parent.iterdir()] == ["copy.hdf5"]


@pytest.mark.parametrize("share", [0.97, 0.6, 0.3])
def test_repair_rescues_a_truncated_file(dataset_path, share):
    content = dataset_path.read_bytes()
    dataset_path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(DemokitError, match="truncated"):
        validate(dataset_path)
    done = repair(dataset_path)
    assert done.kept >= int(8 * share) - 1
    assert done.kept + len(done.dropped) == 8
    assert validate(dataset_path).ok


def test_repair_finishes_an_unfinished_recording(tmp_path, metadata, make_episode):
    path = tmp_path / "a.hdf5"
    with DatasetWriter(path, metadata) as writer:
        for index in range(5):
            writer.add(make_episode(index))
    bad = staging_folder(path) / "episode_2.hdf5"
    bad.write_bytes(bad.read_bytes()[:500])
    report = validate(path)
    assert {f.episode for f in report.errors if f.check == "structure"} == {2}
    done = repair(path)
    assert (done.kept, list(done.dropped)) == (4, [2])
    assert not staging_folder(path).exists()
    with DatasetWriter(path, metadata, resume=True) as writer:
        assert len(writer) == 4
        writer.add(make_episode(5))
        assert len(open_dataset(writer.finish())) == 5


def test_repair_elsewhere_leaves_the_original(dataset_path, tmp_path):
    with h5py.File(dataset_path, "r+") as file:
        del file["episode_0"]
    before = dataset_path.read_bytes()
    done = repair(dataset_path, out=tmp_path / "b.hdf5")
    assert (done.kept, done.path) == (7, tmp_path / "b.hdf5")
    assert dataset_path.read_bytes() == before


def test_repair_refuses_what_it_cannot_save(dataset_path, tmp_path):
    with h5py.File(dataset_path, "r+") as file:
        for name in list(file):
            file[name]["rewards"][0] += 1
    before = dataset_path.read_bytes()
    with pytest.raises(DemokitError, match="No episode"):
        repair(dataset_path)
    assert dataset_path.read_bytes() == before
    (tmp_path / "t.hdf5").write_text("text")
    with pytest.raises(DemokitError, match="not an HDF5 file"):
        repair(tmp_path / "t.hdf5")


HOSTILE = {
    "huge": lambda f, _: f["episode_0"].create_dataset(
        "x", (10**9, 10**6), chunks=(1, 10), dtype="f8"
    ),
    "external": lambda f, p: f["episode_0"].__setitem__(
        "x", h5py.ExternalLink(p, "/episode_1/rewards")
    ),
    "soft": lambda f, _: f["episode_0"].__setitem__("x", h5py.SoftLink("/episode_1/rewards")),
    "text": lambda f, _: f["episode_0"].create_dataset("x", data=["a"] * 20),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_arrays_are_refused_before_they_are_read(dataset_path, recorded, kind):
    with h5py.File(dataset_path, "r+") as file:
        del file["episode_0/rewards"]
        HOSTILE[kind](file, str(recorded))
        file["episode_0"].move("x", "rewards")
    with pytest.raises(DemokitError):
        open_dataset(dataset_path)[0]
    with pytest.raises(DemokitError):
        open_dataset(dataset_path).window(0, 0, 3, ["rewards"])
    assert ("structure", 0) in errors(dataset_path)
