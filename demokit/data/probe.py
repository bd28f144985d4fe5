"""Run as a program: reads every structure of an HDF5 file, so that a crash happens here."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress

import h5py

from demokit.data.files import DAMAGE


def main(path: str) -> None:
    """Visit all groups, attributes and chunk tables of `path`; no array is read."""
    with h5py.File(path, "r", locking="best-effort") as file:
        for node in _nodes(file, set()):
            with suppress(*DAMAGE):
                dict(node.attrs)
            with suppress(*DAMAGE):
                if isinstance(node, h5py.Dataset) and node.chunks:
                    node.id.get_num_chunks()


def _nodes(node: h5py.Group, seen: set[int]) -> Iterator[h5py.Group | h5py.Dataset]:
    """The node and everything below it, once each; what cannot be opened is left out."""
    address = h5py.h5o.get_info(node.id).addr
    if address in seen:
        return
    seen.add(address)
    yield node
    names: list[str] = []
    with suppress(*DAMAGE):
        names.extend(node if isinstance(node, h5py.Group) else ())
    for name in names:
        with suppress(*DAMAGE):
            yield from _nodes(node[name], seen)


if __name__ == "__main__":
    main(sys.argv[1])
