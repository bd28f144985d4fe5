"""What the system refuses, in every command that writes: one sentence, and nothing half-written.

A full disk (a small file system, and a limit on the size of files), too few file handles, no
permission, and names that are too long or no UTF-8.
"""

import os
import resource
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from demokit.data import open_dataset
from demokit.data.validation import validate

DEMOKIT = str(Path(sys.executable).parent / "demokit")
RECORD = "record --env point --tasks 2 --license MIT"
# Command -> what it writes; {in} is a folder with sound files, {out} the place that refuses.
WRITES = {
    "record": f"{RECORD} --num-episodes 4 --out {{out}}/new.hdf5",
    "merge": "merge {in}/a.hdf5 --license MIT --out {out}/new.hdf5",
    "split": "split {in}/a.hdf5 --train-out {out}/t.hdf5 --validation-out {out}/v.hdf5",
    "filter": "filter {in}/a.hdf5 --out {out}/new.hdf5",
    "relabel": "relabel {in}/a.hdf5 --reward sparse --out {out}/new.hdf5",
    "repair": "validate {in}/a.hdf5 --repair --out {out}/new.hdf5",
    "import": "convert {in}/foreign --from robomimic -o {out}/new.hdf5",
    "robomimic": "convert {in}/a.hdf5 --to robomimic -o {out}/new",
    "minari": "convert {in}/a.hdf5 --to minari -o {out}/new",
    "pack": "share pack {in}/a.hdf5 -o {out}/new.zip",
    "push": "share push {in}/a.hdf5 {out}/new",
    "pull": "share pull {in}/bundle.zip -o {out}/new.hdf5",
    "register": "share register {in}/a.hdf5 demokit/test/new-v0",
    "plot": "inspect {in}/a.hdf5 --plot {out}/new.png",
    "page": "inspect {in}/a.hdf5 --html {out}/new.html",
    "meta-train": "meta-train --demos {in}/a.hdf5 --output-dir {out}/new --iterations 1",
}
if find_spec("pyarrow"):
    WRITES["lerobot"] = "convert {in}/a.hdf5 --to lerobot -o {out}/new"
if find_spec("imageio_ffmpeg"):
    WRITES["video"] = "replay {in}/a.hdf5 --episode 0 --video {out}/new.mp4"
EVERY = pytest.mark.parametrize("name", WRITES)
NO_ROOT_RIGHTS = (
    *("setpriv", "--bounding-set=-dac_override,-dac_read_search"),
    "--inh-caps=-dac_override,-dac_read_search",
)


@pytest.fixture(scope="session")
def sources(tmp_path_factory, recorded, invoke):
    """A folder with what commands read."""
    folder = tmp_path_factory.mktemp("sources")
    shutil.copy(recorded, folder / "a.hdf5")
    invoke("convert", recorded, "--to", "robomimic", "-o", folder / "foreign")
    invoke("share", "pack", recorded, "-o", folder / "bundle.zip")
    return folder


def run(line, sources, out, *, before=(), **limits):
    """A command in a process of its own: its exit code, and what it said on stderr."""

    def limit():
        for name, value in limits.items():
            resource.setrlimit(getattr(resource, name), (value, value))

    places = {"in": sources, "out": out}
    done = subprocess.run(
        [*before, DEMOKIT, *(part.format(**places) for part in line.split())],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=120,
        preexec_fn=limit,
        env={**os.environ, "MINARI_DATASETS_PATH": f"{out}/root", "OMP_NUM_THREADS": "1"},
    )
    for word in ("Traceback", "Exception ignored", "broken pipe"):
        assert word not in done.stderr, done.stderr
    return done.returncode, done.stderr


def said(error, *words):
    """The one sentence of an error."""
    lines = [line for line in error.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1, error
    assert error.splitlines()[-1] == lines[0]
    assert any(word in lines[0] for word in words), error
    return lines[0]


def left(folder):
    """Names of the files that are there."""
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def fill(disk, free):
    """Leave so many bytes on a disk."""
    (disk / "ballast").write_bytes(bytes(shutil.disk_usage(disk).free - free))


MAY_STAY = {"record": "new.hdf5.partial/", "meta-train": "new/"}


@EVERY
@pytest.mark.parametrize("free", [0, pytest.param(8192, marks=pytest.mark.slow)])
def test_a_full_disk(name, free, sources, disk):
    fill(disk, free)
    code, error = run(WRITES[name], sources, disk)
    if name == "video" and code == 0:  # a short one takes less than that
        return
    assert code == 1
    said(error, "(the disk is full)")
    start = MAY_STAY.get(name, "ballast")
    assert [path for path in left(disk) if not path.startswith(("ballast", start))] == []


@pytest.mark.parametrize("name", ["record", "filter", "robomimic", "pack", "plot", "page", "pull"])
def test_a_limit_on_the_size_of_files(name, sources, tmp_path):
    code, error = run(WRITES[name], sources, tmp_path, RLIMIT_FSIZE=9000)
    assert code == 1
    said(error, "(file too large)")
    assert [path for path in left(tmp_path) if not path.startswith("new.hdf5.partial/")] == []


@pytest.mark.parametrize("free", [60_000, 140_000])
def test_a_recording_keeps_what_it_says(free, sources, disk):
    """Wherever the disk gets full: as many episodes are there as it says, and it goes on."""
    fill(disk, free)
    path = disk / "new.hdf5"
    code, error = run(WRITES["record"], sources, disk)
    if code:
        saved = int(said(error, "episodes are saved").split("): ")[1].split()[0])
        assert (len(open_dataset(path)) if saved else 0) == saved
        assert not path.exists()
        (disk / "ballast").unlink()
        code, error = run(f"{WRITES['record']} --resume", sources, disk)
    assert code == 0, error
    assert len(open_dataset(path)) == 4
    assert validate(path).errors == ()


def test_a_card_that_finds_no_room(sources, disk):
    """The dataset is complete, and that is said."""
    size = (sources / "a.hdf5").stat().st_size
    block = 4096
    fill(disk, (size // block + 2) * block)  # one for the lock
    code, error = run(WRITES["pull"], sources, disk)
    assert code == 1
    assert "the dataset itself is complete" in said(error, "new.md (the disk is full)")
    assert left(disk) == ["ballast", "new.hdf5"]
    assert validate(disk / "new.hdf5").errors == ()


@pytest.mark.parametrize("line", ["inspect {in}/a.hdf5", "validate {in}/a.hdf5 --json"])
def test_output_that_cannot_be_written(line, sources):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [DEMOKIT, *line.format(**{"in": sources}).split()],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 1
    said(done.stderr, "(the disk is full)")
    assert "Exception" not in done.stderr


@pytest.mark.parametrize("handles", [5, pytest.param(7, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["record", "merge", "robomimic", "plot"])
def test_too_few_file_handles(name, handles, sources, tmp_path):
    """Python itself needs four to start."""
    if name not in WRITES:
        pytest.skip("needs imageio-ffmpeg")
    code, error = run(WRITES[name], sources, tmp_path, RLIMIT_NOFILE=handles)
    if code:
        assert code == 1
        said(error, "too many open files, see `ulimit -n`")
        kept = (".demokit-", "new.hdf5.partial/")  # what was recorded is there to go on with
        assert [path for path in left(tmp_path) if not path.startswith(kept)] == []


@EVERY
def test_no_permission(name, sources, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    out.chmod(0o500)
    before = () if os.geteuid() else NO_ROOT_RIGHTS
    if before and shutil.which(before[0]) is None:
        pytest.skip("giving up the rights of root needs setpriv")
    try:
        code, error = run(WRITES[name], sources, out, before=before)
        assert code == 1
        said(error, "(permission denied)")
        assert left(out) == []
    finally:
        out.chmod(0o700)


LONG = "n" * 245


@pytest.mark.parametrize("name", ["record", "split", "repair", "import", "pack", "plot", "video"])
def test_names_that_are_too_long(name, sources, tmp_path):
    line = WRITES[name].replace("new", f"{LONG}mmmmmmm").replace("/t.hdf5", f"/{LONG}.hdf5")
    code, error = run(line, sources, tmp_path)
    assert code == 1
    said(error, "too long")
    assert left(tmp_path) == []


def test_a_dataset_with_the_longest_name_is_read(sources, tmp_path):
    path = shutil.copy(sources / "a.hdf5", tmp_path / f"{LONG}mmmmm.hdf5")
    for line in (f"inspect {path}", f"validate {path}", f"filter {path} --out {{out}}/b.hdf5"):
        assert run(line, sources, tmp_path)[0] == 0
    for line in (
        f"validate {path} --repair",
        f"filter {path} --out {path} --overwrite",
        f"{RECORD} --out {path} --num-episodes 9 --resume",
    ):
        code, error = run(line, sources, tmp_path)
        assert code == 1
        said(error, "is too long: take at most 247 bytes")


ODD = os.fsdecode(b"b\xff\xfe")


@pytest.mark.parametrize("name", [name for name in WRITES if name != "register"])
def test_names_that_are_not_utf8(name, sources, tmp_path):
    """Written, or refused in a sentence; never a traceback once the dataset is complete."""
    code, error = run(WRITES[name].replace("new", ODD), sources, tmp_path)
    if code:
        assert name in ("lerobot", "meta-train")
        said(error, "(its name is not UTF-8)")
        assert left(tmp_path) == []
    elif name == "record":
        path = tmp_path / f"{ODD}.hdf5"
        assert validate(path).errors == ()
        for again in (
            f"inspect {path} --plot {{out}}/a.png --html {{out}}/a.html",
            f"filter {path} --out {path} --overwrite",
            f"merge {path} --license MIT --out {{out}}/b.hdf5",
            "inspect {out}/b.hdf5",
            "list {out}",
        ):
            assert run(again, sources, tmp_path)[0] == 0
        code, error = run(f"share pack {path}", sources, tmp_path)
        said(error, "to be shared, a file's name has letters, digits")
