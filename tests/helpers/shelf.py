"""The wheel as others install it: where nothing is but what it asks for."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
OURS = "demokit-robotics"


def build(folder: Path) -> tuple[Path, Path]:
    """The sdist, and the wheel that is made of it."""
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT]
    subprocess.run(command, check=True, capture_output=True)
    [sdist], [wheel] = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return sdist, wheel


def install(wheel: Path, folder: Path) -> Path:
    """A new environment with the wheel in it; returns the folder of its programs.

    What the wheel asks for, and no extra, is linked from the environment of the tests: that takes
    no network, and next to no time.
    """
    venv.create(folder, symlinks=True)
    programs = folder / "bin"
    python = programs / "python"
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(subprocess.check_output([python, "-c", where], text=True).strip())
    for found in _asked_for(OURS, set(), {}):
        for name in {file.parts[0] for file in found.files or ()} - {"..", "__pycache__"}:
            link, real = site / name, Path(str(found.locate_file(name)))
            if real.exists() and not link.exists():
                link.symlink_to(real)
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps"]
    subprocess.run([*pip, "--no-index", wheel], check=True, capture_output=True)
    return programs


def clean(folder: Path) -> dict[str, str]:
    """The variables of a process that knows nothing of the checkout, at home in `folder`."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL", "COV"))}
    return {**kept, "HOME": str(folder), "MINARI_DATASETS_PATH": str(folder / "minari")}


def _asked_for(name: str, extras: set[str], found: dict[str, set[str]]) -> list[Distribution]:
    """The distributions that one asks for, and those that these ask for."""
    key = canonicalize_name(name)
    if key in found and extras <= found[key]:
        return []
    first = key not in found
    found[key] = found.get(key, set()) | extras
    package = distribution(name)
    every = [package] if first and key != OURS else []
    for line in package.requires or ():
        needs = Requirement(line)
        wanted = [{"extra": extra} for extra in ("", *extras)]
        if needs.marker is None or any(map(needs.marker.evaluate, wanted)):
            every += _asked_for(needs.name, set(needs.extras), found)
    return every
