"""A file built by h5py alone, from docs/dataset-format.md, is a dataset like any other."""

import json
import shutil
from dataclasses import replace
from hashlib import sha256

import h5py
import numpy as np
import pytest

from demokit.data import ArraySpec, DatasetMetadata, open_dataset
from demokit.data.catalogue import find_datasets
from demokit.data.metadata import space_from_json, space_to_json, spell_out
from demokit.data.summary import summarize
from demokit.data.validation import validate
from demokit.errors import DemokitError
from demokit.types import Task

BOX = {"type": "Box", "dtype": "float32", "shape": [4]}
STEPS = (3, 5)


def arrays_of(index):
    """Section 3: path -> array."""
    rng, steps = np.random.default_rng(index), STEPS[index]
    ended = np.zeros(steps, bool)
    ended[-1] = True
    return {
        "observations": rng.normal(size=(steps + 1, 4)).astype("f4"),
        "actions": rng.uniform(-1, 1, (steps, 2)).astype("f4"),
        "rewards": rng.normal(size=steps),
        "terminations": np.zeros(steps, bool),
        "truncations": ended,
        "infos/privileged/state": rng.normal(size=(steps + 1, 9)),
        "infos/privileged/context": np.tile([0.25, -1.0], (steps + 1, 1)),
        "infos/privileged/success": np.arange(steps + 1) == steps,
    }


def root_attributes():
    """Section 2."""
    low, high = [-float("inf")] * 4, [float("inf")] * 4
    action = {"type": "Box", "dtype": "float32", "shape": [2], "low": [-1, -1], "high": [1, 1]}
    source = {"recorder": "by hand", "expert": "a person", "noise_std": None, "seed": None}
    return {
        "demokit_schema_version": 1,
        "total_episodes": 2,
        "total_steps": sum(STEPS),
        "family": "writing",
        "environment": json.dumps({"family": "writing", "reward": "dense", "horizon": 5}),
        "task_set": "letters",
        "tasks": json.dumps([{"id": "writing/a", "context": [0.25, -1.0], "split": "train"}]),
        "observation_space": json.dumps({**BOX, "low": low, "high": high}),
        "action_space": json.dumps(action),
        "model_hash": "",
        "mujoco_version": "4.0.0",
        "provenance": json.dumps(source),
        "license": "CC0-1.0",
        "description": "Letters.",
    }


def record_attributes(index, arrays):
    """Section 3, with the checksums of section 5."""
    about = {
        "id": index,
        "total_steps": STEPS[index],
        "seed": 7,
        "success": True,
        "return": float(arrays["rewards"].sum()),
        "recorder": "by hand",
    }
    task = ["writing/a", [0.25, -1.0], "train"]
    signed = {**about, "task": task, "options": {"pen": {"width": 2}}}
    total = sha256()
    for path in sorted(arrays):
        values = arrays[path]
        total.update(f"{path} {values.dtype.str} {values.shape};".encode() + values.tobytes())
    return {
        **about,
        "task_id": task[0],
        "context": np.array(task[1]),
        "split": task[2],
        "options/pen/width": 2,
        "sha256": total.hexdigest(),
        "record_sha256": sha256(json.dumps(signed, sort_keys=True).encode()).hexdigest(),
    }


@pytest.fixture(params=["v110", "earliest"])
def path(request, tmp_path):
    with h5py.File(tmp_path / "letters.hdf5", "w", libver=(request.param, "v110")) as file:
        attributes = root_attributes()
        text = json.dumps(attributes, sort_keys=True)
        file.attrs.update({**attributes, "metadata_sha256": sha256(text.encode()).hexdigest()})
        for index in range(2):
            group, arrays = file.create_group(f"episode_{index}"), arrays_of(index)
            for name, values in arrays.items():
                group.create_dataset(name, data=values)
            group.attrs.update(record_attributes(index, arrays))
    return tmp_path / "letters.hdf5"


def test_it_is_read(path):
    dataset = open_dataset(path)
    assert (len(dataset), dataset.total_steps, dataset.metadata.family) == (2, 8, "writing")
    assert dataset.metadata.license == "CC0-1.0"
    for index in range(2):
        dataset.verify(index)
        episode, arrays = dataset[index], arrays_of(index)
        np.testing.assert_array_equal(episode.observations, arrays["observations"])
        np.testing.assert_array_equal(episode.actions, arrays["actions"])
        np.testing.assert_array_equal(episode.privileged["state"], arrays["infos/privileged/state"])
        assert episode.options == {"pen": {"width": 2}}
        assert episode.task.context == (0.25, -1.0)


def test_it_validates(path):
    report = validate(path)
    assert report.ok, report.errors
    digests = [record.digest for record in open_dataset(path).episodes]
    assert summarize(open_dataset(path)).checksum == sha256("".join(digests).encode()).hexdigest()


def test_its_checksums_are_those_of_the_page(path):
    with h5py.File(path, "r+") as file:
        file["episode_1/rewards"][0] += 1
    assert not validate(path).ok
    with h5py.File(path, "r+") as file:
        file["episode_1/rewards"][0] = arrays_of(1)["rewards"][0]
        file.attrs["description"] = "Numbers."
    assert {finding.check for finding in validate(path).errors} == {"checksum"}


def test_bounds_of_images_take_no_room():
    """One number for all, or as files had them before: nested lists of the full shape."""
    image = ArraySpec((480, 640, 3), "uint8", 0, 255)
    space = {"image": image, "x": ArraySpec((2,), "float32", -np.inf, np.inf)}
    written = json.dumps(space_to_json(space))
    assert len(written) < 300
    assert space_from_json(json.loads(written)) == space
    spelt = spell_out(json.loads(written))
    assert np.shape(spelt["subspaces"]["image"]["low"]) == (480, 640, 3)
    assert space_from_json(spelt) == space
    assert spell_out(spelt) == spelt


@pytest.mark.parametrize(
    ("shape", "low", "problem"),
    [((50_000, 50_000, 3), 0, "too large"), ((2, 2), [0, 0, 0], "another shape")],
)
def test_spaces_that_minari_cannot_have(shape, low, problem):
    box = {"type": "Box", "dtype": "uint8", "shape": list(shape), "low": low, "high": 255}
    with pytest.raises(DemokitError, match=problem):
        spell_out(box)


def test_many_spaces_are_too_many_for_minari():
    box = {"type": "Box", "dtype": "uint8", "shape": [4096, 4096], "low": 0, "high": 255}
    with pytest.raises(DemokitError, match="A space of 67108864 numbers is too large"):
        spell_out({"type": "Dict", "subspaces": dict.fromkeys("abcd", box)})


@pytest.mark.parametrize(
    ("name", "spaces", "said"),
    [
        ("observation_space", [[2 * 10**9]], "more numbers than the largest image"),
        ("observation_space", [[10**5, 10**5]], "more numbers than the largest image"),
        ("action_space", [[2 * 10**9]], "more numbers than the largest image"),
        ("observation_space", [[2**19]] * 3, f"have {3 * 2**19 + 2} numbers, and at most 1048576"),
    ],
)
def test_a_claim_of_size_takes_no_memory(name, spaces, said, metadata):
    """A file of a few kilobytes said how wide its vectors are, and their bounds filled memory."""
    boxes = [
        {"type": "Box", "dtype": "float32", "shape": shape, "low": 0, "high": 1} for shape in spaces
    ]
    many = {"type": "Dict", "subspaces": {str(i): box for i, box in enumerate(boxes)}}
    said_so = {**metadata.to_attributes(), name: json.dumps(boxes[0] if len(boxes) == 1 else many)}
    with pytest.raises(DemokitError, match=said):
        DatasetMetadata.from_attributes(said_so, "a.hdf5")


def test_contexts_have_one_length(metadata):
    wide = Task("point", "point/wide", (1.0, 2.0, 3.0), "train")
    with pytest.raises(DemokitError, match=r"contexts of one length, not of \[2, 3\] numbers"):
        replace(metadata, tasks=(*metadata.tasks, wide))


TRAINED = {
    "sha256": "1f",
    "env_steps": 9,
    "task_set": "test",
    "returns": {"point/a": 1.5},
    "success": {"point/a": 1.0},
}


def with_source(metadata, **values):
    """Root attributes whose provenance says something else."""
    about = metadata.to_attributes()
    return {**about, "provenance": json.dumps({**json.loads(about["provenance"]), **values})}


def test_what_is_said_of_a_trained_expert_is_whole(metadata):
    said = with_source(metadata, trained=TRAINED)
    assert DatasetMetadata.from_attributes(said, "a.hdf5").provenance.trained == TRAINED
    lacks = [{n: v for n, v in TRAINED.items() if n != name} for name in TRAINED]
    wrong = [{**TRAINED, "returns": 2}, {**TRAINED, "success": [1]}, {**TRAINED, "env_steps": "x"}]
    for trained in (*lacks, *wrong, [1]):
        said = with_source(metadata, trained=trained)
        with pytest.raises(DemokitError, match=r"metadata of a\.hdf5 is damaged"):
            DatasetMetadata.from_attributes(said, "a.hdf5")


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("description", np.array([1.0, 2.0]), "'description' is no text"),
        ("algorithm_name", 3.0, "'algorithm_name' is no text"),
        ("license", np.array([1, 2]), "'license' is no text"),
        ("jpeg_encoding", np.array([1, 0]), "'jpeg_encoding' is an array"),
        ("total_steps", np.array([5, 5]), "'total_steps' is an array"),
    ],
)
def test_root_attributes_are_of_their_kind(name, value, problem, metadata):
    with pytest.raises(DemokitError, match=problem):
        DatasetMetadata.from_attributes({**metadata.to_attributes(), name: value}, "a.hdf5")


def test_the_time_of_a_recording_is_a_text(metadata):
    about = DatasetMetadata.from_attributes(with_source(metadata, created=[1]), "a.hdf5")
    assert about.provenance.created == "[1]"


@pytest.mark.parametrize("count", [2**63, 2**64 - 1])
def test_a_count_that_no_file_can_hold_spoils_no_listing(count, path, invoke):
    sound = shutil.copy(path, path.with_name("sound.hdf5"))
    with h5py.File(path, "r+") as file:
        file.attrs["total_episodes"] = np.uint64(count)
    invoke("inspect", path, exit_code=1)
    found = {entry.name: entry for entry in find_datasets(path.parent)}
    assert f"it says {count} episodes" in found[str(path)].problem
    assert found[str(sound)].summary.episodes == 2
