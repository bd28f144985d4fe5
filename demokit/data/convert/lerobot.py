"""LeRobot datasets, version 3.0: Parquet tables of frames and of episodes, described by JSON.

Images are PNG inside the frames' table (LeRobot's dtype "image"): lossless, where its videos are
not. What LeRobot has no place for stands in extra columns and keys, which its tools keep.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from demokit.data.convert.inventory import Loss
from demokit.data.convert.lerobot_import import read
from demokit.data.convert.lerobot_layout import (
    CHUNK,
    CHUNKS_SIZE,
    DATA_PATH,
    INDICES,
    INFO,
    LAST,
    PRIVILEGED,
    STEPS,
    VERSION,
    are_pictures,
    arrow_library,
    column_of_space,
    library,
)
from demokit.data.convert.lerobot_stats import AllStatistics, episode_statistics
from demokit.data.convert.own import (
    KEY,
    PLAIN_NAME,
    metadata_json,
    named_observations,
    record_json,
    success_after,
)
from demokit.data.metadata import DatasetMetadata
from demokit.data.store import Dataset
from demokit.errors import DemokitError
from demokit.types import Array, Episode, as_rows

TAKES: frozenset[str] = frozenset()
KEEPS_RATE = True
__all__ = ["export", "is_export", "losses", "place", "read"]
_FALLBACK_FPS = 20


def place(dataset: Dataset, target: Path) -> Path:  # noqa: ARG001
    """The folder itself."""
    return target


def is_export(place: Path) -> bool:
    """Whether a LeRobot dataset is at `place`."""
    return (place / INFO).is_file()


def losses(dataset: Dataset, rate_hz: int | None = None) -> tuple[Loss, ...]:
    """What LeRobot has no place for; raises DemokitError where the family has another rate."""
    unread = "of meta/episodes, which LeRobot does not read"
    found = [
        Loss("last observation", f"frames have T rows; kept in columns {LAST}* {unread}"),
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
    if _rate(dataset.metadata, rate_hz) is None:
        unknown = f"not known of this family: fps is {_FALLBACK_FPS}, unless --fps says another"
        found.append(Loss("control rate", unknown))
    return tuple(found)


def export(dataset: Dataset, target: Path, rate_hz: int | None = None) -> None:
    """Write the folder `target`: meta/ and data/, no videos.

    Raises:
        DemokitError: two observations would have one column.
    """
    arrow, parquet = arrow_library()
    (target / "meta/episodes/chunk-000").mkdir(parents=True)
    (target / "data/chunk-000").mkdir(parents=True)
    fps = _rate(dataset.metadata, rate_hz) or _FALLBACK_FPS
    tasks = {name: i for i, name in enumerate(dict.fromkeys(r.task.id for r in dataset.episodes))}
    columns = _columns(dataset.metadata)
    features = _features(_frames(dataset[0], columns))
    stats, rows, writer, start = AllStatistics(), [], None, 0
    episodes = zip(dataset.episodes, dataset.verified(), strict=True)
    for index, (record, episode) in enumerate(episodes):
        counters = _counters(len(episode), index, start, tasks[record.task.id], fps)
        arrays = {**_frames(episode, columns), **counters}
        _check_columns(arrays, features, index)
        frames = _table(arrow, arrays, features)
        writer = writer or parquet.ParquetWriter(target / "data" / CHUNK, frames.schema)
        writer.write_table(frames, row_group_size=len(episode))
        found = episode_statistics(arrays)
        stats.add(found)
        row = _episode_row(episode, record_json(record), index, start)
        rows.append(row | _flat(found))
        start += len(episode)
    if writer is not None:
        writer.close()
    parquet.write_table(arrow.Table.from_pylist(rows), target / "meta/episodes" / CHUNK)
    _write_tasks(target / "meta/tasks.parquet", list(tasks))
    info = _info(dataset, features, len(tasks), fps)
    (target / INFO).write_text(json.dumps(info, indent=2))
    (target / "meta/stats.json").write_text(json.dumps(stats.to_json(), indent=2))


def _rate(metadata: DatasetMetadata, stated_hz: int | None) -> int | None:
    """Actions per second: the family's, else what is stated; raises DemokitError for two."""
    from demokit.envs import family_names, make_family

    name = metadata.family
    if name not in family_names():
        return stated_hz
    own = round(1 / make_family(name).control_dt_s)
    if stated_hz not in (None, own):
        raise DemokitError(f"{name} has {own} steps per second: leave out --fps {stated_hz}.")
    return own


def _columns(metadata: DatasetMetadata) -> dict[str, str]:
    """Observation -> its column, one to one."""
    spaces = metadata.space_items().items()
    found = {n or PLAIN_NAME: column_of_space(n or PLAIN_NAME, space) for n, space in spaces}
    if len(set(found.values())) < len(found):
        raise DemokitError(
            f"Two observations would be one column of LeRobot's ({', '.join(found)}): pictures "
            "stand there as images.NAME."
        )
    return found


def _frames(episode: Episode, columns: Mapping[str, str]) -> dict[str, Array]:
    """Column -> T rows."""
    return {
        **{columns[name]: rows[:-1] for name, rows in named_observations(episode).items()},
        "action": episode.actions,
        **{column: getattr(episode, name) for column, name in STEPS.items()},
        "next.done": episode.terminations | episode.truncations,
        "next.success": success_after(episode),
        **{f"{PRIVILEGED}{name}": rows[:-1] for name, rows in episode.privileged.items()},
    }


def _check_columns(arrays: Mapping[str, Array], features: Mapping[str, Any], index: int) -> None:
    """Raise DemokitError unless an episode has the columns of the first one."""
    differing = sorted(arrays.keys() ^ features.keys())
    if differing:
        raise DemokitError(
            f"Episode {index} and episode 0 do not both have {', '.join(differing)}: LeRobot wants "
            "the same columns in all; convert what was merged file by file."
        )


def _features(frames: Mapping[str, Array]) -> dict[str, dict[str, Any]]:
    """LeRobot's description of every column; a shape has at least one axis."""
    named = {name: _feature(rows) for name, rows in frames.items()}
    counters = {name: {"dtype": "int64", "shape": [1], "names": None} for name in INDICES}
    return {**named, **counters, "timestamp": {"dtype": "float32", "shape": [1], "names": None}}


def _feature(rows: Array) -> dict[str, Any]:
    shape = list(rows.shape[1:]) or [1]
    if are_pictures(rows):
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
    if are_pictures(rows):
        kind = arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
        return arrow.array([{"bytes": _png(image), "path": None} for image in rows], kind)
    flat = as_rows(rows)
    if rows.ndim == 1 or rows.shape[1:] == (1,):
        return arrow.array(flat[:, 0])
    found = arrow.array(flat.reshape(-1))
    for width in reversed(rows.shape[1:]):
        found = arrow.FixedSizeListArray.from_arrays(found, width)
    return found


def _hub_feature(feature: Mapping[str, Any], rows: Array) -> dict[str, Any]:
    if are_pictures(rows):
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
        **{f"{LAST}{name}": rows[-1].tobytes() for name, rows in last.items()},
    }


def _flat(stats: Mapping[str, Mapping[str, Array]]) -> dict[str, Any]:
    """Statistics as columns of meta/episodes."""
    return {
        f"stats/{name}/{which}": values.tolist()
        for name, found in stats.items()
        for which, values in found.items()
    }


def _write_tasks(path: Path, tasks: Sequence[str]) -> None:
    pandas = library("pandas")
    index = pandas.Index(tasks, name="task")
    pandas.DataFrame({"task_index": range(len(tasks))}, index=index).to_parquet(path)


def _info(dataset: Dataset, features: Any, num_tasks: int, fps: int) -> dict[str, Any]:
    return {
        "codebase_version": VERSION,
        "robot_type": dataset.metadata.family,
        "total_episodes": len(dataset),
        "total_frames": dataset.total_steps,
        "total_tasks": num_tasks,
        "chunks_size": CHUNKS_SIZE,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 500,
        "fps": fps,
        "splits": {"train": f"0:{len(dataset)}"},
        "data_path": DATA_PATH,
        "video_path": None,
        "features": features,
        KEY: metadata_json(dataset.metadata),
    }


def _png(image: Array) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return stream.getvalue()
