"""Observations of images and vectors, as they come from anywhere."""

import numpy as np
import pytest
import torch

from demokit.envs import make_family
from demokit.envs.vision import Vision
from demokit.errors import DemokitError
from gmps.experience.sight import Sight

PUSH = make_family("push")
IMAGES = Sight.of(PUSH.schema, Vision(6, 8))
STATES = Sight.of(PUSH.schema, "state")
VECTOR = PUSH.vision_terms[0]
WIDTH = IMAGES.vectors[VECTOR]


def seen(*leading, height=6):
    return {
        "image": np.full((*leading, height, 8, 3), 7, np.uint8),
        VECTOR: np.ones((*leading, WIDTH)),
    }


def test_one_and_a_batch():
    one, batched = IMAGES.read(seen())
    assert not batched
    assert one["image"].shape == (1, 6, 8, 3)
    assert one["image"].dtype == torch.uint8
    assert one[VECTOR].shape == (1, WIDTH)
    many, batched = IMAGES.read(seen(4))
    assert batched
    assert many["image"].shape == (4, 6, 8, 3)
    assert IMAGES.shapes == {VECTOR: (WIDTH,), "image": (6, 8, 3)}


@pytest.mark.parametrize(
    "change",
    [
        lambda o: o["image"].astype(np.float32),
        lambda o: o["image"][:5],
        lambda o: o["image"][..., 0],
        lambda o: None,
    ],
)
def test_images_that_are_none(change):
    given = seen()
    with pytest.raises(DemokitError, match=r"'image' has the shape .* push is seen as a mapping"):
        IMAGES.read({**given, "image": change(given)})


def test_keys_and_lengths():
    with pytest.raises(DemokitError, match="is a mapping of image, but push is seen as"):
        IMAGES.read({"image": seen()["image"]})
    with pytest.raises(DemokitError, match=r"mapping of image, .*, goal"):
        IMAGES.read({**seen(), "goal": 1})
    with pytest.raises(DemokitError, match="has the shape"):
        IMAGES.read(seen()["image"])
    with pytest.raises(DemokitError, match="as many"):
        IMAGES.read({**seen(3), VECTOR: np.ones((2, WIDTH))})
    with pytest.raises(DemokitError, match="as many"):
        IMAGES.read({**seen(3), VECTOR: np.ones(WIDTH)})


def test_which_number_is_none():
    given = seen()
    given[VECTOR][1] = np.inf
    with pytest.raises(DemokitError, match=f"Component 1 of {VECTOR} is inf"):
        IMAGES.read(given)
    first, second = PUSH.observation_terms[:2]
    vector = np.zeros((3, PUSH.observation_width))
    vector[1, first.width + 1] = -np.inf
    with pytest.raises(DemokitError, match=f"Component 1 of {second.name} is -inf"):
        STATES.read(vector)


@pytest.mark.parametrize(
    "given",
    [
        np.arange(2 * PUSH.observation_width)[::2],
        np.arange(PUSH.observation_width, dtype=np.uint8),
        list(range(PUSH.observation_width)),
        torch.arange(PUSH.observation_width),
        np.arange(PUSH.observation_width)[::-1][::-1],
    ],
)
def test_any_array_of_numbers_is_read_and_left_alone(given):
    before = np.asarray(given).copy()
    read, _ = STATES.read(given)
    assert read.dtype == torch.float32
    assert read[0].tolist() == list(map(float, before))
    read += 1
    assert np.array_equal(np.asarray(given), before)


def test_none_at_all_is_no_batch():
    for sight, none in ((STATES, np.zeros((0, STATES.vectors[""]))), (IMAGES, seen(0))):
        with pytest.raises(DemokitError, match=r"has the shape \(0, "):
            sight.read(none)
