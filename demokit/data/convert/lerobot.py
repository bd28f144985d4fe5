"""LeRobot datasets, version 3.0: Parquet tables of frames and of episodes, described by JSON.

Images are PNG inside the frames' table (LeRobot's dtype "image"): lossless, where its videos are
not. What LeRobot has no place for stands in extra columns and keys, which its tools keep.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from demokit.data.convert import Imported, Loss
from demokit.data.convert.foreign import Trajectory, import_foreign, plain_name
from demokit.data.convert.own import (
    KEY,
    Arrays,
    episode_from_json,
    metadata_from_json,
    metadata_json,
    named_observations,
    record_json,
)
from demokit.data.metadata import DatasetMetadata
from demokit.data.store import Dataset
from demokit.errors import DemokitError
from demokit.reading import parse_object, read_bytes
from demokit.types import Array, Episode

VERSION = "v3.0"
_CHUNK = "chunk-000/file-000.parquet"
_CHUNKS_SIZE = 1000
_DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
_FALLBACK_FPS = 20
_MOST_FPS = 10_000
_LARGEST_IMAGE_PIXELS = 2**24
_LAST = f"{KEY}/last/"
_INDICES = ("frame_index", "episode_index", "index", "task_index")
_STEPS = {
    "next.reward": "rewards",
    "next.terminated": "terminations",
    "next.truncated": "truncations",
}


def place(dataset: Dataset, target: Path) -> Path:  # noqa: ARG001
    """The folder itself."""
    return target


def is_export(place: Path) -> bool:
    """Whether a LeRobot dataset is at `place`."""
    return (place / "meta/info.json").is_file()


def losses(dataset: Dataset) -> tuple[Loss, ...]:
    """What LeRobot has no place for."""
    unread = "of meta/episodes, which LeRobot does not read"
    found = [
        Loss("last observation", f"frames have T rows; kept in columns {_LAST}* {unread}"),
        Loss(
            "contexts and seeds",
            f"a task is a sentence in LeRobot; kept in column {KEY} {unread}",
        ),
        Loss("checksums", "not kept: an import computes them anew"),
        Loss(
            "splits",
            "LeRobot has ranges of episodes: all are under 'train', and the tasks' splits stay in "
            "demokit's columns",
        ),
        Loss("privileged terms", "in columns privileged.*: nothing hides them from a learner"),
    ]
    if _rate(dataset.metadata) is None:
        found.append(Loss("control rate", f"not known of this family: fps is {_FALLBACK_FPS}"))
    return tuple(found)


def export(dataset: Dataset, target: Path) -> None:
    """Write the folder `target`: meta/ and data/, no videos."""
    arrow, parquet = _arrow()
    (target / "meta/episodes/chunk-000").mkdir(parents=True)
    (target / "data/chunk-000").mkdir(parents=True)
    fps = _rate(dataset.metadata) or _FALLBACK_FPS
    tasks = {name: i for i, name in enumerate(dict.fromkeys(r.task.id for r in dataset.episodes))}
    features = _features(dataset[0])
    stats, rows, writer, start = _Stats(), [], None, 0
    episodes = zip(dataset.episodes, dataset.verified(), strict=True)
    for index, (record, episode) in enumerate(episodes):
        arrays = _frames(episode)
        stats.add(arrays)
        indices = index, start, tasks[record.task.id], fps
        frames = _table(arrow, {**arrays, **_counters(len(episode), *indices)}, features)
        writer = writer or parquet.ParquetWriter(target / "data" / _CHUNK, frames.schema)
        writer.write_table(frames, row_group_size=len(episode))
        rows.append(_episode_row(episode, record_json(record), index, start))
        start += len(episode)
    if writer is not None:
        writer.close()
    parquet.write_table(arrow.Table.from_pylist(rows), target / "meta/episodes" / _CHUNK)
    _write_tasks(target / "meta/tasks.parquet", list(tasks))
    info = _info(dataset, features, len(tasks), fps)
    (target / "meta/info.json").write_text(json.dumps(info, indent=2))
    (target / "meta/stats.json").write_text(json.dumps(stats.to_json(), indent=2))


def _library(name: str) -> Any:
    """A module that only this format needs; raises DemokitError when it is not installed."""
    try:
        return import_module(name)
    except ImportError as error:
        raise DemokitError(
            "LeRobot's format needs pyarrow and pandas: pip install 'demokit[convert]'."
        ) from error


def _arrow() -> tuple[Any, Any]:
    """The module pyarrow and its Parquet part; raises DemokitError."""
    return _library("pyarrow"), _library("pyarrow.parquet")


def _rate(metadata: DatasetMetadata) -> int | None:
    """Actions per second, or None for a family that demokit does not have."""
    from demokit.envs import family_names, make_family

    if metadata.family not in family_names():
        return None
    return round(1 / make_family(metadata.family).control_dt_s)


def _frames(episode: Episode) -> dict[str, Array]:
    """Column -> T rows."""
    return {
        **{_column(name, rows): rows[:-1] for name, rows in named_observations(episode).items()},
        "action": episode.actions,
        **{column: getattr(episode, name) for column, name in _STEPS.items()},
        "next.done": episode.terminations | episode.truncations,
        "next.success": _success(episode),
        **{f"privileged.{name}": rows[:-1] for name, rows in episode.privileged.items()},
    }


def _column(name: str, rows: Array) -> str:
    return f"observation.images.{name}" if _is_image(rows) else f"observation.{name}"


def _is_image(rows: Array) -> bool:
    return rows.dtype == np.uint8 and rows.ndim == 4 and rows.shape[-1] == 3


def _success(episode: Episode) -> Array:
    """Success after each action (T,); where it was not recorded, at the end alone."""
    after = episode.privileged.get("success")
    if after is not None and after.shape == (len(episode) + 1,):
        return after[1:].astype(np.bool_)
    solved = np.zeros(len(episode), np.bool_)
    solved[-1] = episode.success
    return solved


def _features(episode: Episode) -> dict[str, dict[str, Any]]:
    """LeRobot's description of every column; a shape has at least one axis."""
    named = {name: _feature(rows) for name, rows in _frames(episode).items()}
    counters = {name: {"dtype": "int64", "shape": [1], "names": None} for name in _INDICES}
    return {**named, "timestamp": {"dtype": "float32", "shape": [1], "names": None}, **counters}


def _feature(rows: Array) -> dict[str, Any]:
    shape = list(rows.shape[1:]) or [1]
    if _is_image(rows):
        return {"dtype": "image", "shape": shape, "names": ["height", "width", "channels"]}
    names = [f"{i}" for i in range(shape[0])] if len(shape) == 1 and rows.ndim > 1 else None
    return {"dtype": str(rows.dtype), "shape": shape, "names": names}


def _counters(steps: int, episode: int, start: int, task: int, fps: int) -> dict[str, Array]:
    frame = np.arange(steps)
    return {
        "timestamp": (frame / fps).astype(np.float32),
        "frame_index": frame,
        "episode_index": np.full(steps, episode),
        "index": start + frame,
        "task_index": np.full(steps, task),
    }


def _table(arrow: Any, arrays: Mapping[str, Array], features: Mapping[str, Any]) -> Any:
    """An Arrow table, with the features as the `datasets` library writes them."""
    columns = {name: _to_arrow(arrow, rows) for name, rows in arrays.items()}
    described = {name: _hub_feature(features[name], arrays[name]) for name in columns}
    metadata = {"huggingface": json.dumps({"info": {"features": described}})}
    return arrow.table(columns).replace_schema_metadata(metadata)


def _to_arrow(arrow: Any, rows: Array) -> Any:
    """A vector per row as a fixed-size list, a scalar (or a vector of one) as itself."""
    if _is_image(rows):
        kind = arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
        return arrow.array([{"bytes": _png(image), "path": None} for image in rows], kind)
    flat = rows.reshape(len(rows), -1)
    if rows.ndim == 1 or rows.shape[1:] == (1,):
        return arrow.array(flat[:, 0])
    found = arrow.array(flat.reshape(-1))
    for width in reversed(rows.shape[1:]):
        found = arrow.FixedSizeListArray.from_arrays(found, width)
    return found


def _hub_feature(feature: Mapping[str, Any], rows: Array) -> dict[str, Any]:
    if _is_image(rows):
        return {"_type": "Image"}
    described: dict[str, Any] = {"dtype": feature["dtype"], "_type": "Value"}
    if rows.ndim > 1 and rows.shape[1:] != (1,):
        for width in reversed(rows.shape[1:]):
            described = {"feature": described, "length": width, "_type": "List"}
    return described


def _episode_row(episode: Episode, record: str, index: int, start: int) -> dict[str, Any]:
    last = {
        **{f"observation/{name}": rows for name, rows in named_observations(episode).items()},
        **{f"privileged/{name}": rows for name, rows in episode.privileged.items()},
    }
    return {
        "episode_index": index,
        "tasks": [episode.task.id],
        "length": len(episode),
        "data/chunk_index": 0,
        "data/file_index": 0,
        "dataset_from_index": start,
        "dataset_to_index": start + len(episode),
        "meta/episodes/chunk_index": 0,
        "meta/episodes/file_index": 0,
        KEY: record,
        **{f"{_LAST}{name}": rows[-1].tobytes() for name, rows in last.items()},
    }


def _write_tasks(path: Path, tasks: Sequence[str]) -> None:
    pandas = _library("pandas")
    index = pandas.Index(tasks, name="task")
    pandas.DataFrame({"task_index": range(len(tasks))}, index=index).to_parquet(path)


def _info(dataset: Dataset, features: Any, num_tasks: int, fps: int) -> dict[str, Any]:
    return {
        "codebase_version": VERSION,
        "robot_type": dataset.metadata.family,
        "total_episodes": len(dataset),
        "total_frames": dataset.total_steps,
        "total_tasks": num_tasks,
        "chunks_size": _CHUNKS_SIZE,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 500,
        "fps": fps,
        "splits": {"train": f"0:{len(dataset)}"},
        "data_path": _DATA_PATH,
        "video_path": None,
        "features": features,
        KEY: metadata_json(dataset.metadata),
    }


class _Stats:
    """Least, greatest, mean, deviation and count of every column of numbers."""

    def __init__(self) -> None:
        self._sums: dict[str, list[Array]] = {}

    def add(self, arrays: Mapping[str, Array]) -> None:
        """Take an episode in."""
        for name, rows in arrays.items():
            flat = rows.astype(np.float64)
            axes = (0, 1, 2) if _is_image(rows) else (0,)
            flat = flat / 255 if _is_image(rows) else flat
            count = np.array(flat[..., 0].size if _is_image(rows) else len(flat))
            now = [flat.min(axes), flat.max(axes), flat.sum(axes), (flat**2).sum(axes), count]
            if name in self._sums:
                ways = (np.minimum, np.maximum, np.add, np.add, np.add)
                earlier = self._sums[name]
                now = [way(a, b) for way, a, b in zip(ways, earlier, now, strict=True)]
            self._sums[name] = now

    def to_json(self) -> dict[str, Any]:
        """As meta/stats.json has it."""
        return {name: _moments(*sums) for name, sums in self._sums.items()}


def _moments(low: Array, high: Array, total: Array, squares: Array, count: Array) -> dict[str, Any]:
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0))
    named = {"min": low, "max": high, "mean": mean, "std": std, "count": count}
    # Images have one number per channel, (3, 1, 1).
    return {name: np.atleast_1d(values).tolist() for name, values in named.items()}


def _png(image: Array) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return stream.getvalue()


def _from_png(data: bytes, shape: tuple[int, ...]) -> Array:
    from PIL import Image

    picture = Image.open(io.BytesIO(data), formats=["PNG"])
    if picture.size != (shape[1], shape[0]) or picture.width * picture.height > (
        _LARGEST_IMAGE_PIXELS
    ):
        raise DemokitError(f"The source has an image of {picture.size}, not {shape[1::-1]}.")
    return np.asarray(picture.convert("RGB"))


def read(source: Path, env: str | None) -> Imported:
    """A LeRobot dataset as one of ours; one that demokit exported comes back whole.

    Raises:
        DemokitError: another version, missing files or columns, videos, or pyarrow missing.
    """
    _arrow()
    info = _read_info(source)
    episodes = _Episodes(source, info)
    if KEY in info:
        metadata = metadata_from_json(info[KEY], str(source))
        return Imported(metadata, _Own(episodes, metadata), (), own=True)
    lost = [
        Loss(name, f"left out: values of type {feature.get('dtype')} are not read")
        for name, feature in info["features"].items()
        if not _is_read(feature)
    ]
    family = env or plain_name(str(info.get("robot_type") or source.name))
    return import_foreign(
        lambda: (_trajectory(row, frames) for row, frames in episodes),
        origin="lerobot",
        family=family,
        losses=tuple(lost),
    )


def _read_info(source: Path) -> dict[str, Any]:
    try:
        info: dict[str, Any] = parse_object(read_bytes(source / "meta/info.json"))
        version, features = info["codebase_version"], info["features"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DemokitError(f"{source} has no meta/info.json that LeRobot would read.") from error
    if version != VERSION:
        raise DemokitError(
            f"{source} has LeRobot's version {version}, demokit reads {VERSION}: convert it with "
            "LeRobot's own tools first."
        )
    if not isinstance(features, dict) or "action" not in features:
        raise DemokitError(f"{source} has no feature 'action'.")
    return info


def _is_read(feature: Mapping[str, Any]) -> bool:
    """Whether the values are images or numbers, and no videos or text."""
    try:
        return feature["dtype"] == "image" or np.dtype(feature["dtype"]).kind in "biuf"
    except (KeyError, TypeError):
        return False


class _Episodes:
    """Rows of meta/episodes with their frames, one episode in memory at a time."""

    def __init__(self, source: Path, info: Mapping[str, Any]) -> None:
        self._source, self._info = source, info
        self._features = {
            name: feature for name, feature in info["features"].items() if _is_read(feature)
        }

    def __iter__(self) -> Iterator[tuple[dict[str, Any], dict[str, Array]]]:
        arrow, parquet = _arrow()
        file = None
        try:
            for path in sorted(self._source.glob("meta/episodes/*/*.parquet")):
                for row in parquet.read_table(path).to_pylist():
                    place = self._source / _DATA_PATH.format(
                        chunk_index=int(row["data/chunk_index"]),
                        file_index=int(row["data/file_index"]),
                    )
                    if file is None or file.path != place:
                        file = _DataFile(place)
                    yield row, self._frames(file, row)
        except (OSError, KeyError, ValueError, TypeError, arrow.ArrowException) as error:
            raise DemokitError(f"{self._source} is damaged ({error}).") from error

    def _frames(self, file: _DataFile, row: Mapping[str, Any]) -> dict[str, Array]:
        index = int(row["episode_index"])
        table = file.frames(index)
        if table.num_rows != row["length"]:
            raise DemokitError(
                f"{file.path} has {table.num_rows} frames of episode {index}, not {row['length']}."
            )
        return {n: _from_arrow(table[n], f) for n, f in self._features.items()}


class _DataFile:
    """A table of frames, opened once: an episode costs the row groups that may hold it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = _library("pyarrow.parquet").ParquetFile(path)
        self._first, self._last = _episode_ranges(self._file.metadata)
        self._groups: list[int] | None = None
        self._table: Any = None

    def frames(self, episode: int) -> Any:
        """The rows of an episode."""
        groups = np.flatnonzero((self._first <= episode) & (episode <= self._last)).tolist()
        if groups != self._groups:
            self._table = None  # so that two are never in memory
            self._groups, self._table = groups, self._file.read_row_groups(groups)
        same = _library("pyarrow.compute").equal(self._table["episode_index"], episode)
        return self._table.filter(same)


def _episode_ranges(metadata: Any) -> tuple[Array, Array]:
    """The least and the greatest episode in each row group; anything, where it does not say."""
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    paths = [metadata.schema.column(i).path for i in range(metadata.num_columns)]
    column = paths.index("episode_index")
    found = [group.column(column).statistics for group in groups]
    known = [stats is not None and stats.has_min_max for stats in found]
    pairs = zip(found, known, strict=True)
    ends = [(stats.min, stats.max) if known else (-np.inf, np.inf) for stats, known in pairs]
    first, last = np.array(ends, float).reshape(-1, 2).T
    return first, last


def _from_arrow(column: Any, feature: Mapping[str, Any]) -> Array:
    """A column as (T, ...), or as (T,) where the feature is a scalar without names."""
    shape = tuple(feature["shape"])
    if feature["dtype"] == "image":
        return np.stack([_from_png(cell["bytes"], shape) for cell in column.to_pylist()])
    flat = column.combine_chunks()
    while hasattr(flat, "flatten") and hasattr(flat.type, "value_type"):
        flat = flat.flatten()
    values: Array = flat.to_numpy(zero_copy_only=False).astype(feature["dtype"])
    is_scalar = shape == (1,) and feature.get("names") is None
    return values.reshape(len(column), *(() if is_scalar else shape))


class _Own:
    """Episodes that demokit exported."""

    def __init__(self, episodes: _Episodes, metadata: DatasetMetadata) -> None:
        self._episodes, self._metadata = episodes, metadata

    def __iter__(self) -> Iterator[Episode]:
        for row, frames in self._episodes:
            arrays = Arrays(
                observations=_observations(frames, row),
                actions=frames["action"],
                **{name: frames[column] for column, name in _STEPS.items()},
                privileged={
                    name.removeprefix("privileged."): _completed(rows, row, name)
                    for name, rows in frames.items()
                    if name.startswith("privileged.")
                },
            )
            where = f"episode {row['episode_index']}"
            yield episode_from_json(row[KEY], arrays, self._metadata, where)


def _observations(frames: Mapping[str, Array], row: Mapping[str, Any]) -> dict[str, Array]:
    """Name -> (T+1, ...) where the last row was kept, else (T, ...)."""
    return {
        name.removeprefix("observation.").removeprefix("images."): _completed(rows, row, name)
        for name, rows in frames.items()
        if name.startswith("observation.")
    }


def _completed(rows: Array, row: Mapping[str, Any], column: str) -> Array:
    """The rows of a column, with the last one that the episode's row keeps."""
    name = column.replace("observation.images.", "observation.").replace(".", "/", 1)
    data = row.get(_LAST + name)
    if data is None:
        return rows
    return np.concatenate([rows, np.frombuffer(data, rows.dtype).reshape(1, *rows.shape[1:])])


def _trajectory(row: Mapping[str, Any], frames: Mapping[str, Array]) -> Trajectory:
    """An episode of others; its first task is its task."""
    observations = _observations(frames, row)
    plain = observations[next(iter(observations))] if len(observations) == 1 else None
    done, success = frames.get("next.done"), frames.get("next.success")
    name = (row.get("tasks") or ["unnamed"])[0]
    return Trajectory(
        task=f"lerobot/{plain_name(str(name))}",
        observations=observations if plain is None else plain,
        actions=frames["action"],
        rewards=frames.get("next.reward"),
        terminated=done is not None and bool(done[-1]),
        success=None if success is None else bool(success[-1]),
    )
