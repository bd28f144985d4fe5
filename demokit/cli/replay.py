"""`demokit replay`: see an episode again, and whether the simulator gives what was recorded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from demokit.cli.number import Number
from demokit.cli.typed import refuse_typed, require_mp4
from demokit.cli.view import Where, view_options
from demokit.text import say
from demokit.writing import require_free

if TYPE_CHECKING:
    from demokit.data.replay import Deviation, Replay, Replayer
    from demokit.data.store import Dataset
    from demokit.types import Episode
    from demokit.view.editing import Editing

MAX_ROWS = 40


@click.command()
@click.argument("dataset", metavar="PATH|ID")
@click.option(
    "--episode", type=click.IntRange(min=0), help="One episode, counted from 0; default: all."
)
@click.option(
    "--use-states/--use-actions",
    default=True,
    help="Restore every recorded state (default), or simulate the recorded actions again.",
)
@click.option(
    "--tolerance",
    type=Number(min=0),
    default=0.0,
    show_default=True,
    help="The largest deviation that passes; 0 means bit for bit.",
)
@click.option(
    "--video",
    "--video-path",
    type=click.Path(path_type=Path),
    help="Write an MP4 of one episode: that of --episode, else the first.",
)
@click.option("--camera", default="scene", show_default=True, help="Camera of the pictures.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Where the page's `save` writes what was edited; default: NAME-edited.hdf5, beside.",
)
@click.option("--overwrite", is_flag=True, help="Replace the video, or --out, that is there.")
@click.option("--side-by-side", is_flag=True, help="Recorded left, simulated again right.")
@view_options
@click.pass_context
def replay(
    ctx: click.Context,
    dataset: str,
    episode: int | None,
    use_states: bool,
    tolerance: float,
    video: Path | None,
    camera: str,
    out: Path | None,
    overwrite: bool,
    side_by_side: bool,
    view: str | None,
    listen: str,
    port: int,
) -> None:
    """Replay episodes, from their states or from their actions.

    With --view web the page marks, drops and trims episodes, into a new file and when told to.
    Exits with 1 when an episode deviates by more than the tolerance.
    """
    require_mp4(ctx, video)
    if side_by_side and video is None:
        raise click.UsageError("--side-by-side says how --video looks: add --video.", ctx)
    if video is None:
        refuse_typed(ctx, ("camera",), "without --video")
    if video is None and out is None:
        refuse_typed(ctx, ("overwrite",), "without --video or --out")
    if view != "web":
        refuse_typed(ctx, ("out", "listen", "port"), "without --view web")
    require_free((video, out), overwrite)
    from demokit.data import open_dataset
    from demokit.data.replay import Replayer

    found = open_dataset(dataset).require_episodes()
    with found:
        replayer = Replayer(found.metadata)
        if not replayer.same_model:
            say("Recorded with another model or MuJoCo: it may diverge.", err=True)
        chosen = range(len(found)) if episode is None else [episode]
        editing = None
        if view == "web":
            tasks = [record.task.id for record in found.episodes]
            editing = _editing(dataset, out, chosen, tasks, overwrite)
        off = _replay(found, replayer, chosen, use_states, tolerance)
        if video is not None:
            count = _write_video(
                replayer, found[chosen[0]], video, camera, use_states, side_by_side
            )
            say(f"Wrote episode {chosen[0]} of {len(found)}, {count} frames, to {video}.")
        if view is not None:
            _show(found, replayer, chosen, use_states, Where(view, listen, port), editing)
    ctx.exit(1 if _print(off, tolerance, use_states) else 0)


def _replay(
    dataset: Dataset,
    replayer: Replayer,
    chosen: range | list[int],
    use_states: bool,
    tolerance: float,
) -> dict[int, Deviation]:
    from demokit.data.replay import BATCH, comparable, compare

    off: dict[int, Deviation] = {}
    for start in range(0, len(chosen), BATCH):
        part = chosen[start : start + BATCH]
        episodes = [comparable(dataset[index]) for index in part]
        for index, episode, again in zip(
            part, episodes, _again(replayer, episodes, use_states), strict=True
        ):
            off[index] = compare(episode, again, tolerance)
    return off


def _again(replayer: Replayer, episodes: list[Episode], use_states: bool) -> list[Replay]:
    if use_states:
        return [replayer.from_states(episode) for episode in episodes]
    return replayer.from_actions(episodes)


def _write_video(
    replayer: Replayer, episode: Episode, path: Path, camera: str, use_states: bool, both: bool
) -> int:
    """Film one episode; returns the number of frames."""
    from demokit.data.replay import frames, recorded_states
    from demokit.data.video import write_video

    (again,) = _again(replayer, [episode], use_states)
    shown = [recorded_states(episode), again] if both else [again]
    rate_hz = 1 / replayer.family.control_dt_s
    return write_video(path, frames(replayer, episode, shown, camera), rate_hz)


def _show(
    dataset: Dataset,
    replayer: Replayer,
    chosen: range | list[int],
    use_states: bool,
    where: Where,
    editing: Editing | None,
) -> None:
    from demokit.cli.view import play
    from demokit.view.clips import Clip, of_episode

    def clip(number: int) -> Clip:
        episode = dataset[chosen[number]]
        (again,) = _again(replayer, [episode], use_states)
        title = [("episode", f"{chosen[number]} of {len(dataset)}"), ("by", episode.recorder)]
        return of_episode(replayer.family, episode, again.states, title)

    play(where, replayer.family, clip, len(chosen), editing)
    if editing is not None and editing.unsaved:
        words = f"What was edited was not saved; this saves it: {editing.command()}"
        say(words, err=True, whole=True)


def _editing(
    source: str, out: Path | None, chosen: Sequence[int], tasks: Sequence[str], overwrite: bool
) -> Editing:
    """What the page edits, and the new file for it."""
    from demokit.data.assembly import write_lock
    from demokit.data.paths import resolve
    from demokit.errors import DemokitError
    from demokit.view.editing import Editing

    if out is not None and out.resolve() == resolve(source).resolve():
        raise DemokitError(f"{out} is what is played: name another --out.")
    if out is not None:
        write_lock(out).release()  # what nobody may write there is said now, and not at the end
    return Editing(source, out, chosen, tasks, overwrite=overwrite)


def _print(off: dict[int, Deviation], tolerance: float, use_states: bool) -> bool:
    """Print what deviates; returns whether anything does, beyond the tolerance."""
    from demokit.cli.console import console, table

    bad = {index: each for index, each in off.items() if each.first_step is not None}
    if bad:
        numbers = ("episode", "first step", "largest deviation")
        rows = table("Diverging", *numbers, "array", numbers=numbers)
        for index, each in list(bad.items())[:MAX_ROWS]:
            rows.add_row(str(index), str(each.first_step), f"{each.largest:.3g}", each.array)
        console().print(rows)
        for index, each in list(bad.items())[:MAX_ROWS]:
            if each.fault:
                say(f"Episode {index}: {each.fault}", err=True)
    how = "states" if use_states else "actions"
    largest = max((each.largest for each in off.values()), default=0.0)
    say(
        f"{len(off) - len(bad)} of {len(off)} episodes replay from their {how} within "
        f"{tolerance:g}; the largest deviation is {largest:.3g}."
    )
    return bool(bad)
