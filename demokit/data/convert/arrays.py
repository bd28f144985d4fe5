"""Plain arrays: dicts of them in Python, and what npz, csv and pickle files hold of the same.

An episode is a part whose things have the names below, or those that a person states.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from demokit.data.assembly import check_output
from demokit.data.convert import Imported, store
from demokit.data.convert.foreign import (
    About,
    Trajectory,
    distinct,
    import_foreign,
    observed,
    plain_name,
    said_once,
    stated_context,
    stated_task,
    terminated,
    truth,
)
from demokit.data.convert.inventory import Inventory, Part, dict_things
from demokit.data.convert.stated import DROP, Stated
from demokit.data.metadata import ActionRange
from demokit.data.store import Dataset, open_dataset
from demokit.errors import DemokitError, unknown_name
from demokit.lock import require_unlocked
from demokit.types import Array
from demokit.writing import behind_link

OBSERVATIONS, ACTIONS = "observations", "actions"
_PRIVILEGED = "privileged"
_ENDS = ("terminations", "truncations", "dones")
_SAID_ONCE = ("success", "task", "context", "split", "seed")
KEYS = (OBSERVATIONS, ACTIONS, "rewards", *_ENDS, *_SAID_ONCE, _PRIVILEGED)
_UNIT = ActionRange(np.array([-1.0]), np.array([1.0]))
TAKES = frozenset(
    (
        *("observation_columns", "action_columns", "reward_column", "success_column"),
        *("task_column", "context_columns", "action_low", "action_high", "last_observation"),
    )
)
"""What `Stated` can say of arrays."""


def from_arrays(
    path: str | Path,
    episodes: Iterable[Mapping[str, Any]],
    *,
    family: str | None = None,
    action_low: float | Sequence[float] | None = None,
    action_high: float | Sequence[float] | None = None,
    last_observation: Literal["repeat", "drop"] = "repeat",
    license: str | None = None,
    description: str = "",
    overwrite: bool = False,
) -> Dataset:
    """Make a dataset of episodes that are dicts of arrays; all of them, or nothing is written.

    An episode of T steps has these keys:

    - `observations`: (T+1, ...) or (T, ...), or a dict of such arrays; images are uint8.
    - `actions`: (T, A), or (T,) for one component.
    - `rewards` (T,), `terminations` and `truncations` (T,) or one flag each for the end, `dones`
      where these are not told apart; all optional.
    - `success`: true or false, or rows of it, of which the last counts; optional.
    - `task`: its name, and `context`: (C,) numbers that describe the task; optional. Without a
      name, each context is a task.
    - `split`: "train" (the default), "validation", "ood" or "monitor"; `seed`: what the reset
      was given; optional.
    - `privileged`: a dict of (T+1, ...) or (T, ...) that a policy must never see; optional. Its
      `context` and `success` are those of the task and the episode, where these are not given.

    What is not there is marked, see `Dataset.metadata.provenance.missing`.

    Args:
        path: NAME.hdf5.
        episodes: read twice, one at a time, so that a lazy sequence may be larger than memory;
            an iterator, such as a generator, is held in memory.
        family: name of the robot or environment; by default that of the file.
        action_low: what stands at -1 in the dataset, a number or one per component.
        action_high: what stands at 1. By default actions are within [-1, 1] and stay as they are;
            `Dataset.metadata.provenance.action_range` undoes what was done.
        last_observation: where there are T observations: "repeat" the last one, so that every
            action is kept, or "drop" the last action, so that every observation was observed.
        license: SPDX identifier, such as "CC-BY-4.0".
        description: a sentence for the card.
        overwrite: replace what is there, once the dataset is complete.

    Returns:
        The dataset, opened.

    Raises:
        DemokitError: an episode that is not sound, named by its number; nothing was written.
    """
    about = About("arrays", family or plain_name(Path(path).stem), description=description)
    stated = Stated(
        action_low=bounds(action_low),
        action_high=bounds(action_high),
        last_observation=last_observation,
    )
    _write(Path(path), episodes, about, stated, license=license, overwrite=overwrite)
    return open_dataset(path)


def _write(
    target: Path,
    episodes: Iterable[Mapping[str, Any]],
    about: About,
    stated: Stated,
    *,
    license: str | None,
    overwrite: bool,
) -> None:
    """Write a dataset of all episodes; raises DemokitError."""
    require_unlocked(target)
    check_output(behind_link(target), overwrite=overwrite)
    several = list(episodes) if isinstance(episodes, Iterator) else episodes
    inventory = Inventory(Part("", {}), ())
    try:
        found = import_arrays(inventory, partial(_parts_of, several), about, stated)
    except DemokitError:
        _require_all(inventory)
        raise
    _require_all(inventory)
    store(found, target, license=license, overwrite=overwrite)


def import_arrays(
    inventory: Inventory,
    parts: Callable[[], Iterator[Part]],
    about: About,
    stated: Stated,
    *,
    table: bool = False,
) -> Imported:
    """A dataset from parts that hold arrays by the names of `from_arrays`, or of `stated`.

    Args:
        inventory: of the source.
        parts: starts a pass over the episodes.
        about: what is known of all of them but the range of the actions.
        stated: names of arrays, and the range of the actions, which is [-1, 1] by default.
        table: the things are columns, (T,) each.

    Raises:
        DemokitError: no sound episode, or actions outside their range.
    """
    read = _Reader(stated, table)
    scaled = replace(about, action_range=stated.action_range or _UNIT)
    return import_foreign(inventory, parts, read, scaled)


def files_of(source: Path, *suffixes: str) -> list[Path]:
    """The file `source`, or those of a folder, `a2` before `a10`; raises DemokitError if none."""
    if not source.is_dir():
        return [source]
    found = [path for path in source.iterdir() if path.suffix in suffixes]
    if not found:
        raise DemokitError(f"{source} holds no {' or '.join(suffixes)} files.")
    return sorted(found, key=_natural)


def _natural(path: Path) -> list[tuple[int, str]]:
    parts = re.findall(r"\d{1,18}|\D+", path.name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def bounds(values: float | Sequence[float] | None) -> tuple[float, ...]:
    """An end of the action range, as `Stated` takes it; raises DemokitError for no numbers."""
    if values is None:
        return ()
    try:
        found = np.atleast_1d(np.asarray(values, float))
    except (TypeError, ValueError):
        raise DemokitError(f"An end of the action range is {values!r}, no numbers.") from None
    return tuple(found.ravel().tolist())


def _parts_of(episodes: Iterable[Mapping[str, Any]]) -> Iterator[Part]:
    """The episodes as parts, with keys that are known."""
    if isinstance(episodes, Mapping) or not isinstance(episodes, Iterable):
        raise DemokitError("The episodes are no list of dicts of arrays.")
    for index, episode in enumerate(episodes):
        name = f"Episode {index}"
        if not isinstance(episode, Mapping):
            raise DemokitError(f"{name} is {type(episode).__name__}, no dict of arrays.")
        for key in episode:
            if key not in KEYS:
                raise unknown_name(f"key of {name.lower()}", str(key), KEYS)
        yield Part(name, dict_things(episode))


def _require_all(inventory: Inventory) -> None:
    """Raise DemokitError unless all that was given is in the dataset."""
    for what, why in inventory.losses():
        reason = why.replace("left out: ", "").rstrip(".")
        raise DemokitError(f"{what}: {reason}. Nothing was written.") from None


class _Reader:
    """Makes trajectories of parts."""

    def __init__(self, stated: Stated, table: bool) -> None:
        self._stated, self._table = stated, table

    def __call__(self, part: Part) -> Trajectory:
        stated = self._stated
        actions = _beside(part, stated.action_columns or (ACTIONS,))
        observations = self._observations(part)
        privileged = observed(part, _places(part, _PRIVILEGED))
        context = stated_context(part, stated.context_columns or _there(part, "context"),
                                 by_row=self._table)  # fmt: skip
        found = Trajectory(
            task=self._task(part),
            numbered=not self._names_tasks(part),
            observations=observations,
            actions=actions,
            rewards=_rewards(part, stated.reward_column),
            terminated=terminated(part, *_ENDS),
            success=_success(part, stated.success_column, len(actions)),
            context=context,
            split=_text(part, "split", "train", by_row=self._table),
            seed=_seed(part, by_row=self._table),
            privileged=privileged,
        )
        return _shortened(found) if stated.last_observation == DROP else found

    def _observations(self, part: Part) -> dict[str, Array]:
        """The observation, or its parts by name; columns of a table stand in one vector."""
        names = self._stated.observation_columns or (OBSERVATIONS,)
        if self._table:
            return {"": _beside(part, names)}
        whole = len(names) == 1 and names[0] in part
        places = {names[0]: ""} if whole else _all_places(part, names)
        found = observed(part, places)
        return {name: rows[:, None] if rows.ndim == 1 else rows for name, rows in found.items()}

    def _names_tasks(self, part: Part) -> bool:
        return bool(self._stated.task_column) or "task" in part

    def _task(self, part: Part) -> str:
        if not self._names_tasks(part):
            return ""
        return stated_task(part, self._stated.task_column or "task", by_row=self._table)


def _there(part: Part, name: str) -> tuple[str, ...]:
    return (name,) if name in part else ()


def _places(part: Part, group: str) -> dict[str, str]:
    """Place -> name, one to one, of what is below a name; `.` is between nested names."""
    start = f"{group}/"
    return distinct(part.names(start), lambda name: name.removeprefix(start).replace("/", "."))


def _all_places(part: Part, names: tuple[str, ...]) -> dict[str, str]:
    """As `_places`, of several names or groups; raises DemokitError for one that is not there."""
    if len(names) == 1:
        places = _places(part, names[0])
    else:
        every = [place for n in names for place in ([n] if n in part else part.names(f"{n}/"))]
        places = distinct(every, lambda name: name.replace("/", "."))
    for name in names:
        if name not in part and not part.names(f"{name}/"):
            raise DemokitError(f"it has no '{name}'")
    return places


def _beside(part: Part, names: tuple[str, ...]) -> Array:
    """(T,) or (T, n) each, as columns of one array (T, ...); one array stays as it is."""
    found = [part.array(name) for name in names]
    for name, rows in zip(names, found, strict=True):
        if rows.ndim == 0 or rows.dtype.kind not in "fiub":
            raise DemokitError(f"its {name} are {rows.dtype} {rows.shape}, no rows of numbers")
    if len(found) == 1:
        return found[0]
    if len({len(rows) for rows in found}) > 1:
        lengths = ", ".join(f"{n} {len(rows)}" for n, rows in zip(names, found, strict=True))
        raise DemokitError(f"its columns have different lengths ({lengths})")
    return np.concatenate([rows.reshape(len(rows), -1) for rows in found], 1)


def _rewards(part: Part, stated: str | None) -> Array | None:
    if stated or "rewards" in part:
        return part.array(stated or "rewards")
    return None


def _success(part: Part, stated: str | None, steps: int) -> bool | None:
    """True or false, or rows of it, the last of which counts."""
    name = stated or "success"
    if stated is None and name not in part:
        return None
    rows = part.array(name)
    if rows.size == 1:
        return truth(part, name)
    is_row = rows.shape in ((steps,), (steps + 1,)) and rows.dtype.kind in "biuf"
    if not is_row or not np.isin(rows, (0, 1)).all():
        raise DemokitError(f"its {name} is neither true nor false, nor rows of that")
    return bool(rows[-1])


def _text(part: Part, name: str, otherwise: str, *, by_row: bool) -> str:
    return str(said_once(part, name, by_row=by_row)) if name in part else otherwise


def _seed(part: Part, *, by_row: bool) -> int | None:
    if "seed" not in part:
        return None
    seed = said_once(part, "seed", by_row=by_row)
    whole = seed.size == 1 and seed.dtype.kind in "iuf" and 0 <= seed.item() < 2**63
    if not whole or int(seed.item()) != seed.item():
        raise DemokitError("its seed is no whole number of at least 0")
    return int(seed.item())


def _shortened(found: Trajectory) -> Trajectory:
    """Without the last action, where nothing was observed after it: it was cut off there."""
    steps = len(found.actions)
    if any(len(rows) != steps for rows in found.observations.values()):
        return found
    kept = steps - 1
    return replace(
        found,
        actions=found.actions[:kept],
        rewards=None if found.rewards is None else found.rewards[:kept],
        terminated=False,
        privileged={name: rows[: kept + 1] for name, rows in found.privileged.items()},
    )
