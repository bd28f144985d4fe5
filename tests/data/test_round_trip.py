"""Whatever the writer accepts, the reader returns: any names, texts, types, shapes and options."""

from collections.abc import Mapping
from dataclasses import replace

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from demokit.data import ArraySpec, DatasetWriter, Provenance, open_dataset
from demokit.data.layout import digest
from demokit.data.validation import validate
from demokit.errors import DemokitError
from demokit.types import Episode, Task

# Surrogates and NUL are characters of Python's, but not of UTF-8 or of HDF5.
GOOD = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)
BAD = st.sampled_from(["\0", "a\0b", "\ud800", "\udcff.", ""])
ODD = st.integers(0, 30).map(lambda n: n == 0)  # seldom, so that most are accepted


def mostly(good, odd):
    return ODD.flatmap(lambda is_odd: odd if is_odd else good)


TEXT = mostly(GOOD, BAD)
NAME = mostly(
    st.one_of(
        st.sampled_from(["a", "state", "image", "privileged", "episode_1", "..."]),
        GOOD.filter(lambda name: name not in ("", ".", "..") and "/" not in name),
    ),
    st.one_of(BAD, st.sampled_from([".", "..", "b/c", "/"])),
)
SEED = st.one_of(st.integers(-(2**63), 2**64 - 1), st.integers(0, 9).map(np.int32))
SINGLE = st.one_of(st.integers(-(2**63), 2**64 - 1), st.floats(allow_nan=False), st.booleans())
NUMBER = st.one_of(
    SINGLE,
    st.floats(-1, 1, width=32).map(np.float32),
    hnp.arrays(np.int16, hnp.array_shapes(max_dims=2, max_side=3)),
)
PLAIN = mostly(
    st.one_of(NUMBER, TEXT, st.lists(SINGLE, max_size=3), st.lists(TEXT, max_size=3)),
    st.one_of(st.none(), st.binary(), st.just(2**70), st.just([1, "a"])),
)
OPTIONS = st.recursive(
    st.dictionaries(NAME, PLAIN, max_size=3),
    lambda inner: st.dictionaries(NAME, st.one_of(PLAIN, inner), max_size=3),
    max_leaves=6,
)
DTYPES = st.sampled_from(["<f4", "<f8", ">f4", "<f2", "u1", "<u2", "<i8", ">i2", "?", "<u8"])
SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)


@st.composite
def arrays(draw, rows, dtypes=DTYPES):
    """A finite array of so many rows, in any order of memory."""
    dtype = np.dtype(draw(dtypes))
    shape = (rows, *draw(SHAPES))
    elements = st.floats(-1, 1, width=16) if dtype.kind == "f" else None
    values = draw(hnp.arrays(dtype, shape, elements=elements))
    return np.asfortranarray(values) if draw(st.booleans()) else values


def spec_of(values):
    kind = values.dtype.kind
    low, high = (-np.inf, 0.1 + len(values)) if kind == "f" else (0, 1)
    return ArraySpec(values.shape[1:], str(values.dtype), low, high)


SCORES = st.dictionaries(TEXT, st.floats(allow_nan=False), min_size=1, max_size=2)
TRAINED = st.fixed_dictionaries(
    {
        "sha256": TEXT,
        "task_set": TEXT,
        "env_steps": st.integers(0, 2**70),
        "returns": SCORES,
        "success": SCORES,
    }
)


@st.composite
def recordings(draw):
    """Metadata and two episodes that fit it, or an error of whoever made them."""
    steps = draw(st.integers(1, 4))
    some = st.sampled_from(["<f4", "<f8", "u1", ">f4"])
    observations = draw(
        st.one_of(
            arrays(steps + 1, some), st.dictionaries(NAME, arrays(steps + 1, some), max_size=3)
        )
    )
    named = isinstance(observations, Mapping)
    space = {n: spec_of(v) for n, v in observations.items()} if named else spec_of(observations)
    restorable = draw(st.booleans())
    privileged = draw(st.dictionaries(NAME, arrays(steps + 1), max_size=3))
    if restorable:
        privileged = {**privileged, "state": np.arange(steps + 1.0)[:, None]}
    context = st.one_of(st.floats(-1, 1), st.integers(-3, 3))
    task = Task("point", draw(TEXT), (draw(context), draw(context)), "train")
    width = draw(st.integers(0, 2))
    episode = Episode(
        task=task,
        observations=observations,
        actions=draw(hnp.arrays(np.float32, (steps, width), elements=st.floats(-1, 1, width=32))),
        rewards=draw(hnp.arrays(np.float64, steps, elements=st.floats(-1e300, 1e300))),
        terminations=np.zeros(steps, bool),
        truncations=np.arange(steps) == (steps - 1 if draw(st.booleans()) else -1),
        privileged=privileged,
        seed=draw(mostly(SEED, st.just(2**65))),
        success=draw(st.booleans()),
        recorder=draw(TEXT),
        options=draw(OPTIONS),
    )
    missing = draw(st.dictionaries(TEXT, TEXT, max_size=2))
    source = Provenance(
        recorder=draw(TEXT),
        expert=draw(TEXT),
        noise_std=draw(st.one_of(st.none(), st.floats(0, 1))),
        seed=draw(st.one_of(st.none(), st.integers(0, 2**70))),
        operator=draw(st.one_of(st.none(), TEXT)),
        missing=missing if restorable else {**missing, "state": "none"},
        trained=draw(st.one_of(st.just({}), TRAINED)),
    )
    changes = {
        "tasks": (task,),
        "task_set": draw(TEXT),
        "observation_space": space,
        "action_space": ArraySpec((width,), "float32", -1.0, 1.0),
        "model_hash": draw(TEXT),
        "provenance": source,
        "license": draw(st.one_of(st.none(), TEXT)),
        "description": draw(TEXT),
    }
    return changes, [episode, replace(episode, success=not episode.success)]


def same(first, second):
    """Whether two options or records are equal, arrays and tuples as lists."""
    if isinstance(first, Mapping) or isinstance(second, Mapping):
        return first.keys() == second.keys() and all(same(first[n], second[n]) for n in first)
    return np.asarray(first).tolist() == np.asarray(second).tolist()


@settings(
    max_examples=80,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_what_the_writer_accepts_the_reader_returns(tmp_path_factory, metadata, data):
    path = tmp_path_factory.mktemp("any") / "a.hdf5"
    try:
        changes, episodes = data.draw(recordings())
        about = replace(metadata, **changes)
        writer = DatasetWriter(path, about)
    except DemokitError:
        return
    with writer:
        try:
            for episode in episodes:
                writer.add(episode)
        except DemokitError:
            assert len(writer) == 0
            return
        writer.finish()
    dataset = open_dataset(path)
    assert dataset.metadata == about
    assert not [f for f in validate(path).errors if f.check in ("structure", "checksum", "counts")]
    for index, episode in enumerate(episodes):
        again, record = dataset.verify(index), dataset.episodes[index]
        assert digest(again) == digest(episode)
        assert isinstance(again.observations, Mapping) == isinstance(episode.observations, Mapping)
        for name in ("task", "seed", "success", "recorder"):
            assert getattr(again, name) == getattr(record, name) == getattr(episode, name)
        assert record.episode_return == episode.episode_return
        assert same(again.options, episode.options)


@pytest.mark.parametrize("observations", [np.zeros((4, 4), np.float32), {}])
def test_absent_groups_are_empty_ones(tmp_path, metadata, make_episode, observations):
    """No privileged terms, no observations: as a dataset says whose `missing` names its state."""
    source = replace(metadata.provenance, missing={"state": "the source has none"})
    space = {} if isinstance(observations, dict) else metadata.observation_space
    about = replace(metadata, provenance=source, observation_space=space)
    bare = replace(make_episode(0, 3, observations), privileged={})
    with DatasetWriter(tmp_path / "a.hdf5", about) as writer:
        writer.add(bare)
        path = writer.finish()
    again = open_dataset(path).verify(0)
    assert again.privileged == {}
    assert open_dataset(path).window(0, 0, 2).keys() >= {"actions", "rewards"}
    assert validate(path).ok
