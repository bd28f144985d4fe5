"""The GMPS release's pickles: read without running anything, imported with what they lack said."""

import builtins
import io
import os
import pickle
import shutil
import subprocess
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
from memory import growth

from demokit.data import open_dataset
from demokit.data.convert import import_dataset
from demokit.data.convert.pickles import read_pickle
from demokit.errors import DemokitError


class JoblibWrapper:
    """Pickles as joblib's array wrapper does: attributes in the pickle, bytes behind them."""


JoblibWrapper.__module__, JoblibWrapper.__qualname__ = "joblib.numpy_pickle", "NumpyArrayWrapper"


class JoblibPickler(pickle._Pickler):
    """Writes what `joblib.dump` writes, byte for byte in structure, without joblib."""

    def __init__(self, file, *, aligned):
        super().__init__(file, protocol=3)
        self._out, self._aligned = file, aligned

    def save(self, value, save_persistent_id=True):
        if type(value) is not np.ndarray:
            return super().save(value, save_persistent_id)
        state = {"subclass": np.ndarray, "shape": value.shape, "order": "C", "dtype": value.dtype}
        self.write(pickle.GLOBAL + b"joblib.numpy_pickle\nNumpyArrayWrapper\n")
        self.write(pickle.EMPTY_TUPLE + pickle.NEWOBJ)
        super().save({**state, **({"numpy_array_alignment_bytes": 16} if self._aligned else {})})
        self.write(pickle.BUILD)
        if self._aligned:
            self._out.write(b"\x03...")
        self._out.write(value.tobytes())
        return None


def joblib_bytes(value, *, aligned=False):
    file = io.BytesIO()
    JoblibPickler(file, aligned=aligned).dump(value)
    return file.getvalue()


def episodes(num, steps, width, actions, rng):
    return [
        {
            "observations": rng.normal(size=(steps, width)),
            "actions": rng.uniform(-1, 1, (steps, actions)).astype(np.float32),
            "rewards": rng.normal(size=steps),
            "env_infos": {"reachDist": rng.normal(size=steps)},
            "agent_infos": {},
        }
        for _ in range(num)
    ]


def write(path, value, how):
    if how.startswith("joblib"):
        data = joblib_bytes(value, aligned=how == "joblib aligned")
    else:
        data = pickle.dumps(value, protocol=int(how[-1]))
    path.write_bytes(data)


HOW = ["joblib", "joblib aligned", "protocol 2", "protocol 4", "protocol 5"]


@pytest.mark.parametrize("how", HOW)
def test_pickles_of_arrays_and_containers(how, tmp_path):
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(3, 2))
    value = {
        "a": [shared, shared, np.arange(3)],
        "t": (1, "x", None, True, 2.5),
        "o": OrderedDict(b=np.float32(1.5), f=np.array([True, False])),
        "big": np.arange(4, dtype=">i2"),
    }
    write(tmp_path / "a.pkl", value, how)
    read = read_pickle(tmp_path / "a.pkl")
    np.testing.assert_array_equal(read["a"][0], shared)
    np.testing.assert_array_equal(read["a"][2], [0, 1, 2])
    assert read["t"] == value["t"]
    assert read["o"]["b"] == 1.5
    np.testing.assert_array_equal(read["o"]["f"], [True, False])
    np.testing.assert_array_equal(read["big"], [0, 1, 2, 3])
    assert read["big"].dtype.isnative


class Evil:
    def __init__(self, call, *arguments):
        self._reduced = call, arguments

    def __reduce__(self):
        return self._reduced


def test_rows_of_nothing_are_not_as_many_as_a_pickle_says(tmp_path):
    (tmp_path / "0.pkl").write_bytes(pickle.dumps(np.zeros((2 * 10**6, 0))))
    with pytest.raises(DemokitError, match="damaged or no pickle"):
        read_pickle(tmp_path / "0.pkl")
    (tmp_path / "0.pkl").write_bytes(pickle.dumps(np.zeros((10, 0))))
    assert read_pickle(tmp_path / "0.pkl").shape == (10, 0)


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize(
    ("evil", "named"),
    [
        (Evil(os.system, "touch mark"), "posix.system"),
        (Evil(builtins.eval, "open('mark', 'w')"), "builtins.eval"),
        (Evil(builtins.exec, "open('mark', 'w')"), "builtins.exec"),
        (Evil(subprocess.call, ["touch", "mark"]), "call'"),
        (Evil(builtins.getattr, [], "append"), "getattr"),
        (np.array([Evil(os.system, "touch mark")], dtype=object), "arrays of 'O8'"),
        (np.array([{}, None], dtype=object), "arrays of 'O8'"),
        ({"a": 1j}, "builtins.complex"),
    ],
)
def test_hostile_pickles_run_nothing(evil, named, protocol, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = pickle.dumps([{"observations": evil}], protocol=protocol)
    (tmp_path / "0.pkl").write_bytes(data)
    with pytest.raises(DemokitError) as refused:
        import_dataset(tmp_path, "gmps_release", tmp_path / "b.hdf5")
    text = str(refused.value).replace("__builtin__", "builtins")
    assert "0.pkl was not read: it asks for" in text
    assert named in text or protocol == 0
    assert [path.name for path in tmp_path.iterdir()] == ["0.pkl"]


def test_other_ways_out_of_a_pickle(tmp_path):
    path = tmp_path / "0.pkl"
    for data, message in [
        (b"cos\nsystem\n(S'id'\ntR.", "os.system"),
        (b"(S'id'\nios\nsystem\n.", "os.system"),
        (b"(cos\nsystem\nS'id'\no.", "os.system"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x02id\x85R.", "os.system"),
        (b"P1\n.", "outside object"),
        (b"\x80\x02\x82\x01.", "extension"),
        (b"\x80\x02]}b.", "a state for list"),
        (b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f.", "damaged"),
        (b"(" * 100_000 + b"l" * 100_000 + b".", "damaged"),
        (b"\x1f\x8b....", "compressed"),
        (b"", "damaged"),
        (b"hello", "damaged"),
    ]:
        path.write_bytes(data)
        with pytest.raises(DemokitError, match=message):
            read_pickle(path)


@pytest.mark.parametrize("kind", [list, lambda pair: dict(enumerate(pair)), tuple])
def test_a_pickle_that_repeats_itself_is_refused(kind, tmp_path):
    value = ["x"]
    for _ in range(60):
        value = kind([value, value])
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(value))
    with pytest.raises(DemokitError, match="more than 5000000 values"):
        read_pickle(tmp_path / "a.pkl")


def test_what_is_shared_a_little_is_read_and_stays_shared(tmp_path):
    array, goal = np.arange(3.0), (0.5, 1)
    value = [{"a": array, "goal": goal, goal: 1}, {"a": array, "goal": goal, "set": {2}}]
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(value))
    first, second = read_pickle(tmp_path / "a.pkl")
    assert first["a"] is second["a"]
    assert first[goal] == 1
    assert second["set"] == {2}


def deep(levels):
    """A tuple in a tuple in a tuple: `(t)` is opcode `t` around what lies since the mark."""
    return b"(" * levels + b"K\x01" + b"t" * levels


@pytest.mark.parametrize(
    "key",
    [
        deep(2),
        deep(300_000),
        b"K\x01\x85q\x00" + b"h\x00h\x00\x86q\x00" * 60,
        b"(" + b"K\x01" * 65 + b"t",
    ],
)
@pytest.mark.parametrize(
    "around", [b"}%bK\x01s.", b"}(%bK\x01u.", b"(%bK\x01d.", b"\x8f(%b\x90.", b"(%b\x91."]
)
def test_keys_that_are_made_of_containers_are_refused(around, key, tmp_path):
    """Hashing deep tuples ended the interpreter, hashing shared ones never ended."""
    (tmp_path / "a.pkl").write_bytes(around % key)
    with pytest.raises(DemokitError, match="a key made of containers"):
        read_pickle(tmp_path / "a.pkl")


def test_deep_containers_are_one_sentence(tmp_path):
    for data in (deep(200_000) + b".", b"]" * 200_000 + b"a" * 199_999 + b"."):
        (tmp_path / "a.pkl").write_bytes(data)
        with pytest.raises(DemokitError, match=r"a\.pkl"):
            read_pickle(tmp_path / "a.pkl")


BYTES8, TEXT8, BYTEARRAY8 = b"\x8e", b"\x8d", b"\x96"


@pytest.mark.parametrize("opcode", [BYTES8, TEXT8, BYTEARRAY8, b"\x95"])
def test_lengths_that_lie_take_no_memory(opcode, tmp_path):
    for size in (2**28, 2**36):  # there would be memory for the first
        said = size.to_bytes(8, "little")
        (tmp_path / "a.pkl").write_bytes(b"\x80\x05" + opcode + said + b"x.")
        with growth() as grown, pytest.raises(DemokitError, match="damaged"):
            read_pickle(tmp_path / "a.pkl")
        assert grown.kb < 100_000


def test_steps_that_make_more_than_they_are(tmp_path):
    (tmp_path / "a.pkl").write_bytes(b"]" * 6_000_000 + b".")
    with growth() as grown, pytest.raises(DemokitError, match="more than 5000000 steps"):
        read_pickle(tmp_path / "a.pkl")
    assert grown.kb < 500_000


class SharesBytes:
    """Pickles as an array of bytes that others in the pickle have too."""

    def __init__(self, data):
        self.data = data

    def __reduce__(self):
        return np._core.numeric._frombuffer, (self.data, np.dtype("u1"), (len(self.data),), "C")


def test_arrays_that_share_their_bytes_are_refused(tmp_path):
    data = bytes(10_000)
    (tmp_path / "a.pkl").write_bytes(pickle.dumps([SharesBytes(data)]))
    assert read_pickle(tmp_path / "a.pkl")[0].shape == (10_000,)
    (tmp_path / "a.pkl").write_bytes(pickle.dumps([SharesBytes(data) for _ in range(100)]))
    with pytest.raises(DemokitError, match="more arrays than are in it"):
        read_pickle(tmp_path / "a.pkl")


def test_a_pipe_is_no_pickle(tmp_path):
    os.mkfifo(tmp_path / "a.pkl")
    with pytest.raises(DemokitError, match="pipe"):
        read_pickle(tmp_path / "a.pkl")


def test_claimed_sizes_are_checked(tmp_path):
    data = joblib_bytes(np.zeros(4)).replace(b"K\x04\x85", b"J\xff\xff\xff\x7f\x85")
    (tmp_path / "a.pkl").write_bytes(data)
    with pytest.raises(DemokitError, match="damaged"):
        read_pickle(tmp_path / "a.pkl")


SOUND = {"a": np.arange(6.0).reshape(2, 3), "b": [1, "x", "/"]}


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize(
    "value", [SOUND, {"c": Evil(os.system, "touch mark"), **SOUND}], ids=["sound", "evil"]
)
def test_mutated_pickles_are_read_or_refused(value, how, tmp_path, monkeypatch):
    """Whatever bytes: a value or one sentence, and nothing that a pickle names is called."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(4)
    path = tmp_path / "a.pkl"
    write(path, [value], how)
    good = np.frombuffer(path.read_bytes(), np.uint8)
    refused = 0
    for _ in range(200):
        data = good.copy()
        data[rng.integers(len(data), size=3)] = rng.integers(256, size=3)
        path.write_bytes(bytes(data[: rng.integers(len(data) // 2, len(data) + 1)]))
        try:
            read_pickle(path)
        except DemokitError as error:
            refused += "a.pkl" in str(error)
    assert refused > 100
    assert os.listdir() == ["a.pkl"]


@pytest.fixture
def push(tmp_path):
    """A folder as the release has it for Push: one episode of each of three tasks."""
    rng = np.random.default_rng(1)
    folder = tmp_path / "SAC-pushing"
    folder.mkdir()
    goals = [rng.uniform((-0.1, 0.7), (0.1, 0.8)) for _ in range(3)]
    for index, goal in enumerate(goals):
        (episode,) = episodes(1, 50, 6, 3, rng)
        if index < 2:
            episode["observations"][-1, 3:5] = goal
        write(folder / f"{index}.pkl", [episode], "joblib")
    pool = [{"goal": goal, "obj_init_pos": np.zeros(2)} for goal in goals]
    write(folder / "tasks_pool.pkl", {"tasks_pool": pool}, "joblib")
    return folder, goals


def test_push(push, tmp_path):
    folder, goals = push
    losses = import_dataset(folder, "gmps-release", tmp_path / "b.hdf5", license="MIT")
    assert {loss.what for loss in losses} == {
        *("state", "model", "last observation", "seed"),
        *("env_infos/reachDist", "observations", "tasks_pool obj_init_pos"),
    }
    dataset = open_dataset(tmp_path / "b.hdf5")
    about = dataset.metadata
    assert (about.family, about.horizon, about.license) == ("push", 50, "MIT")
    assert set(about.provenance.missing) == {"state", "model", "last observation", "seed"}
    assert not about.provenance.restorable
    assert [r.task.context for r in dataset.episodes] == [tuple(goal) for goal in goals]
    assert [r.success for r in dataset.episodes] == [True, True, False]
    episode = dataset[0]
    assert episode.observations.shape == (51, 6)
    np.testing.assert_array_equal(episode.observations[-1], episode.observations[-2])
    np.testing.assert_array_equal(episode.privileged["block_pos_w_m"], episode.observations[:, 3:])
    assert "state" not in episode.privileged
    for index in range(3):
        dataset.verify(index)


def test_push_can_be_meta_trained_on(push, tmp_path):
    pytest.importorskip("torch")
    from gmps.experience.demos import load_demos

    import_dataset(push[0], "gmps_release", tmp_path / "b.hdf5")
    demos = load_demos(tmp_path / "b.hdf5", 1)
    assert demos.observation.shape == (3, 1, 50, 6)
    assert demos.action.shape == (3, 1, 50, 3)


@pytest.fixture
def ant(tmp_path):
    """The ant release's shape: 20 episodes of 200 steps, 122 observed numbers; two tasks."""
    rng = np.random.default_rng(2)
    folder = tmp_path / "ant"
    folder.mkdir()
    for index in range(2):
        write(folder / f"{index}.pkl", episodes(20, 200, 122, 8, rng), "joblib")
    return folder


def test_ant(ant, tmp_path):
    angles = [0.5, 1.25]
    goals = [2 * np.array([np.cos(angle), np.sin(angle)]) for angle in angles]
    (first, *rest) = read_pickle(ant / "0.pkl")
    first["observations"][-1, :2] = goals[0]
    write(ant / "0.pkl", [first, *rest], "joblib")
    write(ant / "tasks_pool.pkl", goals, "joblib")
    losses = import_dataset(ant, "gmps_release", tmp_path / "b.hdf5", env="ant")
    assert "context" not in {loss.what for loss in losses}
    dataset = open_dataset(tmp_path / "b.hdf5")
    assert (len(dataset), dataset.total_steps) == (40, 8000)
    assert dataset[21].observations.shape == (201, 122)
    np.testing.assert_allclose(dataset.episodes[21].task.context, [1.25])
    assert dataset.episodes[0].success
    assert dataset.metadata.family == "ant"


def test_extra_arrays_of_any_size_are_named(ant, tmp_path):
    """The release's own ant experts have some; one that is empty is neither true nor false."""
    (first, *rest) = read_pickle(ant / "0.pkl")
    first |= {"terminals": np.zeros(200, bool), "qpos": np.zeros((200, 15)), "none": np.zeros(0)}
    first["deep"] = {"one": {"two": [1.0]}, 3: "x", "again": first["env_infos"]}
    write(ant / "0.pkl", [first, *rest], "protocol 2")
    losses = dict(import_dataset(ant, "gmps_release", tmp_path / "b.hdf5", env="ant"))
    assert {"terminals", "qpos", "none", "deep/one/two", "deep/3", "env_infos/reachDist"} <= set(
        losses
    )
    assert "in 1 of 40" in losses["qpos"]
    assert len(open_dataset(tmp_path / "b.hdf5")) == 40


def test_an_episode_that_is_not_sound_is_named(ant, tmp_path):
    (first, *rest) = read_pickle(ant / "1.pkl")
    broken = {**first, "actions": first["actions"][:-2]}
    write(ant / "1.pkl", [first, broken, 3, *rest[2:]], "joblib")
    write(ant / "notes.pkl", [1], "joblib")
    losses = dict(import_dataset(ant, "gmps_release", tmp_path / "b.hdf5", env="ant"))
    assert "198 actions and" in losses["1.pkl episode 1"]
    assert "no dict" in losses["1.pkl episode 2"]
    assert "notes.pkl" in losses
    assert len(open_dataset(tmp_path / "b.hdf5")) == 38


@pytest.mark.parametrize("name", ["joblib", "protocol0", "protocol1", "protocol2"])
def test_pickles_of_python_2(name, tmp_path):
    """Written by Python 2.7 itself, see python2/make.py; its arrays are texts of bytes."""
    path = Path(__file__).parent / "python2" / f"{name}.pkl"
    _, second = read_pickle(path)
    rng = np.random.RandomState(1)
    np.testing.assert_array_equal(second["observations"], rng.normal(size=(5, 3)).astype("f4"))
    np.testing.assert_array_equal(second["actions"], rng.uniform(-1, 1, (5, 2)).astype("f4"))
    np.testing.assert_array_equal(second["rewards"], np.linspace(-1, 1, 5))
    np.testing.assert_array_equal(second["env_infos"]["dist"], np.arange(5))
    assert (second["note"], second["count"]) == ("caf\xe9", 200)
    shutil.copy(path, tmp_path / "0.pkl")
    losses = dict(import_dataset(tmp_path, "gmps_release", tmp_path / "b.hdf5", env="arm"))
    assert {"env_infos/dist", "env_infos/name", "note", "count"} <= set(losses)
    np.testing.assert_array_equal(open_dataset(tmp_path / "b.hdf5")[1].actions, second["actions"])


def test_without_the_tasks_it_cannot_be_meta_trained_on(ant, tmp_path):
    pytest.importorskip("torch")
    from gmps.experience.demos import load_demos

    losses = import_dataset(ant, "gmps_release", tmp_path / "b.hdf5", env="ant")
    assert {"context", "success"} <= {loss.what for loss in losses}
    with pytest.raises(DemokitError, match="does not say the contexts"):
        load_demos(tmp_path / "b.hdf5", 1)


def test_observations_of_no_family_here(ant, tmp_path):
    for index in range(2):
        episode = episodes(1, 7, 5, 2, np.random.default_rng(index))
        write(ant / f"{index}.pkl", episode, "joblib")
    with pytest.raises(DemokitError, match="name it with --env"):
        import_dataset(ant, "gmps_release", tmp_path / "b.hdf5")
    import_dataset(ant, "gmps_release", tmp_path / "b.hdf5", env="ant")
    assert open_dataset(tmp_path / "b.hdf5").metadata.family == "ant-release"


def test_episodes_that_do_not_fit(tmp_path):
    rng = np.random.default_rng(3)
    good = episodes(1, 50, 6, 3, rng)
    for content, message in [
        ([], "no episode"),
        ([3], "(?i)no dict with the arrays"),
        ([{"observations": np.zeros((50, 6))}], "(?i)no dict with the arrays"),
        ([{**good[0], "actions": np.zeros((50, 2, 2))}], "actions of"),
        ([{**good[0], "actions": np.zeros((9, 3))}], "9 actions and"),
        ([{**good[0], "actions": np.full((50, 3), np.nan)}], "not finite"),
        ([{**good[0], "rewards": np.zeros(7)}], "rewards"),
    ]:
        write(tmp_path / "0.pkl", content, "joblib")
        with pytest.raises(DemokitError, match=message):
            import_dataset(tmp_path, "gmps_release", tmp_path / "b.hdf5", env="push")
        assert not list(tmp_path.glob("b.hdf5*"))
