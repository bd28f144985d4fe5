"""Windows of episodes for PyTorch: a map-style dataset for worker processes, and a fair sampler."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from demokit.data.labels import read_labels
from demokit.data.layout import EpisodeRecord
from demokit.data.store import Dataset as Demonstrations
from demokit.data.store import open_dataset
from demokit.errors import DemokitError
from demokit.random import stream
from demokit.types import Array

LABELS = "labels"


class Place(NamedTuple):
    """A window: the index of its task, of its episode, and its first step."""

    task: int
    episode: int
    start: int


class Windows(Dataset[dict[str, Tensor]]):
    """All windows of `length` steps of all episodes of a split; reads a window when asked.

    It holds the table of episodes, no arrays, so that it is cheap to send to worker processes;
    each of them opens the file for itself, at its first window.

    Args:
        dataset: a finished dataset: its path, its Minari id, itself, or a selection of it.
        length: steps per window, W; shorter episodes have no window.
        names: arrays to read, see `Dataset.window`. The default is what a policy may see and what
            was done. "labels" is what each step teaches, see `read_labels`: other than "actions",
            which were executed, noise and all.
        split: only tasks of this split; None takes all.
        stride: steps between the starts of neighbouring windows.

    An item is a dict of tensors: each array's rows (W, ...), "task" (its index in `task_ids`),
    "episode" (its number in the file) and "start". Where the dataset says the tasks' contexts,
    which are for training alone and never observed, "context" is that of the task, (C,) float32.

    Attributes:
        task_ids: ids of the tasks.
        contexts: of these tasks, (M, C) float32; None where the dataset does not say them.

    Raises:
        DemokitError: no window, or no such array.
    """

    def __init__(
        self,
        dataset: str | Path | Demonstrations,
        length: int,
        *,
        names: Sequence[str] | None = None,
        split: str | None = "train",
        stride: int = 1,
    ) -> None:
        if length < 1 or stride < 1:
            raise DemokitError(f"Windows need a length and a stride of 1 or more, not {length} "
                               f"and {stride}.")  # fmt: skip
        given = dataset if isinstance(dataset, Demonstrations) else open_dataset(dataset)
        self.path = given.path
        self.length = length
        self.names = tuple(names or _policy_names(given))
        chosen = [r for r in given.episodes if split is None or r.task.split == split]
        self.task_ids = tuple(sorted({record.task.id for record in chosen}))
        self.contexts = _contexts(given, chosen)
        self.places = tuple(_places(chosen, self.task_ids, length, stride))
        if not self.places:
            raise DemokitError(
                f"{self.path} has no window of {length} steps"
                + (f" in split '{split}'." if split else ".")
            )
        # By its number in the file, whatever the selection.
        _rows(open_dataset(self.path), self.places[0].episode, 0, 0, self.names)
        self._open: Demonstrations | None = None
        self._process = 0

    def __len__(self) -> int:
        """Number of windows."""
        return len(self.places)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """A window; raises IndexError, and DemokitError on damage."""
        place = self.places[index]
        stop = place.start + self.length
        arrays = _rows(self._opened(), place.episode, place.start, stop, self.names)
        item = {name: torch.from_numpy(rows) for name, rows in arrays.items()}
        item |= {k: torch.tensor(v) for k, v in place._asdict().items()}
        return item if self.contexts is None else item | {"context": self.contexts[place.task]}

    def __getstate__(self) -> dict[str, object]:
        """Without the open file, which processes cannot share."""
        return {**self.__dict__, "_open": None}

    def _opened(self) -> Demonstrations:
        """The dataset, opened once per process and then kept open."""
        if self._open is None or self._process != os.getpid():
            self._open, self._process = open_dataset(self.path).__enter__(), os.getpid()
        return self._open


class TaskBalancedSampler(Sampler[int]):
    """Windows such that every task is drawn equally often, however many episodes it has.

    Each run over it is another draw: tasks take turns in an order that is shuffled every round.

    Args:
        windows: what to draw from.
        num_samples: draws per run; None takes as many as there are windows.
        seed: of the draws; the same seed gives the same sequence of runs.
    """

    def __init__(self, windows: Windows, *, num_samples: int | None = None, seed: int = 0) -> None:
        tasks = np.array([place.task for place in windows.places])
        self._by_task = [np.flatnonzero(tasks == task) for task in np.unique(tasks)]
        self._num_samples = num_samples or len(windows)
        self._rng = stream(seed, "windows")

    def __len__(self) -> int:
        """Draws per run."""
        return self._num_samples

    def __iter__(self) -> Iterator[int]:
        """Indices of windows."""
        left = self._num_samples
        while left > 0:
            for task in self._rng.permutation(len(self._by_task))[:left]:
                yield int(self._rng.choice(self._by_task[task]))
            left -= len(self._by_task)


def _contexts(dataset: Demonstrations, records: Sequence[EpisodeRecord]) -> Tensor | None:
    """Contexts of the tasks (M, C), in the order of their ids."""
    found = {record.task.id: record.task.context for record in records}
    lengths = {len(context) for context in found.values()}
    if not dataset.metadata.knows_contexts or len(lengths) != 1:
        return None
    return torch.tensor([found[name] for name in sorted(found)], dtype=torch.float32)


def _rows(
    dataset: Demonstrations, index: int, start: int, stop: int, names: Sequence[str]
) -> dict[str, Array]:
    """Rows start:stop of an episode's arrays, its labels among them if they are named."""
    stored = dataset.window(index, start, stop, [name for name in names if name != LABELS])
    if LABELS in names:
        stored[LABELS] = read_labels(dataset, index, start, stop).action
    return stored


def _policy_names(dataset: Demonstrations) -> list[str]:
    """The observations and actions of a dataset."""
    named = dataset.metadata.space_items()
    return [f"observations/{name}".rstrip("/") for name in named] + ["actions"]


def _places(
    records: Sequence[EpisodeRecord], task_ids: Sequence[str], length: int, stride: int
) -> Iterator[Place]:
    number = {task: index for index, task in enumerate(task_ids)}
    for record in records:
        for start in range(0, record.length - length + 1, stride):
            yield Place(number[record.task.id], record.index, start)
