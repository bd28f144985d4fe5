"""What is to be learned, and what a method is given to learn it with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
import torch

from demokit.data.metadata import ArraySpec, vision_space
from demokit.envs import make_family
from demokit.envs.family import Family
from demokit.envs.recorded import RecordedFamily, Shapes
from demokit.envs.schema import Schema
from demokit.envs.tasks import task_set_of
from demokit.envs.vision import Vision
from demokit.errors import DemokitError
from demokit.options import IMAGES, SIMULATION, require_effect
from demokit.random import stream
from demokit.types import Task
from gmps.distributed import WHOLE, Part
from gmps.experience.demos import DemoSet
from gmps.options import RunOptions
from gmps.progress import Report, unheard

if TYPE_CHECKING:
    from demokit.envs.batch import SimBatch
    from gmps.experience.sampler import Sampler

_UNDIVIDED, _EXPERTS = "not told apart", "experts"
_EXPERTS_TRAINING = "expert's training"
PARTS = (
    "demonstrations",
    _EXPERTS_TRAINING,
    "meta-training",
    _UNDIVIDED,
    "choice of step size",
    "monitoring",
)
"""What environment steps are spent on, in words."""

Options = TypeVar("Options", bound=RunOptions, covariant=True)


@dataclass(frozen=True)
class Problem:
    """Tasks of a family to learn from, what pays, and what is seen.

    Attributes:
        schema: what policies know of the tasks' family.
        reward: one of the family's, such as "dense".
        sees: "state", or the images that policies act from.
        tasks: the training tasks.
        recorded: what recordings say of a family that nothing here simulates; else None.
    """

    schema: Schema
    reward: str
    sees: str | Vision
    tasks: tuple[Task, ...]
    recorded: Shapes | None = None

    @classmethod
    def of(cls, demos: DemoSet) -> Problem:
        """What was demonstrated."""
        return cls.in_family(demos.family, demos.reward, demos.sees, demos.tasks)

    @classmethod
    def in_family(
        cls, family: Family, reward: str, sees: str | Vision, tasks: tuple[Task, ...]
    ) -> Problem:
        """Tasks of a family."""
        shapes = family.shapes if isinstance(family, RecordedFamily) else None
        return cls(family.schema, reward, sees, tasks, shapes)

    @property
    def simulated(self) -> bool:
        """Whether roll-outs can be had here."""
        return self.recorded is None

    def require_effect(self, options: RunOptions) -> None:
        """Raise DemokitError for an option that was changed and means nothing here."""
        given = {IMAGES: self.sees != "state", SIMULATION: self.simulated}
        require_effect(options, given)

    def require_simulation(self) -> None:
        """Raise DemokitError where no roll-outs can be had."""
        if isinstance(self.family, RecordedFamily):
            raise self.family.unsimulated()

    def require_states(self) -> None:
        """Raise DemokitError where images are seen."""
        if self.sees != "state":
            raise DemokitError(
                "Learning from reward alone acts from states, not from images: leave out "
                "--observation vision, or name a dataset of states."
            )

    def require_transitions(self) -> None:
        """Raise DemokitError where episodes have no step that leads to another."""
        if self.schema.horizon < 2:
            raise DemokitError(
                f"Episodes of {self.family_name} have one step, and this method learns from what "
                "one step leads to: take a horizon of 2 or more, or another --method."
            )

    @property
    def family_name(self) -> str:
        """Of the tasks."""
        return self.schema.name

    @cached_property
    def family(self) -> Family:
        """The task family, for who simulates it: acting takes the schema.

        Raises:
            DemokitError: there is none here, or it has changed since.
        """
        name, shapes = self.family_name, self.recorded
        family = make_family(name) if shapes is None else RecordedFamily(name, shapes)
        if family.schema != self.schema:
            raise DemokitError(f"It was trained on another model of {family.name}: train again.")
        return family

    @property
    def task_set(self) -> tuple[str, int]:
        """The task set that the training tasks are of, and the seed of its draws; else ("", 0)."""
        return task_set_of(self.family, self.tasks[0].id)

    @property
    def observation_space(self) -> dict[str, ArraySpec] | None:
        """That of datasets with such images; None, the family's own, for states."""
        return vision_space(self.family, self.sees) if isinstance(self.sees, Vision) else None

    def simulations(self, num: int, *, num_threads: int = 0) -> SimBatch:
        """So many of the family, as `make_sims` makes them."""
        from demokit.envs.batch import make_sims  # it simulates

        return make_sims(
            self.family,
            num,
            reward=self.reward,
            num_threads=num_threads,
            observation=self.sees,
        )

    def sampler(
        self, tasks: tuple[Task, ...], *, explore: int, mean: int = 0, **others: Any
    ) -> Sampler:
        """Roll-outs of tasks of the family; `others` are those of `Sampler`."""
        from gmps.experience.sampler import Sampler  # it simulates

        return Sampler(
            self.family, tasks, self.reward, explore=explore, mean=mean, sees=self.sees, **others
        )


@dataclass(frozen=True, eq=False)
class Training(Generic[Options]):
    """One training: what, with which options, and where.

    Attributes:
        problem: what is to be learned.
        options: the method's.
        demos: the demonstrations, on the device; None for methods that need none.
        device: where it computes.
        part: which of the tasks are this process's.
        folder: of the run.
        report: told how far it is.
    """

    problem: Problem
    options: Options
    demos: DemoSet | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    part: Part = WHOLE
    folder: Path = Path()
    report: Report = unheard

    @property
    def demonstrations(self) -> DemoSet:
        """The demonstrations, of a method that needs them."""
        if self.demos is None:
            raise DemokitError("This method learns from demonstrations: name them with --demos.")
        return self.demos

    def stream(self, *purpose: str | int) -> np.random.Generator:
        """Random numbers of this run for a purpose."""
        return stream(self.options.seed, *purpose)

    def require_batch(self, meta_batch: int) -> None:
        """Raise DemokitError where an iteration would draw more tasks than there are."""
        num = len(self.problem.tasks)
        if meta_batch > num:
            raise DemokitError(
                f"Option meta_batch draws {meta_batch} tasks of {num}: take fewer, or more --tasks."
            )

    def some_tasks(self, rng: np.random.Generator, num: int) -> list[int]:
        """Which training tasks an iteration takes, of all processes: so many; 0: all of them."""
        every = len(self.problem.tasks)
        return sorted(rng.choice(every, num or every, replace=False).tolist())

    def sampler(self, *, explore: int, mean: int = 0) -> Sampler:
        """Roll-outs of the training tasks, this process's part of them."""
        return self.problem.sampler(
            self.problem.tasks, explore=explore, mean=mean, part=self.part, device=self.device
        )

    def sampler_of(self, chosen: Sequence[int], *, explore: int, **others: Any) -> Sampler:
        """Roll-outs of some training tasks, this process's part; `others` are of `Sampler`."""
        return self.problem.sampler(
            tuple(self.problem.tasks[i] for i in chosen),
            explore=explore,
            part=self.part.world.part(len(chosen)),
            device=self.device,
            **others,
        )


@dataclass(frozen=True)
class Spent:
    """Environment steps that a run has taken, by what they were for.

    Attributes:
        demonstrations: of recording the whole dataset.
        meta_training: roll-outs that the method learned from, labelled ones among them.
        monitoring: what only watched it learn.
        tuning: of the choice of step sizes.
        experts: SHA-256 of each trained expert that demonstrated or answered -> its training.
        undivided: all but the experts' in one, of runs of demokit 0.1.
    """

    demonstrations: int = 0
    meta_training: int = 0
    monitoring: int = 0
    tuning: int = 0
    experts: Mapping[str, int] = field(default_factory=dict)
    undivided: int = 0

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Spent:
        """From a header, as `asdict` gives it; raises TypeError or ValueError."""
        steps: dict[str, Any] = {
            name: int(value) for name, value in content.items() if name != _EXPERTS
        }
        experts = {str(name): int(value) for name, value in dict(content[_EXPERTS]).items()}
        return replace(cls(**steps), experts=experts)

    @property
    def expert_training(self) -> int:
        """Of all experts."""
        return sum(self.experts.values())

    @property
    def needed(self) -> int:
        """What training could not have done without: the axis of sample efficiency.

        The choice of a step size for fine-tuning and what only watched stand beside it.
        """
        needed = self.demonstrations + self.expert_training + self.meta_training
        return needed + self.undivided

    def parts(self) -> dict[str, int]:
        """Environment steps by what they were for, those of `PARTS` that are told apart."""
        spent = (
            self.demonstrations,
            self.expert_training,
            self.meta_training,
            self.undivided,
            self.tuning,
            self.monitoring,
        )
        told = (_EXPERTS_TRAINING, _UNDIVIDED) if self.undivided else set(PARTS) - {_UNDIVIDED}
        return {what: steps for what, steps in zip(PARTS, spent, strict=True) if what in told}
