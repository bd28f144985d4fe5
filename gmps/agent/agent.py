"""A trained policy in any loop: acts on observations, and begins trials of tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from os import PathLike
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np
import torch

from demokit.errors import DemokitError
from demokit.policies import CHECKPOINT
from demokit.protocols import Agent
from demokit.random import stream
from demokit.types import FloatArray, Task
from demokit.writing import explain_write
from gmps.agent.acting import Acting
from gmps.agent.trial import NewTask
from gmps.experience.demos import demonstrations_of
from gmps.experience.sight import Sight
from gmps.method import IsTold, MetaLearner, ready_steps, shown_to
from gmps.options import MOST_ROLLOUTS
from gmps.runs.checkpoint import Adapted, Trained, load, require_acts, save


class TrainedAgent(Agent):
    """See `demokit.protocols.Agent`; the docstrings are those of the protocol.

    Args:
        trained: a run, and what it knows of a task if it was adapted to one.
    """

    def __init__(self, trained: Trained) -> None:
        self.trained = trained
        self.sight = Sight.of(trained.problem.schema, trained.problem.sees)
        self._acting: Acting | None = None

    @property
    def method(self) -> str:
        return self.trained.method

    @property
    def family(self) -> str:
        return self.trained.problem.family_name

    @property
    def observation_shapes(self) -> Mapping[str, tuple[int, ...]]:
        return self.sight.shapes

    @property
    def action_names(self) -> tuple[str, ...]:
        return self.trained.problem.schema.actions

    @property
    def horizon(self) -> int:
        return self.trained.problem.schema.horizon

    @property
    def episodes_per_step(self) -> int:
        return self.trained.learner.episodes_per_step

    @property
    def steps(self) -> int:
        return self.trained.adapted.steps if self.trained.adapted else 0

    @property
    def episodes(self) -> int:
        return self.trained.adapted.episodes if self.trained.adapted else 0

    @cached_property
    def learner(self) -> MetaLearner:
        """Whose beliefs these are; told the task's context, if it is one that is told."""
        learner, known = self.trained.learner, self.trained.adapted
        return known.told(learner) if known else learner

    @cached_property
    def belief(self) -> Any:
        """About the one task, M = 1; raises DemokitError where it must be told what to believe."""
        if self.trained.adapted:
            return self.trained.adapted.belief
        self._require_context(None)
        return self.learner.begin(1)

    def act(self, observation: Any, *, reward: Any = None) -> FloatArray:
        seen, batched = self.sight.read(observation)
        num = len(seen if isinstance(seen, torch.Tensor) else next(iter(seen.values())))
        if self._acting is None or self._acting.num != num:
            with torch.no_grad():
                actor = self.learner.exploiter(self.belief, num)
            self._acting = Acting(actor, num, len(self.action_names))
        if reward is not None:
            self._acting.paid(reward)
        action = self._acting(seen)
        return action if batched else action[0]

    def reset(self) -> None:
        self._acting = None

    def new_task(
        self,
        *,
        steps: int | None = None,
        episodes: int | None = None,
        rollouts: int | None = None,
        context: Sequence[float] | None = None,
        seed: int = 0,
    ) -> NewTask:
        self._require_context(context)
        told = None if context is None else tuple(map(float, context))
        fresh = replace(self.trained, adapted=Adapted.begun(self.trained.learner, told))
        agent = TrainedAgent(fresh)
        return agent.same_task(steps=steps, episodes=episodes, rollouts=rollouts, seed=seed)

    def same_task(
        self,
        *,
        steps: int | None = None,
        episodes: int | None = None,
        rollouts: int | None = None,
        seed: int = 0,
    ) -> NewTask:
        require_whole("seed", seed)
        return NewTask(self, *self.plan(steps, episodes, rollouts), seed)

    def shown(self, demonstrations: str | PathLike[str], *, seed: int = 0) -> TrainedAgent:
        return self.shown_task(demonstrations, seed)[1]

    def shown_task(
        self, demonstrations: str | PathLike[str], seed: int
    ) -> tuple[Task, TrainedAgent]:
        """The task of demonstrations, and what `shown` returns."""
        task, demos = demonstrations_of(Path(demonstrations), self.trained.problem)
        rngs, agent = [stream(seed, "demonstrations", task.id)], self.in_task(task.context)
        belief = shown_to(agent.learner, agent.belief, demos, rngs)
        return task, agent.knowing(belief, 0, 0)

    def plan(
        self, steps: int | None, episodes: int | None, rollouts: int | None
    ) -> tuple[int, int]:
        """How many steps are to be taken, and of how many episodes each; see `Agent.new_task`."""
        for name, value in (("steps", steps), ("episodes", episodes), ("rollouts", rollouts)):
            require_whole(name, value)
        num = self.episodes_per_step if rollouts is None else rollouts
        fewest = min(2, self.episodes_per_step)  # one alone teaches what compares them nothing
        if num < fewest:
            raise DemokitError(
                f"A step of {self.method} takes {fewest} episodes or more, not {num}."
            )
        if num > MOST_ROLLOUTS:
            raise DemokitError(f"A step takes {MOST_ROLLOUTS} episodes at most, not {num}.")
        taken = self._steps(steps, episodes, num)
        ready = ready_steps(self.trained.learner)
        if ready is not None and self.steps + taken > ready:
            if not self.trained.problem.simulated:
                raise DemokitError(
                    f"This run has no step size to adapt with, as nothing simulates {self.family} "
                    "to choose one: train with --step-size."
                )
            raise DemokitError(
                "This run is not finished, its step size has not been chosen: continue it with "
                "meta-train --resume."
            )
        return taken, num

    def in_task(self, context: Sequence[float]) -> TrainedAgent:
        """The same, told this task if it is one that is told.

        Raises:
            DemokitError: it was told another.
        """
        if not isinstance(self.trained.learner, IsTold):
            return self
        known = self.trained.adapted
        if known is None:
            return self.new_task(steps=0, context=context).adapted()
        if known.context != tuple(map(float, context)):
            raise DemokitError(
                f"This policy was told the task {_numbers(known.context)}, and this is "
                f"{_numbers(context)}: take the run that it came from."
            )
        return self

    def streams(self, seed: int) -> Callable[[int], np.random.Generator]:
        """The random numbers of adaptation step 0, 1, ... of a trial."""
        return partial(stream, seed, "trial", self.trained.options.seed)

    def knowing(self, belief: Any, steps: int, episodes: int) -> TrainedAgent:
        """The same with another belief, after so many more steps and episodes."""
        known = self.trained.adapted
        context = known.context if known else None
        adapted = Adapted(belief, self.steps + steps, self.episodes + episodes, context)
        return TrainedAgent(replace(self.trained, adapted=adapted))

    def save(self, path: str | PathLike[str], *, overwrite: bool = False) -> None:
        target, known = Path(path), self.trained.adapted
        require_own(target)
        if target.exists() and not overwrite:
            raise DemokitError(f"{target} exists: name another file, or say overwrite=True.")
        if known is not None:
            require_acts(known, self.trained.learner, self.trained.problem)
        advice = "save to another file."
        with explain_write(target, advice):
            target.parent.mkdir(parents=True, exist_ok=True)
        save(target, replace(self.trained, best=None), {}, advice)

    def _steps(self, steps: int | None, episodes: int | None, num: int) -> int:
        """Adaptation steps, of `num` episodes each."""
        if steps is not None and episodes is not None:
            raise DemokitError("Name steps or episodes, not both.")
        if episodes is None:
            steps = 1 if steps is None else steps
            if steps < 0:
                raise DemokitError(f"{steps} steps cannot be taken: name 0 or more.")
            return steps
        if episodes < 0 or episodes % num:
            raise DemokitError(
                f"A step of {self.method} takes {num} episodes here: {episodes} are not whole "
                f"steps, name a multiple of {num}, or rollouts of a step."
            )
        return episodes // num

    def _require_context(self, context: Sequence[float] | None) -> None:
        """Raise DemokitError unless this is what the method is told of a task."""
        space = self.trained.problem.tasks[0].context
        if not isinstance(self.trained.learner, IsTold):
            if context is not None:
                raise DemokitError(
                    f"{self.method} is told no context, it learns the task from rewards: leave "
                    "the context out."
                )
        elif context is None:
            raise DemokitError(
                f"{self.method} is told the task: begin with new_task(context=...), "
                f"{len(space)} numbers that say which it is."
            )
        elif not _is_context(context, len(space)):
            raise DemokitError(
                f"The context of a task of {self.family} are {len(space)} finite numbers, not "
                f"{context!s:.80}."
            )


def _is_context(given: object, width: int) -> bool:
    """Whether it is so many numbers that float32 holds."""
    try:
        values = np.asarray(given)
    except ValueError:
        return False
    with np.errstate(over="ignore"):
        fits = values.dtype.kind in "fiu" and values.shape == (width,)
        return fits and bool(np.isfinite(values.astype(np.float32)).all())


def require_own(path: Path) -> None:
    """Raise DemokitError for the checkpoint of a training: no policy is saved in its place."""
    if path.resolve().name == CHECKPOINT:
        raise DemokitError(f"{path} has the name of a training's checkpoint: name another file.")


def _numbers(context: Sequence[float] | None) -> str:
    return ",".join(f"{number!r:.40}" for number in context or ())


def require_whole(name: str, value: object) -> None:
    """Raise DemokitError unless an argument is a whole number, or None."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, SupportsIndex)):
        raise DemokitError(f"{name} is a whole number, not {value!r:.80}.")


def load_policy(path: Path) -> TrainedAgent:
    """See `demokit.load_policy`."""
    return TrainedAgent(load(path, adapted=True)[0])
