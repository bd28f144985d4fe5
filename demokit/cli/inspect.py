"""`demokit inspect`: what a dataset contains."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from demokit.cli.list import list_datasets
from demokit.errors import DemokitError
from demokit.text import say
from demokit.writing import require_free

if TYPE_CHECKING:
    from rich.table import Table

    from demokit.data.convert.recognise import Recognised
    from demokit.data.metadata import ArraySpec
    from demokit.data.store import Dataset
    from demokit.data.summary import Summary

MAX_ROWS = 40


@click.command()
@click.argument("dataset", metavar="[PATH|ID]", required=False)
@click.option("--episode", type=click.IntRange(min=0), help="Describe one episode, counted from 0.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
@click.option(
    "--plot",
    type=click.Path(path_type=Path),
    help="Draw returns, lengths, actions, goals and end positions to this PNG.",
)
@click.option(
    "--html", type=click.Path(path_type=Path), help="Write a page that needs nothing else."
)
@click.option("--overwrite", is_flag=True, help="Replace the picture or page that is there.")
@click.pass_context
def inspect(
    context: click.Context,
    dataset: str | None,
    episode: int | None,
    as_json: bool,
    plot: Path | None,
    html: Path | None,
    overwrite: bool,
) -> None:
    """Show what a dataset contains: tasks, success, returns, ranges, provenance.

    Without a dataset, list those there are. Of a file or folder of another program, say what it is
    and which command reads it.
    """
    from demokit.cli.console import say_json
    from demokit.data import open_dataset
    from demokit.data.convert.recognise import recognise
    from demokit.data.paths import resolve
    from demokit.data.summary import summarize

    if dataset is None:
        if (episode, plot, html) != (None, None, None):
            raise click.UsageError("Which dataset? Name its file, or its Minari id.", context)
        context.invoke(list_datasets, as_json=as_json)
        return
    foreign = recognise(resolve(dataset))
    if foreign is not None:
        _check_whole(foreign, episode, plot, html)
        say_json(foreign.to_json()) if as_json else _print_foreign(foreign)
        return
    found = open_dataset(dataset)
    require_free((plot, html), overwrite)
    _draw(found, plot, html)
    if episode is not None:
        about = _episode(found, episode)
        say_json(about) if as_json else _print_episode(about)
        return
    summary = summarize(found)
    if as_json:
        say_json(summary.to_json())
    else:
        _print_summary(summary)


def _draw(dataset: Dataset, plot: Path | None, html: Path | None) -> None:
    """Write the picture and the page that were asked for."""
    if plot is not None:
        from demokit.data.figures import plot as draw

        draw(dataset, plot)
        say(f"Picture: {plot}", err=True)
    if html is not None:
        from demokit.data.page import write_page

        write_page(dataset, html)
        say(f"Page: {html}", err=True)


def _check_whole(foreign: Recognised, *options: object) -> None:
    """Raise DemokitError when an option asks for more than what a file of others is."""
    if any(option is not None for option in options):
        how = f"import it first, with {foreign.command}" if foreign.command else foreign.advice
        raise DemokitError(f"{foreign.path} is {foreign.what}: {how}.")


def _print_foreign(foreign: Recognised) -> None:
    from demokit.cli.console import console, table

    rows = table(f"{foreign.path} is not a demokit dataset", "", "")
    rows.add_row("what", foreign.what)
    for label, text in foreign.contents.items():
        rows.add_row(label, text)
    console().print(rows)
    if foreign.command:
        say(f"Read it with: {foreign.command}")
    else:
        say(f"No command here reads it: {foreign.advice}.")


def _episode(dataset: Dataset, index: int) -> dict[str, Any]:
    from dataclasses import asdict

    from demokit.data.summary import array_range

    with dataset:
        episode = dataset[index]
        record = dataset.episodes[index]
        arrays = dataset.window(index, 0, len(episode) + 1)
    ranges = [array_range(name, values) for name, values in arrays.items()]
    about = {**vars(record), "task": asdict(record.task), "options": dict(record.options)}
    return {**about, "arrays": [{**asdict(r), "rows": len(arrays[r.name])} for r in ranges]}


def _print_episode(about: dict[str, Any]) -> None:
    from demokit.cli.console import console, table

    rows = table(f"Episode {about['index']}", "", "")
    task = about["task"]
    rows.add_row("task", f"{task['id']} ({task['split']})")
    rows.add_row("context", ", ".join(f"{value:.4g}" for value in task["context"]))
    for name in ("length", "seed", "success", "episode_return", "recorder", "options", "digest"):
        rows.add_row(name.replace("_", " "), str(about[name]))
    arrays = table("Arrays", "name", "rows", "shape", "dtype", "least", "greatest")
    for row in about["arrays"]:
        low, high = min(row["low"], default=0.0), max(row["high"], default=0.0)
        cells = str(row["rows"]), _shape(row["shape"]), row["dtype"], f"{low:.4g}", f"{high:.4g}"
        arrays.add_row(row["name"], *cells)
    console().print(rows, arrays)


def _print_summary(summary: Summary) -> None:
    from demokit.cli.console import console

    out = console()
    if summary.unfinished:
        out.print(
            "Unfinished recording: these are the episodes saved so far. To go on, add --resume to "
            "the command that began it.",
            style="yellow",
        )
    out.print(_totals(summary), task_table(summary), _range_table(summary))
    out.print(_provenance(summary))


def _totals(summary: Summary) -> Table:
    from demokit.cli.console import table

    about = summary.metadata
    splits = (f"{name} {t} tasks, {e} episodes" for name, (t, e) in summary.splits().items())
    rows = table(summary.path, "", "")
    rows.add_row("family", f"{about.family} ({about.reward} reward, horizon {about.horizon})")
    rows.add_row("task set", f"{about.task_set}: {'; '.join(splits)}")
    rows.add_row("episodes", f"{summary.episodes} ({summary.steps} steps)")
    for name, spec in about.space_items().items():
        rows.add_row(f"observation {name}".strip(), _space(spec))
    rows.add_row("action", _space(about.action_space))
    rows.add_row("success rate", f"{summary.success_rate:.1%}")
    rows.add_row("length", "least {:g}, mean {:.1f}, greatest {:g}".format(*summary.lengths))
    rows.add_row("return", "least {:.2f}, mean {:.2f}, greatest {:.2f}".format(*summary.returns))
    rows.add_row("labels", summary.labels.words())
    rows.add_row("size on disk", f"{summary.size_bytes / 1e6:.2f} MB")
    rows.add_row("checksum", summary.checksum or "not all episodes have one")
    rows.add_row("licence", about.license or "none stated")
    return rows


def _space(spec: ArraySpec) -> str:
    return f"{spec.dtype} {_shape(spec.shape)}, from {spec.low:g} to {spec.high:g}"


def task_table(summary: Summary) -> Table:
    """Episodes, success and return of each task, the first MAX_ROWS of them."""
    from demokit.cli.console import table

    numbers = ("episodes", "success", "mean return")
    rows = table("Tasks", "task", "split", "context", *numbers, numbers=numbers)
    for row in summary.tasks[:MAX_ROWS]:
        context = ", ".join(f"{value:.3g}" for value in row.task.context)
        cells = str(row.episodes), f"{row.success_rate:.0%}", f"{row.mean_return:.2f}"
        rows.add_row(row.task.id, row.task.split, context, *cells)
    if len(summary.tasks) > MAX_ROWS:
        rows.add_row(f"and {len(summary.tasks) - MAX_ROWS} more", "", "", "", "", "")
    return rows


def _range_table(summary: Summary) -> Table:
    from demokit.cli.console import table
    from demokit.data.summary import action_labels

    actions = action_labels(summary.metadata)

    rows = table("Ranges", "array", "shape", "dtype", "least", "greatest", "constant components")
    for row in summary.ranges:
        low, high = min(row.low, default=0.0), max(row.high, default=0.0)
        named = actions if row.name == "actions" else range(len(row.low))
        constant = ", ".join(str(named[i]) for i in sorted(row.constant)) or "none"
        if not row.is_listed:
            constant = f"{len(row.constant)} of {len(row.low)}"
        rows.add_row(row.name, _shape(row.shape), row.dtype, f"{low:.4g}", f"{high:.4g}", constant)
    return rows


def _provenance(summary: Summary) -> Table:
    from demokit.cli.console import table
    from demokit.data.metadata import UNSTATED

    about, source = summary.metadata, summary.metadata.provenance
    rows = table("Provenance", "", "")
    rows.add_row("recorder", f"{source.recorder}, expert {source.expert}")
    rows.add_row("action noise", UNSTATED if source.noise_std is None else f"{source.noise_std:g}")
    rows.add_row("kept", about.kept)
    rows.add_row("operator", source.operator or "not stated")
    rows.add_row("seed", UNSTATED if source.seed is None else str(source.seed))
    rows.add_row("created", source.created)
    rows.add_row("versions", ", ".join(f"{name} {v}" for name, v in source.versions.items()))
    rows.add_row(
        "model", f"{about.model_hash[:16] or 'not stated'} (MuJoCo {about.mujoco_version})"
    )
    rows.add_row("schema version", str(about.schema_version))
    for what, why in source.missing.items():
        rows.add_row(f"missing: {what}", why)
    return rows


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "scalar"
