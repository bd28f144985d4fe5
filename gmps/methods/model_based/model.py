"""A model of changes of state and of rewards whose parameters depend on what was met last.

Parameters that have adapted are those of B networks, (B, in, out) and (B, 1, out): one for each
simulation. So a step of gradient descent, and what a memory says, come to the same thing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor

from demokit.learning.networks import Params, init_mlp
from gmps.experience.transitions import Transitions
from gmps.experience.units import own_where_alike
from gmps.policies.meta_params import MetaParams

GRADIENT, MEMORY, NONE = "gradient", "memory", "none"
ADAPTATIONS = (GRADIENT, MEMORY, NONE)
Paid: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Rewards (B, N) for reaching states (B, N, F) by actions (B, N, A)."""
_LAYERS = 3
_LEAST_SCALE = 1e-4
_UNITS = ("state_mean", "state_scale", "change_mean", "change_scale", "reward_mean", "reward_scale")


@dataclass(frozen=True, eq=False)
class Units:
    """In what units the network sees and predicts.

    Means and scales (F,) of states and of their changes, and (1,) of rewards.
    """

    state_mean: Tensor
    state_scale: Tensor
    change_mean: Tensor
    change_scale: Tensor
    reward_mean: Tensor
    reward_scale: Tensor

    @classmethod
    def fresh(cls, width: int) -> Units:
        """Those of nothing."""
        zeros, ones = torch.zeros, torch.ones
        return cls(zeros(width), ones(width), zeros(width), ones(width), zeros(1), ones(1))

    @classmethod
    def of(cls, met: Transitions) -> Units:
        """Of transitions (N, ...) that all count."""
        every = met.before, met.after - met.before, met.reward[:, None]
        return cls(*(part for values in every for part in (values.mean(0), _scale(values))))

    def tensors(self) -> dict[str, Tensor]:
        """By name."""
        return {name: getattr(self, name) for name in _UNITS}

    @classmethod
    def of_tensors(cls, tensors: Mapping[str, Tensor]) -> Units:
        """The inverse of `tensors`; raises KeyError."""
        return cls(*(tensors[name] for name in _UNITS))

    def to(self, device: torch.device) -> Units:
        """The same on a device."""
        return Units(*(value.to(device) for value in self.tensors().values()))

    def seen(self, state: Tensor, action: Tensor) -> Tensor:
        """What the network is given (..., F + A)."""
        return torch.cat(((state - self.state_mean) / self.state_scale, action), -1)

    def goal(self, met: Transitions) -> Tensor:
        """What it should say (..., F + 1)."""
        change = (met.after - met.before - self.change_mean) / self.change_scale
        reward = (met.reward[..., None] - self.reward_mean) / self.reward_scale
        return torch.cat((change, reward), -1)

    def meant(self, said: Tensor) -> tuple[Tensor, Tensor]:
        """Changes of state (..., F) and rewards (...,) that were said (..., F + 1)."""
        change = self.change_mean + self.change_scale * said[..., :-1]
        reward = self.reward_mean + self.reward_scale * said[..., -1:]
        return change, reward.squeeze(-1)


def _scale(values: Tensor) -> Tensor:
    return own_where_alike(values.std(0, correction=0), _LEAST_SCALE)


@dataclass(frozen=True, eq=False)
class AdaptiveModel:
    """The network, as pure functions.

    Attributes:
        units: see there.
        action_width: A.
        hidden_width: units of both hidden layers, and of the memory.
        adaptation: one of `ADAPTATIONS`.
        inner_steps: of gradient descent.
    """

    units: Units
    action_width: int
    hidden_width: int
    adaptation: str
    inner_steps: int

    @property
    def state_width(self) -> int:
        """F."""
        return len(self.units.state_mean)

    def init(self, rng: torch.Generator | None, inner_lr: float) -> MetaParams:
        """Fresh parameters, and the step size of each."""
        seen, said = self.state_width + self.action_width, self.state_width + 1
        network = init_mlp(rng, (seen, self.hidden_width, self.hidden_width, said))
        if self.adaptation == GRADIENT:
            sizes = {name: torch.full_like(value, inner_lr) for name, value in network.items()}
            return MetaParams(network, sizes)
        if self.adaptation == NONE:
            return MetaParams(network, {})
        width = self.hidden_width
        memory = {
            "memory.input": init_mlp(rng, (seen + said, 3 * width)),
            "memory.hidden": init_mlp(rng, (width, 3 * width)),
            "memory.output": init_mlp(rng, (width, width)),
        }
        parts = {
            f"{name}.{n.removeprefix('0.')}": value
            for name, own in memory.items()
            for n, value in own.items()
        }
        return MetaParams({**network, **parts}, {})

    def said(self, network: Params, seen: Tensor) -> Tensor:
        """Outputs (B, N, F + 1) for inputs (B, N, F + A), of B networks or of one."""
        for i in range(_LAYERS):
            weight, bias = network[f"{i}.weight"], network[f"{i}.bias"]
            of_each = weight.ndim == 3
            seen = torch.baddbmm(bias, seen, weight) if of_each else seen @ weight + bias
            seen = seen.relu_() if i < _LAYERS - 1 else seen
        return seen

    def error(self, network: Params, met: Transitions) -> Tensor:
        """Mean squared errors (B,) in standard units of transitions (B, N, ...), by weight.

        Zero where none counts.
        """
        off = self.said(network, self.units.seen(met.before, met.action)) - self.units.goal(met)
        weight = met.weight / met.weight.sum(-1, keepdim=True).clamp_min(1)
        return (off.square().mean(-1) * weight).sum(-1)

    def adapted(self, meta: MetaParams, met: Transitions, *, learning: bool = False) -> Params:
        """The B networks after the last transitions (B, N, ...) of B simulations.

        Source: GrBAL, Eq. 6 of Nagabandi et al., 2019: u_GBAC = theta - alpha grad error; with
        `learning`, gradients flow through it to theta and alpha.
        """
        if self.adaptation == NONE:
            return meta.theta
        if self.adaptation == MEMORY:
            return self._remembering(meta.theta, met)
        with torch.enable_grad():
            return self._descended(meta, met, learning)

    def _descended(self, meta: MetaParams, met: Transitions, learning: bool) -> Params:
        num = len(met.weight)
        found = {name: _of_each(value, num) for name, value in meta.theta.items()}
        if not learning:
            found = {n: value.detach().requires_grad_() for n, value in found.items()}
        for _ in range(self.inner_steps):
            loss = self.error(found, met).sum()
            grads = torch.autograd.grad(loss, list(found.values()), create_graph=learning)
            found = {
                name: value - meta.step_sizes[name] * grad
                for (name, value), grad in zip(found.items(), grads, strict=True)
            }
            if not learning:
                found = {n: value.detach().requires_grad_() for n, value in found.items()}
        return found if learning else {n: value.detach() for n, value in found.items()}

    def _remembering(self, theta: Params, met: Transitions) -> Params:
        """Networks whose first bias is what a GRU makes of the transitions.

        Source: ReBAL, section 4.2 of Nagabandi et al., 2019. What it remembers stays as it is while
        actions are planned; there the model's own predictions go through it.
        """
        seen = torch.cat((self.units.seen(met.before, met.action), self.units.goal(met)), -1)
        hidden = seen.new_zeros(len(seen), self.hidden_width)
        (w_in, b_in), (w, b) = (
            (theta[f"memory.{of}.weight"].T, theta[f"memory.{of}.bias"])
            for of in ("input", "hidden")
        )
        for t in range(seen.shape[1]):
            new = torch.gru_cell(seen[:, t], hidden, w_in, w, b_in, b)
            hidden = torch.where(met.weight[:, t, None] > 0, new, hidden)
        context = hidden @ theta["memory.output.weight"] + theta["memory.output.bias"]
        own = {name: value for name, value in theta.items() if not name.startswith("memory.")}
        return {**own, "0.bias": own["0.bias"] + context[:, None]}

    def earned(
        self, network: Params, state: Tensor, actions: Tensor, paid: Paid | None = None
    ) -> Tensor:
        """Returns (B, N) that it foresees from states (B, F) for actions (B, N, H, A).

        Rewards are those that it foresees, or where they are known, `paid`'s.
        """
        now = state[:, None].expand(*actions.shape[:2], -1)
        total = actions.new_zeros(actions.shape[:2])
        for t in range(actions.shape[2]):
            said = self.said(network, self.units.seen(now, actions[:, :, t]))
            change, reward = self.units.meant(said)
            now = now + change
            total = total + (reward if paid is None else paid(now, actions[:, :, t]))
        return total

    def with_units(self, units: Units) -> AdaptiveModel:
        """The same in other units."""
        return replace(self, units=units)


def _of_each(value: Tensor, num: int) -> Tensor:
    """One for each of B simulations: (B, in, out) of a weight, (B, 1, out) of a bias."""
    return value.expand(num, *value.shape) if value.ndim == 2 else value.expand(num, 1, -1)


def model_of(options: Any, units: Units, action_width: int) -> AdaptiveModel:
    """As options say."""
    return AdaptiveModel(
        units, action_width, options.hidden_width, options.adaptation, options.inner_steps
    )
