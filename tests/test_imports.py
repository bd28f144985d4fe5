"""Imports point one way, read from the source with ast."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = [
    p for room in ("demokit", "recorders", "gmps") for p in sorted((ROOT / room).rglob("*.py"))
]


def imported(path: Path) -> set[str]:
    """Absolute names of the modules that a file imports anywhere, functions included."""
    found: set[str] = set()
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            found.add(".".join([*base, *([node.module] if node.module else [])]))
    return found


def packages(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imported(path)}


FORBIDDEN = {
    "demokit": {"recorders", "gmps"},
    "recorders": {"gmps"},
    "gmps": {"recorders"},
}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_one_way(path):
    relative = path.relative_to(ROOT)
    assert not packages(path) & FORBIDDEN[relative.parts[0]]
    if relative.parts[:2] != ("demokit", "data"):
        assert not packages(path) & {"h5py", "minari"}


def test_the_reader_of_imports_sees_every_form(tmp_path, monkeypatch):
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    path = tmp_path / "demokit" / "data" / "x.py"
    path.parent.mkdir(parents=True)
    path.write_text(
        "import gmps.loop as t\nfrom . import store\nfrom ..envs import batch\n"
        "def f():\n    from recorders import loop\n"
    )
    assert imported(path) == {
        "gmps.loop",
        "demokit.data",
        "demokit.envs",
        "recorders",
    }


def test_every_room_is_read():
    assert {p.relative_to(ROOT).parts[0] for p in FILES} == {"demokit", "recorders", "gmps"}
