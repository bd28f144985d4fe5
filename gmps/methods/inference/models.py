"""What a task does: rewards and changes of state, predicted from transitions and the task's code.

Members of an ensemble first leave out different training tasks. How wrong they are about tasks that
they never met is the error to expect on a new one; where they disagree it is larger. Then they
learn from all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Generator, Tensor

from demokit.learning.networks import Params
from gmps.experience.units import own_where_alike
from gmps.policies.meta_params import section

MEMBERS = 3
_HIDDEN = (64, 64)
_LR, _WEIGHT_DECAY = 3e-3, 1e-3
_BATCH = 512
_MIN_SCALE = 1e-4
_MIN_VARIANCE = 1e-5
_JUDGED = 4000  # left-out rows that measure the error of a member


@dataclass(frozen=True, eq=False)
class Ensemble:
    """Networks (x, e) -> y, in standard units, and the variance of their errors.

    Attributes:
        network: parameters with a leading axis of members.
        x_mean, x_scale, y_mean, y_scale: units.
        variance: (Y,), of standardised errors on tasks that a member had not met.
    """

    network: Params
    x_mean: Tensor
    x_scale: Tensor
    y_mean: Tensor
    y_scale: Tensor
    variance: Tensor

    @classmethod
    def fresh(cls, x_width: int, codes_width: int, y_width: int, rng: Generator) -> Ensemble:
        """One that has learned nothing."""
        network = _init((x_width + codes_width, *_HIDDEN, y_width), rng)
        zeros, ones = torch.zeros, torch.ones
        units = zeros(x_width), ones(x_width), zeros(y_width), ones(y_width)
        return cls(network, *units, ones(y_width))

    def predicted(self, x: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance (T, C, N, Y), standardised, of x (T, N, X) under codes (T, C, R)."""
        weight = self.network["0.weight"]
        width, x = x.shape[-1], (x - self.x_mean) / self.x_scale
        seen = torch.einsum("tnx,bxh->btnh", x, weight[:, :width])
        known = torch.einsum("tcr,brh->btch", codes, weight[:, width:])
        known = known + self.network["0.bias"][:, None]
        hidden = seen[:, :, None] + known[:, :, :, None]
        shape = hidden.shape[:-1]
        found = _later(self.network, hidden.flatten(1, -2))
        found = found.view(*shape, found.shape[-1])
        mean = found.mean(0)
        # Written out: several times faster than torch's, over so few members.
        return mean, (found - mean).square().mean(0) + self.variance

    def log_likelihood(self, x: Tensor, y: Tensor, codes: Tensor, weight: Tensor) -> Tensor:
        """Of codes (T, C, R), given x (T, N, X), y (T, N, Y) with weights (T, N): (T, C)."""
        mean, variance = self.predicted(x, codes)
        error = (y - self.y_mean) / self.y_scale
        each = -0.5 * ((mean - error[:, None]).square() / variance + variance.log()).sum(-1)
        return (each * weight[:, None]).sum(-1)

    def tensors(self) -> dict[str, Tensor]:
        """By name, for a checkpoint."""
        units = {name: getattr(self, name) for name in _UNITS}
        return {**{f"network.{name}": value for name, value in self.network.items()}, **units}

    @classmethod
    def of_tensors(cls, tensors: Mapping[str, Tensor]) -> Ensemble:
        """The inverse of `tensors`; raises KeyError."""
        return cls(section(tensors, "network."), *(tensors[name] for name in _UNITS))


@dataclass(frozen=True, eq=False)
class Models:
    """All that was learned about tasks.

    Attributes:
        rewards, changes: of transitions.
        values: from a code that is followed, and the task's, to the mean reward of a step.
    """

    rewards: Ensemble
    changes: Ensemble
    values: Ensemble

    @classmethod
    def fresh(cls, state: int, action: int, codes: int, rng: Generator) -> Models:
        """Of states, actions and codes of these widths."""
        return cls(
            Ensemble.fresh(state + action, codes, 1, rng),
            Ensemble.fresh(state + action, codes, state, rng),
            Ensemble.fresh(codes, codes, 1, rng),
        )

    def earned(self, codes: Tensor) -> Tensor:
        """What following codes (..., R) earns where they are the task's, standardised (...,)."""
        rows = codes.flatten(0, -2)[:, None]
        mean, _ = self.values.predicted(rows, rows)
        return mean.view(codes.shape[:-1])

    def tensors(self) -> dict[str, Tensor]:
        """By name, for a checkpoint."""
        parts = {name: getattr(self, name).tensors() for name in _PARTS}
        return {f"{part}.{name}": v for part, own in parts.items() for name, v in own.items()}

    @classmethod
    def of_tensors(cls, tensors: Mapping[str, Tensor]) -> Models:
        """The inverse of `tensors`; raises KeyError."""
        return cls(*(Ensemble.of_tensors(section(tensors, f"{part}.")) for part in _PARTS))

    def to(self, device: torch.device) -> Models:
        """The same on a device."""
        return Models.of_tensors({n: value.to(device) for n, value in self.tensors().items()})


_PARTS = ("rewards", "changes", "values")
_UNITS = ("x_mean", "x_scale", "y_mean", "y_scale", "variance")


def fit(
    x: Tensor,
    y: Tensor,
    codes: Tensor,
    weight: Tensor,
    *,
    steps: tuple[int, int],
    rng: Generator,
) -> Ensemble:
    """An ensemble of x (M, N, X), y (M, N, Y), the codes (M, R) or (M, N, R) of M tasks.

    Members learn without a third of the tasks for the first number of `steps`, which is when their
    errors are measured, and from all tasks for the second. Rows of weight (M, N) zero are left out;
    where no other is, nothing is learned.
    """
    if not (weight > 0).any():
        return Ensemble.fresh(x.shape[-1], codes.shape[-1], y.shape[-1], rng)
    if codes.ndim == 2:
        codes = codes[:, None].expand(*x.shape[:2], -1)
    task = torch.arange(len(x))[:, None].expand(x.shape[:2])[weight > 0]
    x, y, codes = x[weight > 0], y[weight > 0], codes[weight > 0]
    units = x.mean(0), _scale(x), y.mean(0), _scale(y)
    x, y = (x - units[0]) / units[1], (y - units[2]) / units[3]
    fold = torch.randperm(int(task.max()) + 1, generator=rng)[task] % MEMBERS
    inputs = torch.cat((x, codes), -1)
    network = _init((inputs.shape[1], *_HIDDEN, y.shape[1]), rng)
    every = torch.arange(len(inputs))
    others = [torch.where(fold != i)[0] for i in range(MEMBERS)]
    others = [own if len(own) else every for own in others]
    network = _trained(network, inputs, y, others, steps[0], rng)
    variance = _left_out(network, inputs, y, fold, rng)
    network = _trained(network, inputs, y, [every] * MEMBERS, steps[1], rng)
    return Ensemble(network, *units, variance)


def _drawn(rows: Tensor, num: int, rng: Generator) -> Tensor:
    return rows[torch.randint(len(rows), (num,), generator=rng)]


def _scale(values: Tensor) -> Tensor:
    return own_where_alike(values.std(0, correction=min(1, len(values) - 1)), _MIN_SCALE)


def _trained(
    network: Params, x: Tensor, y: Tensor, rows: list[Tensor], steps: int, rng: Generator
) -> Params:
    """Members that go on, each with its rows of x and y."""
    network = {name: value.clone().requires_grad_() for name, value in network.items()}
    optimizer = torch.optim.AdamW(network.values(), _LR, weight_decay=_WEIGHT_DECAY, fused=True)
    for step in range(steps):
        drawn = torch.stack([_drawn(own, _BATCH, rng) for own in rows])
        optimizer.param_groups[0]["lr"] = _LR * (1 - step / steps)
        optimizer.zero_grad()
        loss = (_networks(network, x[drawn]) - y[drawn]).square().mean((1, 2)).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return {name: value.detach() for name, value in network.items()}


@torch.no_grad()
def _left_out(network: Params, x: Tensor, y: Tensor, fold: Tensor, rng: Generator) -> Tensor:
    """Mean squared error (Y,) of members on the tasks that they left out."""
    errors = []
    for i in range(MEMBERS):
        own = torch.where(fold == i)[0]
        if not len(own):
            continue
        drawn = _drawn(own, _JUDGED, rng)
        member = {name: value[i : i + 1] for name, value in network.items()}
        errors.append((_networks(member, x[drawn][None])[0] - y[drawn]).square())
    return torch.cat(errors).mean(0).clamp_min(_MIN_VARIANCE)


def _init(widths: tuple[int, ...], rng: Generator) -> Params:
    """Members with normal Xavier weights, (B, in, out) and (B, 1, out)."""
    network: Params = {}
    for i, (fan_in, fan_out) in enumerate(pairwise(widths)):
        drawn = torch.randn(MEMBERS, fan_in, fan_out, generator=rng)
        network[f"{i}.weight"] = drawn * (2 / (fan_in + fan_out)) ** 0.5
        network[f"{i}.bias"] = torch.zeros(MEMBERS, 1, fan_out)
    return network


def _networks(network: Params, x: Tensor) -> Tensor:
    """Outputs (B, N, Y) for x (B, N, X)."""
    return _later(network, torch.baddbmm(network["0.bias"], x, network["0.weight"]))


def _later(network: Params, hidden: Tensor) -> Tensor:
    """All behind the first layer's sums (B, N, H)."""
    for i in range(1, len(_HIDDEN) + 1):
        hidden = torch.baddbmm(network[f"{i}.bias"], hidden.relu(), network[f"{i}.weight"])
    return hidden
