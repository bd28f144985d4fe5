"""Policies that remember: what they see of a trial goes through a body that has a memory.

A trial is several episodes of one task, one after the other, and the memory is kept from each to
the next. A body is a pair of ways to say the same: step by step, when acting, and over whole
trials, when learning.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn.functional import linear, pad
from torch.nn.functional import scaled_dot_product_attention as _attention

from demokit.learning.distributions import Gaussian
from demokit.learning.networks import Layers, Params, init_mlp, mlp
from gmps.experience.actor import Seen
from gmps.experience.trials import Trials
from gmps.policies.meta_params import section

Memory = dict[str, Tensor]
"""What a body remembers of B trials, tensors (B, ...) by name."""


class Body(Protocol):
    """What makes of the steps so far what policy and value are read from."""

    @property
    def width(self) -> int:
        """H, numbers that it says of a step."""
        ...

    def init(self, rng: torch.Generator | None) -> Params:
        """Fresh parameters."""
        ...

    def begin(self, num: int) -> Memory:
        """Of `num` trials before their first step."""
        ...

    def kept(self, memory: Memory) -> Memory:
        """What a belief keeps of it."""
        ...

    def step(
        self, params: Params, memory: Memory, x: Tensor, alive: Tensor
    ) -> tuple[Tensor, Memory]:
        """What it says (B, H) of a step (B, I), and remembers; where not `alive` (B,), as before.

        What was kept stays as it is.
        """
        ...

    def unroll(self, params: Params, x: Tensor) -> Tensor:
        """What it says (B, L, H) of whole trials (B, L, I), from their first step on."""
        ...


@dataclass(frozen=True)
class GRU:
    """A layer of gated recurrent units (Cho et al., 2014), gates as in `torch.nn.GRU`.

    Attributes:
        input_width: I.
        width: H.
    """

    input_width: int
    width: int

    def init(self, rng: torch.Generator | None) -> Params:
        """Uniform within 1 / sqrt(H), biases zero, recurrent weights orthogonal for each gate."""
        bound, width = self.width**-0.5, self.width
        seen = bound * (2 * torch.rand(3 * width, self.input_width, generator=rng) - 1)
        kept = torch.randn(3 * width, width, generator=rng).view(3, width, width)
        return {
            "input.weight": seen,
            "input.bias": torch.zeros(3 * width),
            "hidden.weight": torch.linalg.qr(kept)[0].flatten(0, 1).contiguous(),
            "hidden.bias": torch.zeros(3 * width),
        }

    def begin(self, num: int) -> Memory:
        """See `Body`."""
        return {"hidden": torch.zeros(num, self.width)}

    def kept(self, memory: Memory) -> Memory:
        """See `Body`: all of it."""
        return memory

    def step(
        self, params: Params, memory: Memory, x: Tensor, alive: Tensor
    ) -> tuple[Tensor, Memory]:
        """See `Body`."""
        before = memory["hidden"]
        after = torch.where(alive[:, None], torch.gru_cell(x, before, *_gates(params)), before)
        return after, {"hidden": after}

    def unroll(self, params: Params, x: Tensor) -> Tensor:
        """See `Body`."""
        start = x.new_zeros(1, len(x), self.width)
        weights = list(_gates(params))
        # Of a GRU in training: on CUDA no other has a gradient. There is no dropout.
        out, _ = torch.gru(x, start, weights, True, 1, 0.0, True, False, True)
        return out


@dataclass(frozen=True)
class Snail:
    """Temporal convolutions and causal attention in turn, each beside what it saw.

    Source: SNAIL (Mishra et al., 2018), section 3: dense blocks, tanh(f) sigmoid(g) of causal
    convolutions over two steps, dilations 1, 2, 4, ... until they span a trial; attention
    softmax(Q K' / sqrt(K)) V over the steps so far. What a layer says stands behind what it saw,
    so that the last layer's numbers begin with those of every other: these are the cache.

    Attributes:
        input_width: I.
        length: steps of a trial, which the convolutions span; longer ones are seen by attention.
        filters: what a convolution says.
        keys: numbers of a query, a key and a value.
        blocks: how often convolutions and attention take turns.
    """

    input_width: int
    length: int
    filters: int
    keys: int
    blocks: int = 2

    @property
    def dilations(self) -> tuple[int, ...]:
        """Of all layers; 0 is attention."""
        spans = (2**i for i in range(max(1, (self.length - 1).bit_length())))
        return self.blocks * (*spans, 0)

    @property
    def width(self) -> int:
        """H."""
        return self._seen_by(len(self.dilations))

    def init(self, rng: torch.Generator | None) -> Params:
        """Xavier-uniform weights and zero biases."""
        params: Params = {}
        for i, dilation in enumerate(self.dilations):
            seen = self._seen_by(i)
            widths = (2 * seen, 2 * self.filters) if dilation else (seen, 3 * self.keys)
            params |= {f"{i}.{n[2:]}": value for n, value in init_mlp(rng, widths).items()}
        return params

    def begin(self, num: int) -> Memory:
        """See `Body`: no step yet. The steps (B, S) that were met come first."""
        nothing = {"met": torch.zeros(num, 0, dtype=torch.bool)}
        nothing["seen"] = torch.zeros(num, 0, self.width)
        for i, dilation in enumerate(self.dilations):
            if not dilation:
                nothing |= {f"{i}.{n}": torch.zeros(num, 0, self.keys) for n in ("keys", "values")}
        return nothing

    def kept(self, memory: Memory) -> Memory:
        """See `Body`: without room for more."""
        met = int(memory["met"].sum(1).max())
        return {name: value[:, :met] for name, value in memory.items()}

    def step(
        self, params: Params, memory: Memory, x: Tensor, alive: Tensor
    ) -> tuple[Tensor, Memory]:
        """See `Body`. Room for more is written to in place, behind what was met."""
        met = memory["met"].sum(1)
        if bool((met == memory["met"].shape[1]).any()):
            memory = {name: _with_room(value) for name, value in memory.items()}
        rows = torch.arange(len(met), device=met.device)
        so_far = torch.arange(memory["met"].shape[1], device=met.device) <= met[:, None]
        for i, dilation in enumerate(self.dilations):
            weight, bias = params[f"{i}.weight"], params[f"{i}.bias"]
            if dilation:
                before = memory["seen"][rows, (met - dilation).clamp_min(0), : x.shape[1]]
                before = before * (met >= dilation)[:, None]
                said = _gated(torch.cat((before, x), 1) @ weight + bias)
            else:
                query, *own = (x @ weight + bias).chunk(3, -1)
                keys, values = (memory[f"{i}.{n}"] for n in ("keys", "values"))
                keys[rows, met], values[rows, met] = own
                mask = so_far[:, None]
                said = _attention(query[:, None], keys, values, attn_mask=mask).squeeze(1)
            x = torch.cat((x, said), 1)
        memory["seen"][rows, met] = x
        counted = so_far & (alive[:, None] | memory["met"])
        return x, {**memory, "met": counted}

    def unroll(self, params: Params, x: Tensor) -> Tensor:
        """See `Body`."""
        length = x.shape[1]
        for i, dilation in enumerate(self.dilations):
            weight, bias = params[f"{i}.weight"], params[f"{i}.bias"]
            if dilation:
                # What a step says of the one before is moved there: less than what it sees.
                of_before, of_now = (x @ torch.cat(weight.chunk(2), 1)).chunk(2, -1)
                span = min(dilation, length)
                before = pad(of_before[:, : length - span], (0, 0, span, 0))
                said = _gated(before + of_now + bias)
            else:
                query, keys, values = (x @ weight + bias).chunk(3, -1)
                said = _attention(query, keys, values, is_causal=True)
            x = torch.cat((x, said), -1)
        return x

    def _seen_by(self, layer: int) -> int:
        """Numbers that a layer sees."""
        said = (self.filters if dilation else self.keys for dilation in self.dilations[:layer])
        return self.input_width + sum(said)


_ROOM = 64  # steps by which a memory grows


def _with_room(values: Tensor) -> Tensor:
    """A copy (B, S + more, ...)."""
    more = values.new_zeros(len(values), _ROOM, *values.shape[2:])
    return torch.cat((values, more), 1)


def _gated(values: Tensor) -> Tensor:
    said, gate = values.chunk(2, -1)
    return said.tanh() * gate.sigmoid()


def _gates(params: Params) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """In the order that torch takes them."""
    names = "input.weight", "hidden.weight", "input.bias", "hidden.bias"
    first, second, third, fourth = (params[name] for name in names)
    return first, second, third, fourth


class Ready(NamedTuple):
    """Parameters as steps take them: the first layers as one, weights (I, inputs) and biases (I,),
    those of the body, of the policy's layers, and the standard deviation (A,).
    """

    weight: Tensor
    bias: Tensor
    body: Params
    layers: Layers
    std: Tensor


class Belief(NamedTuple):
    """What is remembered of M tasks: the body's memory, and how the last episode ended.

    `action` (M, A) and `reward` (M,) are those of its last step, zero before the first episode.
    """

    memory: Memory
    action: Tensor
    reward: Tensor

    def repeated(self, num: int) -> Belief:
        """For `num` episodes of every task, (M * num, ...)."""
        memory = {n: value.repeat_interleave(num, 0) for n, value in self.memory.items()}
        ends = (value.repeat_interleave(num, 0) for value in (self.action, self.reward))
        return Belief(memory, *ends)


@dataclass(frozen=True)
class MemoryPolicy:
    """Sees observation, last action, last reward and first steps; a network for policy and value.

    Source: RL2 (Duan et al., 2016), with the network of VariBAD's RL2: each input but the flag of
    the first step goes through a layer with ReLU of its own. Policy and value have a hidden layer,
    tanh, each, on what the body says.

    Attributes:
        body: with the memory.
        observation_width, action_width: O, A.
        embedded: units for observation, action and reward.
        hidden_width: units of the hidden layers behind the body.
        initial_std, min_std: of the outputs, at the start and the least.
        action_scale: which outputs span the actions' range, see `GaussianPolicy`.
    """

    body: Body
    observation_width: int
    action_width: int
    embedded: tuple[int, int, int]
    hidden_width: int
    initial_std: float
    min_std: float
    action_scale: float

    def init(self, rng: torch.Generator | None) -> Params:
        """Fresh parameters theta, by name: "body.", "policy.", "value.", ..."""
        inputs = self.observation_width, self.action_width, 1
        pairs = zip(("observation", "action", "reward"), inputs, self.embedded, strict=True)
        hidden = self.body.width, self.hidden_width
        parts = {name: init_mlp(rng, widths) for name, *widths in pairs}
        parts["body"] = self.body.init(rng)
        parts["policy"] = init_mlp(rng, (*hidden, self.action_width))
        parts["value"] = init_mlp(rng, (*hidden, 1))
        theta = {f"{part}.{n}": value for part, own in parts.items() for n, value in own.items()}
        return {**theta, "log_std": torch.full((self.action_width,), self.initial_std).log()}

    def begin(self, num_tasks: int) -> Belief:
        """What is remembered of tasks that nobody has met."""
        zeros = torch.zeros(num_tasks, self.action_width)
        return Belief(self.body.begin(num_tasks), zeros, zeros.new_zeros(num_tasks))

    def ready(self, theta: Params) -> Ready:
        """Theta as steps take it."""
        names = "observation", "action", "reward"
        weights = [theta[f"{name}.0.weight"].mT for name in names]
        biases = [theta[f"{name}.0.bias"] for name in names]
        flag = biases[0].new_ones(1)  # ReLU leaves it as it is
        return Ready(
            torch.block_diag(*weights, flag[None]),  # type: ignore[no-untyped-call]
            torch.cat((*biases, 0 * flag)),
            section(theta, "body."),
            _layers(theta, "policy"),
            self.std(theta),
        )

    def std(self, theta: Params) -> Tensor:
        """The standard deviation (A,) of actions."""
        return theta["log_std"].exp().clamp_min(self.min_std) / self.action_scale

    def step(
        self, ready: Ready, belief: Belief, seen: tuple[Tensor, ...], alive: Tensor
    ) -> tuple[Gaussian, Memory]:
        """What to do now in B trials, and what the body remembers; `seen` is that of `inputs`."""
        said, memory = self.body.step(ready.body, belief.memory, self.inputs(ready, *seen), alive)
        return self.dist(ready, said), memory

    def unroll(self, theta: Params, trials: Trials) -> tuple[Gaussian, Tensor]:
        """Policies (B, L, A) and values (B, L) in whole trials."""
        ready = self.ready(theta)
        action, reward = (_shifted(values) for values in (trials.action, trials.reward))
        x = self.inputs(ready, trials.observation, action, reward, trials.first)
        said = self.body.unroll(ready.body, x)
        return self.dist(ready, said), mlp(_layers(theta, "value"), said, "tanh").squeeze(-1)

    def inputs(
        self, ready: Ready, observation: Tensor, action: Tensor, reward: Tensor, first: Tensor
    ) -> Tensor:
        """What the body sees, (..., I).

        Args:
            ready: parameters.
            observation: (..., O).
            action: of the step before in the trial, (..., A).
            reward: of it, (...); an episode's last one is seen in the first step of the next.
            first: (...) bool, whether this is an episode's first step.
        """
        parts = (observation, action, reward[..., None], first[..., None].to(observation.dtype))
        return linear(torch.cat(parts, -1), ready.weight, ready.bias).relu()

    def dist(self, ready: Ready, said: Tensor) -> Gaussian:
        """The policy, given what the body says (..., H)."""
        return Gaussian(mlp(ready.layers, said, "tanh") / self.action_scale, ready.std)


class MemoryActor:
    """Acts in `num` episodes of each task as somebody who remembers the same of it.

    Args:
        policy: the pure functions.
        theta: their parameters.
        belief: about M tasks; it stays as it is.
        num: K.
    """

    def __init__(self, policy: MemoryPolicy, theta: Params, belief: Belief, num: int) -> None:
        self.memory = belief.repeated(num)
        self._policy, self._ready = policy, policy.ready(theta)

    def __call__(self, memory: Belief, seen: Seen) -> tuple[Gaussian, Belief]:
        """See `Actor`."""
        assert isinstance(seen.observation, Tensor)
        begins = seen.t == 0
        action, reward = seen.action.flatten(0, 1), seen.reward.flatten()
        if begins:
            action, reward = memory.action, memory.reward
        alive = seen.alive.flatten()
        now = seen.observation.flatten(0, 1), action, reward, torch.full_like(alive, begins)
        dist, kept = self._policy.step(self._ready, memory, now, alive)
        mean = dist.mean.view(*seen.alive.shape, -1)
        return dist._replace(mean=mean), memory._replace(memory=kept)


def _shifted(values: Tensor) -> Tensor:
    """Those of the step before (B, L, ...), zero before the first."""
    return pad(values[:, :-1], (*(values.ndim - 2) * (0, 0), 1, 0))


def _layers(theta: Params, name: str) -> Layers:
    """Of one hidden layer."""
    return tuple((theta[f"{name}.{i}.weight"], theta[f"{name}.{i}.bias"]) for i in range(2))
