"""A family of which there are recordings, and nothing here that simulates it, such as a robot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from demokit.envs.family import ContextSpace, Family, Term, Terms, Views
from demokit.errors import DemokitError
from demokit.types import Array, FloatArray

if TYPE_CHECKING:
    import mujoco
    from mujoco.batch import Batch

_LARGEST = 2**20


@dataclass(frozen=True)
class Shapes:
    """All that recordings say of a family: how long episodes are, and how wide the rest is.

    Raises:
        DemokitError: they are no sizes.
    """

    horizon: int
    observation_width: int
    num_actions: int
    context_width: int

    def __post_init__(self) -> None:
        """Check that they are sizes of something that there is."""
        sizes = (self.horizon, self.observation_width, self.num_actions, self.context_width)
        if not all(isinstance(size, int) and 0 < size <= _LARGEST for size in sizes):
            raise DemokitError(f"A family cannot have the sizes {sizes}.")


class RecordedFamily(Family):
    """A family that can be imitated, and acted in by whoever has it; all else is refused.

    Args:
        name: as the recordings have it.
        shapes: of these.
    """

    object_term = ""
    restorable = False

    def __init__(self, name: str, shapes: Shapes) -> None:
        self.shapes = shapes
        width, none = shapes.context_width, (0.0,) * shapes.context_width
        contexts = tuple(f"context {i}" for i in range(width))
        observed = Term("observation", shapes.observation_width, "1", "none", "observation")
        # Constants of the class in other families.
        self.__dict__.update(
            name=name,
            horizon=shapes.horizon,
            actions=tuple(f"action {i}" for i in range(shapes.num_actions)),
            context=ContextSpace(contexts, ("1",) * width, none, none),
            terms=(observed,),
            model_hash="",
        )

    def make_sims(self, num_sims: int, **options: Any) -> NoReturn:  # noqa: ARG002
        """Raise DemokitError: nothing simulates it."""
        raise self.unsimulated()

    def spec(self) -> mujoco.MjSpec:
        """Raise DemokitError, as all that follows."""
        raise self.unsimulated()

    def views(self, sims: Batch) -> Views:  # noqa: ARG002
        """See `spec`."""
        raise self.unsimulated()

    def start(self, noise: FloatArray) -> Views:  # noqa: ARG002
        """See `spec`."""
        raise self.unsimulated()

    def control(self, views: Views, action: FloatArray) -> Views:  # noqa: ARG002
        """See `spec`."""
        raise self.unsimulated()

    def read(self, views: Views) -> Terms:  # noqa: ARG002
        """See `spec`."""
        raise self.unsimulated()

    def reward_dense(self, terms: Terms, context: FloatArray, action: FloatArray) -> FloatArray:  # noqa: ARG002
        """See `spec`."""
        raise self.unsimulated()

    def reward_sparse(self, terms: Terms, context: FloatArray, action: FloatArray) -> FloatArray:  # noqa: ARG002
        """See `spec`."""
        raise self.unsimulated()

    def success(self, terms: Terms, context: FloatArray) -> Array:  # noqa: ARG002
        """See `spec`."""
        raise self.unsimulated()

    def unsimulated(self) -> DemokitError:
        """The error for what needs a simulation."""
        return DemokitError(
            f"Nothing here simulates '{self.name}', of which there are recordings alone: "
            "--method imitation and replay learn from these. Where a module of yours does: demokit "
            f"--import {self.name if ':' in self.name else 'MODULE'}."
        )
