"""The eyes of a policy: images to points, by convolutions and a spatial softmax.

Source: GMPS's vision policy (Mendonca et al., 2019), three convolutions with 16 channels each,
kernels 5, 3, 3, strides 3, 3, 1, SAME padding; spatial softmax (Levine et al., 2016).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.functional import conv2d, relu
from torch.utils.checkpoint import checkpoint

from demokit.learning.networks import Params

CHANNELS = 16
_LAYERS = ((5, 3), (3, 3), (3, 1))  # kernel, stride
_CHUNK = 500  # images: what the convolutions keep of them fits the cache, and bounds memory
_KEPT = 5000  # images whose activations are kept for the way back, below 100 kB each
PREFIX = "encoder."


@dataclass(frozen=True)
class Encoder:
    """Features (F,) of an observation: for every camera the 2 * CHANNELS expected image
    coordinates of the channels, in [-1, 1], then the vectors as they are.

    Attributes:
        images: keys of the images in the observation; all cameras share the convolutions.
        vectors: keys of the vectors beside them, such as the hand's position.
    """

    images: tuple[str, ...]
    vectors: tuple[str, ...]

    @property
    def num_points(self) -> int:
        """Features that come from the images; they stand first."""
        return 2 * CHANNELS * len(self.images)

    def init(self, rng: torch.Generator | None) -> Params:
        """Fresh parameters; all names start with "encoder."."""
        params: Params = {}
        for i, ((kernel, _), (fan_in, fan_out)) in enumerate(
            zip(_LAYERS, pairwise((3, CHANNELS, CHANNELS, CHANNELS)), strict=True)
        ):
            bound = (6 / (kernel * kernel * (fan_in + fan_out))) ** 0.5
            shape = fan_out, fan_in, kernel, kernel
            params[f"{i}.weight"] = bound * (2 * torch.rand(shape, generator=rng) - 1)
            if i < len(_LAYERS) - 1:  # a softmax over positions does not feel the last one's
                params[f"{i}.bias"] = torch.zeros(fan_out)
        return {f"{PREFIX}{name}": value for name, value in params.items()}

    def __call__(self, params: Params, observation: dict[str, Tensor]) -> Tensor:
        """Features (..., F) of observations (...)."""
        points = [_points_of(params, observation[key]) for key in self.images]
        return torch.cat((*points, *(observation[key] for key in self.vectors)), -1)


def _points_of(params: Params, images: Tensor) -> Tensor:
    """Points (..., 2 * CHANNELS) of images (..., height, width, 3) uint8, chunk by chunk.

    More images with a gradient than `_KEPT` are gone through again on the way back: what is kept
    of them meanwhile are the bytes.
    """
    flat = images.flatten(0, -4)
    again = torch.is_grad_enabled() and len(flat) > _KEPT
    points = [
        checkpoint(_points, params, chunk, use_reentrant=False) if again else _points(params, chunk)
        for chunk in torch.split(flat, _CHUNK)
    ]
    return torch.cat(points).view(*images.shape[:-3], 2 * CHANNELS)


def _points(params: Params, images: Tensor) -> Tensor:
    """Expected coordinates (N, 2 * CHANNELS) of images (N, height, width, 3) uint8."""
    weight = params[f"{PREFIX}0.weight"]
    x = images.permute(0, 3, 1, 2).to(weight.dtype)  # channels last, as they come
    for i, (kernel, stride) in enumerate(_LAYERS):
        weight, bias = params[f"{PREFIX}{i}.weight"], params.get(f"{PREFIX}{i}.bias")
        if i == 0:
            weight = weight / 255  # cheaper than scaling the pixels
        x = conv2d(relu(x) if i else x, weight, bias, stride, _same(x, kernel, stride))
    return spatial_softmax(x)


def _same(x: Tensor, kernel: int, stride: int) -> tuple[int, int]:
    """Padding (rows, columns) for which the output has ceil(size / stride) rows and columns."""
    rows, columns = (max(kernel - stride + -size % stride, 0) for size in x.shape[-2:])
    return (rows + 1) // 2, (columns + 1) // 2


def spatial_softmax(activation: Tensor) -> Tensor:
    """Expected coordinates (N, 2 * C), x then y in [-1, 1], of activations (N, C, H, W)."""
    probability = activation.flatten(2).softmax(-1).view(activation.shape)
    height, width = activation.shape[-2:]
    x = probability.sum(-2) @ _coordinates(width, activation)
    y = probability.sum(-1) @ _coordinates(height, activation)
    return torch.cat((x, y), -1)


def _coordinates(size: int, like: Tensor) -> Tensor:
    return torch.linspace(-1, 1, size, dtype=like.dtype, device=like.device)
