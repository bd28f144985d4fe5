"""PEARL's gradient steps against a loop over tasks, its roll-outs, and the memory of its buffers.

    python benchmarks/pearl.py [rounds]

HalfCheetahVel with 20 tasks, at the default sizes and at those of the authors' code. The peer is
the reference layout: the same networks, equations and draws, task by task in Python, an update of
everything for each; its tasks are those of one of our steps, which updates once for all of them. A
second peer adds the gradients of all tasks up in that loop, and updates once. Both take torch's
plain Adam, as the authors do. Rounds of ours and of the peers take turns, seconds are CPU time of
one torch thread: other programs disturb that less than wall-clock. Roll-outs are wall-clock on all
cores.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from demokit.envs import make_family
from demokit.envs.tasks import make_tasks
from demokit.learning.sac import bellman_target, critic_loss, polyak, soft_value, value_loss
from demokit.random import stream, torch_stream
from gmps.distributed import WHOLE
from gmps.experience.replay import Replay, Steps
from gmps.methods.pearl.algorithm import Gathering, restored
from gmps.methods.pearl.learner import start
from gmps.methods.pearl.networks import ACTOR, CRITIC, ENCODER, VALUE, named, under
from gmps.methods.pearl.options import PearlOptions
from gmps.methods.pearl.posterior import divergence
from gmps.methods.pearl.update import Batch, Learning, update
from gmps.problem import Problem, Training

NUM_TASKS, ASKED = 20, "(target >= 2.00)"
SIZES = {
    "default sizes": PearlOptions(),
    "authors' sizes": PearlOptions(
        batch=256, context=100, hidden_width=300, hidden_layers=3, encoder_width=200
    ),
}


def main() -> None:
    torch.set_num_threads(1)
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    for name, options in SIZES.items():
        compare(name, options, rounds)


def compare(name: str, options: PearlOptions, rounds: int) -> None:
    training, replay, learning = prepared(options)
    learner = start(training)
    gather = Gathering(training, replay, stream(0, "roll-outs"))
    began = time.perf_counter()
    gather(learner, range(NUM_TASKS), options.initial_rollouts, of_prior=True)
    steps_s = gather.env_steps / (time.perf_counter() - began)
    draws = torch_stream(0, "draws")
    loops = [Loop(learning, options, replay, draws, each) for each in (True, False)]
    ours, apart, together = fastest(
        rounds,
        lambda: update(learning, drawn(replay, learning, options, draws), options, WHOLE),
        *loops,
    )
    print(f"{name}: {options.meta_batch} x {options.batch} transitions, context {options.context}")
    print(f"  updates, all tasks at once      {1 / ours:8.1f} /s")
    print(
        f"  loop, an update for each task   {1 / apart:8.1f} /s  ratio {apart / ours:5.2f}  {ASKED}"
    )
    print(f"  loop, one update for all        {1 / together:8.1f} /s  ratio {together / ours:5.2f}")
    print(f"  environment steps               {steps_s:8,.0f} /s")
    full, room = replay.num_bytes / 1e6, options.buffer_rollouts
    print(f"  buffers {full:.0f} MB, full or empty: {NUM_TASKS} tasks x {room} roll-outs")


def prepared(options: PearlOptions) -> tuple[Training, Replay, Learning]:
    family = make_family("cheetah-vel")
    tasks = make_tasks(family, "uniform", "train", num_tasks=NUM_TASKS)
    training = Training(Problem.in_family(family, "dense", "state", tasks), options)
    return training, *restored(training, start(training), {})


def drawn(
    replay: Replay, learning: Learning, options: PearlOptions, draws: torch.Generator
) -> Batch:
    return Batch.drawn(replay, learning.nets, options, draws, WHOLE)


class Loop:
    """A gradient step of the same, task by task."""

    def __init__(
        self,
        learning: Learning,
        options: PearlOptions,
        replay: Replay,
        draws: torch.Generator,
        each: bool,
    ) -> None:
        self._learning, self._options, self._each = learning, options, each
        self._replay, self._draws = replay, draws
        parts = named(learning.parts)
        several = ((ENCODER, CRITIC), (ACTOR, VALUE))
        self._judging, self._acting = (
            torch.optim.Adam(
                [v for n, v in parts.items() if n.startswith(own)], lr=options.outer_lr
            )
            for own in several
        )

    def __call__(self) -> None:
        """On a draw of its own."""
        batch = drawn(self._replay, self._learning, self._options, self._draws)
        rows = [self._row(batch, i) for i in range(self._options.meta_batch)]
        if self._each:
            for row in rows:
                self._step([row])
        else:
            self._step(rows)

    def _row(self, batch: Batch, i: int) -> Batch:
        context, steps = (Steps(*(v[i : i + 1] for v in part)) for part in batch[:2])
        return Batch(context, steps, batch.latent_noise[i : i + 1], batch.action_noise[i : i + 1])

    def _step(self, rows: Sequence[Batch]) -> None:
        learning, options = self._learning, self._options
        self._judging.zero_grad()
        states = [self._judged(row, len(rows)) for row in rows]
        self._judging.step()
        self._acting.zero_grad()
        for row, seen in zip(rows, states, strict=True):
            self._acted(row, seen, len(rows))
        self._acting.step()
        with torch.no_grad():
            polyak(learning.slow, learning.parts[VALUE], options.tau)

    def _judged(self, row: Batch, num: int) -> Tensor:
        nets, parts, options = self._learning.nets, self._learning.parts, self._options
        mean, variance = nets.evidence(parts[ENCODER], *row.context[:4]).gaussian()
        latent = mean + variance.sqrt() * row.latent_noise
        states = under(latent, row.steps.observation)
        with torch.no_grad():
            behind = nets.value(self._learning.slow, under(latent, row.steps.next_observation))
            factor = options.discount * ~row.steps.ended
            wanted = bellman_target(options.reward_scale * row.steps.paid, factor, behind)
        error = 2 * critic_loss(parts[CRITIC], nets.sac, states, row.steps.action, wanted)
        (error / num + options.kl_weight * divergence(mean, variance).sum()).backward()
        return states.detach()

    def _acted(self, row: Batch, states: Tensor, num: int) -> None:
        nets, parts, one = self._learning.nets, self._learning.parts, torch.ones(())
        outputs = nets.actor(parts[ACTOR], states)
        known = nets.sac._replace(actor=lambda *_: outputs)
        value, _ = soft_value(known, {}, parts[CRITIC], one, states, row.action_noise)
        valued = value_loss(parts[VALUE], nets.value, states, value.detach())
        small = sum(out.square().mean() for out in outputs)
        ((valued + self._options.output_weight * small - value.mean()) / num).backward()


def fastest(rounds: int, *works: Callable[[], object]) -> list[float]:
    """The least CPU seconds of each, in rounds by turns."""
    taken: list[list[float]] = [[] for _ in works]
    for round_ in range(rounds + 1):
        for work, own in zip(works, taken, strict=True):
            began = time.process_time()
            work()
            if round_:
                own.append(time.process_time() - began)
    return [min(own) for own in taken]


if __name__ == "__main__":
    main()
