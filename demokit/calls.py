"""One call each for recording, training and evaluation: what the commands do, from Python.

Whoever can do it says so: entry points of the group "demokit.calls".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import entry_points
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from demokit.errors import DemokitError

if TYPE_CHECKING:
    from demokit.data import Dataset
    from demokit.envs.family import Family
    from demokit.protocols import Agent

GROUP = "demokit.calls"
_TYPED = re.compile(
    r"(?P<command>(?:demokit|meta-train) [^.:;,]*)|--(?P<option>[a-z]+(?:-[a-z]+)*)"
)


class Estimate(NamedTuple):
    """A mean over tasks and runs, with its 95% interval."""

    mean: float
    low: float
    high: float


class Evaluation(NamedTuple):
    """What `demokit.evaluate` has measured, on the first split, of the policies' means.

    Attributes:
        folder: with the page, report.html, the tables and the pictures.
        verdict: in a sentence.
        success: method -> episodes on the new task -> the share of tasks solved.
        returns: method -> episodes on the new task -> the return of an episode.
        content: all that evaluation.json holds.
    """

    folder: Path
    verdict: str
    success: Mapping[str, Mapping[int, Estimate]]
    returns: Mapping[str, Mapping[int, Estimate]]
    content: Mapping[str, Any]


def record(
    env: str | Family,
    path: str | PathLike[str],
    *,
    expert: str | None = None,
    task_set: str | None = None,
    split: str | None = None,
    tasks: int | None = None,
    num_episodes: int | None = None,
    episodes_per_task: int | None = None,
    noise: float = 0.2,
    reward: str = "dense",
    observation: str = "state",
    image_size: tuple[int, int] = (48, 64),
    camera: Sequence[str] = ("policy",),
    only_success: bool = False,
    seed: int = 0,
    license: str | None = None,
    operator: str | None = None,
    batch_size: int = 64,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> Dataset:
    """Record demonstrations of many tasks of a family by an expert, as `demokit record` does.

    Every episode is safe on disk as soon as it is counted; `resume` goes on after a stop.

    Examples:
        >>> dataset = demokit.record("push", "push.hdf5", tasks=5, episodes_per_task=4)

    Args:
        env: the family, or its name, see `demokit envs`.
        path: of the dataset.
        expert: a name, or a file that train-expert wrote; None: the scripted one.
        task_set: None: paper where there is one, else uniform.
        split: None: train where there is one.
        tasks: the first so many; None: all.
        num_episodes: kept of all tasks together; or
        episodes_per_task: kept of each, 10 unless either is said.
        noise: standard deviation on the executed actions; labels have none.
        reward: recorded as such; all are kept as privileged terms.
        observation: "state" or "vision".
        image_size: height and width in pixels, of "vision".
        camera: names, of "vision".
        only_success: keep successful episodes only.
        seed: of start states and noise.
        license: of the dataset, such as "CC-BY-4.0".
        operator: who records.
        batch_size: simultaneous episodes; changes the speed, not the episodes.
        resume: go on with, or extend, what is there.
        overwrite: replace what is there, once all is recorded; fewer wait for `resume`.
        progress: show how far it is, on stderr.

    Raises:
        DemokitError: there is no such family, expert or task, or the file is in the way.
    """
    with _in_python():
        dataset: Dataset = _find("record")(**locals())
    return dataset


def meta_train(
    demos: str | PathLike[str] | None = None,
    output_dir: str | PathLike[str] | None = None,
    *,
    method: str = "gmps",
    env: str | Family | None = None,
    task_set: str | None = None,
    tasks: int | None = None,
    observation: str = "state",
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
    **options: object,
) -> Agent:
    """Meta-train a policy from demonstrations, or by reward alone, as `demokit meta-train` does.

    The run folder holds the configuration, metrics.csv, TensorBoard's scalars and the checkpoint;
    a run that was stopped continues with `resume`, bit for bit.

    Examples:
        >>> agent = demokit.meta_train("push.hdf5", "runs/gmps-0", iterations=20)

    Args:
        demos: a dataset, file or Minari id; or
        env: a family, or its name, for methods that need no demonstrations.
        output_dir: of the run; None: runs/FAMILY-METHOD-SEED.
        method: see `demokit methods`.
        task_set: of `env`; None: its first one.
        tasks: training tasks of `env`; None: all.
        observation: "state" or "vision", of `env`.
        resume: continue the run in the folder.
        overwrite: replace the run in the folder.
        progress: show how far it is, on stderr.
        options: of the method, see `demokit meta-train --method NAME --help`, such as `seed=1`,
            `iterations=20`, `inner_lr=0.05`.

    Returns:
        The policy, as `demokit.load_policy` of the folder gives it.

    Raises:
        DemokitError: the method has no such option, or cannot learn from this; the folder holds a
            run already.
    """
    given = {name: value for name, value in locals().items() if name != "options"}
    with _in_python():
        agent: Agent = _find("meta_train")(**given, **options)
    return agent


def evaluate(
    *runs: str | PathLike[str],
    output_dir: str | PathLike[str] | None = None,
    episodes: int | None = None,
    adapt_steps: int | None = None,
    rollouts: int | Sequence[int] = (),
    step_scale: float | Sequence[float] = (),
    demonstrations: int = 0,
    task_set: str | None = None,
    task_seed: int | None = None,
    split: str | Sequence[str] = "validation",
    num_tasks: int | None = None,
    reward: str | None = None,
    expert: str | None = None,
    seed: int = 0,
    videos: int = 0,
    jobs: int = 1,
    progress: bool = True,
) -> Evaluation:
    """Fine-tune runs on held-out tasks by reward alone, as `demokit evaluate` does.

    Runs whose folders differ only in a last number are seeds of one method. What is measured is
    kept in the runs' folders: the same call continues an evaluation that was stopped.

    Examples:
        >>> found = demokit.evaluate("runs/gmps-0", "runs/imitation-0", episodes=20)
        >>> found.success["gmps"][20].mean

    Args:
        runs: their folders.
        output_dir: of the page; None: evaluation/ in the first run.
        episodes: on each new task, as many steps as they fill; or
        adapt_steps: of every method, 5 unless either is said.
        rollouts: K, of a step; several are a sweep. Default: as in training.
        step_scale: factors on the runs' step sizes; several are a sweep.
        demonstrations: of each new task, shown first.
        task_set: None: that of the training.
        task_seed: of the draws of tasks; None: that of the training.
        split: of the tasks, or several.
        num_tasks: the first so many; None: all.
        reward: None: that of the training.
        expert: the reference; None: that of the demonstrations, or scripted.
        seed: of the roll-outs.
        videos: film so many tasks.
        jobs: processes side by side, each with some of a run's tasks.
        progress: show how far it is, on stderr.

    Raises:
        DemokitError: they cannot be compared, or take no such steps.
    """
    given = {name: value for name, value in locals().items() if name != "runs"}
    with _in_python():
        found: Evaluation = _find("evaluate")(*runs, **given)
    return found


@contextmanager
def _in_python() -> Iterator[None]:
    """What goes wrong is said in arguments, `output_dir`, where commands have options."""
    try:
        yield
    except DemokitError as error:
        error.args = (_TYPED.sub(_as_argument, str(error)),)
        raise


def _as_argument(found: re.Match[str]) -> str:
    return found["command"] or found["option"].replace("-", "_")


def _find(name: str) -> Any:
    for entry in entry_points(group=GROUP, name=name):
        return entry.load()
    raise DemokitError(f"Nothing is installed that can {name}: no {name} of {GROUP}.")
