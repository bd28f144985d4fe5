"""Streams of random numbers: no two purposes share one, and worked values never change."""

from itertools import combinations

import numpy as np
import pytest
import torch

from demokit.errors import DemokitError
from demokit.random import MAX_SEED, stream, stream_seed, torch_stream

# Where numpy's own seeding coincides (zeros, lengths, numbers beyond 32 bits) and more.
STREAMS: list[tuple[int, tuple[str | int, ...]]] = [
    (seed, purpose)
    for seed in (0, 1, 2**32, 2**32 + 1, MAX_SEED)
    for purpose in (
        *((0,), (0, 0), (0, 0, 0), (1,), (1, 0), (0, 1), (2**32,), (-1,)),
        *(("0",), ("0", 0), (0, "0"), ("a", "b"), ("ab",), ("a, b",), ("",), ("", "")),
        *(("rollouts", 0), ("rollouts", 1), ("rollouts",), ("rollouts", "0")),
    )
]


def test_no_two_purposes_share_a_stream() -> None:
    drawn = [stream(seed, *purpose).integers(0, 2**63, 8) for seed, purpose in STREAMS]
    for one, other in combinations(range(len(drawn)), 2):
        assert not (drawn[one] == drawn[other]).any(), (STREAMS[one], STREAMS[other])


def test_no_two_purposes_share_a_torch_stream() -> None:
    drawn = [torch.rand(4, generator=torch_stream(seed, *purpose)) for seed, purpose in STREAMS]
    assert len({tuple(numbers.tolist()) for numbers in drawn}) == len(STREAMS)


def test_worked_values_never_change() -> None:
    assert stream(0, "rollouts").integers(1000, size=4).tolist() == [902, 21, 328, 72]
    assert stream(7, "rollouts", 3).integers(1000, size=4).tolist() == [369, 563, 685, 309]
    assert stream_seed(0, "rollouts") == 5521491140577448096
    numbers = torch.randint(1000, (4,), generator=torch_stream(0, "rollouts"))
    assert numbers.tolist() == [684, 345, 849, 275]


def test_numbers_of_numpy_name_the_same_stream() -> None:
    same = stream(3, "eval", 5).random(), stream(np.int64(3), "eval", np.int64(5)).random()
    assert same[0] == same[1]


@pytest.mark.parametrize("seed", [-1, MAX_SEED + 1])
def test_seeds_out_of_range_are_one_sentence(seed: int) -> None:
    with pytest.raises(DemokitError, match=rf"from 0 to 18446744073709551615, not {seed}\."):
        stream(seed, "rollouts")


def test_a_seed_alone_names_no_stream() -> None:
    with pytest.raises(ValueError, match="needs a purpose"):
        stream(0)
