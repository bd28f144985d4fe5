"""Text of strangers steers neither terminal nor page, whichever way it is shown."""

import ast
import re
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from demokit.cli import main
from demokit.cli.console import console, progress, table
from demokit.data import ArraySpec, DatasetMetadata, DatasetWriter, Provenance
from demokit.errors import DemokitError
from demokit.text import on_page, printable
from demokit.types import Task
from tests.data.conftest import make_episode  # noqa: F401 - a fixture

ROOT = Path(__file__).parents[1]
# Sets the title, writes the clipboard, clears the screen (C1), turns letters around, hides some,
# begins a line of its own, is no Unicode, and is markup of rich, HTML and mathematics.
EVIL = (
    "a\x1b]0;owned\x07\x1b]52;c;Zm9v\x07\x9b2J\u202egnp\u2066x\u200b\ufeff\r\nError: all is well"
    "\u2028\x00\udcff[red]b[/red]<script>alert(1)</script>$\\frac$"
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, Ünï-cödé, 日本語, é", "plain, Ünï-cödé, 日本語, é"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("\x9b2J", r"\x9b2J"),
        ("one\ntwo\r\tthree", r"one\ntwo\r\tthree"),
        ("\u202etxt.exe", r"\u202etxt.exe"),
        ("zero\u200bwidth\ufeff", r"zero\u200bwidth\ufeff"),
        ("\u2028\u2029", r"\u2028\u2029"),
        ("\udcff", r"\udcff"),
        ("no\u00a0break\u3000space", "no\u00a0break\u3000space"),
        ("x" * 5000, "x" * 4000 + "..."),
        (Path("a\x1bb"), r"a\x1bb"),
    ],
)
def test_what_is_not_seen_is_spelled_out(text, shown):
    assert printable(text) == shown
    assert printable(shown[:4000]) == shown[:4000]


def test_errors_and_pages():
    assert str(DemokitError(f"bad name '{EVIL}'")) == f"bad name '{printable(EVIL)}'"
    assert on_page("<b>\x1b") == r"&lt;b&gt;\x1b"


def seen(text):
    return all(letter.isprintable() or letter == "\n" for letter in text)


@pytest.fixture
def hostile(tmp_path, make_episode):  # noqa: F811
    task = Task(f"fam{EVIL[:-7]}".replace("\x00", "").replace("\udcff", ""), "t/" + EVIL.replace(
        "\x00", "").replace("\udcff", ""), (0.5,), "train")  # fmt: skip
    clean = EVIL.replace("\x00", "").replace("\udcff", "")
    about = DatasetMetadata(
        family=task.family,
        reward="dense",
        horizon=20,
        task_set=clean,
        tasks=(task,),
        observation_space=ArraySpec((4,), "float32", -1, 1),
        action_space=ArraySpec((2,), "float32", -1.0, 1.0),
        model_hash=clean,
        mujoco_version=clean,
        provenance=Provenance(clean, clean, 0.2, 0, operator=clean, missing={"state": clean}),
        license=clean,
        description=clean,
    )
    with DatasetWriter(tmp_path / "a.hdf5", about) as writer:
        for i in range(2):
            writer.add(replace(make_episode(i), task=task, recorder=clean))
        return writer.finish()


@pytest.mark.parametrize(
    "command",
    [
        "inspect A",
        "inspect A --json",
        "inspect A --episode 0",
        "inspect A --html {0}/a.html --plot {0}/a.png",
        "list {0}",
        "validate A",
        "validate A --json",
        "replay A",
        "share pack A -o {0}/a.zip",
        "filter A --task nothing --out {0}/b.hdf5",
        "merge A --license MIT --out {0}/b.hdf5",
        "split A --train-out {0}/b.hdf5 --validation-out {0}/c.hdf5",
        "convert A --to robomimic -o {0}/r.hdf5",
        "meta-train --demos A --output-dir {0}/run",
    ],
)
def test_a_hostile_dataset_steers_no_terminal(command, hostile, tmp_path):
    words = [str(hostile) if w == "A" else w.format(tmp_path) for w in command.split()]
    done = CliRunner().invoke(main, words)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    assert seen(done.output), ascii(done.output)
    assert "\nError: all is well" not in done.output
    assert done.exit_code in (0, 1)


def test_a_page_is_as_safe(hostile, tmp_path):
    page = tmp_path / "a.html"
    done = CliRunner().invoke(main, ["inspect", str(hostile), "--html", str(page)])
    assert done.exit_code == 0, done.output
    text = page.read_text()
    assert seen(text.replace("\t", ""))
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)" in text


@pytest.mark.parametrize("words", [["inspect"], ["validate"], ["list"], ["share", "pull"]])
def test_hostile_file_names(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = EVIL.replace("/", "").replace("\x00", "")
    extra = ["-o", "x.hdf5"] if words[0] == "share" else []
    done = CliRunner().invoke(main, [*words, name, *extra])
    assert done.exit_code
    assert seen(done.output), ascii(done.output)
    assert "\nError: all is well" not in done.output


def test_options_that_are_no_options():
    done = CliRunner().invoke(main, ["inspect", "--ep\x1bisode", "a"])
    assert done.exit_code == 2
    assert seen(done.output), ascii(done.output)


def test_tables_and_progress_of_anything(capsys, monkeypatch):
    rows = table(EVIL, "one", "two")
    rows.add_row(EVIL, "x")
    console().print(rows, EVIL)
    with progress(EVIL, 2) as update:
        update(1, note=EVIL)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with progress(EVIL, 2) as update:
        update(1, note=EVIL)
    shown = capsys.readouterr()
    assert seen(shown.out), ascii(shown.out)
    # What the bar itself writes: colours, moving the cursor, hiding it.
    rest = re.sub(r"\x1b\[[?0-9;]*[A-Za-z]|\r", "", shown.err)
    assert seen(rest), ascii(rest)
    assert "\nError: all is well" not in rest
    assert "\\x1b]0;owned" in shown.out.replace("\n", "")
    assert "[red]b[/red]" in shown.out.replace("\n", "")


# The two that say, and the one that writes pages; everything else goes through them.
DRAWERS = {"html", "rich", "rich.console", "matplotlib.figure"}
SPEAKERS = {"demokit/text.py": {"echo", "escape"}, "demokit/cli/console.py": {"echo"}}
FILES = [p for r in ("demokit", "recorders", "gmps") for p in sorted((ROOT / r).rglob("*.py"))]


def spoken(path):
    """What a file calls to show text by itself."""
    found = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Attribute) and node.attr in {"echo", "secho"}:
            found.add("echo")
        elif isinstance(node, ast.Name) and node.id == "print":
            found.add("print")
        elif isinstance(node, ast.ImportFrom) and node.module in {
            "html",
            "rich.console",
            "matplotlib.figure",
        }:
            found |= {a.name for a in node.names} & {"escape", "Console", "print", "Figure"}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_all_text_is_shown_through_one_function(path):
    name = str(path.relative_to(ROOT))
    if name == "demokit/cli/shown.py":
        return
    typed_only = {"Console"} if name == "demokit/cli/console.py" else set()
    assert spoken(path) <= SPEAKERS.get(name, set()) | typed_only, "use demokit.text.say"
