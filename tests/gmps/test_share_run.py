"""Sharing runs: what leaves is finished and licensed, what comes is checked and only then there."""

import csv
import json
import shutil
import sys
import zipfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from hub import FakeHub
from short_run import DEMOS, SHORT, options_of, trained_in

import demokit
from demokit.errors import DemokitError
from demokit.learning.checkpoint import load_checkpoint, save_checkpoint
from demokit.learning.folder import TrainingFolder, read_config
from demokit.lock import HeldError
from demokit.reading import file_sha256
from demokit.sharing import places
from demokit.sharing.bundle import who_shares
from demokit.sharing.giving import push
from gmps.experience.demos import load_demos
from gmps.runs.folder import read_scalars
from gmps.sharing import make_bundle, pull
from gmps.sharing import run as sharing_run

EVERY = {"checkpoint.safetensors", "config.json", "metrics.csv", "README.md", "LICENSE"}
ZEROS = np.zeros(2)


@pytest.fixture
def run(point_run, tmp_path):
    """A run of our own, to be changed."""
    return Path(shutil.copytree(point_run, tmp_path / "gmps-0"))


@pytest.fixture
def shared(run, tmp_path):
    """A folder that the run was pushed to."""
    push(make_bundle(run, "MIT"), str(tmp_path / "shared"))
    return tmp_path / "shared"


def names(folder):
    return {path.name for path in folder.iterdir()}


def put_sum(folder, name):
    """Let the list of checksums say what the file is now."""
    sums = folder / "SHA256SUMS"
    lines = [line for line in sums.read_text().splitlines() if not line.endswith(f"  {name}")]
    sums.write_text("\n".join([*lines, f"{file_sha256(folder / name)}  {name}", ""]))


def test_a_run_goes_and_comes_by_the_command_line(run, tmp_path, invoke):
    place, back = tmp_path / "a.zip", tmp_path / "new" / "back"
    said = invoke("share", "pack", run, "-o", place, "--license", "MIT", "--dry-run").output
    assert "licence MIT, valid" in said
    assert not place.exists()
    invoke("share", "pack", run, "-o", place, "--license", "MIT")
    with zipfile.ZipFile(place) as archive:
        assert set(archive.namelist()) == EVERY | {"SHA256SUMS"}
    said = invoke("share", "pull", place, "-o", back).output
    assert "the run is valid" in said
    assert names(back) == EVERY
    assert names(back.parent) == {"back"}
    name = "checkpoint.safetensors"
    assert (back / name).read_bytes() == (run / name).read_bytes()
    one, other = (demokit.load_policy(folder).act(ZEROS) for folder in (run, back))
    np.testing.assert_array_equal(one, other)
    assert read_scalars(back / "metrics.csv") == read_scalars(run / "metrics.csv")
    few = ("--num-tasks", 2, "--adapt-steps", 1, "--rollouts", 3)
    invoke("evaluate", back, "--output-dir", tmp_path / "judged", *few)
    assert (tmp_path / "judged" / "evaluation.json").is_file()
    assert "gmps" in invoke("runs", back.parent).output


def test_a_pulled_run_can_be_resumed(shared, tmp_path, invoke, point_demos):
    back = pull(str(shared), tmp_path / "back")
    before = (back / "checkpoint.safetensors").read_bytes()
    invoke("meta-train", "--demos", point_demos, "--output-dir", back, *SHORT, "--resume")
    assert (back / "checkpoint.safetensors").read_bytes() == before


@pytest.mark.parametrize("place", ["{folder}/shared", "file://{folder}/shared", "memory://box/a"])
def test_places(run, tmp_path, place):
    import fsspec

    place, bundle = place.format(folder=tmp_path), make_bundle(run, "MIT")
    push(bundle, place)
    with pytest.raises(DemokitError, match="--overwrite"):
        push(bundle, place)
    push(bundle, place, overwrite=True)
    back = pull(place, tmp_path / "back")
    assert names(back) == EVERY
    with pytest.raises(DemokitError, match=r"holds .* already"):
        pull(place, back)
    pull(place, back, overwrite=True)
    assert names(back) == EVERY
    if place.startswith("memory"):
        fsspec.filesystem("memory").rm("/box", recursive=True)


def test_hub(run, monkeypatch):
    hub, bundle = FakeHub("model"), make_bundle(run, "MIT")
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    assert push(bundle, "hf:ada/push") == "hf:ada/push"
    assert hub.private
    assert set(hub.files) == EVERY | {"SHA256SUMS"}
    assert hub.files["checkpoint.safetensors"] == bundle.path.read_bytes()


def test_an_adapted_policy_is_shared_without_its_run(run, tmp_path):
    trial = demokit.load_policy(run).new_task(episodes=3)
    while trial.gathering:
        trial.act(ZEROS)
        trial.record(0.5)
    agent = trial.adapted()
    agent.save(tmp_path / "there.safetensors")
    bundle = make_bundle(tmp_path / "there.safetensors", "CC0-1.0")
    assert "3 episodes |" in bundle.small["README.md"].decode()
    push(bundle, str(tmp_path / "shared"))
    found = demokit.load_policy(pull(str(tmp_path / "shared"), tmp_path / "back"))
    assert (found.steps, found.episodes) == (1, 3)
    np.testing.assert_array_equal(found.act(ZEROS), agent.act(ZEROS))


@pytest.mark.parametrize(("typed", "made"), [(".", "a.v2.zip"), ("../a.v2", "a.v2.zip")])
def test_an_archive_has_the_whole_name_of_the_run(typed, made, run, monkeypatch, invoke):
    folder = run.rename(run.with_name("a.v2"))
    monkeypatch.chdir(folder)
    invoke("share", "pack", typed, "--license", "MIT")
    assert (folder.parent / made).is_file()


def test_a_policy_s_file_may_have_any_name(run, tmp_path, invoke):
    policy = tmp_path / "policy"
    shutil.copy(run / "checkpoint.safetensors", policy)
    invoke("share", "pack", policy, "-o", tmp_path / "p.zip", "--license", "MIT")
    invoke("share", "pull", tmp_path / "p.zip", "-o", tmp_path / "back")
    assert (tmp_path / "back" / "checkpoint.safetensors").read_bytes() == policy.read_bytes()


def test_a_dataset_needs_a_name_of_one(tmp_path, point_demos, invoke):
    invoke("merge", point_demos, "--license", "MIT", "--out", tmp_path / "p.hdf5")
    invoke("share", "pack", tmp_path / "p.hdf5")
    said = invoke("share", "pull", tmp_path / "p.zip", "-o", tmp_path / "p.h5", exit_code=1).output
    assert "A dataset is pulled to -o NAME.hdf5" in " ".join(said.split())


def test_the_card_says_what_was_measured(run, invoke):
    few = ("--num-tasks", 2, "--adapt-steps", 1, "--rollouts", 3)
    invoke("evaluate", run, *few)
    card = make_bundle(run, "MIT").small["README.md"].decode()
    assert card.startswith("---\npretty_name: ")
    assert "license: mit\n" in card
    rows = [line for line in card.splitlines() if line.startswith("| 2 of `point/")]
    with (run / "evaluation" / "evaluation.csv").open() as file:
        measured = [row for row in csv.DictReader(file) if row["actor"] == "mean"]
    assert len(measured) == 4
    for step, row in enumerate(rows):
        earned = [float(each["episode_return"]) for each in measured if each["step"] == str(step)]
        success = [float(each["success"]) for each in measured if each["step"] == str(step)]
        figures = f"{3 * step} | {sum(success) / 2:.2f} | {sum(earned) / 2:.2f} |"
        assert row.endswith(f"validation` | {figures}")
    assert len(rows) == 2
    assert "as last measured: return " in card
    run = run.rename(run.with_name("renamed"))
    assert rows == [
        line
        for line in make_bundle(run, "MIT").small["README.md"].decode().splitlines()
        if line.startswith("| 2 of `point/")
    ]
    table, told = run / "evaluation" / "evaluation.csv", run / "evaluation" / "evaluation.json"
    whole, said = table.read_bytes(), told.read_text()
    another = whole.replace(b"validation", b"ood")
    for damaged in (whole[: len(whole) // 2], whole[:-200], another, b""):
        table.write_bytes(damaged)
        with pytest.raises(DemokitError, match=r"evaluation\.csv cannot be read .*evaluate again"):
            make_bundle(run, "MIT")
    table.write_bytes(whole)
    # One of another checkpoint, or none that came to its end, says nothing of this one.
    told.write_text(said.replace(json.loads(said)["runs"][0]["checkpoint"], "0" * 64))
    assert "| 2 of" not in make_bundle(run, "MIT").small["README.md"].decode()
    told.unlink()
    assert "| 2 of" not in make_bundle(run, "MIT").small["README.md"].decode()


@pytest.mark.parametrize("method", ["gmps", "oracle"])
def test_what_the_card_says_of_its_use_is_so(method, run, tmp_path, point_demos):
    if method != "gmps":
        run = tmp_path / method
        trained_in(run, load_demos(point_demos, DEMOS), method, options_of(method, iterations=1))
    card = make_bundle(run, "MIT").small["README.md"].decode()
    code = card.split("```python\n")[1].split("```")[0]
    found = {"observation": ZEROS}
    exec(code.replace("FOLDER", str(run)), found)
    assert found["action"].shape == (2,)


def test_what_was_typed_is_text_on_the_card(run):
    card = make_bundle(run, "<b>*mine*|").small["README.md"].decode()
    assert "<b>" not in card.split("---", 2)[2]
    assert r"\*mine\*\|" in card


def test_the_folder_of_the_demonstrations_stays_at_home(run, point_demos):
    bundle = make_bundle(run, "MIT")
    assert str(point_demos) == read_config(run)["demos"]
    assert json.loads(bundle.small["config.json"])["demos"] == "point.hdf5"
    assert str(point_demos.parent).encode() not in b"".join(bundle.small.values())


NAMED = {
    "home-ada/secret.h5": "secret.h5",
    "/home/ada/secret": "secret",
    "C:\\ada\\secret.h5": "secret.h5",
    "demokit/push/vision-v0": "demokit/push/vision-v0",
    "gym:ada/Ant-v5, task set default, all tasks, state": None,
}


@pytest.mark.parametrize(("source", "said"), NAMED.items())
def test_of_what_was_learned_from_no_folder_is_told(run, source, said):
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**config, "demos": source}))
    small = make_bundle(run, "MIT").small
    assert json.loads(small["config.json"])["demos"] == (said or source)


def test_what_may_not_be_shared(run, tmp_path, invoke, point_demos):
    for license in (None, " ", "a\nb", "a\u202eb", "x" * 300):
        with pytest.raises(DemokitError, match="licence"):
            make_bundle(run, license)
    with pytest.raises(DemokitError, match="--license is for runs"):
        who_shares(point_demos).make_bundle(point_demos, "MIT")
    tensors, header = load_checkpoint(run / "checkpoint.safetensors")
    save_checkpoint(run / "checkpoint.safetensors", tensors, {**header, "finished": False})
    with pytest.raises(DemokitError, match="is not finished"):
        make_bundle(run, "MIT")
    (run / "checkpoint.safetensors").write_bytes(b"no tensors")
    said = invoke("share", "push", run, tmp_path / "x", "--license", "MIT", exit_code=1).output
    assert "no demokit checkpoint" in " ".join(said.split())
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("name", sorted(EVERY))
def test_a_changed_file_is_not_taken(name, shared, tmp_path):
    data = (shared / name).read_bytes()
    (shared / name).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    before = names(tmp_path)
    with pytest.raises(DemokitError, match=f"{name} of .* does not match its checksum"):
        pull(str(shared), tmp_path / "back")
    assert names(tmp_path) == before


def damaged_tensors(path):
    tensors, header = load_checkpoint(path)
    key = next(name for name in tensors if name.startswith("learner."))
    save_checkpoint(path, {**tensors, key: torch.zeros(3, 3, 3)}, header)


def pickled(path):
    import pickle

    path.write_bytes(pickle.dumps(print))


def of_nobody(path):
    tensors, header = load_checkpoint(path)
    save_checkpoint(path, tensors, {**header, "method": "os.system"})


CHANGES = {
    "tensors": ("checkpoint.safetensors", damaged_tensors, "by hand"),
    "pickle": ("checkpoint.safetensors", pickled, "no demokit checkpoint"),
    "method": ("checkpoint.safetensors", of_nobody, "not installed here"),
    "config": ("config.json", lambda path: path.write_text("[" * 9999), "cannot be read"),
    "metrics": ("metrics.csv", lambda path: path.write_text("a\n<b>\n"), "cannot be read"),
}


@pytest.mark.parametrize(("name", "change", "said"), CHANGES.values(), ids=CHANGES)
def test_right_checksums_of_what_is_no_run(name, change, said, shared, tmp_path):
    change(shared / name)
    put_sum(shared, name)
    before = names(tmp_path)
    with pytest.raises(DemokitError, match=said):
        pull(str(shared), tmp_path / "back")
    assert names(tmp_path) == before


def test_limits_and_links(shared, tmp_path):
    with pytest.raises(DemokitError, match="--max-size"):
        pull(str(shared), tmp_path / "back", limit_bytes=100)
    metrics = shared / "metrics.csv"
    metrics.write_bytes(bytes(2**24 + 1))
    with pytest.raises(DemokitError, match="larger than any"):
        pull(str(shared), tmp_path / "back")
    metrics.unlink()
    metrics.symlink_to("/etc/passwd")
    with pytest.raises(DemokitError, match="is a link"):
        pull(str(shared), tmp_path / "back")
    assert not (tmp_path / "back").exists()


@pytest.mark.parametrize("name", ["../evil", "evil.py", "sub/README.md", "config.json.bak"])
def test_other_files_are_in_no_bundle(name, shared, tmp_path):
    with (shared / "SHA256SUMS").open("a") as sums:
        sums.write(f"{'0' * 64}  {name}\n")
    with pytest.raises(DemokitError, match="is no bundle of a run"):
        pull(str(shared), tmp_path / "back")


def test_a_dataset_is_no_run(shared, tmp_path, invoke):
    said = invoke("share", "pull", shared, "-o", tmp_path / "b.hdf5", exit_code=1).output
    assert "is no bundle of a dataset" in " ".join(said.split())
    assert not (tmp_path / "b.hdf5").exists()


def test_what_is_there_is_kept(run, shared, tmp_path):
    for name in ("notes.txt", "curves"):
        back = tmp_path / name
        back.mkdir()
        (back / name).write_text("mine")
        with pytest.raises(DemokitError, match=f"holds {name} besides"):
            pull(str(shared), back, overwrite=True)
        assert (back / name).read_text() == "mine"
        assert names(back) == {name}
    with pytest.raises(DemokitError, match="besides what is pulled"):
        pull(str(shared), run, overwrite=True)
    for name in ("README.md", "LICENSE"):
        (tmp_path / "mine").mkdir(exist_ok=True)
        (tmp_path / "mine" / name).write_text("mine")
    with pytest.raises(DemokitError, match="it was not pulled"):
        pull(str(shared), tmp_path / "mine", overwrite=True)
    assert names(tmp_path / "mine") == {"README.md", "LICENSE"}
    with pytest.raises(DemokitError, match="is a file"):
        pull(str(shared), shared / "LICENSE", overwrite=True)


def meanwhile(monkeypatch, act):
    """Do something while a bundle is fetched."""

    @contextmanager
    def received(*args):
        with places.received(*args) as bundle:
            act()
            yield bundle

    monkeypatch.setattr(sharing_run, "received", received)


@pytest.mark.parametrize("already", [False, True])
def test_nobody_trains_where_a_run_is_being_pulled(already, shared, tmp_path, monkeypatch):
    back, refused = tmp_path / "back", []
    if already:
        back.mkdir()

    def train():
        with pytest.raises(HeldError) as said:
            TrainingFolder(back, {"seed": 0})
        refused.append(said)

    meanwhile(monkeypatch, train)
    pull(str(shared), back)
    assert refused
    assert names(back) == EVERY


def test_what_came_while_a_run_was_pulled_is_kept(shared, tmp_path, monkeypatch):
    back = tmp_path / "back"
    meanwhile(monkeypatch, lambda: (back / "notes.txt").write_text("mine"))
    with pytest.raises(DemokitError, match=r"holds notes\.txt besides"):
        pull(str(shared), back, overwrite=True)
    assert names(back) == {"notes.txt"}


def test_a_failed_pull_leaves_the_run_that_was_there(shared, tmp_path):
    back = pull(str(shared), tmp_path / "back")
    before = (back / "checkpoint.safetensors").read_bytes()
    damaged_tensors(shared / "checkpoint.safetensors")
    put_sum(shared, "checkpoint.safetensors")
    with pytest.raises(DemokitError, match="by hand"):
        pull(str(shared), back, overwrite=True)
    assert (back / "checkpoint.safetensors").read_bytes() == before
    assert names(back) == EVERY
