"""Work in pieces, one after the other or side by side in processes that end with this one."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from multiprocessing import SimpleQueue, get_context, parent_process
from typing import Protocol, TypeVar

import torch

from demokit.errors import DemokitError
from gmps.comparison.processes import end_after

_SAFE_PATH = "PYTHONSAFEPATH"
_POLL_S = 0.2

T = TypeVar("T")
P = TypeVar("P", contravariant=True)
R = TypeVar("R", covariant=True)
Report = Callable[[], None]
"""Called after every step of a piece."""


class Work(Protocol[P, R]):
    """What is done of a piece."""

    def __call__(self, piece: P, report: Report, /) -> R:
        """The result of a piece; `report` is called after each of its steps."""


def done_in_pieces(
    work: Work[P, R], pieces: Sequence[P], jobs: int, report: Report
) -> Iterator[tuple[int, R]]:
    """The results of pieces as they come, each with the piece's index.

    Args:
        work: what is done of a piece; in other processes it is imported by its name.
        pieces: with several jobs they are sent to other processes.
        jobs: how many are done at a time.
        report: called after every step of any piece.

    Raises:
        DemokitError: the system ended one of the processes.
    """
    if jobs == 1:
        yield from ((i, work(piece, report)) for i, piece in enumerate(pieces))
        return
    context, threads = get_context("spawn"), max(1, (os.cpu_count() or 1) // jobs)
    with ExitStack() as stack:
        stack.enter_context(_safe_path())
        steps: SimpleQueue[None] = context.SimpleQueue()
        pool = ProcessPoolExecutor(jobs, context, begin, (threads, steps))
        stack.enter_context(pool)
        try:
            sent = {pool.submit(_done, work, piece): i for i, piece in enumerate(pieces)}
            for future in _as_completed(set(sent), steps, report):
                yield sent[future], future.result()
        except BrokenProcessPool:
            raise DemokitError(
                "A process that measures was ended by the system, for want of memory perhaps: run "
                "the same command again with fewer --jobs; what is measured is kept."
            ) from None
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _as_completed(
    pending: set[Future[T]], steps: SimpleQueue[None], report: Report
) -> Iterator[Future[T]]:
    """Futures as they are done; steps are reported meanwhile."""
    while pending:
        done, pending = wait(pending, _POLL_S, FIRST_COMPLETED)
        while not steps.empty():
            steps.get()
            report()
        yield from done


_told: SimpleQueue[None]
"""Where this process tells of its steps."""


def begin(threads: int, steps: SimpleQueue[None]) -> None:
    """In a process that measures: Ctrl-C ends it at once, and so does its parent's end."""
    global _told
    parent = parent_process()
    assert parent is not None
    end_after(parent.join)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    torch.set_num_threads(threads)
    _told = steps


def _done(work: Work[P, R], piece: P) -> R:
    return work(piece, lambda: _told.put(None))


@contextmanager
def _safe_path() -> Iterator[None]:
    """Processes that begin meanwhile take no module of the working folder for one of Python's."""
    before = os.environ.get(_SAFE_PATH)
    os.environ[_SAFE_PATH] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_SAFE_PATH]
        else:
            os.environ[_SAFE_PATH] = before
