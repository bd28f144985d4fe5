"""The smallest run that does everything, and episodes that end early."""

from dataclasses import replace

import numpy as np
import pytest
from devices import DEVICE

from gmps.loop import train
from gmps.method import find_method
from gmps.policies.gaussian import GaussianActor
from gmps.problem import Problem, Training
from gmps.progress import ITERATIONS, unheard
from gmps.runs.folder import Run

NUM_TASKS, DEMOS = 3, 2
REMEMBERING = ("rl2", "snail")
"""Methods that adapt by their memory of one episode after the other."""
PLANNING, EXPLORING = "model-based", "meta-exploration"
REWARDED = (
    *("maml", "e-maml", "promp", "multitask", "maesn", EXPLORING, "pearl", PLANNING),
    *REMEMBERING,
)
"""Methods that learn from reward alone."""
_EVERY = (
    *("--demos-per-task", str(DEMOS)),
    *("--iterations", "4"),
    *("--rollouts-per-task", "3"),
    *("--checkpoint-every", "1"),
    *("--threads", "1"),
    *("--device", DEVICE),
)
SHORT = (*_EVERY, "--outer-steps", "2")
SHORT_IMITATION = (*_EVERY, "--method", "imitation", "--steps", "50")
SHORT_REWARD = (
    *("--iterations", "1", "--rollouts-per-task", "3", "--eval-every", "1"),
    *("--threads", "1"),
)
SHORT_MEMORY = (
    *("--iterations", "2", "--trials", "4", "--minibatches", "3", "--eval-every", "1"),
    *("--threads", "1"),
)
SHORT_PLANNING = (
    *("--iterations", "2", "--steps", "5", "--windows", "4", "--eval-every", "1"),
    *("--candidates", "8", "--horizon", "3", "--threads", "1"),
)
SHORT_PEARL = (
    *("--iterations", "2", "--gradient-steps", "4", "--initial-rollouts", "2", "--eval-every", "1"),
    *("--threads", "1"),
)
SHORT_INFERENCE = (
    *("--method", "task-inference", "--iterations", "2", "--steps", "20", "--model-steps", "20"),
    *("--training-rollouts", "4", "--eval-every", "1", "--threads", "1"),
)
SHORT_DPT = (
    *("--method", "dpt", "--iterations", "2", "--steps", "3", "--batch", "5", "--width", "8"),
    *("--replays", "2", "--context-episodes", "1", "--eval-every", "1", "--threads", "1"),
    *("--outer-lr", "1e-4"),  # the first steps of AdamW are as long for rounding as for gradients
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


def options_of(method="gmps", **changes):
    """The options of a run of a few seconds."""
    short = {"iterations": 4, "rollouts_per_task": 3, "checkpoint_every": 1, "device": DEVICE}
    clones = {"steps": 2}
    own = {"imitation": clones, "oracle": clones, "context-search": clones, "replay": {}}
    inferred = {"steps": 4, "model_steps": 4, "training_rollouts": 3}
    looks = {"moves": 1, "ascent": 2, "eval_every": 4}
    own["task-inference"] = {**inferred, **looks, "device": "cpu"}
    reads = {"width": 8, "layers": 2, "batch": 4, "queries": 6, "replays": 2, "context_episodes": 2}
    own["dpt"] = {"steps": 2, "rollouts_per_task": 1, **reads}
    own |= {name: {} for name in REWARDED}
    own[PLANNING] = {"steps": 4, "windows": 4, "candidates": 8, "horizon": 3}
    own |= {name: {"rollouts_per_task": 1, "trials": 4, "minibatches": 2} for name in REMEMBERING}
    own["pearl"] = {"rollouts_per_task": 1, "gradient_steps": 3, "meta_batch": 4, "batch": 8}
    own["pearl"] |= {"context": 6, "hidden_width": 16, "encoder_width": 16}
    short |= own.get(method, {"outer_steps": 2})
    if method not in REWARDED:
        short["demos_per_task"] = DEMOS
    return find_method(method).options(**{**short, **changes})


def learner_of(demos, method="gmps", options=None):
    """The learner before training, with the problem."""
    problem, options = Problem.of(demos), options or options_of(method)
    return find_method(method).code.start(Training(problem, options, demos)), problem


def trained_in(folder, demos, method="gmps", options=None, report=unheard, **how):
    """A run from where it is to its end, see `Run` and `train`."""
    run = Run(folder, method, options or options_of(method), "demos", **how)
    try:
        return train(run, Problem.of(demos), demos, report)
    finally:
        run.close()


def halted_and_resumed(folder, demos, method="gmps", options=None):
    """The run of a folder, stopped after the second iteration, and begun again from its file."""
    with pytest.raises(KeyboardInterrupt):
        trained_in(folder, demos, method, options, report=Stops(2))
    return trained_in(folder, demos, method, options, resume=True)


class Stops:
    """Ends a training as Ctrl-C does, when so many iterations are done and saved."""

    def __init__(self, after):
        self._after = after

    def __call__(self, what, done, *_, **__):
        if what == ITERATIONS and done > self._after:
            raise KeyboardInterrupt


def roll_outs(sampler, learner, seed=0, step=0):
    """What a learner's explorer and exploiter do, knowing nothing."""
    rngs = sampler.streams(np.random.default_rng(seed))
    belief = learner.begin(sampler.num_tasks)
    exploiter = learner.exploiter(belief, sampler.mean) if sampler.mean else None
    return sampler(learner.explorer(belief, step, sampler.explore, rngs), rngs, exploiter)


def acted(sampler, policy, params, seed=0):
    """Roll-outs of a policy with parameters (M, ...), sampled and by its mean."""
    actor = GaussianActor(policy, params)
    return sampler(actor, sampler.streams(np.random.default_rng(seed)), actor)
