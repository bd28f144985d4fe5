"""The folder of a training: settings, scalars, tables and one checkpoint.

It survives a process that is killed between any two steps, a second process, a full disk and
damaged files, and knows nothing of what is trained.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import Tensor

from demokit import __version__
from demokit.errors import DemokitError
from demokit.learning.checkpoint import KEPT, load_checkpoint, save_checkpoint
from demokit.learning.scalars import ScalarLog
from demokit.lock import Lock
from demokit.policies import CHECKPOINT
from demokit.reading import read_json
from demokit.writing import csv_text, explain_write, write_whole

CONFIG, METRICS = "config.json", "metrics.csv"
BOARD = "tensorboard"
_OTHER_DIR = "name another --output-dir."
_EVENTS = "events.out.tfevents.*"
_PACKAGES = ("torch", "mujoco", "numpy")
_VERSIONS = "versions"


class Hold(Lock):
    """A folder, made here, in which no other process trains, until `release` or its end.

    Raises:
        DemokitError: another process trains there, or the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        with explain_write(folder, _OTHER_DIR):
            str(folder).encode()  # checkpoints cannot be read from a folder of another name
        super().__init__(folder, _OTHER_DIR, inside=True)


class TrainingFolder:
    """What one training keeps, in a folder that no other process trains in meanwhile.

    config.json says how the training was started: `settings`, `extras` and versions. Of several
    processes that train together, one makes this.

    Args:
        path: where; created when missing.
        settings: what a resumed training may not change, as JSON; those in a group, such as
            {"config": {"seed": 0}}, are compared one by one.
        extras: what config.json says besides.
        defaults: name -> value, of settings that an earlier version may not have known.
        free: names of settings that may change after all.
        key: the first column of metrics.csv, such as "iteration".
        forget: names of further files and folders that belong to the training; `overwrite`
            removes those and what is written here, and nothing else.
        resume: continue from the checkpoint that is there, if any.
        overwrite: forget the training that is there, if any.

    Attributes:
        path: the folder.
        resumed: whether there is a checkpoint to continue from.

    Raises:
        DemokitError: the folder holds a training and neither `resume` nor `overwrite` is given,
            or `resume` and other settings; another process trains there; config.json is damaged;
            or the folder cannot be written.
    """

    def __init__(
        self,
        path: Path,
        settings: Mapping[str, Any],
        *,
        extras: Mapping[str, Any] | None = None,
        defaults: Mapping[str, Any] | None = None,
        free: Sequence[str] = ("device",),
        key: str = "iteration",
        forget: Sequence[str] = (),
        resume: bool = False,
        overwrite: bool = False,
    ) -> None:
        self.path = path
        with explain_write(path, _OTHER_DIR):
            self._hold = Hold(path)
            try:
                self.resumed = self._may_resume(forget, resume=resume, overwrite=overwrite)
                if self.resumed:
                    require_same(path, settings, defaults or {}, free)
                    self._go_on(settings)
                self.resumed = self.resumed and self.checkpoint.exists()
                if not self.resumed:
                    self._begin({**settings, **(extras or {})}, forget)
            except BaseException:
                self._hold.release()
                raise
        self._log = ScalarLog(self.metrics, path / BOARD, key)

    @property
    def checkpoint(self) -> Path:
        """The training's one checkpoint."""
        return self.path / CHECKPOINT

    @property
    def metrics(self) -> Path:
        """The scalars, a row per logged step."""
        return self.path / METRICS

    def writing(self) -> AbstractContextManager[None]:
        """Turn a failed write in the block into a DemokitError that says what is kept."""
        return explain_write(self.path, KEPT)

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The checkpoint to continue from, see `load_checkpoint`; None where there is none."""
        return load_checkpoint(self.checkpoint) if self.resumed else None

    def save(self, tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
        """Replace the checkpoint, see `save_checkpoint`."""
        save_checkpoint(self.checkpoint, tensors, header)

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """Append a row to metrics.csv and to TensorBoard; NaN is what was not measured."""
        with self.writing():
            self._log.add(step, scalars)

    def drop_from(self, step: int) -> None:
        """Forget logged rows from `step` on: those that the checkpoint does not contain.

        Raises:
            DemokitError: metrics.csv is damaged, or cannot be written.
        """
        with self.writing():
            self._log.drop_from(step)

    def write_rows(self, name: str, rows: Sequence[Mapping[str, object]]) -> None:
        """Write the table NAME.csv: one row or more, all of the same columns."""
        text = csv_text(list(rows[0]), rows)
        write_whole(self.path / f"{name}.csv", text, KEPT, parents=False)

    def say(self, facts: Mapping[str, str | int | float]) -> None:
        """Tell whoever looks at the folder how far it is, see `demokit.lock.said_in`."""
        self._hold.say(facts)

    def close(self) -> None:
        """Leave the folder to others; everything is written already."""
        self._hold.release()

    def __enter__(self) -> TrainingFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _may_resume(self, forget: Sequence[str], *, resume: bool, overwrite: bool) -> bool:
        """Whether something is there to be resumed; raises DemokitError where it is in the way."""
        if not holds_training(self.path, forget) or overwrite:
            return False
        if not resume:
            raise already_holds(self.path)
        return True

    def _begin(self, content: Mapping[str, Any], forget: Sequence[str]) -> None:
        # The checkpoint goes first and the configuration last: whenever this is cut off, no
        # checkpoint is taken for one of other settings.
        _clear(self.path, forget)
        self._configure({**content, _VERSIONS: versions()})

    def _go_on(self, settings: Mapping[str, Any]) -> None:
        """Keep what a resumed training has changed of its free settings."""
        before = read_config(self.path)
        now = {**before, **json.loads(json.dumps(settings))}
        if now != before:
            self._configure(now)

    def _configure(self, content: Mapping[str, Any]) -> None:
        text = f"{json.dumps(content, indent=2)}\n"
        write_whole(self.path / CONFIG, text, _OTHER_DIR, parents=False)


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that decide what a training computes."""
    own = {"python": platform.python_version(), "demokit": __version__}
    return {**own, **{name: version(name) for name in _PACKAGES}}


def already_holds(path: Path) -> DemokitError:
    """The error for a folder whose training is to be kept."""
    return DemokitError(
        f"{path} already holds a training: continue it with --resume, replace it with "
        "--overwrite, or name another --output-dir."
    )


def holds_training(path: Path, further: Sequence[str] = ()) -> bool:
    """Whether a folder has what could be lost; `further` names files besides those of all.

    The settings of a training that has come to nothing else are not that.

    Raises:
        DemokitError: there is but a config.json that no training wrote: it is somebody's own.
    """
    found = [each.name for each in _traces(path, further)]
    if found == [CONFIG]:
        _require_own(path)
    return found not in ([], [CONFIG])


def _require_own(path: Path) -> None:
    try:
        read_config(path)
    except DemokitError:
        raise DemokitError(
            f"{path / CONFIG} is no configuration of a training: move it away, or {_OTHER_DIR}"
        ) from None


def forget_training(path: Path, further: Sequence[str] = ()) -> None:
    """Remove a training's files, and the folder where nothing else is in it.

    Raises:
        DemokitError: another process trains there, or they cannot be removed.
    """
    with Hold(path), explain_write(path, _OTHER_DIR):
        _clear(path, further)
    with suppress(OSError):
        path.rmdir()


def read_config(path: Path) -> dict[str, Any]:
    """What the config.json of a training's folder says.

    Raises:
        DemokitError: there is none, a damaged one, or one that no training wrote.
    """
    file = path / CONFIG
    try:
        content = read_json(file)
    except (OSError, ValueError) as error:
        raise _no_config(file, str(error)) from None
    if not isinstance(content, dict) or _VERSIONS not in content:
        raise _no_config(file, "it is no configuration of a training")
    return content


def require_same(
    path: Path, settings: Mapping[str, Any], defaults: Mapping[str, Any], free: Sequence[str]
) -> None:
    """Raise DemokitError where a folder's config.json has other settings; see `TrainingFolder`."""
    now: dict[str, Any] = dict(_single(json.loads(json.dumps(settings))))
    before = {**defaults, **dict(_single(read_config(path)))}
    missing = [name for name in now if name not in before]
    if missing:
        raise _no_config(path / CONFIG, f"it does not say its {missing[0]}")
    changed = [name for name in now if name not in free and before[name] != now[name]]
    if changed:
        raise DemokitError(
            f"{path} was started with another {changed[0]}{_in_words(before[changed[0]])}: "
            "resume with that, or start another training."
        )


def _single(settings: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Settings by name, out of their groups."""
    for name, value in settings.items():
        yield from value.items() if isinstance(value, dict) else ((name, value),)


def _in_words(value: object) -> str:
    """A value for a message, where it is short; escaped, as it comes from a file."""
    text = json.dumps(value)
    return f" ({text})" if len(text) <= 60 and not isinstance(value, list | dict) else ""


def _no_config(file: Path, reason: str) -> DemokitError:
    return DemokitError(
        f"{file} cannot be read ({reason}): mend it, or start again with --overwrite."
    )


def _traces(path: Path, further: Sequence[str]) -> list[Path]:
    """What a training has left in a folder, its checkpoint first and its configuration last."""
    written = [path / name for name in (CHECKPOINT, *further, METRICS)]
    written += [*(path / BOARD).glob(_EVENTS), path / CONFIG]
    return [each for each in written if os.path.lexists(each)]


def _clear(path: Path, further: Sequence[str]) -> None:
    for each in _traces(path, further):
        if each.is_dir() and not each.is_symlink():
            shutil.rmtree(each)
        else:
            each.unlink()
    with suppress(OSError):
        (path / BOARD).rmdir()
