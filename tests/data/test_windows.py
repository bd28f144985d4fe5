"""Windows for PyTorch: every step of every long enough episode, in any number of processes."""

import pickle
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from demokit.data import DatasetWriter, from_arrays, open_dataset
from demokit.errors import DemokitError

torch = pytest.importorskip("torch")

from demokit.data.windows import TaskBalancedSampler, Windows  # noqa: E402

LENGTHS = [5, 7, 3, 9]


@pytest.fixture
def path(tmp_path, metadata, make_episode):
    with DatasetWriter(tmp_path / "a.hdf5", metadata) as writer:
        for i, steps in enumerate(LENGTHS):
            writer.add(make_episode(i, steps=steps))
        return writer.finish()


def test_every_window_once(path):
    windows, dataset = Windows(path, 4), open_dataset(path)
    assert len(windows) == 2 + 4 + 0 + 6
    seen = set()
    for item in windows:
        episode, start = int(item["episode"]), int(item["start"])
        seen.add((episode, start))
        whole = dataset[episode]
        np.testing.assert_array_equal(
            item["observations"], np.asarray(whole.observations)[start : start + 4]
        )
        np.testing.assert_array_equal(item["actions"], whole.actions[start : start + 4])
        assert windows.task_ids[int(item["task"])] == whole.task.id
        assert not any("privileged" in name for name in item)
    assert seen == {(0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (1, 3), *((3, s) for s in range(6))}


def test_windows_of_a_dataset_and_of_a_selection(path):
    whole = open_dataset(path)
    assert Windows(whole, 4).places == Windows(path, 4).places == Windows(str(path), 4).places
    some = Windows(whole.select([3, 1]), 4)
    assert [place.episode for place in some.places] == [3] * 6 + [1] * 4
    np.testing.assert_array_equal(some[0]["actions"], whole[3].actions[:4])
    sent = pickle.loads(pickle.dumps(some))
    np.testing.assert_array_equal(sent[6]["observations"], whole[1].observations[:4])
    with pytest.raises(DemokitError, match="no window"):
        Windows(whole[2:3], 4)


def test_contexts_are_those_of_the_tasks(path):
    dataset = open_dataset(path)
    windows = Windows(dataset, 4)
    contexts = {task.id: task.context for task in dataset.metadata.tasks}
    assert windows.contexts.shape == (len(windows.task_ids), 2)
    for item in windows:
        own = contexts[windows.task_ids[int(item["task"])]]
        np.testing.assert_array_equal(item["context"], np.float32(own))


def test_stand_ins_are_no_contexts(tmp_path):
    episode = {"observations": np.zeros((6, 2)), "actions": np.zeros((5, 1))}
    windows = Windows(from_arrays(tmp_path / "a.hdf5", [episode]), 4)
    assert windows.contexts is None
    assert "context" not in windows[0]


def test_strides_and_named_arrays(path):
    windows = Windows(path, 3, stride=3, names=["privileged/expert_action", "rewards"])
    assert len(windows) == 1 + 2 + 1 + 3
    assert windows[0]["privileged/expert_action"].shape == (3, 2)
    assert windows[0]["rewards"].dtype == torch.float64


def test_labels_are_what_the_steps_teach(path):
    """Recorded by a script: its own actions, without the noise on those that were executed."""
    windows, dataset = Windows(path, 4, names=["actions", "labels"]), open_dataset(path)
    for item in windows:
        episode = dataset[int(item["episode"])]
        rows = slice(int(item["start"]), int(item["start"]) + 4)
        np.testing.assert_array_equal(item["labels"], episode.privileged["expert_action"][rows])
        np.testing.assert_array_equal(item["actions"], episode.actions[rows])


@pytest.mark.parametrize("workers", [0, 2])
def test_worker_processes_read_the_same(path, workers):
    windows = Windows(path, 4)
    windows[0]  # open in this process, before the workers are made
    loader = torch.utils.data.DataLoader(windows, batch_size=5, num_workers=workers)
    batches = list(loader)
    actions = torch.cat([batch["actions"] for batch in batches])
    expected = torch.stack([item["actions"] for item in windows])
    assert torch.equal(actions, expected)
    assert len(pickle.dumps(windows)) < 5000


def test_tasks_are_drawn_equally_often(path):
    windows = Windows(path, 3)  # tasks 0, 1, 2 with 3 + 7, 5 and 1 windows
    sampler = TaskBalancedSampler(windows, num_samples=300, seed=1)
    drawn = list(sampler)
    assert len(drawn) == len(sampler) == 300
    assert Counter(windows.places[i].task for i in drawn) == {0: 100, 1: 100, 2: 100}
    assert set(drawn) == set(range(len(windows)))
    assert list(sampler) != drawn
    assert list(TaskBalancedSampler(windows, num_samples=300, seed=1)) == drawn
    loader = torch.utils.data.DataLoader(windows, batch_size=6, sampler=sampler)
    assert next(iter(loader))["actions"].shape == (6, 3, 2)


def test_what_cannot_be(path, tmp_path, metadata, make_episode):
    with pytest.raises(DemokitError, match="no window of 10 steps in split 'train'"):
        Windows(path, 10)
    with pytest.raises(DemokitError, match="no window of 3 steps in split 'validation'"):
        Windows(path, 3, split="validation")
    with pytest.raises(DemokitError, match="no array 'nothing'"):
        Windows(path, 3, names=["nothing"])
    with pytest.raises(DemokitError, match="1 or more"):
        Windows(path, 0)
    tasks = tuple(replace(task, split="validation") for task in metadata.tasks)
    with DatasetWriter(tmp_path / "v.hdf5", replace(metadata, tasks=tasks)) as writer:
        writer.add(replace(make_episode(0), task=tasks[0]))
        writer.finish()
    assert len(Windows(tmp_path / "v.hdf5", 5, split="validation")) == 1
