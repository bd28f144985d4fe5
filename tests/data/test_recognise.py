"""`inspect` of what demokit did not write: what it is, and the command that reads it."""

import io
import json
import pickle
import subprocess
import sys
from importlib.util import find_spec
from zipfile import ZipFile

import h5py
import numpy as np
import pytest

from demokit.data import ArraySpec, open_dataset
from demokit.data.convert import export_dataset
from demokit.data.convert.recognise import recognise
from demokit.errors import DemokitError


def hdf5(path, **arrays):
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, rows in arrays.items():
            file[name.replace("__", "/")] = rows
    return path


ROWS = np.zeros((5, 2))
FILES = {
    "robomimic": (
        {"data__demo_0__actions": ROWS, "data__demo_0__obs__x": ROWS},
        "a robomimic file",
        "--from robomimic",
    ),
    "robosuite": (
        {"data__demo_1__actions": ROWS, "data__demo_1__states": ROWS},
        "raw robosuite recording: states",
        None,
    ),
    "d4rl": ({"observations": ROWS, "actions": ROWS, "terminals": ROWS}, "as D4RL has them", None),
    "plain": ({"some__thing": ROWS}, "of no format that demokit knows", None),
    "minari": ({"episode_0__actions": ROWS, "episode_0__observations": ROWS}, "Minari", None),
}


@pytest.mark.parametrize("kind", FILES)
def test_files_of_others(kind, tmp_path, invoke):
    arrays, what, command = FILES[kind]
    path = hdf5(tmp_path / "it is.hdf5", **arrays)
    shown = invoke("inspect", path).stdout
    found = json.loads(invoke("inspect", path, "--json").stdout)
    assert what in found["what"]
    if command is None:
        assert "No command here reads it" in shown
        assert found["command"] == ""
        assert found["advice"]
    else:
        assert f"'{path}' {command} -o NAME.hdf5" in shown
    assert any("5 x 2" in text for text in found["contents"].values())


def test_a_minari_folder_is_read_with_its_metadata(tmp_path, invoke):
    path = hdf5(tmp_path / "m/data/main_data.hdf5", episode_0__actions=ROWS)
    (path.parent / "metadata.json").write_text("{}")
    for place in (tmp_path / "m", path.parent, path):
        assert "--from minari" in invoke("inspect", place).stdout
    path.unlink()
    (path.parent / "metadata.json").write_text('{"data_format": "arrow"}')
    assert "another format" in invoke("inspect", tmp_path / "m").stdout


@pytest.mark.skipif(find_spec("pyarrow") is None, reason="needs pyarrow")
def test_folders_of_lerobot(dataset_path, tmp_path, invoke):
    folder = tmp_path / "l"
    export_dataset(open_dataset(dataset_path), "lerobot", folder)
    found = json.loads(invoke("inspect", folder, "--json").stdout)
    assert found["what"] == "a LeRobot dataset, version v3.0"
    assert found["contents"]["episodes"].startswith("8 (")
    assert "action (float32 2)" in found["contents"]["features"]
    assert "--from lerobot" in found["command"]
    info = json.loads((folder / "meta/info.json").read_text())
    (folder / "meta/info.json").write_text(json.dumps({**info, "codebase_version": "v2.1"}))
    assert "LeRobot's own tools" in invoke("inspect", folder).stdout


def test_other_folders_and_bundles(dataset_path, tmp_path, invoke):
    release = tmp_path / "release"
    release.mkdir()
    for name in ("0.pkl", "10.pkl", "tasks_pool.pkl"):
        (release / name).write_bytes(b"")
    for place in (release, release / "0.pkl"):
        shown = invoke("inspect", place).stdout
        assert "--from gmps-release" in shown
        assert "2 pickles, 0.pkl to 10.pkl" in shown
    assert "demokit list" in invoke("inspect", dataset_path.parent).stdout
    invoke("share", "pack", dataset_path, "-o", tmp_path / "b.zip")
    assert "share pull" in invoke("inspect", tmp_path / "b.zip").stdout
    assert recognise(dataset_path) is None


ARRAYS = {"observations": np.zeros((6, 2)), "actions": np.zeros((5, 1))}
BOTH = " --observation-columns NAMES --action-columns NAMES"
PLAIN = {
    "one.npz": (ARRAYS, "1", "observations (float64 6 x 2), actions (float64 5 x 1)", ""),
    "many.npz": (
        {"obs": np.zeros((3, 6, 2)), "actions": np.zeros((3, 5, 1), np.float32)},
        "3, side by side",
        "obs (float64 6 x 2), actions (float32 5 x 1)",
        " --observation-columns NAMES",
    ),
    "named.npz": (
        {f"e{n}/{name}": rows for n in range(4) for name, rows in ARRAYS.items()},
        "4, of arrays called EPISODE/NAME",
        "observations (float64 6 x 2), actions (float64 5 x 1)",
        "",
    ),
    "some.pkl": ([ARRAYS] * 2, "2", "observations (float64 6 x 2), actions (float64 5 x 1)", ""),
    "other.pickle": ({"obs": {"x": [1.0, 2.0]}, "\x1b[1m": 3}, "2", "x (list of 2)", BOTH),
    "log.csv": ("run,q0,u0\n0,1,2\n0,1,\n", "2 rows; one", "run, q0, u0", BOTH),
}


def write_plain(path, content):
    if path.suffix == ".npz":
        np.savez(path, **content)
    elif path.suffix == ".csv":
        path.write_text(content)
    else:
        path.write_bytes(pickle.dumps(content))


@pytest.mark.parametrize("name", PLAIN)
def test_files_of_plain_arrays(name, tmp_path, invoke):
    content, episodes, arrays, options = PLAIN[name]
    write_plain(tmp_path / name, content)
    format_ = {".npz": "npz", ".csv": "csv"}.get((tmp_path / name).suffix, "pickle-dicts")
    for place in (tmp_path / name, tmp_path):
        found = json.loads(invoke("inspect", place, "--json").stdout)
        first, second = found["contents"].values()
        assert first.startswith(episodes)
        assert second.startswith(arrays)
        assert found["command"] == (
            f"demokit convert {place} --from {format_} -o NAME.hdf5{options}"
        )
    assert "a folder of 1, such as" in found["what"]
    assert "\x1b" not in invoke("inspect", tmp_path / name).stdout


class Runs:
    def __reduce__(self):
        return exec, ("raise SystemExit('it ran')",)


def claiming(path):
    """An archive whose array claims a terabyte."""
    head = io.BytesIO()
    described = {"descr": "<f8", "fortran_order": False, "shape": (2**37,)}
    np.lib.format.write_array_header_1_0(head, described)
    with ZipFile(path, "w") as archive:
        archive.writestr("actions.npy", head.getvalue())


DAMAGED = {
    "objects.npz": (lambda path: np.savez(path, a=np.array([{}], object)), "objects are never"),
    "claims.npz": (claiming, "which is not what the file holds"),
    "text.npz": (lambda path: path.write_text("text"), "no npz archive, or damaged"),
    "runs.pkl": (lambda path: path.write_bytes(pickle.dumps([Runs()])), "only arrays and plain"),
    "list.pkl": (lambda path: path.write_bytes(pickle.dumps([1])), "no dicts of arrays"),
    "binary.csv": (lambda path: path.write_bytes(b"\xff\x00"), "no text in UTF-8"),
    "empty.csv": (lambda path: path.write_text(""), "its first line names the columns"),
    "twice.csv": (lambda path: path.write_text("a,a\n"), "two columns called 'a'"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_plain_arrays_that_cannot_be_read(name, tmp_path, invoke):
    write, said = DAMAGED[name]
    write(tmp_path / name)
    shown = invoke("inspect", tmp_path / name).stdout
    assert "No command here reads it" in shown
    assert said in shown


def test_only_a_whole_answer_is_given(tmp_path, invoke):
    path = hdf5(tmp_path / "r.hdf5", data__demo_0__obs__x=ROWS)
    for option in (("--episode", 0), ("--plot", tmp_path / "p.png")):
        said = invoke("inspect", path, *option, exit_code=1).stderr
        assert "import it first, with demokit convert" in said
    said = invoke("validate", path, exit_code=1).stdout + invoke("replay", path, exit_code=1).stderr
    assert "`demokit inspect` says what it is" in said


def test_an_import_of_another_format_names_the_right_one(tmp_path, invoke):
    path = hdf5(tmp_path / "r.hdf5", data__demo_0__obs__x=ROWS)
    for name in ("minari", "lerobot", "gmps-release"):
        said = invoke("convert", path, "--from", name, "-o", tmp_path / "o.hdf5", exit_code=1)
        assert "a robomimic file: use --from robomimic" in said.stderr


def test_damaged_files_are_not_recognised_and_still_explained(tmp_path, invoke):
    path = hdf5(tmp_path / "r.hdf5", data__demo_0__obs__x=ROWS)
    with h5py.File(path, "r+") as file:
        file["data/demo_0/obs/y"] = h5py.SoftLink("/data")
    assert recognise(path) is None
    assert "not a demokit dataset" in invoke("inspect", path, exit_code=1).stderr


@pytest.mark.parametrize("locking", [True, False])
def test_a_file_that_is_being_written_is_not_called_damaged(locking, tmp_path):
    path = tmp_path / "w.hdf5"
    script = (
        "import h5py, sys\n"
        "file = h5py.File(sys.argv[1], 'w', libver='latest', locking=sys.argv[2] == 'True')\n"
        "file['x'] = 1.0\n"
        "file.flush()\n"
        "print('written', flush=True)\n"
        "input()\n"
    )
    command = [sys.executable, "-c", script, str(path), str(locking)]
    with subprocess.Popen(command, stdin=-1, stdout=-1, text=True) as writer:
        writer.stdout.readline()
        with pytest.raises(DemokitError, match=r"locked|being written by another program") as said:
            open_dataset(path)
        writer.communicate("\n")
    assert "damaged" not in str(said.value)


@pytest.mark.parametrize(
    ("dtype", "low", "high"),
    [("uint8", 0, 256), ("uint16", -np.inf, np.inf), ("int8", -129, 0), ("bool", 0, 2)],
)
def test_a_space_has_bounds_that_its_type_can_hold(dtype, low, high):
    with pytest.raises(DemokitError, match="cannot have the bounds"):
        ArraySpec((2,), dtype, low, high)


@pytest.mark.parametrize(
    ("dtype", "low", "high"),
    [("uint16", 0, 65535), ("uint64", 0, float(2**64)), ("bool", 0, 1), ("float32", -np.inf, 1)],
)
def test_bounds_come_back(dtype, low, high):
    spec = ArraySpec((2,), dtype, low, high)
    assert ArraySpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
