"""Edits in place, on a full disk and where nothing can be written: what was there stays."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

DEMOKIT = str(Path(sys.executable).parent / "demokit")


def demokit(*arguments, code):
    done = subprocess.run(
        [DEMOKIT, *map(str, arguments)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.mark.parametrize("command", ["merge", "filter", "relabel", "repair"])
def test_editing_on_a_full_disk(disk, dataset_path, command):
    kept = Path(shutil.copy(dataset_path, disk / "kept.hdf5"))
    (disk / "ballast").write_bytes(bytes(100_000))
    before = kept.read_bytes()
    arguments = {
        "merge": ("merge", kept, other(dataset_path), "--out", disk / "out.hdf5"),
        "filter": ("filter", kept, "--out", kept, "--overwrite"),
        "relabel": ("relabel", kept, "--reward", "sparse", "--out", disk / "out.hdf5"),
        "repair": ("validate", kept, "--repair", "--out", disk / "out.hdf5"),
    }
    assert "the disk is full" in demokit(*arguments[command], code=1)
    assert kept.read_bytes() == before
    assert sorted(p.name for p in disk.iterdir()) == ["ballast", "kept.hdf5"]


def other(path):
    """A dataset of other episodes."""
    made = path.with_name("other.hdf5")
    options = ("--tasks", 4, "--episodes-per-task", 1, "--noise", 0.1, "--license", "MIT")
    demokit("record", "--env", "point", "--out", made, *options, code=0)
    return made


def test_a_read_only_folder(disk, dataset_path):
    kept = Path(shutil.copy(dataset_path, disk / "kept.hdf5"))
    before = kept.read_bytes()
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    for arguments in (
        ("record", "--env", "point", "--num-episodes", 2, "--out", disk / "a.hdf5"),
        ("filter", kept, "--out", disk / "b.hdf5"),
        ("filter", kept, "--out", kept, "--overwrite"),
    ):
        assert "read-only file system" in demokit(*arguments, code=1)
    assert kept.read_bytes() == before
    demokit("validate", kept, code=0)
