"""Minari datasets: ours are ones already, those of others are read from their HDF5 file."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
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
    seed_of,
    stated_context,
    stated_task,
    terminated,
)
from demokit.data.convert.heap import read_blobs
from demokit.data.convert.inventory import (
    Inventory,
    Loss,
    Part,
    attribute,
    attributes,
    hdf5_things,
)
from demokit.data.convert.pictures import decode
from demokit.data.convert.stated import Stated
from demokit.data.files import open_hdf5
from demokit.data.hdf5 import StoredArray, names, open_group
from demokit.data.layout import (
    PRIVILEGED,
    RECORD_ATTRIBUTES,
    episode_arrays,
    episode_name,
    nested_options,
)
from demokit.data.metadata import default_dataset_id
from demokit.data.minari import METADATA_KEYS, describe_namespaces, write_copy
from demokit.data.store import Dataset, FinishedFile
from demokit.envs.answers import SUCCESS
from demokit.errors import DemokitError
from demokit.reading import MALFORMED, parse_json, parse_object, read_bytes
from demokit.types import Array, Episode

TAKES = frozenset(("task_column", "context_columns", "action_low", "action_high"))
KEEPS_RATE = False
_FILE = "main_data.hdf5"
_METADATA = "metadata.json"
_EPISODE = re.compile(r"episode_[0-9]{1,18}")
_LAYOUT = (
    *("total_episodes", "total_steps", "data_format", "jpeg_encoding", "minari_version"),
    *("dataset_id", "dataset_size"),
)


def place(dataset: Dataset, target: Path) -> Path:
    """The dataset's folder under the root folder `target`."""
    return target / _id(dataset)


def is_export(place: Path) -> bool:
    """Whether a Minari dataset is at `place`."""
    return (place / "data" / _FILE).is_file()


def losses(dataset: Dataset) -> tuple[Loss, ...]:  # noqa: ARG001
    """What Minari does not read."""
    why = "kept in attributes of the file, which Minari does not read"
    return (
        Loss("tasks, contexts and splits", why),
        Loss("licence, provenance and checksums", why),
        Loss("privileged terms", "kept in infos/privileged: nothing hides them from a learner"),
    )


def export(dataset: Dataset, target: Path) -> None:
    """Make the folder `target` a Minari dataset with a copy of the file.

    `target` lies one folder below the namespace that it will be in.
    """
    write_copy(dataset.path, target, _id(dataset))
    describe_namespaces(target.parent, _id(dataset))


def read(source: Path, env: str | None, stated: Stated) -> Imported:
    """A Minari dataset (its folder, its `data` folder or its file) as a dataset of ours.

    Raises:
        DemokitError: not Minari's layout, or no episode that demokit can hold.
    """
    file = _file(source)
    found = _Episodes(file)
    head = found.inventory.head
    if attribute("demokit_schema_version") in head:
        finished = FinishedFile(file)
        head.understood(*head.names(attribute("")), *map(_in_metadata, METADATA_KEYS))
        return Imported(finished.metadata, _Own(found, finished), found.inventory, own=True)
    about = _About(head, file)
    return import_foreign(
        found.inventory,
        partial(found.parts, _pictures(head)),
        lambda part: _trajectory(part, f"minari/{plain_name(about.name)}", stated),
        replace(about.describe(env), action_range=stated.action_range),
    )


def _id(dataset: Dataset) -> str:
    return default_dataset_id(dataset.metadata.family, dataset.path.stem)


def _file(source: Path) -> Path:
    for file in (source, source / _FILE, source / "data" / _FILE):
        if file.is_file():
            return file
    for metadata in (source / _METADATA, source / "data" / _METADATA):
        kept = _metadata(metadata).get("data_format") if metadata.is_file() else None
        if kept not in (None, "hdf5"):
            raise DemokitError(f"{source} is kept as {kept}: demokit reads Minari's HDF5 files.")
    raise DemokitError(f"{source} is no Minari dataset: it holds no data/{_FILE}.")


def _metadata(path: Path) -> dict[str, Any]:
    try:
        return parse_object(read_bytes(path))
    except (OSError, ValueError) as error:
        raise DemokitError(f"{path} cannot be read ({error}): Minari needs it too.") from error


def _in_metadata(name: str) -> str:
    return f"{_METADATA} {name}"


class _Episodes:
    """The episodes of a file as parts, and what metadata.json says of them."""

    def __init__(self, file: Path) -> None:
        self.file = file
        with open_hdf5(file) as opened:
            tops = names(opened)
            things = attributes(opened)
        self.names = sorted(filter(_EPISODE.fullmatch, tops), key=lambda name: int(name[8:]))
        things |= {name: _constant(None) for name in tops if name not in self.names}
        metadata = file.with_name(_METADATA)
        own = attribute("demokit_schema_version") in things
        if metadata.exists() or not own:
            about = _metadata(metadata).items()
            things |= {_in_metadata(name): _constant(value) for name, value in about}
        self.inventory = Inventory(Part(_FILE, things), self.names)

    def parts(self, pictures: Mapping[str, tuple[int, ...]]) -> Iterator[Part]:
        """A pass over the episodes; `pictures` are the shapes of observations that may be JPEG."""
        readers = {path: partial(_read_pictures, shape=shape) for path, shape in pictures.items()}
        with open_hdf5(self.file) as opened:
            for name in self.names:
                yield Part(name, hdf5_things(open_group(opened, name), readers))


def _constant(value: Any) -> Callable[[], Any]:
    return lambda: value


class _Own:
    """Episodes of a file of ours, with what Minari added to it named."""

    def __init__(self, found: _Episodes, finished: FinishedFile) -> None:
        self._found, self._finished = found, finished

    def __iter__(self) -> Iterator[Episode]:
        inventory = self._found.inventory
        inventory.begin()
        numbers = {name: int(name[len("episode_") :]) for name in self._found.names}
        count = self._finished.num_episodes
        known = {name for name, i in numbers.items() if i < count and name == episode_name(i)}
        for name in self._found.names:
            if name not in known:
                inventory.leave_out(name, "left out: another program added it, without a task")
        parts = (part for part in self._found.parts({}) if part.name in known)
        # Minari's order is by number, and so is ours.
        for part, episode in zip(parts, Dataset(self._finished).verified(), strict=True):
            yield episode
            part.understood(*(path for path, _ in episode_arrays(episode)))
            part.understood(*map(attribute, RECORD_ATTRIBUTES), *part.names(attribute("options/")))
            inventory.keep(part)


class _About:
    """What metadata.json says of a dataset of others."""

    def __init__(self, head: Part, file: Path) -> None:
        self._head = head
        head.understood(*map(_in_metadata, _LAYOUT))
        self.name = str(head.get(_in_metadata("dataset_id")) or file.parent.parent.name)

    def describe(self, env: str | None) -> About:
        """The names for the dataset."""
        authors = self._head.get(_in_metadata("author")) or []
        authors = authors if isinstance(authors, list) else [authors]
        family = env or plain_name(self._env_id() or self.name)
        return About(
            "minari",
            family,
            expert=str(self._head.get(_in_metadata("algorithm_name")) or "unknown"),
            operator=", ".join(map(str, authors)) or None,
            description=str(self._head.get(_in_metadata("description")) or ""),
        )

    def _env_id(self) -> str | None:
        try:
            name = parse_json(self._head[_in_metadata("env_spec")])["id"]
        except (DemokitError, *MALFORMED):
            return None
        self._head.explain(_in_metadata("env_spec"), "only its id is kept, as the family")
        return str(name)


def _pictures(head: Part) -> dict[str, tuple[int, ...]]:
    """Path -> shape of the observations whose space Minari stores as JPEG."""
    why = "shapes and types are those of the arrays; its bounds are not kept"
    for name in ("observation_space", "action_space"):
        head.explain(_in_metadata(name), why)
    try:
        space = parse_object(head.get(_in_metadata("observation_space")) or "{}")
        return dict(_picture_shapes(space, "observations"))
    except MALFORMED as error:
        raise DemokitError(f"The observation_space of {_METADATA} is damaged ({error}).") from error


def _picture_shapes(space: Mapping[str, Any], path: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    inside = space.get("subspaces", {})
    if isinstance(inside, list):
        inside = {f"_index_{index}": part for index, part in enumerate(inside)}
    for name, part in inside.items():
        yield from _picture_shapes(part, f"{path}/{name}")
    shape = tuple(map(int, space.get("shape", ()))) if space.get("dtype") == "uint8" else ()
    if len(shape) in (2, 3):
        yield path, shape


def _read_pictures(stored: StoredArray, *, shape: tuple[int, ...]) -> Array:
    """Pictures as they are or, where a row of them is a row of bytes, from JPEG."""
    if stored.shape[1:] == shape:
        return stored.read()
    # Rows of bytes of one length are an ordinary array.
    same = stored.is_numeric
    rows = [row.tobytes() for row in stored.read()] if same else read_blobs(stored)
    found = decode(rows, (shape[0], shape[1]))
    if found.shape[1:] != shape:
        raise DemokitError(f"its pictures are {found.shape[1:]}, not {shape}")
    return found


def _trajectory(part: Part, task: str, stated: Stated) -> Trajectory:
    if "actions" not in part and part.names("actions/"):
        raise DemokitError("its actions are several arrays, not one vector")
    actions = part["actions"]
    part.understood(attribute("id"))
    steps = np.array(len(actions))
    part.repeats(attribute("total_steps"), steps, "it is not the number of actions")
    options = part.names(attribute("options/"))
    privileged = observed(part, _below(part, PRIVILEGED))
    success = _success(part, len(actions))
    if success is not None and len(success) == len(actions) + 1:
        privileged.setdefault("success", success)
    return Trajectory(
        task=stated_task(part, stated.task_column, by_row=True) if stated.task_column else task,
        numbered=not stated.task_column,
        observations=_observations(part),
        actions=actions,
        rewards=part.get("rewards"),
        terminated=terminated(part, "terminations", "truncations", "dones"),
        success=None if success is None else bool(success[-1]),
        context=stated_context(part, stated.context_columns, by_row=True),
        seed=seed_of(part),
        privileged=privileged,
        options=nested_options({name.removeprefix(attribute("")): part[name] for name in options}),
    )


def _below(part: Part, path: str) -> dict[str, str]:
    """Place -> name, one to one, of the arrays below a group; `.` is between nested names."""
    start = f"{path}/"
    return distinct(part.names(start), lambda name: name.removeprefix(start).replace("/", "."))


def _observations(part: Part) -> dict[str, Array]:
    """The observation, or its parts by name."""
    whole = {"observations": ""} if "observations" in part else {}
    return observed(part, whole or _below(part, "observations"))


def _success(part: Part, steps: int) -> Array | None:
    """Whether the task was solved, by row, where the infos say it."""
    for name in (f"infos/{said}" for said in SUCCESS):
        rows = observed(part, {name: name} if name in part else {}).get(name)
        if rows is None:
            continue
        if (
            rows.size == len(rows)
            and steps <= len(rows) <= steps + 1
            and np.isin(rows, (0, 1)).all()
        ):
            return rows.reshape(-1).astype(np.bool_)
        part.explain(name, "left out: it does not say true or false once per step")
    return None
