"""Demonstrations of all training tasks as tensors, ready for the outer loop."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from demokit.data import Dataset, open_dataset
from demokit.envs import make_family
from demokit.envs.family import Family
from demokit.errors import DemokitError
from demokit.types import Array, Episode, Task
from gmps.config import RECORDED
from gmps.exploration import count_segments
from gmps.losses import mean_weights
from gmps.meta import Demos

_MIN_SCALE = 1e-3


@dataclass(frozen=True, eq=False)
class DemoSet:
    """E demonstrations of at most T steps for each of M training tasks.

    Attributes:
        family, tasks: what was demonstrated.
        reward: what the inner loop is paid, "dense" or "sparse".
        observation: (M, E, T, O).
        action: (M, E, T, A), the expert's labels, not the noisy actions that were executed.
        alive: (M, E, T) bool, the steps that were demonstrated; shorter episodes are filled up
            with steps that never count.
        num_steps: environment steps that recording the whole dataset took.
        experts: hash of each trained expert that acted -> environment steps of its training.
    """

    family: Family
    reward: str
    tasks: tuple[Task, ...]
    observation: Tensor
    action: Tensor
    alive: Tensor
    num_steps: int
    experts: Mapping[str, int] = field(default_factory=dict)

    def all(self) -> Demos:
        """Every demonstration, (M, E * T, ...)."""
        return self._chosen(slice(None))

    def sample(self, rng: np.random.Generator, per_task: int) -> Demos:
        """`per_task` demonstrations of every task, all when there are no more (Alg. 2, line 8)."""
        available = self.observation.shape[1]
        if available <= per_task:
            return self.all()
        chosen = torch.from_numpy(rng.permutation(available)[:per_task])
        return self._chosen(chosen)

    def _chosen(self, episodes: slice | Tensor) -> Demos:
        return Demos(
            self.observation[:, episodes].flatten(1, 2),
            self.action[:, episodes].flatten(1, 2),
            mean_weights(self.alive[:, episodes].flatten(1, 2)),
        )

    def aggregated(self, episodes: Sequence[Episode]) -> DemoSet:
        """D* with labelled roll-outs added: as many for each task, in the order of the tasks."""
        added = _tensors(episodes, len(self.tasks))
        steps = max(self.alive.shape[2], added[2].shape[2])
        observation, action, alive = (
            torch.cat([_filled_up(part, steps) for part in parts], 1)
            for parts in zip((self.observation, self.action, self.alive), added, strict=True)
        )
        spent = sum(len(episode) for episode in episodes)
        return replace(
            self,
            observation=observation,
            action=action,
            alive=alive,
            num_steps=self.num_steps + spent,
        )

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and scale (O,) of the demonstrated observations; the scale is never near zero."""
        flat = self.observation[self.alive]
        return flat.mean(0), flat.std(0).clamp_min(_MIN_SCALE)

    def object_columns(self) -> slice:
        """The observation columns of the object that the family's tasks move."""
        start = 0
        for term in self.family.observation_terms:
            if term.name == self.family.object_term:
                return slice(start, start + term.width)
            start += term.width
        raise DemokitError(
            f"The object of {self.family.name}, {self.family.object_term}, is not observed: "
            "radial baselines and sweeps need it."
        )

    def segments(self) -> int:
        """How many experts one after the other fit into an episode; see `count_segments`."""
        place = self.observation[..., self.object_columns()]
        return count_segments(place.flatten(0, 1), self.alive.flatten(0, 1), self.family.horizon)


def load_demos(path: str | Path, demos_per_task: int, reward: str = RECORDED) -> DemoSet:
    """Read the first `demos_per_task` training demonstrations of every task.

    Args:
        path: a file or a Minari id.
        demos_per_task: E.
        reward: what the inner loop is paid; by default what the demonstrations were.

    Raises:
        DemokitError: no training episodes, a task with too few of them, or an import without
            the tasks' contexts.
    """
    with open_dataset(path) as dataset:
        family = make_family(dataset.metadata.family)
        if "context" in dataset.metadata.provenance.missing:
            raise DemokitError(
                f"{path} does not say the contexts of its tasks: {family.name} cannot be simulated "
                "in them."
            )
        if isinstance(dataset.metadata.observation_space, Mapping):
            raise DemokitError(
                f"{path} holds images, and policies of this version see states only: record with "
                "--observation state."
            )
        chosen = _choose(dataset, demos_per_task)
        episodes = [dataset[i] for indices in chosen.values() for i in indices]
        return DemoSet(
            family,
            dataset.metadata.reward if reward == RECORDED else reward,
            tuple(episode.task for episode in episodes[::demos_per_task]),
            *_tensors(episodes, len(chosen)),
            sum(record.length for record in dataset.episodes),
            dataset.metadata.trained_experts(),
        )


def _choose(dataset: Dataset, demos_per_task: int) -> dict[str, list[int]]:
    """Task id -> indices of its first `demos_per_task` training episodes."""
    found: dict[str, list[int]] = defaultdict(list)
    for record in dataset.episodes:
        if record.task.split == "train":
            found[record.task.id].append(record.index)
    if not found:
        raise DemokitError(f"{dataset.path} holds no training episodes: record --split train.")
    short = [task for task, indices in found.items() if len(indices) < demos_per_task]
    if short:
        raise DemokitError(
            f"{dataset.path}: task {short[0]} has {len(found[short[0]])} demonstrations, "
            f"{demos_per_task} are asked for: record more, or lower --demos-per-task."
        )
    return {task: indices[:demos_per_task] for task, indices in found.items()}


def _tensors(episodes: Sequence[Episode], num_tasks: int) -> tuple[Tensor, Tensor, Tensor]:
    """Observations, labels (M, E, T, ...) and which steps there are (M, E, T), task by task."""
    lengths = torch.tensor([len(episode) for episode in episodes])
    steps = int(lengths.max())
    observation = [torch.from_numpy(np.asarray(e.observations)[:-1]) for e in episodes]
    label = [torch.from_numpy(_labels(episode)) for episode in episodes]
    alive = torch.arange(steps) < lengths[:, None]
    parts = pad_sequence(observation, batch_first=True), pad_sequence(label, batch_first=True)
    observations, labels, steps_there = (
        part.view(num_tasks, -1, *part.shape[1:]) for part in (*parts, alive)
    )
    return observations, labels, steps_there


def _filled_up(values: Tensor, steps: int) -> Tensor:
    """Values (M, E, T, ...) with zeros behind, to T = `steps`."""
    missing = values.new_zeros(*values.shape[:2], steps - values.shape[2], *values.shape[3:])
    return torch.cat((values, missing), 2)


def _labels(episode: Episode) -> Array:
    """The expert's labels (T, A) where they were recorded, else the executed actions."""
    labels = episode.privileged.get("expert_action")
    if labels is None:
        return episode.actions
    return labels[: len(episode)].astype(np.float32)
