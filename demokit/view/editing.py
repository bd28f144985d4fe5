"""What a person asks to be done to the episodes that are played, until it is saved elsewhere."""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, count
from pathlib import Path
from types import MappingProxyType

from demokit.data.changes import Changes, Selection, Trim
from demokit.data.edit import filter_episodes
from demokit.errors import DemokitError
from demokit.view.clips import Words


@dataclass(frozen=True)
class Edit:
    """What becomes of one episode; `stop` None is its end, `solved` None what the file says."""

    solved: bool | None = None
    dropped: bool = False
    start: int = 0
    stop: int | None = None

    def words(self) -> str:
        """In words; '' where nothing becomes of it."""
        if self.dropped:
            return "dropped"
        marked = {None: [], True: ["marked a success"], False: ["marked a failure"]}[self.solved]
        cut = self.start or self.stop is not None
        until = "" if self.stop is None else self.stop
        return ", ".join([*marked, *([f"steps {self.start}:{until} kept"] if cut else [])])


class Editing:
    """Edits of a dataset; the file that is played stays as it is, see `Editor`.

    Args:
        source: the dataset.
        target: the new one, written when a person asks for it; None is `free_beside` by then.
        numbers: which episode each clip is.
        tasks: the id of the task of every episode of the dataset.
        overwrite: replace `target`.
    """

    buttons: tuple[str, ...] = (
        "success",
        "failure",
        "drop",
        "cut before",
        "cut after",
        "rename task",
        "undo",
        "save",
    )

    asks: Mapping[str, str] = MappingProxyType(
        {"rename task": "The new name of this task, for all of its episodes:"}
    )

    def __init__(
        self,
        source: str,
        target: Path | None,
        numbers: Sequence[int],
        tasks: Sequence[str],
        *,
        overwrite: bool = False,
    ) -> None:
        self._source, self._given, self._numbers = source, target, numbers
        self._tasks, self._overwrite = tasks, overwrite
        self._saved_to: Path | None = None
        self._edits: dict[int, Edit] = defaultdict(Edit)
        self._renames: dict[str, str] = {}
        self._saved = self._all()
        self._message = ""

    @property
    def _target(self) -> Path:
        return self._given or self._saved_to or free_beside(self._source)

    @property
    def unsaved(self) -> bool:
        """Whether something was asked for that no file holds."""
        return self._all() != self._saved

    def push(self, button: str, clip: int, row: int, rows: int, text: str = "") -> None:
        """See `Editor`."""
        number, self._message = self._numbers[clip], ""
        edit = self._edits[number]
        if button == "save":
            self._save()
        elif button in ("success", "failure"):
            self._edits[number] = replace(edit, solved=button == "success", dropped=False)
        elif button == "drop":
            self._edits[number] = replace(edit, dropped=not edit.dropped)
        elif button == "rename task":
            self._rename(self._tasks[number], text.strip())
        elif button == "undo":
            self._edits[number] = Edit()
            self._renames.pop(self._tasks[number], None)
        else:
            self._cut(number, row, rows, before=button == "cut before")

    def words(self, clip: int) -> Words:
        """See `Editor`."""
        told = self._edits[self._numbers[clip]].words()
        rows = [("edit", told)] if told else []
        if new := self._renames.get(self._tasks[self._numbers[clip]]):
            rows.append(("renamed", new))
        if self.unsaved and not self._message:
            return [*rows, ("not saved", f"{self._changed()}; save writes {self._target.name}")]
        return [*rows, ("", self._message)] if self._message else rows

    def command(self) -> str:
        """What does the same on the command line."""
        selection, changes = self._asked()
        words = ["--out", str(self._target), *selection.words(), *changes.words()]
        again = ["--overwrite"] if self._overwrite else []
        return shlex.join(["demokit", "filter", self._source, *words, *again])

    def _cut(self, number: int, row: int, rows: int, *, before: bool) -> None:
        """Keep what is before, or after, the state at a row: a row follows each step."""
        edit = replace(self._edits[number], dropped=False)
        edit = replace(edit, start=row) if before else replace(edit, stop=row)
        edit = replace(edit, stop=None) if edit.stop == rows - 1 else edit
        if edit.start >= (rows - 1 if edit.stop is None else edit.stop):
            self._message = "nothing would be left: pause where it should be cut, then cut"
        else:
            self._edits[number] = edit

    def _rename(self, task: str, name: str) -> None:
        """Call a task otherwise; by its own name, or none, it is not renamed."""
        if name in ("", task):
            self._renames.pop(task, None)
        else:
            self._renames[task] = name

    def _changed(self) -> str:
        """How much was, in words."""
        counts = {"episode": len(self._edited()), "task": len(self._renames)}
        said = [f"{n} {what}{'s' if n != 1 else ''} changed" for what, n in counts.items() if n]
        return " and ".join(said) or "0 episodes changed"

    def _all(self) -> tuple[dict[int, Edit], dict[str, str]]:
        """All that was asked for."""
        return self._edited(), dict(self._renames)

    def _edited(self) -> dict[int, Edit]:
        return {number: edit for number, edit in self._edits.items() if edit != Edit()}

    def _asked(self) -> tuple[Selection, Changes]:
        """All edits, as the writer takes them."""
        edited = self._edited()
        drop = frozenset(n for n, edit in edited.items() if edit.dropped)
        kept = {n: edit for n, edit in edited.items() if n not in drop}
        left = {task for number, task in enumerate(self._tasks) if number not in drop}
        trims: dict[tuple[int, int | None], set[int]] = defaultdict(set)
        for number, edit in kept.items():
            if edit.start or edit.stop is not None:
                trims[edit.start, edit.stop].add(number)
        return Selection(drop=drop), Changes(
            renames={old: new for old, new in self._renames.items() if old in left},
            trims=tuple(Trim(*steps, frozenset(numbers)) for steps, numbers in trims.items()),
            solved=frozenset(n for n, edit in kept.items() if edit.solved is True),
            failed=frozenset(n for n, edit in kept.items() if edit.solved is False),
        )

    def _save(self) -> None:
        """Write the new file; one that was saved before gives way."""
        if not self.unsaved:
            self._message = "nothing has changed: there is nothing to save"
            return
        target = self._target
        try:
            done = filter_episodes(self._source, target, *self._asked(), overwrite=self._overwrite)
        except DemokitError as error:
            self._message = f"not saved: {error}"
            return
        self._saved, self._saved_to, self._overwrite = self._all(), target, True
        self._message = f"saved: {done.episodes} episodes in {done.path.name}"


def free_beside(source: str) -> Path:
    """NAME-edited.hdf5 beside a dataset, with a number where that is taken."""
    beside = Path(source) if Path(source).exists() else Path(Path(source).name)
    name = f"{beside.name.removesuffix('.hdf5')}-edited"
    names = chain([name], (f"{name}-{number}" for number in count(2)))
    paths = (beside.with_name(f"{each}.hdf5") for each in names)
    return next(path for path in paths if not path.exists())
