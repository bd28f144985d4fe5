"""RL2, SNAIL and the decision-pretrained transformer: roll-outs, updates, and what they keep.

    python benchmarks/black_box.py

HalfCheetahVel, horizon 200, with the methods' own settings: trials of two episodes of RL2 and
SNAIL, of four of DPT, one on each of 32 tasks; of RL2 on 100, too, as gmps/presets/rl2.toml has
them. The limit of roll-outs: `mujoco.batch` stepping the same simulations through the same physics
(starts and actions of the last episodes), with nothing around it, in the same run. All are CPU
seconds, of all threads together, which other load on the machine disturbs less than wall-clock.
Updates are steps of the optimiser: one of PPO goes through a quarter of the trials, one of DPT
through 16 contexts with 64 queries each.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from click.testing import CliRunner
from mujoco.batch import Batch

from demokit.cli import main as demokit
from demokit.envs import make_family
from demokit.envs.batch import SimBatch
from demokit.envs.tasks import make_tasks
from demokit.random import stream
from gmps.beliefs import tensors_of
from gmps.distributed import WHOLE
from gmps.experience.demos import DemoSet, load_demos
from gmps.experience.rollouts import Rollouts
from gmps.experience.trials import Trials
from gmps.method import find_method
from gmps.methods.dpt.algorithm import Shown, _imitate, drawn
from gmps.methods.dpt.gathering import Gathering
from gmps.methods.memory.algorithm import _improve, targets
from gmps.problem import Problem, Training

FAMILY, TRIALS, REPEATS = "cheetah-vel", 32, 3


def main() -> None:
    torch.set_num_threads(1)
    family = make_family(FAMILY)
    for name, trials in (("rl2", 100), ("rl2", TRIALS), ("snail", TRIALS)):
        remembering(name, family, trials)
    with TemporaryDirectory() as folder:
        reading(demonstrations(Path(folder) / "demos.hdf5"))


def remembering(name: str, family: Any, num: int) -> None:
    tasks = make_tasks(family, "uniform", "train", num_tasks=num)
    method = find_method(name)
    options = method.options(trials=num)
    training = Training(Problem.in_family(family, "dense", "state", tasks), options)
    learner, sampler = method.code.start(training), training.sampler(explore=1)
    gathered, belief = roll_out(learner, sampler, options.trial_episodes)
    ours, limit = rates(learner, sampler, options.trial_episodes)
    meta, trials = learner.meta.learnable(), Trials.of(gathered)
    optimizer = torch.optim.Adam(meta.leaves(), lr=options.outer_lr)
    goal = targets(learner, trials, torch.ones(()), options, WHOLE)

    def improve() -> None:
        _improve(learner.policy, meta, optimizer, trials, goal, stream(0, "order"), options)

    seconds = typical(improve) / (options.outer_epochs * options.minibatches)
    report(f"{name}, {num} trials", ours, limit, seconds, target=name == "rl2")
    held = sum(size(getattr(trials, part)) for part in trials.__dataclass_fields__)
    memory = sum(map(size, tensors_of(belief).values()))
    print(f"  memory: trials {held / 1e6:.1f} MB, what is remembered of them {memory / 1e6:.2f} MB")


def reading(demos: DemoSet) -> None:
    method, problem = find_method("dpt"), Problem.of(demos)
    training = Training(problem, method.options(), demos)
    options, learner = training.options, method.code.start(training)
    kept = Gathering(training).replays(stream(0, "replays"))
    learner = learner.with_rewards(kept.met.reward[kept.met.counts])
    ours, limit = rates(learner, training.sampler(explore=1), options.context_episodes + 1)
    meta, shown = learner.meta.learnable(), Shown.of(training, kept.asked)
    optimizer = torch.optim.AdamW(meta.leaves(), lr=options.outer_lr)
    rng = stream(0, "lessons")

    def learn() -> None:
        lesson = drawn(kept.met, shown, rng, options)
        _imitate(learner.policy, meta, optimizer, lesson, options.max_grad_norm, WHOLE)

    report(f"dpt, {TRIALS} trials", ours, limit, typical(learn), target=False)
    episode = sum(size(part[:, :1]) for part in kept.met)
    print(
        f"  memory: contexts of {TRIALS} tasks, {options.kept_episodes} episodes of each at most: "
        f"{options.kept_episodes * episode / 1e6:.1f} MB"
    )


def roll_out(learner: Any, sampler: Any, episodes: int) -> tuple[list[Rollouts], Any]:
    """The episodes of a trial of every task, and what is believed then."""
    rng, belief, gathered = stream(0, "rollouts"), learner.begin(sampler.num_tasks), []
    for episode in range(episodes):
        rngs = sampler.streams(rng)
        explorer = learner.explorer(belief, episode, 1, rngs)
        rollouts, memory, _ = sampler(explorer, rngs).explored
        gathered.append(rollouts)
        belief = learner.adapt(belief, episode, rollouts, memory)
    return gathered, belief


def demonstrations(path: Path) -> DemoSet:
    """What somebody does who knows nothing: only the time that it takes to learn it matters."""
    asked = ("record", "--env", FAMILY, "--tasks", TRIALS, "--episodes-per-task", 1)
    words = [str(word) for word in (*asked, "--expert", "random", "--out", path)]
    CliRunner().invoke(demokit, words, catch_exceptions=False)
    return load_demos(path, labels="executed")


class Bare:
    """`mujoco.batch` alone, from the starts and by the actions of roll-outs."""

    def __init__(self, sampler: Any, rollouts: Rollouts) -> None:
        family, num = make_family(FAMILY), sampler.num_tasks
        sims = SimBatch(family, num)
        sims.reset(sampler.contexts.double().numpy(), sampler.starts)
        self.start, self.frame_skip = sims.get_state().physics, family.frame_skip
        self.actions = rollouts.action[:, 0].clamp(-1, 1).transpose(0, 1).double().numpy()
        self.batch = Batch(family.model, num, 0)

    def step_through(self) -> None:
        """An episode of every simulation."""
        self.batch.state[:] = self.start
        for action in self.actions:
            self.batch.ctrl[:] = action
            self.batch.step(nstep=self.frame_skip)


def rates(learner: Any, sampler: Any, episodes: int) -> tuple[float, float]:
    """Environment steps in a CPU second, ours and the limit's: medians, taken in turns."""
    gathered, _ = roll_out(learner, sampler, episodes)
    bare = Bare(sampler, gathered[-1])
    ours, limit = [], []
    for _ in range(REPEATS):
        ours.append(cpu_seconds(lambda: roll_out(learner, sampler, episodes)) / episodes)
        limit.append(cpu_seconds(bare.step_through))
    steps = sampler.num_steps
    return steps / statistics.median(ours), steps / statistics.median(limit)


def report(name: str, ours: float, limit: float, update_s: float, *, target: bool) -> None:
    goal = "   (target >= 0.50)" if target else ""
    print(f"{name}")
    print(f"  roll-outs of trials  {ours:10,.0f} steps/s")
    print(f"  mujoco.batch alone   {limit:10,.0f} steps/s")
    print(f"  ratio                {ours / limit:10.2f}{goal}")
    print(f"  updates              {1 / update_s:10.1f} /s")


def cpu_seconds(work: Callable[[], Any]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def typical(work: Callable[[], Any]) -> float:
    return statistics.median(cpu_seconds(work) for _ in range(REPEATS))


def size(values: torch.Tensor) -> int:
    return values.numel() * values.element_size()


if __name__ == "__main__":
    main()
