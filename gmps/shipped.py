"""Files that come with the package, by name: presets of options, and plans of comparisons."""

from __future__ import annotations

from pathlib import Path

from demokit.errors import DemokitError

PRESETS, PLANS = "presets", "plans"
_ENDING = ".toml"


def shipped(kind: str) -> dict[str, Path]:
    """Name -> file, of `PRESETS` or `PLANS`."""
    folder = Path(__file__).parent / kind
    return {path.stem: path for path in sorted(folder.glob(f"*{_ENDING}"))}


def shipped_file(kind: str, given: str) -> Path:
    """The file that is given, by its path or by the name of one that comes with the package.

    Raises:
        DemokitError: it is neither.
    """
    named, path = shipped(kind), Path(given)
    if given in named and not path.is_file():
        return named[given]
    if not path.is_file():
        raise DemokitError(
            f"{given} is no file, and none of the {kind} that come with it: {', '.join(named)}."
        )
    return path
