"""What adaptation changes, to be seen: before, after one step, and the expert, side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from demokit.data.video import write_video
from demokit.envs.batch import SimBatch, SimState, make_sims
from demokit.envs.family import Family
from demokit.envs.render import Renderer
from demokit.protocols import Expert
from demokit.random import stream
from demokit.types import Array, Episode, FloatArray, Task
from gmps.comparison.episodes import counted
from gmps.comparison.references import EXPERT, acted
from gmps.evaluation import Showing, shown_stage, stages
from gmps.method import MetaLearner
from gmps.problem import Problem

PANEL_SIZE = (360, 270)
_TITLE_HEIGHT = 28
_FONT_SIZE = 15
_RATE_HZ = 25.0
_STILL_S = 1.0
_GROUND, _INK, _SOLVED = "#ffffff", "#22272e", "#1b7a3d"


@dataclass(frozen=True, eq=False)
class Take:
    """One policy in each of the tasks: simulator states (T + 1, M, S) and success (M,)."""

    title: str
    states: FloatArray
    success: Array


@dataclass(frozen=True)
class Film:
    """A video file and what it shows."""

    path: Path
    task: str
    caption: str


def film(
    label: str,
    learner: MetaLearner,
    problem: Problem,
    tasks: Sequence[Task],
    folder: Path,
    *,
    rollouts: int,
    reward: str,
    seed: int,
    expert: Expert | None = None,
    show: Showing | None = None,
) -> list[Film]:
    """Write LABEL-TASK.mp4 for every task: before, after one step, and the expert.

    Before and after are drawn by the same random numbers and act by the mean; a method that
    draws more of them before its episodes starts these elsewhere. The goal is drawn in.

    Args:
        label: the method.
        learner: the policy.
        problem: what it was trained on.
        tasks: M tasks.
        folder: where to.
        rollouts: K, what the step learns from.
        reward: one of the family's, such as "dense".
        seed: of the roll-outs.
        expert: who is told the task; None: nobody.
        show: demonstrations of the tasks, which are shown to it first.

    Raises:
        DemokitError: nothing to draw with, or imageio is missing.
    """
    paid, family = replace(problem, reward=reward), problem.family
    family.require_drawn()
    takes = [*_before_and_after(learner, paid, tuple(tasks), rollouts, seed, show)]
    if expert is not None:
        takes.append(_by_expert(family, tasks, reward, seed, expert))
    films = []
    for i, task in enumerate(tasks):
        path = folder / f"{label}-{task.split}-{task.id.split('/')[-1]}.mp4"
        write_takes(path, family, task, takes, i)
        ends = (f"{take.title} {'solved' if take.success[i] else 'not solved'}" for take in takes)
        films.append(Film(path, task.id, f"{label}, {task.id}: {', '.join(ends)}"))
    return films


def write_takes(
    path: Path, family: Family, task: Task, takes: Sequence[Take], index: int = 0
) -> None:
    """Write a video of takes side by side, in task `index` of theirs; raises as `film`."""
    write_video(path, _pictures(family, task, takes, index), _speed(family)[0])


def spread(tasks: Sequence[Task], num: int) -> list[Task]:
    """`num` of the tasks, or all, evenly over their order."""
    chosen = np.linspace(0, len(tasks) - 1, min(num, len(tasks))).round().astype(int)
    return [tasks[i] for i in chosen]


def _before_and_after(
    learner: MetaLearner,
    problem: Problem,
    tasks: tuple[Task, ...],
    rollouts: int,
    seed: int,
    show: Showing | None = None,
) -> Iterator[Take]:
    seen: list[FloatArray] = []
    streams, start, first = lambda _: stream(seed, "videos"), None, "before adaptation"
    with problem.sampler(
        tasks,
        explore=rollouts,
        mean=1,
        watch=lambda sims: seen.append(_states(sims)[rollouts :: rollouts + 1]),
    ) as sampler:
        if show is not None:
            rng, first = stream(seed, "videos", "demonstrations"), "shown the task"
            start = shown_stage(learner, sampler, streams, show(tasks), rng)
        for stage in stages(learner, sampler, streams, 1, start):
            states, success = np.stack(seen), stage.sampled.judged.success[:, 0]
            seen.clear()
            title = f"after {counted(rollouts)}" if stage.step else first
            yield Take(title, states, success.numpy())


def _by_expert(
    family: Family, tasks: Sequence[Task], reward: str, seed: int, expert: Expert
) -> Take:
    rng = stream(seed, "videos", "expert")
    return take_of(EXPERT, [own[0] for own in acted(family, expert, tasks, reward, rng, 1)])


def take_of(title: str, episodes: Sequence[Episode]) -> Take:
    """Recorded episodes, one of each task, as a take."""
    longest = max(map(len, episodes)) + 1
    states = [
        np.pad(e.privileged["state"], ((0, longest - len(e) - 1), (0, 0)), mode="edge")
        for e in episodes
    ]
    return Take(title, np.stack(states, 1), np.array([e.success for e in episodes]))


def _states(sims: SimBatch) -> FloatArray:
    return sims.get_state().physics


def _speed(family: Family) -> tuple[float, int]:
    """Pictures per second, and every how many steps one is drawn: the world's own speed."""
    stride = max(1, round(1 / (_RATE_HZ * family.control_dt_s)))
    return 1 / (family.control_dt_s * stride), stride


def _pictures(family: Family, task: Task, takes: Sequence[Take], index: int) -> Iterator[Array]:
    """The takes of one task side by side, (H, W, 3) uint8; the last picture stays a moment."""
    rate_hz, stride = _speed(family)
    context = np.array(task.context)
    renderer = Renderer(family, width=PANEL_SIZE[0], height=PANEL_SIZE[1])
    sims = make_sims(family, 1, num_threads=1)
    last = max(len(take.states) for take in takes) - 1
    rows = [*range(0, last, stride), last]
    picture = np.zeros((0,), np.uint8)
    try:
        for row in rows:
            panels = []
            for take in takes:
                here = min(row, len(take.states) - 1)
                state = SimState(take.states[here][[index]], np.array([here]), context[None])
                sims.set_state(state)
                solved = row == last and bool(take.success[index])
                title = _title(f"{take.title}: solved" if solved else take.title, solved)
                panels.append(np.concatenate([title, renderer.render(sims, 0, context)]))
            picture = np.concatenate(panels, axis=1)
            yield picture
        for _ in range(round(_STILL_S * rate_hz)):
            yield picture
    finally:
        renderer.close()


def _title(text: str, solved: bool) -> Array:
    """A strip (H, W, 3) with words, to stand above a picture."""
    strip = Image.new("RGB", (PANEL_SIZE[0], _TITLE_HEIGHT), _GROUND)
    font = ImageFont.load_default(_FONT_SIZE)
    ImageDraw.Draw(strip).text((8, 5), text, _SOLVED if solved else _INK, font)
    return np.asarray(strip)
