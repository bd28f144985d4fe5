"""The smallest run that does everything, and episodes that end early."""

from dataclasses import replace

import numpy as np
from devices import DEVICE

NUM_TASKS, DEMOS = 3, 2
SHORT = (
    *("--demos-per-task", str(DEMOS)),
    *("--iterations", "4"),
    *("--outer-steps", "2"),
    *("--rollouts-per-task", "3"),
    *("--imitation-steps", "200"),
    *("--checkpoint-every", "1"),
    *("--threads", "1"),
    *("--device", DEVICE),
)


def cut(episode, steps):
    """The episode as if it had ended after `steps`."""
    ended = np.arange(steps) == steps - 1
    return replace(
        episode,
        observations=episode.observations[: steps + 1],
        actions=episode.actions[:steps],
        rewards=episode.rewards[:steps],
        terminations=ended,
        truncations=np.zeros(steps, np.bool_),
        privileged={name: rows[: steps + 1] for name, rows in episode.privileged.items()},
    )
