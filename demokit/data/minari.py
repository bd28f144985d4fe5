"""Putting datasets under Minari's local root without rewriting them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from demokit.data.paths import is_dataset_id, local_root
from demokit.errors import DemokitError
from demokit.reading import parse_json
from demokit.writing import replaced_folder, write_whole

if TYPE_CHECKING:
    from demokit.data.metadata import DatasetMetadata

_FILE = "main_data.hdf5"
_ADVICE = "choose another folder with MINARI_DATASETS_PATH."
_TAKEN_OVER = (
    "total_episodes",
    "total_steps",
    "data_format",
    "jpeg_encoding",
    "observation_space",
    "action_space",
    "minari_version",
    "dataset_size",
    "algorithm_name",
    "description",
)

# What a dataset of ours has in Minari's metadata.json.
METADATA_KEYS = (*_TAKEN_OVER, "dataset_id", "env_spec", "author")


def register(path: str | Path, dataset_id: str) -> Path:
    """Make a dataset known to Minari; returns the folder it now has under the local root.

    The file is hard-linked, or copied when the root lies on another disk; episodes are not
    rewritten. Changing episodes through Minari changes the linked file too.
    `minari.load_dataset(dataset_id)` works afterwards.

    Args:
        path: a finished dataset, or the id of one.
        dataset_id: such as "demokit/push/scripted-v0".

    Raises:
        DemokitError: malformed or taken id, or a dataset that is unfinished or empty.
    """
    if not is_dataset_id(dataset_id):
        raise DemokitError(
            f"'{dataset_id}' is no Minari id: it must look like demokit/push/scripted-v0."
        )
    source, metadata = _finished(path)
    metadata["dataset_id"] = dataset_id
    target = local_root() / dataset_id
    if target.exists():
        raise DemokitError(
            f"'{dataset_id}' is taken: choose the next version, or delete the old one with "
            f"`minari delete {dataset_id}`."
        )
    with replaced_folder(target, _ADVICE, _read_back) as aside:
        _fill(aside, source, metadata, _link_or_copy)
    describe_namespaces(target, dataset_id)
    return target


def _finished(path: str | Path) -> tuple[Path, dict[str, Any]]:
    """The file and what Minari's metadata.json says about it."""
    # The store resolves ids with this module, so it is imported here.
    from demokit.data.assembly import open_settled
    from demokit.data.metadata import spell_out
    from demokit.data.store import FinishedFile

    dataset = open_settled(path)
    if dataset.unfinished:
        raise DemokitError(
            f"{dataset.path} is unfinished: finish it with `demokit record --resume`."
        )
    attributes = FinishedFile(dataset.path).attributes
    chosen = {name: _plain(attributes[name]) for name in _TAKEN_OVER if name in attributes}
    space = spell_out(parse_json(chosen["observation_space"]))
    operator = dataset.metadata.provenance.operator
    author = {"author": [operator]} if operator else {}
    about = {**chosen, "observation_space": json.dumps(space), **author}
    return dataset.path, {**about, **_env_spec(dataset.metadata)}


def _env_spec(about: DatasetMetadata) -> dict[str, str]:
    """What `recover_environment` makes the environment from; nothing for unknown families."""
    from demokit.envs import make_family
    from demokit.envs.tasks import task_sets

    spec = gym_spec(about.family)
    if spec is None:
        return {}
    spec.kwargs["reward"] = about.reward
    if any(box.dtype == "uint8" for box in about.space_items().values()):
        spec.kwargs["observation"] = "vision"
    splits = {task.split for task in about.tasks}
    known = task_sets(make_family(about.family)).get(about.task_set, ())
    if len(splits) == 1 and splits <= set(known):
        spec.kwargs |= {"task_set": about.task_set, "split": next(iter(splits))}
    return {"env_spec": spec.to_json()}


def gym_spec(family: str) -> Any:
    """A copy of a family's Gymnasium registration; None for families that have none."""
    import gymnasium

    import demokit.envs.gym  # noqa: F401 - registers them

    registered = gymnasium.registry.values()
    return deepcopy(next((s for s in registered if s.kwargs.get("family") == family), None))


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def write_copy(path: str | Path, folder: Path, dataset_id: str) -> None:
    """Make `folder` a Minari dataset: a copy of the dataset and Minari's metadata.json.

    Raises:
        DemokitError: a dataset that is unfinished or empty.
    """
    source, metadata = _finished(path)
    _fill(folder, source, {**metadata, "dataset_id": dataset_id}, shutil.copyfile)


def describe_namespaces(folder: Path, dataset_id: str) -> None:
    """Every folder between the root and a dataset is a namespace with a metadata file."""
    for namespace, _ in zip(folder.parents, dataset_id.split("/")[1:], strict=False):
        described = namespace / "namespace_metadata.json"
        if not described.exists():
            write_whole(described, "{}", _ADVICE)


def _read_back(folder: Path) -> None:
    from demokit.data.store import FinishedFile

    FinishedFile(folder / "data" / _FILE)


def _fill(
    folder: Path, source: Path, metadata: dict[str, Any], put: Callable[[Path, Path], object]
) -> None:
    data = folder / "data"
    data.mkdir(parents=True)
    put(source, data / _FILE)
    (data / "metadata.json").write_text(json.dumps(metadata, indent=1))


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)
