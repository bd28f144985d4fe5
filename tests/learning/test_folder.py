"""A training's folder: refused, resumed, replaced, killed at every step, on a full disk."""

import csv
import json
import os
import signal
import sys
from contextlib import suppress

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from demokit.errors import DemokitError
from demokit.learning.folder import Hold, TrainingFolder

STEPS = 5
DEFAULTS = {"seed": 0, "width": 8, "device": "cpu"}


def opened(path, *, resume=False, overwrite=False, task="push", **options):
    return TrainingFolder(
        path,
        {"task": task, "config": {"seed": 0, "device": "cpu", **options}},
        extras={"demos": "a.hdf5"},
        defaults=DEFAULTS,
        forget=("table.csv", "curves"),
        resume=resume,
        overwrite=overwrite,
    )


def train(path, *, steps=STEPS, **how):
    """Adds up; a checkpoint every second step."""
    with opened(path, **how) as folder:
        total, first = torch.full((1,), float(how.get("seed", 0))), 0
        if (found := folder.load()) is not None:
            tensors, header = found
            total, first = tensors["total"], header["step"]
            folder.drop_from(first)
        for step in range(first, steps):
            total = 2 * total + step
            folder.log(step, {"total": float(total), "unmeasured": float("nan")})
            if step % 2 or step == steps - 1:
                folder.save({"total": total}, {"step": step + 1})
        folder.write_rows("table", [{"name": "total", "value": float(total)}])


def content(path):
    """Of every file below a folder; TensorBoard's names and times are never the same."""
    files = [each for each in path.rglob("*") if each.is_file() and "events.out" not in each.name]
    return {str(each.relative_to(path)): each.read_bytes() for each in files}


def rows(path):
    with (path / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def shown(path):
    """The steps that TensorBoard shows."""
    events = EventAccumulator(str(path / "tensorboard"))
    events.Reload()
    return [each.step for each in events.Scalars("total")]


@pytest.fixture
def trained(tmp_path):
    path = tmp_path / "run"
    train(path, seed=1)
    return path


def test_what_a_training_leaves(trained):
    said = json.loads((trained / "config.json").read_text())
    assert said["task"] == "push"
    assert said["config"] == {"seed": 1, "device": "cpu"}
    assert said["demos"] == "a.hdf5"
    assert said["versions"]["torch"] == torch.__version__
    assert [row["iteration"] for row in rows(trained)] == ["0", "1", "2", "3", "4"]
    assert [float(row["total"]) for row in rows(trained)] == [2, 5, 12, 27, 58]
    assert {row["unmeasured"] for row in rows(trained)} == {"nan"}
    assert (trained / "table.csv").read_text().split() == ["name,value", "total,58.0"]
    assert shown(trained) == [0, 1, 2, 3, 4]


def test_a_training_is_kept(trained):
    before = content(trained)
    with pytest.raises(DemokitError, match=r"holds a training: .*--resume.*--overwrite"):
        train(trained, seed=1)
    assert content(trained) == before


@pytest.mark.parametrize("left", ["checkpoint.safetensors", "metrics.csv", "table.csv"])
def test_whatever_a_training_has_left_is_kept(left, trained):
    for name in content(trained):
        if name != left:
            (trained / name).unlink()
    before = content(trained)
    with pytest.raises(DemokitError, match="already holds a training"):
        opened(trained, seed=1)
    assert content(trained) == before


def test_settings_alone_are_in_nobody_s_way(tmp_path):
    opened(tmp_path, seed=1).close()
    opened(tmp_path, seed=2).close()
    opened(tmp_path, seed=3, resume=True).close()
    assert json.loads((tmp_path / "config.json").read_text())["config"]["seed"] == 3


@pytest.mark.parametrize("how", [{}, {"resume": True}, {"overwrite": True}])
@pytest.mark.parametrize("text", ['{"mine": 1}', "{", "[]"])
def test_a_configuration_that_no_training_wrote_is_kept(text, how, tmp_path):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(DemokitError, match="no configuration of a training: move it away"):
        opened(tmp_path, **how)
    assert content(tmp_path) == {"config.json": text.encode()}


def test_resuming_goes_on(tmp_path, trained):
    train(tmp_path / "cut", seed=1, steps=3)
    train(tmp_path / "cut", seed=1, resume=True)
    assert content(tmp_path / "cut") == content(trained)
    assert shown(tmp_path / "cut") == shown(trained)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"seed": 2}, r"another seed \(1\)"),
        ({"task": "door"}, r'another task \("push"\)'),
        ({"width": 9}, r"another width \(8\)"),
    ],
)
def test_other_settings_are_not_resumed_with(options, says, trained):
    before = content(trained)
    with pytest.raises(DemokitError, match=says):
        opened(trained, resume=True, **{"seed": 1, **options})
    assert content(trained) == before


def test_what_is_free_or_unknown_to_the_earlier_training_is_resumed_with(trained):
    with opened(trained, seed=1, width=8, device="cuda", resume=True) as folder:
        assert folder.resumed


def test_values_from_files_are_escaped(trained):
    path = trained / "config.json"
    path.write_text(path.read_text().replace('"push"', '"\\u001b[2J\\u202e"'))
    with pytest.raises(DemokitError) as refused:
        opened(trained, seed=1, resume=True)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize(
    "text", ["", "{", "{}", "[]", "null", "\xff", '{"versions": {}}', "[" * 100_000]
)
def test_a_damaged_configuration_is_one_sentence(text, trained):
    (trained / "config.json").write_text(text, encoding="latin-1")
    before = content(trained)
    with pytest.raises(DemokitError, match=r"config\.json cannot be read .*--overwrite"):
        opened(trained, seed=1, resume=True)
    assert content(trained) == before
    train(trained, seed=1, overwrite=True)
    assert len(rows(trained)) == STEPS


def test_overwriting_takes_what_a_training_wrote_and_nothing_else(trained, tmp_path):
    own = tmp_path / "own"
    (trained / "tensorboard" / "notes.txt").write_text("mine")
    (trained / "notes.txt").write_text("mine")
    (trained / "videos").mkdir()
    own.mkdir()
    (own / "precious").write_text("mine")
    (trained / "curves").symlink_to(own)
    opened(trained, seed=2, overwrite=True).close()
    kept = content(trained)
    assert kept.pop("config.json")
    assert kept == {"notes.txt": b"mine", "tensorboard/notes.txt": b"mine"}
    assert not list((trained / "tensorboard").glob("events*"))
    assert (trained / "videos").is_dir()
    assert (own / "precious").read_text() == "mine"


def test_scalars_of_somebody_else_are_kept(tmp_path):
    (tmp_path / "tensorboard").mkdir()
    (tmp_path / "tensorboard" / "events.out.tfevents.1").write_text("mine")
    with pytest.raises(DemokitError, match="already holds"):
        opened(tmp_path)
    assert (tmp_path / "tensorboard" / "events.out.tfevents.1").read_text() == "mine"


@pytest.mark.parametrize("how", [{}, {"resume": True}, {"overwrite": True}])
def test_two_processes_do_not_train_in_one_folder(how, trained):
    held = Hold(trained)
    before = content(trained)
    with pytest.raises(DemokitError, match="is being written by process"):
        opened(trained, seed=1, **how)
    assert content(trained) == before
    held.release()
    opened(trained, seed=1, resume=True).close()


def test_a_refusal_does_not_hold_the_folder(trained):
    try:
        opened(trained, seed=2, resume=True)
    except DemokitError as error:
        refused = error  # keeps what it refers to alive
    Hold(trained).release()
    assert "another seed" in str(refused)


def test_new_scalars_of_a_resumed_training_get_columns(trained):
    with opened(trained, seed=1, resume=True) as folder:
        folder.drop_from(4)
        folder.log(4, {"total": 0.5, "new": 7.0})
        folder.log(5, {"new": 8.0, "total": 0.25})
    assert [row["iteration"] for row in rows(trained)] == ["0", "1", "2", "3", "4", "5"]
    assert [row["new"] for row in rows(trained)] == ["nan"] * 4 + ["7.0", "8.0"]
    assert [row["total"] for row in rows(trained)[4:]] == ["0.5", "0.25"]
    assert [row["unmeasured"] for row in rows(trained)] == ["nan"] * 6


@pytest.mark.parametrize("half", ["5,12", "iteration,to"])
def test_half_a_row_is_dropped(half, trained):
    table = trained / "metrics.csv"
    whole = table.read_text() if half[0] == "5" else ""
    table.write_text(whole + half)
    with opened(trained, seed=1, resume=True) as folder:
        folder.drop_from(5)
        folder.log(5, {"total": 1.0, "unmeasured": 2.0})
    assert rows(trained)[-1] == {"iteration": "5", "total": "1.0", "unmeasured": "2.0"}
    assert len(rows(trained)) == (6 if whole else 1)


@pytest.mark.parametrize("row", ["x,1.0,nan", "1,1.0", "1,1.0,nan,4", '1,"1.0,nan'])
def test_damaged_rows_are_one_sentence(row, trained):
    table = trained / "metrics.csv"
    table.write_text(f"{table.read_text()}{row}\n")
    before = table.read_bytes()
    damaged = pytest.raises(DemokitError, match=r"metrics\.csv has a damaged row \(")
    with opened(trained, seed=1, resume=True) as folder, damaged:
        folder.drop_from(5)
    assert table.read_bytes() == before


def killed_at(event, path, how):
    """Train in a process that is killed at its n-th step on the disk; whether it came so far."""
    child = os.fork()
    if child == 0:
        seen = iter(range(event))

        def watch(name, arguments):
            writes = name == "open" and str(arguments[0]).startswith(str(path))
            if (writes or name in ("os.rename", "os.remove", "os.mkdir", "os.rmdir")) and (
                next(seen, None) is None
            ):
                os.kill(os.getpid(), signal.SIGKILL)

        try:
            sys.addaudithook(watch)
            train(path, **how)
        finally:
            os._exit(0)
    return os.waitpid(child, 0)[1] == signal.SIGKILL


@pytest.mark.parametrize("how", [{}, {"resume": True}, {"overwrite": True}])
def test_killed_between_any_two_steps(how, tmp_path, trained):
    """It can be resumed, or starts anew: what comes out is a training that was never hurt."""
    event = 0
    while True:
        path = tmp_path / f"killed-{event}"
        if how:
            train(path, steps=3, seed=7 if "overwrite" in how else 1)
        if not killed_at(event, path, {"seed": 1, **how}):
            break
        refused = ""
        try:
            train(path, seed=1, resume=True)
        except DemokitError as error:
            refused = str(error)
            train(path, seed=1, overwrite=True)
        assert not refused or ("overwrite" in how and "another seed (7)" in refused), event
        found = content(path)
        assert {n: c for n, c in found.items() if not n.endswith(".tmp")} == content(trained), event
        event += 1
    assert event > 10


def fill(disk):
    """Leave no room."""
    path = disk / "ballast"
    with suppress(OSError), path.open("wb", buffering=0) as file:
        while file.write(bytes(1000)):
            pass
    return path


def test_a_full_disk_is_one_sentence_and_keeps_the_checkpoint(disk):
    path = disk / "run"
    train(path, steps=3, seed=1)
    before = (path / "checkpoint.safetensors").read_bytes()
    with opened(path, seed=1, resume=True) as folder:
        folder.drop_from(3)
        ballast = fill(disk)
        full = rf"Cannot write {path}\S* \(the disk is full\): .*--resume"
        with pytest.raises(DemokitError, match=full):
            folder.save({"total": torch.zeros(10_000)}, {"step": 4})
        with pytest.raises(DemokitError, match=full):
            folder.write_rows("table", [{"a": "x" * 10_000}])
        with pytest.raises(DemokitError, match=full):
            folder.log(3, {"total": 1.0, "unmeasured": 2.0})
        with pytest.raises(DemokitError, match=full):
            folder.drop_from(3)
        ballast.unlink()
    assert (path / "checkpoint.safetensors").read_bytes() == before
    train(path, seed=1, resume=True)
    assert [float(row["total"]) for row in rows(path)] == [2, 5, 12, 27, 58]


def test_a_full_disk_at_the_start(disk):
    (disk / "run").mkdir()
    fill(disk)
    with pytest.raises(DemokitError, match=r"the disk is full\): name another --output-dir"):
        opened(disk / "run")
    assert "config.json" not in content(disk / "run")


def test_a_folder_that_goes_away_is_one_sentence(trained, tmp_path):
    with opened(trained, seed=1, resume=True) as folder:
        trained.rename(tmp_path / "moved")
        with pytest.raises(DemokitError, match=r"Cannot write .* \(no such file or directory\)"):
            folder.save({}, {})


def test_a_file_in_the_place_of_the_folder_is_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(DemokitError, match="name another --output-dir"):
            opened(path)
