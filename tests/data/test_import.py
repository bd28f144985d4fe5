"""Files of others as people have them: what is sound comes in, all the rest is named."""

import io
import json
import os
from importlib.util import find_spec

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memory import growth
from PIL import Image

from demokit.data import open_dataset
from demokit.data.convert import import_dataset
from demokit.data.convert.foreign import distinct
from demokit.data.validation import validate
from demokit.errors import DemokitError

needs_arrow = pytest.mark.skipif(find_spec("pyarrow") is None, reason="needs pyarrow")
STEPS = 4


def load(source, name, **options):
    """What is said of the import, and the dataset."""
    target = source.with_name("imported.hdf5")
    said = dict(import_dataset(source, name, target, overwrite=True, **options))
    return said, open_dataset(target)


# -- LeRobot ---------------------------------------------------------------------------------------


def png(image):
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return {"bytes": stream.getvalue(), "path": None}


def lerobot(folder, frames, features, *, rows=({},), **info):
    """A LeRobot 3.0 folder, written with pyarrow alone; STEPS frames for each of `rows`."""
    import pyarrow as arrow
    from pyarrow import parquet

    count = STEPS * len(rows)
    columns = {"action": np.zeros((count, 2), np.float32).tolist()}
    columns |= {"observation.state": np.ones((count, 3), np.float32).tolist(), **frames}
    columns |= {"episode_index": np.repeat(np.arange(len(rows)), STEPS).tolist()}
    columns |= {"frame_index": list(range(STEPS)) * len(rows)}
    vector = {"dtype": "float32", "names": None}
    described = {"action": {**vector, "shape": [2]}, "observation.state": {**vector, "shape": [3]}}
    described |= {"frame_index": {"dtype": "int64", "shape": [1], "names": None}, **features}
    about = {"codebase_version": "v3.0", "robot_type": "arm", "fps": 30, "features": described}
    about |= {"total_episodes": len(rows), **info}
    place = {"data/chunk_index": 0, "data/file_index": 0, "length": STEPS, "tasks": ["pick"]}
    table = [{**place, "episode_index": index, **row} for index, row in enumerate(rows)]
    for path, content in (("data", arrow.table(columns)), ("meta/episodes", table)):
        (folder / path / "chunk-000").mkdir(parents=True)
        content = content if path == "data" else arrow.Table.from_pylist(content)
        parquet.write_table(content, folder / path / "chunk-000/file-000.parquet")
    (folder / "meta/info.json").write_text(json.dumps(about))
    return folder


FLAG = {"dtype": "bool", "shape": [1], "names": None}
LAST = [False] * (STEPS - 1) + [True]
NEVER = [False] * STEPS


@needs_arrow
@pytest.mark.parametrize(
    ("frames", "terminated", "said"),
    [
        ({"next.done": LAST}, False, True),
        ({"next.done": NEVER}, False, False),
        ({"next.done": LAST, "next.truncated": LAST}, False, False),
        ({"next.done": LAST, "next.truncated": NEVER}, True, False),
        ({"next.done": LAST, "next.terminated": LAST, "next.truncated": NEVER}, True, False),
        ({"next.done": LAST, "next.terminated": NEVER}, False, False),
        ({}, False, True),
    ],
)
def test_an_end_is_a_termination_only_where_the_source_says_so(frames, terminated, said, tmp_path):
    source = lerobot(tmp_path / "l", frames, dict.fromkeys(frames, FLAG))
    losses, after = load(source, "lerobot")
    assert after[0].terminations.tolist() == [False, False, False, terminated]
    assert after[0].truncations[-1] != terminated
    assert ("end" in losses) is said


@needs_arrow
def test_every_column_and_key_of_lerobot_is_carried_or_named(tmp_path):
    number = {"dtype": "float32", "shape": [1], "names": None}
    frames = {
        "next.success": LAST,
        "complementary_info.discrete_penalty": [0.5] * STEPS,
        "is_intervention": LAST,
        "undescribed": [1] * STEPS,
    }
    features = {"next.success": FLAG, "is_intervention": FLAG}
    features |= {"complementary_info.discrete_penalty": number}
    features |= {"observation.images.top": {"dtype": "video", "shape": [48, 64, 3]}}
    row = {"stats/action/min": [0.0], "note": "kept", "tasks": ["pick", "place"]}
    more = {"splits": {"train": "0:1", "test": "1:1"}, "tools": [1], "video_path": "x"}
    losses, after = load(lerobot(tmp_path / "l", frames, features, rows=[row], **more), "lerobot")
    assert set(losses) == {
        *("state", "model", "last observation", "context", "rewards", "seed", "end"),
        *("complementary_info.discrete_penalty", "is_intervention", "undescribed"),
        *("observation.images.top", "meta/episodes note", "split test"),
        *("meta/info.json fps", "meta/info.json tools"),
    }
    assert after.episodes[0].success
    assert list(after[0].options["tasks"]) == ["pick", "place"]


@needs_arrow
def test_names_stay_as_many_as_they_were(tmp_path):
    grey = np.arange(STEPS * 48, dtype=np.uint8).reshape(STEPS, 4, 4, 3)
    frames = {"observation.c": [[1.0]] * 2 * STEPS, "observation.images.c": [*map(png, grey)] * 2}
    features = {
        "observation.c": {"dtype": "float32", "shape": [1], "names": ["c"]},
        "observation.images.c": {"dtype": "image", "shape": [4, 4, 3], "names": None},
    }
    rows = [{"tasks": ["C++"]}, {"tasks": ["C"]}]
    _, after = load(lerobot(tmp_path / "l", frames, features, rows=rows), "lerobot")
    assert set(after[0].observations) == {"state", "c", "images.c"}
    np.testing.assert_array_equal(after[0].observations["images.c"][:-1], grey)
    tasks = [record.task.id for record in after.episodes]
    assert len(set(tasks)) == 2
    assert [list(episode.options["tasks"]) for episode in after] == [["C++"], ["C"]]


def test_distinct_is_one_to_one():
    names = ["observation.c", "observation.images.c", "observation.x"]
    short = lambda name: name.rpartition(".")[2]  # noqa: E731
    longer = lambda name: name.partition(".")[2]  # noqa: E731
    found = distinct(names, short, longer)
    assert found == {names[0]: "c", names[1]: "images.c", names[2]: "x"}
    assert sorted(distinct(["C++", "C", "c-2"], str.lower, lambda name: name[0].lower())) == sorted(
        ["C++", "C", "c-2"]
    )


@given(st.lists(st.text("aA/.-2", max_size=4), max_size=8))
def test_distinct_never_makes_two_one(names):
    found = distinct(names, str.lower, lambda name: name.replace("/", "."))
    assert found.keys() == set(names)
    assert len(set(found.values())) == len(found)


def test_many_names_that_come_to_one_are_numbered_at_once():
    names = [f"{'!' * i}" for i in range(1, 20_000)]
    found = distinct([*names, "x-5"], lambda _: "x")
    assert [found[name] for name in ("!", "!!", names[-1])] == ["x-1", "x-2", "x-19999"]
    assert found["x-5"] == "x-20000"


@needs_arrow
def test_actions_of_one_number_and_pictures_with_channels_first(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (STEPS, 6, 8, 3)).astype(np.uint8)
    frames = {"action": [0.25] * STEPS, "observation.images.front": [*map(png, pixels)]}
    picture = {"dtype": "image", "shape": [3, 6, 8], "names": ["channels", "height", "width"]}
    features = {"action": {"dtype": "float32", "shape": [1], "names": None}}
    features |= {"observation.images.front": picture}
    _, after = load(lerobot(tmp_path / "l", frames, features), "lerobot")
    np.testing.assert_array_equal(after[0].actions, np.full((STEPS, 1), 0.25, np.float32))
    np.testing.assert_array_equal(after[0].observations["front"][:-1], pixels)


@needs_arrow
def test_episodes_of_lerobot_that_are_not_whole_are_named(tmp_path):
    rows = [{}, {"length": 3}, {"data/file_index": 7}, {"length": 0, "episode_index": 9}]
    source = lerobot(tmp_path / "l", {}, {}, rows=rows, total_episodes=5)
    losses, after = load(source, "lerobot")
    assert len(after) == 1
    assert "4 frames, not 3" in losses["episode 1"]
    assert "cannot be read" in losses["episode 2"]
    assert "no steps" in losses["episode 9"]
    assert "says 5, but meta/episodes has 4" in losses["meta/info.json total_episodes"]
    assert "5 frames that are of no episode" in losses


@needs_arrow
def test_ranges_of_lerobot_are_splits(tmp_path):
    splits = {"train": "0:1", "val": "1:2"}
    source = lerobot(tmp_path / "l", {}, {}, rows=[{}, {}], splits=splits)
    losses, after = load(source, "lerobot")
    assert [record.task.split for record in after.episodes] == ["train", "validation"]
    assert not any("split" in what for what in losses)


@needs_arrow
def test_a_range_of_lerobot_is_as_long_as_there_are_episodes(tmp_path):
    splits = {"train": "0:5000000", "val": "1:5000000"}
    claimed = {"splits": splits, "total_episodes": 5 * 10**6}
    source = lerobot(tmp_path / "l", {}, {}, rows=[{}, {}], **claimed)
    with growth() as grown:
        losses, after = load(source, "lerobot")
    assert grown.kb < 100_000
    assert [record.task.split for record in after.episodes] == ["train", "validation"]
    assert "says 5000000, but meta/episodes has 2" in losses["meta/info.json total_episodes"]


# -- robomimic -------------------------------------------------------------------------------------


def robomimic(path, *demos):
    """A robomimic file: each demo is a dict of arrays by path, and of attributes by @name."""
    with h5py.File(path, "w") as file:
        about = json.dumps({"env_name": "Lift", "type": 1, "env_kwargs": {"robots": ["Panda"]}})
        file.create_group("data").attrs.update({"env_args": about, "total": 12, "date": "today"})
        for index, demo in enumerate(demos):
            group = file.create_group(f"data/demo_{index}")
            for name, value in demo.items():
                if name.startswith("@"):
                    group.attrs[name[1:]] = value
                else:
                    group[name] = value
    return path


def demo(**more):
    found = {"actions": np.full((STEPS, 2), 0.5), "obs/eef": np.ones((STEPS, 3))}
    return {**found, **{name.replace("__", "/"): value for name, value in more.items()}}


def test_groups_of_observations_are_names_with_dots(tmp_path):
    first = demo(obs__cam__depth=np.ones((STEPS, 2)), states__arm__q=np.ones(STEPS))
    losses, after = load(robomimic(tmp_path / "r.hdf5", {**first, "obs/eef.x": np.ones(STEPS)}),
                         "robomimic")  # fmt: skip
    assert set(after[0].observations) == {"eef", "eef.x", "cam.depth"}
    assert "states/arm/q" in losses


def test_privileged_rows_of_robomimic_say_context_and_success(tmp_path):
    """A file of ours that lost what demokit keeps of each demo."""
    solved, goal = np.arange(STEPS + 1) == STEPS, np.ones((STEPS + 1, 2))
    first = demo(privileged__context=goal, privileged__success=solved, rewards=np.zeros(STEPS))
    other = demo(privileged__context=2 * goal, privileged__success=solved & False)
    _, after = load(robomimic(tmp_path / "r.hdf5", first, other | {"rewards": np.ones(STEPS)}),
                    "robomimic")  # fmt: skip
    found = [(r.task.id, r.task.context, r.success) for r in after.episodes]
    assert found == [
        ("lift/robomimic/train/00/00", (1.0, 1.0), True),
        ("lift/robomimic/train/00/01", (2.0, 2.0), False),
    ]
    assert validate(after.path).ok


def test_two_paths_never_become_one_name(tmp_path):
    demos = {**demo(), "obs/a.b": np.zeros(STEPS), "obs/a/b": np.ones(STEPS)}
    _, after = load(robomimic(tmp_path / "r.hdf5", demos), "robomimic")
    found = after[0].observations
    assert len(found) == 3
    assert {rows[0].item() for name, rows in found.items() if name != "eef"} == {0.0, 1.0}


def test_demos_that_are_not_sound_are_named_and_the_others_come_in(tmp_path):
    nothing = {"actions": np.zeros((0, 2)), "obs/eef": np.zeros((0, 3))}
    blind = {"obs/eef": np.ones((STEPS, 3))}
    source = robomimic(
        tmp_path / "r.hdf5",
        nothing,
        demo(),
        blind,
        demo(actions=np.full((STEPS, 2), np.nan)),
        demo(obs__eef=np.full((STEPS, 3), np.inf)),
        demo(obs__more=np.ones(STEPS)),
        demo(rewards=np.ones(3)),
        demo(),
    )
    losses, after = load(source, "robomimic")
    assert len(after) == 2
    assert "no steps" in losses["demo_0"]
    assert "no 'actions'" in losses["demo_2"]
    assert "actions that are not finite" in losses["demo_3"]
    assert "observations eef that are not finite" in losses["demo_4"]
    assert "first episode" in losses["demo_5"]
    assert "rewards of float64 (3,)" in losses["demo_6"]


def test_a_file_without_any_actions_says_so(tmp_path):
    source = robomimic(tmp_path / "r.hdf5", {"obs/eef": np.ones((STEPS, 3))})
    with pytest.raises(DemokitError, match=r"no episode that can be imported.*no 'actions'"):
        load(source, "robomimic")
    assert not (tmp_path / "imported.hdf5").exists()


@pytest.mark.parametrize(
    ("rows", "dtype"),
    [
        (np.array([True, False, True, True]), "float32"),
        (np.arange(STEPS, dtype=np.int8), "float32"),
        (np.arange(STEPS) + 2**40, "float64"),
        (np.arange(STEPS, dtype=np.uint32) + 2**31, "float64"),
        (np.arange(STEPS, dtype=">f4"), "float32"),
    ],
)
def test_whole_numbers_and_flags_are_numbers(rows, dtype, tmp_path):
    losses, after = load(robomimic(tmp_path / "r.hdf5", demo(obs__grip=rows)), "robomimic")
    found = after[0].observations["grip"]
    assert str(found.dtype) == dtype
    np.testing.assert_array_equal(found[:-1], rows)
    assert ("type of observation grip" in losses) is (rows.dtype.kind != "f")


def test_whole_actions_are_numbers(tmp_path):
    source = robomimic(tmp_path / "r.hdf5", demo(actions=np.array([0, 1, 2, 3])))
    losses, after = load(source, "robomimic")
    np.testing.assert_allclose(after[0].actions[:, 0], [0, 1 / 3, 2 / 3, 1])
    assert {"type of actions", "action range"} <= set(losses)


def test_what_is_no_row_of_numbers_is_named(tmp_path):
    text = np.array([b"a"] * STEPS)
    source = robomimic(tmp_path / "r.hdf5", demo(obs__word=text, obs__weight=np.float64(3)))
    losses, after = load(source, "robomimic")
    assert set(after[0].observations) == {"eef"}
    assert "no numbers" in losses["obs/word"]
    assert "no row of numbers" in losses["obs/weight"]


@pytest.mark.parametrize(
    ("more", "success", "said"),
    [
        ({"@success": True}, True, False),
        ({"@success": np.False_, "rewards": np.ones(STEPS)}, False, False),
        ({"rewards": np.array([0, 0, 0, 1.0])}, True, False),
        ({"rewards": np.array([0, 0, 0, 0.7])}, False, True),  # dense: it says nothing of success
        ({"@success": "False"}, False, True),
    ],
)
def test_success_is_what_the_source_says(more, success, said, tmp_path):
    losses, after = load(robomimic(tmp_path / "r.hdf5", {**demo(), **more}), "robomimic")
    assert after.episodes[0].success is success
    assert ("success" in losses) is said
    assert ("attribute success" in losses) is isinstance(more.get("@success"), str)


@pytest.mark.parametrize(("dones", "said"), [([0, 0, 0, 1], True), ([0, 0, 0, 0], False)])
def test_dones_say_that_an_episode_ended_not_how(dones, said, tmp_path):
    losses, after = load(robomimic(tmp_path / "r.hdf5", demo(dones=np.array(dones))), "robomimic")
    assert after[0].truncations[-1]
    assert ("end" in losses) is said


def test_dones_within_an_episode_are_said(tmp_path):
    source = robomimic(tmp_path / "r.hdf5", demo(dones=np.array([0, 1, 0, 1])))
    assert "it is set before" in load(source, "robomimic")[0]["dones"]


def test_every_mask_and_attribute_is_carried_or_named(tmp_path):
    first = {**demo(), "@model_file": "<mujoco/>", "@seed": 5, "@num_samples": 3}
    source = robomimic(tmp_path / "r.hdf5", first, demo())
    with h5py.File(source, "r+") as file:
        file["mask/train"], file["mask/valid"] = [b"demo_0"], [b"demo_1", b"demo_7"]
        file["mask/20_percent"] = np.array([b"demo_0"])
        file["mask/train"].attrs["by"] = "me"
        file["data/demo_0/actions"].attrs["unit"] = "m"
        file["notes"], file["data/notes"] = np.zeros(2), np.zeros(2)
        file.attrs["version"] = 1
    with h5py.File(source, "r+") as file:
        for name in ("train", "valid"):
            rows = file[f"mask/{name}"][()]
            del file[f"mask/{name}"]
            file[f"mask/{name}"] = np.array(rows, dtype="S")
    losses, after = load(source, "robomimic")
    assert [record.task.split for record in after.episodes] == ["train", "validation"]
    assert [record.seed for record in after.episodes] == [5, 0]
    wanted = {"attribute model_file", "attribute num_samples", "mask 20_percent", "mask valid"}
    wanted |= {"attribute actions/unit", "notes", "data/notes", "attribute /version"}
    wanted |= {"attribute date", "attribute env_args"}
    assert wanted <= set(losses)
    assert "demo_7" in losses["mask valid"]
    assert "in 1 of 2" in losses["attribute model_file"]


def test_a_raw_robosuite_file_is_told_what_it_lacks(tmp_path):
    with h5py.File(tmp_path / "r.hdf5", "w") as file:
        file["data/demo_1/actions"] = np.zeros((174, 7))
        file["data/demo_1/states"] = np.zeros((174, 32))
        file["data"].attrs["env"] = "Lift"
    with pytest.raises(DemokitError, match=r"states and no observations.*dataset_states_to_obs"):
        load(tmp_path / "r.hdf5", "robomimic")


names = st.text("abc./", min_size=1, max_size=5).filter(
    lambda name: not {"", ".", ".."} & set(name.split("/"))
)
values = st.sampled_from(
    [
        np.zeros((STEPS, 2)),
        np.ones(STEPS, np.int64),
        np.ones(STEPS, bool),
        np.ones((STEPS, 5, 5, 3), np.uint8),
        np.array([b"text"] * STEPS),
        np.float32(1.0),
    ]
)


@settings(max_examples=20, deadline=None)
@given(arrays=st.dictionaries(names, values, max_size=6))
def test_whatever_a_file_holds_is_carried_or_named(arrays, tmp_path_factory):
    path = tmp_path_factory.mktemp("any") / "r.hdf5"
    robomimic(path, demo())
    with h5py.File(path, "r+") as file:
        for name, value in arrays.items():
            for top in ("obs", "extra"):
                try:
                    file[f"data/demo_0/{top}/{name}"] = value
                except (ValueError, OSError):  # a group is there, or an array on the way
                    continue
        stored = []
        file["data/demo_0"].visititems(
            lambda name, node: stored.append(name) if isinstance(node, h5py.Dataset) else None
        )
    losses, after = load(path, "robomimic")
    carried = len(after[0].named_observations()) + 1  # and the actions
    assert carried + len({name for name in stored if name in losses}) == len(stored)


# -- Parquet that lies -----------------------------------------------------------------------------


def growth_of(action):
    """What an action raised, and by how many kB the memory of this process grew."""
    with growth() as grown, pytest.raises(DemokitError) as caught:
        action()
    return str(caught.value), grown.kb


@needs_arrow
@pytest.mark.parametrize("place", ["meta/episodes", "data"])
def test_parquet_that_is_small_and_would_be_large_is_refused(place, tmp_path):
    """One text of a megabyte, named two thousand times."""
    import pyarrow as arrow
    from pyarrow import parquet

    folder = lerobot(tmp_path / "l", {}, {})
    tasks = arrow.DictionaryArray.from_arrays([0] * 2000, ["x" * 2**20])
    path = folder / place / "chunk-000/file-000.parquet"
    table = arrow.table({"episode_index": [0] * 2000, "tasks": tasks})
    parquet.write_table(table, path, store_schema=False)
    said, grown_kb = growth_of(lambda: load(folder, "lerobot"))
    assert "far more memory than it holds" in said
    assert grown_kb < 100_000


@needs_arrow
@pytest.mark.parametrize("dtype", ["U100000000", "V1000000000", "O", "M8[s]", "nothing", 3, None])
def test_types_that_are_no_numbers_are_not_made(dtype, tmp_path):
    frames = {"next.reward": [1.0] * STEPS}
    feature = {"dtype": dtype, "shape": [1], "names": None}
    folder = lerobot(tmp_path / "l", frames, {"next.reward": feature})
    said, grown_kb = growth_of(lambda: load(folder, "lerobot"))
    assert "next.reward" in said or "values of" in said
    assert grown_kb < 100_000


@needs_arrow
@pytest.mark.parametrize("name", ["meta/info.json", "meta/episodes/chunk-000/file-000.parquet"])
def test_a_pipe_in_a_folder_is_not_read(name, tmp_path):
    folder = lerobot(tmp_path / "l", {}, {})
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(DemokitError, match=r"a pipe, socket or device|no meta/info\.json"):
        load(folder, "lerobot")
