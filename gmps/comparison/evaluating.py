"""An evaluation from its runs to its folder, for `demokit evaluate` and `demokit.evaluate`."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import fields
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

from demokit.calls import Estimate, Evaluation
from demokit.cli.console import progress as shown
from demokit.cli.console import quiet
from demokit.errors import DemokitError, unknown_name
from gmps.comparison.evaluated_run import EvaluatedRun, evaluated_runs
from gmps.comparison.folder import write_folder
from gmps.comparison.measure import compare, films, num_films, num_steps, unlike
from gmps.comparison.protocol import Protocol
from gmps.comparison.report import Comparison
from gmps.comparison.rows import MEASURES
from gmps.comparison.videos import Film

Tell = Callable[[str], None]


class Outcome(NamedTuple):
    """What was measured, and the folder and the JSON file that it was written to."""

    comparison: Comparison
    folder: Path
    content: dict[str, Any]


def carry_out(
    paths: Sequence[Path],
    protocol: Protocol,
    folder: Path | None = None,
    *,
    videos: int = 0,
    jobs: int = 1,
    tell: Tell,
    progress: bool = True,
) -> Outcome:
    """Measure runs, and write all there is to read about it.

    Args:
        paths: of the runs.
        protocol: how.
        folder: None: evaluation/ in the first run.
        videos: so many tasks are filmed.
        jobs: processes side by side, each with some of a run's tasks.
        tell: told what is to be known about the runs.
        progress: whether to show how far it is.
    """
    target = folder or (paths[0] if paths[0].is_dir() else paths[0].parent) / "evaluation"
    runs, show = evaluated_runs(paths), shown if progress else quiet
    _tell(runs, protocol, tell)
    with show("adaptation steps", num_steps(runs, protocol)) as report:
        comparison = compare(runs, protocol, report, jobs)
    filmed: list[Film] = []
    if videos:
        try:
            with show("videos", num_films(runs, protocol, videos)) as done:
                filmed = films(runs, protocol, videos, target / "videos", done)
        except DemokitError as error:  # the page does without them
            tell(f"No videos: {error}")
    return Outcome(comparison, target, write_folder(comparison, target, filmed))


def _tell(runs: Sequence[EvaluatedRun], protocol: Protocol, tell: Tell) -> None:
    """Say what is to be known; raises DemokitError where a run cannot take the steps."""
    for label, rollouts in protocol.short(runs).items():
        steps = protocol.steps(rollouts)
        what = f"{steps} steps of {rollouts} episodes" if steps > 1 else f"a step of {rollouts}"
        tell(f"{label} takes {what}: {steps * rollouts} of {protocol.episodes}.")
    for run in runs:
        of_run = protocol.variants(run.facts.episodes_per_step)
        run.require_steps(max(protocol.steps(variant.rollouts) for variant in of_run))
        if not run.facts.finished:
            tell(f"{run.path} is not finished: it is evaluated as it is now.")
    for note in filter(None, (unlike(runs), protocol.reference(runs).note)):
        tell(note)


def evaluate(
    *runs: str | PathLike[str],
    output_dir: str | PathLike[str] | None = None,
    videos: int = 0,
    jobs: int = 1,
    progress: bool = True,
    **options: object,
) -> Evaluation:
    """See `demokit.evaluate`."""
    if not runs:
        raise DemokitError("There is nothing to evaluate: name a run, or several.")
    folder = None if output_dir is None else Path(output_dir)
    found = carry_out(
        [Path(run) for run in runs],
        protocol_of(options),
        folder,
        videos=videos,
        jobs=jobs,
        tell=lambda said: warnings.warn(said, stacklevel=5),
        progress=progress,
    )
    return evaluation_of(found)


def protocol_of(given: dict[str, Any]) -> Protocol:
    """The protocol with these options; one value stands for several where there may be several.

    Raises:
        DemokitError: there is no such option, or two that say the same.
    """
    known = {each.name: each for each in fields(Protocol)}
    for name in given:
        if name not in known:
            raise unknown_name("option of evaluate", name, list(known))
    if given.get("episodes") and given.get("adapt_steps"):
        raise DemokitError("Name episodes or adapt_steps, not both.")
    chosen = {name: value for name, value in given.items() if value is not None}
    for name in ("split", "rollouts", "step_scale"):
        if name in chosen:
            one = chosen[name]
            chosen[name] = tuple(one) if isinstance(one, list | tuple) else (one,)
    return Protocol(**chosen)


def evaluation_of(found: Outcome) -> Evaluation:
    """The figures by method and episodes, of the policies' means."""
    verdicts = found.content["verdict"]
    figures: dict[str, dict[str, dict[int, Estimate]]] = {name: {} for name in MEASURES}
    split = next(iter(verdicts))
    for row in found.content["summary"]:
        if (row["split"], row["actor"]) == (split, "mean"):
            estimate = Estimate(row["mean"], row["low"], row["high"])
            of_method = figures[row["measure"]].setdefault(row["label"], {})
            of_method[row["episodes"]] = estimate
    success, returns = (figures[name] for name in MEASURES)
    return Evaluation(found.folder, verdicts[split], success, returns, found.content)
