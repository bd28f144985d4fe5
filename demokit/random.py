"""Every random number comes from a stream that is named after what it is for.

A seed alone is no name: numpy pads entropy with zeros, so that `default_rng(0)`,
`default_rng([0, 0])` and `default_rng([0, 0, 0])` are one generator, and two parts of a program
that both take "the seed" draw the same numbers.
"""

from __future__ import annotations

import hashlib
import json
from operator import index
from typing import TYPE_CHECKING

import numpy as np
from numpy.random import SeedSequence

from demokit.errors import DemokitError

if TYPE_CHECKING:
    import torch

MAX_SEED = 2**64 - 1


def stream(seed: int, *purpose: str | int) -> np.random.Generator:
    """The generator of one purpose: another seed or another purpose gives independent numbers.

    Args:
        seed: from 0 to `MAX_SEED`.
        purpose: what the numbers are for, such as "rollouts", then the iteration; at least one
            word or number. "1" and 1 are two purposes, as are (1,) and (1, 0).

    Raises:
        DemokitError: the seed is no such number.
    """
    return np.random.default_rng(_sequence(seed, purpose))


def torch_stream(
    seed: int, *purpose: str | int, device: torch.device | str = "cpu"
) -> torch.Generator:
    """`stream` for torch, whose generator on the CPU keeps 32 bits of what seeds it."""
    import torch

    return torch.Generator(device).manual_seed(stream_seed(seed, *purpose))


def stream_seed(seed: int, *purpose: str | int) -> int:
    """A 64-bit seed in the name of a purpose, for generators that are not ours; see `stream`."""
    return int(_sequence(seed, purpose).generate_state(1, np.uint64)[0])


def _sequence(seed: int, purpose: tuple[str | int, ...]) -> SeedSequence:
    """The seed as entropy; the purpose, hashed to a length of its own, as the spawn key."""
    if not 0 <= seed <= MAX_SEED:
        raise DemokitError(f"A seed is a whole number from 0 to {MAX_SEED}, not {seed}.")
    if not purpose:
        raise ValueError("A stream needs a purpose: a seed alone names none.")
    text = json.dumps([part if isinstance(part, str) else index(part) for part in purpose])
    digest = hashlib.sha256(text.encode()).digest()
    key = tuple(int(word) for word in np.frombuffer(digest, "<u4"))
    return SeedSequence(index(seed), spawn_key=key)
