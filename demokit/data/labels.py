"""What a step teaches: the action that was executed there, or an expert's advice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from demokit.errors import DemokitError
from demokit.experts import RANDOM
from demokit.options import AUTO, EXECUTED, EXPERT
from demokit.types import Array, FloatArray

if TYPE_CHECKING:
    from demokit.data.store import Dataset

TELEOP, DAGGER = "teleop", "dagger"
"""The recorders by hand, and of roll-outs that an expert was asked about."""
_ADVICE, _BY_EXPERT = "privileged/expert_action", "privileged/by_expert"


class Labels(NamedTuple):
    """The labels of N steps: `action` (N, A) float32, `advised` (N,) bool where it is advice."""

    action: FloatArray
    advised: Array


class LabelSteps(NamedTuple):
    """Steps of a dataset by what they teach (`read_labels` with "auto"), and those with advice."""

    person: int = 0
    executed: int = 0
    expert: int = 0
    with_advice: int = 0

    def words(self) -> str:
        """In words, for people."""
        parts = {"person's": self.person, "executed": self.executed, "expert's": self.expert}
        found = [f"the {whose} action in {n:,} steps" for whose, n in parts.items() if n]
        unused = self.with_advice - self.expert
        more = f"; an expert's advice in {unused:,} steps is not used" if unused else ""
        return f"{', '.join(found) or 'none'}{more}"


def count_labels(dataset: Dataset) -> LabelSteps:
    """What the steps of a dataset teach, and how many hold an expert's advice.

    Raises:
        DemokitError: the file is damaged.
    """
    steps: Counter[str] = Counter()
    for index, record in enumerate(dataset.episodes):
        advised, kind = 0, "person" if record.recorder == TELEOP else "executed"
        if holds_advice(dataset, index):
            advised = int(_advised(dataset, index, 0, record.length, AUTO).sum())
            steps["with_advice"] += record.length
        steps["expert"] += advised
        steps[kind] += record.length - advised
    return LabelSteps(**steps)


def read_labels(dataset: Dataset, index: int, start: int, stop: int, kind: str = AUTO) -> Labels:
    """The labels of steps start:stop of an episode, reading only those rows.

    Args:
        dataset: any dataset.
        index: the episode.
        start: first step.
        stop: step after the last one.
        kind: "executed": the executed action, within the action bounds, and with the noise that a
            recording adds to an expert's. "expert": the expert's advice. "auto": the expert's
            advice where it acted, which is its action without the noise, or where a policy acted
            and the expert was asked (DAgger, Ross et al., 2011); else the executed action, which
            by hand is what the person commanded.

    Raises:
        DemokitError: no such episode, or one without the advice that is asked for.
    """
    if kind == EXPERT:
        require_advice(dataset, [index])
    executed = dataset.window(index, start, stop, ["actions"])["actions"]
    advised = _advised(dataset, index, start, stop, kind)
    if not advised.any():
        return Labels(executed.astype(np.float32), advised)
    advice = dataset.window(index, start, stop, [_ADVICE])[_ADVICE]
    if advice.shape != executed.shape:
        raise _misfit(dataset, index, _ADVICE)
    action = np.where(advised[:, None], advice, executed).astype(np.float32)
    return Labels(action, advised)


def misshapen(actions: Array, privileged: Mapping[str, Array]) -> str:
    """The privileged term about labels whose shape does not fit the actions; "" where all do."""
    fitting = {_ADVICE: actions.shape[1:], _BY_EXPERT: ()}
    terms = {name: privileged.get(name.removeprefix("privileged/")) for name in fitting}
    wrong = (n for n, rows in terms.items() if rows is not None and rows.shape[1:] != fitting[n])
    return next(wrong, "")


def holds_advice(dataset: Dataset, index: int) -> bool:
    """Whether an expert's advice stands in every state of an episode; a random one gives none."""
    record = dataset.episodes[index]
    experts = (record.recorder, dataset.metadata.expert_of(record.index))
    return RANDOM not in experts and dataset.holds(index, _ADVICE)


def require_advice(dataset: Dataset, indices: Sequence[int]) -> None:
    """Raise DemokitError unless all of these episodes hold an expert's advice."""
    lengths = {index: dataset.episodes[index].length for index in indices}
    without = [index for index in indices if not holds_advice(dataset, index)]
    if without:
        raise DemokitError(
            f"{dataset.path}: {sum(lengths[i] for i in without)} of {sum(lengths.values())} steps "
            f"hold no expert's advice, those of {len(without)} of {len(indices)} episodes: leave "
            "--labels at auto, or record with an --expert that knows the tasks."
        )


def _advised(dataset: Dataset, index: int, start: int, stop: int, kind: str) -> Array:
    """Which of the steps start:stop an expert's advice labels, bool."""
    if kind == EXECUTED or not holds_advice(dataset, index):
        return np.zeros(stop - start, np.bool_)
    asked = dataset.episodes[index].recorder == DAGGER
    # Without a word on who acted it was the expert: only its own recordings may leave that out.
    if kind == EXPERT or asked or not dataset.holds(index, _BY_EXPERT):
        return np.ones(stop - start, np.bool_)
    by_expert = dataset.window(index, start, stop, [_BY_EXPERT])[_BY_EXPERT]
    if by_expert.shape != (stop - start,):
        raise _misfit(dataset, index, _BY_EXPERT)
    return by_expert.astype(np.bool_)


def _misfit(dataset: Dataset, index: int, name: str) -> DemokitError:
    return DemokitError(
        f"Episode {index} of {dataset.path}: {name} has another shape than its actions need: see "
        "`demokit validate`, or take --labels executed."
    )
