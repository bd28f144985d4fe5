"""The loop of a user: one simulation of the family, and a trial that says what to do in it."""

from dataclasses import replace

import numpy as np

from demokit.envs.batch import make_sims
from gmps.method import method_names

METHODS = method_names()
TOLD = {"oracle"}


def held_out(agent):
    """A task that no training met."""
    return replace(agent.trained.problem.tasks[0], id="t/0", context=(0.3, -0.2))


def context_of(agent, task):
    return task.context if agent.method in TOLD else None


def drive(trial, agent, task, ends=lambda episode, t: False):
    """The loop of a user, in the family's simulation."""
    sims = make_sims(agent.trained.problem.family, 1, reward=agent.trained.problem.reward)
    while trial.gathering:
        episode, t = trial.episode, 0
        observation = sims.reset(np.array([task.context]), [trial.start_seed])
        over = False
        while not over:
            step = sims.step(trial.act(observation[0])[None])
            t += 1
            over = trial.record(
                step.reward[0],
                step.terminated[0],
                ends(episode, t),
                final_observation=step.observation[0],
            )
            observation = step.observation
    return trial.adapted()
