"""Datasets from datasets: merge, split, filter, relabel, repair.

One mechanism: choose episodes, change each if asked, write them aside and rename. A source is
never touched; the output appears whole or not at all.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from demokit.data.assembly import check_output, new_file, open_settled, write_lock
from demokit.data.card import refresh_card
from demokit.data.changes import Changes, Selection
from demokit.data.metadata import ACTION_RANGE, DatasetMetadata, Provenance, SourceFile
from demokit.data.store import Dataset
from demokit.errors import DemokitError, unknown_name
from demokit.random import stream
from demokit.reading import file_sha256
from demokit.text import printable
from demokit.types import Array, Episode, Task
from demokit.writing import Together

if TYPE_CHECKING:
    from demokit.data.replay import Replay
    from demokit.envs.vision import Vision

_MOST_BEHIND = 256
_ADVICE = "choose another --out; what was there is as it was."
_MERGE_HINTS = {
    "rewards": "see `demokit relabel --reward`.",
    "action scales": "an action means something else in each, so keep them apart.",
}


@dataclass(frozen=True)
class Edited:
    """What an edit wrote.

    Attributes:
        path: the new dataset.
        episodes: how many it holds.
        left_out: how many episodes of the sources it does not hold.
    """

    path: Path
    episodes: int
    left_out: int


def filter_episodes(
    source: str | Path,
    target: str | Path,
    selection: Selection,
    changes: Changes | None = None,
    *,
    overwrite: bool = False,
) -> Edited:
    """Write the chosen episodes of `source` to `target`, each changed if asked.

    What was done stands in `SourceFile.edit`, as the options of `demokit filter`.

    Args:
        source: the dataset to choose from; it stays as it is.
        target: the new dataset.
        selection: goes by what `source` says.
        changes: what becomes of the chosen ones; numbers are those in `source`.
        overwrite: replace `target`.

    Raises:
        DemokitError: nothing is chosen, an episode or task that is named is not there or not
            chosen, a source is damaged, or `target` cannot be written.
    """
    dataset, changes = open_settled(source), changes or Changes()
    chosen = [i for i, record in enumerate(dataset.episodes) if selection.keeps(record)]
    _check_numbers(dataset, selection, changes, chosen)
    if not chosen:
        raise DemokitError(f"No episode of {dataset.path} fits: nothing was written.")
    part = dataset.select(chosen)
    about = derived([part], shlex.join(["filter", *selection.words(), *changes.words()]))
    about = _with_tasks(about, _renamed_tasks(part, changes))
    solved = bool(selection.success) or about.provenance.only_success
    solved = solved and not (changes.failed or changes.trims)  # these may end in failure
    about = replace(about, provenance=replace(about.provenance, only_success=solved))
    episodes = map(changes.changed, chosen, part.verified())
    write_dataset(Path(target), about, episodes, len(part), overwrite=overwrite)
    return Edited(Path(target), len(part), len(dataset) - len(part))


def _check_numbers(
    dataset: Dataset, selection: Selection, changes: Changes, chosen: Sequence[int]
) -> None:
    """Raise DemokitError for a number without an episode, and for one that has no effect."""
    named = selection.drop.union(changes.numbers, selection.episodes or ())
    if absent := named.difference(range(len(dataset))):
        raise DemokitError(
            f"{dataset.path} has no episode {max(absent)}: it has {len(dataset)}, counted from 0."
        )
    if idle := changes.numbers.difference(chosen):
        raise DemokitError(f"Episode {min(idle)} is not kept: leave out what changes it.")


def _renamed_tasks(part: Dataset, changes: Changes) -> tuple[Task, ...]:
    """The tasks that have episodes, renamed; raises DemokitError where a name means two."""
    tasks = _tasks_of(part)
    known = [task.id for task in tasks]
    for old in changes.renames:
        if old not in known:
            raise unknown_name("task", old, known)
    by_id: dict[str, Task] = {}
    for task in map(changes.renamed, tasks):
        if by_id.setdefault(task.id, task) != task:
            raise DemokitError(
                f"'{task.id}' would name two tasks that differ in context or split: "
                "choose another name."
            )
    return tuple(by_id.values())


def merge(
    sources: Sequence[str | Path],
    target: str | Path,
    *,
    license: str | None = None,
    overwrite: bool = False,
) -> Edited:
    """Write the episodes of all sources, in order; an episode that comes again is left out.

    It does where arrays, task and success are those of an earlier one. A copy that was renamed or
    marked is kept beside the original: choose with `filter` which of them to merge.

    Args:
        sources: datasets of one family, reward, model, observation space and action scale.
        target: the new dataset.
        license: its licence, needed where those of the sources differ, and of one source.
        overwrite: replace `target`.

    Raises:
        DemokitError: they do not fit together, one is damaged, or `target` cannot be written.
    """
    if len(sources) < 2 and license is None:
        raise DemokitError("Merging needs two datasets, or one and a licence to state: --license.")
    datasets = [open_settled(source) for source in sources]
    for other in datasets[1:]:
        _check_mergeable(datasets[0], other)
    tasks = _merged_tasks(datasets)
    parts = _without_repeats(datasets)
    about = _with_tasks(derived(parts, "merge", license), tasks)
    episodes = (episode for part in parts for episode in part.verified())
    count = sum(map(len, parts))
    write_dataset(Path(target), about, episodes, count, overwrite=overwrite)
    return Edited(Path(target), count, sum(map(len, datasets)) - count)


def split(
    source: str | Path,
    train: str | Path,
    validation: str | Path,
    *,
    fraction: float,
    by: str = "task",
    seed: int = 0,
    overwrite: bool = False,
) -> tuple[Edited, Edited]:
    """Write two datasets: one to train on, one to validate with.

    Args:
        source: a dataset whose tasks all have one split.
        train: where the training part goes.
        validation: where the validation part goes.
        fraction: the share of the tasks, or of each task's episodes, that validate, in (0, 1).
        by: "task": tasks, and their contexts where they are known, are disjoint, and those that
            validate get the split "validation";
            "episode": every task is in both, and keeps its split.
        seed: of the random choice.
        overwrite: replace the outputs.

    Raises:
        DemokitError: too few tasks or episodes, a damaged source, or outputs that cannot be
            written; both outputs are checked before the first is written.
    """
    dataset = open_settled(source)
    _check_outputs(dataset, [Path(train), Path(validation)])
    rng = stream(seed, "split")
    chosen = _chosen_tasks(dataset, fraction, rng) if by == "task" else None
    held_out = (
        {i for i, r in enumerate(dataset.episodes) if r.task.id in chosen}
        if chosen is not None
        else _chosen_episodes(dataset, fraction, rng)
    )
    to = None if chosen is None else "validation"
    parts = []
    for path, split, wanted in ((Path(train), None, False), (Path(validation), to, True)):
        part = dataset.select([i for i in range(len(dataset)) if (i in held_out) == wanted])
        tasks = tuple(_in_split(task, split) for task in _tasks_of(part))
        about = _with_tasks(derived([part], "split"), tasks)
        parts.append(Part(path, about, _all_in_split(part, split), len(part)))
    _write_all(parts, overwrite=overwrite)
    first, second = (Edited(part.path, part.total, len(dataset) - part.total) for part in parts)
    return first, second


def relabel(
    source: str | Path,
    target: str | Path,
    *,
    reward: str | None = None,
    vision: Vision | None = None,
    overwrite: bool = False,
) -> Edited:
    """Write all episodes with other rewards or observations, computed from their states.

    Args:
        source: a dataset whose states can be restored.
        target: the new dataset.
        reward: one of the family's; None keeps the rewards.
        vision: observe these images, and the hand's terms; None keeps the observations.
        overwrite: replace `target`.

    Raises:
        DemokitError: the states cannot be restored, or do not give back what was recorded;
            there is nothing to draw with; or `target` cannot be written.
    """
    dataset = open_settled(source)
    about = derived([dataset], "relabel" + f" {reward}" * bool(reward) + " vision" * bool(vision))
    about = replace(about, reward=reward or about.reward)
    relabeler = _Relabeler(about, vision, str(dataset.path))
    episodes = map(relabeler.changed, dataset.verified())
    about = replace(about, observation_space=relabeler.observation_space)
    write_dataset(Path(target), about, episodes, len(dataset), overwrite=overwrite)
    return Edited(Path(target), len(dataset), 0)


class _Relabeler:
    """Computes rewards, and images if asked, from the states of episodes."""

    def __init__(self, about: DatasetMetadata, vision: Vision | None, where: str) -> None:
        from demokit.data.metadata import vision_space
        from demokit.data.replay import Replayer
        from demokit.envs.batch import checked_vision
        from demokit.envs.images import ImageRenderer

        self._replayer = Replayer(about)
        self._where = where
        self._terms = self._replayer.family.vision_terms
        self._images = None
        self.observation_space = about.observation_space
        if vision is not None:
            checked_vision(self._replayer.family, vision)
            self._images = ImageRenderer(self._replayer.family, vision)
            self.observation_space = vision_space(self._replayer.family, vision)

    def changed(self, episode: Episode) -> Episode:
        """The episode with what was asked for; raises DemokitError where its states are not its."""
        from demokit.data.replay import as_recorded, compare

        again = self._replayer.from_states(episode)
        paid_then = as_recorded(episode, again).arrays["rewards"][1:]
        off = compare(replace(episode, rewards=paid_then), again)
        if off.first_step is not None:
            raise DemokitError(
                f"{self._where}: restoring row {off.first_step} gives another {off.array}: "
                "nothing can be computed from its states; see `demokit validate`."
            )
        changed = replace(
            episode,
            rewards=np.asarray(again.arrays["rewards"][1:], np.float64),
            privileged={**episode.privileged, **self._rewards(episode, again)},
        )
        if self._images is None:
            return changed
        seen = {t: again.arrays[f"privileged/{t}"].astype(np.float32) for t in self._terms}
        return replace(changed, observations={**self._images.render(again.states), **seen})

    def _rewards(self, episode: Episode, again: Replay) -> dict[str, Array]:
        """All rewards as privileged terms, where the episode holds such."""
        from demokit.envs.family import reward_term

        names = list(map(reward_term, self._replayer.family.rewards))
        held = any(name in episode.privileged for name in names)
        return {name: again.arrays[f"privileged/{name}"] for name in names if held}


class Part(NamedTuple):
    """A dataset to be written."""

    path: Path
    metadata: DatasetMetadata
    episodes: Iterator[Episode]
    total: int


def write_dataset(
    path: Path,
    metadata: DatasetMetadata,
    episodes: Iterable[Episode],
    total: int,
    *,
    overwrite: bool = False,
) -> None:
    """Write a finished dataset of `total` episodes aside, then rename it.

    Raises:
        DemokitError: `path` is taken and not to be replaced, or being written by another process;
            an episode does not fit, there is none, or the place cannot be written; `path` is then
            as it was.
    """
    _write_all([Part(path, metadata, iter(episodes), total)], overwrite=overwrite)


def _write_all(parts: Sequence[Part], *, overwrite: bool) -> None:
    """Write several datasets, all or, where one cannot be written, none; see `Together`."""
    with ExitStack() as stack:
        for part in parts:
            stack.enter_context(write_lock(part.path))
            check_output(part.path, overwrite=overwrite)
        put_datasets(parts)


def put_datasets(parts: Sequence[Part]) -> None:
    """`write_dataset` for whoever holds the locks and has checked the outputs."""
    with Together() as together:
        for part in parts:
            if not part.total:
                raise DemokitError(f"No episode is left: {part.path} was not written.")
            with new_file(part.path, part.metadata, part.total, _ADVICE, together=together) as new:
                for _, episode in zip(range(part.total), part.episodes, strict=True):
                    new.add(episode)
    for part in parts:
        refresh_card(part.path)


def derived(parts: Sequence[Dataset], edit: str, license: str | None = None) -> DatasetMetadata:
    """Metadata of what is made from `parts`: what they share, and each as a source.

    Raises:
        DemokitError: their licences differ and none is given.
    """
    about = [part.metadata for part in parts]
    sources = tuple(_source(part, edit) for part in parts)
    licenses = {each.license for each in about}
    if license is None and len(licenses) > 1:
        named = " and ".join(sorted(str(each or "none") for each in licenses))
        raise DemokitError(f"The licences differ ({named}): state one with --license.")
    return replace(
        about[0],
        horizon=max(each.horizon for each in about),
        task_set="+".join(dict.fromkeys(n for each in about for n in each.task_set.split("+"))),
        provenance=_merged_provenance([each.provenance for each in about]),
        license=about[0].license if license is None else license,
        sources=sources,
    )


def _source(part: Dataset, edit: str) -> SourceFile:
    about = part.metadata
    return SourceFile(
        name=printable(part.path.name),
        sha256="" if part.unfinished else file_sha256(part.path),
        episodes=len(part),
        edit=edit,
        task_set=about.task_set,
        provenance=about.provenance,
        sources=_behind(about.sources),
    )


def _behind(sources: Sequence[SourceFile]) -> tuple[SourceFile, ...]:
    """The files of `sources` and those behind them, in one row; see `SourceFile.sources`."""
    found: dict[tuple[object, ...], SourceFile] = {}
    kinds, level = set[tuple[object, ...]](), list(sources)
    while level:
        for each in level:
            made = each.provenance
            trained = str(made.trained.get("sha256"))
            kind = made.recorder, made.expert, made.operator, made.only_success, trained
            if len(found) < _MOST_BEHIND or kind not in kinds:
                key = each.name, each.sha256, each.episodes, each.edit
                found.setdefault(key, replace(each, sources=()))
                kinds.add(kind)
        level = [behind for each in level for behind in each.sources]
    return tuple(found.values())


def _merged_provenance(parts: Sequence[Provenance]) -> Provenance:
    """What the parts share; "several" or None where they differ."""

    def shared(name: str, otherwise: Any) -> Any:
        values = [getattr(part, name) for part in parts]
        return values[0] if all(value == values[0] for value in values) else otherwise

    return replace(
        parts[0],
        recorder=shared("recorder", "several"),
        expert=shared("expert", "several"),
        noise_std=shared("noise_std", None),
        seed=shared("seed", None),
        only_success=all(part.only_success for part in parts),
        operator=shared("operator", "several"),
        created=max(part.created for part in parts),
        versions=shared("versions", {"demokit": "several"}),
        missing={name: text for part in parts for name, text in part.missing.items()},
        trained=shared("trained", {}),
    )


def _with_tasks(metadata: DatasetMetadata, tasks: tuple[Task, ...]) -> DatasetMetadata:
    return replace(metadata, tasks=tasks)


def _in_split(task: Task, split: str | None) -> Task:
    return task if split is None else replace(task, split=split)


def _all_in_split(part: Dataset, split: str | None) -> Iterator[Episode]:
    for episode in part.verified():
        yield replace(episode, task=_in_split(episode.task, split))


def _tasks_of(dataset: Dataset) -> tuple[Task, ...]:
    """The tasks that have episodes, in the order of the metadata."""
    used = {record.task.id for record in dataset.episodes}
    return tuple(task for task in dataset.metadata.tasks if task.id in used)


def _check_mergeable(first: Dataset, other: Dataset) -> None:
    mine, theirs = first.metadata, other.metadata
    for what, a, b in (
        ("families", mine.family, theirs.family),
        ("rewards", mine.reward, theirs.reward),
        ("horizons", _horizon(mine), _horizon(theirs)),
        ("observation spaces", mine.space_items(), theirs.space_items()),
        ("action spaces", mine.action_space, theirs.action_space),
        ("models", mine.model_hash, theirs.model_hash),
        ("MuJoCo versions", mine.mujoco_version, theirs.mujoco_version),
        ("context widths", _context_widths(mine), _context_widths(theirs)),
        ("action scales", _action_scale(mine), _action_scale(theirs)),
    ):
        if a != b:
            hint = _MERGE_HINTS.get(what, "keep them apart.")
            raise DemokitError(f"{first.path} and {other.path} have different {what}: {hint}")


def _horizon(metadata: DatasetMetadata) -> int | None:
    """That of the family; None where nothing knows it, and it is the longest episode."""
    from demokit.envs import is_known

    return metadata.horizon if is_known(metadata.family) else None


def _context_widths(metadata: DatasetMetadata) -> set[int]:
    return {len(task.context) for task in metadata.tasks}


def _action_scale(metadata: DatasetMetadata) -> str | None:
    """How an import scaled its actions, in words."""
    return metadata.provenance.missing.get(ACTION_RANGE)


def _merged_tasks(datasets: Sequence[Dataset]) -> tuple[Task, ...]:
    """The tasks of all; raises DemokitError when one id or context means two things."""
    by_id: dict[str, Task] = {}
    splits: dict[tuple[float, ...], str] = {}
    for dataset in datasets:
        for task in dataset.metadata.tasks:
            if by_id.setdefault(task.id, task) != task:
                raise DemokitError(f"{dataset.path}: task '{task.id}' is another one elsewhere.")
            if not dataset.metadata.knows_contexts:
                continue
            if splits.setdefault(task.context, task.split) != task.split:
                raise DemokitError(
                    f"{dataset.path}: the context of task '{task.id}' is in split "
                    f"'{splits[task.context]}' elsewhere: the merge would leak it."
                )
    return tuple(by_id.values())


def _without_repeats(datasets: Sequence[Dataset]) -> list[Dataset]:
    """The datasets without the episodes that an earlier one holds."""
    seen = set[tuple[str, str, bool]]()
    parts = []
    for dataset in datasets:
        fresh = []
        for index, record in enumerate(dataset.episodes):
            said = record.digest, record.task.id, record.success
            if not record.digest or said not in seen:
                fresh.append(index)
            seen.add(said)
        parts.append(dataset.select(fresh))
    return parts


def _chosen_tasks(dataset: Dataset, fraction: float, rng: np.random.Generator) -> set[str]:
    tasks = _tasks_of(dataset)
    splits = sorted({task.split for task in tasks})
    if len(splits) > 1:
        raise DemokitError(
            f"{dataset.path} already has the splits {', '.join(splits)}: take them apart with "
            "`demokit filter --split`."
        )
    # Tasks of one context are one task to a learner, whatever their ids.
    known = dataset.metadata.knows_contexts
    keys = list(dict.fromkeys(task.context if known else task.id for task in tasks))
    what = "tasks of different contexts" if known else "tasks"
    picked = _share(len(keys), fraction, f"{dataset.path} has {len(keys)} {what}")
    chosen = {keys[i] for i in rng.permutation(len(keys))[:picked]}
    return {task.id for task in tasks if (task.context if known else task.id) in chosen}


def _chosen_episodes(dataset: Dataset, fraction: float, rng: np.random.Generator) -> set[int]:
    """The same share of every task's episodes."""
    groups: dict[str, list[int]] = {}
    for index, record in enumerate(dataset.episodes):
        groups.setdefault(record.task.id, []).append(index)
    chosen: set[int] = set()
    for task, members in groups.items():
        picked = _share(len(members), fraction, f"Task {task} has {len(members)} episodes")
        chosen.update(members[i] for i in rng.permutation(len(members))[:picked])
    return chosen


def _share(count: int, fraction: float, what: str) -> int:
    """How many of `count` make the fraction; at least one on each side."""
    if not 0 < fraction < 1:
        raise DemokitError(f"The validation fraction must lie between 0 and 1, not {fraction:g}.")
    if count < 2:
        raise DemokitError(f"{what}: at least two are needed to split them.")
    return min(max(round(count * fraction), 1), count - 1)


def _check_outputs(dataset: Dataset, paths: Sequence[Path]) -> None:
    if len({path.resolve() for path in paths} | {dataset.path.resolve()}) < len(paths) + 1:
        raise DemokitError("The source and the two outputs must be three different files.")
