"""Scripts of docs/, which is no package."""

import importlib.util
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def module(name):
    """The script of that name, as a module."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", DOCS / f"{name}.py")
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found
