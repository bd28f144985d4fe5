"""Data aggregation: the adapted policies act, the expert says what it would have done.

Algorithm 1, lines 8-10. The labelled roll-outs are a dataset of their own, like any other: who
acted at each step, in which round, with which theta.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import torch

from demokit import data
from demokit.collect import collect
from demokit.data.labels import DAGGER
from demokit.errors import DemokitError
from demokit.experts import load_adviser, training_of
from demokit.protocols import Decision, Expert
from demokit.types import Array, Episode
from demokit.types import Observation as Observed
from gmps.experience.actor import Actor, Seen
from gmps.experience.demos import DemoSet
from gmps.experience.observation import each, from_numpy
from gmps.experience.rollouts import Gathered
from gmps.method import MetaLearner
from gmps.methods.gmps.options import GuidedOptions
from gmps.problem import Training
from gmps.steps.advantage import paid_alike

AGGREGATED = "aggregated.hdf5"


class AdaptedPolicies:
    """An action source: an actor's actions are sampled, the expert labels every step.

    Args:
        actor: acts in M x E simulations, one task after the other; rewards do not reach it.
        shape: M, E.
        expert: answers the queries.
        share: of each task (M,), probability with which the expert itself acts in a step.
        rngs: of each task: action noise, and who acts.
        device: where the actor computes.
    """

    name = DAGGER

    def __init__(
        self,
        actor: Actor,
        shape: tuple[int, int],
        expert: Expert,
        share: Array,
        rngs: Sequence[np.random.Generator],
        device: torch.device,
    ) -> None:
        self._actor, self._shape, self._expert = actor, shape, expert
        self._share, self._rngs, self._device = share, rngs, device
        self._memory, self._steps = actor.memory, 0
        self._before: torch.Tensor | None = None

    @torch.no_grad()
    def decide(self, observation: Observed, privileged: Mapping[str, Array]) -> Decision:
        """See `ActionSource`."""
        label = self._expert.act(observation, privileged)
        one_task = self._shape[1], label.shape[1]
        noise = np.stack([rng.standard_normal(one_task, np.float32) for rng in self._rngs])
        own = self._sampled(observation, torch.from_numpy(noise).to(self._device))
        drawn = np.stack([rng.random(one_task[0]) for rng in self._rngs])
        by_expert = (drawn < self._share[:, None]).flatten()
        return Decision(np.where(by_expert[:, None], label, own), label, by_expert)

    def _sampled(self, observation: Observed, noise: torch.Tensor) -> Array:
        """Actions (M * E, A) of the actor."""
        by_task = each(
            lambda values: values.view(*self._shape, *values.shape[1:]),
            from_numpy(observation, self._device),
        )
        before = torch.zeros_like(noise) if self._before is None else self._before
        unpaid = torch.zeros_like(noise[..., 0])
        seen = Seen(self._steps, by_task, before, unpaid, torch.ones_like(unpaid, dtype=torch.bool))
        dist, self._memory = self._actor(self._memory, seen)
        self._before, self._steps = dist.sample(noise), self._steps + 1
        sampled: Array = self._before.flatten(0, 1).cpu().numpy()
        return sampled


class Queries:
    """Rounds of expert queries of one run, and the dataset that they fill; none without `dagger`.

    Args:
        training: whose options name the expert; the dataset is aggregated.hdf5 in its folder. All
            processes keep what all have collected, the first one writes it.
        first: the iteration to go on with.
    """

    def __init__(self, training: Training[GuidedOptions], first: int) -> None:
        self._training, self._first = training, first
        self._written = 0
        self._writer: data.DatasetWriter | None = None
        if not training.options.dagger:
            return
        options, problem, part = training.options, training.problem, training.part
        self._expert = load_adviser(options.expert, problem.family_name)
        self._episodes = options.dagger_episodes
        self._per_round = len(problem.tasks) * self._episodes
        self._tasks = [task for task in problem.tasks[part.own] for _ in range(self._episodes)]
        threads = part.world.simulation_threads
        self._sims = problem.simulations(len(self._tasks), num_threads=threads)
        if part.world.is_main:
            resume = first > 0
            self._writer = data.DatasetWriter(
                self.path, self._described(), resume=resume, overwrite=not resume
            )

    @property
    def path(self) -> Path:
        """Of the dataset."""
        return self._training.folder / AGGREGATED

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: object, __: TracebackType | None
    ) -> None:
        """Assemble the dataset, unless something went wrong: then it is there to go on with."""
        if self._training.options.dagger:
            self._sims.close()
        if self._writer is None:
            return
        if len(self._writer) and kind in (None, GeneratorExit):
            self._writer.finish()
        self._writer.close()

    @property
    def asked(self) -> dict[str, int]:
        """SHA-256 of the expert -> the steps of its training, once it has been asked."""
        trained = training_of(self._expert) if self._written else None
        return {trained["sha256"]: trained["env_steps"]} if trained else {}

    def asks_in(self, iteration: int) -> bool:
        """Whether the expert is asked in this iteration, see `is_round`."""
        options = self._training.options
        return options.dagger and is_round(iteration, options.dagger_every)

    def round(
        self, learner: MetaLearner, demos: DemoSet, explored: Gathered, iteration: int
    ) -> DemoSet:
        """One round: adapt on the roll-outs of theta, roll out, label, aggregate."""
        options, part = self._training.options, self._training.part
        round_index = iteration // options.dagger_every
        source = self._source(learner, explored, round_index)
        rng = self._training.stream("dagger starts", iteration)
        seeds = rng.integers(2**31, size=(len(demos.tasks), self._episodes))[part.own]
        episodes = collect(
            self._sims,
            source,
            self._tasks,
            [int(seed) for seed in seeds.flatten()],
            recorder=source.name,
            options=[{"round": round_index, "iteration": iteration}] * len(self._tasks),
        )
        episodes = part.world.gathered(episodes)
        self._save(episodes)
        return demos.aggregated(episodes)

    def restored(self, demos: DemoSet) -> DemoSet:
        """D* as it was when the first iteration began, from the dataset of a resumed run."""
        if not (self._training.options.dagger and self._first):
            return demos
        earlier = self._training.part.world.from_main(self._earlier)
        self._written = len(earlier)
        for start in range(0, len(earlier), self._per_round):
            demos = demos.aggregated(earlier[start : start + self._per_round])
        return demos

    def _source(
        self, learner: MetaLearner, explored: Gathered, round_index: int
    ) -> AdaptedPolicies:
        rollouts, shape = explored.rollouts, (len(explored.success), self._episodes)
        belief = learner.begin(shape[0])
        phi = learner.adapt(belief, 0, rollouts, explored.memory)  # A1: 8
        mixed = expert_share(round_index, self._training.options.dagger_mixing)
        # Paid alike: theta itself would act there, which sees no task; the same states, labelled by
        # the experts of all tasks, would pull it to the mean. The expert acts alone.
        share = np.where(paid_alike(rollouts.reward).cpu(), 1.0, mixed)
        rng = self._training.stream("dagger", round_index)
        rngs = rng.spawn(len(self._training.problem.tasks))[self._training.part.own]
        actor = learner.exploiter(phi, self._episodes)
        return AdaptedPolicies(actor, shape, self._expert, share, rngs, self._training.device)

    def _described(self) -> data.DatasetMetadata:
        problem, expert = self._training.problem, self._expert
        seed, trained = self._training.options.seed, training_of(expert)
        return data.describe(
            problem.family,
            reward=problem.reward,
            task_set="aggregated",
            tasks=problem.tasks,
            observation_space=problem.observation_space,
            description="States visited by adapted meta-policies, labelled by the expert.",
            provenance=data.Provenance(DAGGER, expert.name, 0.0, seed, trained=trained),
        )

    def _earlier(self) -> list[Episode]:
        """What was saved before the first iteration."""
        with data.open_dataset(self.path) as dataset:
            saved = [dataset[i] for i in range(len(dataset))]
        earlier = [e for e in saved if int(e.options["iteration"]) < self._first]
        rounds = sum(map(self.asks_in, range(self._first)))
        if len(earlier) != rounds * self._per_round:
            raise DemokitError(
                f"{self.path} holds {len(earlier)} labelled episodes, and the checkpoint was made "
                f"with {rounds * self._per_round}: bring the file back, or start another run."
            )
        return earlier

    def _save(self, episodes: list[Episode]) -> None:
        """Write the episodes; a resumed run collects some again that are saved already."""
        for episode in episodes:
            if self._writer is not None and self._written >= len(self._writer):
                self._writer.add(episode)
            self._written += 1


def is_round(iteration: int, every: int) -> bool:
    """Whether the expert is asked in this iteration: every so many, but not about a fresh theta."""
    return iteration > 0 and iteration % every == 0


def expert_share(round_index: int, mixing: float) -> float:
    """Share of steps the expert takes in round 1, 2, ...: `mixing ** round` (DAgger's beta_i)."""
    return mixing**round_index
