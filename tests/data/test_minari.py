"""A registered dataset is a Minari dataset, for Minari's own library and command line."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import minari
import numpy as np
import pytest
from gymnasium.spaces import Box
from minari.namespace import list_local_namespaces

from demokit.data import ArraySpec, DatasetWriter, open_dataset
from demokit.data.minari import register
from demokit.data.paths import resolve
from demokit.errors import DemokitError

ID = "demokit/point/test-v0"


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "root"))
    return tmp_path / "root"


@pytest.fixture
def path(tmp_path, metadata, make_episode):
    about = replace(metadata, provenance=replace(metadata.provenance, operator="Ada"))
    with DatasetWriter(tmp_path / "a.hdf5", about) as writer:
        for i in range(3):
            writer.add(make_episode(i, steps=4 + i))
        return writer.finish()


def test_minari_reads_what_we_wrote(root, path):
    folder = register(path, ID)
    assert folder == root / ID
    ours, theirs = open_dataset(path), minari.load_dataset(ID)
    assert (theirs.total_episodes, theirs.total_steps) == (3, 15)
    assert theirs.observation_space.shape == (4,)
    assert (theirs.action_space.low == -1).all()
    for mine, other in zip(ours, theirs.iterate_episodes(), strict=True):
        for name in ("observations", "actions", "rewards", "terminations", "truncations"):
            values = getattr(other, name)
            np.testing.assert_array_equal(values, getattr(mine, name))
            assert values.dtype == getattr(mine, name).dtype
        privileged = other.infos["privileged"]
        assert set(privileged) == set(mine.privileged)
        for name, values in mine.privileged.items():
            np.testing.assert_array_equal(privileged[name], values)
    about = next(iter(theirs.storage.get_episode_metadata([1])))
    assert about["seed"] == ours.episodes[1].seed
    assert about["options"]["attempt"] == 0


def test_the_file_is_linked_not_copied(root, path):
    register(path, ID)
    assert os.path.samefile(path, root / ID / "data" / "main_data.hdf5")
    assert (root / "demokit" / "point" / "namespace_metadata.json").read_text() == "{}"
    assert list_local_namespaces() == ["demokit", "demokit/point"]


def test_another_disk_gets_a_copy(root, path, monkeypatch):
    def refuse(*_):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    register(path, ID)
    assert not os.path.samefile(path, root / ID / "data" / "main_data.hdf5")
    assert len(minari.load_dataset(ID)) == 3


@pytest.mark.usefixtures("root")
def test_minari_lists_and_shows_it(path):
    register(path, ID)
    listed = minari.list_local_datasets()
    assert list(listed) == [ID]
    assert listed[ID]["author"] == ["Ada"]
    tool = Path(sys.executable).parent / "minari"
    shown = subprocess.run([tool, "show", ID], capture_output=True, text=True, check=True)
    assert ID in shown.stdout
    assert "15" in shown.stdout
    assert minari.load_dataset(ID).storage.metadata["dataset_size"] >= 0


@pytest.mark.usefixtures("root")
def test_images_come_back_lossless(tmp_path, metadata, make_episode):
    spaces = {"image": ArraySpec((32, 32, 3), "uint8", 0, 255), "x": metadata.observation_space}
    images = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3)).astype(np.uint8)
    episode = make_episode(0, observations={"image": images, "x": np.ones((6, 4), np.float32)})
    with DatasetWriter(tmp_path / "i.hdf5", replace(metadata, observation_space=spaces)) as writer:
        writer.add(episode)
        register(writer.finish(), ID)
    space = minari.load_dataset(ID).observation_space["image"]
    assert space == Box(0, 255, (32, 32, 3), np.uint8)
    read = minari.load_dataset(ID)[0].observations
    np.testing.assert_array_equal(read["image"], images)
    np.testing.assert_array_equal(read["x"], 1)


@pytest.mark.usefixtures("root")
def test_minari_combines_them(path):
    register(path, ID)
    register(path, "demokit/point/again-v0")
    both = [minari.load_dataset(name) for name in (ID, "demokit/point/again-v0")]
    assert minari.combine_datasets(both, "demokit/point/both-v0").total_episodes == 6


def test_ids_work_wherever_paths_do(root, path):
    register(path, ID)
    assert open_dataset(ID).episodes == open_dataset(path).episodes
    assert resolve(ID) == root / ID / "data" / "main_data.hdf5"
    register(ID, "demokit/point/test-v1")
    assert sorted(minari.list_local_datasets()) == [ID, "demokit/point/test-v1"]


@pytest.mark.parametrize("bad", ["point", "point/x", "a b-v0", "/abs-v0", "../x-v0", "x-v1/"])
def test_malformed_ids_are_refused(root, path, bad):
    with pytest.raises(DemokitError, match="no Minari id"):
        register(path, bad)
    assert not root.exists() or not list(root.iterdir())


def test_what_is_there_is_never_replaced(root, path):
    register(path, ID)
    before = (root / ID / "data" / "metadata.json").read_text()
    with pytest.raises(DemokitError, match="is taken"):
        register(path, ID)
    assert (root / ID / "data" / "metadata.json").read_text() == before
    assert json.loads(before)["jpeg_encoding"] is False


@pytest.mark.usefixtures("root")
def test_an_unknown_id_says_where_it_looked():
    with pytest.raises(DemokitError, match="neither as a path nor under"):
        open_dataset("demokit/point/none-v0")


@pytest.mark.usefixtures("root")
def test_unfinished_recordings_are_not_registered(tmp_path, metadata, make_episode):
    with DatasetWriter(tmp_path / "u.hdf5", metadata) as writer:
        writer.add(make_episode(0))
    with pytest.raises(DemokitError, match="unfinished"):
        register(tmp_path / "u.hdf5", ID)


@pytest.mark.usefixtures("root")
def test_the_environment_can_be_recovered(tmp_path, metadata, make_episode):
    """With the reward, the observations and, where they are known, the tasks of the recording."""
    spaces = {"image": ArraySpec((8, 8, 3), "uint8", 0, 255)}
    about = replace(metadata, task_set="uniform", reward="sparse", observation_space=spaces)
    images = np.zeros((6, 8, 8, 3), np.uint8)
    with DatasetWriter(tmp_path / "v.hdf5", about) as writer:
        writer.add(make_episode(0, observations={"image": images}))
        register(writer.finish(), ID)
    spec = minari.load_dataset(ID).env_spec
    assert spec.id == "demokit/Point-v0"
    assert spec.kwargs == {
        "family": "point",
        "reward": "sparse",
        "observation": "vision",
        "task_set": "uniform",
        "split": "train",
    }


def test_a_recovered_environment_runs(root, path):
    register(path, ID)
    assert (root / ID).exists()
    env = minari.load_dataset(ID).recover_environment()
    env.reset(seed=0)
    env.step(env.action_space.sample())
    env.close()


@pytest.mark.usefixtures("root")
def test_families_of_others_have_no_environment(tmp_path, metadata, make_episode):
    task = replace(metadata.tasks[0], family="alien")
    with DatasetWriter(tmp_path / "x.hdf5", replace(metadata, family="alien", tasks=(task,))) as w:
        w.add(replace(make_episode(0), task=task))
        register(w.finish(), ID)
    with pytest.raises(ValueError, match="Environment cannot be recovered"):
        minari.load_dataset(ID).recover_environment()
