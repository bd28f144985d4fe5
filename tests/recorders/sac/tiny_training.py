"""The smallest training that does everything, on Point."""

from devices import DEVICE

TINY = (
    *("--env", "point", "--task-set", "uniform", "--tasks", "4"),
    *("--total-steps", "800", "--num-envs", "8", "--warmup-steps", "200", "--updates", "1"),
    *("--batch-size", "32", "--hidden-width", "16", "--buffer-size", "1000"),
    *("--eval-every", "400", "--no-compile", "--threads", "1"),
    *("--device", DEVICE),
)
