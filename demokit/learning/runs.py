"""What every training run keeps: its folder, scalars as CSV and TensorBoard, Adam as tensors."""

from __future__ import annotations

import csv
import os
import platform
import shutil
import sys
import weakref
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from demokit.data.files import try_lock
from demokit.errors import DemokitError

_PACKAGES = ("demokit", "torch", "mujoco", "numpy")


class Hold:
    """A folder in which no other process trains, until `release` is called or this one ends.

    Raises:
        DemokitError: another process trains there.
    """

    def __init__(self, folder: Path) -> None:
        if sys.platform == "win32":  # has no locks of folders
            self.release: Callable[[], object] = lambda: None
            return
        handle = os.open(folder, os.O_RDONLY)
        self.release = weakref.finalize(self, os.close, handle)
        if not try_lock(handle):
            self.release()
            raise DemokitError(
                f"Another process trains in {folder}: wait until it ends, or name another "
                "--output-dir."
            )


class ScalarLog:
    """Scalars of a run: metrics.csv, a row per logged step, and TensorBoard.

    Args:
        folder: of the run.
        key: the first column, such as "iteration".
        fresh: drop what an earlier run left there.
    """

    def __init__(self, folder: Path, key: str, *, fresh: bool) -> None:
        self.path = folder / "metrics.csv"
        self._key = key
        if fresh:
            self.path.unlink(missing_ok=True)
            shutil.rmtree(folder / "tensorboard", ignore_errors=True)
        self._board = SummaryWriter(str(folder / "tensorboard"))

    def add(self, step: int, scalars: Mapping[str, float]) -> None:
        """Append a row; NaN marks what was not measured, and is left out of TensorBoard."""
        with self.path.open("a", newline="") as file:
            writer = csv.DictWriter(file, [self._key, *scalars])
            if file.tell() == 0:
                writer.writeheader()
            writer.writerow({self._key: step, **scalars})
        for name, value in scalars.items():
            if value == value:
                self._board.add_scalar(name, value, step)

    def drop_from(self, step: int) -> None:
        """Forget rows that the checkpoint of a resumed run does not contain."""
        if not self.path.exists():
            return
        lines = self.path.read_text().splitlines(keepends=True)
        whole = [row for row in lines[1:] if row.endswith("\n")]
        try:
            kept = [row for row in whole if int(row.split(",")[0]) < step]
        except ValueError as error:
            raise DemokitError(f"{self.path} has a damaged row ({error}): mend it.") from None
        self.path.write_text("".join([*lines[:1], *kept]))

    def close(self) -> None:
        """Flush TensorBoard."""
        self._board.close()


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that decide what a run computes."""
    return {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Adam's state as named tensors: "<parameter index>.<step|exp_avg|exp_avg_sq>"."""
    state = optimizer.state_dict()["state"]
    return {f"{i}.{name}": value for i, entry in state.items() for name, value in entry.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """The inverse of `optimizer_tensors`."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
