"""Bundles: one large file, the small ones that explain it, and checksums of all.

A bundle is a zip archive, a folder, anything that fsspec opens, an http or https address, or a
Hugging Face repository. It holds the large file, README.md (the card), LICENSE (its name) and
SHA256SUMS, what its kind allows besides, and nothing else. What comes back is read by these names
alone, with limits, and checked before it takes its place.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import entry_points
from pathlib import Path
from typing import Protocol

from demokit.errors import DemokitError
from demokit.policies import CHECKPOINT
from demokit.reading import check_regular, file_sha256

CARD, LICENSE, SUMS = "README.md", "LICENSE", "SHA256SUMS"
DEFAULT_LIMIT_BYTES = 20 * 10**9
GROUP = "demokit.shared"
DATASET, RUN = "dataset", "run"
_POLICY = Path(CHECKPOINT).suffix
_SUM = re.compile(r"([0-9a-f]{64})  ([A-Za-z0-9][-\w.]*)")


@dataclass(frozen=True)
class Layout:
    """What bundles of a kind hold.

    Attributes:
        what: the kind, in a word.
        main: the end of the large file's name.
        further: small files that may be there besides those of every bundle.
        repository: what Hugging Face calls a repository of it.
        small_bytes: more than a small file ever takes.
    """

    what: str
    main: str
    repository: str
    further: frozenset[str] = frozenset()
    small_bytes: int = 10**6

    def parsed(self, sums: bytes, place: str) -> tuple[dict[str, str], str]:
        """Name -> checksum, as SHA256SUMS says, and which name is the large file's.

        Raises:
            DemokitError: it names other files than a bundle of this kind holds.
        """
        found = [_SUM.fullmatch(line) for line in sums.decode("ascii", "replace").splitlines()]
        names = {match[2]: match[1] for match in found if match}
        large = [name for name in names if name.endswith(self.main)]
        if None in found or len(large) != 1 or self._others(names) != {CARD, LICENSE, large[0]}:
            raise DemokitError(
                f"{place} is no bundle of a {self.what}: {SUMS} must name {CARD}, {LICENSE} and a "
                f"{self.main} file. A dataset is pulled to -o NAME.hdf5, a run to a folder."
            )
        return names, large[0]

    def _others(self, names: Mapping[str, str]) -> set[str]:
        return set(names) - self.further


@dataclass(frozen=True)
class Bundle:
    """What is ready to be shared: its large file, and the small ones that go with it.

    Attributes:
        layout: of its kind.
        path: the large file.
        name: its name in the bundle.
        license: under which it is shared.
        small: name -> content, SHA256SUMS among them.
    """

    layout: Layout
    path: Path
    name: str
    license: str
    small: Mapping[str, bytes]

    @classmethod
    def of(
        cls, layout: Layout, path: Path, license: str, small: Mapping[str, bytes], name: str = ""
    ) -> Bundle:
        """With the checksums of its files; `name` is the large one's, if not its own."""
        name = name or path.name
        require_plain_name(name)
        sums = {each: sha256(data).hexdigest() for each, data in small.items()}
        sums[name] = file_sha256(path)
        text = "".join(f"{value}  {each}\n" for each, value in sorted(sums.items()))
        return cls(layout, path, name, license, {**small, SUMS: text.encode()})

    @property
    def size_bytes(self) -> int:
        """Size of all files together."""
        return self.path.stat().st_size + sum(map(len, self.small.values()))

    @property
    def archive(self) -> Path:
        """Where it is packed unless told otherwise: beside the file, or beside the run's folder."""
        if self.path.name != CHECKPOINT:
            return self.path.with_suffix(".zip")
        folder = self.path.parent
        folder = folder.resolve() if folder.name in ("", "..") else folder
        return folder.with_name(f"{folder.name}.zip")

    @property
    def sums(self) -> dict[str, str]:
        """Name -> checksum."""
        return self.layout.parsed(self.small[SUMS], str(self.path))[0]


class Shareable(Protocol):
    """A module that shares things of one kind, named by an entry point of "demokit.shared"."""

    def make_bundle(self, path_or_id: str | Path, license: str | None = None) -> Bundle:
        """The bundle; raises DemokitError for what may not be shared, or not under that licence."""
        ...

    def pull(
        self, place: str, target: Path, *, overwrite: bool = False, limit_bytes: int = ...
    ) -> Path:
        """Fetch a bundle to `target`, checked; raises DemokitError, `target` as it was."""
        ...


def who_shares(path: str | Path) -> Shareable:
    """Who makes the bundle of what is at `path`: a run's folder, a policy's file, or a dataset."""
    place = Path(path)
    is_run = place.suffix == _POLICY or (place / CHECKPOINT).is_file() or _is_policy(place)
    return _sharer(RUN if is_run else DATASET)


def _is_policy(path: Path) -> bool:
    """Whether a file of any name begins as a policy's does: a length of 8 bytes, then JSON."""
    try:
        check_regular(path)
        with path.open("rb") as file:
            return path.suffix != ".hdf5" and file.read(9)[8:] == b"{"
    except OSError:
        return False


def who_receives(target: Path) -> Shareable:
    """Who takes a bundle to `target`: a dataset goes to NAME.hdf5, a run to a folder."""
    return _sharer(DATASET if target.suffix == ".hdf5" else RUN)


def _sharer(kind: str) -> Shareable:
    for entry in entry_points(group=GROUP, name=kind):
        sharer: Shareable = entry.load()
        return sharer
    raise DemokitError(f"Nothing is installed that shares a {kind}: no '{kind}' of {GROUP}.")


def require_plain_name(name: str) -> None:
    """Raise DemokitError unless a file of a bundle may be called so."""
    if not is_plain_name(name):
        raise DemokitError(f"{name}: to be shared, a file's name has letters, digits, - and _.")


def is_plain_name(name: str) -> bool:
    """Whether a file of a bundle may be called so."""
    return _SUM.fullmatch(f"{'0' * 64}  {name}") is not None
