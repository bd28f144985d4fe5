"""Reading LeRobot's folders, others' and demokit's own: every column and key is accounted for."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from demokit.data.convert import Imported
from demokit.data.convert.foreign import (
    About,
    Trajectory,
    distinct,
    import_foreign,
    observed,
    plain_name,
    terminated,
)
from demokit.data.convert.inventory import Inventory, Part
from demokit.data.convert.lerobot_layout import (
    DATA_PATH,
    INDICES,
    INFO,
    LAST,
    OBSERVATION,
    PRIVILEGED,
    STEPS,
    VERSION,
    arrow_library,
    column_of_space,
    library,
    open_parquet,
)
from demokit.data.convert.own import (
    KEY,
    PLAIN_NAME,
    Arrays,
    OwnEpisodes,
    episode_from_json,
    metadata_from_json,
    restored,
    success_after,
)
from demokit.data.convert.pictures import decode
from demokit.data.convert.stated import Stated
from demokit.data.files import DAMAGE
from demokit.data.metadata import DatasetMetadata
from demokit.errors import DemokitError
from demokit.reading import parse_object, read_bytes
from demokit.types import SPLITS, Array, Episode, as_rows
from demokit.writing import errno_of, reason

_SPLIT, _EPISODE = "split ", "episode "
_ROWS_AT_ONCE = 100  # of meta/episodes
_MOST_EPISODES = 10**6
# What LeRobot's users call the parts that are not trained on.
_HELD_OUT = {"val": "validation", "valid": "validation", "validation": "validation"}
_LAYOUT_INFO = (
    *("codebase_version", "features", "splits", "data_path", "video_path", "chunks_size"),
    *("total_episodes", "total_frames", "total_tasks"),
    *("data_files_size_in_mb", "video_files_size_in_mb"),
)
_LAYOUT_ROW = ("data/", "meta/", "videos/", "stats/", "dataset_from_index", "dataset_to_index")


def read(source: Path, env: str | None, stated: Stated) -> Imported:  # noqa: ARG001
    """A LeRobot dataset as one of ours; one that demokit exported comes back whole.

    Raises:
        DemokitError: another version, missing files, or pyarrow missing.
    """
    arrow_library()
    info = _read_info(source)
    found = _Source(source, info)
    head = found.inventory.head
    head.understood(*map(_in_info, _LAYOUT_INFO))
    if KEY in info:
        metadata = metadata_from_json(head[_in_info(KEY)], str(source))
        head.understood(*head.names(_in_info("")), *head.names(_SPLIT))
        episodes = OwnEpisodes(found.inventory, found.parts, lambda part: _own(part, metadata))
        return Imported(metadata, episodes, found.inventory, own=True)
    head.explain(_in_info("fps"), "left out: the control rate is that of the family")
    family = env or plain_name(str(head.get(_in_info("robot_type")) or source.name))
    splits = _splits(head, found.tasks)
    tasks = _task_names(found.tasks, splits, family)
    columns = _columns(info["features"])
    return import_foreign(
        found.inventory,
        found.parts,
        lambda part: _trajectory(
            part, columns, tasks[part.name], splits.get(part.name, "train"), family
        ),
        About("lerobot", family),
    )


def _read_info(source: Path) -> dict[str, Any]:
    try:
        info = parse_object(read_bytes(source / INFO))
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
    if info.get("data_path", DATA_PATH) != DATA_PATH:
        raise DemokitError(f"{source} keeps its frames elsewhere than in {DATA_PATH}: not read.")
    return info


class _Source:
    """A LeRobot folder as parts: the rows of meta/episodes, each with its frames."""

    def __init__(self, folder: Path, info: Mapping[str, Any]) -> None:
        self._folder, self._features = folder, info["features"]
        self.tasks: dict[str, str] = {}
        frames = 0
        for row in self._rows():
            self.tasks[_part_name(row)] = str(_tasks_of(row)[0])
            frames += int(row["length"])
            if len(self.tasks) > _MOST_EPISODES:
                raise DemokitError(f"{folder} has more than {_MOST_EPISODES} episodes: not read.")
        things = {_in_info(name): _constant(value) for name, value in info.items()}
        ranges = info.get("splits")
        for name, places in ranges.items() if isinstance(ranges, dict) else ():
            things[f"{_SPLIT}{name}"] = _constant(places)
        head = Part(INFO, {**things, **self._orphans(frames)})
        claimed = info.get("total_episodes")
        if claimed != len(self.tasks):
            why = f"it says {claimed}, but meta/episodes has {len(self.tasks)}"
            head.explain(_in_info("total_episodes"), why)
        self.inventory = Inventory(head, self.tasks)

    def parts(self) -> Iterator[Part]:
        """A pass over the episodes; their frames are read when they are asked for."""
        file: _DataFile | None = None
        for row in self._rows():
            place = self._folder / DATA_PATH.format(
                chunk_index=int(row["data/chunk_index"]), file_index=int(row["data/file_index"])
            )
            if file is None or file.path != place:
                file = _DataFile(place)
            yield self._part(file, row)

    def _rows(self) -> Iterator[dict[str, Any]]:
        arrow, _ = arrow_library()
        try:
            for path in sorted(self._folder.glob("meta/episodes/*/*.parquet")):
                for batch in open_parquet(path).iter_batches(_ROWS_AT_ONCE, use_threads=False):
                    yield from batch.to_pylist()
        except (*DAMAGE, arrow.ArrowException) as error:
            why = f"cannot be read: {reason(error)}" if errno_of(error) else f"is damaged ({error})"
            raise DemokitError(f"{self._folder} {why}.") from error

    def _part(self, file: _DataFile, row: Mapping[str, Any]) -> Part:
        columns = dict.fromkeys([*file.columns, *self._features])
        things: dict[str, Callable[[], Any]] = {
            name: partial(self._column, file, row, name) for name in columns
        }
        kept = {name: value for name, value in row.items() if not name.startswith(_LAYOUT_ROW)}
        things |= {_in_row(name): _constant(value) for name, value in kept.items()}
        part = Part(_part_name(row), things)
        part.understood(*INDICES, *map(_in_row, ("episode_index", "length")))
        return part

    def _column(self, file: _DataFile, row: Mapping[str, Any], name: str) -> Array:
        """A column of an episode's frames; raises DemokitError."""
        arrow, _ = arrow_library()
        try:
            feature = self._features[name]
            if name not in file.columns and not file.problem:
                raise DemokitError(f"it is no column, but of type {feature['dtype']}")
            table = file.frames(int(row["episode_index"]))
            if table.num_rows != row["length"]:
                raise DemokitError(f"it has {table.num_rows} frames, not {row['length']}")
            return _from_arrow(table[name], feature)
        except KeyError as error:
            raise DemokitError(f"{INFO} does not describe it") from error
        except (*DAMAGE, arrow.ArrowException) as error:
            raise DemokitError(f"'{name}' cannot be read ({error})") from error

    def _orphans(self, claimed: int) -> dict[str, Callable[[], Any]]:
        """A thing that stands for the frames of no episode, where there are any."""
        files = map(_DataFile, sorted(self._folder.glob("data/*/*.parquet")))
        frames = sum(file.num_rows for file in files)
        name = f"{frames - claimed} frames that are of no episode"
        return {name: _constant(None)} if frames > claimed else {}


class _DataFile:
    """A table of frames, opened once: an episode costs the row groups that may hold it.

    A file that cannot be opened has no columns, and a `problem`.
    """

    def __init__(self, path: Path) -> None:
        arrow, _ = arrow_library()
        self.path, self.problem = path, ""
        self.columns: list[str] = []
        self.num_rows = 0
        self._groups: list[int] | None = None
        self._table: Any = None
        self._episode: tuple[int, Any] | None = None
        try:
            self._file = open_parquet(path)
            self._first, self._last = _episode_ranges(self._file.metadata)
        except (*DAMAGE, arrow.ArrowException) as error:
            self.problem = f"its frames cannot be read ({error})"
            return
        self.columns, self.num_rows = self._file.schema_arrow.names, self._file.metadata.num_rows

    def frames(self, episode: int) -> Any:
        """The rows of an episode; raises DemokitError when the file cannot be read."""
        if self.problem:
            raise DemokitError(self.problem)
        if self._episode is None or self._episode[0] != episode:
            self._episode = episode, self._read(episode)
        return self._episode[1]

    def _read(self, episode: int) -> Any:
        groups = np.flatnonzero((self._first <= episode) & (episode <= self._last)).tolist()
        if groups != self._groups:
            self._table = self._episode = None  # so that two are never in memory
            self._groups, self._table = groups, self._file.read_row_groups(groups)
        same = library("pyarrow.compute").equal(self._table["episode_index"], episode)
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
    shape = tuple(map(int, feature["shape"]))
    if feature["dtype"] == "image":
        return _from_pictures(column.to_pylist(), feature, shape)
    flat = column.combine_chunks()
    while hasattr(flat, "flatten") and hasattr(flat.type, "value_type"):
        flat = flat.flatten()
    dtype = np.dtype(str(feature["dtype"]))
    if dtype.kind not in "fiub":
        raise DemokitError(f"values of {dtype} are not read")
    values: Array = flat.to_numpy(zero_copy_only=False).astype(dtype)
    is_scalar = shape == (1,) and feature.get("names") is None
    return values.reshape(len(column), *(() if is_scalar else shape))


def _from_pictures(
    cells: Sequence[Mapping[str, Any]], feature: Mapping[str, Any], shape: tuple[int, ...]
) -> Array:
    """Pictures with the channels last, wherever the feature says that they are."""
    if len(shape) != 3 or not all(cell and cell.get("bytes") for cell in cells):
        raise DemokitError("its pictures are not in the file, or of another shape")
    height, width, channels = (shape[i] for i in _axes(feature, shape))
    found = decode([cell["bytes"] for cell in cells], (height, width))
    return found.reshape(len(cells), height, width, channels)


def _axes(feature: Mapping[str, Any], shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Which axes are height, width and channels: by their names, else by their lengths."""
    names = feature.get("names")
    if isinstance(names, list) and len(names) == 3:
        channels_first = str(names[0]).startswith("channel")
    else:
        channels_first = shape[0] in (1, 3) and shape[2] not in (1, 3)
    return (1, 2, 0) if channels_first else (0, 1, 2)


def _own(part: Part, metadata: DatasetMetadata) -> Episode:
    """An episode that demokit exported."""
    spaces = {name or PLAIN_NAME: space for name, space in metadata.space_items().items()}
    columns = {column_of_space(name, space): name for name, space in spaces.items()}
    arrays = Arrays(
        observations=_observations(part, columns),
        actions=part["action"],
        **{name: part[column] for column, name in STEPS.items()},
        privileged=_privileged(part),
    )
    episode = episode_from_json(part[_in_row(KEY)], arrays, metadata, part.name)
    ended = episode.terminations | episode.truncations
    for name, rows in (("next.done", ended), ("next.success", success_after(episode))):
        part.repeats(name, rows, "it says something else than the columns that are kept")
    part.understood(_in_row("tasks"))
    return episode


def _trajectory(
    part: Part, columns: Mapping[str, str], task: str, split: str, family: str
) -> Trajectory:
    """An episode of others, or one of ours that LeRobot's tools rewrote."""
    privileged = _privileged(part)
    context = _context(part, privileged)
    sentences = [str(sentence) for sentence in part.get(_in_row("tasks")) or ()]
    found = Trajectory(
        task=task,
        observations=_only_one(_observations(part, columns)),
        actions=part["action"],
        rewards=part.get("next.reward"),
        terminated=terminated(part, "next.terminated", "next.truncated", "next.done"),
        success=_success(part, privileged),
        context=context,
        split=split,
        privileged=privileged,
        options={"tasks": sentences} if sentences and not sentences[0].endswith(task) else {},
    )
    return restored(found, part, _in_row(KEY), family)


def _success(part: Part, privileged: dict[str, Array]) -> bool | None:
    """Whether the last action solved the task, which is the last row of demokit's own term too."""
    rows = privileged.get("success")
    if "next.success" not in part or rows is None:
        return part.flag("next.success")
    after = part["next.success"].reshape(-1).astype(rows.dtype)
    if len(rows) == len(after):
        privileged["success"] = np.concatenate([rows, after[-1:]])
    part.repeats("next.success", privileged["success"][1:], "its last row is kept, as success")
    return bool(after[-1:].any())


def _only_one(observations: dict[str, Array]) -> dict[str, Array]:
    """A single observation has no name."""
    return {"": next(iter(observations.values()))} if len(observations) == 1 else observations


def _context(part: Part, privileged: dict[str, Array]) -> tuple[float, ...] | None:
    """The task's context, where demokit's export kept it with every frame."""
    rows = privileged.pop("context", None)
    if rows is None:
        return None
    rows = as_rows(rows)
    if not len(rows) or (rows != rows[0]).any() or not np.isfinite(rows).all():
        part.explain(f"{PRIVILEGED}context", "left out: it changes within the episode")
        return None
    return tuple(rows[0].astype(float).tolist())


def _task_names(
    sentences: Mapping[str, str], splits: Mapping[str, str], family: str
) -> dict[str, str]:
    """Episode -> name of its task, one to one with the sentences, and in one split only.

    Tasks of demokit's exports are named as before.
    """

    def plain(key: tuple[str, str]) -> str:
        own = key[1].removeprefix(f"{family}/")
        return f"lerobot/{plain_name(own)}" if own == key[1] else own

    def with_split(key: tuple[str, str]) -> str:
        return f"lerobot/{key[0]}/{plain_name(key[1])}"

    keys = {name: (splits.get(name, "train"), text) for name, text in sentences.items()}
    names = distinct(keys.values(), plain, with_split)
    return {name: names[key] for name, key in keys.items()}


def _splits(head: Part, episodes: Iterable[str]) -> dict[str, str]:
    """Episode -> split, where LeRobot's ranges of episodes have names that say one."""
    indices = {name: int(name.removeprefix(_EPISODE)) for name in episodes}
    found: dict[str, str] = {}
    for name in head.names(_SPLIT):
        place = str(head[name])
        split = {**_HELD_OUT, **{known: known for known in SPLITS}}.get(name.removeprefix(_SPLIT))
        numbers = re.fullmatch(r"(\d{1,9}):(\d{1,9})", place)
        if split is None or numbers is None:
            head.explain(name, "left out: its episodes are in the split 'train'")
            continue
        first, last = map(int, numbers.groups())
        found |= {name: split for name, index in indices.items() if first <= index < last}
    return found


def _columns(features: Mapping[str, Any]) -> dict[str, str]:
    """Column -> name of the observation, one to one."""
    return distinct(
        (name for name in features if name.startswith(OBSERVATION)),
        lambda name: name.removeprefix(OBSERVATION).removeprefix("images."),
        lambda name: name.removeprefix(OBSERVATION),
    )


def _observations(part: Part, columns: Mapping[str, str]) -> dict[str, Array]:
    """Name -> (T+1, ...) where the last row was kept, else (T, ...)."""
    found = observed(part, columns)
    return {name: _completed(part, f"observation/{name}", rows) for name, rows in found.items()}


def _privileged(part: Part) -> dict[str, Array]:
    """What demokit's exports keep from learners, with the last rows where they were kept."""
    places = {name: name.removeprefix(PRIVILEGED) for name in part.names(PRIVILEGED)}
    found = observed(part, places)
    return {name: _completed(part, f"privileged/{name}", rows) for name, rows in found.items()}


def _completed(part: Part, name: str, rows: Array) -> Array:
    """The rows of a column, with the last one that the episode's row keeps."""
    data = part.get(_in_row(LAST + name))
    if data is None:
        return rows
    try:
        last = np.frombuffer(data, rows.dtype).reshape(1, *rows.shape[1:])
    except (TypeError, ValueError) as error:
        raise DemokitError(f"the last row of '{name}' is damaged") from error
    return np.concatenate([rows, last])


def _tasks_of(row: Mapping[str, Any]) -> Sequence[Any]:
    return row.get("tasks") or ["unnamed"]


def _part_name(row: Mapping[str, Any]) -> str:
    return f"{_EPISODE}{int(row['episode_index'])}"


def _in_info(name: str) -> str:
    return f"{INFO} {name}"


def _in_row(name: str) -> str:
    return f"meta/episodes {name}"


def _constant(value: Any) -> Callable[[], Any]:
    return lambda: value
