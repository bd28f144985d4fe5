"""Carrying out a plan: what is left to do, in which order, and where it goes."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields, replace
from functools import cache, partial
from hashlib import sha256
from pathlib import Path
from time import sleep
from typing import Any

from demokit.data import open_dataset
from demokit.errors import DemokitError, unknown_name
from demokit.experts import load_expert
from demokit.learning.folder import METRICS, versions
from demokit.lock import is_locked, lock_of_turns, said_in
from demokit.policies import CHECKPOINT
from demokit.writing import AS_IT_WAS, replaced_folder
from gmps.comparison.asked import Asked
from gmps.comparison.evaluated_run import Facts
from gmps.comparison.evaluating import protocol_of
from gmps.comparison.foreseen import require_evaluation, with_what_is_there
from gmps.comparison.plan import Options, Plan, PlannedRun, arguments, parsed
from gmps.comparison.processes import Command, run_side_by_side
from gmps.comparison.protocol import Protocol
from gmps.comparison.results import write_results
from gmps.comparison.stamp import Stamp, looks_of
from gmps.options import SAVING
from gmps.runs.folder import CURVES, FACTS, FREE, LEARNING
from gmps.sources import family_in_words

_POLL_S = 1.0


class Campaign:
    """A plan and where its files go.

    Args:
        plan: what to compare.
        folder: gets NAME.hdf5 per dataset and NAME/ per comparison: runs, logs, comparison/.
        page: the Markdown page.
        jobs: runs that train side by side.
        num_seeds: the first so many seeds of the plan; None takes all.
        archive: what is measured about every run is copied here, NAME/RUN, and runs that are here
            are not trained again.
    """

    def __init__(
        self,
        plan: Plan,
        folder: Path,
        page: Path,
        jobs: int,
        num_seeds: int | None = None,
        archive: Path | None = None,
    ) -> None:
        self.plan = replace(plan, seeds=plan.seeds[:num_seeds])
        self.folder, self.page, self._jobs, self._archive = folder, page, jobs, archive

    def chosen(self, only: Sequence[str]) -> list[str]:
        """The comparisons of these names, or all; raises DemokitError for what is wrong in them."""
        for name in only:
            if name not in self.plan.comparisons:
                raise unknown_name("comparison", name, list(self.plan.comparisons))
        found = list(only or self.plan.comparisons)
        for name in found:
            self._require_demos(name)
            self._require_evaluation(name)
            self._require_experts(name)
        return found

    def _require_demos(self, name: str) -> None:
        """Raise DemokitError where somebody's own dataset that is still needed is not there."""
        match = self.plan.comparisons[name]
        if match.tasks or "path" not in self.plan.datasets[match.demos]:
            return
        if all(self._folder_of(name, run).exists() for run in self.plan.trainings(name)):
            return
        try:
            open_dataset(self.demos(name))
        except DemokitError as error:
            raise DemokitError(f"comparison '{name}', demos: {error}") from None

    def _require_evaluation(self, name: str) -> None:
        """Raise DemokitError where the runs of a comparison could not be evaluated as it says."""
        where, trainings = f"comparison '{name}', evaluate", self.plan.trainings(name)
        given = parsed(where, self.plan.evaluation(name), "evaluate", ".")
        asked = with_what_is_there(self.asked(name))
        try:
            protocol = protocol_of({each.name: given[each.name] for each in fields(Protocol)})
            require_evaluation(protocol, asked, trainings)
        except DemokitError as error:
            raise DemokitError(f"{where}: {error}") from None

    def _require_experts(self, name: str) -> None:
        """Raise DemokitError where an expert of a comparison that is still needed is not there."""
        trainings, asked = self.plan.trainings(name), with_what_is_there(self.asked(name))
        if not asked.family:
            return
        left = [
            planned.typed()
            for run, planned in trainings.items()
            if not self._folder_of(name, run).exists()
        ]
        if left and asked.expert and not Path(self.demos(name)).exists():
            left.append({"expert": asked.expert})
        for named in {str(options["expert"]) for options in left if options.get("expert")}:
            try:
                load_expert(named, asked.family)
            except DemokitError as error:
                raise DemokitError(f"comparison '{name}', expert: {error}") from None

    def carry_out(
        self, name: str, report: Callable[[int], None], *, wait: bool = True
    ) -> dict[str, str] | None:
        """Do all of a comparison that is left, then write the page.

        Other processes that carry out the plan in the same folder do what they have begun; what
        they leave unfinished is taken over.

        Args:
            name: of the comparison.
            report: called with what is `trained`.
            wait: for what others are at; otherwise what nobody is at is done.

        Returns:
            What failed and why; None where others are at something still.
        """
        look = partial(self._look, name, report)
        for commands, jobs in (
            (self._recordings, 1),
            (self._trainings, self._jobs),
            (self._evaluations, 1),
        ):
            outcome = run_side_by_side(commands(name), jobs, look)
            while wait and outcome.elsewhere and not outcome.failed:
                sleep(_POLL_S)
                outcome = run_side_by_side(commands(name), jobs, look)
            if outcome.failed or outcome.elsewhere:
                break
        if outcome.elsewhere and not outcome.failed:
            return None
        with lock_of_turns(self.page):
            if not outcome.failed:
                self._put_by(name)
            write_results(self.plan, self.folder, self.page)
        return outcome.failed

    def _look(self, name: str, report: Callable[[int], None]) -> None:
        report(self.trained(name))

    def moved(self, folder: Path, name: str) -> Campaign:
        """The first seed of a comparison in another folder, which gets the dataset, if any."""
        found = Campaign(self.plan, folder, folder / self.page.name, 1, 1)
        if not self.plan.comparisons[name].tasks and (demos := Path(self.demos(name))).exists():
            (folder / demos.name).symlink_to(demos.resolve())
        return found

    def left(self, name: str) -> list[Command]:
        """The commands that `carry_out` would run."""
        return [*self._recordings(name), *self._trainings(name), *self._evaluations(name)]

    def trained(self, name: str) -> int:
        """How far the training of a comparison is, in hundredths of a run."""
        trainings = self.plan.trainings(name)
        return sum(self._hundredths(name, run, config) for run, config in trainings.items())

    def asked(self, name: str) -> Asked:
        """What a comparison learns; raises DemokitError where there are no such tasks."""
        match = self.plan.comparisons[name]
        if not match.tasks:
            return Asked.of_dataset(self.demos(name), self.plan.datasets[match.demos])
        named = {key.replace("-", "_"): value for key, value in match.tasks.items()}
        return Asked.of(family_in_words(**named), match.tasks)

    def demos(self, name: str) -> str:
        """The dataset of a comparison: a path or a Minari id."""
        dataset = self.plan.comparisons[name].demos
        path = self.plan.datasets[dataset].get("path")
        return str(path or self.folder / f"{dataset}.hdf5")

    def _recordings(self, name: str) -> list[Command]:
        """What records the dataset, or finds that the one that is there is another."""
        if self.plan.comparisons[name].tasks:
            return []
        options = self.plan.datasets[self.plan.comparisons[name].demos]
        demos = Path(self.demos(name))
        if not (demos.exists() or self._trainings(name)):
            return []
        if "path" in options:
            return []
        typed = ("record", *arguments({**options, "out": demos, "resume": True}))
        made = [*typed, _looks_of_expert(options), versions()]
        log = demos.with_suffix(".log")
        stamp = Stamp(log.with_suffix(".done"), lambda: made, demos)
        found = Command(str(demos), typed, log, stamp.holds, lambda: is_locked(demos), stamp=stamp)
        return [] if stamp.holds() else [found]

    def _trainings(self, name: str) -> list[Command]:
        return [
            self._training(name, run, planned)
            for run, planned in self.plan.trainings(name).items()
            if not self._is_finished(name, run, planned)
        ]

    def _is_finished(self, name: str, run: str, planned: PlannedRun) -> bool:
        return is_finished(self._folder_of(name, run), planned, self.asked(name))

    def _training(self, name: str, run: str, planned: PlannedRun) -> Command:
        folder = self.folder / name / run
        tasks = self.plan.comparisons[name].tasks
        options: Options = {
            **(tasks or {"demos": self.demos(name)}),
            "output_dir": folder,
            **planned.typed(),
            "resume": True,
        }
        return Command(
            f"{name}, {run}",
            ("meta-train", *arguments(options)),
            folder.with_name(f"{run}.log"),
            lambda: self._is_finished(name, run, planned),
            lambda: said_in(folder) is not None,
            folder,
        )

    def _evaluations(self, name: str) -> list[Command]:
        folder = self.folder / name / "comparison"
        runs = [self._folder_of(name, run) for run in self.plan.trainings(name)]
        options = self.plan.evaluation(name)
        here = {"output_dir": folder, "jobs": self._jobs}
        typed = ("evaluate", *map(str, runs), *arguments({**options, **here}))
        stamp = Stamp(folder.with_suffix(".done"), partial(_decisive, runs, options), folder)
        if not self._trainings(name) and stamp.holds():
            return []
        log = folder.with_suffix(".log")
        return [Command(f"{name}, evaluation", typed, log, stamp.holds, stamp=stamp)]

    def _folder_of(self, name: str, run: str) -> Path:
        """Where a run is: its own folder, or the archive where only that has it."""
        folder = self.folder / name / run
        if self._archive and not (folder / CHECKPOINT).exists():
            archived = self._archive / name / run
            return archived if (archived / FACTS).exists() else folder
        return folder

    def _put_by(self, name: str) -> None:
        """Copy what was measured about the runs of a comparison to the archive."""
        if self._archive is None:
            return
        for run in self.plan.trainings(name):
            source, target = self._folder_of(name, run), self._archive / name / run
            if source != target:
                _put_by(source, target, self.asked(name).recorded)

    def _hundredths(self, name: str, run: str, planned: PlannedRun) -> int:
        """How far a run is; what only the archive has is at its end."""
        folder = self.folder / name / run
        if self._folder_of(name, run) != folder:
            return 100
        # The last row may be the one after the step size was chosen.
        return min(100, 100 * _logged(folder) // max(1, planned.options.iterations))


def _decisive(runs: Sequence[Path], options: Options) -> list[Any]:
    """What decides an evaluation of runs with options of `evaluate`."""
    facts = [(str(run), asdict(Facts.of(run))) for run in runs]
    return [facts, arguments(options), _looks_of_expert(options), versions(), _own_code()]


@cache
def _own_code() -> str:
    """SHA-256 of what makes tables, pictures and pages, which versions do not tell apart."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return sha256(b"".join(each.read_bytes() for each in files)).hexdigest()


def _looks_of_expert(options: Options) -> list[Any]:
    """What changes where the expert's file does; empty where it goes by a name, or none is said."""
    named = options.get("expert")
    return looks_of(Path(named)) if named else []


def _put_by(source: Path, target: Path, recorded: Options) -> None:
    """Copy what was measured about a run; curves of another checkpoint do not stay beside it.

    Its facts also say how its demonstrations were recorded, which no checkpoint does.
    """
    is_there = (target / FACTS).exists()
    is_same = is_there and Facts.of(target).checkpoint == Facts.of(source).checkpoint
    with replaced_folder(target, AS_IT_WAS, Facts.of) as aside:
        if is_same:
            shutil.copytree(target, aside)
        shutil.copytree(source / CURVES, aside / CURVES, dirs_exist_ok=True)
        if (source / LEARNING).exists():
            shutil.copyfile(source / LEARNING, aside / LEARNING)
        if (source / FACTS).exists():
            replace(Facts.of(source), recorded=dict(recorded)).write(aside / FACTS)


def is_finished(folder: Path, planned: PlannedRun, problem: Asked) -> bool:
    """Whether the run in a folder has come to its end.

    One that has not goes on with the plan's number of iterations, whatever it was begun with.

    Raises:
        DemokitError: it was trained with other options, or on something else, than the plan's.
    """
    if not any((folder / name).exists() for name in (CHECKPOINT, FACTS)):
        return False
    facts = Facts.of(folder)
    wanted = asdict(planned.options)
    # What an earlier version did not ask is as it was then: a default keeps that.
    defaults = {each.name: each.default for each in fields(planned.options)}
    free = (SAVING,) if facts.finished else FREE
    asked = {**defaults, **facts.options, **{n: wanted[n] for n in free if n in wanted}}
    if facts.method != planned.method:
        what = "methods"
    else:
        what = "options" if asked != wanted else problem.differing(folder, planned, facts)
    if what:
        raise DemokitError(
            f"{folder} was trained with other {what} than the plan has now: remove it, or name "
            "another --output-dir or --archive."
        )
    return facts.finished


def _logged(folder: Path) -> int:
    """Iterations that a run has logged."""
    metrics = folder / METRICS
    if not metrics.exists():
        return 0
    with metrics.open(newline="") as file:
        last = [row["iteration"] for row in csv.DictReader(file)][-1:]
    return int(last[0]) + 1 if last and last[0].isdigit() else 0
