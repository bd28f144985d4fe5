"""Data aggregation: the adapted policies act, the expert says what it would have done.

Algorithm 1, lines 6-11. The labelled roll-outs are a dataset of their own, like any other: who
acted at each step, in which round, with which theta.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from demokit.collect import collect
from demokit.data import ArraySpec, DatasetWriter, Provenance, describe, open_dataset
from demokit.data.labels import DAGGER
from demokit.data.metadata import DatasetMetadata, vision_space
from demokit.envs.batch import make_sims
from demokit.envs.vision import Vision
from demokit.errors import DemokitError
from demokit.experts import load_adviser, training_of
from demokit.learning.networks import Params
from demokit.protocols import Decision, Expert
from demokit.types import Array, Episode
from demokit.types import Observation as Seen
from gmps.distributed import WHOLE, Part
from gmps.evaluation import adapted
from gmps.experience.demos import DemoSet
from gmps.experience.observation import from_numpy
from gmps.experience.sampler import Rollouts, replicate
from gmps.methods.gmps.learner import Learned
from gmps.runs.folder import AGGREGATED
from gmps.steps.advantage import paid_alike


def is_round(iteration: int, every: int) -> bool:
    """Whether the expert is asked in this iteration: every so many, but not about a fresh theta."""
    return iteration > 0 and iteration % every == 0


def expert_share(round_index: int, mixing: float) -> float:
    """Share of steps the expert takes in round 1, 2, ...: `mixing ** round` (DAgger's beta_i)."""
    return mixing**round_index


class AdaptedPolicies:
    """An action source: phi_m acts in the simulations of task m, the expert labels every step.

    Args:
        learned: the policy.
        phi: adapted parameters with a leading axis M.
        episodes: E, simulations per task, one task after the other.
        expert: answers the queries.
        share: of each task (M,), probability with which the expert itself acts in a step.
        rngs: of each task: action noise, and who acts.
    """

    name = DAGGER

    def __init__(
        self,
        learned: Learned,
        phi: Params,
        episodes: int,
        expert: Expert,
        share: Array,
        rngs: Sequence[np.random.Generator],
    ) -> None:
        self._learned = learned
        self._phi, self._episodes = phi, episodes
        self._expert, self._share, self._rngs = expert, share, rngs

    @torch.no_grad()
    def decide(self, observation: Seen, privileged: Mapping[str, Array]) -> Decision:
        """See `ActionSource`."""
        label = self._expert.act(observation, privileged)
        policy, theta = self._learned.policy, self._learned.meta.theta
        features = policy.encode(theta, from_numpy(observation, theta["log_std"].device))
        dist = torch.func.vmap(policy.dist)(
            self._phi, features.view(-1, self._episodes, features.shape[-1])
        )
        each = self._episodes, label.shape[1]
        noise = np.stack([rng.standard_normal(each, np.float32) for rng in self._rngs])
        std = dist.std.unsqueeze(1).expand_as(dist.mean)
        sampled = dist.mean + std * torch.from_numpy(noise).to(std.device)
        own = sampled.flatten(0, 1).cpu().numpy()
        drawn = np.stack([rng.random(each[0]) for rng in self._rngs])
        by_expert = (drawn < self._share[:, None]).flatten()
        return Decision(np.where(by_expert[:, None], label, own), label, by_expert)


class Aggregation:
    """Rounds of expert queries of one run, and the dataset that they fill.

    Args:
        demos: what is aggregated to.
        folder: of the run; the dataset is written to aggregated.hdf5 there.
        learned: the policy; its configuration names the expert.
        part: whose tasks this process rolls out. All keep what all have collected, the first
            process writes it.
        resume: go on with the dataset in the folder.
    """

    def __init__(
        self, demos: DemoSet, folder: Path, learned: Learned, part: Part = WHOLE, *, resume: bool
    ) -> None:
        config = learned.config
        self._path, self._part = folder / AGGREGATED, part
        self.expert = load_adviser(config.expert, learned.family_name)
        self._episodes, self._every = config.dagger_episodes, config.dagger_every
        self._per_round = len(demos.tasks) * self._episodes
        self._tasks = [task for task in demos.tasks[part.own] for _ in range(self._episodes)]
        self._sims = make_sims(
            learned.family,
            len(self._tasks),
            reward=demos.reward,
            num_threads=part.world.simulation_threads,
            observation=demos.sees,
        )
        self._written = 0
        self._writer: DatasetWriter | None = None
        if part.world.is_main:
            described = self._described(demos, config.seed)
            self._writer = DatasetWriter(self._path, described, resume=resume, overwrite=not resume)

    def _described(self, demos: DemoSet, seed: int) -> DatasetMetadata:
        expert = self.expert
        return describe(
            demos.family,
            reward=demos.reward,
            task_set="aggregated",
            tasks=demos.tasks,
            observation_space=_space(demos),
            description="States visited by adapted meta-policies, labelled by the expert.",
            provenance=Provenance(DAGGER, expert.name, 0.0, seed, trained=training_of(expert)),
        )

    def round(
        self,
        learned: Learned,
        demos: DemoSet,
        rollouts: Rollouts,
        iteration: int,
        rng: np.random.Generator,
    ) -> DemoSet:
        """One round: adapt on the roll-outs of theta, roll out, label, aggregate."""
        theta = replicate(learned.meta.theta, len(rollouts.reward))
        phi = adapted(learned, theta, learned.step_sizes(0), rollouts)  # A1: 8
        round_index = iteration // learned.config.dagger_every
        mixed = expert_share(round_index, learned.config.dagger_mixing)
        # Paid alike: theta itself would act there, which sees no task; the same states, labelled by
        # the experts of all tasks, would pull it to the mean. The expert acts alone.
        share = np.where(paid_alike(rollouts.reward).cpu(), 1.0, mixed)
        num, own = len(demos.tasks), self._part.own
        rngs = rng.spawn(num)[own]  # how many numbers a task draws changes no other's
        source = AdaptedPolicies(learned, phi, self._episodes, self.expert, share, rngs)
        seeds = rng.integers(2**31, size=(num, self._episodes))[own]
        episodes = collect(
            self._sims,
            source,
            self._tasks,
            [int(seed) for seed in seeds.flatten()],
            recorder=source.name,
            options=[{"round": round_index, "iteration": iteration}] * len(self._tasks),
        )
        episodes = self._part.world.gathered(episodes)
        self._save(episodes)
        return demos.aggregated(episodes)

    def restored(self, demos: DemoSet, iteration: int) -> DemoSet:
        """D* as it was when `iteration` began, from the dataset of a run that is resumed."""
        earlier = self._part.world.from_main(lambda: self._earlier(iteration))
        self._written = len(earlier)
        for start in range(0, len(earlier), self._per_round):
            demos = demos.aggregated(earlier[start : start + self._per_round])
        return demos

    def finish(self) -> None:
        """Assemble the dataset."""
        if self._writer is None:
            return
        if len(self._writer):
            self._writer.finish()
        self._writer.close()

    def _earlier(self, iteration: int) -> list[Episode]:
        """What was saved before an iteration."""
        with open_dataset(self._path) as dataset:
            saved = [dataset[i] for i in range(len(dataset))]
        earlier = [e for e in saved if int(e.options["iteration"]) < iteration]
        rounds = sum(is_round(before, self._every) for before in range(iteration))
        if len(earlier) != rounds * self._per_round:
            raise DemokitError(
                f"{self._path} holds {len(earlier)} labelled episodes, and the checkpoint was made "
                f"with {rounds * self._per_round}: bring the file back, or start another run."
            )
        return earlier

    def _save(self, episodes: list[Episode]) -> None:
        """Write the episodes; a resumed run collects some again that are saved already."""
        if self._writer is None:
            return
        for episode in episodes:
            if self._written >= len(self._writer):
                self._writer.add(episode)
            self._written += 1


def _space(demos: DemoSet) -> dict[str, ArraySpec] | None:
    """The space of images; None, the family's own, for states."""
    if isinstance(demos.sees, Vision):
        return vision_space(demos.family, demos.sees)
    return None
