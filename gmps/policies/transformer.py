"""A causal transformer whose queries read a context, and which the context does not see.

Tokens stand in a row, and each attends to itself and those before it. A query attends to the tokens
up to its place; no token and no other query attends to it. So what tokens have said, keys and
values, is kept (a cache), and many queries read one context at once, each a part of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import gelu, layer_norm, linear
from torch.nn.functional import scaled_dot_product_attention as _attention

from demokit.learning.networks import Params, init_mlp
from gmps.policies.meta_params import section

_BEGIN_STD = 0.02


class Cache(NamedTuple):
    """Keys and values (B, H, S, D / H) of every layer, `met` (B, S) bool which of S places count.

    The first place is the beginning, which always counts; the number of tokens counts it, too.
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    met: Tensor


@dataclass(frozen=True)
class Transformer:
    """Layers of attention and of an MLP, each behind a normalisation (GPT-2, Radford et al., 2019).

    There are no positions: a context is a set, but for what causality tells. A learned token
    stands at its beginning, so that an empty one can be attended to.

    Attributes:
        width: D.
        layers: how many.
        heads: H.
    """

    width: int
    layers: int
    heads: int

    def init(self, rng: torch.Generator | None) -> Params:
        """Xavier-uniform weights, smaller where many layers add up; zero biases."""
        d, depth = self.width, (2 * self.layers) ** -0.5
        params: Params = {"begin": _BEGIN_STD * torch.randn(d, generator=rng), **_norm("norm", d)}
        for i in range(self.layers):
            parts = {"attend": (d, 3 * d), "said": (d, d), "wide": (d, 4 * d), "narrow": (4 * d, d)}
            for name, widths in parts.items():
                # A bias of keys would shift all of a softmax alike.
                layer = init_mlp(rng, widths, biased=name != "attend")
                layer["0.weight"] *= depth if name in ("said", "narrow") else 1.0
                params |= {n.replace("0.", f"{i}.{name}."): v for n, v in layer.items()}
            params |= {**_norm(f"{i}.before", d), **_norm(f"{i}.between", d)}
        return params

    def unroll(
        self, params: Params, tokens: Tensor, met: Tensor, queries: Tensor, place: Tensor
    ) -> Tensor:
        """What queries (B, Q, D) come to, (B, Q, D).

        Args:
            params: parameters.
            tokens: (B, N, D), the context.
            met: (B, N) bool, which tokens there are; the others are seen by nobody.
            queries: embedded.
            place: (B, Q), how many tokens of N stand before each query.
        """
        x, met = self._begun(params, tokens, met)
        order = torch.arange(x.shape[1], device=x.device)
        causal = (order <= order[:, None]) & met[:, None]
        visible = (order <= place[..., None]) & met[:, None]
        for i, layer in enumerate(self._layers(params)):
            read, keys, values = self._heads(layer, x)
            asked = self._heads(layer, queries)[0]
            queries = _after(layer, queries, _attention(asked, keys, values, visible[:, None]))
            if i < self.layers - 1:
                x = _after(layer, x, _attention(read, keys, values, causal[:, None]))
        return _normalised(params, "norm", queries)

    def begin(self, params: Params, tokens: Tensor, met: Tensor, room: int) -> Cache:
        """The cache of a context, with room for so many tokens more."""
        x, met = self._begun(params, tokens, met)
        order = torch.arange(x.shape[1], device=x.device)
        causal = ((order <= order[:, None]) & met[:, None])[:, None]
        kept: list[tuple[Tensor, Tensor]] = []
        for layer in self._layers(params):
            read, keys, values = self._heads(layer, x)
            kept.append((_with_room(keys, 2, room), _with_room(values, 2, room)))
            x = _after(layer, x, _attention(read, keys, values, causal))
        all_keys, all_values = zip(*kept, strict=True)
        return Cache(all_keys, all_values, _with_room(met, 1, room))

    def step(
        self, params: Params, cache: Cache, num: int, tokens: Tensor, met: Tensor, query: Tensor
    ) -> Tensor:
        """What a query (B, D) comes to behind `num` tokens of a cache and these (B, S, D): (B, D).

        They are written into the cache, behind the others; `met` (B, S) bool: which there are.
        Each sees the others of S, too: S is 0 or 1.
        """
        places = slice(num, num + tokens.shape[1])
        cache.met[:, places] = met
        mask = cache.met[:, None, None, : places.stop]
        x = torch.cat((tokens, query[:, None]), 1)
        for i, layer in enumerate(self._layers(params)):
            read, *own = self._heads(layer, x)
            kept = cache.keys[i], cache.values[i]
            for part, new in zip(kept, own, strict=True):
                part[:, :, places] = new[:, :, :-1]
            keys, values = (part[:, :, : places.stop] for part in kept)
            x = _after(layer, x, _attention(read, keys, values, mask))
        return _normalised(params, "norm", x[:, -1])

    def _begun(self, params: Params, tokens: Tensor, met: Tensor) -> tuple[Tensor, Tensor]:
        """With the token of the beginning."""
        begin = params["begin"].expand(len(tokens), 1, -1)
        return torch.cat((begin, tokens), 1), torch.cat((met.new_ones(len(met), 1), met), 1)

    def _layers(self, params: Params) -> Iterator[Params]:
        for i in range(self.layers):
            yield section(params, f"{i}.")

    def _heads(self, layer: Params, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values (B, H, S, D / H) of x (B, S, D)."""
        seen = linear(_normalised(layer, "before", x), layer["attend.weight"].mT)
        query, key, value = seen.view(*x.shape[:2], 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        return query, key, value


def _after(layer: Params, x: Tensor, said: Tensor) -> Tensor:
    """X (B, S, D) behind a layer, given what its heads (B, H, S, D / H) say."""
    x = x + _linear(layer, "said", said.transpose(1, 2).flatten(2))
    hidden = gelu(_linear(layer, "wide", _normalised(layer, "between", x)))
    return x + _linear(layer, "narrow", hidden)


def _linear(params: Params, name: str, x: Tensor) -> Tensor:
    return linear(x, params[f"{name}.weight"].mT, params[f"{name}.bias"])


def _norm(name: str, width: int) -> Params:
    return {f"{name}.weight": torch.ones(width), f"{name}.bias": torch.zeros(width)}


def _normalised(params: Params, name: str, x: Tensor) -> Tensor:
    return layer_norm(x, x.shape[-1:], params[f"{name}.weight"], params[f"{name}.bias"])


def _with_room(values: Tensor, axis: int, room: int) -> Tensor:
    shape = list(values.shape)
    shape[axis] = room
    return torch.cat((values, values.new_zeros(shape)), axis)
