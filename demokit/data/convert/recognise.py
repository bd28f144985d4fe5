"""What a file or folder is that demokit did not write, and the command that reads it."""

from __future__ import annotations

import shlex
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import h5py

from demokit.data.convert.held import HELD
from demokit.data.convert.inventory import listed
from demokit.data.convert.lerobot_layout import INFO, VERSION
from demokit.data.files import DAMAGE, open_hdf5
from demokit.data.hdf5 import StoredArray, lookup, names, read_attributes, walk
from demokit.errors import DemokitError
from demokit.reading import open_archive, parse_object, read_bytes

_FLAT = {"observations", "actions"}  # one array for all episodes, as D4RL has them
_MINARI_FILE = "main_data.hdf5"


@dataclass(frozen=True)
class Recognised:
    """What lies at a path.

    Attributes:
        path: the file or folder.
        what: the format, in words.
        contents: label -> what it holds.
        format: as `demokit convert --from` names it; "" where that does not read it.
        command: the command that reads it; "" when demokit cannot.
        advice: what to do where there is no command.
    """

    path: Path
    what: str
    contents: dict[str, str] = field(default_factory=dict)
    format: str = ""
    command: str = ""
    advice: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain values for `--json`."""
        return {**vars(self), "path": str(self.path)}


def recognise(path: Path) -> Recognised | None:
    """What is at `path`; None for demokit's own datasets, and for what nobody here knows.

    Reads names and shapes, no data.
    """
    try:
        if path.is_dir():
            return _folder(path)
        if path.is_file():
            return _file(path)
    except (DemokitError, *DAMAGE):
        pass
    return None


def _file(path: Path) -> Recognised | None:
    if h5py.is_hdf5(path):
        with open_hdf5(path) as file:
            return _hdf5(path, file)
    if path.suffix == ".pkl" and (release := _release(path.parent)):
        return release
    if path.suffix in HELD:
        return _arrays_in(path, path)
    with path.open("rb") as stream, suppress(BadZipFile), open_archive(stream) as archive:
        if "SHA256SUMS" in archive.namelist():
            return Recognised(path, "a bundle of demokit's", command=_command("share pull", path))
    return None


def _folder(path: Path) -> Recognised | None:
    if (path / INFO).is_file():
        return _lerobot(path)
    for file in (path / _MINARI_FILE, path / "data" / _MINARI_FILE):
        if file.is_file():
            return _file(file)
    for metadata in (path / "metadata.json", path / "data" / "metadata.json"):
        if metadata.is_file() and "data_format" in parse_object(read_bytes(metadata)):
            advice = "demokit reads those that Minari keeps as HDF5"
            return Recognised(path, "a Minari dataset kept in another format", advice=advice)
    return _release(path) or _datasets(path) or _files(path)


def _files(path: Path) -> Recognised | None:
    """A folder of files of plain arrays, all of one kind."""
    for suffix in HELD:
        files = sorted(path.glob(f"*{suffix}"))
        if files:
            return _arrays_in(path, files[0], len(files))
    return None


def _arrays_in(place: Path, path: Path, files: int = 1) -> Recognised:
    """A file of plain arrays, or a folder of so many, of which the first is looked into."""
    name, what, look = HELD[path.suffix]
    if place != path:
        what = f"a folder of {files}, such as {path.name}: {what}"
    try:
        held = look(path)
    except DemokitError as error:
        return Recognised(place, what, advice=str(error).rstrip("."))
    found = _importable(place, what, held.contents, name)
    return replace(found, command=found.command + held.options)


def _datasets(path: Path) -> Recognised | None:
    found = sorted(file.name for file in path.glob("*.hdf5"))
    if not found:
        return None
    contents = {"HDF5 files": listed(found)}
    return Recognised(path, "a folder", contents, command=_command("list", path))


def _release(folder: Path) -> Recognised | None:
    """A folder of the GMPS release's pickles."""
    files = [path.stem for path in folder.glob("*.pkl")]
    numbered = sorted(filter(str.isdecimal, files), key=int)
    if not numbered:
        return None
    contents = {"tasks": f"{len(numbered)} pickles, {numbered[0]}.pkl to {numbered[-1]}.pkl"}
    what = "a folder of pickles, one per task, as the GMPS release has them"
    return _importable(folder, what, contents, "gmps-release")


def _lerobot(path: Path) -> Recognised:
    info = parse_object(read_bytes(path / INFO))
    version, features = str(info.get("codebase_version")), dict(info.get("features", {}))
    contents = {
        "episodes": f"{info.get('total_episodes')} ({info.get('total_frames')} frames)",
        "robot": str(info.get("robot_type")),
        "rate": f"{info.get('fps')} frames a second",
        "features": listed([f"{n} ({_feature(f)})" for n, f in features.items()]),
    }
    what = f"a LeRobot dataset, version {version}"
    if version == VERSION:
        return _importable(path, what, contents, "lerobot")
    advice = f"convert it to {VERSION} with LeRobot's own tools first"
    return Recognised(path, what, contents, advice=advice)


def _feature(feature: Any) -> str:
    return f"{feature['dtype']} {_shape(feature.get('shape', ()))}"


def _hdf5(path: Path, file: h5py.File) -> Recognised | None:
    tops = names(file)
    if "demokit_schema_version" in read_attributes(file) or not tops:
        return None
    if "data" in tops and isinstance(data := lookup(file, "data"), h5py.Group):
        demos = [name for name in names(data) if name.startswith("demo")]
        if demos:
            return _demos(path, data, demos)
    episodes = [name for name in tops if name.startswith("episode_")]
    if episodes and isinstance(first := lookup(file, episodes[0]), h5py.Group):
        return _minari(path, first, len(episodes))
    arrays = listed(_arrays(file))
    if _FLAT.issubset(tops):
        advice = "Minari offers D4RL's datasets in its own format"
        return Recognised(path, "one flat table of steps, as D4RL has them", {"arrays": arrays},
                          advice=advice)  # fmt: skip
    advice = "`demokit convert --help` names the formats that are read"
    contents = {"holds": arrays or listed(tops)}
    return Recognised(path, "an HDF5 file of no format that demokit knows", contents, advice=advice)


def _demos(path: Path, data: h5py.Group, demos: list[str]) -> Recognised:
    first = lookup(data, demos[0])
    arrays = _arrays(first) if isinstance(first, h5py.Group) else []
    contents = {"demos": f"{len(demos)}, such as {demos[0]}", "arrays of it": listed(arrays)}
    if any(array.startswith("obs") for array in arrays):
        return _importable(path, "a robomimic file", contents, "robomimic")
    return Recognised(
        path,
        "a raw robosuite recording: states of the simulator and actions, no observations",
        contents,
        advice="make the observations with robomimic's convert_robosuite and dataset_states_to_obs",
    )


def _minari(path: Path, first: h5py.Group, count: int) -> Recognised:
    contents = {"episodes": str(count), "arrays of the first": listed(_arrays(first))}
    if path.with_name("metadata.json").is_file():
        return _importable(path, "a Minari dataset", contents, "minari")
    advice = "put Minari's metadata.json beside it: it was copied without"
    return Recognised(path, "a Minari dataset", contents, advice=advice)


def _arrays(group: h5py.Group) -> list[str]:
    """Name, type and shape of every array below a group."""
    nodes = ((name, node) for name, node in walk(group) if isinstance(node, StoredArray))
    return [f"{name} ({node.dtype} {_shape(node.shape)})" for name, node in nodes]


def _shape(shape: Any) -> str:
    return " x ".join(map(str, shape)) or "single"


def _importable(path: Path, what: str, contents: dict[str, str], name: str) -> Recognised:
    command = f"{_command('convert', path)} --from {name} -o NAME.hdf5"
    return Recognised(path, what, contents, name, command)


def _command(command: str, path: Path) -> str:
    return f"demokit {command} {shlex.quote(str(path))}"
