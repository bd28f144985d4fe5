"""Run as a program: reads every structure of an HDF5 file, so that a crash happens here."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import h5py
from h5py import h5d, h5g, h5l, h5o

from demokit.data.files import DAMAGE, GREEDY
from demokit.data.hdf5 import read_attributes

# What the texts of a file may take: HDF5 finds the same one as often as it is named.
_MOST_GROWTH = 2**28


def main(path: str, limit_s: int) -> int:
    """Visit all groups, attributes and chunk tables of `path`; no array is read."""
    resource.setrlimit(resource.RLIMIT_CPU, (limit_s, limit_s))
    _limit_memory()
    before = _memory()
    with h5py.File(path, "r", locking="best-effort") as file:
        for node in _nodes(file.id, set()):
            with suppress(*DAMAGE):
                if isinstance(node, h5d.DatasetID) and node.get_create_plist().get_layout() == (
                    h5d.CHUNKED
                ):
                    node.get_num_chunks()
                elif isinstance(node, h5g.GroupID):
                    read_attributes(h5py.Group(node), probed=True)
    return GREEDY if _memory() - before > _MOST_GROWTH else 0


def _limit_memory() -> None:
    """Let memory end soon after what is too much, where the system says how much there is."""
    with suppress(OSError):
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + 2 * _MOST_GROWTH
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _memory() -> int:
    """The most bytes in memory so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _nodes(
    node: h5g.GroupID | h5d.DatasetID, seen: set[int]
) -> Iterator[h5g.GroupID | h5d.DatasetID]:
    """The node and everything below it, once each; what cannot be opened is left out."""
    address = h5o.get_info(node).addr
    if address in seen:
        return
    seen.add(address)
    yield node
    links: list[tuple[bytes, int]] = []
    with suppress(*DAMAGE):
        if isinstance(node, h5g.GroupID):
            node.links.iterate(lambda name, info: links.append((name, info.type)), info=True)
    for name, kind in links:
        with suppress(*DAMAGE):
            if kind == h5l.TYPE_HARD:
                yield from _nodes(h5o.open(node, name), seen)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
