"""A plan of comparisons as data: what to record, train and evaluate, and the commands that do it.

A plan is a TOML file; docs/results.toml is one. Methods and their options are rows of it.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import Field, asdict, dataclass, field, fields, replace
from math import ceil
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import click

from demokit.cli import main
from demokit.envs import make_family
from demokit.errors import DemokitError, unknown_name
from demokit.options import dashed, is_there
from gmps.method import DEFAULT, find_method, method_names
from gmps.options import RunOptions
from gmps.shipped import PRESETS, shipped_file

Options = Mapping[str, Any]
_HOW_FAR = ("adapt-steps", "episodes")
_FEWEST_TASKS = 5
_OF_TASKS = ("env", "task-set", "tasks", "observation")
_SET_HERE = {"record": ("out", "resume", "overwrite"), "evaluate": ("output-dir", "jobs")}
"""Options of commands that whoever carries out a plan sets."""
Made = TypeVar("Made")


@dataclass(frozen=True)
class Method:
    """A way of learning: a row of every comparison that names it.

    Attributes:
        about: a sentence for the page.
        train: options of `meta-train`; "config" names a TOML file of more, or a preset.
    """

    about: str = ""
    train: Options = field(default_factory=dict)


@dataclass(frozen=True)
class Match:
    """One comparison: methods that learn from the same demonstrations, or from the same tasks.

    Attributes:
        demos: name of a dataset of the plan; empty where there is none.
        tasks: in place of it the options of `meta-train` that say which tasks, "env" among them:
            for methods that learn by reward alone.
        about: a sentence for the page.
        methods: their names; all where none are named.
        train: options of `meta-train` for every method; a method's own come before them.
        evaluate: options of `evaluate`, before those of the plan.
    """

    demos: str = ""
    tasks: Options = field(default_factory=dict)
    about: str = ""
    methods: tuple[str, ...] = ()
    train: Options = field(default_factory=dict)
    evaluate: Options = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """What to compare.

    Attributes:
        title: of the page.
        text: stands under it, Markdown.
        seeds: of every method.
        evaluate: options of every `evaluate`.
        scale: how long trainings are, in parts of what is said here; see `scaled`. No file says it.
        methods: name -> method.
        datasets: name -> options of `record`, or {"path": a dataset that is there}.
        comparisons: name -> comparison.
    """

    title: str
    seeds: tuple[int, ...]
    methods: Mapping[str, Method]
    comparisons: Mapping[str, Match]
    datasets: Mapping[str, Options] = field(default_factory=dict)
    text: str = ""
    evaluate: Options = field(default_factory=dict)
    scale: float = 1.0

    def __post_init__(self) -> None:
        """Check that every name is known; raises DemokitError."""
        for name, match in self.comparisons.items():
            if bool(match.demos) == bool(match.tasks):
                raise DemokitError(f"Comparison '{name}' needs demos or tasks, one of them.")
            _require(f"dataset of comparison '{name}'", filter(None, [match.demos]), self.datasets)
            _require(f"method of comparison '{name}'", match.methods, self.methods)
        if not self.seeds or not self.comparisons or not self.methods:
            raise DemokitError("A plan needs seeds, methods and comparisons.")
        if len(set(self.seeds)) < len(self.seeds):
            raise DemokitError("A plan names each seed once: twice, it would count as two runs.")

    def scaled(self, scale: float) -> Plan:
        """The same with so much of the work, to try it: fewer seeds, then shorter trainings.

        Those are as much shorter as one seed at least is too much; the options that count are
        those made with `length`. As much fewer tasks are evaluated, but no fewer than five.
        """
        num = _share(len(self.seeds), scale)
        return replace(
            self,
            title=f"{self.title}, at {scale:g} of its size",
            seeds=self.seeds[:num],
            scale=min(1.0, scale * len(self.seeds) / num),
        )

    def evaluation(self, name: str) -> Options:
        """The options of `evaluate` for a comparison: how far it goes it may say in either way."""
        own = {dashed(option): value for option, value in self.comparisons[name].evaluate.items()}
        shared = {dashed(option): value for option, value in self.evaluate.items()}
        told = {*_HOW_FAR} & own.keys()
        both = {n: v for n, v in shared.items() if not (told and n in _HOW_FAR)} | own
        if self.scale == 1 or "num-tasks" not in both:
            return both
        tasks = int(both["num-tasks"])
        return both | {"num-tasks": min(tasks, max(_FEWEST_TASKS, _share(tasks, self.scale)))}

    def trainings(self, name: str) -> dict[str, PlannedRun]:
        """Run folder -> what is trained in it, of every method and seed of a comparison.

        Options of the comparison are those of every method that has them.

        Raises:
            DemokitError: an option that no method of the comparison has, or a wrong value.
        """
        match = self.comparisons[name]
        rows = {row: self.methods[row].train for row in match.methods or self.methods}
        where = f"comparison '{name}'"
        kinds = {
            row: _method_of(f"{where}, method '{row}'", row, train) for row, train in rows.items()
        }
        shared = _tables(where, match.train)
        own = {row: _tables(f"{where}, method '{row}'", train) for row, train in rows.items()}
        known = {each.name for kind in kinds.values() for each in _fields_of(kind)}
        _require(f"option ({where})", _plain(shared), known)
        planned = {
            row: PlannedRun.of(f"{where}, method '{row}'", kinds[row], shared, own[row])
            for row in rows
        }
        for row, run in planned.items():
            if match.tasks:
                run.require_no_demos(f"{where}, method '{row}'")
        return {
            f"{row}-{seed}": run.seeded(seed).scaled(self.scale)
            for row, run in planned.items()
            for seed in self.seeds
        }


@dataclass(frozen=True)
class PlannedRun:
    """A training of a plan: the name of its method, and its options."""

    method: str
    options: RunOptions

    @classmethod
    def of(cls, where: str, method: str, shared: Options, own: Options) -> PlannedRun:
        """Shared options count where the method has them and they have an effect; own ones must.

        Either may have tables named like methods: what stands there is the method's own.
        """
        fields_of = {each.name: each for each in _fields_of(method)}
        strict = {**_section(shared, method), **_plain(own), **_section(own, method)}
        lenient = {name: v for name, v in _plain(shared).items() if name in fields_of}
        _require(f"option of {method} ({where})", strict, fields_of)
        named = {"threads": 1, **lenient, **strict}  # one: runs train side by side
        defaults = {each.name: each.default for each in fields_of.values()}
        present = {**defaults, **named}
        needed = {name: fields_of[name].metadata["needs"] for name in lenient}
        unneeded = [n for n in lenient if n not in strict and not is_there(needed[n], present)]
        kept = {name: value for name, value in named.items() if name not in unneeded}
        kind = find_method(method).options
        _require_types(where, kept, get_type_hints(kind))
        return cls(method, kind(**kept))

    def require_no_demos(self, where: str) -> None:
        """Raise DemokitError unless tasks alone will do."""
        if find_method(self.method).needs_demos(self.options):
            raise DemokitError(
                f"{where}: {self.method} learns from demonstrations, not from tasks alone: name "
                "demos."
            )

    def seeded(self, seed: int) -> PlannedRun:
        """With another seed."""
        return replace(self, options=replace(self.options, seed=seed))

    def scaled(self, scale: float) -> PlannedRun:
        """So much of its length."""
        lengths: dict[str, Any] = {
            each.name: _share(value, scale)
            for each in fields(self.options)
            if each.metadata["length"] and (value := getattr(self.options, each.name))
        }
        return replace(self, options=replace(self.options, **lengths))

    def typed(self) -> Options:
        """What `meta-train` is given: the method, options that are not its defaults, the seed."""
        given = asdict(self.options)
        known = fields(self.options)
        changed = {
            each.name: given[each.name] for each in known if given[each.name] != each.default
        }
        return {"method": self.method, **changed, "seed": self.options.seed}


def _share(num: int, scale: float) -> int:
    return max(1, ceil(num * scale))


def load_plan(path: Path) -> Plan:
    """Read a plan; raises DemokitError that says what is wrong and where."""
    content = _read(path)
    _require(f"key ({path})", content, get_type_hints(Plan).keys() - {"scale"})
    sections = {
        section: {
            name: _made(f"{path}, {section}.{name}", values, kind)
            for name, values in _named(path, content, section).items()
        }
        for section, kind in (("methods", Method), ("comparisons", Match))
    }
    datasets = {"datasets": _named(path, content, "datasets")}
    given = {"title": path.stem, "seeds": [0], **content, **sections, **datasets}
    plan = _made(str(path), given, Plan)
    for name, options in plan.datasets.items():
        _require_dataset(f"{path}, datasets.{name}", options)
    for name, match in plan.comparisons.items():
        _require_tasks(f"{path}, comparisons.{name}.tasks", match.tasks)
    parsed(f"{path}, evaluate", plan.evaluate, "evaluate", ".")
    for name, match in plan.comparisons.items():
        parsed(f"{path}, comparisons.{name}.evaluate", match.evaluate, "evaluate", ".")
    return plan


def _named(path: Path, content: Options, section: str) -> dict[str, Any]:
    """A table whose keys name files and folders; raises DemokitError for names that cannot."""
    found = _table(f"{path}, {section}", content.get(section, {}))
    for name in found:
        if not re.fullmatch(r"[\w.-]+", name) or name in (".", ".."):
            raise DemokitError(
                f"{path}, {section}: '{name}' names files: take letters, digits, '.', '-' and '_'."
            )
    return found


def _table(where: str, value: Any) -> dict[str, Any]:
    """The value, which is a table; raises DemokitError."""
    if not isinstance(value, dict):
        raise DemokitError(f"{where} must be a table, not {value!r}.")
    return value


def parsed(where: str, options: Any, name: str, *operands: str) -> dict[str, Any]:
    """What a command takes options of a plan for, by the names of its parameters.

    Raises:
        DemokitError: it has no such options or values, or they are not the plan's to say.
    """
    command = main.get_command(click.Context(main), name)
    assert command is not None
    known = {opt.strip("-") for each in command.params for opt in each.opts}
    given = {dashed(option): value for option, value in _table(where, options).items()}
    _require(f"option of {name} ({where})", given, known)
    for option in _SET_HERE.get(name, ()):
        if option in given:
            raise DemokitError(f"{where}: {option} is set by `compare` itself: leave it out.")
    try:
        return command.make_context(name, [*operands, *arguments(given)]).params
    except click.ClickException as error:
        raise DemokitError(f"{where}: {error.format_message()}") from None


def _require_dataset(where: str, options: Any) -> None:
    """Raise DemokitError unless they are options of `record`, or the path of a dataset alone."""
    if "path" in _table(where, options):
        _require(f"key beside path ({where})", options, ["path"])
        _require_types(where, options, {"path": str})
        return
    parsed(where, options, "record")
    make_family(str(options["env"]))  # it will be typed for `record`, which imports a module


def _require_tasks(where: str, tasks: Options) -> None:
    """Raise DemokitError unless they are none, or options of `meta-train` that say which."""
    if not tasks:
        return
    _require(f"key ({where})", tasks, _OF_TASKS)
    if "env" not in tasks:
        raise DemokitError(f"{where}: env is missing, the family of the tasks.")
    parsed(where, tasks, "meta-train")
    make_family(str(tasks["env"]))


def _made(where: str, values: Any, kind: type[Made]) -> Made:
    """A part of a plan from its table; raises DemokitError."""
    hints = get_type_hints(kind)
    _require(f"key ({where})", _table(where, values), hints)
    lists = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    _require_types(where, lists, hints)
    try:
        return kind(**lists)
    except TypeError as error:
        raise DemokitError(f"{where}: {error}.") from None


def _require_types(where: str, values: Options, hints: Mapping[str, Any]) -> None:
    """Raise DemokitError for the first value of another type."""
    for name, value in values.items():
        if not fits(value, hints[name]):
            kind = str(getattr(hints[name], "__name__", hints[name])).lower()
            raise DemokitError(f"{where}: {name} must be of type {kind}, not {value!r}.")


def fits(value: Any, hint: Any) -> bool:
    """Whether a value is of a type: of a class, an option's tuple, or one of several."""
    kind = get_origin(hint) or hint
    if kind is UnionType:
        return any(fits(value, each) for each in get_args(hint))
    if kind is tuple:
        own = get_args(hint)[0]
        return isinstance(value, tuple) and all(fits(each, own) for each in value)
    if kind in (int, float):
        numbers = int if kind is int else (int, float)
        return isinstance(value, numbers) and not isinstance(value, bool)
    return isinstance(value, kind)


def arguments(options: Options) -> list[str]:
    """Options as they are typed on a command line."""
    typed: list[str] = []
    for name, value in options.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            typed.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            for each in value if isinstance(value, list | tuple) else [value]:
                typed += [f"--{flag}", str(each)]
    return typed


def _method_of(where: str, row: str, train: Options) -> str:
    """The method that a row's options name, or its own name; raises DemokitError for none."""
    own = row if row in method_names() else DEFAULT
    name = train.get("method", _file_of(where, train).get("method", own))
    find_method(str(name))
    return str(name)


def _tables(where: str, options: Options) -> dict[str, Any]:
    """Options of a row and before them those of its file, with underscores; without the method.

    Tables of methods are checked, also of those that take no part; raises DemokitError.
    """
    found: dict[str, Any] = {}
    for name, value in (*_file_of(where, options).items(), *options.items()):
        if isinstance(value, Mapping):
            found[name] = {**found.get(name, {}), **_own_table(f"{where}, {name}", name, value)}
        elif name not in ("config", "method"):
            found[name.replace("-", "_")] = value
    _require_no_seed(where, found)
    return found


def _own_table(where: str, method: str, values: Options) -> dict[str, Any]:
    """The table of a method, with underscores; raises DemokitError."""
    found = {name.replace("-", "_"): value for name, value in values.items()}
    hints = get_type_hints(find_method(method).options)
    _require(f"option of {method} ({where})", found, [each.name for each in _fields_of(method)])
    _require_types(where, found, hints)
    _require_no_seed(where, found)
    return found


def _require_no_seed(where: str, options: Options) -> None:
    if "seed" in options:
        raise DemokitError(f"{where}: the seeds of runs are those of the plan: leave out seed.")


def _file_of(where: str, options: Options) -> dict[str, Any]:
    _require_types(where, {"config": options.get("config", "")}, {"config": str})
    return _read(shipped_file(PRESETS, options["config"])) if "config" in options else {}


def _plain(options: Options) -> dict[str, Any]:
    return {n: value for n, value in options.items() if not isinstance(value, Mapping)}


def _section(options: Options, method: str) -> Options:
    """What stands in the table of a method, whose name an option may have, too."""
    own = options.get(method)
    return own if isinstance(own, Mapping) else {}


def _fields_of(method: str) -> tuple[Field[Any], ...]:
    return fields(find_method(method).options)


def _read(path: Path) -> dict[str, Any]:
    """The content of a TOML file; raises DemokitError."""
    try:
        return tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DemokitError(f"{path} is not valid TOML ({error}).") from None
    except OSError as error:
        raise DemokitError(f"{path} cannot be read ({error.strerror}).") from None


def _require(what: str, names: Iterable[str], known: Iterable[str]) -> None:
    """Raise DemokitError for the first name that is not known, with a suggestion."""
    every = sorted(known)
    for name in names:
        if name not in every:
            raise unknown_name(what, name, every)
