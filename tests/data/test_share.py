"""Sharing: only sound, licensed datasets leave, and only what is checked takes its place."""

import os
import shutil
import stat
import sys
import zipfile
from contextlib import suppress
from dataclasses import replace

import h5py
import pytest
from hub import FakeHub

from demokit.data import DatasetWriter, open_dataset
from demokit.data.card import write_card
from demokit.data.share import LAYOUT, make_bundle, pull
from demokit.errors import DemokitError
from demokit.lock import HeldError, Lock
from demokit.reading import file_sha256
from demokit.sharing.bundle import Bundle
from demokit.sharing.giving import pack, push

fsspec = pytest.importorskip("fsspec")


@pytest.fixture
def path(tmp_path, metadata, make_episode):
    with DatasetWriter(tmp_path / "a.hdf5", replace(metadata, license="MIT")) as writer:
        for i in range(3):
            writer.add(sound(make_episode(i)))
        return writer.finish()


def sound(episode):
    """The fixture's episode with a success that agrees with its last state."""
    privileged = dict(episode.privileged)
    del privileged["success"]
    return replace(episode, privileged=privileged)


@pytest.fixture
def bundle(path):
    return make_bundle(path)


def test_pack_and_pull(bundle, path, tmp_path):
    archive = pack(bundle, tmp_path / "a.zip")
    with zipfile.ZipFile(archive) as packed:
        assert set(packed.namelist()) == {"a.hdf5", "README.md", "LICENSE", "SHA256SUMS"}
        assert b"MIT" in packed.read("LICENSE")
        assert b"license: mit" in packed.read("README.md")
    back = pull(str(archive), tmp_path / "new" / "b.hdf5")
    assert back.read_bytes() == path.read_bytes()
    assert open_dataset(back).episodes == open_dataset(path).episodes
    assert back.with_suffix(".md").read_text().startswith("---\n")
    assert sorted(p.name for p in back.parent.iterdir()) == ["b.hdf5", "b.md"]


@pytest.mark.parametrize("place", ["{folder}/shared", "file://{folder}/shared", "memory://box/a"])
def test_push_and_pull(bundle, path, tmp_path, place):
    place = place.format(folder=tmp_path)
    push(bundle, place)
    with pytest.raises(DemokitError, match="--overwrite"):
        push(bundle, place)
    push(bundle, place, overwrite=True)
    back = pull(place, tmp_path / "b.hdf5")
    assert back.read_bytes() == path.read_bytes()
    with pytest.raises(DemokitError, match="overwrite=True"):
        pull(place, back)
    pull(place, back, overwrite=True)
    if place.startswith("memory"):
        fsspec.filesystem("memory").rm("/box", recursive=True)


def test_what_may_not_be_shared(tmp_path, metadata, make_episode, path):
    with DatasetWriter(tmp_path / "n.hdf5", metadata) as writer:
        writer.add(make_episode(0))
        writer.finish()
    with pytest.raises(DemokitError, match="states no licence"):
        make_bundle(tmp_path / "n.hdf5")
    with h5py.File(path, "r+") as file:
        file["episode_1/actions"][0, 0] += 0.01
    with pytest.raises(DemokitError, match="is invalid"):
        make_bundle(path)
    with DatasetWriter(tmp_path / "u.hdf5", replace(metadata, license="MIT")) as writer:
        writer.add(make_episode(0))
    with pytest.raises(DemokitError, match="unfinished"):
        make_bundle(tmp_path / "u.hdf5")


def test_a_changed_file_is_not_taken(bundle, tmp_path):
    push(bundle, str(tmp_path / "shared"))
    target = tmp_path / "b.hdf5"
    target.write_bytes(b"kept")
    for name in ("a.hdf5", "README.md", "LICENSE"):
        file = tmp_path / "shared" / name
        before = file.read_bytes()
        file.write_bytes(before[:-1] + b"x")
        with pytest.raises(DemokitError, match="does not match its checksum"):
            pull(str(tmp_path / "shared"), target, overwrite=True)
        file.write_bytes(before)
    assert target.read_bytes() == b"kept"
    assert sorted(p.name for p in tmp_path.glob("*b*.tmp")) == []


def test_a_bundle_with_right_sums_but_an_invalid_dataset(bundle, tmp_path):
    push(bundle, str(tmp_path / "shared"))
    file = tmp_path / "shared" / "a.hdf5"
    old = file_sha256(file)
    with h5py.File(file, "r+") as opened:
        opened["episode_1/actions"][0, 0] += 0.01
    sums = tmp_path / "shared" / "SHA256SUMS"
    sums.write_text(sums.read_text().replace(old, file_sha256(file)))
    with pytest.raises(DemokitError, match="is invalid"):
        pull(str(tmp_path / "shared"), tmp_path / "b.hdf5")
    assert not (tmp_path / "b.hdf5").exists()


@pytest.fixture
def told(bundle, tmp_path):
    """Puts other content into small files of a bundle, with checksums that are right."""
    push(bundle, str(tmp_path / "shared"))

    def tell(**others):
        sums = tmp_path / "shared" / "SHA256SUMS"
        for name, content in others.items():
            file = tmp_path / "shared" / (f"{name}.md" if name == "README" else name)
            old = file_sha256(file)
            file.write_bytes(content)
            sums.write_text(sums.read_text().replace(old, file_sha256(file)))
        return str(tmp_path / "shared")

    return tell


def test_a_card_says_what_the_dataset_says_and_not_its_bundle(told, path, tmp_path):
    place = told(README=b"---\npretty_name: x\nlicense: cc0-1.0\n---\n\x1b]0;evil\x07")
    back = pull(place, tmp_path / "b.hdf5")
    card = back.with_suffix(".md").read_text()
    (tmp_path / "copy").mkdir()
    assert "license: mit\n" in card
    assert "evil" not in card
    assert card == write_card(shutil.copy(path, tmp_path / "copy" / "b.hdf5")).read_text()


@pytest.mark.parametrize("said", [b"This dataset is licensed under: CC0-1.0\n", b"", b"\xff"])
def test_a_licence_other_than_the_dataset_s_is_refused(said, told, tmp_path):
    with pytest.raises(DemokitError, match="its dataset 'MIT': ask its author which it is"):
        pull(told(LICENSE=said), tmp_path / "b.hdf5")
    assert not (tmp_path / "b.hdf5").exists()
    assert pull(told(LICENSE=b"MIT\n"), tmp_path / "b.hdf5").exists()


def hostile(kind, path, folder):
    """An archive that is not what `pack` makes."""
    target = folder / "evil.zip"
    good = folder / "good.zip"
    pack(make_bundle(path), good, overwrite=True)
    if kind == "no zip":
        target.write_text("PK")
        return target
    packing = zipfile.ZIP_DEFLATED if kind == "bomb" else zipfile.ZIP_STORED
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(target, "w", packing) as archive:
        for name in source.namelist():
            archive.writestr(name, source.read(name))
        if kind == "bomb":
            archive.writestr("big.hdf5", bytes(10**7))
        elif kind == "traversal":
            archive.writestr("../../evil.txt", "x")
        elif kind == "absolute":
            archive.writestr("/tmp/evil.txt", "x")
        elif kind == "link":
            link = zipfile.ZipInfo("link")
            link.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(link, "/etc/passwd")
        elif kind == "twice":
            archive.writestr("README.md", "x")
        elif kind == "huge card":
            archive.writestr("x", "x")
    if kind == "claims":
        data = bytearray(target.read_bytes())
        at = data.index(b"PK\x01\x02") + 20
        data[at : at + 8] = b"\xff\xff\xff\x7f" * 2
        target.write_bytes(data)
    return target


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("no zip", "no archive"),
        ("bomb", "compresses"),
        ("traversal", "which no bundle holds"),
        ("absolute", "which no bundle holds"),
        ("link", "which no bundle holds"),
        ("twice", "claims more"),
        ("claims", "claims more|no archive"),
    ],
)
def test_hostile_archives(kind, message, path, tmp_path):
    archive = hostile(kind, path, tmp_path)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(DemokitError, match=message):
        pull(str(archive), tmp_path / "b.hdf5")
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    "text", ["", "x", f"{'0' * 64}  ../a.hdf5\n", f"{'0' * 64}  a.hdf5\n", "0  README.md\n"]
)
def test_hostile_checksum_lists(text, bundle, tmp_path):
    push(bundle, str(tmp_path / "s"))
    (tmp_path / "s" / "SHA256SUMS").write_text(text)
    with pytest.raises(DemokitError, match="is no bundle"):
        pull(str(tmp_path / "s"), tmp_path / "b.hdf5")


def test_limits_and_links(bundle, path, tmp_path):
    push(bundle, str(tmp_path / "s"))
    with pytest.raises(DemokitError, match="--max-size"):
        pull(str(tmp_path / "s"), tmp_path / "b.hdf5", limit_bytes=1000)
    (tmp_path / "s" / "a.hdf5").unlink()
    (tmp_path / "s" / "a.hdf5").symlink_to(path)
    with pytest.raises(DemokitError, match="is a link"):
        pull(str(tmp_path / "s"), tmp_path / "b.hdf5")
    (tmp_path / "s" / "README.md").write_bytes(bytes(2 * 10**6))
    with pytest.raises(DemokitError, match="larger than any"):
        pull(str(tmp_path / "s"), tmp_path / "b.hdf5")
    assert not (tmp_path / "b.hdf5").exists()


@pytest.mark.parametrize("place", ["nowhere/at/all", "nowhere.zip", "bogus://x", "memory://none"])
def test_places_that_are_not_there(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DemokitError):
        pull(place, tmp_path / "b.hdf5")


NO_PLACE = ["", " ", "hf:foo", "hf:", "hf:ada", "hf:ada/push/gmps", "HF:ada/push", "foo:bar:baz"]


@pytest.mark.parametrize("place", NO_PLACE)
def test_what_is_no_place_becomes_no_folder(place, bundle, path, tmp_path, monkeypatch, invoke):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(DemokitError, match="is no place"):
        push(bundle, place)
    with pytest.raises(DemokitError, match="is no place"):
        pull(place, tmp_path / "b.hdf5")
    for more in ((), ("--dry-run",)):
        assert "is no place" in invoke("share", "push", path, place, *more, exit_code=1).output
    assert sorted(tmp_path.iterdir()) == before
    push(bundle, "./a:b")
    assert pull("./a:b", tmp_path / "b.hdf5").exists()


def test_a_dry_run_refuses_what_would_be(bundle, path, tmp_path, invoke):
    pack(bundle, tmp_path / "there.zip")
    push(bundle, str(tmp_path / "shared"))
    dry = ("--dry-run",)
    refused = {
        ("pack", path, "-o", tmp_path / "a.tar"): "NAME.zip",
        ("pack", path, "-o", tmp_path / "there.zip"): "exists",
        ("push", path, "http://127.0.0.1:9/x"): "can only be read",
        ("push", path, tmp_path / "shared"): "already",
        ("push", path, tmp_path / "new", "--public"): "--public is for",
        ("push", path, "--repo-id", "foo"): "is no place",
    }
    for words, said in refused.items():
        output = invoke("share", *words, *dry, exit_code=1).output
        assert said in " ".join(output.split())
    assert not (tmp_path / "new").exists()


def test_a_push_that_fails_leaves_the_bundle_that_was_there(bundle, disk, tmp_path):
    shared = disk / "shared"
    push(bundle, str(shared))
    before = {each.name: each.read_bytes() for each in shared.iterdir()}
    with (disk / "ballast").open("wb", buffering=0) as ballast, suppress(OSError):
        while True:
            ballast.write(bytes(1024))
    with pytest.raises(DemokitError, match="the disk is full"):
        push(bundle, str(shared), overwrite=True)
    assert {each.name: each.read_bytes() for each in shared.iterdir()} == before
    assert pull(str(shared), tmp_path / "b.hdf5").exists()


def test_one_process_pushes_to_a_folder_at_a_time(bundle, tmp_path):
    with (
        Lock(tmp_path / "shared", "wait.", inside=True),
        pytest.raises(HeldError, match="is being written"),
    ):
        push(bundle, str(tmp_path / "shared"), overwrite=True)


def test_a_file_of_before_1980_is_packed(path, tmp_path):
    os.utime(path, (0, 0))
    archive = pack(make_bundle(path), tmp_path / "old.zip")
    assert pull(str(archive), tmp_path / "b.hdf5").read_bytes() == path.read_bytes()


def test_hub(bundle, path, monkeypatch):
    hub = FakeHub("dataset")
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    assert push(bundle, "hf:ada/push") == "hf:ada/push"
    assert hub.private
    assert hub.files == {"a.hdf5": path.read_bytes(), **bundle.small}
    push(bundle, "hf://datasets/ada/push", public=True)
    hub.exists = True
    with pytest.raises(DemokitError, match="409"):
        push(bundle, "hf:ada/push")
    hub.private = False
    with pytest.raises(DemokitError, match="is public"):
        push(bundle, "hf:ada/push", overwrite=True)
    hub.private, before = True, hub.files
    with pytest.raises(DemokitError, match=r"is private, and so is all .* leave out --public"):
        push(bundle, "hf:ada/push", overwrite=True, public=True)
    assert hub.files is before
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(DemokitError, match="pip install"):
        push(bundle, "hf:ada/push")


def test_names_that_archives_cannot_hold(path, tmp_path):
    odd = shutil.copy(path, tmp_path / "odd name.hdf5")
    with pytest.raises(DemokitError, match="letters, digits"):
        make_bundle(odd)
    with pytest.raises(DemokitError, match=r"NAME\.zip"):
        pack(Bundle(LAYOUT, path, path.name, "MIT", {}), tmp_path / "a.tar")


def test_a_folder_of_other_things_is_left_alone(bundle, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "LICENSE").write_text("GPL")
    with pytest.raises(DemokitError, match="holds LICENSE already"):
        push(bundle, str(tmp_path / "mine"))
    assert (tmp_path / "mine" / "LICENSE").read_text() == "GPL"
    assert len(list((tmp_path / "mine").iterdir())) == 1


def test_pulling_spares_an_unfinished_recording(bundle, tmp_path, metadata, make_episode):
    archive = pack(bundle, tmp_path / "a.zip")
    with DatasetWriter(tmp_path / "b.hdf5", metadata) as writer:
        writer.add(make_episode(0))
    with pytest.raises(DemokitError, match="unfinished recording"):
        pull(str(archive), tmp_path / "b.hdf5", overwrite=True)
