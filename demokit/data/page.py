"""One static HTML page about a dataset, complete in itself: behind `demokit inspect --html`."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterable, Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from string import Template

import numpy as np

from demokit.data.card import describe_noise
from demokit.data.figures import PANELS, Survey, survey
from demokit.data.layout import EpisodeRecord
from demokit.data.metadata import UNSTATED
from demokit.data.store import Dataset
from demokit.data.summary import ArrayRange, Summary, action_labels, summarize
from demokit.errors import DemokitError
from demokit.figure import Figure
from demokit.page import drawing, facts, image, style, table, tile
from demokit.text import on_page
from demokit.types import Array, Episode
from demokit.writing import write_whole

_STRIPS = 4
_FRAMES = 6
_FRAME_SIZE = (240, 180)
_MOST_EPISODES = 1000


def write_page(dataset: Dataset, path: Path) -> None:
    """Write the page of a dataset to `path`, NAME.html.

    Raises:
        DemokitError: no episodes, damage, or a page that cannot be written.
    """
    if path.suffix not in (".html", ".htm"):
        raise DemokitError(f"The page {path} must be named NAME.html.")
    with dataset.require_episodes():
        summary, found = summarize(dataset), survey(dataset)
        strips = "\n".join(_strips(dataset))
    page = Template((files("demokit.data") / "page.html").read_text())
    text = page.substitute(
        style=style(),
        name=on_page(dataset.path.stem),
        description=on_page(summary.metadata.description),
        tiles="\n".join(_tiles(summary)),
        facts=_facts(summary),
        plots="\n".join(_plots(found)),
        strips=strips,
        tasks=_tasks(summary),
        ranges=_ranges(summary),
        episodes=_episodes(found.records),
    )
    write_whole(path, text, "choose another place with --html.")


def _tiles(summary: Summary) -> Iterator[str]:
    about = summary.metadata
    shown = {
        "episodes": f"{summary.episodes:,}",
        "tasks": f"{len(summary.tasks):,}",
        "steps": f"{summary.steps:,}",
        "success": f"{summary.success_rate:.0%}",
        "mean return": f"{summary.returns[1]:.4g}",
        "size": f"{summary.size_bytes / 1e6:.1f} MB",
        "licence": about.license or "none",
    }
    for label, value in shown.items():
        yield tile(label, value)


def _facts(summary: Summary) -> str:
    about, source = summary.metadata, summary.metadata.provenance
    splits = summary.splits().items()
    shown = {
        "family": f"{about.family}, {about.reward} reward, horizon {about.horizon} steps",
        "task set": about.task_set,
        "splits": "; ".join(f"{name}: {t} tasks, {e} episodes" for name, (t, e) in splits),
        "length": "{:g} to {:g} steps, mean {:.1f}".format(*_low_high_mean(summary.lengths)),
        "return": "{:.4g} to {:.4g}, mean {:.4g}".format(*_low_high_mean(summary.returns)),
        "labels": summary.labels.words(),
        "recorder": f"{source.recorder}, expert {source.expert}, "
        f"{describe_noise(source.noise_std)}",
        "operator": source.operator or "not stated",
        "created": source.created,
        "seed": UNSTATED if source.seed is None else str(source.seed),
        "versions": ", ".join(f"{name} {number}" for name, number in source.versions.items()),
        "model": f"{about.model_hash or 'not stated'} (MuJoCo {about.mujoco_version})",
        "checksum": summary.checksum,
        **{f"missing: {what}": why for what, why in source.missing.items()},
    }
    return facts(shown)


def _low_high_mean(spread: tuple[float, float, float]) -> tuple[float, float, float]:
    low, mean, high = spread
    return low, high, mean


def _plots(found: Survey) -> Iterator[str]:
    for draw in PANELS:
        figure = Figure(figsize=(6.2, 4), layout="constrained")
        draw(figure.subplots(), found)
        yield drawing(figure, (draw.__doc__ or "").split(".")[0])


def _strips(dataset: Dataset) -> Iterator[str]:
    """A row of frames for a few episodes of different tasks, or a sentence that says why not."""
    by_task = {record.task.id: place for place, record in reversed([*enumerate(dataset.episodes)])}
    places = sorted(by_task.values())
    chosen = [places[i] for i in np.linspace(0, len(places) - 1, _STRIPS).astype(int)]
    try:
        for place in dict.fromkeys(chosen):
            yield _strip(dataset[place], dataset.episodes[place], dataset.metadata.family)
    except DemokitError as error:
        yield f"<p>No frames: {on_page(str(error))}</p>"


def _strip(episode: Episode, record: EpisodeRecord, family: str) -> str:
    rows = np.linspace(0, len(episode), _FRAMES).astype(int)
    images = [_picture(frame, f"step {row}") for row, frame in zip(
        rows, _frames(episode, rows, family), strict=True)]  # fmt: skip
    end = "success" if record.success else "failure"
    caption = (
        f"episode {record.index}, {record.task.id}: {end}, return {record.episode_return:.4g}, "
        f"steps {', '.join(map(str, rows))}"
    )
    return (
        f'<figure class="strip"><div>{"".join(images)}</div>'
        f"<figcaption>{on_page(caption)}</figcaption></figure>"
    )


def _frames(episode: Episode, rows: Array, family: str) -> Iterable[Array]:
    """Pictures (H, W, 3) of some rows: rendered from states, else the recorded images."""
    recorded = [
        values
        for values in episode.named_observations().values()
        if values.dtype == np.uint8 and values.ndim == 4 and values.shape[-1] == 3
    ]
    try:
        return list(_rendered(episode, rows, family))
    except DemokitError:
        if not recorded:
            raise
        return [recorded[0][row] for row in rows]


def _rendered(episode: Episode, rows: Array, family: str) -> Iterator[Array]:
    """The recorded states as pictures.

    Raises:
        DemokitError: no states, an unknown family, or nothing to draw with.
    """
    from demokit.envs import make_family
    from demokit.envs.batch import SimState, make_sims
    from demokit.envs.render import Renderer

    if "state" not in episode.privileged:
        raise DemokitError("the dataset holds no simulator states to draw.")
    made = make_family(family)
    context = np.array(episode.task.context)
    sims = make_sims(made, 1, num_threads=1)
    renderer = Renderer(made, width=_FRAME_SIZE[0], height=_FRAME_SIZE[1])
    try:
        for row in rows:
            state = episode.privileged["state"][row]
            moment = SimState(state[None], np.array([row]), context[None])
            sims.set_state(moment, tasks=[episode.task.id])
            yield renderer.render(sims, 0, context)
    finally:
        renderer.close()


def _picture(frame: Array, text: str) -> str:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(frame).save(stream, "PNG")
    return image(stream.getvalue(), text)


def _tasks(summary: Summary) -> str:
    rows = (
        (
            row.task.id,
            row.task.split,
            ", ".join(f"{value:.4g}" for value in row.task.context),
            str(row.episodes),
            f"{row.success_rate:.0%}",
            f"{row.mean_return:.4g}",
        )
        for row in summary.tasks
    )
    return table(("task", "split", "context", "episodes", "success", "mean return"), rows)


def _component(row: ArrayRange, index: int, actions: Sequence[str]) -> str:
    if row.name == "actions":
        return f"actions: {actions[index]}"
    return f"{row.name}[{index}]" if row.shape else row.name


def _ranges(summary: Summary) -> str:
    actions = action_labels(summary.metadata)
    rows = itertools.chain.from_iterable(_range_rows(row, actions) for row in summary.ranges)
    return table(("component", "dtype", "least", "greatest", ""), rows)


def _range_rows(row: ArrayRange, actions: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """A line for each component; one for all, where they are many or have several axes."""
    if not row.is_listed:
        name = f"{row.name}, {len(row.low):,} components"
        low, high = min(row.low, default=0.0), max(row.high, default=0.0)
        yield name, row.dtype, f"{low:.4g}", f"{high:.4g}", f"{len(row.constant):,} constant"
        return
    for index, (low, high) in enumerate(zip(row.low, row.high, strict=True)):
        never = "constant" if index in row.constant else ""
        yield _component(row, index, actions), row.dtype, f"{low:.4g}", f"{high:.4g}", never


def _episodes(records: Sequence[EpisodeRecord]) -> str:
    rows = (
        (
            str(record.index),
            record.task.id,
            record.task.split,
            str(record.length),
            f"{record.episode_return:.4g}",
            "yes" if record.success else "no",
            str(record.seed),
            record.recorder,
            record.digest[:12],
        )
        for record in records[:_MOST_EPISODES]
    )
    names = ("", "task", "split", "steps", "return", "success", "seed", "recorder", "checksum")
    more = len(records) - _MOST_EPISODES
    return table(names, rows) + (f"<p>And {more} more.</p>" if more > 0 else "")
