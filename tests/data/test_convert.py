"""Conversions: there and back bit for bit, and files of others filled in, marked and reported."""

import json
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec

import h5py
import numpy as np
import pytest
from memory import growth

from demokit.data import ArraySpec, DatasetWriter, from_arrays, open_dataset
from demokit.data.convert import export_dataset, import_dataset
from demokit.data.convert.lerobot_stats import episode_statistics
from demokit.data.labels import count_labels
from demokit.data.validation import validate
from demokit.errors import DemokitError

needs_arrow = pytest.mark.skipif(find_spec("pyarrow") is None, reason="needs pyarrow")
EXPORTS = ["minari", "robomimic", pytest.param("lerobot", marks=needs_arrow)]


@pytest.fixture
def dataset(tmp_path, metadata, make_episode):
    with DatasetWriter(tmp_path / "a.hdf5", replace(metadata, license="MIT")) as writer:
        for i in range(4):
            writer.add(make_episode(i, steps=4 + i))
        return open_dataset(writer.finish())


@pytest.fixture
def images(tmp_path, metadata, make_episode):
    spaces = {"cam": ArraySpec((32, 40, 3), "uint8", 0, 255), "x": metadata.observation_space}
    about = replace(metadata, observation_space=spaces)
    with DatasetWriter(tmp_path / "i.hdf5", about) as writer:
        for i in range(2):
            rng = np.random.default_rng(i)
            cam = rng.integers(0, 256, (6, 32, 40, 3)).astype(np.uint8)
            x = rng.normal(size=(6, 4)).astype(np.float32)
            writer.add(make_episode(i, observations={"cam": cam, "x": x}))
        return open_dataset(writer.finish())


def there_and_back(dataset, name, folder):
    export_dataset(dataset, name, folder / "out")
    source = folder / "out"
    if name == "minari":
        source = next(source.glob("demokit/*/*-v0"))
    assert import_dataset(source, name, folder / "back.hdf5") == ()
    return open_dataset(folder / "back.hdf5")


@pytest.mark.parametrize("name", EXPORTS)
@pytest.mark.parametrize("kind", ["dataset", "images"])
def test_there_and_back_is_bit_for_bit(name, kind, tmp_path, request):
    before = request.getfixturevalue(kind)
    after = there_and_back(before, name, tmp_path)
    assert after.metadata == before.metadata
    assert after.episodes == before.episodes  # with the digests of all arrays
    for index in range(len(after)):
        after.verify(index)


@pytest.fixture
def half_advised(tmp_path, metadata, make_episode):
    """Two episodes by hand, without an expert and with one."""
    with DatasetWriter(tmp_path / "h.hdf5", replace(metadata, license="MIT")) as writer:
        for i, without in enumerate((["expert_action"], [])):
            episode = make_episode(i)
            terms = {n: rows for n, rows in episode.privileged.items() if n not in without}
            terms["by_expert"] = np.zeros(len(episode) + 1, bool)
            writer.add(replace(episode, privileged=terms, recorder="teleop"))
        return open_dataset(writer.finish())


@pytest.mark.parametrize("name", ["minari", "robomimic"])
def test_labels_go_there_and_back(name, half_advised, tmp_path):
    after = there_and_back(half_advised, name, tmp_path)
    assert after.episodes == half_advised.episodes
    assert count_labels(after) == count_labels(half_advised) == (10, 0, 0, 5)


@needs_arrow
def test_lerobot_has_one_set_of_columns(half_advised, tmp_path):
    with pytest.raises(DemokitError, match=r"Episode 1 and .* both have privileged.expert_action"):
        export_dataset(half_advised, "lerobot", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", EXPORTS)
def test_a_dry_run_says_the_same_and_writes_nothing(name, dataset, tmp_path):
    said = export_dataset(dataset, name, tmp_path / "out", dry_run=True)
    assert said
    assert not (tmp_path / "out").exists()
    assert export_dataset(dataset, name, tmp_path / "out") == said
    assert import_dataset(dataset.path, "minari", tmp_path / "b.hdf5", dry_run=True) == ()
    assert not (tmp_path / "b.hdf5").exists()


@pytest.mark.parametrize("name", EXPORTS)
def test_what_is_there_is_kept_unless_overwrite(name, dataset, tmp_path):
    export_dataset(dataset, name, tmp_path / "out")
    with pytest.raises(DemokitError, match="--overwrite"):
        export_dataset(dataset, name, tmp_path / "out")
    export_dataset(dataset, name, tmp_path / "out", overwrite=True)
    assert not list(tmp_path.rglob("*.tmp"))


def test_robomimic_file_passes_its_own_checks(dataset, tmp_path):
    """What get_dataset_info and SequenceDataset ask of a file."""
    export_dataset(dataset, "robomimic", tmp_path / "r.hdf5")
    with h5py.File(tmp_path / "r.hdf5") as file:
        demos = sorted(file["data"], key=lambda name: int(name[5:]))
        assert demos == ["demo_0", "demo_1", "demo_2", "demo_3"]
        assert file["data"].attrs["total"] == dataset.total_steps
        env = json.loads(file["data"].attrs["env_args"])
        assert set(env) == {"env_name", "type", "env_version", "env_kwargs"}
        assert env["type"] == 2
        assert [name.decode() for name in file["mask/train"]] == demos
        for index, name in enumerate(demos):
            demo, episode = file["data"][name], dataset[index]
            steps = demo.attrs["num_samples"]
            assert steps == len(demo["actions"]) == len(episode)
            assert np.abs(demo["actions"][()]).max() <= 1
            for key in ("rewards", "dones"):
                assert demo[key].shape == (steps,)
            assert demo["dones"].dtype.kind == "i"
            assert demo["dones"][-1] == 1
            np.testing.assert_array_equal(demo["states"], episode.privileged["state"][:-1])
            np.testing.assert_array_equal(demo["obs/state"], episode.observations[:-1])
            np.testing.assert_array_equal(demo["next_obs/state"], episode.observations[1:])


def test_robomimic_itself_reads_an_export(dataset, tmp_path):
    pytest.importorskip("robomimic.utils.dataset")
    import robomimic.utils.obs_utils as obs_utils
    from robomimic.utils.dataset import SequenceDataset

    export_dataset(dataset, "robomimic", tmp_path / "r.hdf5")
    obs_utils.initialize_obs_utils_with_obs_specs({"obs": {"low_dim": ["state"]}})
    keys = ["actions", "rewards", "dones", "states"]
    read = SequenceDataset(
        str(tmp_path / "r.hdf5"), ["state"], keys, seq_length=3, filter_by_attribute="train"
    )
    assert len(read) == dataset.total_steps
    assert read[0]["obs"]["state"].shape == (3, 4)


@needs_arrow
def test_lerobot_folder_has_every_file_and_column(images, tmp_path):
    import pandas
    from pyarrow import parquet

    said = dict(export_dataset(images, "lerobot", tmp_path / "l"))
    assert "column demokit of meta/episodes" in said["contexts and seeds"]
    info = json.loads((tmp_path / "l/meta/info.json").read_text())
    assert (info["codebase_version"], info["fps"], info["chunks_size"]) == ("v3.0", 10, 1000)
    assert (info["total_episodes"], info["total_frames"], info["total_tasks"]) == (2, 10, 2)
    assert info["splits"] == {"train": "0:2"}
    assert info["video_path"] is None
    data = info["data_path"].format(chunk_index=0, file_index=0)
    frames = parquet.ParquetFile(tmp_path / "l" / data)
    assert frames.metadata.num_row_groups == 2
    assert set(frames.schema_arrow.names) == set(info["features"])
    assert {
        *("observation.x", "observation.images.cam", "action", "next.reward", "next.done"),
        *("next.success", "timestamp", "frame_index", "episode_index", "index", "task_index"),
    } <= set(info["features"])
    kinds = {field.name: str(field.type) for field in frames.schema_arrow}
    assert kinds["action"].startswith("fixed_size_list<")
    assert kinds["action"].endswith("[2]")
    for name in ("frame_index", "episode_index", "index", "task_index"):
        assert kinds[name] == "int64"
    table = frames.read().to_pandas()
    np.testing.assert_allclose(table["timestamp"], table["frame_index"] / 10)
    tasks = pandas.read_parquet(tmp_path / "l/meta/tasks.parquet")
    assert tasks.index.name == "task"
    assert list(tasks["task_index"]) == [0, 1]
    episodes = pandas.read_parquet(tmp_path / "l/meta/episodes/chunk-000/file-000.parquet")
    wanted = ["episode_index", "tasks", "length", "data/chunk_index", "data/file_index"]
    assert {*wanted, "dataset_from_index", "dataset_to_index"} <= set(episodes)
    stats = json.loads((tmp_path / "l/meta/stats.json").read_text())
    quantiles = {"q01", "q10", "q50", "q90", "q99"}
    assert set(stats["action"]) == {"min", "max", "mean", "std", "count"} | quantiles
    actions = np.stack(table["action"])
    np.testing.assert_allclose(stats["action"]["mean"], actions.mean(0), rtol=1e-5)
    np.testing.assert_allclose(stats["action"]["std"], actions.std(0), rtol=1e-5)
    halves = [np.quantile(rows, 0.5, axis=0) for rows in np.split(actions, [5])]
    np.testing.assert_allclose(stats["action"]["q50"], np.mean(halves, 0), rtol=1e-5)
    pixels = np.concatenate([episode.observations["cam"][:-1] for episode in images]) / 255
    pictures = stats["observation.images.cam"]
    for name in stats["action"]:
        assert np.shape(pictures[name]) == ((1,) if name == "count" else (3, 1, 1))
    assert pictures["count"] == [10]
    np.testing.assert_allclose(np.ravel(pictures["mean"]), pixels.mean((0, 1, 2)))
    np.testing.assert_allclose(np.ravel(pictures["std"]), pixels.std((0, 1, 2)))
    assert np.shape(episodes["stats/observation.images.cam/min"][0]) == (3,)


def foreign_lerobot(dataset, folder, more_features):
    """An export without our metadata, and with more features in its list."""
    export_dataset(dataset, "lerobot", folder)
    path = folder / "meta/info.json"
    info = json.loads(path.read_text())
    del info["demokit"]
    info["features"] |= more_features
    path.write_text(json.dumps(info))


@needs_arrow
@pytest.mark.parametrize(("rows", "statistics"), [(3, True), (3, False), (1000, True)])
def test_lerobot_frames_may_be_cut_anyhow(dataset, tmp_path, rows, statistics):
    from pyarrow import parquet

    export_dataset(dataset, "lerobot", tmp_path / "l")
    frames = tmp_path / "l/data/chunk-000/file-000.parquet"
    options = {"row_group_size": rows, "write_statistics": statistics}
    parquet.write_table(parquet.read_table(frames), frames, **options)
    assert import_dataset(tmp_path / "l", "lerobot", tmp_path / "b.hdf5") == ()
    assert open_dataset(tmp_path / "b.hdf5").episodes == dataset.episodes


def test_lerobot_statistics_of_pictures_are_counted():
    shape, rng = (7, 5, 6, 3), np.random.default_rng(0)
    frames = (rng.beta(0.5, [1, 2, 9], shape) * 255).astype(np.uint8)
    found = episode_statistics({"observation.images.camera": frames})["observation.images.camera"]
    assert list(found) == ["min", "max", "mean", "std", "q01", "q10", "q50", "q90", "q99", "count"]
    pixels = frames.reshape(-1, 3) / 255
    shares = [0.01, 0.1, 0.5, 0.9, 0.99]
    wanted = [pixels.min(0), pixels.max(0), pixels.mean(0), pixels.std(0)]
    wanted += [*np.quantile(pixels, shares, axis=0)]
    for name, numbers in zip(found, wanted, strict=False):
        assert found[name].shape == (3, 1, 1)
        np.testing.assert_allclose(found[name].ravel(), numbers, rtol=1e-13)
    assert found["count"].tolist() == [7]
    long = np.zeros((100, 64, 64, 3), np.uint8)
    with growth() as grown:
        episode_statistics({"observation.images.camera": long})
    assert grown.kb < 3 * long.nbytes // 1000


@needs_arrow
def test_lerobot_of_ours_that_lost_what_lerobot_does_not_know(dataset, tmp_path):
    """Without our columns: no last observation, no model, and it says so; all else comes back."""
    from pyarrow import parquet

    foreign_lerobot(dataset, tmp_path / "l", {})
    episodes = tmp_path / "l/meta/episodes/chunk-000/file-000.parquet"
    table = parquet.read_table(episodes)
    table = table.drop([name for name in table.column_names if name.startswith("demokit")])
    parquet.write_table(table, episodes)
    losses = import_dataset(tmp_path / "l", "lerobot", tmp_path / "b.hdf5")
    assert {loss.what for loss in losses} == {
        *("state", "model", "last observation", "context", "seed", "meta/info.json fps")
    }
    after = open_dataset(tmp_path / "b.hdf5")
    assert not after.metadata.provenance.restorable
    assert "last observation" in after.metadata.provenance.missing
    np.testing.assert_array_equal(after[1].observations[:-1], dataset[1].observations[:-1])
    np.testing.assert_array_equal(after[1].observations[-1], dataset[1].observations[-2])
    for mine, other in zip(dataset, after, strict=True):
        np.testing.assert_array_equal(mine.actions, other.actions)
        np.testing.assert_array_equal(mine.rewards, other.rewards)
        np.testing.assert_array_equal(mine.terminations, other.terminations)
        np.testing.assert_array_equal(mine.truncations, other.truncations)
        for name, rows in mine.privileged.items():
            np.testing.assert_array_equal(other.privileged[name][:-1], rows[:-1])
        assert mine.task.id == other.task.id
    assert not validate(tmp_path / "b.hdf5").errors


@needs_arrow
def test_the_rate_of_an_export_is_the_familys_or_stated(dataset, tmp_path):
    def exported(path, name, **stated):
        said = export_dataset(open_dataset(path), "lerobot", tmp_path / name, **stated)
        return dict(said), json.loads((tmp_path / name / "meta/info.json").read_text())["fps"]

    episode = {"observations": np.zeros((4, 2)), "actions": np.zeros((3, 1))}
    from_arrays(tmp_path / "own.hdf5", [episode], family="my-arm")
    said, fps = exported(tmp_path / "own.hdf5", "unsaid")
    assert (fps, "fps is 20, unless --fps" in said["control rate"]) == (20, True)
    said, fps = exported(tmp_path / "own.hdf5", "said", rate_hz=50)
    assert (fps, "control rate" in said) == (50, False)
    import_dataset(tmp_path / "said", "lerobot", tmp_path / "again.hdf5")
    with pytest.raises(DemokitError, match="point has 10 steps per second: leave out --fps 50"):
        export_dataset(dataset, "lerobot", tmp_path / "l", rate_hz=50)
    assert not (tmp_path / "l").exists()
    with pytest.raises(DemokitError, match="robomimic keeps no steps per second"):
        export_dataset(dataset, "robomimic", tmp_path / "r.hdf5", rate_hz=10)


@needs_arrow
def test_lerobot_without_pyarrow_says_what_to_install(dataset, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DemokitError, match=r"needs pyarrow, .* pip install pyarrow"):
        export_dataset(dataset, "lerobot", tmp_path / "l")
    assert not (tmp_path / "l").exists()


def test_robomimic_of_others_with_wide_actions(tmp_path):
    with h5py.File(tmp_path / "r.hdf5", "w") as file:
        file["data/demo_0/actions"] = np.array([[0.5, -4.0], [1.0, 2.0]])
        file["data/demo_0/rewards"] = np.array([0.0, 1.0])
        file["data/demo_0/obs/object"] = np.arange(6.0).reshape(2, 3)
        file["data"].attrs["env_args"] = json.dumps({"env_name": "Lift", "type": 1})
    losses = dict(import_dataset(tmp_path / "r.hdf5", "robomimic", tmp_path / "b.hdf5"))
    assert "[1.0, 4.0]" in losses["action range"]
    after = open_dataset(tmp_path / "b.hdf5")
    np.testing.assert_array_equal(after[0].actions, [[0.5, -1.0], [1.0, 0.5]])
    assert after.metadata.family == "lift"
    assert after.episodes[0].success
    np.testing.assert_array_equal(after[0].observations["object"][-2:], [[3, 4, 5]] * 2)


def test_minari_of_others(tmp_path):
    data = tmp_path / "m" / "data"
    data.mkdir(parents=True)
    spec = json.dumps({"id": "PointMaze-v3"})
    about = {"dataset_id": "D4RL/maze-v2", "env_spec": spec}
    (data / "metadata.json").write_text(json.dumps(about))
    with h5py.File(data / "main_data.hdf5", "w") as file:
        for i in range(2):
            episode = file.create_group(f"episode_{i}")
            episode.attrs.update({"id": i, "total_steps": 3, "seed": 7})
            episode["observations/at"] = np.ones((4, 2))
            episode["observations/goal/place"] = np.ones((4, 2))
            episode["actions"] = np.full((3, 2), 0.5, np.float32)
            episode["rewards"] = np.arange(3.0)
            episode["terminations"] = [False, False, True]
            episode["truncations"] = [False] * 3
            episode["infos/success"] = [False, False, False, True]
    losses = {loss.what for loss in import_dataset(tmp_path / "m", "minari", tmp_path / "b.hdf5")}
    assert losses == {"state", "model", "context", "metadata.json env_spec"}
    after = open_dataset(tmp_path / "b.hdf5")
    assert set(after[0].observations) == {"at", "goal.place"}
    assert after[1].success
    assert after[1].terminations[-1]
    assert (after.episodes[0].seed, after.metadata.family) == (7, "pointmaze-v3")


@pytest.mark.parametrize("name", ["robomimic", "minari", "lerobot", "gmps_release"])
def test_files_of_another_kind_are_refused(name, tmp_path, dataset):
    for source in (tmp_path, tmp_path / "none", tmp_path / "text"):
        (tmp_path / "text").write_text("x")
        with pytest.raises(DemokitError):
            import_dataset(source, name, tmp_path / "b.hdf5")
    if name == "robomimic":
        with pytest.raises(DemokitError, match="no robomimic file"):
            import_dataset(dataset.path, name, tmp_path / "b.hdf5")
    assert not list(tmp_path.glob("b.hdf5*"))


def test_an_import_that_fails_half_way_leaves_nothing(tmp_path, dataset):
    export_dataset(dataset, "robomimic", tmp_path / "r.hdf5")
    with h5py.File(tmp_path / "r.hdf5", "r+") as file:
        del file["data/demo_2/rewards"]
    with pytest.raises(DemokitError):
        import_dataset(tmp_path / "r.hdf5", "robomimic", tmp_path / "b.hdf5")
    assert not list(tmp_path.glob("b.hdf5*"))


def test_an_import_spares_an_unfinished_recording(tmp_path, dataset, make_episode):
    export_dataset(dataset, "robomimic", tmp_path / "r.hdf5")
    with DatasetWriter(tmp_path / "u.hdf5", dataset.metadata) as writer:
        writer.add(make_episode(0))
    with pytest.raises(DemokitError, match="unfinished recording"):
        import_dataset(tmp_path / "r.hdf5", "robomimic", tmp_path / "u.hdf5", overwrite=True)
    assert len(open_dataset(tmp_path / "u.hdf5")) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"env": "pusher"}, "family, point: leave out --env"),
        ({"license": "GPL"}, "licence, MIT: leave out --license"),
        ({"license": ""}, "leave out --license"),
    ],
)
def test_what_a_source_states_is_not_changed(options, message, tmp_path, dataset):
    with pytest.raises(DemokitError, match=message):
        import_dataset(dataset.path, "minari", tmp_path / "b.hdf5", **options)
    assert not (tmp_path / "b.hdf5").exists()
    same = {"env": "point", "license": "MIT"}
    assert import_dataset(dataset.path, "minari", tmp_path / "b.hdf5", **same) == ()


def test_an_empty_licence_is_refused(tmp_path, images):
    with pytest.raises(DemokitError, match="licence is empty"):
        import_dataset(images.path, "minari", tmp_path / "b.hdf5", license="")


def test_unknown_formats(dataset, tmp_path):
    with pytest.raises(DemokitError, match="did you mean 'robomimic'"):
        export_dataset(dataset, "robomimc", tmp_path / "x")
    with pytest.raises(DemokitError, match="format to write"):
        export_dataset(dataset, "gmps_release", tmp_path / "x")


def test_only_imports_may_lack_the_state(tmp_path, metadata, make_episode):
    episode = make_episode(0)
    privileged = {name: rows for name, rows in episode.privileged.items() if name != "state"}
    episode = replace(episode, privileged=privileged)
    with (
        DatasetWriter(tmp_path / "a.hdf5", metadata) as writer,
        pytest.raises(DemokitError, match="lacks privileged 'state'"),
    ):
        writer.add(episode)
    source = replace(metadata.provenance, missing={"state": "never stored"})
    with DatasetWriter(tmp_path / "b.hdf5", replace(metadata, provenance=source)) as writer:
        writer.add(episode)
        assert not open_dataset(writer.finish()).metadata.provenance.restorable


def test_some_episodes_of_a_dataset(dataset, tmp_path):
    """A selection is numbered anew."""
    for name in ("robomimic", *(["lerobot"] if find_spec("pyarrow") else [])):
        after = there_and_back(dataset.select([3, 1]), name, tmp_path / name)
        wanted = [dataset.episodes[3], dataset.episodes[1]]
        found = {record.digest for record in after.episodes}
        assert found == {record.digest for record in wanted}


@pytest.mark.parametrize("name", EXPORTS)
def test_an_export_replaces_nothing_but_an_export(name, dataset, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "notes.txt").write_text("x")
    target = folder if name != "minari" else tmp_path
    if name == "minari":
        taken = tmp_path / "demokit" / "point" / f"{dataset.path.stem}-v0"
        taken.parent.mkdir(parents=True)
        folder.rename(taken)
        folder = taken
    with pytest.raises(DemokitError, match="other things in it"):
        export_dataset(dataset, name, target, overwrite=True)
    assert (folder / "notes.txt").read_text() == "x"


@pytest.mark.parametrize("name", ["robomimic", "lerobot"])
def test_an_export_replaces_no_file_of_another_kind(name, dataset, images, tmp_path):
    notes = tmp_path / "notes.txt"
    notes.write_text("x")
    before = images.path.read_bytes()
    for target in (notes, images.path):
        with pytest.raises(DemokitError, match="file of another kind"):
            export_dataset(dataset, name, target, overwrite=True)
    assert (notes.read_text(), images.path.read_bytes()) == ("x", before)


def test_exports_at_once_leave_each_other_and_the_users_folders_alone(dataset, tmp_path):
    (tmp_path / "out.tmp").mkdir()
    place = tmp_path / "out"
    script = (
        "import sys, pathlib\n"
        "from demokit.data import open_dataset\n"
        "from demokit.data.convert import export_dataset\n"
        "source, place = sys.argv[1:]\n"
        "for _ in range(5):\n"
        "    export_dataset(open_dataset(source), 'robomimic', pathlib.Path(place), overwrite=True)"
    )
    command = [sys.executable, "-c", script, str(dataset.path), str(place)]
    both = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate()[1] for process in both]
    assert "" in said
    assert all("is being written by process" in each for each in said if each)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.hdf5", "out", "out.tmp"]
    assert import_dataset(place, "robomimic", tmp_path / "b.hdf5") == ()


@pytest.mark.parametrize("name", ["lerobot", "robomimic"])
def test_an_export_never_replaces_its_source(name, dataset):
    before = dataset.path.read_bytes()
    for target in (dataset.path, dataset.path.parent):
        with pytest.raises(DemokitError, match="the dataset itself"):
            export_dataset(dataset, name, target, overwrite=True)
    assert dataset.path.read_bytes() == before


@pytest.mark.parametrize("name", ["lerobot", "robomimic", "minari"])
def test_what_was_changed_is_not_converted(name, dataset, tmp_path):
    with h5py.File(dataset.path, "r+") as file:
        file["episode_1/actions"][0] = 0.5
    source, convert = open_dataset(dataset.path), export_dataset
    if name == "minari":  # an export copies the file, with its checksums
        source, convert = dataset.path, import_dataset
    with pytest.raises(DemokitError, match="was changed after it was recorded"):
        convert(source, name, tmp_path / "out.hdf5")
    assert not (tmp_path / "out.hdf5").exists()


def test_splits_of_others_are_no_leakage(tmp_path):
    with h5py.File(tmp_path / "r.hdf5", "w") as file:
        for name in ("demo_0", "demo_1"):
            file[f"data/{name}/actions"] = np.zeros((2, 2))
            file[f"data/{name}/obs/object"] = np.arange(6.0).reshape(2, 3)
        file["data"].attrs["env_args"] = json.dumps({"env_name": "Lift", "type": 1})
        file["mask/train"], file["mask/valid"] = np.array([b"demo_0"]), np.array([b"demo_1"])
    import_dataset(tmp_path / "r.hdf5", "robomimic", tmp_path / "b.hdf5")
    assert {task.split for task in open_dataset(tmp_path / "b.hdf5").metadata.tasks} == {
        "train",
        "validation",
    }
    report = validate(tmp_path / "b.hdf5", replay=True)
    assert report.ok
    assert not report.replayed
    assert not report.restored


@needs_arrow
def test_lerobot_of_others_with_text(dataset, tmp_path):
    text = {"instruction": {"dtype": "string", "shape": [1], "names": None}}
    foreign_lerobot(dataset, tmp_path / "l", text)
    losses = dict(import_dataset(tmp_path / "l", "lerobot", tmp_path / "b.hdf5"))
    assert "instruction" in losses
