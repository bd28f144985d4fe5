"""What a step teaches: the action of whoever acted there, or the advice of an expert."""

from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from demokit.data import DatasetWriter, Provenance, open_dataset
from demokit.data.edit import merge
from demokit.data.labels import read_labels, require_advice
from demokit.data.summary import summarize
from demokit.data.validation import validate
from demokit.errors import DemokitError

DATASETS = Path(__file__).parents[2] / "datasets"
# Of the actions that the shipped datasets have always taught, float32, in the order of episodes.
TAUGHT = {
    "push_state": "8e592b453ecbe8c2316e1287cb8817d788736fec9f4ae1020188b1b610ff696e",
    "push_vision": "8e592b453ecbe8c2316e1287cb8817d788736fec9f4ae1020188b1b610ff696e",
    "door_state": "138c4877899b0d055e6a1c888de826cc54f1c330136fe4c4b6704ac907b0fce7",
}
STEPS = 5
TAKEN_OVER = [False, False, True, True, False]


@pytest.fixture
def write(tmp_path, metadata, make_episode):
    """Writes a dataset of one recorder's episodes; returns it."""

    def written(recorder, acted=None, *, advice=True, expert="scripted", count=1):
        source = Provenance(recorder, expert, 0.0, 0)
        path = tmp_path / f"{recorder}-{expert}-{advice}.hdf5"
        with DatasetWriter(path, replace(metadata, provenance=source)) as writer:
            for index in range(count):
                writer.add(changed(make_episode(index, STEPS), recorder, acted, advice))
            return open_dataset(writer.finish())

    return written


def changed(episode, recorder, acted, advice):
    """The episode with another recorder, who acted in each step, and with advice or without."""
    privileged = dict(episode.privileged)
    if acted is not None:
        privileged["by_expert"] = np.array([*acted, acted[-1]])
    if not advice:
        del privileged["expert_action"]
    return replace(episode, recorder=recorder, privileged=privileged)


def labels(dataset, kind="auto"):
    return read_labels(dataset, 0, 0, STEPS, kind)


def advice(dataset):
    return dataset[0].privileged["expert_action"][:-1]


@pytest.mark.parametrize("name", TAUGHT)
def test_shipped_datasets_teach_what_they_always_did(name):
    found = sha256()
    with open_dataset(DATASETS / f"{name}.hdf5") as dataset:
        for index, record in enumerate(dataset.episodes):
            read = read_labels(dataset, index, 0, record.length)
            assert read.advised.all()
            found.update(read.action.tobytes())
    assert found.hexdigest() == TAUGHT[name]


def test_what_a_person_did_is_taught_whatever_the_expert_advises(write):
    dataset = write("teleop", [False] * STEPS)
    read = labels(dataset)
    np.testing.assert_array_equal(read.action, dataset[0].actions)
    assert read.action.dtype == np.float32
    assert not read.advised.any()
    np.testing.assert_array_equal(labels(dataset, "executed").action, dataset[0].actions)
    np.testing.assert_array_equal(labels(dataset, "expert").action, advice(dataset))
    said = summarize(dataset).labels.words()
    assert said == "the person's action in 5 steps; an expert's advice in 5 steps is not used"


def test_an_episode_of_both_is_labelled_step_by_step(write):
    dataset = write("teleop", TAKEN_OVER)
    read = labels(dataset)
    assert read.advised.tolist() == TAKEN_OVER
    expected = [
        (advice(dataset) if by_expert else dataset[0].actions)[step]
        for step, by_expert in enumerate(TAKEN_OVER)
    ]
    np.testing.assert_array_equal(read.action, expected)
    assert summarize(dataset).labels == (3, 0, 2, 5)


@pytest.mark.parametrize("recorder", ["scripted", "sac"])
def test_a_noisy_expert_teaches_its_own_action(recorder, write):
    dataset = write(recorder, [True] * STEPS)
    np.testing.assert_array_equal(labels(dataset).action, advice(dataset))
    np.testing.assert_array_equal(labels(dataset, "executed").action, dataset[0].actions)


def test_where_a_policy_acted_the_expert_was_asked(write):
    dataset = write("dagger", TAKEN_OVER)
    np.testing.assert_array_equal(labels(dataset).action, advice(dataset))
    assert labels(dataset).advised.all()


def test_advice_in_a_file_that_does_not_say_who_acted_is_taught(write):
    dataset = write("scripted")
    np.testing.assert_array_equal(labels(dataset).action, advice(dataset))


@pytest.mark.parametrize("recorder", ["scripted", "random", "teleop", "dagger"])
def test_a_random_expert_never_labels(recorder, write):
    dataset = write(recorder, [True] * STEPS, expert="random")
    np.testing.assert_array_equal(labels(dataset).action, dataset[0].actions)
    with pytest.raises(DemokitError, match="5 of 5 steps hold no expert's advice"):
        labels(dataset, "expert")


def test_without_advice_the_executed_action_is_taught(write):
    dataset = write("teleop", [False] * STEPS, advice=False)
    np.testing.assert_array_equal(labels(dataset).action, dataset[0].actions)
    assert summarize(dataset).labels.words() == "the person's action in 5 steps"
    with pytest.raises(DemokitError, match="5 of 5 steps hold no expert's advice"):
        labels(dataset, "expert")


def test_a_merge_keeps_what_every_part_taught(write, tmp_path):
    known = write("scripted", [True] * STEPS, count=2)
    unknown = write("teleop", TAKEN_OVER, expert="random", count=4)
    merge([known.path, unknown.path], tmp_path / "both.hdf5")
    both = open_dataset(tmp_path / "both.hdf5")
    assert both.metadata.provenance.expert == "several"
    advised = [read_labels(both, index, 0, STEPS).advised.any() for index in range(len(both))]
    assert advised == [True, True, False, False, False, False]
    with pytest.raises(DemokitError, match=r"20 of 30 steps .*, those of 4 of 6 episodes"):
        require_advice(both, range(len(both)))


def test_a_part_of_an_episode_has_its_own_labels(write):
    dataset = write("teleop", TAKEN_OVER)
    whole, part = labels(dataset), read_labels(dataset, 0, 1, 4)
    np.testing.assert_array_equal(part.action, whole.action[1:4])
    np.testing.assert_array_equal(part.advised, whole.advised[1:4])


@pytest.mark.parametrize(
    ("name", "wrong"),
    [("expert_action", np.zeros((STEPS + 1, 7))), ("by_expert", np.ones((STEPS + 1, 2), bool))],
)
def test_labels_that_fit_no_action_are_one_sentence(name, wrong, tmp_path, metadata, make_episode):
    episode = changed(make_episode(0, STEPS), "scripted", [True] * STEPS, advice=True)
    with DatasetWriter(tmp_path / "a.hdf5", metadata) as writer:
        writer.add(replace(episode, privileged={**episode.privileged, name: wrong}))
        path = writer.finish()
    with pytest.raises(DemokitError, match=f"privileged/{name} has another shape"):
        labels(open_dataset(path))
    (found,) = [finding for finding in validate(path).findings if finding.check == "labels"]
    assert (found.severity, found.episode) == ("error", 0)
    assert f"privileged/{name}" in found.message
