"""The folder of an expert: what it may hold before a training begins in it."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from demokit.data.files import explain_write
from demokit.errors import DemokitError
from demokit.learning.expert import EXPERT_FILE
from demokit.learning.runs import Hold

CHECKPOINT = "checkpoint.safetensors"
CONFIG = "config.json"
_FILES = (CONFIG, CHECKPOINT, EXPERT_FILE, "metrics.csv", "curve.png")


def task_folder(task_id: str) -> str:
    """The name of the folder in which a task's separate expert is trained."""
    return task_id.replace("/", "-")


def make_room(folder: Path, own: Sequence[Path], *, resume: bool, overwrite: bool) -> None:
    """Make the folders `own` and, with `overwrite`, remove all trainings in `folder`.

    Those that are none of `own` would be taken for the expert, or for parts of it.

    Raises:
        DemokitError: there are such and `overwrite` is not given, or there are trainings of `own`
            and neither `resume` nor `overwrite` is given; another process trains in one that is
            to be removed; or a folder cannot be made.
    """
    with explain_write(folder, "name another --output-dir."):
        held = _trainings(folder)
        if overwrite:
            for each in held:
                Hold(each).release()
                _remove(each)
        else:
            _refuse(held, own, resume=resume)
        for each in own:
            each.mkdir(parents=True, exist_ok=True)


def _trainings(folder: Path) -> list[Path]:
    """The folders of the training in `folder` and of those for its tasks."""
    held = [folder] if _holds_one(folder) else []
    held += [each for each in sorted(folder.glob("*")) if _is_of_a_task(each)]
    return held


def _refuse(held: Sequence[Path], own: Sequence[Path], *, resume: bool) -> None:
    """Raise DemokitError for trainings that are to be kept; see `make_room`."""
    others = [each for each in held if each not in own]
    if others:
        raise DemokitError(
            f"{others[0]} already holds a training that is no part of this one: replace it with "
            "--overwrite, or name another --output-dir."
        )
    if held and not resume:
        raise held_already(held[0])


def held_already(folder: Path) -> DemokitError:
    """The error for a folder whose training is to be kept."""
    return DemokitError(
        f"{folder} already holds a training: continue it with --resume, replace it "
        "with --overwrite, or name another --output-dir."
    )


def _holds_one(folder: Path) -> bool:
    return any((folder / name).exists() for name in (CONFIG, EXPERT_FILE))


def _is_of_a_task(folder: Path) -> bool:
    """Whether `train-expert --per-task` wrote it: other folders are somebody's own."""
    try:
        tasks = json.loads((folder / CONFIG).read_text())["tasks"]
        return [task_folder(task) for task in tasks] == [folder.name]
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return False


def _remove(folder: Path) -> None:
    """Remove what a training wrote, and the folder where nothing else is in it."""
    for name in _FILES:
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / "tensorboard", ignore_errors=True)
    with contextlib.suppress(OSError):
        folder.rmdir()
