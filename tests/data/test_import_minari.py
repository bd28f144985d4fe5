"""Datasets that Minari itself wrote, with pictures as it keeps them, and ours that it changed."""

import json
import struct
from pathlib import Path

import gymnasium as gym
import h5py
import minari
import numpy as np
import pytest
from gymnasium import spaces
from minari.data_collector import EpisodeBuffer

from demokit.data import DatasetWriter, open_dataset
from demokit.data.convert import import_dataset
from demokit.data.convert.heap import read_blobs
from demokit.data.convert.stated import Stated
from demokit.data.hdf5 import lookup
from demokit.data.minari import register
from demokit.data.validation import validate
from demokit.envs.answers import solved
from demokit.errors import DemokitError

STEPS = 5
ACTION = spaces.Box(-1, 1, (2,), np.float32)
PICTURE = spaces.Box(0, 255, (40, 32, 3), np.uint8)


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "root"))
    return tmp_path / "root"


def pictures(seed, shape=PICTURE.shape):
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, 256, (STEPS + 1, 1, 1, *shape[2:])).astype(np.uint8)
    return np.broadcast_to(rows, (STEPS + 1, *shape)) + rng.integers(0, 9, (STEPS + 1, *shape))


def created(observations, space, *, action=ACTION, infos=None, **options):
    """A Minari dataset with an episode for each of `observations`; the folder of its data."""
    buffers = [
        EpisodeBuffer(
            observations=rows,
            actions=np.stack([action.sample() for _ in range(STEPS)]),
            rewards=np.arange(STEPS) / 10,
            terminations=[False] * STEPS,
            truncations=[False] * (STEPS - 1) + [True],
            infos=infos or {},
            seed=7,
            options={"speed": 2.0, "start": {"at": [1, 2]}},
        )
        for rows in observations
    ]
    about = {"observation_space": space, "action_space": action, **options}
    dataset = minari.create_dataset_from_buffers("test/any-v0", buffers, **about)
    return Path(dataset.spec.data_path)


def load(source, tmp_path):
    said = dict(import_dataset(source, "minari", tmp_path / "b.hdf5", overwrite=True))
    return said, open_dataset(tmp_path / "b.hdf5")


@pytest.mark.parametrize("shape", [(40, 32, 3), (33, 64)])
@pytest.mark.parametrize("jpeg_encoding", [True, False])
@pytest.mark.parametrize("alone", [True, False])
def test_pictures_are_what_minari_reads(shape, jpeg_encoding, alone, tmp_path):
    one = spaces.Box(0, 255, shape, np.uint8)
    space = one if alone else spaces.Dict(cam=one, at=spaces.Box(-1, 1, (3,), np.float32))
    rows = [pictures(seed, shape).astype(np.uint8) for seed in range(2)]
    if not alone:
        rows = [{"cam": row, "at": np.ones((STEPS + 1, 3), np.float32)} for row in rows]
    losses, after = load(created(rows, space, jpeg_encoding=jpeg_encoding), tmp_path)
    theirs = list(minari.load_dataset("test/any-v0").iterate_episodes())
    assert len(after) == 2
    for mine, other in zip(after, theirs, strict=True):
        found = mine.observations if alone else mine.observations["cam"]
        wanted = other.observations if alone else other.observations["cam"]
        np.testing.assert_array_equal(found, wanted)
        np.testing.assert_array_equal(mine.actions, other.actions)
        assert mine.truncations[-1]
    assert not [what for what in losses if what.startswith("observations")]


def test_pictures_of_one_length_are_an_ordinary_array(tmp_path):
    """Minari keeps them so when all have as many bytes."""
    rows = np.zeros((STEPS + 1, *PICTURE.shape), np.uint8)
    _, after = load(created([rows], PICTURE), tmp_path)
    np.testing.assert_array_equal(after[0].observations, rows)


def test_everything_that_minari_holds_is_carried_or_named(tmp_path):
    inside = {
        "word": spaces.Text(5),
        "count": spaces.Discrete(9),
        "pair": spaces.Tuple([ACTION] * 2),
    }
    rows = {"word": ["ab"] * (STEPS + 1), "count": np.arange(STEPS + 1)}
    pair = np.ones((STEPS + 1, 2), np.float32)
    rows |= {"pair": (pair, 2 * pair)}
    infos = {"success": np.array([False] * STEPS + [True]), "x": {"y": np.zeros(STEPS + 1)}}
    about = {
        "author": "Ada",
        "author_email": "a@b.c",
        "algorithm_name": "hand",
        "code_permalink": "c",
    }
    about |= {"description": "A test."}
    source = created([rows], spaces.Dict(inside), infos=infos, **about)
    with h5py.File(source / "main_data.hdf5", "r+") as file:
        file["episode_0"].attrs["note"] = "mine"
    losses, after = load(source, tmp_path)
    assert set(losses) == {
        *("state", "model", "context", "type of observation count"),
        *("observations/word", "infos/x/y", "attribute note"),
        *(f"metadata.json {name}" for name in (
            "author_email", "code_permalink",
            "observation_space", "action_space")),
    }  # fmt: skip
    episode, about = after[0], after.metadata
    assert set(episode.observations) == {"count", "pair._index_0", "pair._index_1"}
    np.testing.assert_array_equal(episode.observations["count"], rows["count"])
    np.testing.assert_array_equal(episode.privileged["success"], infos["success"])
    assert (episode.seed, episode.success) == (7, True)
    assert episode.options["speed"] == 2.0
    assert (about.provenance.expert, about.provenance.operator) == ("hand", "Ada")
    assert about.description == "A test."


def test_success_is_looked_for_as_environments_say_it(tmp_path):
    rows = np.zeros((STEPS + 1, 1), np.float32)
    never, always = np.zeros(STEPS + 1, np.bool_), np.ones(STEPS + 1, np.bool_)
    infos = {"success": never, "is_success": always}
    _, after = load(created([rows], spaces.Box(-1, 1, (1,)), infos=infos), tmp_path)
    assert after[0].success
    assert solved({"success": False, "is_success": True})


def test_one_whole_number_is_an_observation(tmp_path):
    source = created([np.arange(STEPS + 1)], spaces.Discrete(9))
    _, after = load(source, tmp_path)
    np.testing.assert_array_equal(after[0].observations, np.arange(STEPS + 1))


def test_actions_that_are_no_vector_are_said(tmp_path):
    space = spaces.Dict(a=ACTION)
    buffer = EpisodeBuffer(
        observations=np.zeros((2, 1), np.float32), actions={"a": np.zeros((1, 2), np.float32)},
        rewards=[0.0], terminations=[True], truncations=[False], infos={},
    )  # fmt: skip
    about = {"observation_space": spaces.Box(-1, 1, (1,)), "action_space": space}
    dataset = minari.create_dataset_from_buffers("test/any-v0", [buffer], **about)
    with pytest.raises(DemokitError, match="several arrays, not one vector"):
        load(Path(dataset.spec.data_path), tmp_path)


def test_depth_has_its_own_bounds(tmp_path):
    space = spaces.Box(0, 65535, (40, 32), np.uint16)
    rows = np.random.default_rng(0).integers(0, 65536, (STEPS + 1, 40, 32)).astype(np.uint16)
    _, after = load(created([rows], space), tmp_path)
    assert (after.metadata.observation_space.low, after.metadata.observation_space.high) == (
        0,
        65535,
    )
    np.testing.assert_array_equal(after[0].observations, rows)


def test_arrow_is_named(tmp_path):
    pytest.importorskip("pyarrow")
    rows = np.zeros((STEPS + 1, 3), np.float32)
    source = created([rows], spaces.Box(-1, 1, (3,), np.float32), data_format="arrow")
    with pytest.raises(DemokitError, match="kept as arrow"):
        load(source, tmp_path)


def test_an_episode_that_minari_added_to_ours_is_named(tmp_path, metadata, make_episode):
    with DatasetWriter(tmp_path / "a.hdf5", metadata) as writer:
        for index in range(3):
            writer.add(make_episode(index))
        path = writer.finish()
    before = open_dataset(path).episodes
    folder = register(path, "demokit/point/test-v0")
    more = EpisodeBuffer(
        observations=np.zeros((3, 4), np.float32), actions=np.zeros((2, 2), np.float32),
        rewards=[0.0, 1.0], terminations=[False, True], truncations=[False] * 2, infos={},
    )  # fmt: skip
    dataset = minari.load_dataset("demokit/point/test-v0")
    dataset.storage.update_episodes([more])
    dataset.storage.update_episode_metadata([{"stars": 5}], [1])
    dataset.storage.update_metadata({"code_permalink": "x"})
    with h5py.File(folder / "data/main_data.hdf5", "r+") as file:
        file["episode_0/infos/extra"] = np.zeros(6)
    losses, after = load(folder, tmp_path)
    assert set(losses) == {
        *("episode_3", "attribute stars", "infos/extra", "metadata.json code_permalink")
    }
    assert after.episodes == before


@pytest.fixture
def stored(tmp_path):
    """A row of rows of bytes, and what it holds."""
    rows = [bytes([index]) * (index + 1) for index in range(40)]
    with h5py.File(tmp_path / "v.hdf5", "w") as file:
        data = file.create_dataset("x", (40,), h5py.vlen_dtype(np.uint8), chunks=(16,))
        for index, row in enumerate(rows):
            data[index] = np.frombuffer(row, np.uint8)
    return tmp_path / "v.hdf5", rows


def blobs(path):
    with h5py.File(path) as file:
        return read_blobs(lookup(file, "x"))


def test_rows_of_bytes_are_read_from_the_heap(stored):
    path, rows = stored
    assert blobs(path) == rows


def test_lengths_that_lie_are_refused(stored):
    path, _ = stored
    content = path.read_bytes()
    start = content.index(b"GCOL")
    address = struct.pack("<Q", start)
    lie = content.replace(struct.pack("<I", 40) + address, struct.pack("<I", 2**31) + address)
    assert lie != content
    shorter = content.replace(struct.pack("<I", 40) + address, struct.pack("<I", 3) + address)
    elsewhere = content.replace(address, struct.pack("<Q", len(content) - 1))
    for changed in (lie, shorter, elsewhere, content.replace(b"GCOL", b"GCOX")):
        path.write_bytes(changed)
        with pytest.raises(DemokitError, match=r"not in the file|leads to nothing"):
            blobs(path)


def test_a_picture_that_stands_for_many_is_no_bomb(tmp_path):
    """A small file that names one picture a million times is not decoded."""
    source = created([pictures(0).astype(np.uint8)], spaces.Box(0, 255, PICTURE.shape, np.uint8))
    path = source / "metadata.json"
    about = json.loads(path.read_text())
    space = json.loads(about["observation_space"])
    about["observation_space"] = json.dumps({**space, "shape": [4096, 4096, 3]})
    path.write_text(json.dumps(about))
    with pytest.raises(DemokitError, match=r"claim|a picture is"):
        load(source, tmp_path)


def test_gymnasium_is_not_asked(tmp_path):
    """What an env_spec names is never made: it may name a module."""
    source = created([np.zeros((STEPS + 1, 3), np.float32)], spaces.Box(-1, 1, (3,), np.float32))
    path = source / "metadata.json"
    about = json.loads(path.read_text())
    spec = gym.spec("CartPole-v1").to_json()
    about["env_spec"] = spec.replace("CartPole-v1", "antigravity:Foo-v0")
    path.write_text(json.dumps(about))
    _, after = load(source, tmp_path)
    assert after.metadata.family == "antigravity-foo-v0"


def goals(goal, name):
    space = spaces.Dict({"state": spaces.Box(-1, 1, (3,)), "goal": spaces.Box(-9, 9, (2,))})
    rows = {"state": np.zeros((STEPS + 1, 3), np.float32), "goal": np.tile(goal, (STEPS + 1, 1))}
    rows["goal"] = rows["goal"].astype(np.float32)
    return created([rows], space, infos={"room": np.full(STEPS + 1, name)})


def test_tasks_that_a_person_states(tmp_path):
    source = goals([0.5, 2], 7)
    stated = Stated(
        task_column="infos/room",
        context_columns=("observations/goal", "attribute options/speed"),
        action_low=(-1.0,),
        action_high=(3.0,),
    )
    losses = dict(import_dataset(source, "minari", tmp_path / "b.hdf5", stated=stated))
    found = open_dataset(tmp_path / "b.hdf5")
    assert [(t.id.split("/")[-1], t.context) for t in found.metadata.tasks] == [
        ("7", (0.5, 2.0, 2.0))
    ]
    assert "context" not in losses
    with h5py.File(source / "main_data.hdf5") as file:
        before = file["episode_0/actions"][:]
    np.testing.assert_allclose(found[0].actions, (before - 1) / 2, atol=1e-6)


def test_privileged_rows_that_minari_carried_say_task_and_success(tmp_path):
    """Minari keeps no attributes of an episode that it writes anew."""
    rows = np.zeros((STEPS + 1, 3), np.float32)
    source = created([rows] * 3, spaces.Box(-1, 1, (3,), np.float32))
    with h5py.File(source / "main_data.hdf5", "r+") as file:
        for index, goal in enumerate(([0.5, 2.0], [1.5, 2.0], [0.5, 2.0])):
            privileged = file.require_group(f"episode_{index}/infos/privileged")
            privileged["context"] = np.tile(goal, (STEPS + 1, 1))
            privileged["success"] = np.arange(STEPS + 1) > STEPS - index
    losses, after = load(source, tmp_path)
    assert [(r.task.id.split("/", 1)[1], r.task.context, r.success) for r in after.episodes] == [
        ("minari/test-any-v0/00", (0.5, 2.0), False),
        ("minari/test-any-v0/01", (1.5, 2.0), True),
        ("minari/test-any-v0/00", (0.5, 2.0), True),
    ]
    assert {"context", "success"}.isdisjoint(losses)
    assert validate(tmp_path / "b.hdf5").ok


@pytest.mark.parametrize(
    ("stated", "said"),
    [
        ({"task_column": "infos/rom"}, "no 'infos/rom'"),
        ({"context_columns": ("rewards",)}, "its rewards changes within the episode"),
        ({"task_column": "observations/goal"}, "no name of a task"),
        ({"action_low": (0.0,), "action_high": (0.1,)}, "outside .* state the range"),
    ],
)
def test_tasks_that_are_not_there(stated, said, tmp_path):
    source = goals([0.5, 2], 7)
    with pytest.raises(DemokitError, match=said):
        import_dataset(source, "minari", tmp_path / "b.hdf5", stated=Stated(**stated))
    assert not (tmp_path / "b.hdf5").exists()
