"""A file larger than the memory allowed for reading it: one episode at a time is held."""

from dataclasses import replace

import numpy as np
import pytest
from memory import growth

from demokit.data import ArraySpec, open_dataset
from demokit.data.edit import write_dataset
from demokit.data.summary import summarize

EPISODES, STEPS, WIDTH = 100, 1000, 5200


@pytest.mark.slow
def test_two_gigabytes_are_read_in_little_memory(tmp_path, metadata, make_episode):
    space = ArraySpec((WIDTH,), "float32", -np.inf, np.inf)
    about = replace(metadata, horizon=STEPS, observation_space=space)
    large = np.random.default_rng(0).normal(size=(STEPS + 1, WIDTH)).astype(np.float32)
    episodes = (make_episode(i, steps=STEPS, observations=large) for i in range(EPISODES))
    path = tmp_path / "large.hdf5"
    with growth() as grown:
        write_dataset(path, about, episodes, EPISODES)
    assert grown.kb < 150_000
    assert path.stat().st_size > 2e9
    with growth() as grown, open_dataset(path) as dataset:
        assert sum(len(episode) for episode in dataset) == EPISODES * STEPS
        for index in range(len(dataset)):
            assert dataset.window(index, 500, 550)["observations"].shape == (50, WIDTH)
            dataset.verify(index)
        summarize(dataset)
    path.unlink()
    assert grown.kb < 150_000
