"""A gradient step of PEARL on the transitions of many tasks at once.

Soft actor-critic is that of `demokit.learning.sac` with a network of state values (2018a): alpha
is 1, and rewards are scaled. Tasks are an axis of every tensor: a layer is one product for all of
them. m tasks, B transitions of each, N of the context.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from demokit.learning.checkpoint import check_state
from demokit.learning.networks import Params
from demokit.learning.optimizer import optimizer_tensors, restore_optimizer
from demokit.learning.sac import bellman_target, critic_loss, polyak, soft_value, value_loss
from gmps.distributed import Part
from gmps.experience.replay import Replay, Steps
from gmps.methods.pearl.networks import (
    ACTOR,
    CRITIC,
    ENCODER,
    VALUE,
    Parts,
    PearlNetworks,
    named,
    under,
)
from gmps.methods.pearl.options import PearlOptions
from gmps.methods.pearl.posterior import divergence
from gmps.policies.meta_params import section

LOSSES = "critic_loss", "divergence", "value_loss", "actor_loss", "log_prob"
_SLOW, _JUDGING, _ACTING = "slow", "judging", "acting"


class Batch(NamedTuple):
    """What a gradient step is made on.

    `context` (m, N, ...) and `steps` (m, B, ...) of tasks; standard normal `latent_noise` (m, Z)
    and `action_noise` (m, B, A).
    """

    context: Steps
    steps: Steps
    latent_noise: Tensor
    action_noise: Tensor

    @classmethod
    def drawn(
        cls,
        replay: Replay,
        nets: PearlNetworks,
        options: PearlOptions,
        rng: torch.Generator,
        part: Part,
    ) -> Batch:
        """Tasks at random, and of each some of its context and some of all of its steps."""
        num, device = options.meta_batch, rng.device
        tasks = torch.randint(len(replay.count), (num,), generator=rng, device=device)
        chances = [
            torch.rand(num, each, generator=rng, device=device, dtype=torch.float64)
            for each in (options.context, options.batch)
        ]
        shapes = (nets.latent_width,), (options.batch, nets.action_width)
        noise = [torch.randn(num, *shape, generator=rng, device=device) for shape in shapes]
        tasks, *drawn = (values[part.own] for values in (tasks, *chances, *noise))
        return cls(
            replay.contexts(tasks, drawn[0]), replay.transitions(tasks, drawn[1]), *drawn[2:]
        )


@dataclass(frozen=True, eq=False)
class Learning:
    """All that gradient steps change, in place.

    Attributes:
        nets: the pure functions.
        parts: parameters of encoder, actor, critics and state values.
        slow: a slow copy of the latter.
        judging: Adam of encoder and critics; `acting`: of actor and state values.
    """

    nets: PearlNetworks
    parts: Parts
    slow: Params
    judging: torch.optim.Adam
    acting: torch.optim.Adam

    @classmethod
    def of(cls, nets: PearlNetworks, theta: Parts, judges: Parts, rate: float) -> Learning:
        """Of networks that have seen no gradient step."""
        parts = {
            part: {n: value.detach().clone().requires_grad_() for n, value in own.items()}
            for part, own in {**theta, **judges}.items()
        }
        slow = {n: value.detach().clone() for n, value in judges[VALUE].items()}
        adams = (_adam(parts, several, rate) for several in ((ENCODER, CRITIC), (ACTOR, VALUE)))
        return cls(nets, parts, slow, *adams)

    @property
    def theta(self) -> Parts:
        """What a new task needs, as copies: encoder and actor."""
        needed = {n: self.parts[n] for n in (ENCODER, ACTOR)}
        return {n: {k: v.detach().clone() for k, v in own.items()} for n, own in needed.items()}

    def tensors(self) -> dict[str, Tensor]:
        """All but `theta`, by name."""
        own = {n: self.parts[n] for n in (CRITIC, VALUE)} | {_SLOW: self.slow}
        adams = {_JUDGING: self.judging, _ACTING: self.acting}
        return named({**own, **{n: optimizer_tensors(adam) for n, adam in adams.items()}})

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """The inverse of `tensors`, in place; raises DemokitError for what is none of it."""
        own = {n: self.parts[n] for n in (CRITIC, VALUE)} | {_SLOW: self.slow}
        found = {part: section(tensors, f"{part}.") for part in own}
        judges = {n: torch.zeros(v.shape, dtype=v.dtype) for n, v in named(own).items()}
        check_state(named(found), lambda: judges)
        with torch.no_grad():
            for part, values in own.items():
                for n, value in values.items():
                    value.copy_(found[part][n])
        restore_optimizer(self.judging, section(tensors, f"{_JUDGING}."))
        restore_optimizer(self.acting, section(tensors, f"{_ACTING}."))


def update(learning: Learning, batch: Batch, options: PearlOptions, part: Part) -> Tensor:
    """One gradient step of everything (Algorithm 1), in place; returns `LOSSES`, (5,).

    The encoder learns from the critics' errors and from the divergence, and from nothing else: the
    latent is stopped where actor and state values learn (section 5).
    """
    nets, parts = learning.nets, learning.parts
    steps, one = batch.steps, torch.ones((), device=batch.action_noise.device)
    # 1. The posterior given the context, and a latent of it.
    mean, variance = nets.evidence(parts[ENCODER], *batch.context[:4]).gaussian()
    latent = mean + variance.sqrt() * batch.latent_noise
    from_prior = divergence(mean, variance).mean()
    states = under(latent, steps.observation)
    # 2. Critics and encoder. The authors halve no squares: the divergence counts against them.
    with torch.no_grad():
        next_value = nets.value(learning.slow, under(latent, steps.next_observation))
        factor = options.discount * ~steps.ended
        wanted = bellman_target(options.reward_scale * steps.paid, factor, next_value)
    error = 2 * critic_loss(parts[CRITIC], nets.sac, states, steps.action, wanted)
    weight = options.kl_weight * options.meta_batch  # a sum over tasks
    judged = _stepped(learning.judging, error + weight * from_prior, (error, from_prior), part)
    # 3. State values and actor, the latent stopped, by the critics as they are now.
    states = states.detach()
    critics = {n: value.detach() for n, value in parts[CRITIC].items()}
    outputs = nets.actor(parts[ACTOR], states)
    known = nets.sac._replace(actor=lambda *_: outputs)
    value, log_prob = soft_value(known, {}, critics, one, states, batch.action_noise)
    valued = value_loss(parts[VALUE], nets.value, states, value.detach())
    small = sum((out.square().mean() for out in outputs), torch.zeros_like(one))
    acted = options.output_weight * small - value.mean()
    told = valued, acted, log_prob.mean()
    others = _stepped(learning.acting, valued + acted, told, part)
    # 4. The slow copy of state values follows.
    with torch.no_grad():
        polyak(learning.slow, parts[VALUE], options.tau)
    return torch.cat((judged, others))


def _stepped(
    optimizer: torch.optim.Adam, loss: Tensor, told: tuple[Tensor, ...], part: Part
) -> Tensor:
    """A step down a mean over the own tasks, as over all; returns the same of what is `told`."""
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    leaves = optimizer.param_groups[0]["params"]
    found = part.averaged(leaves, torch.stack(told).detach())
    optimizer.step()
    return found


def _adam(parts: Parts, several: tuple[str, ...], rate: float) -> torch.optim.Adam:
    """Of some networks; the order of its parameters is that of their names."""
    own = named({n: parts[n] for n in several})
    return torch.optim.Adam([own[n] for n in sorted(own)], lr=rate, fused=True)
