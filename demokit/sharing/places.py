"""Where bundles are read from, each file by its name, with limits."""

from __future__ import annotations

import os
import re
import stat
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import IO, Any, Protocol

from demokit.errors import DemokitError, not_installed
from demokit.reading import open_archive
from demokit.sharing.bundle import SUMS, Layout, is_plain_name
from demokit.sharing.fetch import SCHEMES, fetch
from demokit.writing import aside_of, explain_write

HUB = re.compile(r"hf:(?://)?(?:datasets/)?([-\w.]+/[-\w.]+)/?")
_NO_PLACE = re.compile(r"hf:|(?!file:|local:)[A-Za-z][\w+.-]+:(?!//|:)")
"""What fsspec would take for the name of a folder here, and nobody means so."""
_OTHER_PLACE = "choose another place."
_CHUNK_BYTES = 2**20


@dataclass(frozen=True)
class Received:
    """A bundle where it was put, its list of checksums read.

    Attributes:
        source: where its files are read from.
        place: what it is called, for errors.
        layout: of its kind.
        sums: name -> checksum.
        main: name of the large file.
    """

    source: Source
    place: str
    layout: Layout
    sums: Mapping[str, str]
    main: str

    def small(self, name: str) -> bytes:
        """A small file; raises DemokitError unless it is as its checksum says."""
        data = _small_bytes(self.source, name, self.place, self.layout.small_bytes)
        self._check(sha256(data).hexdigest(), name)
        return data

    def every_small(self) -> dict[str, bytes]:
        """Name -> content, of all small files that its list names."""
        return {name: self.small(name) for name in self.sums if name != self.main}

    def copy_main(self, target: Path, limit_bytes: int) -> None:
        """Copy the large file, of `limit_bytes` at most, to a path; raises as `small`."""
        what = f"{self.main} of {self.place}"
        reading = explained(f"read {self.place}")
        with target.open("wb") as out, reading, self.source.open(self.main) as stream:
            found = copied(stream, out, limit_bytes, what)
        self._check(found, self.main)

    def _check(self, found: str, name: str) -> None:
        if found != self.sums[name]:
            raise DemokitError(f"{name} of {self.place} does not match its checksum: fetch it "
                               "again, or ask its author.")  # fmt: skip


@contextmanager
def received(place: str, layout: Layout, target: Path, limit_bytes: int) -> Iterator[Received]:
    """The bundle at a place, see `push`; or in an archive of `pack`, a path or URL ending in .zip.

    Args:
        place: where it is.
        layout: of the kind that is expected.
        target: where it will go: archives from the web are kept beside it meanwhile.
        limit_bytes: the largest archive to accept.

    Raises:
        DemokitError: nothing there, or no bundle of that kind.
    """
    with _source(place, layout, target, limit_bytes) as source:
        listed = _small_bytes(source, SUMS, place, layout.small_bytes)
        yield Received(source, place, layout, *layout.parsed(listed, place))


class Source(Protocol):
    """Where a bundle's files are read from."""

    def open(self, name: str) -> AbstractContextManager[IO[bytes]]:
        """One of them."""
        ...


@dataclass(frozen=True)
class _FileSystemSource:
    files: Any
    root: str

    def open(self, name: str) -> AbstractContextManager[IO[bytes]]:
        path = f"{self.root}/{name}"
        if is_local(self.files):
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
def _source(place: str, layout: Layout, target: Path, limit_bytes: int) -> Iterator[Source]:
    is_archive = place.endswith(".zip")
    if place.startswith(SCHEMES):
        if not is_archive:
            yield _WebSource(place.rstrip("/"))
            return
        with _fetched(place, target, limit_bytes) as stream, _archive(stream, place) as source:
            yield source
        return
    repo = hub_repository(place)
    root = "hf://datasets" if layout.repository == "dataset" else "hf:/"
    files, root = file_system(f"{root}/{repo}" if repo else place)
    if not is_archive:
        yield _FileSystemSource(files, root)
        return
    with explained(f"read {place}"):
        if is_local(files):
            _check_plain(root, may_be_link=True)
        stream = files.open(root, "rb")
    with stream, _archive(stream, place) as source:
        yield source


@contextmanager
def _fetched(place: str, target: Path, limit_bytes: int) -> Iterator[IO[bytes]]:
    """An archive on the web, fetched beside the target: its members are read from its end.

    The next writer of the target removes what is left of it by a kill, see `aside_of`.
    """
    aside = aside_of(target)
    try:
        with explain_write(aside, _OTHER_PLACE):
            copy = aside.open("x+b")
        with copy:
            with explained(f"read {place}"), fetch(place) as stream:
                copied(stream, copy, limit_bytes, place)
            yield copy
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def _archive(stream: IO[bytes], place: str) -> Iterator[Source]:
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
        if not is_plain_name(member.filename) or kind not in (0, stat.S_IFREG):
            raise DemokitError(f"{place} holds '{member.filename}', which no bundle holds.")
        if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
            raise DemokitError(f"{place} compresses or encrypts '{member.filename}': not read.")
    if len(set(names)) < len(names) or sum(member.file_size for member in members) > size:
        raise DemokitError(f"{place} claims more than it holds: it is damaged or hostile.")


def _small_bytes(source: Source, name: str, place: str, most: int) -> bytes:
    with explained(f"read {name} of {place}"), source.open(name) as stream:
        data = stream.read(most + 1)
    if len(data) > most:
        raise DemokitError(f"{name} of {place} is larger than any {name} is: not read.")
    return data


def copied(stream: IO[bytes], out: IO[bytes] | None, limit_bytes: int, what: str) -> str:
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


def hub_repository(place: str) -> str | None:
    """The USER/NAME of a place on Hugging Face; None for any other place.

    Raises:
        DemokitError: it is none at all.
    """
    if hub := HUB.fullmatch(place):
        return hub[1]
    if not place.strip() or _NO_PLACE.match(place):
        raise DemokitError(
            f"'{place}' is no place: name a folder (./NAME, if it has a colon), a URL or "
            "hf:USER/NAME."
        )
    return None


def file_system(place: str) -> tuple[Any, str]:
    """What fsspec opens a place with, and the place's path there."""
    with explained(f"use {place}"):
        files, root = library("fsspec.core").url_to_fs(place)
    return files, str(root).rstrip("/")


def is_local(files: Any) -> bool:
    """Whether a file system of fsspec is that of this machine."""
    return "file" in ((files.protocol,) if isinstance(files.protocol, str) else files.protocol)


def library(name: str) -> Any:
    """An optional library that sharing needs; raises DemokitError where it is missing."""
    try:
        return import_module(name)
    except ImportError as error:
        raise not_installed("Sharing this way needs", name.split(".")[0]) from error


@contextmanager
def explained(doing: str) -> Iterator[None]:
    """Whatever a storage library raises, as one sentence: every one has errors of its own."""
    try:
        yield
    except DemokitError:
        raise
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise DemokitError(f"Cannot {doing} ({type(error).__name__}: {lines[0]}).") from error
