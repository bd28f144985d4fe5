"""Datasets as bundles, see `demokit.sharing`: NAME.hdf5 with its card and its licence's name."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from demokit.data.assembly import check_output, open_settled, write_lock
from demokit.data.card import render_card, write_card
from demokit.data.store import open_dataset
from demokit.data.summary import summarize
from demokit.data.validation import validate
from demokit.errors import DemokitError
from demokit.sharing.bundle import (
    CARD,
    DEFAULT_LIMIT_BYTES,
    LICENSE,
    Bundle,
    Layout,
    require_plain_name,
)
from demokit.sharing.places import received
from demokit.writing import behind_link, replaced

LAYOUT = Layout("dataset", ".hdf5", "dataset")
_OTHER_PLACE = "choose another place."
_LICENSED = "This dataset is licensed under:"


def make_bundle(path_or_id: str | Path, license: str | None = None) -> Bundle:
    """The bundle of a dataset, which states its licence itself: `license` has to be None.

    Raises:
        DemokitError: the dataset is unfinished, empty, invalid, or states no licence.
    """
    if license is not None:
        raise DemokitError("A dataset states its licence itself: --license is for runs.")
    dataset = open_settled(path_or_id)
    if dataset.unfinished:
        raise DemokitError(f"{dataset.path} is unfinished: finish it before you share it.")
    license = dataset.metadata.license
    if license is None:
        raise DemokitError(
            f"{dataset.path} states no licence, so nobody may use it: record with --license, or "
            "state one with `demokit merge FILE --license NAME --out NEW.hdf5`."
        )
    require_plain_name(dataset.path.name)
    require_valid(dataset.path)
    small = {
        CARD: render_card(summarize(dataset)).encode(),
        LICENSE: f"{_LICENSED} {license}\n".encode(),
    }
    return Bundle.of(LAYOUT, dataset.path, license, small)


def require_valid(path: Path) -> None:
    """Raise DemokitError, with the first finding, unless a dataset is valid."""
    report = validate(path)
    if not report.ok:
        raise DemokitError(
            f"{path} is invalid ({len(report.errors)} errors; the first: "
            f"{report.errors[0].message.rstrip('.')}): see `demokit validate`."
        )


def pull(
    place: str, target: Path, *, overwrite: bool = False, limit_bytes: int = DEFAULT_LIMIT_BYTES
) -> Path:
    """Fetch a bundle's dataset to `target`, checked: checksums first, then the dataset itself.

    Args:
        place: as for `push`, or an archive of `pack` (a path or URL that ends in .zip).
        target: NAME.hdf5; a card is made of it and put next to it, unless a file of another kind
            is there. What the bundle's card says is not taken over.
        overwrite: replace what is there, once all is checked.
        limit_bytes: the largest dataset to accept.

    Raises:
        DemokitError: nothing there, no bundle, files too large, wrong checksums, or a dataset that
            is invalid or states another licence; the target is not touched then.
    """
    target = behind_link(target)
    with write_lock(target), received(place, LAYOUT, target, limit_bytes) as bundle:
        check_output(target, overwrite=overwrite)
        check = partial(_require_licensed, bundle.every_small()[LICENSE], place)
        with replaced(target, _OTHER_PLACE, check) as aside:
            bundle.copy_main(aside, limit_bytes)
        write_card(target)
    return target


def _require_licensed(stated: bytes, place: str, path: Path) -> None:
    """Raise DemokitError unless a dataset is valid, and licensed as the LICENSE beside it says."""
    require_valid(path)
    said = stated.decode(errors="replace").strip().removeprefix(_LICENSED).strip()
    license = open_dataset(path).metadata.license
    if said != (license or "").strip():
        raise DemokitError(
            f"{place} is not taken: its LICENSE says '{said:.80}', its dataset "
            f"'{license or 'nothing'}': ask its author which it is."
        )
