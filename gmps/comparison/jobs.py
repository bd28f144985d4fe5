"""Commands that run side by side, each with a log of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Event

_POLL_S = 1.0
_PATIENCE_S = 30.0
_PROGRAM = "import sys; sys.argv[0] = 'demokit'; from demokit.cli import main; main()"


@dataclass(frozen=True)
class Job:
    """A demokit command.

    Attributes:
        name: what it makes.
        arguments: the command's name and its options.
        log: the file that its output goes to.
    """

    name: str
    arguments: tuple[str, ...]
    log: Path


def run_side_by_side(
    jobs: Sequence[Job], num: int, report: Callable[[], None] = lambda: None
) -> dict[str, str]:
    """Run every job, `num` at a time; returns name -> why it failed, for those that did.

    Ctrl-C ends the jobs that run, and is raised again.

    Args:
        jobs: in the order in which they begin.
        num: how many run at a time.
        report: called about once a second.
    """
    stop = Event()
    with ThreadPoolExecutor(num) as pool:
        found = [(job, pool.submit(_run, job, num, stop)) for job in jobs]
        try:
            while not all(future.done() for _, future in found):
                report()
                stop.wait(_POLL_S)
            report()
        except BaseException:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return {job.name: why for job, future in found if (why := future.result())}


def _run(job: Job, num: int, stop: Event) -> str:
    """Run one job; returns why it failed, or nothing."""
    job.log.parent.mkdir(parents=True, exist_ok=True)
    threads = max(1, (os.cpu_count() or 1) // num)
    with job.log.open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, *job.arguments],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        )
        while process.poll() is None:
            if stop.wait(_POLL_S / 5):
                _end(process)
                return "interrupted"
    if process.returncode == 0:
        return ""
    lines = job.log.read_text(errors="replace").strip().splitlines()
    said = lines[-1] if lines else f"it ended with exit code {process.returncode}"
    return f"{said} (see {job.log})"


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
