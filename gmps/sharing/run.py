"""A run as a bundle: its checkpoint, how it was started, its scalars, a card and a licence."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path, PureWindowsPath
from typing import Any

from demokit.data.paths import is_dataset_id
from demokit.errors import DemokitError
from demokit.learning.folder import CONFIG, METRICS, read_config
from demokit.lock import ENDING, Lock
from demokit.policies import CHECKPOINT
from demokit.reading import MOST_BYTES, read_bytes
from demokit.sharing.bundle import CARD, DEFAULT_LIMIT_BYTES, LICENSE, SUMS, Bundle, Layout
from demokit.sharing.places import received
from demokit.text import is_storable
from demokit.writing import behind_link, replaced_folder
from gmps.agent.agent import TrainedAgent, load_policy
from gmps.runs.folder import read_scalars
from gmps.sharing.card import Shown, render_card
from gmps.sources import is_family_in_words

LAYOUT = Layout("run", CHECKPOINT, "model", frozenset({CONFIG, METRICS}), MOST_BYTES)
_OTHER_PLACE = "name another -o."
_TEXT = 200  # letters


def make_bundle(path_or_id: str | Path, license: str | None = None) -> Bundle:
    """The bundle of a finished run, or of a policy that was adapted to one task.

    Of the path of its demonstrations the name is kept alone.

    Args:
        path_or_id: of the run's folder, its checkpoint, or the policy's file.
        license: under which it is shared.

    Raises:
        DemokitError: there is no such thing, it is damaged or unfinished, or no licence is named.
    """
    path = Path(path_or_id)
    checkpoint = path / CHECKPOINT if path.is_dir() else path
    folder = checkpoint.parent if checkpoint.name == CHECKPOINT else None
    agent = load_policy(checkpoint)
    if not agent.trained.finished:
        raise DemokitError(f"{path} is not finished: continue it with meta-train --resume.")
    _require_license(path, license)
    config = _config(folder) if folder else {}
    name = checkpoint.stem if folder is None else folder.resolve().name
    shown = Shown(agent, name, str(license), folder, _learned_from(config))
    small = {
        CARD: render_card(shown).encode(),
        LICENSE: f"This policy is licensed under: {license}\n".encode(),
    }
    if config:
        small[CONFIG] = f"{json.dumps(config, indent=2)}\n".encode()
    if folder and (folder / METRICS).is_file():
        small[METRICS] = _metrics(folder / METRICS)
    return Bundle.of(LAYOUT, checkpoint, str(license), small, CHECKPOINT)


def pull(
    place: str, target: Path, *, overwrite: bool = False, limit_bytes: int = DEFAULT_LIMIT_BYTES
) -> Path:
    """Fetch a run to the folder `target`, checked: checksums first, then that it can be loaded.

    Args:
        place: as for `push`, or an archive of `pack` (a path or URL that ends in .zip).
        target: the folder, which `demokit.load_policy` and `demokit evaluate` take.
        overwrite: replace a run that was pulled there, once all is checked.
        limit_bytes: the largest checkpoint to accept.

    Raises:
        DemokitError: nothing there, no bundle, files too large, wrong checksums, or no policy that
            can be loaded here; the target is not touched then.
    """
    target = behind_link(target)
    may_take = partial(_check_target, target, overwrite=overwrite)

    def check(aside: Path) -> None:
        _require_loads(aside)
        may_take()

    with _taken(target, may_take), received(place, LAYOUT, target, limit_bytes) as bundle:
        small = bundle.every_small()
        with replaced_folder(target, _OTHER_PLACE, check) as aside:
            aside.mkdir()
            for name, data in small.items():
                (aside / name).write_bytes(data)
            bundle.copy_main(aside / CHECKPOINT, limit_bytes)
    return target


@contextmanager
def _taken(target: Path, may_take: Callable[[], None]) -> Iterator[None]:
    """A folder that nobody else pulls to or trains in; one that was made for it goes again."""
    with ExitStack() as held:
        held.enter_context(Lock(target, _OTHER_PLACE))
        may_take()
        if not target.exists():
            held.callback(_remove_empty, target)
        held.enter_context(Lock(target, _OTHER_PLACE, inside=True))
        yield


def _remove_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def _check_target(target: Path, *, overwrite: bool) -> None:
    """Raise DemokitError unless a run may be put there: nothing but a pulled one is replaced."""
    if target.exists() and not target.is_dir():
        raise DemokitError(f"{target} is a file, and a run is a folder: {_OTHER_PLACE}")
    found = {path.name for path in target.iterdir()} if target.is_dir() else set()
    found -= {ENDING}
    others = sorted(found - {CHECKPOINT, CONFIG, METRICS, CARD, LICENSE, SUMS})
    if others:
        raise DemokitError(
            f"{target} holds {others[0]} besides what is pulled: move it away, or {_OTHER_PLACE}"
        )
    if missing := sorted({CHECKPOINT, CARD, LICENSE} - found if found else ()):
        raise DemokitError(
            f"{target} holds {sorted(found)[0]} and no {missing[0]}: it was not pulled; move it "
            f"away, or {_OTHER_PLACE}"
        )
    if found and not overwrite:
        raise DemokitError(
            f"{target} holds {sorted(found)[0]} already: pass --overwrite to replace "
            f"it, or {_OTHER_PLACE}"
        )


def _require_loads(folder: Path) -> TrainedAgent:
    """The policy in a folder; raises DemokitError unless everything there can be read."""
    if (folder / CONFIG).exists():
        read_config(folder)
    read_scalars(folder / METRICS)
    return load_policy(folder)


def _require_license(path: Path, license: str | None) -> None:
    if not license or not license.strip():
        raise DemokitError(
            f"{path} states no licence, so nobody may use it: name one, such as --license MIT."
        )
    if len(license) > _TEXT or not is_storable(license) or not license.isprintable():
        raise DemokitError(f"--license is no name of a licence: write one line of {_TEXT} letters.")


def _config(folder: Path) -> dict[str, Any]:
    """How the run was started, without the folder that its demonstrations were in."""
    if not (folder / CONFIG).exists():
        return {}
    found = read_config(folder)
    return {**found, "demos": _without_folder(str(found.get("demos", "")))}


def _without_folder(source: str) -> str:
    """Of a path its name, as this system or Windows writes paths; ids and families as they are."""
    if is_family_in_words(source) or (is_dataset_id(source) and not Path(source).exists()):
        return source
    return PureWindowsPath(source).name


def _learned_from(config: Mapping[str, Any]) -> dict[str, str]:
    if not config:
        return {}
    versions = config["versions"]
    said = versions.items() if isinstance(versions, dict) else ()
    words = ", ".join(f"{name} {number}" for name, number in said)
    return {"learned from": str(config["demos"]), "versions": words}


def _metrics(path: Path) -> bytes:
    """The file's bytes, which are a table of numbers; raises DemokitError."""
    read_scalars(path)
    try:
        return read_bytes(path)
    except (OSError, ValueError) as error:
        raise DemokitError(f"{path} cannot be shared ({error}): move it away.") from None
