"""Numbers of episodes as a person writes them, such as 3,7-9."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from demokit.errors import DemokitError

_PART = re.compile(r"\s*([0-9]{1,12})\s*(?:-\s*([0-9]{1,12})\s*)?")
MOST = 10**6


def parse_ranges(texts: Iterable[str], option: str) -> frozenset[int]:
    """The numbers of all texts, each like "3,7-9", both ends included.

    Raises:
        DemokitError: a text is no such list, or names more than MOST numbers; it names `option`.
    """
    found: set[int] = set()
    for text in texts:
        for part in text.split(","):
            found.update(_parse(part, option))
    return frozenset(found)


def _parse(part: str, option: str) -> range:
    match = _PART.fullmatch(part)
    if match is None:
        raise DemokitError(f"{option}: '{part}' is no number of an episode: write 3,7-9.")
    first, last = int(match[1]), int(match[2] or match[1])
    if last < first:
        raise DemokitError(f"{option}: {part.strip()} runs backwards: write {last}-{first}.")
    if last - first >= MOST:
        raise DemokitError(f"{option}: {part.strip()} is more than {MOST:,} episodes.")
    return range(first, last + 1)


def spell_ranges(numbers: Collection[int]) -> str:
    """The inverse of `parse_ranges`: {3, 7, 8, 9} as "3,7-9"."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(f"{first}" if first == last else f"{first}-{last}" for first, last in runs)
