"""Every option of an expert's training, declared and documented once.

The command line, the TOML files and the checkpoints are made from these fields. Steps are control
steps of single environments; an update is one gradient step of both critics, actor and temperature.
"""

from __future__ import annotations

from dataclasses import dataclass

from demokit.errors import DemokitError
from demokit.options import DEVICES, check_options, option

PRECISIONS = ("bf16", "float32")


@dataclass(frozen=True)
class SacConfig:
    """The configuration of one training; see the fields' help."""

    seed: int = option(0, "Seed of networks, exploration and start noise.", zero=True)
    total_steps: int = option(
        2_000_000, "Environment steps of the training; with --per-task, of each task's."
    )
    # How data and updates are balanced.
    num_envs: int = option(64, "Simulations stepped together; each draws its own tasks.")
    updates: int = option(4, "Updates after every step of all simulations.")
    batch_size: int = option(256, "Transitions in one update.")
    buffer_size: int = option(500_000, "Transitions kept.")
    warmup_steps: int = option(20_000, "Environment steps before the first update.")
    # The algorithm.
    hidden_width: int = option(256, "Units in each of the two hidden layers.")
    learning_rate: float = option(5e-4, "Step size of Adam, for all parts.")
    discount: float = option(0.99, "Discount per control step.", at_most=1)
    n_steps: int = option(5, "Rewards summed before bootstrapping.")
    tau: float = option(
        0.005, "Share of the critic that its target takes at each update.", at_most=1
    )
    reward_scale: float = option(0.1, "The dense reward is multiplied by this.")
    entropy_per_action: float = option(-1.0, "Target entropy, per action component.", signed=True)
    initial_temperature: float = option(0.1, "Entropy coefficient at the start; it is learned.")
    # Book-keeping and speed.
    eval_every: int = option(64_000, "Evaluate and write a checkpoint every so many steps.")
    eval_episodes: int = option(2, "Episodes per task of an evaluation.")
    precision: str = option(
        "bf16",
        "Matrix products of the updates: bf16 where the processor has it (AVX512-BF16, AMX, tensor "
        "cores; float32 elsewhere), or float32.",
        PRECISIONS,
    )
    compile: bool = option(True, "Compile the updates (torch.compile; needs a C++ compiler).")
    threads: int = option(
        0,
        "Torch threads of the updates; 0 takes all cores but one, at most four. With more threads "
        "than idle cores, updates are many times slower.",
        zero=True,
    )
    device: str = option(
        "cpu", "Where the networks live and are updated; simulations stay on the CPU.", DEVICES
    )

    def __post_init__(self) -> None:
        """Check choices and ranges; raises DemokitError naming the option."""
        check_options(self)
        needed = (self.n_steps - 1) * self.num_envs
        if self.warmup_steps < needed:
            raise DemokitError(
                f"Option warmup_steps must be at least {needed:,}, not {self.warmup_steps:,}: the "
                f"first update sums n_steps = {self.n_steps} rewards of num_envs = {self.num_envs} "
                "simulations."
            )
        if self.total_steps <= self.warmup_steps:
            raise DemokitError(
                f"Option total_steps must be above warmup_steps = {self.warmup_steps:,}, not "
                f"{self.total_steps:,}: nothing is learned before the first update."
            )
