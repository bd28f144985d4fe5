"""Merge, split, filter and relabel: the right episodes, with their provenance, or one sentence."""

import itertools
from dataclasses import replace

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

from demokit.cli import main
from demokit.data import DatasetWriter, Provenance, assembly, edit, open_dataset
from demokit.data.card import write_card
from demokit.data.changes import Changes, Selection, Trim
from demokit.data.edit import derived, filter_episodes, merge, relabel, split
from demokit.data.store import Dataset, FinishedFile, staging_folder
from demokit.data.validation import validate
from demokit.envs.vision import Vision
from demokit.errors import DemokitError
from demokit.ranges import parse_ranges, spell_ranges
from demokit.reading import file_sha256
from demokit.types import Task


def write(path, metadata, episodes):
    with DatasetWriter(path, metadata) as writer:
        for episode in episodes:
            writer.add(episode)
        return writer.finish()


def digests(path):
    return [record.digest for record in open_dataset(path).episodes]


@pytest.mark.parametrize(
    ("selection", "kept"),
    [
        (Selection(), [0, 1, 2, 3, 4, 5]),
        (Selection(tasks=("*/01",)), [1, 4]),
        (Selection(success=True), [0, 2, 4]),
        (Selection(success=False, splits=("train",)), [1, 3, 5]),
        (Selection(recorders=("scripted",), tasks=("*/00", "*/02")), [0, 2, 3, 5]),
    ],
)
def test_filter(tmp_path, metadata, make_episode, selection, kept):
    source = write(tmp_path / "a.hdf5", metadata, map(make_episode, range(6)))
    done = filter_episodes(source, tmp_path / "b.hdf5", selection)
    assert (done.episodes, done.left_out) == (len(kept), 6 - len(kept))
    before, after = open_dataset(source), open_dataset(done.path)
    assert digests(done.path) == [digests(source)[i] for i in kept]
    for new, old in enumerate(kept):
        assert replace(before.episodes[old], index=new, record_digest="") == replace(
            after.episodes[new], record_digest=""
        )
    (origin,) = after.metadata.sources
    assert (origin.name, origin.sha256, origin.episodes) == (
        "a.hdf5",
        file_sha256(source),
        len(kept),
    )
    assert origin.provenance == before.metadata.provenance


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("3", {3}), ("3,7-9", {3, 7, 8, 9}), (" 2 - 3 , 0", {0, 2, 3}), ("4-4,4", {4})],
)
def test_numbers_as_a_person_writes_them(text, numbers):
    found = parse_ranges([text], "--episode")
    assert found == numbers
    assert parse_ranges([spell_ranges(found)], "--episode") == numbers


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("3;4", "'3;4' is no number of an episode: write 3,7-9"),
        ("", "'' is no number"),
        ("-1", "'-1' is no number"),
        ("9-7", "9-7 runs backwards: write 7-9"),
        ("0-99999999999", "0-99999999999 is more than 1,000,000 episodes"),
    ],
)
def test_bad_numbers_are_refused(text, said):
    with pytest.raises(DemokitError, match=f"--drop: {said}"):
        parse_ranges([text], "--drop")


def test_episodes_by_number(tmp_path, metadata, make_episode):
    source = write(tmp_path / "a.hdf5", metadata, map(make_episode, range(6)))
    chosen = Selection(episodes=frozenset({1, 2, 3, 5}), drop=frozenset({2}), success=False)
    done = filter_episodes(source, tmp_path / "b.hdf5", chosen)
    assert (done.episodes, done.left_out) == (3, 3)
    assert digests(done.path) == [digests(source)[i] for i in (1, 3, 5)]
    (origin,) = open_dataset(done.path).metadata.sources
    assert origin.edit == "filter --episode 1-3,5 --drop 2 --failure"


def test_a_trim_keeps_rows_on_both_sides_of_its_steps(tmp_path, metadata, make_episode):
    source = write(tmp_path / "a.hdf5", metadata, map(make_episode, range(3)))
    trims = (Trim(stop=4), Trim(1, 3, frozenset({1})), Trim(0, 99, frozenset({2})))
    done = filter_episodes(source, tmp_path / "b.hdf5", Selection(), Changes(trims))
    before, after = open_dataset(source), open_dataset(done.path)
    assert [record.length for record in after.episodes] == [4, 2, 5]
    old, new = before[1], after[1]
    assert (new.actions == old.actions[1:3]).all()
    assert (new.rewards == old.rewards[1:3]).all()
    assert (new.observations == old.observations[1:4]).all()
    assert all((new.privileged[n] == old.privileged[n][1:4]).all() for n in old.privileged)
    assert new.truncations.tolist() == [False, True]
    assert new.success == old.privileged["success"][3]
    assert list(new.options["kept_steps"]) == [1, 3]
    assert after.episodes[2].digest == before.episodes[2].digest  # it has but 5 steps
    assert "kept_steps" not in after[2].options
    again = filter_episodes(
        done.path, tmp_path / "c.hdf5", Selection(), Changes((Trim(1, None, frozenset({1})),))
    )
    assert list(open_dataset(again.path)[1].options["kept_steps"]) == [2, 3]
    assert open_dataset(again.path).metadata.sources[0].edit == "filter --trim 1=1:"


def test_a_trimmed_recording_still_replays(tmp_path, recorded):
    every = Changes((Trim(5, 20),), solved=frozenset({0}), failed=frozenset({1}))
    done = filter_episodes(recorded, tmp_path / "b.hdf5", Selection(), every)
    assert validate(done.path, replay=True).errors == ()
    found = open_dataset(done.path)
    assert [record.success for record in found.episodes[:2]] == [True, False]
    assert not found.metadata.provenance.only_success
    kept = open_dataset(recorded)[0].privileged["success"][5:21]
    assert (found[0].privileged["success"] == kept).all()  # a mark changes no array
    assert found[0].options["success_marked"]
    trimmed = filter_episodes(done.path, tmp_path / "c.hdf5", Selection(), Changes((Trim(2),)))
    assert [r.success for r in open_dataset(trimmed.path).episodes[:2]] == [True, False]


def test_tasks_are_renamed(tmp_path, metadata, make_episode):
    source = write(tmp_path / "a.hdf5", metadata, map(make_episode, range(6)))
    renames = {"point/test/train/01": "reach the corner"}
    done = filter_episodes(source, tmp_path / "b.hdf5", Selection(), Changes(renames=renames))
    after = open_dataset(done.path)
    assert [task.id for task in after.metadata.tasks][1] == "reach the corner"
    assert [record.task.id == "reach the corner" for record in after.episodes] == [
        *(False, True, False) * 2
    ]
    assert after[1].task.context == open_dataset(source)[1].task.context
    assert after.metadata.sources[0].edit == (
        "filter --rename-task point/test/train/01 'reach the corner'"
    )


@pytest.mark.parametrize(
    ("selection", "changes", "said"),
    [
        (Selection(episodes=frozenset({6})), {}, "has no episode 6: it has 6, counted from 0"),
        (Selection(drop=frozenset({9})), {}, "has no episode 9"),
        (Selection(drop=frozenset({-1})), {}, "has no episode -1"),
        (Selection(), {"solved": frozenset({7})}, "has no episode 7"),
        (Selection(drop=frozenset({2})), {"failed": frozenset({2})}, "Episode 2 is not kept"),
        (Selection(), {"trims": (Trim(5),)}, "Episode 0 has 5 steps: --trim 5: would leave none"),
        (Selection(), {"renames": {"point/test/train/1": "b"}}, "did you mean"),
        (Selection(), {"renames": {f"point/test/train/0{i}": "b" for i in (0, 1)}}, "two tasks"),
    ],
)
def test_edits_that_fit_nothing(tmp_path, metadata, make_episode, selection, changes, said):
    source = write(tmp_path / "a.hdf5", metadata, map(make_episode, range(6)))
    with pytest.raises(DemokitError, match=said):
        filter_episodes(source, tmp_path / "b.hdf5", selection, Changes(**changes))
    assert [p.name for p in tmp_path.iterdir()] == ["a.hdf5"]


def test_one_episode_is_no_success_and_failure():
    with pytest.raises(DemokitError, match="Episode 4 is marked both"):
        Changes(solved=frozenset({4, 5}), failed=frozenset({4}))


@pytest.mark.parametrize("text", ["0:80", "3:", ":4", "3,7-9=0:80"])
def test_a_trim_as_a_person_writes_it(text):
    trim = Trim.parsed(text)
    assert Trim.parsed(str(trim)) == trim


@pytest.mark.parametrize("text", ["", ":", "5", "0-80", "5:5", "a=0:4", "3:1", "-2:4"])
def test_a_trim_that_is_none(text):
    with pytest.raises(DemokitError, match="--trim"):
        Trim.parsed(text)


def test_filter_by_return(tmp_path, metadata, make_episode):
    source = write(tmp_path / "a.hdf5", metadata, map(make_episode, range(6)))
    returns = sorted(record.episode_return for record in open_dataset(source).episodes)
    done = filter_episodes(source, tmp_path / "b.hdf5", Selection(min_return=returns[4]))
    assert sorted(r.episode_return for r in open_dataset(done.path).episodes) == returns[4:]


def test_filter_refuses_to_write_nothing(tmp_path, metadata, make_episode):
    source = write(tmp_path / "a.hdf5", metadata, [make_episode(0)])
    with pytest.raises(DemokitError, match="No episode of"):
        filter_episodes(source, tmp_path / "b.hdf5", Selection(recorders=("sac",)))
    assert [p.name for p in tmp_path.iterdir()] == ["a.hdf5"]


def test_merge_keeps_seeds_and_sources(tmp_path, metadata, make_episode):
    other = replace(
        metadata, task_set="more", provenance=replace(metadata.provenance, seed=5, noise_std=0.1)
    )
    first = write(tmp_path / "a.hdf5", metadata, map(make_episode, range(3)))
    second = write(tmp_path / "b.hdf5", other, map(make_episode, range(2, 6)))
    done = merge([first, second], tmp_path / "m.hdf5")
    assert (done.episodes, done.left_out) == (6, 1)
    merged = open_dataset(done.path)
    assert [r.seed for r in merged.episodes] == [make_episode(i).seed for i in range(6)]
    about = merged.metadata
    assert (about.task_set, about.provenance.seed, about.provenance.noise_std) == (
        "test+more",
        None,
        None,
    )
    assert [(s.name, s.episodes, s.provenance.seed) for s in about.sources] == [
        ("a.hdf5", 3, 0),
        ("b.hdf5", 3, 5),
    ]
    twice = filter_episodes(done.path, tmp_path / "f.hdf5", Selection(success=True))
    assert open_dataset(twice.path).metadata.sources[0].sources == about.sources
    with pytest.raises(DemokitError, match="demokit merge"):
        DatasetWriter(done.path, metadata, resume=True)


def test_an_episode_of_another_task_or_success_is_another_one(tmp_path, metadata, make_episode):
    first = replace(make_episode(0), privileged={}, success=False)
    others = [replace(first, success=True), replace(first, task=metadata.tasks[1]), first]
    about = replace(metadata, provenance=replace(metadata.provenance, missing={"state": "none"}))
    paths = [
        write(tmp_path / f"{i}.hdf5", about, [each]) for i, each in enumerate([first, *others])
    ]
    done = merge(paths, tmp_path / "m.hdf5")
    assert (done.episodes, done.left_out) == (3, 1)
    found = [(record.task.id[-2:], record.success) for record in open_dataset(done.path).episodes]
    assert found == [("00", False), ("00", True), ("01", False)]


def test_any_number_of_edits_can_follow_each_other(tmp_path, metadata, make_episode, monkeypatch):
    monkeypatch.setattr(edit, "_MOST_BEHIND", 20)
    files = itertools.count()  # each is another one
    monkeypatch.setattr(edit, "file_sha256", lambda _: str(next(files)))
    about = {"sha256": "ab", "env_steps": 7, "task_set": "test", "returns": {}, "success": {}}
    taught = replace(metadata.provenance, trained=about)
    total = FinishedFile(write(tmp_path / "all.hdf5", metadata, [make_episode(0)]))
    total.metadata = replace(metadata, provenance=taught)
    day = open_dataset(
        write(tmp_path / "day.hdf5", replace(metadata, task_set="b"), [make_episode(1)])
    )
    for _ in range(40):
        total.metadata = derived([Dataset(total), day], "merge")
        total.metadata.require_storable()
    about = total.metadata
    assert [(source.sha256, len(source.sources)) for source in about.sources] == [
        ("78", 21), ("79", 0),
    ]  # fmt: skip
    behind = about.sources[0].sources
    assert [source.sha256 for source in behind[:4]] == ["76", "77", "74", "75"]
    assert behind[-1].provenance.trained == taught.trained
    assert not any(source.sources for source in behind)
    assert (about.task_set, about.trained_experts()) == ("test+b", {"ab": 7})


def test_provenance_says_which_episodes_were_kept(tmp_path, metadata, make_episode):
    source = write(tmp_path / "a.hdf5", metadata, map(make_episode, range(4)))
    solved = filter_episodes(source, tmp_path / "s.hdf5", Selection(success=True)).path
    mixed = merge([solved, source], tmp_path / "m.hdf5").path
    paths = (source, solved, mixed)
    found = [open_dataset(path).metadata for path in paths]
    assert [about.provenance.only_success for about in found] == [False, True, False]
    solved = "successful episodes only"
    said = ["every episode", solved, f"{solved}, of some sources"]
    assert [about.kept for about in found] == said
    for path, words in zip(paths, said, strict=True):
        assert f"- kept: {words}\n" in write_card(path).read_text()


WIDE = Task("point", "point/wide", (1.0, 2.0, 3.0), "train")
MISFITS = {
    "rewards": ({"reward": "sparse"}, "different rewards"),
    "models": ({"model_hash": "1" * 64}, "different models"),
    "horizons": ({"horizon": 30}, "different horizons"),
    "licences": ({"license": "MIT"}, "--license"),
    "contexts": ({"tasks": (WIDE,)}, "different context widths"),
    "scales": (
        {"provenance": Provenance("x", "x", 0.2, 0, missing={"action range": "divided by [2.0]"})},
        "different action scales",
    ),
    "tasks": ("validation", "another one elsewhere"),
}


@pytest.mark.parametrize("what", MISFITS)
def test_merge_refuses_what_does_not_fit(tmp_path, metadata, make_episode, what):
    changes, message = MISFITS[what]
    episode = make_episode(0)
    if changes == "validation":
        tasks = tuple(replace(task, split="validation") for task in metadata.tasks)
        changes = {"tasks": tasks}
    if "tasks" in changes:
        episode = replace(episode, task=changes["tasks"][0])
    first = write(tmp_path / "a.hdf5", metadata, [make_episode(0)])
    second = write(tmp_path / "b.hdf5", replace(metadata, **changes), [episode])
    with pytest.raises(DemokitError, match=message):
        merge([first, second], tmp_path / "m.hdf5")
    assert not (tmp_path / "m.hdf5").exists()


def test_split_by_task(recorded, tmp_path):
    paths = tmp_path / "t.hdf5", tmp_path / "v.hdf5"
    train, validation = split(recorded, *paths, fraction=0.25)
    assert (train.episodes, validation.episodes) == (6, 2)
    held_out = open_dataset(validation.path)
    assert {task.split for task in held_out.metadata.tasks} == {"validation"}
    assert not {r.task.id for r in held_out.episodes} & {
        r.task.id for r in open_dataset(train.path).episodes
    }
    assert sorted(digests(train.path) + digests(validation.path)) == sorted(digests(recorded))
    assert validate(train.path).ok
    assert validate(validation.path).ok
    both = merge(paths, tmp_path / "m.hdf5")
    assert validate(both.path).ok
    with pytest.raises(DemokitError, match="filter --split"):
        split(both.path, tmp_path / "x.hdf5", tmp_path / "y.hdf5", fraction=0.5)


def test_split_keeps_a_context_on_one_side(tmp_path, metadata, make_episode):
    tasks = tuple(Task("point", f"point/{i}", (float(i % 2), 0.5), "train") for i in range(6))
    episodes = [replace(make_episode(i), task=task) for i, task in enumerate(tasks)]
    source = write(tmp_path / "a.hdf5", replace(metadata, tasks=tasks), episodes)
    parts = split(source, tmp_path / "t.hdf5", tmp_path / "v.hdf5", fraction=0.3)
    assert [part.episodes for part in parts] == [3, 3]
    first, second = ({t.context for t in open_dataset(p.path).metadata.tasks} for p in parts)
    assert not first & second
    with pytest.raises(DemokitError, match="has 1 tasks of different contexts"):
        split(parts[0].path, tmp_path / "x.hdf5", tmp_path / "y.hdf5", fraction=0.3)


def test_split_by_episode_is_stratified_and_seeded(recorded, tmp_path):
    parts = []
    for name in "ab":
        paths = tmp_path / f"{name}1.hdf5", tmp_path / f"{name}2.hdf5"
        parts.append([e.path for e in split(recorded, *paths, fraction=0.4, by="episode", seed=3)])
    for mine, again in zip(*parts, strict=True):
        records = open_dataset(mine).episodes
        assert len(records) == len({record.task.id for record in records}) == 4
        assert digests(mine) == digests(again)


def test_split_refuses_before_it_writes(recorded, tmp_path):
    (tmp_path / "v.hdf5").write_text("there")
    paths = tmp_path / "t.hdf5", tmp_path / "v.hdf5"
    with pytest.raises(DemokitError, match="exists"):
        split(recorded, *paths, fraction=0.25)
    with pytest.raises(DemokitError, match="between 0 and 1"):
        split(recorded, *paths, fraction=1.5, overwrite=True)
    with pytest.raises(DemokitError, match="three different files"):
        split(recorded, tmp_path / "t.hdf5", tmp_path / "t.hdf5", fraction=0.5)
    assert [p.name for p in tmp_path.iterdir()] == ["v.hdf5"]


def test_relabel_there_and_back(recorded, tmp_path):
    sparse = relabel(recorded, tmp_path / "s.hdf5", reward="sparse").path
    with open_dataset(sparse) as dataset:
        assert dataset.metadata.reward == "sparse"
        for episode in dataset:
            np.testing.assert_array_equal(episode.rewards, episode.privileged["reward_sparse"][1:])
    assert validate(sparse, replay=True).ok
    dense = relabel(sparse, tmp_path / "d.hdf5", reward="dense").path
    assert digests(dense) == digests(recorded) != digests(sparse)


@pytest.mark.parametrize("reward", ["dense", "sparse"])
def test_an_ant_recorded_when_sparse_meant_the_papers(reward, tmp_path, invoke):
    new, old = tmp_path / "new.hdf5", tmp_path / "old.hdf5"
    options = ("--tasks", 2, "--episodes-per-task", 1, "--expert", "random", "--reward", reward)
    invoke("record", "--env", "ant", *options, "--out", new)

    def as_before(episode):
        privileged = dict(episode.privileged)
        privileged["reward_sparse"] = privileged.pop("reward_sparse_paper")
        return replace(
            episode, privileged=privileged, rewards=privileged[f"reward_{reward}"][1:].copy()
        )

    write(old, open_dataset(new).metadata, map(as_before, open_dataset(new)))
    assert validate(old, replay=True).ok
    again = relabel(old, tmp_path / "again.hdf5", reward=reward).path
    assert validate(again, replay=True).ok
    assert digests(again) == digests(new) != digests(old)
    for episode in open_dataset(new):
        assert (episode.privileged["reward_sparse"] == 0).all()
        assert (episode.privileged["reward_sparse_paper"] >= 4 - 2 * np.sqrt(2)).all()


def test_other_rewards_of_a_family_are_its_own(recorded, tmp_path):
    with pytest.raises(DemokitError, match="Unknown reward of point 'sparse-paper': did you mean"):
        relabel(recorded, tmp_path / "r.hdf5", reward="sparse-paper")
    assert not (tmp_path / "r.hdf5").exists()


def test_outputs_that_are_taken(tmp_path, metadata, make_episode):
    source = write(tmp_path / "a.hdf5", metadata, [make_episode(0)])
    before = source.read_bytes()
    with pytest.raises(DemokitError, match="exists"):
        filter_episodes(source, source, Selection())
    assert source.read_bytes() == before
    with pytest.raises(DemokitError, match=r"must be named NAME\.hdf5"):
        filter_episodes(source, tmp_path / "b.txt", Selection())
    with DatasetWriter(tmp_path / "u.hdf5", metadata) as writer:
        writer.add(make_episode(1))
    with pytest.raises(DemokitError, match="unfinished recording"):
        filter_episodes(source, tmp_path / "u.hdf5", Selection(), overwrite=True)
    assert staging_folder(tmp_path / "u.hdf5").exists()
    longer = write(tmp_path / "l.hdf5", metadata, [make_episode(0)])
    with DatasetWriter(longer, metadata, resume=True) as writer:
        writer.add(make_episode(1))
    with pytest.raises(DemokitError, match="unfinished recording"):
        filter_episodes(source, longer, Selection(), overwrite=True)
    assert filter_episodes(source, source, Selection(), overwrite=True).episodes == 1


def test_a_damaged_source_writes_nothing(dataset_path, tmp_path):
    with h5py.File(dataset_path, "r+") as file:
        file["episode_5/rewards"][0] += 1
    with pytest.raises(DemokitError, match="checksum"):
        merge([dataset_path, dataset_path], tmp_path / "m.hdf5")
    assert [p.name for p in tmp_path.iterdir()] == ["copy.hdf5"]


def test_relabel_draws_what_recording_would_have_seen(tmp_path):
    options = ["record", "--env", "push", "--num-episodes", "2", "--license", "MIT", "--out"]
    state, seen = str(tmp_path / "s.hdf5"), str(tmp_path / "v.hdf5")
    done = CliRunner().invoke(main, [*options, seen, "--observation", "vision"])
    if "OpenGL" in done.output:
        pytest.skip(done.output)
    assert done.exit_code == 0, done.output
    assert CliRunner().invoke(main, [*options, state]).exit_code == 0
    made = relabel(state, tmp_path / "r.hdf5", vision=Vision()).path
    assert open_dataset(made).metadata.space_items() == open_dataset(seen).metadata.space_items()
    assert digests(made) == digests(seen) != digests(state)
    assert validate(made, replay=True).ok


def test_relabel_of_what_cannot_be_seen(recorded, tmp_path):
    with pytest.raises(DemokitError, match="images"):
        relabel(recorded, tmp_path / "r.hdf5", vision=Vision())
    assert list(tmp_path.iterdir()) == []


def test_a_licence_can_be_stated(tmp_path, metadata, make_episode):
    path = write(tmp_path / "a.hdf5", metadata, [make_episode(0)])
    merge([path], tmp_path / "b.hdf5", license="MIT")
    assert open_dataset(tmp_path / "b.hdf5").metadata.license == "MIT"
    with DatasetWriter(path, replace(metadata, license="MIT"), resume=True) as writer:
        writer.finish()
    assert open_dataset(path).metadata.license == "MIT"
    assert digests(path) == digests(tmp_path / "b.hdf5")
    other = write(tmp_path / "c.hdf5", metadata, [make_episode(1)])
    with pytest.raises(DemokitError, match="licence is empty"):
        merge([path, other], tmp_path / "d.hdf5", license="")


def test_a_link_is_written_through(tmp_path, metadata, make_episode):
    real = write(tmp_path / "real.hdf5", metadata, [make_episode(0)])
    link = tmp_path / "link.hdf5"
    link.symlink_to(real)
    with DatasetWriter(link, metadata, resume=True) as writer:
        writer.add(make_episode(1))
        writer.finish()
    assert link.is_symlink()
    assert len(open_dataset(real)) == 2
    filter_episodes(real, link, Selection(tasks=(make_episode(0).task.id,)), overwrite=True)
    assert link.is_symlink()


def test_a_card_follows_its_dataset(tmp_path, metadata, make_episode):
    path = write(tmp_path / "a.hdf5", metadata, [make_episode(i) for i in range(3)])
    before = write_card(path).read_text()
    filter_episodes(path, path, Selection(tasks=(make_episode(0).task.id,)), overwrite=True)
    assert path.with_suffix(".md").read_text() != before


@pytest.mark.parametrize("unsound", ["t.hdf5", "v.hdf5"])
def test_split_checks_both_before_one_takes_its_place(recorded, unsound, tmp_path, monkeypatch):
    outputs = tmp_path / "t.hdf5", tmp_path / "v.hdf5"
    split(recorded, *outputs, fraction=0.5, seed=1)
    before = [path.read_bytes() for path in outputs]
    read_back = assembly._read_back

    def check(aside, *others):
        read_back(aside, *others)
        if aside.name.startswith(unsound):
            raise DemokitError("not sound")

    monkeypatch.setattr(assembly, "_read_back", check)
    with pytest.raises(DemokitError, match="not sound"):
        split(recorded, *outputs, fraction=0.25, seed=2, overwrite=True)
    assert [path.read_bytes() for path in outputs] == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["t.hdf5", "v.hdf5"]


def test_split_writes_both_or_none(dataset_path, tmp_path):
    train, validation = tmp_path / "t.hdf5", tmp_path / "v.hdf5"
    split(dataset_path, train, validation, fraction=0.5, seed=1)
    held_out = open_dataset(validation).episodes[0].task.id
    index = next(r.index for r in open_dataset(dataset_path).episodes if r.task.id == held_out)
    with h5py.File(dataset_path, "r+") as file:
        file[f"episode_{index}/actions"][0] = 0.5
    before = train.read_bytes()
    with pytest.raises(DemokitError, match="was changed"):
        split(dataset_path, train, validation, fraction=0.5, seed=1, overwrite=True)
    assert train.read_bytes() == before
