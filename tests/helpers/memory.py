"""How much memory something takes, whatever the process took before."""

import ctypes
import gc
from contextlib import contextmanager
from pathlib import Path


class Growth:
    """By how many kB the memory of this process grew at most; known when the block has ended."""

    kb: int


@contextmanager
def growth():
    """Measure what a block takes.

    Not by getrusage: its maximum is that of the whole life of the process, and of the one that
    started it, so that what stays below an earlier peak reads as nothing.
    """
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what was freed and is kept would be taken again, unseen
    Path("/proc/self/clear_refs").write_text("5")  # the peak is what there is now
    before, found = _peak_kb(), Growth()
    yield found
    found.kb = _peak_kb() - before


def _peak_kb():
    said = Path("/proc/self/status").read_text()
    return int(said.partition("VmHWM:")[2].split()[0])
