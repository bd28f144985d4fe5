"""What a file of a stranger may do to its readers: nothing but hold numbers and text."""

import os
import re
import subprocess
import sys
from hashlib import sha256

import h5py
import numpy as np
import pytest
from memory import growth

from demokit.data import catalogue, files, hdf5, layout, open_dataset
from demokit.data.convert import import_dataset
from demokit.data.files import open_file
from demokit.data.repair import repair
from demokit.data.share import make_bundle, pull
from demokit.data.validation import validate
from demokit.errors import DemokitError


def external(group):
    group["x"] = h5py.ExternalLink("other.hdf5", "/secret")


def soft(group):
    group["x"] = h5py.SoftLink("/episode_0/actions")


def cycle(group):
    group["x"] = group.parent


def shared_group(group):
    group["x"] = group.file.create_group("aside")


def shared_array(group):
    group.create_dataset("x", data=np.zeros(3))
    group["y"] = group["x"]


def deep(group):
    group.create_group("/".join("x" * 40))


def many(group):
    for i in range(hdf5.MOST_NODES + 1):
        group.create_group(f"x{i}")


def sparse(group):
    group.create_dataset("x", (10**9,), "f8", chunks=(100,))


def bomb(group):
    group.create_dataset("x", data=np.zeros(2**26), chunks=(2**20,), compression=9)


def hollow(group):
    group.create_dataset("x", (10**9, 0), "u1")


def fat_attribute(group):
    group.create_group("x").attrs["y"] = np.zeros(2**22)


def many_attributes(group):
    for i in range(hdf5.MOST_ATTRIBUTES + 1):
        group.attrs[f"y{i}"] = i


LINKS = {external: "is a link", soft: "is a link"}
SHAPES = {
    cycle: "under two names",
    shared_group: "under two names",
    shared_array: "under two names",
    deep: "levels of groups",
    many: "levels of groups",
}
CLAIMS = {sparse: "not in the file", bomb: "not in the file", hollow: "holds nothing"}
ATTRIBUTES = {fat_attribute: "too many or too large", many_attributes: "too many or too large"}
EVERYTHING = list((LINKS | SHAPES | CLAIMS | ATTRIBUTES).items())


@pytest.fixture(autouse=True)
def _other(tmp_path):
    """The file that an external link would lead to."""
    with h5py.File(tmp_path / "other.hdf5", "w") as file:
        file["secret/demo"] = np.ones((5, 2))


def spoil(path, where, change):
    with h5py.File(path, "r+", libver=("v110", "v110")) as file:
        change(file.require_group(where))


def as_bundle(path, folder):
    """A bundle with true checksums, as anybody can make one by hand."""
    folder.mkdir()
    small = {"README.md": b"card", "LICENSE": b"MIT"}
    files = {**small, "a.hdf5": path.read_bytes()}
    sums = "".join(f"{sha256(data).hexdigest()}  {name}\n" for name, data in files.items())
    for name, data in {**files, "SHA256SUMS": sums.encode()}.items():
        (folder / name).write_bytes(data)
    return str(folder)


@pytest.mark.parametrize(("change", "message"), EVERYTHING)
def test_a_dataset_with_it_is_invalid(change, message, dataset_path, tmp_path):
    spoil(dataset_path, "episode_3/infos/extra", change)
    report = validate(dataset_path)
    found = [each for each in report.errors if each.episode == 3]
    assert len(found) == 1
    assert message in found[0].message
    assert report.sound == (0, 1, 2, 4, 5, 6, 7)
    with pytest.raises(DemokitError, match="is invalid"):
        make_bundle(dataset_path)
    with pytest.raises(DemokitError, match="is invalid"):
        pull(as_bundle(dataset_path, tmp_path / "bundle"), tmp_path / "pulled.hdf5")
    assert not (tmp_path / "pulled.hdf5").exists()


def test_repair_drops_the_episode_alone(dataset_path):
    spoil(dataset_path, "episode_3/infos/extra", external)
    spoil(dataset_path, "episode_5/infos/extra", cycle)
    assert set(repair(dataset_path).dropped) == {3, 5}
    assert validate(dataset_path).ok


def test_a_link_in_place_of_an_episode_is_one_error(dataset_path):
    with h5py.File(dataset_path, "r+") as file:
        del file["episode_2"], file["episode_4"]
        file["episode_2"] = h5py.SoftLink("/episode_1")
        file["episode_4"] = h5py.ExternalLink("other.hdf5", "/secret")
    report = validate(dataset_path)
    assert {each.episode: "is a link" in each.message for each in report.errors if
            each.episode is not None} == {2: True, 4: True}  # fmt: skip


@pytest.mark.parametrize("change", [*LINKS, *CLAIMS])
def test_privileged_terms_are_read_by_the_same_rules(change, dataset_path):
    spoil(dataset_path, "episode_0/infos/privileged", change)
    dataset = open_dataset(dataset_path)
    with pytest.raises(DemokitError):
        dataset[0]
    with pytest.raises(DemokitError):
        dataset.window(0, 0, 3)
    assert len(dataset[1]) > 0


def test_arrays_that_fit_one_by_one_are_added_up(dataset_path):
    """Each takes 64 MB from 64 kB: eight of them are more than such a file justifies."""
    with h5py.File(dataset_path, "r+") as file:
        rows = len(file["episode_0/observations"])
        for i in range(8):
            file.create_dataset(
                f"episode_0/infos/privileged/x{i}",
                data=np.zeros((rows, 2**23 // rows)),
                chunks=(1, 2**23 // rows),
                compression=9,
            )
    with pytest.raises(DemokitError, match="with what is read beside it"):
        open_dataset(dataset_path)[0]


def test_what_holds_nothing_or_is_unknown_is_ignored(dataset_path):
    before = open_dataset(dataset_path)[0]
    with h5py.File(dataset_path, "r+") as file:
        for node in (file["episode_0"], file["episode_0/infos"]):
            node.attrs["empty"] = h5py.Empty("f8")
            node.attrs["place"] = node.ref
            node.attrs["pair"] = np.zeros(2, [("a", "i4"), ("b", "f8")])
        file["episode_0/infos/nothing"] = h5py.Empty("f8")
    assert open_dataset(dataset_path)[0].options == before.options
    assert validate(dataset_path).ok


def robomimic(path):
    with h5py.File(path, "w") as file:
        for i in range(2):
            demo = file.create_group(f"data/demo_{i}")
            demo["actions"] = np.full((5, 2), 0.5)
            demo["obs/x"] = np.zeros((5, 3))
            demo["rewards"] = np.zeros(5)
        file["mask/train"] = np.array(["demo_0"], "S")
    return path, "data/demo_1"


def minari(path):
    with h5py.File(path.with_name("main_data.hdf5"), "w") as file:
        for i in range(2):
            episode = file.create_group(f"episode_{i}")
            for name in ("rewards", "terminations", "truncations"):
                episode[name] = np.zeros(5, bool if name[0] == "t" else float)
            episode["actions"], episode["observations"] = np.zeros((5, 2)), np.zeros((6, 3))
    path.with_name("metadata.json").write_text("{}")
    return path.with_name("main_data.hdf5"), "episode_1"


@pytest.mark.parametrize(("change", "message"), [*(LINKS | SHAPES).items()])
@pytest.mark.parametrize("make", [robomimic, minari])
def test_imports_follow_the_same_rules(make, change, message, tmp_path):
    path, episode = make(tmp_path / "foreign.hdf5")
    spoil(path, f"{episode}/infos", change)
    with pytest.raises(DemokitError, match=message):
        import_dataset(path, make.__name__, tmp_path / "out.hdf5", env="point")
    assert not (tmp_path / "out.hdf5").exists()


@pytest.mark.parametrize(("change", "message"), [*CLAIMS.items()])
@pytest.mark.parametrize("make", [robomimic, minari])
def test_imports_leave_out_what_claims_too_much(make, change, message, tmp_path):
    path, episode = make(tmp_path / "foreign.hdf5")
    spoil(path, f"{episode}/infos", change)
    said = dict(import_dataset(path, make.__name__, tmp_path / "out.hdf5", env="point"))
    assert "left out" in said["infos/x"]
    assert len(open_dataset(tmp_path / "out.hdf5")) == 2
    with h5py.File(path, "r+") as file:
        del file[f"{episode}/actions"]
        change(file[episode])
        file.move(f"{episode}/x", f"{episode}/actions")
    said = dict(
        import_dataset(path, make.__name__, tmp_path / "out.hdf5", env="point", overwrite=True)
    )
    assert message in said[episode.rpartition("/")[2]]
    assert len(open_dataset(tmp_path / "out.hdf5")) == 1


@pytest.mark.parametrize("link", [h5py.ExternalLink("other.hdf5", "/secret"), h5py.SoftLink("/a")])
@pytest.mark.parametrize("make", [robomimic, minari])
def test_imports_follow_no_link_to_a_group(make, link, tmp_path):
    path, episode = make(tmp_path / "foreign.hdf5")
    with h5py.File(path, "r+") as file:
        file.move(episode, "a")
        file[episode] = link
    with pytest.raises(DemokitError, match="is a link"):
        import_dataset(path, make.__name__, tmp_path / "out.hdf5", env="point")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (np.zeros(3), "no row of"),
        (np.zeros((2, 2), "S4"), "no row of"),
        ("one", "no row of"),
        (None, "not in the file"),
    ],
)
def test_masks_that_are_no_rows_of_texts_are_named(rows, message, tmp_path):
    path, _ = robomimic(tmp_path / "foreign.hdf5")
    with h5py.File(path, "r+") as file:
        if rows is None:
            file.create_dataset("mask/valid", (10**9,), "S8", chunks=(100,))
        else:
            file["mask/valid"] = rows
    said = dict(import_dataset(path, "robomimic", tmp_path / "out.hdf5", env="point"))
    assert message in said["mask valid"]


@pytest.mark.parametrize("libver", ["earliest", "v110"])
def test_texts_of_variable_length_are_read(libver, tmp_path):
    """Some peers write them; the file is probed first, in either format."""
    with h5py.File(tmp_path / "a.hdf5", "w", libver=(libver, "v110")) as file:
        file.attrs["one"], file.attrs["some"] = "text", ["a", "bc"]
    with open_file(tmp_path / "a.hdf5") as file:
        found = hdf5.read_attributes(file)
    assert found["one"] == "text"
    assert found["some"].tolist() == ["a", "bc"]


def test_one_text_named_a_thousand_times_takes_no_memory(tmp_path):
    """A megabyte in the file that would be two gigabytes in memory."""
    count, long = 2000, 2**20
    path = tmp_path / "a.hdf5"
    with h5py.File(path, "w", libver=("earliest", "v110")) as file:
        file.attrs["some"] = ["x" * long] + ["y" * 99] * (count - 1)
    content = path.read_bytes()
    rows = count.to_bytes(8, "little") * 2  # now, and at most: they end the shape
    first = content.index(rows, content.index(b"some")) + len(rows)
    one = content[first : first + 16]  # length, address and index of a text
    path.write_bytes(content[:first] + one * count + content[first + 16 * count :])
    with growth() as grown, pytest.raises(DemokitError, match="takes far more memory"):
        open_file(path)
    assert grown.kb < 100_000
    np.ones(2**26)  # what this process once had is not what the other one takes
    with pytest.raises(DemokitError, match="takes far more memory"):
        open_file(path)


@pytest.mark.parametrize("block", [0, 512, 1024, 4096])
@pytest.mark.parametrize(("libver", "tried"), [("earliest", 1), ("v110", 0)])
def test_the_older_format_is_tried_wherever_it_begins(block, libver, tried, tmp_path, monkeypatch):
    """HDF5 finds its signature behind a user block, too, of which byte 8 says nothing."""
    path, seen = tmp_path / "a.hdf5", []
    with h5py.File(path, "w", libver=(libver, "v110"), userblock_size=block) as file:
        file["some"] = [1.0]
    with path.open("r+b") as file:
        file.write(b"\xff" * block)
    monkeypatch.setattr(files, "probe", seen.append)
    with open_file(path) as file:
        assert file["some"][:] == [1.0]
    assert seen == [path] * tried


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("echo Bad: luck >&2; exit 1", "tries it first failed (Bad: luck): install demokit again."),
        ("exit 2", "tries it first failed (exit code 2): install demokit again."),
        ("kill -11 $$", "is damaged (reading it crashes, never ends, "),
    ],
)
def test_a_file_that_cannot_be_tried_is_not_opened(program, said, tmp_path, monkeypatch):
    path, python = tmp_path / "a.hdf5", tmp_path / "python"
    with h5py.File(path, "w", libver="earliest") as file:
        file["some"] = [1.0]
    python.write_text(f"#!/bin/sh\n{program}\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(DemokitError, match=re.escape(said)):
        open_file(path)


def test_a_file_is_tried_under_limits_that_are_lower_already(tmp_path):
    with h5py.File(tmp_path / "a.hdf5", "w", libver="earliest") as file:
        file["some"] = [1.0]
    command = f"ulimit -t 5; ulimit -v 3000000; exec '{sys.executable}' -m demokit.data.probe"
    tried = subprocess.run(["sh", "-c", f"{command} '{tmp_path / 'a.hdf5'}' 10"])
    assert tried.returncode == 0


def test_what_is_no_regular_file_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "a.hdf5")
    for read in (open_dataset, validate, repair, make_bundle):
        with pytest.raises(DemokitError, match="a pipe, socket or device"):
            read(tmp_path / "a.hdf5")
    with pytest.raises(DemokitError, match="a pipe, socket or device"):
        import_dataset(tmp_path / "a.hdf5", "robomimic", tmp_path / "out.hdf5")


def test_refusals_say_in_which_file(dataset_path):
    spoil(dataset_path, "episode_0/infos", soft)
    with pytest.raises(DemokitError, match=rf"{dataset_path}: infos/x is a link"):
        open_dataset(dataset_path)[0]


def test_a_listing_reads_no_episode_of_many(dataset_path, monkeypatch):
    (entry,) = (e for e in catalogue.find_datasets(dataset_path.parent) if e.summary)
    assert (entry.summary.episodes, entry.summary.success_rate) == (8, 1.0)
    with h5py.File(dataset_path, "r+") as file:
        for i in range(100_000):
            file.create_group(f"x{i}")
        file.attrs["total_episodes"] = 100_008
    monkeypatch.setattr(layout, "read_record", lambda *_: pytest.fail("an episode was read"))
    (entry,) = (e for e in catalogue.find_datasets(dataset_path.parent) if e.summary)
    assert (entry.summary.episodes, entry.summary.steps) == (100_008, 160)
    assert entry.to_json()["summary"]["success_rate"] is None
    assert str(entry.summary.metadata.license) == "MIT"
