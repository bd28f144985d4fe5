"""The folder of an expert: what it may hold before a training begins in it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from demokit.errors import DemokitError
from demokit.learning.expert import EXPERT_FILE
from demokit.learning.folder import already_holds, forget_training, holds_training, read_config
from demokit.writing import explain_write

FILES = (EXPERT_FILE, "curve.png")
"""What a training of an expert leaves besides what every training does."""
MAY_CHANGE = ("device", "threads")
"""Settings with which a training may be resumed that was started with others."""


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
                forget_training(each, FILES)
        else:
            _refuse(held, own, resume=resume)
        for each in own:
            each.mkdir(parents=True, exist_ok=True)


def _trainings(folder: Path) -> list[Path]:
    """The folders of the training in `folder` and of those for its tasks."""
    held = [folder] if holds_training(folder, FILES) else []
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
        raise already_holds(held[0])


def _is_of_a_task(folder: Path) -> bool:
    """Whether `train-expert --per-task` wrote it: other folders are somebody's own."""
    try:
        tasks = read_config(folder)["tasks"]
        return [task_folder(task) for task in tasks] == [folder.name]
    except (DemokitError, LookupError, TypeError, AttributeError):
        return False
