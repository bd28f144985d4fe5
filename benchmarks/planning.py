"""Planning in a model: candidates a second, against the matrix products that they need alone.

    python benchmarks/planning.py

20 tasks with a network of their own each, 500 sequences of 10 actions in each of them, 64 units in
two layers as is the default, and 512 as published. The products are those of the same sizes in one
batch, nothing between them. One torch thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from gmps.experience.transitions import none_met
from gmps.methods.model_based.model import Units, model_of
from gmps.methods.model_based.options import ModelBasedOptions
from gmps.steps.planning import plan

SIMULATIONS, STATE, ACTION = 20, 17, 6
ROUNDS = 3


def main() -> None:
    torch.set_num_threads(1)
    for width in (64, 512):
        options = ModelBasedOptions(hidden_width=width)
        found, alone = (best(made(options)) for made in (planning, products))
        candidates = SIMULATIONS * options.candidates
        print(
            f"{width:4d} units: {candidates / found:10,.0f} candidates/s   "
            f"products alone {candidates / alone:10,.0f}/s   ratio {alone / found:.2f}"
        )


def planning(options: ModelBasedOptions) -> Callable[[], object]:
    """Plans once, adaptation apart."""
    model = model_of(options, Units.fresh(STATE), ACTION)
    meta = model.init(torch.Generator().manual_seed(0), 0.01)
    network = model.adapted(meta, none_met((SIMULATIONS, options.window), STATE, ACTION))
    state = torch.zeros(SIMULATIONS, STATE)

    @torch.no_grad()
    def once() -> object:
        return plan(
            lambda actions: model.earned(network, state, actions),
            options.search,
            SIMULATIONS,
            ACTION,
            [torch.Generator().manual_seed(0)],
        )

    return once


def products(options: ModelBasedOptions) -> Callable[[], object]:
    """The same products, and nothing else."""
    width = options.hidden_width
    sizes = (STATE + ACTION, width), (width, width), (width, STATE + 1)
    weights = [torch.rand(SIMULATIONS, *size) for size in sizes]
    inputs = [torch.rand(SIMULATIONS, options.candidates, size[0]) for size in sizes]

    @torch.no_grad()
    def once() -> None:
        for _ in range(options.horizon):
            for seen, weight in zip(inputs, weights, strict=True):
                torch.bmm(seen, weight)

    return once


def best(once: Callable[[], object]) -> float:
    """Seconds of the fastest of several."""
    once()
    return min(timed(once) for _ in range(ROUNDS))


def timed(once: Callable[[], object]) -> float:
    """CPU seconds, which other load on the machine disturbs less than wall-clock."""
    began = time.process_time()
    once()
    return time.process_time() - began


if __name__ == "__main__":
    main()
