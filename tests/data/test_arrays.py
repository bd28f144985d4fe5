"""Plain arrays as people have them: dicts, npz archives, tables, pickles; and what is wrong."""

import io
import os
import pickle
import zipfile
from time import process_time

import numpy as np
import pytest
from memory import growth

from demokit.data import from_arrays, open_dataset
from demokit.data.convert import import_dataset
from demokit.data.convert.npz import read_npz
from demokit.data.convert.stated import Stated
from demokit.data.edit import merge
from demokit.data.figures import survey
from demokit.data.metadata import ActionRange, Provenance
from demokit.data.validation import validate
from demokit.errors import DemokitError

STEPS = 4


def episode(number=0, *, last=True, **others):
    rng = np.random.default_rng(number)
    rows = STEPS + 1 if last else STEPS
    return {
        "observations": rng.normal(size=(rows, 3)).astype(np.float32),
        "actions": rng.uniform(-1, 1, (STEPS, 2)).astype(np.float32),
        **others,
    }


def flat(found):
    """An episode with its nested dicts as paths, as archives have them."""
    nested = found.get("observations")
    if not isinstance(nested, dict):
        return found
    rest = {name: rows for name, rows in found.items() if name != "observations"}
    return rest | {f"observations/{name}": rows for name, rows in nested.items()}


# -- lists of dicts --------------------------------------------------------------------------------


def test_what_is_given_is_there(tmp_path):
    given = [
        episode(
            k,
            rewards=np.arange(STEPS) / 2,
            task=f"Door {k % 2}",
            context=[k % 2, 0.5],
            success=k > 1,
            seed=k,
            split="ood" if k % 2 else "train",
            terminations=[0, 0, 0, 1] if k == 2 else [0] * STEPS,
            truncations=[0, 0, 0, k != 2],
            privileged={"force": np.ones((STEPS + 1, 2))},
        )
        for k in range(4)
    ]
    made = from_arrays(tmp_path / "own.hdf5", given, family="my-arm", license="MIT")
    about = made.metadata
    assert (about.family, about.horizon, about.license) == ("my-arm", STEPS, "MIT")
    assert {t.id: (t.context, t.split) for t in about.tasks} == {
        "my-arm/Door 0": ((0.0, 0.5), "train"),
        "my-arm/Door 1": ((1.0, 0.5), "ood"),
    }
    assert set(about.provenance.missing) == {"state", "model"}
    assert about.provenance.action_range is None
    for before, after, k in zip(given, made, range(4), strict=True):
        np.testing.assert_array_equal(after.observations, before["observations"])
        np.testing.assert_array_equal(after.actions, before["actions"])
        np.testing.assert_array_equal(after.rewards, before["rewards"])
        np.testing.assert_array_equal(after.privileged["force"], 1)
        assert after.observations.dtype == after.actions.dtype == np.float32
        assert (after.success, after.seed) == (k > 1, k)
        assert after.terminations.tolist() == [False] * 3 + [k == 2]
        assert after.truncations.tolist() == [False] * 3 + [k != 2]
    assert not validate(tmp_path / "own.hdf5").errors


def test_what_is_not_given_is_marked(tmp_path):
    made = from_arrays(tmp_path / "own.hdf5", [episode(last=False)])
    missing = set(made.metadata.provenance.missing)
    assert missing == {"state", "model", "last observation", "context", "success", "rewards",
                       "seed", "end"}  # fmt: skip
    assert made.metadata.family == "own"
    assert not validate(tmp_path / "own.hdf5").errors


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("how", ["repeat", "drop"])
def test_as_many_observations_as_actions_or_one_more(how, last, tmp_path):
    given = episode(last=last, rewards=np.arange(STEPS), terminations=[0, 0, 0, 1])
    (after,) = from_arrays(tmp_path / "own.hdf5", [given], last_observation=how)
    seen, steps = given["observations"], STEPS
    if not last and how == "repeat":
        seen = np.concatenate([seen, seen[-1:]])
    if not last and how == "drop":
        steps = STEPS - 1
    np.testing.assert_array_equal(after.observations, seen)
    np.testing.assert_array_equal(after.actions, given["actions"][:steps])
    assert after.rewards.tolist() == list(range(steps))
    # What ended with an action that is not kept was cut off before it.
    assert after.terminations[-1] == (steps == STEPS)
    assert after.truncations[-1] == (steps < STEPS)


def test_parts_pictures_and_single_numbers(tmp_path):
    count = np.arange(STEPS + 1)
    picture = np.tile(count[:, None, None, None], (1, 6, 8, 3)).astype(np.uint8)
    parts = {"arm": {"joints": np.ones((STEPS + 1, 7))}, "image": picture, "n": count}
    given = {"observations": parts, "actions": np.linspace(-1, 1, STEPS).tolist()}
    (after,) = from_arrays(tmp_path / "own.hdf5", [given])
    assert {n: rows.shape for n, rows in after.observations.items()} == {
        "arm.joints": (STEPS + 1, 7), "image": (STEPS + 1, 6, 8, 3), "n": (STEPS + 1, 1),
    }  # fmt: skip
    np.testing.assert_array_equal(after.observations["image"], picture)
    assert after.actions.shape == (STEPS, 1)


def test_privileged_rows_say_context_and_success(tmp_path):
    """What they said was kept beside another context and success, which made no valid dataset."""

    def rows(goal, solved, **others):
        hidden = {"context": np.tile(goal, (STEPS + 1, 1)), "success": np.array(solved)}
        return episode(privileged=hidden, **others)

    given = [
        rows([1.0, 2.0], [0, 0, 0, 0, 1]),
        rows([3.0, 4.0], [0, 0, 0, 1, 0]),
        rows([1.0, 2.0], [0, 0, 0, 0], success=True),  # of the last state nothing is said
        rows([1.0, 2.0], [True] * 4, context=[1.0, 2.0]),
    ]
    made = from_arrays(tmp_path / "a.hdf5", given)
    found = [(r.task.id, r.task.context, r.success) for r in made.episodes]
    assert found == [
        ("a/00", (1.0, 2.0), True),
        ("a/01", (3.0, 4.0), False),
        ("a/00", (1.0, 2.0), True),
        ("a/00", (1.0, 2.0), True),
    ]
    assert made[2].privileged["success"].tolist() == [0, 0, 0, 0, 1]
    assert made[1].privileged["context"].tolist() == [[3.0, 4.0]] * (STEPS + 1)
    assert {"context", "success"}.isdisjoint(made.metadata.provenance.missing)
    assert validate(tmp_path / "a.hdf5").ok


def test_an_episode_without_a_context_has_one_as_wide_as_the_others(tmp_path):
    given = [episode(0), episode(1, context=[1.0, 2.0]), episode(2, task="x")]
    made = from_arrays(tmp_path / "a.hdf5", given)
    assert {t.id: t.context for t in made.metadata.tasks} == {
        "a/00": (0.0, 0.0), "a/01": (1.0, 2.0), "a/x": (0.0, 0.0),
    }  # fmt: skip
    assert made[0].privileged["context"].tolist() == [[0.0, 0.0]] * (STEPS + 1)
    assert "(in 2 of 3)" in made.metadata.provenance.missing["context"]
    assert validate(tmp_path / "a.hdf5").ok
    assert survey(made).contexts.tolist() == [[0.0, 0.0], [1.0, 2.0], [0.0, 0.0]]


def test_tasks_without_names_are_their_contexts(tmp_path):
    given = [episode(k, context=[k % 2]) for k in range(4)]
    made = from_arrays(tmp_path / "own.hdf5", iter(given), family="arm")
    assert [(t.id, t.context) for t in made.metadata.tasks] == [
        ("arm/00", (0.0,)), ("arm/01", (1.0,)),
    ]  # fmt: skip
    assert [record.task.id for record in made.episodes] == ["arm/00", "arm/01"] * 2


def test_tasks_named_by_numbers_are_told_apart(tmp_path):
    names = [20240101.0, 20240102.0, 0.12345678, 0.12345699, np.float32(0.1), 7, 7.0, "1.0"]
    made = from_arrays(tmp_path / "own.hdf5", [episode(task=name) for name in names])
    ids = ["20240101", "20240102", "0.12345678", "0.12345699", "0.1", "7", "1.0"]
    assert [task.id.removeprefix("own/") for task in made.metadata.tasks] == ids


@pytest.mark.parametrize(
    ("low", "high", "full"),
    [(-2, 2, (-2, 2)), ([0, -4], 4, (0, -4)), (-1, 1, None)],
)
def test_a_stated_range_is_stored_and_can_be_undone(low, high, full, tmp_path):
    wanted = np.broadcast_to(np.array([low, high], dtype=object).tolist()[0], 2).astype(float)
    top = np.broadcast_to(high, 2).astype(float)
    actions = np.stack([wanted, top, (wanted + top) / 2, wanted]).astype(np.float32)
    given = episode() | {"actions": actions}
    made = from_arrays(tmp_path / "own.hdf5", [given], action_low=low, action_high=high)
    np.testing.assert_array_equal(made[0].actions, [[-1, -1], [1, 1], [0, 0], [-1, -1]])
    range_ = made.metadata.provenance.action_range
    assert (range_ is None) == (full is None)
    if range_ is not None:
        np.testing.assert_allclose(range_.from_unit(made[0].actions), actions)
        assert "range" in made.metadata.provenance.missing["action range"]


def test_a_bound_holds_in_the_type_of_the_actions(tmp_path):
    reaching = episode(actions=np.full((STEPS, 2), 0.1, np.float32))
    (made,) = from_arrays(tmp_path / "own.hdf5", [reaching], action_low=-0.1, action_high=0.1)
    assert made.actions.tolist() == [[1, 1]] * STEPS
    beyond = episode(actions=np.full((STEPS, 2), np.nextafter(np.float32(0.1), np.float32(1))))
    with pytest.raises(DemokitError, match="outside"):
        from_arrays(tmp_path / "no.hdf5", [beyond], action_low=-0.1, action_high=0.1)


def test_the_range_of_other_imports_can_be_undone_too():
    text = "actions were divided by their greatest magnitudes [1.0, 4.0] to fit [-1, 1]"
    said = Provenance("x", "x", None, None, missing={"action range": text})
    np.testing.assert_array_equal(said.action_range.from_unit(np.array([0.5, -1.0])), [0.5, -4])
    for damaged in ("actions were changed", "from [1, 2] to [x] to fit [-1, 1]", "[] [-1, 1]"):
        with pytest.raises(DemokitError, match="action range"):
            _ = Provenance("x", "x", None, None, missing={"action range": damaged}).action_range


@pytest.mark.parametrize(
    ("low", "high"), [([1], [1]), ([2], [1]), ([0, 0], [1, 1, 1]), ([np.nan], [1]), ([0], [np.inf])]
)
def test_what_is_no_range(low, high):
    with pytest.raises(DemokitError, match="the low below the high"):
        ActionRange(np.array(low), np.array(high))


def test_the_horizon_of_a_merge_is_the_longest_of_all(tmp_path):
    long = {
        "observations": np.zeros((STEPS + 3, 3), np.float32),
        "actions": np.zeros((STEPS + 2, 2)),
    }
    short = episode(actions=np.zeros((STEPS, 2)))
    paths = [tmp_path / "a.hdf5", tmp_path / "b.hdf5"]
    for path, each in zip(paths, (short, long), strict=True):
        from_arrays(path, [each], family="my-arm")
    merged = open_dataset(merge(paths, tmp_path / "m.hdf5").path)
    assert (merged.metadata.horizon, [len(each) for each in merged]) == (6, [4, 6])
    assert validate(merged.path).ok


def test_different_ranges_are_not_merged(tmp_path):
    for name, high in (("a", 2), ("b", 3)):
        from_arrays(tmp_path / f"{name}.hdf5", [episode(context=[0])], family="arm",
                    action_low=-high, action_high=high)  # fmt: skip
    with pytest.raises(DemokitError, match="different action scales"):
        merge([tmp_path / "a.hdf5", tmp_path / "b.hdf5"], tmp_path / "c.hdf5")


class Hostile:
    def __reduce__(self):
        return os.system, ("touch mark",)


NAN = np.full((STEPS, 2), np.nan)
WRONG = [
    ({"actions": None}, "its actions are object"),
    ({"actions": []}, "Episode 1: it has no steps"),
    ({"actions": [[1, 2], [3]]}, "Episode 1: its actions cannot be an array"),
    ({"actions": np.array([Hostile()] * STEPS)}, "its actions are object"),
    ({"actions": ["a"] * STEPS}, "no rows of numbers"),
    ({"actions": np.float32(1)}, "no rows of numbers"),
    ({"actions": NAN}, "actions that are not finite"),
    ({"actions": np.zeros((STEPS, 2, 2))}, "not steps of one vector"),
    ({"actions": np.full((STEPS, 2), 1.5, "f4")}, "--action-low and --action-high"),
    ({"observations": np.zeros((2, 3))}, "4 actions and .2. observations"),
    ({"observations": np.zeros((STEPS, 5))}, "other names, shapes or types"),
    ({"observations": {}}, "no 'observations'"),
    ({"observations": []}, r"4 actions and \[0\] observations"),
    ({"observations": "text"}, "no row of numbers"),
    ({"observations": {"a": np.zeros((4, 1)), "b": np.zeros((5, 1))}}, r"\[4, 5\] observations"),
    ({"observations": {"a": {"b": np.zeros(4)}, "a/b": np.zeros(4)}}, "two things are called"),
    ({"observations": {1: np.zeros(4), "1": np.zeros(4)}}, "two things are called"),
    ({"observations": np.zeros((5, 3), complex)}, "no row of numbers"),
    ({"rewards": np.zeros(3)}, "4 actions and rewards"),
    ({"rewards": []}, "4 actions and rewards"),
    ({"rewards": [np.inf] * STEPS}, "rewards that are not finite"),
    ({"reward": np.zeros(STEPS)}, "did you mean 'rewards'"),
    ({1: 2}, "Unknown key of episode 1 '1'"),
    ({"terminations": [1, 0, 0, 0]}, "terminations: .*it is set before"),
    ({"terminations": "yes"}, "terminations: it is neither true nor false"),
    ({"terminations": [None] * STEPS}, "terminations: it is neither true nor false"),
    ({"success": "yes"}, "success: it is neither true nor false"),
    ({"success": [0, 1]}, "its success is neither"),
    ({"success": [0, 1, 2, 3]}, "its success is neither"),
    ({"task": ""}, "empty name"),
    ({"task": "a\0b"}, "no text that a file can hold"),
    ({"task": None}, "its task is neither numbers nor text"),
    ({"task": ["a", "b"]}, "no name of a task"),
    ({"context": []}, "no number"),
    ({"context": "left"}, "no row of numbers"),
    ({"context": [np.nan]}, "not finite"),
    ({"task": "same", "context": [1]}, "two different contexts"),
    ({"task": "other", "context": [1, 2]}, "context has 2 numbers, and those before it 1"),
    ({"split": "test"}, "split 'test'"),
    ({"seed": 0.5}, "no whole number"),
    ({"seed": -1}, "no whole number"),
    ({"seed": 2**70}, "seed"),
    ({"privileged": {"force": np.zeros(2)}}, "2 rows of force"),
    (
        {"privileged": {"context": np.ones(5)}},
        r"is \(0.0,\), and its privileged one \(1.0,\)",
    ),
    ({"privileged": {"context": np.zeros((5, 2))}}, r"and its privileged one \(0.0, 0.0\)"),
    ({"privileged": {"context": np.arange(5)}}, "privileged context changes within the episode"),
    ({"privileged": {"success": np.full(5, 0.5)}}, "success is not true or false in every row"),
    ({"privileged": {"success": np.zeros((5, 2))}}, "success is not true or false in every row"),
    ({"success": True, "privileged": {"success": np.zeros(5)}}, "success is True, and its priv"),
    ({"privileged": {"expert_action": np.zeros((5, 3))}}, "expert_action does not fit its actions"),
    ({"privileged": {"by_expert": np.zeros((5, 1), bool)}}, "by_expert does not fit its actions"),
]


@pytest.mark.parametrize(("wrong", "said"), WRONG)
def test_one_sentence_and_nothing_left_behind(wrong, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sound = episode(task="same", context=[0])
    with pytest.raises(DemokitError, match=said) as error:
        from_arrays("own.hdf5", [sound, sound | wrong])
    assert "\n" not in str(error.value)
    assert os.listdir() == []


@pytest.mark.parametrize(
    ("episodes", "said"),
    [([], "no episodes"), ({}, "no list of dicts"), (3, "no list"), ([3], "Episode 0 is int"),
     ("ab", "Episode 0 is str"), ([{}], "no 'actions'"), (iter(()), "no episodes")],
)  # fmt: skip
def test_what_is_no_list_of_episodes(episodes, said, tmp_path):
    with pytest.raises(DemokitError, match=said):
        from_arrays(tmp_path / "own.hdf5", episodes)
    assert list(tmp_path.iterdir()) == []


def test_a_part_that_is_no_row_of_numbers_is_not_left_out(tmp_path):
    given = episode() | {"observations": {"a": np.zeros((STEPS, 1)), "b": "text"}}
    with pytest.raises(DemokitError, match=r"observations/b: <U4 .* is no row of numbers"):
        from_arrays(tmp_path / "own.hdf5", [given])
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_stays_unless_it_is_to_be_replaced(tmp_path):
    path = tmp_path / "own.hdf5"
    from_arrays(path, [episode()])
    before = path.read_bytes()
    with pytest.raises(DemokitError, match="exists"):
        from_arrays(path, [episode(1)])
    with pytest.raises(DemokitError, match="not finite"):
        from_arrays(path, [episode(1) | {"actions": NAN}], overwrite=True)
    assert path.read_bytes() == before
    assert len(from_arrays(path, [episode(1)] * 2, overwrite=True)) == 2


@pytest.mark.parametrize(
    ("stated", "said"),
    [({"action_low": -1}, "one end"), ({"action_low": "a", "action_high": 1}, "no numbers"),
     ({"action_low": [-1] * 3, "action_high": 1}, "3 components, the actions 2"),
     ({"last_observation": "keep"}, "one of repeat, drop")],
)  # fmt: skip
def test_wrong_options(stated, said, tmp_path):
    with pytest.raises(DemokitError, match=said):
        from_arrays(tmp_path / "own.hdf5", [episode()], **stated)
    assert list(tmp_path.iterdir()) == []


def test_episodes_are_read_one_at_a_time(tmp_path):
    class Lazy:
        passes, alive = 0, 0

        def __iter__(self):
            self.passes += 1
            return (episode(k) for k in range(3))

    lazy = Lazy()
    assert len(from_arrays(tmp_path / "own.hdf5", lazy)) == 3
    assert lazy.passes == 2


# -- files of arrays -------------------------------------------------------------------------------


def load(source, name, **options):
    """What is said of the import, and the dataset."""
    target = source.with_name("imported.hdf5")
    stated = Stated(**{k: v for k, v in options.items() if k != "env"})
    said = dict(import_dataset(source, name, target, env=options.get("env"), stated=stated))
    return said, open_dataset(target)


def as_npz_folder(folder, given):
    folder.mkdir()
    for index, each in enumerate(given):
        np.savez_compressed(folder / f"demo-{index}.npz", **flat(each))
    return folder


def as_npz_groups(folder, given):
    arrays = {f"demo_{k}/{n}": rows for k, each in enumerate(given) for n, rows in each.items()}
    np.savez(folder.with_suffix(".npz"), **arrays)
    return folder.with_suffix(".npz")


def as_npz_stack(folder, given):
    arrays = {name: np.stack([each[name] for each in given]) for name in given[0]}
    np.savez(folder.with_suffix(".npz"), **arrays)
    return folder.with_suffix(".npz")


def as_pickle(folder, given):
    folder.with_suffix(".pkl").write_bytes(pickle.dumps(given))
    return folder.with_suffix(".pkl")


def as_pickles(folder, given):
    folder.mkdir()
    for index, each in enumerate(given):
        (folder / f"{index}.pkl").write_bytes(pickle.dumps(each))
    return folder


def as_dict_pickle(folder, given):
    return as_pickle(folder, {f"demo {k}": each for k, each in enumerate(given)})


@pytest.mark.parametrize(
    ("name", "write"),
    [("npz", as_npz_folder), ("npz", as_npz_groups), ("npz", as_npz_stack),
     ("pickle-dicts", as_pickle), ("pickle-dicts", as_pickles), ("pickle-dicts", as_dict_pickle)],
)  # fmt: skip
def test_files_hold_the_same_as_dicts(name, write, tmp_path):
    given = [episode(k, rewards=np.ones(STEPS), context=np.array([k % 2])) for k in range(12)]
    expected = from_arrays(tmp_path / "own.hdf5", given, family="arm")
    losses, found = load(write(tmp_path / "source", given), name, env="arm")
    assert not any("left out" in why for why in losses.values()), losses
    for before, after in zip(expected, found, strict=True):
        np.testing.assert_array_equal(after.observations, before.observations)
        np.testing.assert_array_equal(after.actions, before.actions)
        assert after.task == before.task


@pytest.mark.parametrize(("name", "write"), [("npz", as_npz_folder), ("pickle-dicts", as_pickle)])
def test_arrays_by_other_names(name, write, tmp_path):
    given = {
        "obs": np.ones((STEPS, 3)), "extra": np.zeros((STEPS, 2)), "act": np.full((STEPS, 1), 3.0),
        "grip": np.zeros(STEPS), "pay": np.arange(STEPS), "goal": np.tile([0.5, 1], (STEPS, 1)),
        "what": "left", "ok": np.array([0, 0, 1, 1]), "unused": np.zeros(2),
    }  # fmt: skip
    losses, found = load(
        write(tmp_path / "source", [given]), name, observation_columns=("obs", "extra"),
        action_columns=("act", "grip"), reward_column="pay", context_columns=("goal",),
        task_column="what", success_column="ok", action_low=(0.0,), action_high=(3.0,),
        last_observation="drop",
    )  # fmt: skip
    (after,) = found
    assert (after.task.id, after.task.context) == ("source/left", (0.5, 1.0))
    np.testing.assert_array_equal(after.actions, [[1, -1]] * (STEPS - 1))
    assert set(after.observations) == {"obs", "extra"}
    assert (after.success, after.episode_return) == (True, 3.0)
    assert "no place" in losses["unused"]


# -- archives that claim or hide -------------------------------------------------------------------


def npz(path, **members):
    """An archive of members as bytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return path


def npy(array, shape=None, descr=None, *, allow_pickle=False):
    """The bytes of an array, with a header that claims what it likes."""
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, allow_pickle=allow_pickle)
    data = stream.getvalue()
    if shape is not None or descr is not None:
        header = io.BytesIO()
        claimed = {"descr": descr or array.dtype.str, "fortran_order": False,
                   "shape": array.shape if shape is None else shape}  # fmt: skip
        np.lib.format.write_array_header_1_0(header, claimed)
        data = header.getvalue() + array.tobytes()
    return data


ACTIONS = np.zeros((STEPS, 2))
HOSTILE = np.array([Hostile()] * STEPS, dtype=object)


@pytest.mark.parametrize(
    ("actions", "said"),
    [
        (npy(ACTIONS, (2**40, 2)), "not what the file holds"),
        (npy(ACTIONS, (-4, -2)), "not what the file holds"),
        (npy(ACTIONS, (3, 2)), "not what the file holds"),
        (npy(ACTIONS, descr="<U99999999"), "not what the file holds"),
        (npy(HOSTILE, allow_pickle=True), "objects are never read"),
        (npy(ACTIONS, descr=[("a", "<f8")]), "objects are never read"),
        (npy(np.zeros((10**7, 0, 2))), "not what the file holds"),
        (npy(ACTIONS)[:-3], "not what the file holds"),
        (npy(ACTIONS)[:40], "damaged"),
        (b"\x93NUMPY\x09\x00", "none that demokit reads|damaged"),
        (b"text", "damaged"),
        (b"", "damaged"),
    ],
)
def test_archives_of_other_things(actions, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = npz(tmp_path / "a.npz", observations=npy(ACTIONS), actions=actions)
    with pytest.raises(DemokitError, match=said):
        load(source, "npz")
    assert os.listdir() == ["a.npz"]


def test_what_an_archive_claims_takes_no_memory(tmp_path):
    """A bomb, and a header of 16 TB."""
    with zipfile.ZipFile(tmp_path / "many.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        block = np.zeros((2**20, 12), np.float32).tobytes()
        with archive.open("actions.npy", "w", force_zip64=True) as member:
            header = io.BytesIO()
            np.lib.format.write_array_header_1_0(
                header, {"descr": "<f4", "fortran_order": False, "shape": (2**23, 12)}
            )
            member.write(header.getvalue())
            for _ in range(8):
                member.write(block)
    claim = npz(tmp_path / "claim.npz", observations=npy(ACTIONS), actions=npy(ACTIONS, (2**40, 2)))
    many = tmp_path / "many.npz"
    for source, said in ((many, "not in the file"), (claim, "not what the file holds")):
        with growth() as grown, pytest.raises(DemokitError, match=said):
            load(source, "npz")
        assert grown.kb < 100_000
        assert sorted(os.listdir(tmp_path)) == ["claim.npz", "many.npz"]


def test_one_long_text_among_many_takes_no_memory(tmp_path):
    """In an array each would take as much as the longest: 0.8 and 1.6 GB here."""
    texts = ["x"] * 3999 + ["x" * 50_000]
    table = tmp_path / "a.csv"
    table.write_text("o,a,task\n" + "".join(f"0,0,{text}\n" for text in texts))
    said = {"observation_columns": ("o",), "action_columns": ("a",)}
    with growth() as grown, pytest.raises(DemokitError, match="its task changes"):
        load(table, "csv", **said)
    assert grown.kb < 60_000
    numbers = episode(privileged={"note": [[0.0] * 4000, [*texts[1:], 0.0]]})
    (tmp_path / "a.pkl").write_bytes(pickle.dumps([numbers]))
    with growth() as grown:
        losses, _ = load(tmp_path / "a.pkl", "pickle-dicts")
    assert losses["privileged/note"].endswith("8000 values, and 50000 letters in one")
    assert grown.kb < 60_000


def test_columns_that_nobody_asks_for_take_no_memory(tmp_path):
    table, rows, columns = tmp_path / "a.csv", 1000, 200
    cells = ",".join(["0"] * columns)
    table.write_text("o,a" + "".join(f",c{i}" for i in range(columns)) + f"\n0,0,{cells}" * rows)
    said = {"observation_columns": ("o",), "action_columns": ("a",)}
    with growth() as grown:
        load(table, "csv", **said)
    assert grown.kb < rows * columns * 56 // 1000  # as much as a tuple for each cell


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_array_of_several_mebibytes(save, tmp_path):
    given = np.random.default_rng(0).integers(0, 255, (2, 3 * 2**19), np.uint8)
    save(tmp_path / "a.npz", pixels=given)
    np.testing.assert_array_equal(read_npz(tmp_path / "a.npz")["pixels"](), given)


def test_a_member_is_unpacked_no_further_than_it_claims(tmp_path):
    claimed = npy(np.zeros((1000, 2)))  # zipfile unpacks 4 kB at least
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("actions.npy", claimed + bytes(2**27))
        archive.infolist()[0].file_size = len(claimed)
    with growth() as grown, pytest.raises(DemokitError, match="damaged"):
        read_npz(tmp_path / "a.npz")["actions"]()
    assert grown.kb < 20_000


def test_what_is_no_archive(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"PK nothing")
    with pytest.raises(DemokitError, match="no npz archive"):
        load(tmp_path / "a.npz", "npz")
    (tmp_path / "empty").mkdir()
    for name, suffix in (("npz", ".npz"), ("csv", ".csv"), ("pickle-dicts", ".pkl")):
        with pytest.raises(DemokitError, match=f"holds no {suffix}"):
            load(tmp_path / "empty", name)


def test_a_sound_episode_comes_in_beside_others(tmp_path):
    given = [episode(), episode(1) | {"actions": NAN}, episode(2)]
    losses, found = load(as_npz_folder(tmp_path / "source", given), "npz")
    assert len(found) == 2
    assert losses["demo-1.npz"] == "left out: it has actions that are not finite"


def test_pickles_are_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for content in ([Hostile()], {"actions": HOSTILE}, [episode(task=Hostile())]):
        (tmp_path / "a.pkl").write_bytes(pickle.dumps(content))
        with pytest.raises(DemokitError, match="was not read"):
            load(tmp_path / "a.pkl", "pickle-dicts")
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(3))
    with pytest.raises(DemokitError, match="no dicts of arrays"):
        load(tmp_path / "a.pkl", "pickle-dicts")
    assert os.listdir() == ["a.pkl"]


# -- tables ----------------------------------------------------------------------------------------

TABLE = """\
ep,x,y,u1,u2,r,goal,name,terminations
a,0,1,0.5,1,0,0.3,left,false
a,1,1,0.5,1,1,0.3,left,true

a,2,1,,,,0.3,left,
b,0,1,-0.5,1.5,0,0.4,2,0
b,1,1,0.5,1,1,0.4,2,0
"""
STATED = {
    "observation_columns": ("x", "y"), "action_columns": ("u*",), "reward_column": "r",
    "episode_column": "ep", "context_columns": ("goal",), "task_column": "name",
    "action_low": (-2.0,), "action_high": (2.0,),
}  # fmt: skip


def table(tmp_path, text, **changes):
    (tmp_path / "t.csv").write_text(text)
    return load(tmp_path / "t.csv", "csv", **(STATED | changes))


def test_a_table(tmp_path):
    losses, found = table(tmp_path, TABLE)
    a, b = found
    np.testing.assert_array_equal(a.observations, [[0, 1], [1, 1], [2, 1]])
    np.testing.assert_array_equal(b.observations, [[0, 1], [1, 1], [1, 1]])
    np.testing.assert_array_equal(a.actions, [[0.25, 0.5], [0.25, 0.5]])
    np.testing.assert_array_equal(b.actions, [[-0.25, 0.75], [0.25, 0.5]])
    assert [(e.task.id, e.task.context) for e in found] == [("t/left", (0.3,)), ("t/2", (0.4,))]
    assert (a.terminations[-1], b.terminations[-1]) == (True, False)
    assert a.rewards.tolist() == [0, 1]
    assert "(in 1 of 2)" in losses["last observation"]


def test_a_table_of_many_columns(tmp_path):
    names = [f"c{i}" for i in range(20_000)]
    rows = "".join(f"{','.join(['0.5'] * len(names))}\n" for _ in range(2))
    (tmp_path / "t.csv").write_text(f"{','.join(names)}\n{rows}")
    begun = process_time()
    _, found = load(tmp_path / "t.csv", "csv", observation_columns=("*",), action_columns=("c0",))
    assert process_time() - begun < 20
    assert found[0].observations.shape == (3, 20_000)


def test_a_table_each(tmp_path):
    folder = tmp_path / "tables"
    folder.mkdir()
    for index in range(11):
        rows = "".join(f"{index},{step},0.5\n" for step in range(STEPS))
        (folder / f"{index}.csv").write_text("﻿x,y,u\n" + rows)
    _, found = load(folder, "csv", observation_columns=("x", "y"), action_columns=("u",))
    assert [episode.observations[0, 0] for episode in found] == list(range(11))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("b,0,1,-0.5,", "b,0,1,", "line 6: 8 cells, the first line has 9"),
        ("b,0,1,-0.5,", "b,0,1,1,1,", "line 6: 10 cells"),
        ("b,1,1,0.5", "a,1,1,0.5", "line 7: episode a goes on"),
        ("ep,x,y", "ep,x,x", "two columns called 'x'"),
        ("goal,name", "gaol,name", "no column 'goal': its columns are ep, x"),
        ("b,0,1,-0.5,", 'b,0,"1,-0.5,', "broken after line 5|unexpected end"),
    ],
)
def test_a_broken_table_is_refused_by_line(old, new, said, tmp_path):
    assert TABLE.count(old) == 1
    with pytest.raises(DemokitError, match=said):
        table(tmp_path, TABLE.replace(old, new))
    assert os.listdir(tmp_path) == ["t.csv"]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("b,0,1,-0.5,", "b,0,1,zero,", "line 6: u1 is 'zero', no finite number"),
        ("b,0,1,-0.5,", "b,nan,1,0,", "line 6: x is 'nan', no finite number"),
        ("b,0,1,-0.5,", "b,,1,0,", "line 6: x is '', no finite number"),
        ("b,1,1,0.5,", "b,1,,0.5,", "different lengths (x 2, y 1)"),
        ("1,0.4,2,0\n", "1,0.9,2,0\n", "its goal changes within the episode"),
        ("1,0.4,2,0\n", "1,0.4,3,0\n", "its name changes within the episode"),
    ],
)
def test_an_unsound_episode_of_a_table_is_left_out_by_line(old, new, said, tmp_path):
    assert TABLE.count(old) == 1
    losses, found = table(tmp_path, TABLE.replace(old, new))
    assert len(found) == 1
    assert said in losses["t.csv episode b"]


def test_other_tables(tmp_path):
    with pytest.raises(DemokitError, match="is empty"):
        table(tmp_path, "")
    with pytest.raises(DemokitError, match="no episodes"):
        table(tmp_path, TABLE.splitlines()[0])
    with pytest.raises(DemokitError, match=r"columns of .* are ep, x, y"):
        table(tmp_path, TABLE, observation_columns=())
    with pytest.raises(DemokitError, match="--action-low and --action-high"):
        table(tmp_path, TABLE, action_low=(), action_high=())
    (tmp_path / "t.csv").write_bytes(b"x,y\n1,\xff\n")
    with pytest.raises(DemokitError, match="no text in UTF-8"):
        load(tmp_path / "t.csv", "csv", **STATED)
    os.remove(tmp_path / "t.csv")
    os.mkfifo(tmp_path / "t.csv")
    with pytest.raises(DemokitError, match="pipe"):
        load(tmp_path / "t.csv", "csv", **STATED)
    os.remove(tmp_path / "t.csv")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "stated", "said"),
    [
        ("robomimic", {"task_column": "x"}, "--task-column means nothing with --from robomimic"),
        ("npz", {"episode_column": "x"}, "--episode-column means nothing with --from npz"),
        ("minari", {"reward_column": "x"}, "--reward-column means nothing with --from minari"),
        ("gmps-release", {"action_low": (0,), "action_high": (1,)}, "--action-low means nothing"),
    ],
)
def test_what_would_have_no_effect_is_refused(name, stated, said, tmp_path):
    with pytest.raises(DemokitError, match=said):
        load(tmp_path / "x", name, **stated)


def test_texts_of_no_length_are_not_as_many_as_their_header_says(tmp_path):
    header = io.BytesIO()
    about = {"descr": "<U0", "fortran_order": False, "shape": (2**33,)}
    np.lib.format.write_array_header_1_0(header, about)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("task.npy", header.getvalue())
    with pytest.raises(DemokitError, match="no numbers or text"):
        read_npz(tmp_path / "a.npz")["task"]()
