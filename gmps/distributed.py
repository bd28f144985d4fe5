"""Many processes: each has some of the tasks, all have the same parameters.

`torchrun` starts them and tells each, in its environment, which it is. A process without that is
alone: it has all tasks, and nothing here sends anything.

Randomness never depends on how many processes there are. Each draws the numbers of all tasks, in
the same order, and takes those of its own.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from threading import Thread
from typing import Any, TypeVar

import torch
from torch import Tensor

from demokit.errors import DemokitError

TIMEOUT = timedelta(minutes=10)
"""How long a process waits for another one: longer than any makes roll-outs or writes files."""
_INTERRUPTED = 130
_STORE_PATIENCE_S = 10

T = TypeVar("T")


class LostProcessError(DemokitError):
    """Another process of the run has ended, or does not answer."""

    def __init__(self, why: str) -> None:
        super().__init__(
            f"Another process of this run was lost ({why}): the run ends here, and the same "
            "command with --resume continues it."
        )


@dataclass(frozen=True)
class World:
    """The processes of a run, and which one this is; see `join`.

    Attributes:
        rank: 0, 1, ...; process 0 writes and prints.
        size: how many there are.
        here: how many of them are on this machine.
        store: where they agree on who speaks, see `told_once`.
    """

    rank: int = 0
    size: int = 1
    here: int = 1
    store: Any = None

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    @property
    def simulation_threads(self) -> int:
        """How many simulate: a share of this machine's CPUs, of those that may be used."""
        share = max(1, (os.cpu_count() or 1) // self.here)
        if sys.platform == "linux":
            return min(share, len(os.sched_getaffinity(0)))
        return share

    def part(self, num_tasks: int) -> Part:
        """The own tasks, of `num_tasks`; one process too many has a copy that does not count."""
        if self.size == 1:
            return WHOLE
        owners = min(self.size, num_tasks)
        owner = self.rank % owners
        each, rest = divmod(num_tasks, owners)
        first = owner * each + min(owner, rest)
        last = first + each + (owner < rest)
        counts = self.rank < owners
        return Part(self, num_tasks, slice(first, last), counts * (last - first) / num_tasks)

    def require_tasks(self, num_tasks: int) -> None:
        """Raise DemokitError where some processes would have no task."""
        if self.size > num_tasks:
            raise DemokitError(
                f"{self.size} processes for {num_tasks} tasks: start at most {num_tasks}."
            )

    def add_up(self, values: Tensor) -> None:
        """Replace values, of the same shape in all processes, with their sum."""
        if self.size > 1:
            with _losses_of_processes():
                torch.distributed.all_reduce(values)

    def from_main(self, make: Callable[[], T]) -> T:
        """What `make` returns in process 0, the only one to call it, for everyone."""
        if self.size == 1:
            return make()
        sent = [make() if self.is_main else None]
        with _losses_of_processes():
            torch.distributed.broadcast_object_list(sent)
        return sent[0]  # type: ignore[return-value]

    def gathered(self, items: list[T]) -> list[T]:
        """The items of all processes, in the order of the processes."""
        if self.size == 1:
            return items
        found: list[Any] = [None] * self.size
        with _losses_of_processes():
            torch.distributed.all_gather_object(found, items)
        return [item for of_process in found for item in of_process]

    @contextmanager
    def told_once(self) -> Iterator[None]:
        """What ends the run is told by the process that meets it first; the others are silent.

        torchrun tells all processes to end (SIGTERM) when one has: that is an error, too.
        """
        if self.size == 1:
            yield
            return
        signal.signal(signal.SIGTERM, _end_of_another)
        try:
            yield
        except (DemokitError, KeyboardInterrupt) as error:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            if self._is_first():
                raise
            raise SystemExit(1 if isinstance(error, DemokitError) else _INTERRUPTED) from None
        except Exception:
            self._is_first()
            raise

    def leave(self) -> None:
        """The end of a run that went well: the processes leave together, and at once.

        Nothing is left to Python's own way out: on it, after all work was done, PyTorch 2.13 has
        aborted now and then on a busy machine.
        """
        if self.size == 1:
            return
        with _losses_of_processes():
            torch.distributed.barrier()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)

    def _is_first(self) -> bool:
        """Whether no process was before this one; yes, too, where the store does not answer.

        It is on the machine of process 0, and asked in a thread: cut off, the call would not end.
        """
        counted: list[int] = []

        def count() -> None:
            with suppress(RuntimeError):
                counted.append(int(self.store.add("told", 1)))

        asking = Thread(target=count, daemon=True)
        asking.start()
        asking.join(_STORE_PATIENCE_S)
        return counted in ([], [1])


@dataclass(frozen=True)
class Part:
    """The tasks of one process, some in a row of all; see `World.part`.

    Attributes:
        world: the processes.
        num_tasks: M, of all processes; alone, nothing depends on it.
        own: which of them.
        weight: their share of all.
    """

    world: World = World()
    num_tasks: int = 0
    own: slice = field(default_factory=lambda: slice(None))
    weight: float = 1.0

    def spread(self, values: Tensor) -> Tensor:
        """Values (M, ...) from those of the own tasks (m, ...), zero for the others."""
        if self.world.size == 1:
            return values
        everyone = values.new_zeros(self.num_tasks, *values.shape[1:])
        if self.weight:
            everyone[self.own] = values
        return everyone

    def gathered(self, values: Tensor) -> Tensor:
        """Values (M, ...) of all tasks, exactly, from those of the own ones (m, ...)."""
        everyone = self.spread(values)
        self.world.add_up(everyone)
        return everyone

    def mean(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Means over all tasks, the same bits in every process, from those over the own ones."""
        if self.world.size == 1:
            return dict(values)
        flat = self.weight * torch.cat([value.flatten() for value in values.values()])
        self.world.add_up(flat)
        parts = torch.split(flat, [value.numel() for value in values.values()])
        return {n: p.view_as(values[n]) for n, p in zip(values, parts, strict=True)}

    def averaged(self, leaves: Sequence[Tensor], losses: Tensor) -> Tensor:
        """Make gradients of means over the own tasks those of the mean over all tasks.

        One buffer is sent. Every process gets the same bits, so that parameters stay the same.

        Args:
            leaves: their `grad` is replaced, where they have one.
            losses: (L,), means over the own tasks.

        Returns:
            The losses as means over all tasks.
        """
        if self.world.size == 1:
            return losses
        parts = [leaf.grad for leaf in leaves if leaf.grad is not None]
        flat = self.weight * torch.cat([part.flatten() for part in (*parts, losses)])
        self.world.add_up(flat)
        *gradients, mean = torch.split(flat, [part.numel() for part in (*parts, losses)])
        for part, gradient in zip(parts, gradients, strict=True):
            part.copy_(gradient.view_as(part))
        return mean


ALONE, WHOLE = World(), Part()
"""A process without others, and its part: all tasks."""


def join() -> World:
    """The processes that torchrun started together with this one, once all have arrived.

    They talk by gloo, about tensors on GPUs by NCCL.

    Raises:
        LostProcessError: some did not arrive.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return World()
    from torch.distributed.rendezvous import rendezvous

    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    with _losses_of_processes():
        store, rank, size = next(rendezvous("env://", timeout=TIMEOUT))
        torch.distributed.init_process_group(
            backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT
        )
    return World(rank, size, int(os.environ.get("LOCAL_WORLD_SIZE", "1")), store)


@contextmanager
def _losses_of_processes() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise LostProcessError(str(error).splitlines()[0].rpartition("] ")[2]) from error


def _end_of_another(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise LostProcessError("this one was told to end")
