"""Commands that run side by side, each with a log of its own, and end with who started them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from signal import Signals
from threading import Event, Thread
from typing import NamedTuple

from demokit.lock import HeldError, Lock
from gmps.comparison.stamp import Stamp

_POLL_S = 1.0
_PATIENCE_S = 30.0
_PROGRAM = "from gmps.comparison.processes import run_command; run_command()"
_ERROR = "Error: "


@dataclass(frozen=True)
class Command:
    """A demokit command.

    Attributes:
        name: what it makes.
        arguments: the command's name and its options.
        log: the file that its output goes to. LOG.lock is held while the command runs, so that of
            several processes, on machines that share the folder, one runs it.
        is_done: whether there is nothing left to do; asked once the command is ours.
        is_busy: whether somebody else is at it by another way.
        run: the folder of the run that it trains, if it trains one.
        stamp: put when it has come to its end.
    """

    name: str
    arguments: tuple[str, ...]
    log: Path
    is_done: Callable[[], bool] = lambda: False
    is_busy: Callable[[], bool] = lambda: False
    run: Path | None = None
    stamp: Stamp | None = None


class Outcome(NamedTuple):
    """What became of commands: name -> why it failed; names of those that others are at."""

    failed: dict[str, str]
    elsewhere: list[str]


def run_side_by_side(
    commands: Sequence[Command], num: int, report: Callable[[], None] = lambda: None
) -> Outcome:
    """Run every command that nobody else is at, `num` at a time.

    Ctrl-C ends the commands that run, and is raised again. They end with this process however it
    ends, also when it is killed.

    Args:
        commands: in the order in which they begin.
        num: how many run at a time.
        report: called about once a second.
    """
    stop = Event()
    with ThreadPoolExecutor(num) as pool:
        found = [(command, pool.submit(_run, command, num, stop)) for command in commands]
        try:
            while not all(future.done() for _, future in found):
                report()
                stop.wait(_POLL_S)
            report()
        except BaseException:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    ended = {command.name: future.result() for command, future in found}
    failed = {name: why for name, why in ended.items() if why}
    return Outcome(failed, [name for name, why in ended.items() if why is None])


def _run(command: Command, num: int, stop: Event) -> str | None:
    """Run one command; returns why it failed, or nothing; None where others are at it."""
    try:
        with Lock(command.log, "name another --output-dir."):
            if command.is_busy():
                return None
            return "" if command.is_done() else _run_ours(command, num, stop)
    except HeldError:
        return None


def _run_ours(command: Command, num: int, stop: Event) -> str:
    """Run one command; returns why it failed, or nothing."""
    stamp = command.stamp
    begun = stamp.digest() if stamp else ""
    why = run_until(command, num, stop.is_set)
    if stamp and why == "":
        stamp.put(begun)
    return "interrupted" if why is None else why


def run_until(command: Command, num: int, stop: Callable[[], bool]) -> str | None:
    """Run one command of `num` that run at a time, until `stop` says so.

    Returns:
        Why it failed, or nothing; None where it was stopped.
    """
    command.log.parent.mkdir(parents=True, exist_ok=True)
    command.log.unlink(missing_ok=True)  # whoever still writes there does not write here
    threads = max(1, (os.cpu_count() or 1) // num)
    with (
        command.log.open("w") as log,
        subprocess.Popen(
            [sys.executable, "-P", "-c", _PROGRAM, *command.arguments],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        ) as process,
    ):
        try:
            while process.poll() is None:
                if stop():
                    return None
                time.sleep(_POLL_S / 5)
        finally:
            _end(process)
    return (
        f"{_why(process.returncode, command.log)} (see {command.log})" if process.returncode else ""
    )


def _why(code: int, log: Path) -> str:
    """The error that a command which failed has said, or what ended it."""
    if code < 0:
        return f"it was ended by signal {-code}, {Signals(-code).name}"
    lines = log.read_text(errors="replace").strip().splitlines()
    errors = [line.removeprefix(_ERROR) for line in lines if line.startswith(_ERROR)]
    return (errors or lines or [f"it ended with exit code {code}"])[-1]


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(_PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def run_command() -> None:
    """Run the demokit command that the arguments are, as a command: it ends with its parent.

    Standard input is a pipe of which the parent has the other end, and nobody else: the kernel
    closes it when the parent ends, however that happens.
    """
    lifeline = os.dup(0)
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    end_after(lambda: os.read(lifeline, 1))
    from demokit.cli import main

    main(prog_name="demokit")


def end_after(wait: Callable[[], object]) -> None:
    """End this process at once when `wait` returns, which runs beside everything else."""

    def watch() -> None:
        wait()
        os._exit(1)

    Thread(target=watch, daemon=True).start()
