"""The policy: what the expert of a task would do, given transitions that were met in it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple, Self

import torch
from torch import Tensor
from torch.nn.functional import linear

from demokit.learning.distributions import Gaussian
from demokit.learning.networks import Params, init_mlp
from gmps.experience.actor import Seen
from gmps.experience.transitions import Transitions, newest, newly_met, repeated
from gmps.policies.meta_params import section
from gmps.policies.transformer import Cache, Transformer


class Units(NamedTuple):
    """What makes numbers about 0 and 1: `mean`, `scale` and `change` (O,) of observations and of
    how they change in a step, `reward` (2,), the mean and the scale of rewards.
    """

    mean: Tensor
    scale: Tensor
    change: Tensor
    reward: Tensor


@dataclass(frozen=True, eq=False)
class ContextPolicy:
    """A transformer: tokens are transitions, queries are observations.

    Source: the decision-pretrained transformer (Lee et al., 2023).

    Attributes:
        body: the transformer.
        units: of what it sees.
        action_width: A.
    """

    body: Transformer
    units: Units
    action_width: int

    def init(self, rng: torch.Generator | None) -> Params:
        """Fresh parameters theta, by name: "token.", "query.", "body.", "action."."""
        seen, width = len(self.units.mean), self.body.width
        parts = {
            "token": init_mlp(rng, (2 * seen + self.action_width + 1, width)),
            "query": init_mlp(rng, (seen, width)),
            "body": self.body.init(rng),
            "action": init_mlp(rng, (width, self.action_width)),
        }
        return {f"{part}.{n}": value for part, own in parts.items() for n, value in own.items()}

    def unroll(self, theta: Params, context: Transitions, seen: Tensor, place: Tensor) -> Tensor:
        """Mean actions (B, Q, A) for observations (B, Q, O), each behind `place` (B, Q) tokens."""
        tokens, queries = self._tokens(theta, context), self._queries(theta, seen)
        found = self.body.unroll(section(theta, "body."), tokens, context.counts, queries, place)
        return _linear(theta, "action", found)

    def begin(self, theta: Params, context: Transitions, room: int) -> Cache:
        """What a context says, with room for so many transitions more."""
        tokens = self._tokens(theta, context)
        return self.body.begin(section(theta, "body."), tokens, context.counts, room)

    def step(self, theta: Params, cache: Cache, num: int, new: Transitions, seen: Tensor) -> Tensor:
        """Mean actions (B, A) for observations (B, O) behind `num` places of a cache and new
        transitions (B, S, ...), which are put into it; S is 0 or 1.
        """
        tokens, query = self._tokens(theta, new), self._queries(theta, seen)
        found = self.body.step(section(theta, "body."), cache, num, tokens, new.counts, query)
        return _linear(theta, "action", found)

    def _tokens(self, theta: Params, context: Transitions) -> Tensor:
        units, change = self.units, (context.after - context.before) / self.units.change
        reward = (context.reward - units.reward[0]) / units.reward[1]
        parts = (self._standard(context.before), change, context.action, reward[..., None])
        return _linear(theta, "token", torch.cat(parts, -1))

    def _queries(self, theta: Params, seen: Tensor) -> Tensor:
        return _linear(theta, "query", self._standard(seen))

    def _standard(self, seen: Tensor) -> Tensor:
        return (seen - self.units.mean) / self.units.scale

    def to(self, device: torch.device) -> Self:
        """The same with its constants on a device."""
        return replace(self, units=Units(*(value.to(device) for value in self.units)))


class Walk(NamedTuple):
    """What an episode under way remembers: the cache, how many places of it count, and the
    observation (B, O) and who was alive (B,) in the step before.
    """

    cache: Cache
    num: int
    before: Tensor
    alive: Tensor


class ContextActor:
    """Acts in `num` episodes of each task; what an episode has met so far counts, too.

    Args:
        policy: the pure functions.
        theta: their parameters.
        context: of M tasks; it stays as it is.
        num: K.
        room: transitions of an episode that there are places for.
        stride: every so many of its transitions are kept.
        std: of its actions.
    """

    def __init__(
        self,
        policy: ContextPolicy,
        theta: Params,
        context: Transitions,
        num: int,
        room: int,
        stride: int,
        std: float,
    ) -> None:
        with torch.no_grad():
            cache = policy.begin(theta, repeated(context, num), room)
        places = cache.met.shape[1] - room
        nothing = context.before.new_zeros(len(cache.met), len(policy.units.mean))
        self.memory = Walk(cache, places, nothing, cache.met[:, 0])
        self._policy, self._theta, self._stride, self._std = policy, theta, stride, std

    def __call__(self, memory: Walk, seen: Seen) -> tuple[Gaussian, Walk]:
        """See `Actor`. The cache is written to in place, behind what counted at the first step."""
        assert isinstance(seen.observation, Tensor)
        now = seen.observation.flatten(0, 1)
        new = self._new(memory, seen)
        mean = self._policy.step(self._theta, memory.cache, memory.num, new, now)
        num = memory.num + new.weight.shape[1]
        memory = Walk(memory.cache, num, now, seen.alive.flatten())
        return Gaussian(mean.view(*seen.alive.shape, -1), mean.new_full((), self._std)), memory

    def _new(self, memory: Walk, seen: Seen) -> Transitions:
        """The transition of the step before, (B, 1, ...), or none, (B, 0, ...)."""
        is_kept = seen.t > 0 and (seen.t - 1) % self._stride == 0
        has_room = memory.num < memory.cache.met.shape[1]  # none behind the horizon
        return newest(newly_met(memory.before, memory.alive, seen), int(is_kept and has_room))


def _linear(theta: Params, name: str, x: Tensor) -> Tensor:
    return linear(x, theta[f"{name}.0.weight"].mT, theta[f"{name}.0.bias"])
