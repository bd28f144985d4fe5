"""Streams of random numbers: no two purposes share one, and worked values never change."""

import hashlib
import json
import re
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch

from demokit.data.store import open_dataset
from demokit.envs import make_family
from demokit.envs.batch import SimBatch
from demokit.envs.tasks import make_tasks, task_sets
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


HOUSE = Path(__file__).parent.parent
# Each says beside its generator why it has no name.
UNNAMED = {
    *("demokit/random.py", "demokit/envs/batch.py", "demokit/envs/tasks.py"),
    *("recorders/loop.py", "recorders/sac/train.py", "gmps/comparison/statistics.py"),
}


def test_every_generator_is_a_named_stream() -> None:
    seeded = re.compile(r"(default_rng|manual_seed|SeedSequence)\(")
    found = {
        str(path.relative_to(HOUSE))
        for room in ("demokit", "recorders", "gmps")
        for path in (HOUSE / room).rglob("*.py")
        if seeded.search(path.read_text())
    }
    assert found == UNNAMED


DRAWN = {
    "point": "1f4e958ebef475ec",
    "push": "17f3cd83be1b6933",
    "door": "b9b704c4e1995ac8",
    "pick-place": "1d9c13c79670e997",
    "ant": "986ccc3e0dc567c8",
    "ant-dir": "4c9f67895eb472c4",
    "cheetah-vel": "3e69508db2503bab",
    "cheetah-dir": "1f68a119edfb962c",
    "point-corner": "c7a87ae25661de92",
    "point-rotated": "19485dd3263e2533",
    "point-coded": "5229c45017026e76",
    "sliders": "ce37780bcc90f69f",
    "arm-torque": "c89539be49dbc049",
    "push-rotated": "066392fd849f56b5",
    "cheetah-crippled": "0a5a2ca1169c2b93",
}
"""Of the ids and contexts of all task sets with seeds 0 and 7: datasets and results name them."""


@pytest.mark.parametrize("name", DRAWN)
def test_task_sets_stay_what_they_were(name: str) -> None:
    family = make_family(name)
    drawn = [
        (task.id, task.context)
        for seed in (0, 7)
        for task_set, splits in task_sets(family).items()
        for split in splits
        if split != "monitor" and task_set not in family.published  # which are younger
        for task in make_tasks(family, task_set, split, seed=seed)
    ]
    assert hashlib.sha256(json.dumps(drawn).encode()).hexdigest()[:16] == DRAWN[name]


@pytest.mark.parametrize("name", ["push", "door"])
def test_the_seeds_of_shipped_datasets_give_their_starts(name: str) -> None:
    with open_dataset(HOUSE / "datasets" / f"{name}_state.hdf5") as dataset:
        shown = [dataset[index] for index in range(0, len(dataset), 20)]
    sims = SimBatch(make_family(name), len(shown))
    started = sims.reset(np.array([e.task.context for e in shown]), [e.seed for e in shown])
    recorded = [np.asarray(e.observations)[0] for e in shown]
    np.testing.assert_array_equal(started, recorded)
