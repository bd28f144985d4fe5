"""Conversions to and from the formats of neighbours: one file per format, this is the registry.

An export writes what the format can hold and lists the rest; an import lists what the source did
not hold and what stands in its place, and the dataset keeps that list (`Provenance.missing`).
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from demokit.data.assembly import check_output
from demokit.data.convert.inventory import Inventory, Loss
from demokit.data.convert.stated import Stated
from demokit.data.files import explain_damage
from demokit.data.layout import digest, record_of
from demokit.data.metadata import DatasetMetadata
from demokit.data.store import Dataset
from demokit.data.writer import DatasetWriter
from demokit.errors import DemokitError, unknown_name
from demokit.lock import Lock, require_unlocked
from demokit.types import Episode
from demokit.writing import behind_link, replaced_folder

# Name -> whether datasets can be exported to it; each is read and written by the module of its
# name.
_ADVICE = "choose another place with -o."
FORMATS = {
    "csv": False,
    "gmps_release": False,
    "lerobot": True,
    "minari": True,
    "npz": False,
    "pickle_dicts": False,
    "robomimic": True,
}
NOTHING_STATED = Stated()


@dataclass(frozen=True, eq=False)
class Imported:
    """What a reader found: metadata, the episodes (read one at a time), and what is lost.

    `inventory` knows what became of everything in the source once the episodes were read;
    `losses` is what stands in the place of what the source never held. `own` says that demokit
    wrote the source, which then states its task family.
    """

    metadata: DatasetMetadata
    episodes: Iterable[Episode]
    inventory: Inventory
    losses: tuple[Loss, ...] = ()
    own: bool = False


def export_dataset(
    dataset: Dataset,
    name: str,
    target: Path,
    *,
    rate_hz: int | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
) -> tuple[Loss, ...]:
    """Write `dataset` to `target` in the format `name`; returns what is lost.

    Args:
        dataset: a finished dataset with episodes.
        name: a format of `FORMATS` that can be written.
        target: the file (robomimic) or folder (lerobot; minari: a root folder) to make.
        rate_hz: steps per second, for a format that keeps it (lerobot), of a family of which
            nothing here says it.
        overwrite: replace what is there, once the export is complete.
        dry_run: only say what would be lost.

    Raises:
        DemokitError: unknown format, unusable dataset, a rate that has no effect or is not the
            family's, a target that exists or cannot be written.
    """
    module = _module(name, writing=True)
    require_unlocked(dataset.path)
    if dataset.require_episodes().unfinished:
        raise DemokitError(f"{dataset.path} is unfinished: finish it with `demokit record`.")
    stated = {} if rate_hz is None else {"rate_hz": rate_hz}
    if stated and not module.KEEPS_RATE:
        raise DemokitError(f"{name} keeps no steps per second: leave them out.")
    losses: tuple[Loss, ...] = module.losses(dataset, **stated)
    place: Path = module.place(dataset, target)
    _check_place(place, dataset.path, module, overwrite=overwrite)
    if not dry_run:
        with Lock(place, _ADVICE):
            _check_place(place, dataset.path, module, overwrite=overwrite)
            check = partial(_read_back, module, dataset)
            with replaced_folder(place, _ADVICE, check) as aside, dataset:
                module.export(dataset, aside, **stated)
    return losses


def import_dataset(
    source: Path,
    name: str,
    target: Path,
    *,
    env: str | None = None,
    license: str | None = None,
    stated: Stated = NOTHING_STATED,
    overwrite: bool = False,
    dry_run: bool = False,
) -> tuple[Loss, ...]:
    """Read `source`, which has the format `name`, into a dataset at `target`.

    Args:
        source: the file or folder to read.
        name: a format of `FORMATS`.
        target: NAME.hdf5.
        env: the task family, where the source does not say it.
        license: the licence, where the source does not say it.
        stated: what else a person says of the source.
        overwrite: replace what is there, once the import is complete.
        dry_run: only say what would be lost.

    Returns:
        What is lost, and what stands in its place.

    Raises:
        DemokitError: unknown format, a source that cannot be used or that states another family
            or licence, something stated that has no effect, a target that exists or has an
            unfinished recording.
    """
    module = _module(name, writing=False)
    stated.require_used(module.TAKES, f"with --from {name.replace('_', '-')}")
    if not source.exists():
        raise DemokitError(f"There is nothing at {source}: check the path.")
    if source.resolve() == target.resolve():
        raise DemokitError("The source cannot be the output too: choose another -o.")
    require_unlocked(source)
    require_unlocked(target)
    _check_format(source, name)
    check_output(behind_link(target), overwrite=overwrite)
    with explain_damage(source):
        found: Imported = module.read(source, env, stated)
        _check_stated(found, source, env, license)
        if found.own:
            stated.require_used((), f"for {source}, which demokit wrote")
        if dry_run:
            deque(found.episodes, maxlen=0)
        else:
            store(found, target, license=license, overwrite=overwrite)
    return found.losses + found.inventory.losses()


def store(found: Imported, target: Path, *, license: str | None, overwrite: bool) -> None:
    """Write what was found to a dataset at `target`, all of it or nothing; raises DemokitError."""
    metadata = found.metadata if license is None else replace(found.metadata, license=license)
    with DatasetWriter(target, metadata, overwrite=overwrite, all_or_none=True) as writer:
        for episode in found.episodes:
            writer.add(episode)
        writer.finish()


def _check_format(source: Path, name: str) -> None:
    """Raise DemokitError for a source of another format that demokit reads."""
    from demokit.data.convert.recognise import recognise

    found = recognise(source)
    name = name.replace("_", "-")
    # The release's pickles are dicts of arrays too.
    accepted = {name, "gmps-release"} if name == "pickle-dicts" else {name}
    if found and found.format and found.format not in accepted:
        raise DemokitError(f"{source} is {found.what}: use --from {found.format}.")


def _check_stated(found: Imported, source: Path, env: str | None, license: str | None) -> None:
    """Raise DemokitError when an option contradicts what the source states."""
    about = found.metadata
    if found.own and env not in (None, about.family):
        raise DemokitError(f"{source} states its family, {about.family}: leave out --env.")
    if about.license is not None and license not in (None, about.license):
        raise DemokitError(f"{source} states its licence, {about.license}: leave out --license.")


def _check_place(place: Path, source: Path, module: Any, *, overwrite: bool) -> None:
    """Raise DemokitError unless an export may go to `place`: only another one is replaced."""
    here = place.resolve()
    if here == source.resolve() or here in source.resolve().parents:
        raise DemokitError(f"{place} is or holds the dataset itself: choose another -o.")
    if not place.exists():
        return
    if place.is_dir() and any(place.iterdir()) and not module.is_export(place):
        raise DemokitError(f"{place} is a folder with other things in it: choose another -o.")
    if not place.is_dir() and not module.is_export(place):
        raise DemokitError(f"{place} is a file of another kind: choose another -o.")
    if not overwrite:
        raise DemokitError(f"{place} exists: pass --overwrite to replace it, or another -o.")


def _read_back(module: Any, dataset: Dataset, place: Path) -> None:
    """Raise DemokitError unless an export gives the episodes back."""
    found: Imported = module.read(place, None, NOTHING_STATED)
    with dataset:
        ours, theirs = (Counter(map(_fingerprint, each)) for each in (dataset, found.episodes))
    if found.metadata.to_attributes() != dataset.metadata.to_attributes() or ours != theirs:
        raise DemokitError(f"What was written to {place} is not {dataset.path}: this is a fault.")


def _fingerprint(episode: Episode) -> tuple[str, str]:
    """Tells an episode from others; its number may change."""
    return digest(episode), record_of(0, episode).compute_digest()


def _module(name: str, *, writing: bool) -> Any:
    known = [known for known, writable in FORMATS.items() if writable or not writing]
    name = name.replace("-", "_")
    if name not in known:
        raise unknown_name("format to write" if writing else "format", name, known)
    return import_module(f"demokit.data.convert.{name}")
