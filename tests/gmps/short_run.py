"""The smallest run that does everything."""

NUM_TASKS, DEMOS = 3, 2
SHORT = (
    *("--demos-per-task", str(DEMOS)),
    *("--iterations", "4"),
    *("--outer-steps", "2"),
    *("--rollouts-per-task", "3"),
    *("--imitation-steps", "200"),
    *("--checkpoint-every", "1"),
    *("--threads", "1"),
)
