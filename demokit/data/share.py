"""Handing datasets on: bundles of a dataset, its card, its licence's name and checksums.

A bundle is a zip archive, a folder, anything that fsspec opens, an http or https address, or a
Hugging Face dataset repository. It holds NAME.hdf5, README.md (the card), LICENSE and SHA256SUMS,
nothing else. What comes back is read by these names alone, with limits, and checked before it
takes its place.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from importlib import import_module
from pathlib import Path, PurePosixPath
from tempfile import NamedTemporaryFile, TemporaryDirectory
from typing import IO, Any, Protocol, cast

from demokit.data.assembly import check_output, open_settled, write_lock
from demokit.data.card import put_card, render_card
from demokit.data.edit import file_sha256
from demokit.data.fetch import SCHEMES, fetch
from demokit.data.store import Dataset
from demokit.data.summary import summarize
from demokit.data.validation import validate
from demokit.errors import DemokitError, not_installed
from demokit.lock import Lock
from demokit.reading import open_archive
from demokit.writing import behind_link, explain_write, replaced, write_whole

CARD, LICENSE, SUMS = "README.md", "LICENSE", "SHA256SUMS"
DEFAULT_LIMIT_BYTES = 20 * 10**9
_OTHER_PLACE = "choose another place."
_SMALL_BYTES = 10**6  # more than a card, a licence's name or a list of checksums ever takes
_CHUNK_BYTES = 2**20
_SUM = re.compile(r"([0-9a-f]{64})  ([A-Za-z0-9][-\w.]*)")
_HUB = re.compile(r"hf:(?://)?(?:datasets/)?([-\w.]+/[-\w.]+)/?")


@dataclass(frozen=True)
class Bundle:
    """A dataset ready to be shared: its file, and the small files that go with it."""

    path: Path
    license: str
    small: Mapping[str, bytes]

    @property
    def size_bytes(self) -> int:
        """Size of all files together."""
        return self.path.stat().st_size + sum(map(len, self.small.values()))


def make_bundle(path_or_id: str | Path) -> Bundle:
    """The bundle of a dataset.

    Raises:
        DemokitError: the dataset is unfinished, empty, invalid, or states no licence.
    """
    dataset = open_settled(path_or_id)
    if dataset.unfinished:
        raise DemokitError(f"{dataset.path} is unfinished: finish it before you share it.")
    license = dataset.metadata.license
    if license is None:
        raise DemokitError(
            f"{dataset.path} states no licence, so nobody may use it: record with --license, or "
            "state one with `demokit merge FILE --license NAME --out NEW.hdf5`."
        )
    name = _file_name(dataset)
    require_valid(dataset.path)
    small = {
        CARD: render_card(summarize(dataset)).encode(),
        LICENSE: f"This dataset is licensed under: {license}\n".encode(),
    }
    sums = {name: sha256(data).hexdigest() for name, data in small.items()}
    sums[name] = file_sha256(dataset.path)
    text = "".join(f"{value}  {name}\n" for name, value in sorted(sums.items()))
    return Bundle(dataset.path, license, {**small, SUMS: text.encode()})


def require_valid(path: Path) -> None:
    """Raise DemokitError, with the first finding, unless a dataset is valid."""
    report = validate(path)
    if not report.ok:
        raise DemokitError(
            f"{path} is invalid ({len(report.errors)} errors; the first: "
            f"{report.errors[0].message.rstrip('.')}): see `demokit validate`."
        )


def pack(bundle: Bundle, target: Path, *, overwrite: bool = False) -> Path:
    """Write the bundle as the archive `target`, NAME.zip; its members are not compressed again.

    Raises:
        DemokitError: the target exists, is not named NAME.zip, or cannot be written.
    """
    if target.suffix != ".zip":
        raise DemokitError(f"The archive {target} must be named NAME.zip.")
    with Lock(target, _OTHER_PLACE):
        _check_free(target, overwrite=overwrite)
        with (
            replaced(target, _OTHER_PLACE, partial(_check_archive, bundle)) as aside,
            zipfile.ZipFile(aside, "w", zipfile.ZIP_STORED) as archive,
        ):
            archive.write(bundle.path, bundle.path.name)
            for name, data in bundle.small.items():
                archive.writestr(name, data)
    return target


def _check_archive(bundle: Bundle, path: Path) -> None:
    """Raise DemokitError unless an archive holds what its list of checksums says."""
    sums, _ = _parsed_sums(bundle.small[SUMS], str(path))
    with zipfile.ZipFile(path) as archive:
        for name, stated in sums.items():
            with archive.open(name) as stream:
                found = _copied(stream, None, bundle.size_bytes, name)
            if found != stated:
                raise DemokitError(f"{bundle.path} changed while {name} was packed: pack it again.")


def push(bundle: Bundle, place: str, *, public: bool = False, overwrite: bool = False) -> str:
    """Put the bundle in a folder, at an fsspec URL or in a Hugging Face repository (hf:USER/NAME).

    A Hugging Face repository is made private unless `public`. Returns where the bundle is now.

    Raises:
        DemokitError: something is there already and `overwrite` is not given, a library is
            missing, or the place cannot be written.
    """
    hub = _HUB.fullmatch(place)
    if hub:
        return _push_to_hub(bundle, hub[1], public=public, overwrite=overwrite)
    if public:
        raise DemokitError("--public is for Hugging Face repositories: who reads a folder or URL "
                           "is decided there.")  # fmt: skip
    if place.startswith(SCHEMES):
        raise DemokitError(f"{place} can only be read: push to a folder, a store or hf:USER/NAME.")
    files, root = _file_system(place)
    with _explained(f"write {place}"):
        taken = [n for n in (bundle.path.name, *bundle.small) if files.exists(f"{root}/{n}")]
        if taken and not overwrite:
            raise DemokitError(
                f"{place} holds {', '.join(taken)} already: pass --overwrite to replace what is "
                "there, or choose an empty place."
            )
        if SUMS in taken:
            # Without its checksums a half-written bundle is not taken for a whole one.
            files.rm(f"{root}/{SUMS}")
        if "file" in _protocols(files):
            _put_here(bundle, Path(root))
            return place
        files.makedirs(root, exist_ok=True)
        files.put_file(str(bundle.path), f"{root}/{bundle.path.name}")
        for name, data in bundle.small.items():
            files.pipe_file(f"{root}/{name}", data)
    return place


def _put_here(bundle: Bundle, folder: Path) -> None:
    """Put the bundle in a folder, the list of checksums last."""
    sums, name = _parsed_sums(bundle.small[SUMS], str(folder))

    def check(path: Path) -> None:
        if file_sha256(path) != sums[name]:
            raise DemokitError(f"{bundle.path} changed while it was copied: push it again.")

    with replaced(folder / name, _OTHER_PLACE, check) as aside:
        shutil.copyfile(bundle.path, aside)
    for small, data in bundle.small.items():
        write_whole(folder / small, data, _OTHER_PLACE)


def pull(
    place: str, target: Path, *, overwrite: bool = False, limit_bytes: int = DEFAULT_LIMIT_BYTES
) -> Path:
    """Fetch a bundle's dataset to `target`, checked: checksums first, then the dataset itself.

    Args:
        place: as for `push`, or an archive of `pack` (a path or URL that ends in .zip).
        target: NAME.hdf5; its card is put next to it, unless a file of another kind is there.
        overwrite: replace what is there, once all is checked.
        limit_bytes: the largest dataset to accept.

    Raises:
        DemokitError: nothing there, no bundle, files too large, wrong checksums, or an invalid
            dataset; the target is not touched then.
    """
    target = behind_link(target)
    with write_lock(target), _source(place, target, limit_bytes) as source:
        check_output(target, overwrite=overwrite)
        sums, name = _read_sums(source, place)
        card = _read_small(source, CARD, sums, place)
        _read_small(source, LICENSE, sums, place)
        with replaced(target, _OTHER_PLACE, require_valid) as aside:
            with aside.open("wb") as out, _explained(f"read {place}"), source.open(name) as stream:
                found = _copied(stream, out, limit_bytes, f"{name} of {place}")
            _check_sum(found, sums[name], name, place)
        put_card(target, card)
    return target


class _Source(Protocol):
    """Where a bundle's files are read from."""

    def open(self, name: str) -> AbstractContextManager[IO[bytes]]: ...


@dataclass(frozen=True)
class _FileSystemSource:
    files: Any
    root: str

    def open(self, name: str) -> AbstractContextManager[IO[bytes]]:
        path = f"{self.root}/{name}"
        if "file" in _protocols(self.files):
            _check_plain(path)
        stream: AbstractContextManager[IO[bytes]] = self.files.open(path, "rb")
        return stream


@dataclass(frozen=True)
class _WebSource:
    root: str

    def open(self, name: str) -> AbstractContextManager[IO[bytes]]:
        return fetch(f"{self.root}/{name}")


@dataclass(frozen=True)
class _ZipSource:
    archive: zipfile.ZipFile

    def open(self, name: str) -> AbstractContextManager[IO[bytes]]:
        return self.archive.open(name)


@contextmanager
def _source(place: str, target: Path, limit_bytes: int) -> Iterator[_Source]:
    is_archive = place.endswith(".zip")
    if place.startswith(SCHEMES):
        if not is_archive:
            yield _WebSource(place.rstrip("/"))
            return
        with _fetched(place, target, limit_bytes) as stream, _archive(stream, place) as source:
            yield source
        return
    hub = _HUB.fullmatch(place)
    files, root = _file_system(f"hf://datasets/{hub[1]}" if hub else place)
    if not is_archive:
        yield _FileSystemSource(files, root)
        return
    with _explained(f"read {place}"):
        if "file" in _protocols(files):
            _check_plain(root, may_be_link=True)
        stream = files.open(root, "rb")
    with stream, _archive(stream, place) as source:
        yield source


@contextmanager
def _fetched(place: str, target: Path, limit_bytes: int) -> Iterator[IO[bytes]]:
    """An archive on the web, fetched to the target's disk: its members are read from its end."""
    folder = target.parent if target.parent.is_dir() else None
    with NamedTemporaryFile(dir=folder, prefix=f".{target.stem}-", suffix=".zip") as copy:
        with _explained(f"read {place}"), fetch(place) as stream:
            _copied(stream, cast("IO[bytes]", copy), limit_bytes, place)
        yield cast("IO[bytes]", copy)


@contextmanager
def _archive(stream: IO[bytes], place: str) -> Iterator[_Source]:
    try:
        size = stream.seek(0, os.SEEK_END)
        archive = open_archive(stream)
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise DemokitError(f"{place} is no archive that `demokit share pack` made.") from error
    with archive:
        _check_members(archive, size, place)
        yield _ZipSource(archive)


def _check_plain(path: str, *, may_be_link: bool = False) -> None:
    """Raise DemokitError unless a regular file is there: reading a pipe would never end."""
    if os.path.islink(path) and not may_be_link:
        raise DemokitError(f"{path} is a link: it is not followed.")
    if os.path.exists(path) and not os.path.isfile(path):
        raise DemokitError(f"{path} is no regular file: it is not read.")


def _check_members(archive: zipfile.ZipFile, size: int, place: str) -> None:
    """Raise DemokitError unless the members are plain files, as large as the archive says.

    Members of `pack` are not compressed, so an archive is never larger inside than outside.
    """
    members = archive.infolist()
    names = [member.filename for member in members]
    for member in members:
        kind = stat.S_IFMT(member.external_attr >> 16)
        if not _SUM.fullmatch(f"{'0' * 64}  {member.filename}") or kind not in (0, stat.S_IFREG):
            raise DemokitError(f"{place} holds '{member.filename}', which no bundle holds.")
        if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
            raise DemokitError(f"{place} compresses or encrypts '{member.filename}': not read.")
    if len(set(names)) < len(names) or sum(member.file_size for member in members) > size:
        raise DemokitError(f"{place} claims more than it holds: it is damaged or hostile.")


def _read_sums(source: _Source, place: str) -> tuple[dict[str, str], str]:
    """Name -> checksum, and which of the names is the dataset."""
    return _parsed_sums(_small_bytes(source, SUMS, place), place)


def _parsed_sums(data: bytes, place: str) -> tuple[dict[str, str], str]:
    text = data.decode("ascii", "replace")
    found = [_SUM.fullmatch(line) for line in text.splitlines()]
    sums = {match[2]: match[1] for match in found if match}
    datasets = [name for name in sums if PurePosixPath(name).suffix == ".hdf5"]
    if None in found or len(datasets) != 1 or set(sums) != {CARD, LICENSE, datasets[0]}:
        raise DemokitError(f"{place} is no bundle: {SUMS} must name {CARD}, {LICENSE} and a "
                           ".hdf5 file.")  # fmt: skip
    return sums, datasets[0]


def _read_small(source: _Source, name: str, sums: Mapping[str, str], place: str) -> bytes:
    data = _small_bytes(source, name, place)
    _check_sum(sha256(data).hexdigest(), sums[name], name, place)
    return data


def _small_bytes(source: _Source, name: str, place: str) -> bytes:
    with _explained(f"read {name} of {place}"), source.open(name) as stream:
        data = stream.read(_SMALL_BYTES + 1)
    if len(data) > _SMALL_BYTES:
        raise DemokitError(f"{name} of {place} is larger than any {name} is: not read.")
    return data


def _check_sum(found: str, stated: str, name: str, place: str) -> None:
    if found != stated:
        raise DemokitError(f"{name} of {place} does not match its checksum: fetch it again, or "
                           "ask its author.")  # fmt: skip


def _copied(stream: IO[bytes], out: IO[bytes] | None, limit_bytes: int, what: str) -> str:
    """Copy a stream of at most `limit_bytes`; returns its SHA-256."""
    total, done = sha256(), 0
    while chunk := stream.read(_CHUNK_BYTES):
        done += len(chunk)
        if done > limit_bytes:
            raise DemokitError(f"{what} is larger than {limit_bytes / 1e9:g} GB: see --max-size.")
        total.update(chunk)
        if out is not None:
            with explain_write(Path(out.name), _OTHER_PLACE):
                out.write(chunk)
    return total.hexdigest()


def _push_to_hub(bundle: Bundle, repo: str, *, public: bool, overwrite: bool) -> str:
    """One commit to a dataset repository."""
    hub = _library("huggingface_hub")
    api = hub.HfApi()
    with _explained(f"write hf:{repo}"), TemporaryDirectory() as folder:
        api.create_repo(repo, repo_type="dataset", private=not public, exist_ok=overwrite)
        if not public and not api.repo_info(repo, repo_type="dataset").private:
            raise DemokitError(f"hf:{repo} is public: pass --public if that is what you want.")
        for name, data in bundle.small.items():
            (Path(folder) / name).write_bytes(data)
        (Path(folder) / bundle.path.name).symlink_to(bundle.path.resolve())
        api.upload_folder(
            repo_id=repo,
            repo_type="dataset",
            folder_path=folder,
            commit_message=f"demokit share push: {bundle.path.name}",
        )
    return f"hf:{repo}"


def _file_system(place: str) -> tuple[Any, str]:
    """What fsspec opens a place with, and the place's path there."""
    with _explained(f"use {place}"):
        files, root = _library("fsspec.core").url_to_fs(place)
    return files, str(root).rstrip("/")


def _protocols(files: Any) -> tuple[str, ...]:
    return (files.protocol,) if isinstance(files.protocol, str) else tuple(files.protocol)


def _library(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise not_installed("Sharing this way needs", name.split(".")[0]) from error


@contextmanager
def _explained(doing: str) -> Iterator[None]:
    """Whatever a storage library raises, as one sentence: every one has errors of its own."""
    try:
        yield
    except DemokitError:
        raise
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise DemokitError(f"Cannot {doing} ({type(error).__name__}: {lines[0]}).") from error


def _check_free(target: Path, *, overwrite: bool) -> None:
    if target.exists() and not overwrite:
        raise DemokitError(f"{target} exists: pass --overwrite to replace it, or another -o.")


def _file_name(dataset: Dataset) -> str:
    """The file's name, which has to be plain; raises DemokitError."""
    name = dataset.path.name
    if not _SUM.fullmatch(f"{'0' * 64}  {name}"):
        raise DemokitError(f"{name}: to be shared, a file's name has letters, digits, - and _.")
    return name
