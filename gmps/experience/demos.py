"""Demonstrations of all training tasks as tensors, ready for the outer loop."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from demokit import data  # its names are looked up, and HDF5 read, when it is asked
from demokit.data.labels import read_labels, require_advice
from demokit.envs import is_known, make_family
from demokit.envs.family import Family
from demokit.envs.recorded import RecordedFamily, Shapes
from demokit.envs.schema import Schema
from demokit.envs.vision import Vision
from demokit.errors import DemokitError
from demokit.options import AUTO, EXPERT
from demokit.types import Array, Episode, Task
from gmps.experience.observation import Observation, each
from gmps.options import RECORDED
from gmps.steps.losses import mean_weights

if TYPE_CHECKING:
    from gmps.problem import Problem

_MIN_SCALE = 1e-3


class DemoBatch(NamedTuple):
    """Demonstrated states and the expert's actions there.

    `observation` (D, ...), `action` (D, A), `object_position` (D, P), privileged, and `weight`
    (D,) of `mean_weights` for one task, with a leading axis M for all.
    """

    observation: Observation
    action: Tensor
    object_position: Tensor
    weight: Tensor

    def pooled(self) -> DemoBatch:
        """The demonstrations of all tasks as those of one, (M * D, ...)."""
        observation, *others = self
        return DemoBatch(
            each(lambda values: values.flatten(0, 1), observation),
            *(values.flatten(0, 1) for values in others),
        )


@dataclass(frozen=True, eq=False)
class DemoSet:
    """E demonstrations of at most T steps for each of M training tasks.

    Attributes:
        family, tasks: what was demonstrated.
        reward: what the inner loop is paid, one of the family's, such as "dense".
        sees: "state", or the images that were recorded.
        observation: (M, E, T, ...).
        action: (M, E, T, A), what they teach, see `read_labels`.
        executed: (M, E, T, A), the actions that were executed, noise and all.
        object_position: (M, E, T, P), of the object that the tasks move: privileged, it trains
            the eyes of image policies; P is 0 where it was not recorded.
        alive: (M, E, T) bool, the steps that were demonstrated; shorter episodes are filled up
            with steps that never count.
        num_recorded: how many of E were recorded; those behind them are aggregated roll-outs.
        num_steps: environment steps that recording the whole dataset took.
        experts: hash of each trained expert that acted -> environment steps of its training.
        expert: name of the expert behind the demonstrations; empty where there were several.
        path: where they were read.
    """

    family: Family
    reward: str
    tasks: tuple[Task, ...]
    sees: str | Vision
    observation: Observation
    action: Tensor
    executed: Tensor
    object_position: Tensor
    alive: Tensor
    num_recorded: int
    num_steps: int
    experts: Mapping[str, int] = field(default_factory=dict)
    expert: str = ""
    path: str = ""

    def digest(self) -> str:
        """SHA-256 of what was demonstrated, in hexadecimal; of demonstrations on the CPU."""
        found = sha256(repr(self.tasks).encode())
        seen = self.observation
        parts = [seen] if isinstance(seen, Tensor) else list(seen.values())
        for values in (*parts, self.action, self.alive):
            found.update(values.contiguous().numpy().data)
        return found.hexdigest()

    def to(self, device: torch.device) -> DemoSet:
        """The same on a device."""
        return self._changed(lambda values: values.to(device))

    def of_tasks(self, own: slice) -> DemoSet:
        """Those of some of the tasks, in a row; no copy."""
        return replace(self._changed(lambda values: values[own]), tasks=self.tasks[own])

    def _changed(self, change: Callable[[Tensor], Tensor]) -> DemoSet:
        return replace(
            self,
            observation=each(change, self.observation),
            action=change(self.action),
            executed=change(self.executed),
            object_position=change(self.object_position),
            alive=change(self.alive),
        )

    def all(self) -> DemoBatch:
        """Every demonstration, (M, E * T, ...)."""
        return self._chosen(slice(None))

    def sample(self, rng: np.random.Generator, per_task: int, labelled: float = 1.0) -> DemoBatch:
        """`per_task` demonstrations of every task, all when there are no more (Alg. 2, line 8).

        At most the share `labelled` of them are roll-outs that were aggregated.
        """
        available, limit = self.action.shape[1], labelled * per_task
        if labelled < 1:
            limit = min(limit, self.num_recorded * labelled / (1 - labelled))
        if available <= per_task and available - self.num_recorded <= limit:
            return self.all()
        drawn = rng.permutation(available)
        aggregated = drawn >= self.num_recorded
        allowed = ~aggregated | (np.cumsum(aggregated) <= limit)
        return self._chosen(torch.from_numpy(drawn[allowed][:per_task]))

    def _chosen(self, episodes: slice | Tensor) -> DemoBatch:
        return DemoBatch(
            each(lambda values: values[:, episodes].flatten(1, 2), self.observation),
            self.action[:, episodes].flatten(1, 2),
            self.object_position[:, episodes].flatten(1, 2),
            mean_weights(self.alive[:, episodes].flatten(1, 2)),
        )

    def aggregated(self, episodes: Sequence[Episode]) -> DemoSet:
        """D* with labelled roll-outs added: as many for each task, in the order of the tasks."""
        labels = [episode.privileged["expert_action"][:-1] for episode in episodes]
        added = stacked(self.family, episodes, labels, len(self.tasks))
        steps = max(self.alive.shape[2], added.alive.shape[2])

        def joined(before: Tensor, after: Tensor) -> Tensor:
            after = _filled_up(after.to(before.device), steps)
            return torch.cat((_filled_up(before, steps), after), 1)

        return replace(
            self,
            observation=each(joined, self.observation, added.observation),
            action=joined(self.action, added.action),
            executed=joined(self.executed, added.executed),
            object_position=joined(self.object_position, added.object_position),
            alive=joined(self.alive, added.alive),
            num_steps=self.num_steps + sum(len(episode) for episode in episodes),
        )

    def statistics(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and scale (...,) of demonstrated values (M, E, T, ...); no scale is near 0."""
        flat = values[self.alive]
        return flat.mean(0), flat.std(0).clamp_min(_MIN_SCALE)

    def object_columns(self) -> slice:
        """The columns of state observations that hold what `object_position` does."""
        columns = _columns(self.family)
        if columns is None:
            raise self.unknown_object()
        return columns

    def unknown_object(self) -> DemokitError:
        """The error for what needs the object's position, where nothing says it."""
        return DemokitError(
            f"The object of {self.family.name}, {self.family.object_term}, is not observed: "
            "radial baselines and exploration need it."
        )


def load_demos(
    path: str | Path, demos_per_task: int = 0, reward: str = RECORDED, labels: str = AUTO
) -> DemoSet:
    """Read the first `demos_per_task` training demonstrations of every task.

    Args:
        path: a file or a Minari id.
        demos_per_task: E; 0: as many as every task has.
        reward: what the inner loop is paid; by default what the demonstrations were.
        labels: what the demonstrations teach, see `read_labels`.

    Raises:
        DemokitError: no training episodes, a task with too few of them, an import without
            the tasks' contexts, a reward that the family has not, or steps without the
            labels that are asked for.
    """
    with data.open_dataset(path) as dataset:
        chosen = _choose(dataset, demos_per_task)
        family = family_of(dataset)
        indices = [i for several in chosen.values() for i in several]
        episodes = [dataset[i] for i in indices]
        experts = {dataset.metadata.expert_of(i) for i in indices}
        return DemoSet(
            family,
            family.checked_reward(dataset.metadata.reward if reward == RECORDED else reward),
            tuple(dataset.episodes[several[0]].task for several in chosen.values()),
            observed_in(dataset),
            *stacked(family, episodes, _labels(dataset, indices, labels), len(chosen)),
            len(episodes) // len(chosen),
            sum(record.length for record in dataset.episodes),
            dataset.metadata.trained_experts(),
            experts.pop() if len(experts) == 1 else "",
            str(path),
        )


def recorded_episodes(demos: DemoSet) -> tuple[list[Episode], str]:
    """The recorded episodes of a set, task by task, whole, and which reward they were paid."""
    with data.open_dataset(demos.path) as dataset:
        chosen = _choose(dataset, demos.num_recorded)
        episodes = [dataset[i] for several in chosen.values() for i in several]
        return episodes, dataset.metadata.reward


def demonstrations_of(path: str | Path, problem: Problem) -> tuple[Task, Demonstrations]:
    """All that a dataset shows of its one task, whatever its split.

    Args:
        path: a file or a Minari id.
        problem: of the policy that is to learn from it.

    Raises:
        DemokitError: it shows several tasks, or what that policy neither sees nor does.
    """
    with data.open_dataset(path) as dataset:
        tasks = {record.task.id: record.task for record in dataset.episodes}
        if len(tasks) != 1:
            raise DemokitError(
                f"{dataset.path} shows {len(tasks)} tasks, and what is adapted to is one: take it "
                "out with demokit filter --task."
            )
        _require_alike(dataset, problem)
        indices = list(range(len(dataset.episodes)))
        labels = _labels(dataset, indices, AUTO)
        episodes = [dataset[i] for i in indices]
        return next(iter(tasks.values())), stacked(problem.family, episodes, labels, 1)


def _require_alike(dataset: data.Dataset, problem: Problem) -> None:
    """Raise DemokitError unless a dataset is of the family, and shows what its policies see."""
    if dataset.metadata.family != problem.family_name:
        raise DemokitError(
            f"{dataset.path} shows {dataset.metadata.family}, the policy is one of "
            f"{problem.family_name}."
        )
    if observed_in(dataset) != problem.sees:
        raise DemokitError(
            f"{dataset.path} holds other observations than the policy sees: record "
            f"--observation {'state' if problem.sees == 'state' else 'vision'} as in training."
        )
    _require_shapes(dataset, problem.schema)


def family_of(dataset: data.Dataset) -> Family:
    """The family of a dataset; of one that nothing here simulates, what its recordings say.

    Raises:
        DemokitError: it is not known, and cannot be imitated as it is.
    """
    about = dataset.metadata
    if is_known(about.family) or about.provenance.restorable:
        family = make_family(about.family)
        _require_shapes(dataset, family.schema)
        if not family.restorable:
            _require_fit(dataset, family)
        return family
    seen, width = about.observation_space, len(about.tasks[0].context)
    if isinstance(seen, Mapping) or len(seen.shape) != 1:
        raise DemokitError(
            f"{dataset.path} holds observations of '{about.family}' that are several arrays or "
            "pictures: without a simulation, one vector is learned from."
        )
    shapes = Shapes(about.horizon, seen.shape[0], about.action_space.shape[0], width)
    return RecordedFamily(about.family, shapes)


def _require_shapes(dataset: data.Dataset, schema: Schema) -> None:
    """Raise DemokitError unless a dataset holds what policies of its family see and do."""
    about = dataset.metadata
    if observed_in(dataset) == "state":
        space = about.observation_space
        seen = () if isinstance(space, Mapping) else space.shape
        _require_shape(dataset, schema.name, "observations", seen, schema.width)
    _require_shape(dataset, schema.name, "actions", about.action_space.shape, len(schema.actions))


def _require_shape(
    dataset: data.Dataset, family: str, what: str, found: tuple[int, ...], width: int
) -> None:
    if found != (width,):
        raise DemokitError(
            f"{dataset.path} holds {what} of the shape {found}, and {family} has {(width,)}: it "
            "was recorded in another environment of that name."
        )


def _require_fit(dataset: data.Dataset, family: Family) -> None:
    """Raise DemokitError unless a dataset holds what its family is told, and its actions."""
    for task in dataset.metadata.tasks:
        what, shape = f"a context of {task.id}", np.shape(task.context)
        _require_shape(dataset, family.name, what, shape, family.context.width)
    _require_range(dataset, family)


def _require_range(dataset: data.Dataset, family: Family) -> None:
    """Raise DemokitError where a dataset says that its actions mean others than the family's."""
    from demokit.envs.own import OwnFamily  # it simulates

    stated = dataset.metadata.provenance.action_range
    if stated is None or not isinstance(family, OwnFamily):
        return
    if not (np.allclose(stated.low, family.low) and np.allclose(stated.high, family.high)):
        raise DemokitError(
            f"{dataset.path} keeps actions from {stated.low.tolist()} to {stated.high.tolist()}, "
            f"and {family.name} takes {family.low.tolist()} to {family.high.tolist()}: record it "
            "with the range of the environment."
        )


def tasks_of(dataset: data.Dataset) -> list[Task]:
    """The training tasks of a dataset; raises DemokitError."""
    return [dataset.episodes[several[0]].task for several in _choose(dataset, 0).values()]


def _choose(dataset: data.Dataset, demos_per_task: int) -> dict[str, list[int]]:
    """Task id -> indices of its first `demos_per_task` training episodes."""
    about = dataset.metadata
    if not about.knows_contexts and is_known(about.family):
        raise DemokitError(
            f"{dataset.path} does not say the contexts of its tasks: {dataset.metadata.family} "
            "cannot be simulated in them."
        )
    found: dict[str, list[int]] = defaultdict(list)
    for record in dataset.episodes:
        if record.task.split == "train":
            found[record.task.id].append(record.index)
    if not found:
        raise DemokitError(f"{dataset.path} holds no training episodes: record --split train.")
    fewest = min(found, key=lambda task: len(found[task]))
    available = len(found[fewest])
    if available < demos_per_task:
        raise DemokitError(
            f"{dataset.path}: task {fewest} has {available} demonstrations, "
            f"{demos_per_task} are asked for: record more, or lower --demos-per-task."
        )
    return {task: indices[: demos_per_task or available] for task, indices in found.items()}


def observed_in(dataset: data.Dataset) -> str | Vision:
    """What a policy that learns from this dataset sees, as `make_sims` takes it."""
    space = dataset.metadata.observation_space
    if not isinstance(space, Mapping):
        return "state"
    return Vision.of_shapes({name: spec.shape for name, spec in space.items()}) or "state"


class Demonstrations(NamedTuple):
    """E episodes of each of M tasks as tensors (M, E, T, ...), see `DemoSet`."""

    observation: Observation
    action: Tensor
    executed: Tensor
    object_position: Tensor
    alive: Tensor

    def of_tasks(self, own: slice) -> Demonstrations:
        """Those of some tasks."""
        seen, *others = self
        return Demonstrations(each(lambda values: values[own], seen), *(v[own] for v in others))


def stacked(
    family: Family, episodes: Sequence[Episode], labels: Sequence[Array], num_tasks: int
) -> Demonstrations:
    """Episodes of `num_tasks` tasks, as many of each, task by task; `labels` (T, A) they teach."""
    lengths = torch.tensor([len(episode) for episode in episodes])

    def stack(values: Sequence[Array]) -> Tensor:
        rows = [_single(v[:n]) for v, n in zip(values, lengths.tolist(), strict=True)]
        tensors = [torch.from_numpy(each_row) for each_row in rows]
        padded = pad_sequence(tensors, batch_first=True)
        return padded.view(num_tasks, len(values) // num_tasks, *padded.shape[1:])

    seen = [episode.observations for episode in episodes]
    names = seen[0].keys() if isinstance(seen[0], Mapping) else ()
    alive = torch.arange(int(lengths.max())) < lengths[:, None]
    return Demonstrations(
        {name: stack([np.asarray(each_seen[name]) for each_seen in seen]) for name in names}
        or stack([np.asarray(each_seen) for each_seen in seen]),
        stack(labels),
        stack([episode.actions.astype(np.float32) for episode in episodes]),
        stack([_object_position(family, episode) for episode in episodes]),
        alive.view(num_tasks, -1, alive.shape[1]),
    )


def _single(rows: Array) -> Array:
    """Numbers of double precision, as imports may keep them, in the single one of policies."""
    return rows.astype(np.float32, copy=False) if rows.dtype.kind == "f" else rows


def _object_position(family: Family, episode: Episode) -> Array:
    """Where the object is in every state, (T + 1, P) float32; P is 0 where nothing says it."""
    columns = _columns(family)
    if isinstance(episode.observations, np.ndarray) and columns is not None:
        return episode.observations[:, columns]
    unknown = np.zeros((len(episode) + 1, 0))
    return np.asarray(episode.privileged.get(family.object_term, unknown), np.float32)


def _columns(family: Family) -> slice | None:
    """The columns of the object's position in state observations."""
    start = 0
    for term in family.observation_terms:
        if term.name == family.object_term:
            return slice(start, start + term.width)
        start += term.width
    return None


def _filled_up(values: Tensor, steps: int) -> Tensor:
    """Values (M, E, T, ...) with zeros behind, to T = `steps`."""
    missing = values.new_zeros(*values.shape[:2], steps - values.shape[2], *values.shape[3:])
    return torch.cat((values, missing), 2)


def _labels(dataset: data.Dataset, indices: Sequence[int], kind: str) -> list[Array]:
    """What the episodes teach, (T, A) each."""
    if kind == EXPERT:
        require_advice(dataset, indices)
    lengths = [dataset.episodes[i].length for i in indices]
    return [
        read_labels(dataset, i, 0, steps, kind).action
        for i, steps in zip(indices, lengths, strict=True)
    ]
