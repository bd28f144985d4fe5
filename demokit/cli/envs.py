"""`demokit envs`: which task families there are, and what each one shows and hides."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from demokit.cli.typed import refuse_typed
from demokit.cli.view import Where, view_options
from demokit.text import say
from demokit.writing import require_free

if TYPE_CHECKING:
    from demokit.envs.family import ContextSpace, Family


@click.command()
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
@click.option("--render", metavar="NAME", help="Write a picture of a family instead.")
@click.option("--camera", default="scene", show_default=True, help="Camera of the picture.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="The picture; default NAME.png, 640x480."
)
@click.option("--overwrite", is_flag=True, help="Replace the picture that is there.")
@view_options
@click.pass_context
def envs(
    ctx: click.Context,
    name: str | None,
    as_json: bool,
    render: str | None,
    camera: str,
    out: Path | None,
    overwrite: bool,
    view: str | None,
    listen: str,
    port: int,
) -> None:
    """List the task families, describe one, draw one, or show it and its tasks with --view.

    The scripted expert acts where there is one.
    """
    _refuse_ignored(ctx, view, render)
    if view is not None:
        if name is None:
            raise click.UsageError("--view shows one family: demokit envs NAME --view ...", ctx)
        _show(name, Where(view, listen, port))
        return

    if render is not None:
        path = out or Path(f"{render}.png")
        require_free((path,), overwrite)
        say(_draw(render, camera, path))
        return

    from demokit.envs import family_named_by_user, family_names, make_family

    if name:
        families = [family_named_by_user(name)]
    else:
        families = [make_family(each) for each in family_names()]
    if as_json:
        from demokit.cli.console import say_json

        found = [_describe(family) for family in families]
        say_json(found[0] if name else found)
    elif name:
        _print_family(families[0])
    else:
        _print_overview(families)


def _refuse_ignored(ctx: click.Context, view: str | None, render: str | None) -> None:
    """Raise click.UsageError for what the other options leave without a meaning."""
    if view is not None:
        refuse_typed(ctx, ("as_json", "render", "camera", "out", "overwrite"), "with --view")
    elif render is not None:
        refuse_typed(ctx, ("name", "as_json"), "with --render")
    else:
        refuse_typed(ctx, ("camera", "out", "overwrite"), "without --render")
    if view != "web":
        refuse_typed(ctx, ("listen", "port"), "without --view web")


def _draw(name: str, camera: str, path: Path) -> Path:
    from demokit.envs import family_named_by_user
    from demokit.envs.snapshot import write_snapshot

    return write_snapshot(family_named_by_user(name), path, camera=camera)


def _show(name: str, where: Where) -> None:
    from demokit.cli.view import play
    from demokit.envs import family_named_by_user
    from demokit.envs.tasks import make_tasks, task_sets
    from demokit.errors import DemokitError
    from demokit.experts import load_expert
    from demokit.view.clips import of_task

    family = family_named_by_user(name)
    family.require_drawn()
    tasks = make_tasks(family, next(iter(task_sets(family))), "train")
    try:
        expert = load_expert("scripted", name)
    except DemokitError:
        expert = None
    acts = ("acts", "nobody" if expert is None else f"{expert.name} expert")
    play(where, family, lambda i: of_task(family, tasks[i], expert, [acts]), len(tasks))


def _describe(family: Family) -> dict[str, Any]:
    from dataclasses import asdict

    from demokit.envs.tasks import task_sets

    return {
        "name": family.name,
        "horizon": family.horizon,
        "control_rate_hz": round(1 / family.control_dt_s, 3),
        "actions": list(family.actions),
        "observation_width": family.observation_width,
        "terms": [asdict(term) for term in family.terms],
        "context": asdict(family.context),
        "dynamics": asdict(family.dynamics) if family.dynamics else None,
        "task_sets": {name: list(splits) for name, splits in task_sets(family).items()},
        "model_hash": family.model_hash,
    }


def _print_overview(families: list[Family]) -> None:
    from demokit.cli.console import console, table

    numbers = ("horizon", "rate (Hz)", "observation")
    rows = table(
        "Task families", "name", *numbers, "actions", "context", "task sets", numbers=numbers
    )
    for family in families:
        about = _describe(family)
        rows.add_row(
            family.name,
            str(family.horizon),
            f"{about['control_rate_hz']:g}",
            str(family.observation_width),
            str(len(family.actions)),
            ", ".join(family.context.names),
            "; ".join(f"{name}: {', '.join(s)}" for name, s in about["task_sets"].items()),
        )
    console().print(rows)


def _print_family(family: Family) -> None:
    from demokit.cli.console import console, table

    out = console()
    about = _describe(family)
    out.print(
        f"{family.name}: {family.horizon} steps at {about['control_rate_hz']:g} Hz, "
        f"observation of {family.observation_width} numbers",
        style="bold",
    )
    if not family.restorable:
        out.print(
            "Its environments step one after another by their own code, slower than families that "
            "step on all cores; they are neither replayed nor drawn."
        )
    terms = table("Terms", "name", "width", "unit", "frame", "group", numbers=("width",))
    for term in family.terms:
        terms.add_row(term.name, str(term.width), term.unit, term.frame, term.group)
    out.print(terms)
    out.print(_context_table("Context (privileged)", family.context))
    if family.dynamics:
        out.print(_context_table("Dynamics (task set dynamics)", family.dynamics))
    actions = table("Actions, in [-1, 1]", "index", "meaning", numbers=("index",))
    for index, meaning in enumerate(family.actions):
        actions.add_row(str(index), meaning)
    out.print(actions)
    for name, splits in about["task_sets"].items():
        out.print(f"task set {name}: {', '.join(splits)}")


def _context_table(title: str, space: ContextSpace) -> Any:
    from demokit.cli.console import table

    rows = table(title, "name", "unit", "training", "out of distribution")
    for index, (name, unit) in enumerate(zip(space.names, space.units, strict=True)):
        boxes = space.regions or ((space.low, space.high),)
        inside = dict.fromkeys(_range(low[index], high[index]) for low, high in boxes)
        outside = _range(space.ood_low[index], space.ood_high[index]) if space.ood_low else "none"
        rows.add_row(name, unit, " or ".join(inside), outside)
    return rows


def _range(low: float, high: float) -> str:
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"
