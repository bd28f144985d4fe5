"""Run as a program: reads what its library may not survive, so that a crash happens here."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import h5py
from h5py import h5d, h5g, h5l, h5o

from demokit.data.files import DAMAGE, GREEDY
from demokit.data.hdf5 import read_attributes

# What reading may take, and beyond it how many times the size of the file: texts of HDF5 and
# values of Parquet stand in a file once, and are found as often as they are named.
_MOST_GROWTH = 2**28
_MOST_RATIO = 256


def main(path: Path, limit_s: int) -> int:
    """Read the structures of an HDF5 file, or all of a Parquet file."""
    is_parquet = path.suffix == ".parquet"
    if is_parquet:
        import_module("pyarrow.parquet")  # takes memory of its own
    most = max(_MOST_GROWTH, _MOST_RATIO * path.stat().st_size if is_parquet else 0)
    _limit(resource.RLIMIT_CPU, limit_s)
    _limit_memory(2 * most)
    before = _memory()
    try:
        _read_parquet(path) if is_parquet else _read_hdf5(path)
    except Exception:  # out of memory, libraries fail in any way, also when they close a file
        return GREEDY
    return GREEDY if _memory() - before > most else 0


def _read_parquet(path: Path) -> None:
    """All row groups, one after the other."""
    arrow, parquet = map(import_module, ("pyarrow", "pyarrow.parquet"))
    with suppress(arrow.ArrowInvalid, OSError):  # the reader finds them too
        file = parquet.ParquetFile(path)
        for index in range(file.num_row_groups):
            file.read_row_group(index, use_threads=False)


def _read_hdf5(path: Path) -> None:
    """All groups, attributes and chunk tables; no array is read."""
    try:
        file = h5py.File(path, "r", locking="best-effort")
    except (OSError, RuntimeError):
        return  # the reader finds that too
    with file:
        for node in _nodes(file.id, set()):
            with suppress(*DAMAGE):
                if isinstance(node, h5d.DatasetID) and node.get_create_plist().get_layout() == (
                    h5d.CHUNKED
                ):
                    node.get_num_chunks()
                elif isinstance(node, h5g.GroupID):
                    read_attributes(h5py.Group(node), probed=True)


def _limit_memory(growth: int) -> None:
    """Let memory end soon after what is too much, where the system says how much there is."""
    with suppress(OSError):
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        _limit(resource.RLIMIT_AS, pages * resource.getpagesize() + growth)


def _limit(what: int, most: int) -> None:
    """Set a limit of this process; one that is lower already stays."""
    _, hard = resource.getrlimit(what)
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(what, (most, most))


def _memory() -> int:
    """The most bytes that this program had in memory so far."""
    with suppress(OSError):  # what getrusage says includes the program that started this one
        said = Path("/proc/self/status").read_text()
        return int(said.partition("VmHWM:")[2].split()[0]) * 1024
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
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
