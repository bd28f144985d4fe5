"""Demonstrations of all training tasks as tensors, ready for the outer loop."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from demokit.data import Dataset, open_dataset
from demokit.envs import make_family
from demokit.envs.family import Family
from demokit.errors import DemokitError
from demokit.types import Array, FloatArray, Task
from gmps.meta import Demos

_MIN_SCALE = 1e-3


@dataclass(frozen=True, eq=False)
class DemoSet:
    """E demonstrations of T steps for each of M training tasks.

    Attributes:
        family, reward, tasks: what was demonstrated; `reward` is "dense" or "sparse".
        observation: (M, E, T, O).
        action: (M, E, T, A), the expert's labels, not the noisy actions that were executed.
        num_steps: environment steps that recording the whole dataset took.
    """

    family: Family
    reward: str
    tasks: tuple[Task, ...]
    observation: Tensor
    action: Tensor
    num_steps: int

    def all(self) -> Demos:
        """Every demonstration, (M, E * T, ...)."""
        return Demos(self.observation.flatten(1, 2), self.action.flatten(1, 2))

    def sample(self, rng: np.random.Generator, per_task: int) -> Demos:
        """`per_task` demonstrations of every task, all when there are no more (Alg. 2, line 8)."""
        available = self.observation.shape[1]
        if available <= per_task:
            return self.all()
        chosen = torch.from_numpy(rng.permutation(available)[:per_task])
        return Demos(
            self.observation[:, chosen].flatten(1, 2), self.action[:, chosen].flatten(1, 2)
        )

    def aggregated(self, observation: Tensor, action: Tensor, num_steps: int) -> DemoSet:
        """D* with labelled roll-outs (M, E', T, ...) added, which cost `num_steps`."""
        return replace(
            self,
            observation=torch.cat((self.observation, observation), 1),
            action=torch.cat((self.action, action), 1),
            num_steps=self.num_steps + num_steps,
        )

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and scale (O,) of the demonstrated observations; the scale is never near zero."""
        flat = self.observation.flatten(0, 2)
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

    def furthest(self, fraction: float = 0.1) -> Demos:
        """The demonstrations whose object ends furthest from its start, (D, O) and (D, A).

        A policy that imitates them passes through where the other tasks want it to stop.
        """
        place = self.observation[..., self.object_columns()]
        distance = (place[:, :, -1] - place[:, :, 0]).norm(dim=-1).flatten()
        chosen = distance.topk(max(1, round(fraction * len(distance)))).indices
        return Demos(
            self.observation.flatten(0, 1)[chosen].flatten(0, 1),
            self.action.flatten(0, 1)[chosen].flatten(0, 1),
        )


def load_demos(path: str | Path, demos_per_task: int) -> DemoSet:
    """Read the first `demos_per_task` training demonstrations of every task.

    Raises:
        DemokitError: no training episodes, a task with too few of them, episodes of different
            lengths, or an import without the tasks' contexts.
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
        episodes = [[dataset[i] for i in indices] for indices in chosen.values()]
        lengths = {len(episode) for group in episodes for episode in group}
        if lengths != {family.horizon}:
            raise DemokitError(
                f"{path}: demonstrations have {sorted(lengths)} steps, {family.name} needs "
                f"{family.horizon}: leave out episodes that ended early (`demokit filter`)."
            )
        observation = [[np.asarray(e.observations)[:-1] for e in group] for group in episodes]
        action = [[_labels(e.privileged, e.actions) for e in group] for group in episodes]
        return DemoSet(
            family,
            dataset.metadata.reward,
            tuple(group[0].task for group in episodes),
            torch.from_numpy(np.array(observation)),
            torch.from_numpy(np.array(action)),
            sum(record.length for record in dataset.episodes),
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


def _labels(privileged: Mapping[str, Array], actions: FloatArray) -> Array:
    """The expert's labels (T, A) where they were recorded, else the executed actions."""
    labels = privileged.get("expert_action")
    return actions if labels is None else labels[: len(actions)].astype(np.float32)
