"""The protocol of a meta-learning method, and where methods are found.

A method trains a `MetaLearner`: four functions over a belief about tasks that nobody has met. It is
named by an entry point of the group "demokit.methods", so that it may come from another package.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self, TypeVar, runtime_checkable

from demokit.errors import DemokitError, unknown_name
from gmps.options import RunOptions

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor

    from gmps.experience.actor import Actor
    from gmps.experience.demos import Demonstrations
    from gmps.experience.rollouts import Rollouts
    from gmps.problem import Problem, Training

GROUP = "demokit.methods"
DEFAULT = "gmps"


class MetaLearner(Protocol):
    """What a training leaves: how to master a new task from its rewards and observations alone.

    It is frozen. A belief is about M tasks; what it is made of is the learner's own business, as
    long as a file can hold it: tensors (M, ...), in mappings or named tuples, see `gmps.beliefs`.
    """

    @property
    def episodes_per_step(self) -> int:
        """K, the episodes of a task that one adaptation step takes."""
        ...

    def begin(self, num_tasks: int) -> Any:
        """The belief about M tasks that nobody has met."""
        ...

    def explorer(
        self, belief: Any, step: int, num: int, rngs: Sequence[np.random.Generator]
    ) -> Actor:
        """Who gathers `num` episodes of each task for adaptation step 0, 1, ...

        `rngs` are those of the tasks, one each.
        """
        ...

    def adapt(self, belief: Any, step: int, gathered: Rollouts, memory: Any) -> Any:
        """The belief after a step: what the gathered episodes teach, and the explorer's memory."""
        ...

    def exploiter(self, belief: Any, num: int) -> Actor:
        """Who is judged, by its mean, in `num` episodes of each task."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """All of it that is tensors, by name; `Method.load` takes them back."""
        ...

    def header(self) -> dict[str, Any]:
        """All else, for JSON."""
        ...

    def to(self, device: torch.device) -> Self:
        """The same on a device."""
        ...


@runtime_checkable
class HasStepSize(Protocol):
    """A learner whose adaptation steps take a scalar step size, chosen on the training tasks.

    Attributes:
        step_size: the scalar; None until it is chosen.
        num_learned_steps: adaptation steps that have learned step sizes, and need no scalar.
        tuning_tasks: how many training tasks choose it; 0: all.
    """

    @property
    def step_size(self) -> float | None:
        """See above."""
        ...

    @property
    def num_learned_steps(self) -> int:
        """See above."""
        ...

    @property
    def tuning_tasks(self) -> int:
        """See above."""
        ...

    def with_step_size(self, value: float) -> Self:
        """The same with another scalar."""
        ...


@runtime_checkable
class HasStepScale(Protocol):
    """A learner all of whose adaptation steps can be made longer or shorter."""

    def scaled(self, factor: float) -> Self:
        """The same with every step size times a factor."""
        ...


@runtime_checkable
class IsTold(Protocol):
    """A learner that is told the context of the new task: what nobody else ever is.

    It says what knowing the task is worth. Evaluation tells it before it begins, and every table
    says so.
    """

    def told(self, contexts: Tensor) -> Self:
        """The same for M tasks with these contexts (M, C)."""
        ...


@runtime_checkable
class LearnsFromDemonstrations(Protocol):
    """A learner to whom a new task can be shown, before rewards or after."""

    def demonstrated(
        self, belief: Any, demonstrations: Demonstrations, rngs: Sequence[np.random.Generator]
    ) -> Any:
        """The belief after demonstrations of the tasks; `rngs` are those of the tasks."""
        ...


Learner = TypeVar("Learner", bound=MetaLearner)


def informed(learner: Learner, contexts: Tensor) -> Learner:
    """The learner, told the tasks' contexts (M, C) if it is one that is told."""
    return learner.told(contexts) if isinstance(learner, IsTold) else learner


def shown_to(
    learner: MetaLearner,
    belief: Any,
    demonstrations: Demonstrations,
    rngs: Sequence[np.random.Generator],
) -> Any:
    """The belief after demonstrations; raises DemokitError where they teach a learner nothing."""
    if not isinstance(learner, LearnsFromDemonstrations):
        raise DemokitError("This method learns a new task from rewards alone: show it none.")
    return learner.demonstrated(belief, demonstrations, rngs)


def ready_steps(learner: MetaLearner) -> int | None:
    """Adaptation steps that it can take while it has no step size; None: as many as one likes."""
    if isinstance(learner, HasStepSize) and learner.step_size is None:
        return learner.num_learned_steps
    return None


class Iteration(NamedTuple):
    """What one iteration of a training leaves.

    Attributes:
        learner: as it is now.
        scalars: for the log; the keys are the same every time.
        env_steps: environment steps that it learned from, in all processes.
        state: what the training needs besides the learner to go on bit for bit (an optimiser's).
        experts: SHA-256 of each trained expert that was asked -> environment steps of its training.
    """

    learner: MetaLearner
    scalars: Mapping[str, float]
    env_steps: int
    state: Mapping[str, Tensor]
    experts: Mapping[str, int] = MappingProxyType({})


class Code(Protocol):
    """What a method's module defines; it is imported when it is first needed."""

    def start(self, training: Training[Any]) -> MetaLearner:
        """The learner before training."""
        ...

    def train(
        self,
        training: Training[Any],
        learner: MetaLearner,
        state: Mapping[str, Tensor],
        first: int,
    ) -> Generator[Iteration]:
        """The algorithm: goes on from a learner and a state with iteration `first`.

        It yields after every iteration; whoever runs it logs, evaluates, saves and stops.
        """
        ...

    def load(
        self,
        problem: Problem,
        options: RunOptions,
        tensors: dict[str, Tensor],
        header: dict[str, Any],
    ) -> MetaLearner:
        """The learner of a checkpoint.

        The class that it says it returns is what plans go by before anything is trained, whether it
        can be shown demonstrations, say. `train` returns learners of that class, too.

        Raises:
            KeyError, TypeError, ValueError: they are none of this method's.
        """
        ...


@dataclass(frozen=True)
class Method:
    """A way of meta-learning: what an entry point names.

    Attributes:
        about: what it is, a phrase.
        source: the paper.
        adapts: how it learns a new task, a phrase.
        options: its dataclass, a `RunOptions`.
        module: the name of the module with its `Code`.
        imitates: whether it always needs demonstrations, not only their tasks.
        rolls_out: whether its training needs roll-outs, and so a simulation.
        fewest_tasks: training tasks without which there is nothing to learn.
        told: all that it is told in training, and of the new task besides rewards and
            observations, a phrase.
    """

    about: str
    source: str
    adapts: str
    options: type[RunOptions]
    module: str
    imitates: bool = False
    rolls_out: bool = True
    fewest_tasks: int = 2
    told: str = ""

    def needs_demos(self, options: RunOptions) -> bool:
        """Whether a run with these options needs demonstrations."""
        return self.imitates or options.imitates

    def told_with(self, options: RunOptions, *, images: bool) -> str:
        """All that a run with these options is told, of images or states, see `told`."""
        return "; ".join(filter(None, (self.told, options.told(images=images))))

    @property
    def code(self) -> Code:
        """Its functions."""
        found: Any = import_module(self.module)
        return found  # type: ignore[no-any-return]


@cache
def _entries() -> Mapping[str, EntryPoint]:
    return {entry.name: entry for entry in sorted(entry_points(group=GROUP), key=_by_name)}


def _by_name(entry: EntryPoint) -> str:
    return entry.name


def method_names() -> tuple[str, ...]:
    """The names of all methods that are installed."""
    return tuple(_entries())


def find_method(name: str) -> Method:
    """A method by its name.

    Raises:
        DemokitError: there is none, or what its package names is none.
    """
    if name not in _entries():
        raise unknown_name("method", name, method_names())
    found = _entries()[name].load()
    if not isinstance(found, Method):
        raise DemokitError(f"The entry point {name} of {GROUP} names no Method: mend its package.")
    return found
