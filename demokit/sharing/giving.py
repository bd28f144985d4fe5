"""Putting a bundle somewhere: an archive, a folder, a store or a Hugging Face repository."""

from __future__ import annotations

import shutil
import zipfile
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from demokit.errors import DemokitError
from demokit.lock import Lock
from demokit.reading import file_sha256
from demokit.sharing.bundle import SUMS, Bundle
from demokit.sharing.fetch import SCHEMES
from demokit.sharing.places import (
    copied,
    explained,
    file_system,
    hub_repository,
    is_local,
    library,
)
from demokit.writing import Together, replaced, write_whole

_OTHER_PLACE = "choose another place."


def pack(bundle: Bundle, target: Path, *, overwrite: bool = False) -> Path:
    """Write the bundle as the archive `target`, NAME.zip; its members are not compressed again.

    Raises:
        DemokitError: see `check_archive`, or the target cannot be written.
    """
    check_archive(target, overwrite=True)
    with Lock(target, _OTHER_PLACE):
        check_archive(target, overwrite=overwrite)
        with (
            replaced(target, _OTHER_PLACE, partial(_check_packed, bundle)) as aside,
            zipfile.ZipFile(aside, "w", zipfile.ZIP_STORED, strict_timestamps=False) as archive,
        ):
            archive.write(bundle.path, bundle.name)
            for name, data in bundle.small.items():
                archive.writestr(name, data)
    return target


def check_archive(target: Path, *, overwrite: bool = False) -> None:
    """Raise DemokitError where `pack` would: the target exists, or is not named NAME.zip."""
    if target.suffix != ".zip":
        raise DemokitError(f"The archive {target} must be named NAME.zip.")
    if target.exists() and not overwrite:
        raise DemokitError(f"{target} exists: pass --overwrite to replace it, or another -o.")


def _check_packed(bundle: Bundle, path: Path) -> None:
    """Raise DemokitError unless an archive holds what its list of checksums says."""
    with zipfile.ZipFile(path) as archive:
        for name, stated in bundle.sums.items():
            with archive.open(name) as stream:
                found = copied(stream, None, bundle.size_bytes, name)
            if found != stated:
                raise DemokitError(f"{bundle.path} changed while {name} was packed: pack it again.")


def push(bundle: Bundle, place: str, *, public: bool = False, overwrite: bool = False) -> str:
    """Put the bundle in a folder, at an fsspec URL or in a Hugging Face repository (hf:USER/NAME).

    A Hugging Face repository is made private unless `public`. Returns where the bundle is now.

    Raises:
        DemokitError: see `check_place`, or a library is missing, or the place cannot be written.
    """
    if repo := hub_repository(place):
        return _push_to_hub(bundle, repo, public=public, overwrite=overwrite)
    check_place(bundle, place, public=public, overwrite=overwrite)
    files, root = file_system(place)
    with explained(f"write {place}"):
        if is_local(files):
            _put_here(bundle, Path(root), place, overwrite=overwrite)
            return place
        if files.exists(f"{root}/{SUMS}"):
            # Without its checksums a half-written bundle is not taken for a whole one.
            files.rm(f"{root}/{SUMS}")
        files.makedirs(root, exist_ok=True)
        files.put_file(str(bundle.path), f"{root}/{bundle.name}")
        for name, data in bundle.small.items():
            files.pipe_file(f"{root}/{name}", data)
    return place


def check_place(
    bundle: Bundle, place: str, *, public: bool = False, overwrite: bool = False
) -> None:
    """Raise DemokitError where `push` would: it is no place to write, or something is there.

    Hugging Face is not asked.
    """
    if hub_repository(place):
        return
    if public:
        raise DemokitError("--public is for Hugging Face repositories: who reads a folder or URL "
                           "is decided there.")  # fmt: skip
    if place.startswith(SCHEMES):
        raise DemokitError(f"{place} can only be read: push to a folder, a store or hf:USER/NAME.")
    files, root = file_system(place)
    with explained(f"look into {place}"):
        taken = [n for n in (bundle.name, *bundle.small) if files.exists(f"{root}/{n}")]
    if taken and not overwrite:
        raise DemokitError(
            f"{place} holds {', '.join(taken)} already: pass --overwrite to replace what is "
            "there, or choose an empty place."
        )


def _put_here(bundle: Bundle, folder: Path, place: str, *, overwrite: bool) -> None:
    """Put all of the bundle in a folder, or nothing; one process at a time."""
    stated = bundle.sums[bundle.name]

    def check(path: Path) -> None:
        if file_sha256(path) != stated:
            raise DemokitError(f"{bundle.path} changed while it was copied: push it again.")

    with Lock(folder, _OTHER_PLACE, inside=True), Together() as together:
        check_place(bundle, place, overwrite=overwrite)
        with replaced(folder / bundle.name, _OTHER_PLACE, check, together=together) as aside:
            shutil.copyfile(bundle.path, aside)
        for name, data in bundle.small.items():
            write_whole(folder / name, data, _OTHER_PLACE, together=together)


def _require_as_seen(repo: str, *, public: bool, private: bool) -> None:
    """Raise DemokitError for a repository that others see and should not, or the reverse."""
    if not public and not private:
        raise DemokitError(f"hf:{repo} is public: pass --public if that is what you want.")
    if public and private:
        raise DemokitError(
            f"hf:{repo} is private, and so is all that was pushed there before: leave out "
            "--public, or make it public in its settings at huggingface.co first."
        )


def _push_to_hub(bundle: Bundle, repo: str, *, public: bool, overwrite: bool) -> str:
    """One commit to a repository."""
    kind = bundle.layout.repository
    hub = library("huggingface_hub")
    api = hub.HfApi()
    with explained(f"write hf:{repo}"), TemporaryDirectory() as folder:
        api.create_repo(repo, repo_type=kind, private=not public, exist_ok=overwrite)
        _require_as_seen(repo, public=public, private=api.repo_info(repo, repo_type=kind).private)
        for name, data in bundle.small.items():
            (Path(folder) / name).write_bytes(data)
        (Path(folder) / bundle.name).symlink_to(bundle.path.resolve())
        api.upload_folder(
            repo_id=repo,
            repo_type=kind,
            folder_path=folder,
            commit_message=f"demokit share push: {bundle.name}",
        )
    return f"hf:{repo}"
