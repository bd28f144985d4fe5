"""Task inference: a posterior over the task, from everything that was seen of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from demokit.learning.networks import Params
from gmps.experience.demos import Demonstrations
from gmps.experience.rollouts import Rollouts
from gmps.experience.transitions import Transitions, flat, joined, none_met
from gmps.methods.inference.actor import Eyes, Path, SeekingActor, met_on
from gmps.methods.inference.models import Models
from gmps.methods.inference.options import InferenceOptions
from gmps.methods.inference.policy import Imitation, Shown, spread
from gmps.methods.inference.posterior import (
    CANDIDATES,
    NEAR,
    NEAR_TRAINED,
    PARTICLES,
    PRIOR_STD,
    Evidence,
    Likelihood,
    Posterior,
    infer,
)
from gmps.methods.inference.space import TaskSpace
from gmps.policies.gaussian import LATENT, GaussianActor, GaussianPolicy, replicate
from gmps.policies.standard import policy_tensors

EXPLORING_STD = 0.02


class Belief(NamedTuple):
    """What is believed of M tasks: everything seen so far, and the posterior it leaves."""

    seen: Evidence
    posterior: Posterior

    @property
    def is_fresh(self) -> bool:
        """Whether nothing was seen."""
        return self.seen.is_nothing

    @property
    def code(self) -> Tensor:
        """The most likely code (M, R)."""
        return self.posterior.best


class Draws(NamedTuple):
    """Randomness of L looks at K episodes: candidates (M, L, C, R), and Gumbel noise.

    The noise is (M, L, C) among candidates that move, (M, L, K, P + C) among codes that are tried.
    """

    codes: Tensor
    gumbel: Tensor
    tries: Tensor

    def of_look(self, look: int) -> tuple[Tensor, Tensor]:
        """Candidates and noise of look 0, 1, ... or -1, the last one."""
        return self.codes[:, look], self.gumbel[:, look]


@dataclass(frozen=True, eq=False)
class TaskInference:
    """Episodes follow codes that the posterior holds possible; the most likely one is judged.

    Attributes:
        policy: the pure functions; `theta` their parameters.
        space: the task space.
        models: of rewards and of changes of state, and of what following a code earns if it is the
            task's.
        action_variance: (A,), of what imitation leaves unexplained.
        horizon: steps of an episode.
        options: how it seeks.
    """

    policy: GaussianPolicy
    theta: Params
    space: TaskSpace
    models: Models
    action_variance: Tensor
    horizon: int
    options: InferenceOptions

    @property
    def episodes_per_step(self) -> int:
        """See `MetaLearner`."""
        return self.options.rollouts_per_task

    @property
    def eyes(self) -> Eyes:
        """How it sees."""
        return Eyes(self.policy, self.theta)

    def begin(self, num_tasks: int) -> Belief:
        """Nothing met: the mean of the training tasks is as good as any."""
        codes = torch.zeros(num_tasks, 1, self.space.width)
        nothing = codes[..., 0]
        state, action = len(self.eyes.modelled(self.policy.feature_mean)), self.policy.action_width
        met = none_met((num_tasks, 0), state, action)
        shapes = (len(self.policy.feature_mean),), (action,), ()
        shown = Shown(*(torch.zeros(num_tasks, 0, *shape) for shape in shapes))
        return Belief(Evidence(met, shown), Posterior(codes, nothing, nothing))

    def explorer(
        self, belief: Belief, step: int, num: int, rngs: Sequence[np.random.Generator]
    ) -> SeekingActor:
        """Every episode follows a draw of its own, and others when it has seen more."""
        moves = self._moves(self.options.moves)
        drawn = [self._draws(rng, len(moves) + 1, num) for rng in rngs]
        draws = Draws(*(torch.stack(part) for part in zip(*drawn, strict=True)))

        def look(index: int, met: Transitions) -> Tensor:
            found = self._within(belief, met, *draws.of_look(index))
            tried = self._tried(found, 1, draws.tries[:, index].flatten(0, 1))
            return self.space.latent(tried.view(-1, num, self.space.width))

        code = self._first(belief, num, rngs)
        return SeekingActor(self.eyes, self.space.latent(code), moves, look, draws, EXPLORING_STD)

    def exploiter(self, belief: Belief, num: int) -> GaussianActor:
        """The policy under the most likely code."""
        latent = self.space.latent(belief.code)
        return GaussianActor(self.policy, {**replicate(self.theta, len(latent)), LATENT: latent})

    @torch.no_grad()
    def adapt(self, belief: Belief, step: int, gathered: Rollouts, memory: Path) -> Belief:
        """The posterior given what these episodes met, too."""
        now = met_on(memory)._replace(reward=gathered.reward[:, :, :-1])
        seen = belief.seen._replace(met=joined(belief.seen.met, flat(now)))
        return Belief(seen, self._posterior(belief, seen, *memory.draws.of_look(-1)))

    @torch.no_grad()
    def demonstrated(
        self, belief: Belief, demonstrations: Demonstrations, rngs: Sequence[np.random.Generator]
    ) -> Belief:
        """The posterior given what somebody did there, too: who acts as the policy would."""
        features = self.eyes.features(demonstrations.observation)
        weight = demonstrations.alive.to(features.dtype)
        steps = (values.flatten(1, 2) for values in (features, demonstrations.action, weight))
        seen = belief.seen
        seen = seen._replace(shown=joined(seen.shown, Shown(*steps)))
        draws = [self._draws(rng, 1, 1)[:2] for rng in rngs]
        codes, gumbel = (torch.cat(part) for part in zip(*draws, strict=True))
        return Belief(seen, self._posterior(belief, seen, codes, gumbel))

    @property
    def likelihood(self) -> Likelihood:
        """Of codes, given what was seen."""
        imitation = Imitation(self.policy, self.theta, self.space, self.action_variance)
        models, options = self.models, self.options
        return Likelihood(models.rewards, models.changes, imitation, options.temper, options.ascent)

    def _posterior(
        self, belief: Belief, seen: Evidence, codes: Tensor, gumbel: Tensor
    ) -> Posterior:
        """Of drawn candidates, and of what was likely before."""
        if not belief.is_fresh:
            codes = torch.cat((belief.posterior.codes[:, :PARTICLES], codes[:, PARTICLES:]), 1)
        return infer(self.likelihood, seen, codes, gumbel)

    def _within(self, belief: Belief, met: Transitions, codes: Tensor, gumbel: Tensor) -> Posterior:
        """Of M * K episodes that have met (M, K, N, ...)."""
        num = met.weight.shape[1]
        own = Transitions(*(values.flatten(0, 1) for values in met))
        before = belief.seen.map(partial(repeated, num=num))
        likely = Posterior(*(repeated(values, num) for values in belief.posterior))
        seen = before._replace(met=joined(before.met, own))
        draws = repeated(codes, num), repeated(gumbel, num)
        return self._posterior(Belief(before, likely), seen, *draws)

    def _first(self, belief: Belief, num: int, rngs: Sequence[np.random.Generator]) -> Tensor:
        """Codes (M, K, R) that the next episodes begin with.

        Before anything was met, codes of training tasks.
        """
        if belief.is_fresh:
            rows = np.stack([rng.integers(len(self.space.codes), size=num) for rng in rngs])
            return self.space.codes[torch.from_numpy(rows)]
        size = belief.posterior.codes.shape[1]
        return self._tried(belief.posterior, num, torch.stack([_gumbel(r, size) for r in rngs]))

    def _tried(self, posterior: Posterior, num: int, gumbel: Tensor) -> Tensor:
        """Codes (M, K, R): draws of the posterior by noise (M, C), the best of some."""
        codes, log_likelihood, prior = posterior
        noisy = log_likelihood + prior + gumbel
        choices = max(1, min(self.options.optimism, codes.shape[1] // num))
        order = noisy.sort(1, descending=True).indices
        order = order[:, torch.arange(choices * num) % codes.shape[1]]
        drawn = order[..., None].expand(-1, -1, codes.shape[-1])
        drawn = codes.gather(1, drawn).view(len(codes), -1, num, codes.shape[-1]).transpose(1, 2)
        best = self.models.earned(drawn).argmax(-1)[..., None, None]
        chosen: Tensor = drawn.gather(2, best.expand(*best.shape[:-1], drawn.shape[-1]))[:, :, 0]
        return chosen

    def _moves(self, wanted: int) -> list[int]:
        """The steps at which an episode looks again: no more than it has."""
        num = min(wanted, self.horizon - 1)
        return [round(self.horizon * i / (num + 1)) for i in range(1, num + 1)]

    def _draws(
        self, rng: np.random.Generator, looks: int, num: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """`Draws` of one task: candidates lie about the prior and about training tasks."""
        wide = PRIOR_STD * spread(rng, looks, CANDIDATES - NEAR_TRAINED, self.space.width)
        rows = torch.from_numpy(rng.integers(len(self.space.codes), size=(looks, NEAR_TRAINED)))
        near = NEAR * spread(rng, looks, NEAR_TRAINED, self.space.width)
        codes = torch.cat((wide, self.space.codes[rows] + near), 1)
        tries = _gumbel(rng, looks, num, PARTICLES + CANDIDATES)
        return codes, _gumbel(rng, looks, CANDIDATES), tries

    def tensors(self) -> dict[str, Tensor]:
        """See `MetaLearner`."""
        parts = {"theta": self.theta, "space": self.space.tensors()}
        parts["models"] = self.models.tensors()
        named = {f"{part}.{name}": v for part, own in parts.items() for name, v in own.items()}
        own = {"action_variance": self.action_variance}
        return {**named, **policy_tensors(self.policy), **own}

    def header(self) -> dict[str, Any]:
        """See `MetaLearner`."""
        return {}

    def to(self, device: torch.device) -> Self:
        """See `MetaLearner`."""
        return replace(
            self,
            policy=self.policy.to(device),
            theta={name: value.to(device) for name, value in self.theta.items()},
            space=self.space.to(device),
            models=self.models.to(device),
            action_variance=self.action_variance.to(device),
        )


def _gumbel(rng: np.random.Generator, *shape: int) -> Tensor:
    return torch.from_numpy(rng.gumbel(size=shape).astype(np.float32))


def repeated(values: Tensor, num: int) -> Tensor:
    """Values (M, ...) of tasks for each of their episodes, (M * K, ...)."""
    return values.repeat_interleave(num, 0)
