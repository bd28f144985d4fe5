"""robomimic's HDF5: `data/demo_<i>` with T rows of everything, `mask/<split>`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import h5py
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
    terminated,
    truth,
)
from demokit.data.convert.heap import read_blobs
from demokit.data.convert.inventory import (
    Inventory,
    Loss,
    Part,
    at_once,
    attribute,
    attributes,
    hdf5_things,
    listed,
)
from demokit.data.convert.own import (
    KEY,
    PLAIN_NAME,
    Arrays,
    OwnEpisodes,
    episode_from_json,
    metadata_from_json,
    metadata_json,
    named_observations,
    record_json,
    restored,
)
from demokit.data.convert.stated import Stated
from demokit.data.files import open_hdf5, written_hdf5
from demokit.data.hdf5 import StoredArray, names, open_group, walk
from demokit.data.layout import EpisodeRecord
from demokit.data.metadata import DatasetMetadata
from demokit.data.minari import gym_spec
from demokit.data.store import Dataset
from demokit.errors import DemokitError
from demokit.reading import MALFORMED, parse_json
from demokit.types import Array, Episode

TAKES: frozenset[str] = frozenset()
KEEPS_RATE = False
_MASKS = {"train": "train", "validation": "valid", "ood": "ood", "monitor": "monitor"}
_SPLITS = {mask: split for split, mask in _MASKS.items()}
_MASK = "mask "
_DEMO = re.compile(r"demo_?[0-9]{1,18}")
_GYM_TYPE = 2  # robomimic's number for Gym environments


def place(dataset: Dataset, target: Path) -> Path:  # noqa: ARG001
    """The file itself."""
    return target


def is_export(place: Path) -> bool:
    """Whether a robomimic file is at `place`."""
    try:
        with open_hdf5(place) as file:
            own = "demokit_schema_version" in file.attrs
            return not own and "data" in names(file)
    except DemokitError:
        return False


def losses(dataset: Dataset) -> tuple[Loss, ...]:
    """What robomimic does not read."""
    found = [
        Loss(
            "tasks and contexts",
            "robomimic has one task per file: masks hold the splits, and demokit's records "
            "stay in attributes that robomimic does not read",
        ),
        Loss(
            "privileged terms",
            "kept in demo_<i>/privileged, which robomimic does not read; it sees the states "
            "before each action",
        ),
        Loss("simulator model", "only robosuite's XML has a place: states cannot be played back"),
    ]
    if not dataset.metadata.provenance.restorable:
        found.append(Loss("states", "the dataset holds none"))
    return tuple(found)


def export(dataset: Dataset, target: Path) -> None:
    """Write `dataset` as a robomimic file.

    Actions are within robomimic's bounds [-1, 1]: no dataset holds others.
    """
    metadata = dataset.metadata
    with written_hdf5(target, libver=None) as (file, _):
        data = file.create_group("data")
        for record, episode in zip(dataset.episodes, dataset.verified(), strict=True):
            _write_demo(data.create_group(f"demo_{record.index}"), record, episode)
        data.attrs["total"] = dataset.total_steps
        data.attrs["env_args"] = json.dumps(_env_args(metadata))
        data.attrs[KEY] = metadata_json(metadata)
        for split in {record.task.split for record in dataset.episodes}:
            names = [f"demo_{r.index}" for r in dataset.episodes if r.task.split == split]
            file[f"mask/{_MASKS[split]}"] = np.array(names, dtype="S")


def _env_args(metadata: DatasetMetadata) -> dict[str, Any]:
    return {
        "env_name": _gym_id(metadata.family),
        "type": _GYM_TYPE,
        "env_version": metadata.provenance.versions.get("demokit", "unknown"),
        "env_kwargs": {"reward": metadata.reward},
    }


def _gym_id(family: str) -> str:
    """What `gymnasium.make` takes; the family's name where demokit does not have it."""
    spec = gym_spec(family)
    return f"demokit.envs.gym:{spec.id}" if spec else family


def _write_demo(demo: h5py.Group, record: EpisodeRecord, episode: Episode) -> None:
    demo.attrs["num_samples"] = len(episode)
    demo.attrs[KEY] = record_json(record)
    demo["actions"] = np.clip(episode.actions, -1, 1)
    demo["rewards"] = episode.rewards
    demo["dones"] = (episode.terminations | episode.truncations).astype(np.int64)
    demo["terminations"], demo["truncations"] = episode.terminations, episode.truncations
    if "state" in episode.privileged:
        demo["states"] = episode.privileged["state"][:-1]
    for name, rows in named_observations(episode).items():
        demo[f"obs/{name}"], demo[f"next_obs/{name}"] = rows[:-1], rows[1:]
    for name, rows in episode.privileged.items():
        demo[f"privileged/{name}"] = rows


def read(source: Path, env: str | None, stated: Stated) -> Imported:  # noqa: ARG001
    """A robomimic file as a dataset; one that demokit exported comes back whole.

    Raises:
        DemokitError: not robomimic's layout, or damaged.
    """
    found = _Demos(source)
    head, splits = found.inventory.head, _splits(found)
    head.understood(attribute("total"))
    if attribute(KEY) in head:
        metadata = metadata_from_json(str(head[attribute(KEY)]), str(source))
        head.understood(attribute("env_args"))

        def episode(part: Part) -> Episode:
            whole = _own(part, metadata)
            _check_mask(head, part.name, splits, whole.task.split)
            return whole

        episodes = OwnEpisodes(found.inventory, found.parts, episode)
        return Imported(metadata, episodes, found.inventory, own=True)
    family = env or plain_name(_env_name(head, source))
    return import_foreign(
        found.inventory,
        found.parts,
        lambda part: _trajectory(part, splits.get(part.name, "train"), family),
        About("robomimic", family),
    )


class _Demos:
    """The demos of a file as parts, by their numbers."""

    def __init__(self, source: Path) -> None:
        self._source = source
        with open_hdf5(source) as file:
            tops = names(file)
            if "data" not in tops:
                raise DemokitError(f"{source} is no robomimic file: it has no group 'data'.")
            data = open_group(file, "data")
            inside = names(data)
            self.names = sorted(filter(_DEMO.fullmatch, inside), key=_number)
            things = {**attributes(data), **_masks(file), **attributes(file, "/")}
        others = {*tops} - {"data", "mask"} | {f"data/{n}" for n in {*inside} - {*self.names}}
        things |= dict.fromkeys(sorted(others), lambda: None)
        self.inventory = Inventory(Part("data", things), self.names)

    def parts(self) -> Iterator[Part]:
        """A pass over the demos; what they hold is read when it is asked for."""
        with open_hdf5(self._source) as file:
            for name in self.names:
                yield Part(name, hdf5_things(open_group(file, f"data/{name}")))


def _number(name: str) -> int:
    return int(re.sub(r"\D", "", name))


def _masks(file: h5py.File) -> dict[str, Callable[[], Any]]:
    if "mask" not in names(file):
        return {}
    found = walk(open_group(file, "mask"))
    masks = {name: rows for name, rows in found if isinstance(rows, StoredArray)}
    return {f"{_MASK}{name}": at_once(partial(_texts, rows)) for name, rows in masks.items()}


def _texts(rows: StoredArray) -> list[str]:
    """A row of texts, of one length as robomimic writes them, or not."""
    return rows.read_texts() if rows.dtype.kind == "S" else [t.decode() for t in read_blobs(rows)]


def _splits(found: _Demos) -> dict[str, str]:
    """Demo -> split, of those that a mask with a split's name lists."""
    head, splits = found.inventory.head, dict[str, str]()
    for mask, split in _SPLITS.items():
        members = _members(head, f"{_MASK}{mask}")
        strangers = sorted({*members} - {*found.names})
        if strangers:
            head.explain(f"{_MASK}{mask}", f"names demos that are not there: {listed(strangers)}")
        if not splits.keys().isdisjoint(members):
            head.explain(f"{_MASK}{mask}", "names demos of another mask, which is followed")
        splits = {**dict.fromkeys(members, split), **splits}
    return splits


def _check_mask(head: Part, demo: str, splits: Mapping[str, str], split: str) -> None:
    """Say where a mask puts a demo of ours into another split than its task is in."""
    said = splits.get(demo, split)
    if said != split:
        why = f"says otherwise of {demo} than its task, which is in '{split}'"
        head.explain(f"{_MASK}{_MASKS[said]}", why)


def _members(head: Part, mask: str) -> list[str]:
    try:
        return list(head.get(mask, ()))
    except DemokitError as problem:
        head.explain(mask, f"left out: {problem}")
        return []


def _own(part: Part, metadata: DatasetMetadata) -> Episode:
    """A demo that demokit exported."""
    observed_names = [name or PLAIN_NAME for name in metadata.space_items()]
    now = {name: part[f"obs/{name}"] for name in observed_names}
    after = {name: part[f"next_obs/{name}"] for name in observed_names}
    arrays = Arrays(
        {name: np.concatenate([now[name], after[name][-1:]]) for name in now},
        part["actions"],
        part["rewards"],
        part["terminations"],
        part["truncations"],
        _privileged(part),
    )
    episode = episode_from_json(str(part[attribute(KEY)]), arrays, metadata, part.name)
    repeated = {"dones": episode.terminations | episode.truncations}
    repeated |= {f"next_obs/{name}": arrays.observations[name][1:] for name in now}
    if "state" in episode.privileged:
        repeated["states"] = episode.privileged["state"][:-1]
    for name, rows in repeated.items():
        part.repeats(name, rows, "it says something else than the arrays that are kept")
    part.understood(attribute("num_samples"))
    return episode


def _privileged(part: Part) -> dict[str, Array]:
    """What demokit's exports keep from learners."""
    start = "privileged/"
    return observed(part, {name: name.removeprefix(start) for name in part.names(start)})


def _env_name(head: Part, source: Path) -> str:
    """The environment's name, as robomimic or, in its raw files, robosuite has it."""
    try:
        name = parse_json(head[attribute("env_args")])["env_name"]
        head.explain(attribute("env_args"), "only its env_name is kept, as the family")
        return str(name)
    except (DemokitError, *MALFORMED) as error:
        if attribute("env") in head:
            return str(head[attribute("env")])
        raise DemokitError(
            f"{source} does not say its environment (data.attrs['env_args']): name it with --env."
        ) from error


def _trajectory(part: Part, split: str, family: str) -> Trajectory:
    """A demo of others."""
    part.explain("states", "left out: they are of a simulation that demokit cannot restore")
    actions, rewards = part["actions"], part.get("rewards")
    part.repeats(
        attribute("num_samples"), np.array(len(actions)), "it is not the number of actions"
    )
    if not part.names("obs/") and "states" in part:
        raise DemokitError(
            "it has the simulator's states and no observations: robomimic's "
            "dataset_states_to_obs makes these"
        )
    privileged = _privileged(part)
    found = Trajectory(
        task=f"robomimic/{split}/00",
        numbered=True,
        observations=_observations(part),
        actions=actions,
        rewards=rewards,
        terminated=terminated(part, "terminations", "truncations", "dones"),
        success=_success(part, None if "success" in privileged else rewards),
        split=split,
        seed=seed_of(part),
        privileged=privileged,
    )
    return restored(found, part, attribute(KEY), family)


def _observations(part: Part) -> dict[str, Array]:
    """The observations; where all have a next one, with the last row from there."""
    places = distinct(part.names("obs/"), lambda name: name.removeprefix("obs/").replace("/", "."))
    now = observed(part, places)
    nexts = {f"next_{place}": name for place, name in places.items() if name in now}
    if not all(place in part for place in nexts):
        return now
    after = observed(part, nexts)
    if {n: rows.shape for n, rows in after.items()} != {n: rows.shape for n, rows in now.items()}:
        raise DemokitError("its next_obs do not fit its obs")
    found = {name: np.concatenate([rows, after[name][-1:]]) for name, rows in now.items()}
    why = "its rows are not the next ones of obs; only the last one is kept"
    for place, name in nexts.items():
        part.repeats(place, found[name][1:], why)
    return found


def _success(part: Part, rewards: Array | None) -> bool | None:
    """As the demo says it (Isaac Lab); else its last reward, where these are only 0 and 1."""
    said = truth(part, attribute("success"))
    if said is not None or rewards is None or not np.isin(rewards, (0, 1)).all():
        return said
    part.explain("rewards", "kept, and read as success too: they are only 0 and 1")
    return bool(rewards[-1:].any())
